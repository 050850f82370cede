"""Incidents are read out of a long history: of each entry only as much is held as that
needs."""

import random

import pytest

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.incident import bare, incidents

STATES = ("closed", "open", "half_open")


def history(luck: random.Random, count: int) -> list[Entry]:
    """Moves, words of operators and notes of three breakers."""
    return [entry(luck, number) for number in range(1, count)]


def entry(luck: random.Random, number: int) -> Entry:
    breaker = f"main/{luck.choice(('connect', 'read', 'write'))}"
    more = {"id": number, "at": float(number), "target": "main", "breaker": breaker}
    match luck.randrange(6):
        case 0:
            state = luck.choice(("forced_open", "disabled", None))
            details = {"state": state, "reason": f"a word {number}", "until": 9e9}
            text = f"forced {number}"
            return Entry(**more, kind=Kind.OVERRIDE, text=text, details=details)
        case 1 if number > 1:
            of = {"of": luck.randrange(1, number)}
            return Entry(**more, kind=Kind.NOTE, text="the disk", details=of)
    seen = {"code": "lost", "sqlstate": luck.choice(("57P01", None)), "text": "gone"}
    details = {
        "from": luck.choice(STATES),
        "to": luck.choice(STATES),
        "cause": luck.choice(("confirmed", "recovered")),
        "override": luck.choice((None, None, "forced_open")),
        "evidence": luck.choice((None, seen)),
        "seq": number,
        "retry_after_seconds": 1.5,
    }
    text = f"moved {number}"
    return Entry(**more, kind=Kind.TRANSITION, text=text, details=details)


@pytest.mark.parametrize("seed", range(200))
def test_bare_entries_tell_of_the_same_incidents(seed):
    whole = history(random.Random(seed), 60)

    assert incidents(map(bare, whole)) == incidents(whole)


def test_a_bare_entry_holds_neither_evidence_in_words_nor_what_it_counts():
    luck = random.Random(1)
    held = [bare(e).details for e in history(luck, 100) if e.kind is Kind.TRANSITION]

    assert any("evidence" in details for details in held)
    for details in held:
        assert details.get("evidence", {}).keys() <= {"sqlstate"}
        assert not details.keys() & {"seq", "retry_after_seconds"}
