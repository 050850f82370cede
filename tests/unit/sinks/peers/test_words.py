"""Operators' words: whatever gets lost and in whatever order it comes, the last one holds
everywhere."""

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import OVERRIDES, State
from pgbreaker.sinks.peers.words import FleetWord, Words, read

NOW = 1_800_000_000.0
DAY = 86_400.0
BREAKERS = ("main/read", "main/write")


def word(at: float = NOW, daemon: str = "a", **more) -> FleetWord:
    known = {
        "breaker": "main/read",
        "version": (int(at * 1000), daemon),
        "state": State.FORCED_OPEN,
        "reason": "the disk is being changed",
        "author": "mia",
        "until": at + 3600,
    }
    return FleetWord(**known | more)


def decided(breaker: str, state: State | None, **more) -> Entry:
    """What the history says of an operator's decision here."""
    details = {
        "state": state and state.value,
        "reason": more.get("reason", "as agreed"),
        "until": more.get("until"),
    }
    return Entry(
        id=1,
        at=0.0,
        kind=Kind.OVERRIDE,
        text="said",
        target=breaker.partition("/")[0],
        breaker=breaker,
        author=more.get("author", "mia"),
        details=details,
    )


class Mail:
    """An engine, as far as words go: what stands, and what was said since the beginning.

    As the real one it keeps the later of two words, and tells of no other.
    """

    def __init__(self) -> None:
        self.standing: dict[str, str] = {}
        self.said: list[str] = []

    def say(self, text: str) -> None:
        said = read(text)
        known = self.standing.get(said.breaker)
        if known is None or read(known).version < said.version:
            self.standing[said.breaker] = text
            self.said.append(text)


class Daemon:
    """One that hears words, and obeys them."""

    def __init__(self, name: str, ahead: float) -> None:
        self.name = name
        self.words = Words(name)
        self.ahead = ahead  # what it takes the engine's time for
        self.mail: Mail | None = None
        self.read = 0

    def join(self, mail: Mail, now: float) -> None:
        self.mail, self.read = mail, len(mail.said)
        for text in mail.standing.values():
            self.words.hear(read(text))
        self.words.tell_all(now + self.ahead)

    def part(self) -> None:
        self.mail = None

    def decide(self, breaker: str, state: State | None, now: float, text: str) -> None:
        entry = decided(breaker, state, reason=text, until=now + 3 * DAY)
        self.words.note(entry, now + self.ahead, self.ahead)

    def tell(self) -> None:
        if self.mail is not None:
            untold = self.words.untold()
            for said in untold:
                self.mail.say(said.written())
            self.words.are_told(untold)

    def listen(self) -> None:
        if self.mail is not None:
            for text in self.mail.said[self.read :]:
                self.words.hear(read(text))
            self.read = len(self.mail.said)


def lived_through(seed: int) -> tuple[list[Daemon], Mail]:
    """Daemons that decide, part and join while engines come and go; all joined at last."""
    chance, now, mail = random.Random(seed), NOW, Mail()
    names = "abcd"[: 2 + seed % 3]
    daemons = [Daemon(name, chance.uniform(-60, 60)) for name in names]
    for step in range(150):
        now += chance.choice((0.0, 0.001, 0.5, 30.0))
        daemon, what = chance.choice(daemons), chance.randrange(13)
        if what < 2:
            state = chance.choice((*OVERRIDES, None))
            daemon.decide(chance.choice(BREAKERS), state, now, f"word {step}")
        elif what < 12:
            do = (daemon.tell, daemon.listen, daemon.part, lambda: 0)[what % 4]
            do()
            if what % 4 == 3:
                daemon.join(mail, now)
        else:
            mail = Mail()  # who had joined the old one hears no more of it
            for one in daemons:
                one.part()
    for daemon in daemons:
        daemon.join(mail, now)
    for daemon in daemons * 2:
        daemon.tell()
    for daemon in daemons:
        daemon.listen()
    return daemons, mail


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_lost_and_whoever_is_away_all_end_with_the_same_word(seed):
    daemons, mail = lived_through(seed)

    for breaker in BREAKERS:
        last = [one.words.of(breaker) for one in daemons]
        known = {None if word is None else word.written() for word in last}
        assert known == {mail.standing.get(breaker)}
    assert mail.standing
    assert not any(daemon.words.untold() for daemon in daemons)


def test_every_order_of_four_words_ends_with_the_last():
    said = [
        word(NOW, "b"),
        word(NOW, "a", reason="at the same moment"),
        word(NOW + 0.001, "a", state=None),
        word(NOW - 5, "z", state=State.DISABLED),
    ]
    for order in itertools.permutations(said):
        words = Words("c")
        news = [words.hear(one) for one in order]

        assert words.of("main/read") == said[2]
        assert news[order.index(said[2])]
        assert not any(words.hear(one) for one in order)


