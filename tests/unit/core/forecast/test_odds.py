"""The odds: learnt from what came, worth what they say, and silent otherwise."""

import json
import random
import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbreaker.core.forecast.calibration import PART
from pgbreaker.core.forecast.odds import (
    HORIZON,
    LEAD,
    OPENINGS,
    REST,
    SKILL,
    Odds,
)
from support.tools import missing

NAMES = ("omen", "load", "noise")
AHEAD = int(HORIZON / 60)
RISE = 10  # minutes before an opening in which the omen rises


@dataclass
class Days:
    """Minutes of a target, and the minutes in which a breaker opens."""

    rows: list[list[float]] = field(default_factory=list)
    openings: set[int] = field(default_factory=set)
    rises: list[int] = field(default_factory=list)

    def add(self, seed, days, *, by_day, foretold=0.8, empty=0.0, sign=1.0):
        """Add *days* with so many events each, at random.

        A share *foretold* of the openings has an omen. A share *empty* of the events is
        none: the omen alone.
        """
        draw, begin = random.Random(seed), len(self.rows)
        uniform, random_ = draw.uniform, draw.random
        for minute in range(days * 1440):
            load = 1.0 if minute % 1440 < 720 else 0.0
            self.rows.append([uniform(-1.7, 1.7), load + random_(), random_()])
        slots = range(begin + 60, len(self.rows) - 60, 60)
        for event in sorted(draw.sample(slots, round(by_day * days))):
            event += draw.randrange(30)
            is_empty = draw.random() < empty
            if is_empty or draw.random() < foretold:
                self.rises.append(event)
                for minute in range(event - RISE, event):
                    self.rows[minute][0] += sign * 6.0
            if not is_empty:
                self.openings.add(event)
        return self

    def came(self, minute):
        """Whether an opening comes within the horizon after *minute*."""
        return any(minute + i in self.openings for i in range(1, AHEAD + 1))


def live(odds, days, begin=0, end=None):
    """What *odds* says in each minute; a breaker opens in the middle of one, for a minute."""
    said = []
    rows = days.rows[begin:end]
    for minute, row in enumerate(rows, begin):
        if minute in days.openings:
            odds.opened(minute * 60.0 - 15)
            odds.closed(minute * 60.0 - 1)
        said.append(odds.take(minute * 60.0, row))
    return said


def highest(said, minutes):
    return max((said[minute] or 0.0 for minute in minutes), default=0.0)


@pytest.fixture(scope="module")
def learned():
    """Thirty days with an omen before 80 % of the openings; every fifth omen is empty."""
    days = Days().add(3, 30, by_day=2, empty=0.2)
    odds = Odds(NAMES)
    return odds, days, live(odds, days)


def test_of_openings_by_chance_it_says_nothing():
    """100 days, 40 openings that nothing foretells: whatever it saw in them is not there."""
    days = Days().add(1, 100, by_day=0.4, foretold=0.0)
    odds = Odds(NAMES)

    said = live(odds, days)

    spoken = [(p, days.came(i)) for i, p in enumerate(said) if p is not None]
    assert odds.openings == 40
    assert highest(said, range(len(said))) <= 0.5
    assert len(spoken) < 0.01 * len(said)
    assert odds.silent_because.startswith("its own record is no better")
    assert abs(odds.skill) < SKILL


def test_an_omen_is_learnt_from_twenty_openings(learned):
    _, days, said = learned
    openings = sorted(days.openings)[20:]
    foretold = [event for event in openings if event in days.rises]

    # The last minute that counts is the one before the opening.
    warned = [highest(said, range(event - AHEAD, event)) > 0.5 for event in foretold]

    assert len(foretold) > 15
    assert sum(warned) >= 0.8 * len(warned)


