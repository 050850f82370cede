"""The record: what is counted, and what is not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbreaker.core.forecast.score import FORESIGHT, Score

HOUR = 3600.0


def counts(score):
    return (score.came, score.late, score.false, score.missed)


def test_a_failure_that_was_warned_of_in_time():
    score = Score()
    score.begins(0.0)
    score.fails(1200.0)

    assert counts(score) == (1, 0, 0, 0)
    assert (score.precision, score.recall, score.lead) == (1.0, 1.0, 1200.0)


def test_a_minute_is_what_it_takes_to_have_foreseen_it():
    """A storm of half a minute that was told ten seconds before was not foreseen."""
    score = Score()
    score.begins(0.0)
    score.fails(FORESIGHT - 1)

    assert counts(score) == (0, 1, 0, 0)
    assert score.precision is None
    assert score.recall == 0.0


def test_a_failure_without_a_warning_was_missed():
    score = Score()
    score.fails(10.0)

    assert counts(score) == (0, 0, 0, 1)
    assert score.precision is None


def test_a_warning_that_nothing_came_of_is_false_an_hour_after_its_end():
    score = Score()
    score.begins(0.0)
    score.ends(600.0)
    score.settle(600.0 + HOUR - 1)
    assert counts(score) == (0, 0, 0, 0)

    score.settle(600.0 + HOUR)

    assert counts(score) == (0, 0, 1, 0)
    assert score.precision == 0.0
    assert score.recall is None


def test_a_warning_that_stands_is_neither_true_nor_false():
    score = Score()
    score.begins(0.0)
    score.settle(100 * HOUR)

    assert counts(score) == (0, 0, 0, 0)


def test_a_failure_soon_after_a_warning_ended_was_warned_of():
    score = Score()
    score.begins(0.0)
    score.ends(600.0)
    score.fails(1800.0)

    assert counts(score) == (1, 0, 0, 0)
    assert score.lead == 1800.0


def test_a_warning_that_comes_again_within_an_hour_is_the_same():
    score = Score()
    score.begins(0.0)
    score.ends(600.0)
    score.begins(1800.0)
    score.ends(2400.0)
    score.settle(3 * HOUR)

    assert counts(score) == (0, 0, 1, 0)


def test_a_failure_that_goes_on_is_one():
    """A breaker that flaps opens many times; a full server is full at every look."""
    score = Score()
    for at in range(0, 10_000, 2):
        score.fails(float(at))

    assert counts(score) == (0, 0, 0, 1)


def test_nobody_is_warned_of_what_is_there():
    """Slots that were full a moment ago, and nearly are, are no news."""
    score = Score()
    score.fails(0.0)
    score.begins(60.0)
    score.ends(120.0)
    score.settle(10 * HOUR)

    assert counts(score) == (0, 0, 0, 1)


def test_a_warning_that_stands_an_hour_after_a_failure_is_of_the_next():
    score = Score()
    score.fails(0.0)
    score.begins(600.0)
    for minute in range(10, 180):
        score.settle(60.0 * minute)
    score.fails(3 * HOUR)

    assert counts(score) == (1, 0, 0, 1)
    assert score.lead == pytest.approx(2 * HOUR, abs=60)


def test_a_failure_that_goes_on_over_a_restart_is_one():
    """The clock of another process begins anew; that of the wall goes on."""
    score = Score()
    score.fails(5000.0)
    again = Score.recall_from(score.memory(1e9), 1e9 + 5300.0)
    again.fails(100.0)

    assert counts(again) == (0, 0, 0, 1)


def test_the_lead_is_the_median():
    score = Score()
    for number, lead in enumerate((100.0, 200.0, 900.0)):
        score.begins(number * 10 * HOUR)
        score.fails(number * 10 * HOUR + lead)

    assert score.lead == 200.0
    assert score.leads == (100.0, 200.0, 900.0)


ACTS = st.lists(
    st.tuples(st.sampled_from(["begins", "ends", "fails", "settle"]), st.floats(0, 1e4))
)


@given(ACTS)
def test_each_warning_and_each_failure_is_counted_once_at_most(acts):
    score, at, warnings, failures = Score(), 0.0, 0, 0
    for act, passed in acts:
        at += passed
        getattr(score, act)(at)
        warnings += act == "begins"
        failures += act == "fails"

    # One that stands on after a failure is another, of the next.
    assert score.came + score.late + score.false <= warnings + failures
    assert score.came + score.late + score.missed <= failures
    assert all(0 <= share <= 1 for share in (score.precision or 0, score.recall or 0))


@given(ACTS)
def test_what_is_remembered_is_the_same_again(acts):
    score, at = Score(), 0.0
    for act, passed in acts:
        at += passed
        getattr(score, act)(at)

    again = Score.recall_from(json.loads(json.dumps(score.memory())))

    assert counts(again) == counts(score)
    assert again.leads == pytest.approx(score.leads, abs=0.5)


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"came": 1, "late": 0, "false": 0, "missed": -1, "leads": []},
        {"came": True, "late": 0, "false": 0, "missed": 0, "leads": []},
        {"came": 1, "late": 0, "false": 0, "missed": 0, "leads": "many"},
        {"came": 1, "late": 0, "false": 0, "missed": 0, "leads": [float("inf")]},
        {"came": 1, "late": 0, "false": 0, "missed": 0, "leads": [None]},
    ],
)
def test_rubbish_is_no_record(memory):
    with pytest.raises(ValueError, match="no record"):
        Score.recall_from(memory)