def test_who_has_heard_of_a_word_decides_after_it_whatever_the_clocks_say():
    words = Words("slow")
    words.hear(word(NOW + 600, "fast"))

    words.note(decided("main/read", None), NOW, 0.0)

    last = words.of("main/read")
    assert last is not None
    assert last.state is None
    assert last.version > word(NOW + 600, "fast").version


def test_that_a_word_was_taken_back_is_known_for_a_month():
    """Who was away for a week may still have it before a breaker."""
    words = Words("a")
    words.note(decided("main/read", None), NOW, 0.0)

    words.tell_all(NOW + 30 * DAY)
    assert [one.state for one in words.untold()] == [None]

    words.tell_all(NOW + 32 * DAY)
    assert words.untold() == []
    assert words.of("main/read") is None


def test_one_that_ran_out_goes_on_to_hold_off_what_it_took_the_place_of():
    """
    Mia forces a breaker open for a day, and ten minutes later ben has it disabled for a
    minute. Whoever did not hear ben must not bring mia's word back once his ran out.
    """
    mia = word(NOW, "a", until=NOW + DAY)
    ben = word(NOW + 600, "b", until=NOW + 660, author="ben", state=State.DISABLED)
    heard, away = Words("c"), Words("d")
    heard.hear(mia)
    away.hear(mia)
    heard.hear(ben)

    heard.tell_all(NOW + 3600)
    away.tell_all(NOW + 3600)

    assert heard.untold() == [ben]
    assert not heard.hear(mia)
    assert away.hear(ben)


def test_that_a_word_ran_out_here_is_told_to_nobody():
    words = Words("a")

    words.note(decided("main/read", None, author=None), NOW, 0.0)

    assert words.untold() == []


def test_its_end_is_told_in_the_time_of_the_engine():
    words = Words("a")

    words.note(decided("main/read", State.DISABLED, until=NOW + 60), NOW + 5, 5.0)

    (said,) = words.untold()
    assert said.until == NOW + 65
    assert said.version == (int((NOW + 5) * 1000), "a")


def test_what_was_decided_before_the_process_began_is_known_again():
    words = Words("a")
    kept = {
        "state": "disabled",
        "reason": "as agreed",
        "author": "mia",
        "at": NOW,
        "until": NOW + 60,
    }
    broken = {
        f"main/{number}": kept | change
        for number, change in enumerate(
            ({"state": "shut"}, {"at": None}, {"until": "x"}, {"at": float("inf")})
        )
    }

    words.restore({"main/read": kept, **broken, "main/empty": {}}, 2.0)
    words.tell_all(NOW)

    (said,) = words.untold()
    assert said == word(
        NOW + 2,
        state=State.DISABLED,
        reason="as agreed",
        until=NOW + 62,
    )


def test_one_that_comes_while_another_is_told_is_told_as_well():
    words = Words("a")
    words.note(decided("main/read", State.DISABLED), NOW, 0.0)
    told = words.untold()

    words.note(decided("main/read", None), NOW + 1, 0.0)
    words.are_told(told)

    assert [one.state for one in words.untold()] == [None]


def test_what_another_has_said_is_not_said_after_him():
    words = Words("a")
    words.note(decided("main/read", State.DISABLED), NOW, 0.0)

    assert words.hear(word(NOW + 1, "b"))

    assert words.untold() == []


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        FleetWord,
        breaker=texts,
        version=st.tuples(st.integers(0, 2**53 - 1), texts),
        state=st.none() | st.sampled_from(OVERRIDES),
        reason=texts,
        author=texts,
        until=st.integers(0, 2**42).map(lambda ms: ms / 1000),
    )
)
@settings(deadline=None, max_examples=100)
def test_what_was_written_is_read_again(said):
    assert read(said.written()) == said


WRONG = [
    *("", "{", "null", "[]", "1", '"word"', "{}"),
    *(
        json.dumps(json.loads(word().written()) | {key: value})
        for key, values in {
            "version": [None, [], [1], [1, 2], ["1", "a"], [True, "a"], [-1, "a"], 7],
            "state": ["shut", "open", "half_open", 1, []],
            "until": [None, "x", float("nan"), float("inf"), 10**400, []],
            "breaker": [None, 1],
            "reason": [None, []],
            "author": [None, {}],
        }.items()
        for value in values
    ),
    json.dumps(json.loads(word().written()) | {"version": [2**53, "a"]}),
    "[" * 100_000,
]


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_what_is_no_word_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        read(text)


@given(st.text(max_size=30) | st.binary(max_size=30).map(str))
@settings(deadline=None, max_examples=100)
def test_whatever_comes_is_read_or_refused(text):
    try:
        read(text)
    except ValueError:
        return