def test_what_it_says_comes_as_often_as_it_says():
    """
    Of the minutes in which it says 0.6 to 0.9, that share is followed by an opening. They
    are of some 50 omens, each true or not as a whole: a share of 0.75 has a standard
    deviation of 0.06, and 0.15 is two and a half of them.
    """
    pairs, seen = [], 0
    for seed in (11, 12):
        days = Days().add(seed, 14, by_day=4, foretold=0.9, empty=0.25)
        for minute, p in enumerate(live(Odds(NAMES), days)):
            if p is not None and 0.6 <= p <= 0.9:
                pairs.append((p, days.came(minute)))
        seen += len(days.rises)

    said = sum(p for p, _ in pairs) / len(pairs)
    came = sum(came for _, came in pairs) / len(pairs)
    assert seen > 70
    assert len(pairs) > 200
    assert came == pytest.approx(said, abs=0.15)


def test_an_omen_that_means_nothing_any_more_is_unlearnt():
    """It goes on to rise, and nothing comes of it."""
    days = Days().add(4, 9, by_day=4).add(5, 4, by_day=8, empty=1.0)
    odds = Odds(NAMES)
    said = live(odds, days)

    told = [
        highest(said, range(event - RISE, event))
        for event in days.rises
        if event > 9 * 1440
    ]

    assert len(told) == 32
    assert told[0] > 0.5
    assert max(told[15:]) < 0.5
    assert max(told[20:]) < 0.3


def test_an_omen_that_turns_is_unlearnt():
    """It now falls before an opening, and rises where none comes."""
    days = Days().add(6, 8, by_day=4).add(7, 4, by_day=4, sign=-1.0)
    days.add(8, 3, by_day=8, empty=1.0)
    said = live(Odds(NAMES), days)

    told = [highest(said, range(e - RISE, e)) for e in days.rises if e > 12 * 1440]

    assert max(told[10:]) < 0.5


@pytest.mark.parametrize("seed", range(4))
def test_five_openings_are_no_certainty(seed):
    """Each was foretold, and no omen was empty."""
    days = Days().add(seed, 3, by_day=2, foretold=1.0)
    fifth = sorted(days.openings)[4]
    sixth = sorted(days.openings)[5]

    said = live(Odds(NAMES), days, end=sixth)

    assert highest(said, range(fifth, sixth)) < 0.8


def test_it_ranks_as_well_as_a_regression_on_all_of_the_past(learned):
    """
    Scikit-learn's is fitted at once on all that ours learnt from minute by minute. See
    tests/bench/forecast/model.py for many seeds, held out, and for river.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import brier_score_loss, roc_auc_score
    except ImportError:
        missing("scikit-learn is missing: pip install scikit-learn")
    _, days, said = learned
    begin = 20 * 1440
    came = [days.came(minute) for minute in range(len(days.rows))]
    past = range(begin - AHEAD)
    held_out = [m for m in range(begin, len(said)) if said[m] is not None]
    fitted = LogisticRegression().fit([days.rows[m] for m in past], came[: len(past)])
    theirs = fitted.predict_proba([days.rows[m] for m in held_out])[:, 1]
    labels = [came[m] for m in held_out]
    ours = [said[m] for m in held_out]

    assert len(held_out) > 0.9 * 10 * 1440
    assert roc_auc_score(labels, ours) >= roc_auc_score(labels, theirs) - 0.03
    assert brier_score_loss(labels, ours) <= brier_score_loss(labels, theirs) * 1.1


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take"] * 6 + ["opened", "closed", "skip"]),
            st.floats(-100, 1000),
            st.lists(st.floats(), min_size=3, max_size=3),
        ),
        max_size=60,
    ),
    warm=st.integers(0, 200),
)
def test_whatever_it_takes_it_stays_a_probability(steps, warm):
    odds, now = Odds(NAMES), 0.0
    for _ in range(warm):
        odds.take(now := now + 60, [1.0, 0.0, -1.0])
    for what, passed, features in steps:
        now += passed
        if what == "take":
            said = odds.take(now, features)
            assert said is None or 0 <= said <= 1
        else:
            getattr(odds, what)(now)
        likely = odds._probability
        assert likely is None or 0 <= likely <= 1
        assert len(odds._waiting) <= 32
        assert all(weight > 0 for _, weight in odds.reasons())
    # Whatever is not finite, or out of range, cannot be recalled.
    Odds(NAMES).recall(json.loads(json.dumps(odds.memory(), allow_nan=False)))


def test_who_recalls_says_the_same(learned):
    odds, days, _ = learned
    odds.skip(len(days.rows) * 60.0 - 30)  # what waits is not remembered
    other = Odds(NAMES)
    memory = json.dumps(odds.memory())
    other.recall(json.loads(memory))

    more = Days(rows=list(days.rows)).add(9, 3, by_day=2)
    begin = len(days.rows)
    ours, theirs = live(odds, more, begin), live(other, more, begin)

    assert None not in ours[:60]
    assert [p is None for p in ours] == [p is None for p in theirs]
    spoken = [p for p in ours if p is not None]
    assert spoken == pytest.approx([p for p in theirs if p is not None], rel=1e-4)
    assert (odds.openings, odds.examples) == (other.openings, other.examples)
    assert odds.learned == other.learned
    assert other.begun == pytest.approx(odds.begun, abs=61)
    assert odds.silent_because == other.silent_because


def test_what_is_remembered_of_forty_features_is_small():
    names = [f"slots_used_growth_{i:02}" for i in range(40)]
    odds, draw = Odds(names), random.Random(1)
    for minute in range(300):
        odds.take(minute * 60.0, [draw.gauss(0, 1e6) for _ in names])
        if minute == 200:
            odds.opened(minute * 60.0 + 5)
            odds.closed(minute * 60.0 + 9)

    assert odds.openings == 1
    assert len(json.dumps(odds.memory())) < 4000


def test_of_other_features_it_begins_anew(learned):
    odds, _, _ = learned
    other = Odds(("omen", "load", "lag"))

    other.recall(odds.memory())

    assert (other.openings, other.examples, other.begun) == (0, 0, None)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("names"),
        lambda m: m.update(version=2),
        lambda m: m.update(examples=-1),
        lambda m: m.update(examples=True),
        lambda m: m.update(taken=1.5),
        lambda m: m.update(begun_ago=-1.0),
        lambda m: m.update(learned_ago="long"),
        lambda m: m.update(bias=[float("nan")]),
        lambda m: m.update(columns=[]),
        lambda m: m.update(columns=None),
        lambda m: m["columns"][0].pop(),
        lambda m: m["columns"][1].__setitem__(0, -1.0),
        lambda m: m["columns"][2].__setitem__(0, float("inf")),
        lambda m: m["columns"][2].__setitem__(0, "heavy"),
        lambda m: m["columns"][3].__setitem__(0, 0.0),
        lambda m: m.update(calibration=[]),
        lambda m: m["calibration"].update(incidents=-1),
        lambda m: m["calibration"]["came"].__setitem__(0, 1e9),
        lambda m: m["calibration"]["seen"].append(1.0),
        lambda m: m.update(skill=[-1.0, 1.0]),
        lambda m: m.update(skill=None),
    ],
)
def test_rubbish_is_not_recalled(learned, change):
    odds, _, _ = learned
    memory = json.loads(json.dumps(odds.memory()))
    change(memory)
    other = Odds(NAMES)
    other.take(1.0, [0.0, 0.0, 0.0])

    with pytest.raises(ValueError, match=r"\w"):
        other.recall(memory)

    assert other.begun == 1.0


@pytest.mark.parametrize("memory", [{}, [], None, "odds"])
def test_what_is_no_memory_is_not_recalled(memory):
    with pytest.raises(ValueError, match="no memory of odds"):
        Odds(NAMES).recall(memory)


def warmed(minutes=120):
    """Odds that have looked at a quiet target for *minutes*."""
    odds, draw = Odds(NAMES), random.Random(2)
    for minute in range(minutes):
        odds.take(minute * 60.0, [draw.random() for _ in NAMES])
    return odds


def test_what_comes_too_late_before_an_opening_is_not_learnt_from():
    """Of the minutes of a quarter of an hour the last one is no foresight."""
    odds = warmed()

    odds.opened(119 * 60.0 + LEAD - 1)

    came = sum(of.came for of in odds._calibration.bins)
    assert came == pytest.approx((AHEAD - 1) * PART)
    assert odds.openings == 1


def test_openings_of_one_incident_are_one():
    odds = warmed()
    at = 120 * 60.0
    odds.opened(at)
    odds.opened(at + 5)
    odds.closed(at + 30)
    odds.take(at + 60, [0.0, 0.0, 0.0])
    odds.opened(at + 30 + REST - 1)
    odds.closed(at + 400)

    assert odds.openings == 1


def test_nothing_is_learnt_while_a_breaker_is_open_and_until_it_has_rested():
    odds = warmed()
    at = 120 * 60.0
    odds.opened(at)
    examples = odds.examples
    for minute in range(60):
        odds.take(at + minute * 60.0, [9.0, 9.0, 9.0])
    odds.closed(at + 3600.0)
    for minute in range(60, 65):
        odds.take(at + minute * 60.0 + 1, [9.0, 9.0, 9.0])

    assert odds.examples == examples
    assert not odds._waiting

    odds.take(at + 3600.0 + REST, [9.0, 9.0, 9.0])
    assert len(odds._waiting) == 1


@pytest.mark.parametrize("how", ["skip", "gap"])
def test_what_nobody_watched_is_no_example(how):
    """An opening after a maintenance, or after the daemon slept, teaches nothing."""
    odds = warmed()
    examples, at = odds.examples, 120 * 60.0
    if how == "skip":
        odds.skip(at)
    else:
        odds.take(at + 600, [0.0, 0.0, 0.0])
    odds.opened(at + 610)

    assert odds.examples == examples
    assert odds.openings == 0


def test_what_is_told_of_the_same_moment_is_taken():
    """The caller has one moment for all that a reading says."""
    odds, at = warmed(), 120 * 60.0
    odds.skip(at)
    odds.take(at, [0.0, 0.0, 0.0])

    assert len(odds._waiting) == 1


def test_a_moment_that_is_not_later_is_ignored():
    odds = warmed()
    before = odds.memory()

    odds.take(119 * 60.0, [9.0, 9.0, 9.0])
    odds.take(5.0, [9.0, 9.0, 9.0])

    assert odds.memory() == before


def test_it_says_why_it_is_silent():
    odds = Odds(NAMES)
    assert odds.silent_because == f"has seen 0 of the {OPENINGS} openings that it needs"

    days = Days().add(5, 1, by_day=9)
    live(odds, days)
    assert odds.openings >= OPENINGS
    assert re.fullmatch(
        r"has learnt for \d+ h of the 24 h that it needs", odds.silent_because
    )


def test_while_a_breaker_is_open_it_is_silent(learned):
    odds, days, _ = learned
    other = Odds(NAMES)
    other.recall(odds.memory())
    at = len(days.rows) * 60.0
    assert other.take(at, [0.0, 0.0, 0.0]) is not None

    other.opened(at + 1)
    assert other.silent_because == "a breaker is open"
    assert other.take(at + 60, [0.0, 0.0, 0.0]) is None

    other.closed(at + 61)
    assert other.silent_because == "a breaker closed less than 60 min ago"

    assert other.take(at + 61 + REST, [0.0, 0.0, 0.0]) is not None
    assert other.silent_because is None


def test_the_reason_is_what_rose(learned):
    odds, days, _ = learned
    other = Odds(NAMES)
    other.recall(odds.memory())

    said = other.take(len(days.rows) * 60.0, [7.0, 0.5, 0.5])

    assert said > 0.5
    assert other.reasons(1)[0][0] == "omen"
    assert other.reasons(1)[0][1] > 2
    assert other.reasons(0) == []


def test_features_have_to_be_as_many_as_names():
    with pytest.raises(ValueError, match="2 features are not 3"):
        Odds(NAMES).take(0.0, [1.0, 2.0])
