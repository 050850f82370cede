"""The runway: exact on lines, silent on everything else."""

import random
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pgbreaker.core.forecast.runway import Runway, Tide

STEPS = st.sampled_from([1.0, 2.0, 15.0, 30.0, 300.0])
SIZES = st.floats(1e-6, 1e12)


def seconds(runway, limit):
    """What is left of it until *limit*, in seconds."""
    left = runway.left(limit)
    return None if left is None else left.seconds


def course(values, step=10.0, **how):
    """A runway that has seen *values*, one each *step* seconds."""
    runway = Runway(**how)
    for i, value in enumerate(values):
        runway.take(i * step, value)
    return runway


@given(
    start=st.floats(0, 1e9),
    growth=SIZES,
    step=STEPS,
    count=st.integers(5, 600),
    ahead=st.floats(0.001, 1e6),
)
def test_of_a_line_it_is_exact(start, growth, step, count, ahead):
    assume(growth > start * 1e-9)  # what is lost in rounding is no line
    values = [start + growth * i for i in range(count)]

    left = seconds(course(values, step), values[-1] + growth * ahead)

    assert left == pytest.approx(step * ahead, rel=1e-3, abs=1e-3 * step)


@given(value=st.floats(0, 1e12), step=STEPS, count=st.integers(1, 300))
def test_what_stays_as_it_is_never_gets_there(value, step, count):
    assert seconds(course([value] * count, step), value + 1 + value) is None


@given(growth=SIZES, count=st.integers(1, 300), fall=st.floats(0, 0.9))
def test_what_falls_never_gets_there(growth, count, fall):
    values = [growth * (count - i) for i in range(count)]

    assert seconds(course(values, fall=fall), growth * (count + 1)) is None


@given(
    tooth=st.integers(2, 50),
    teeth=st.integers(3, 20),
    rest=st.integers(0, 49),
    size=SIZES,
    fall=st.floats(0, 0.9),
)
def test_a_sawtooth_never_gets_there(tooth, teeth, rest, size, fall):
    """It grows most of the time, and comes back by itself all the same."""
    values = [size * (i % tooth) for i in range(tooth * teeth + min(rest, tooth - 1))]

    assert seconds(course(values, fall=fall), size * tooth * 2) is None


@given(
    samples=st.lists(st.tuples(st.floats(-1e12, 1e12), st.floats(0, 1e6)), max_size=200)
)
def test_it_is_never_negative_and_never_infinite(samples):
    runway, now = Runway(), 0.0
    for value, passed in samples:
        now += passed
        runway.take(now, value)
        left = seconds(runway, 0.0)
        assert left is None or 0 <= left < float("inf")


@given(st.integers(0, 2**32))
def test_it_keeps_little_whatever_it_takes(seed):
    draw = random.Random(seed)
    runway, now, value = Runway(fall=0.5), 0.0, 1.0
    for _ in range(500):
        now += draw.choice([0.1, 1, 15, 300, 40_000])
        value = max(0.0, value + draw.choice([0, 1, 1, 1, 100, -1, -value]))
        runway.take(now, value)
    parts = (runway, runway._at, runway._value, runway._falls)
    size = sum(map(sys.getsizeof, parts)) + sum(map(sys.getsizeof, runway._falls))
    assert len(runway._at) <= 64
    assert size <= 3_000


def test_a_day_of_samples_leaves_both_the_last_minutes_and_the_day():
    runway = course(range(5760), 15.0)
    ages = [runway._at[-1] - at for at in runway._at]

    assert len(ages) == 64
    assert ages[0] > 80_000
    assert sum(age <= 900 for age in ages) >= 20
    assert sum(age > 3600 for age in ages) >= 10


def test_what_is_older_than_its_span_is_forgotten():
    flat_then_steep = [0.1 * i for i in range(500)] + [50.0 + i for i in range(100)]

    runway = course(flat_then_steep, 10.0, span=500)

    assert seconds(runway, 249.0) == pytest.approx(1000)


def test_a_value_that_stays_takes_two_places():
    assert len(course([7.0] * 1000)._at) == 2


@pytest.mark.parametrize("count", range(5))
def test_a_few_points_are_no_evidence(count):
    assert seconds(course(range(count)), 100) is None


def test_noise_is_no_growth():
    draw = random.Random(1)
    told = 0
    for _ in range(20):
        runway = Runway(span=900, fall=0.5)
        for i in range(600):
            runway.take(i * 2.0, draw.gauss(60, 3))
            if i % 4 == 0:
                told += seconds(runway, 97) is not None

    assert told <= 3  # of 3,000


def test_growth_shows_through_noise():
    draw = random.Random(2)

    # Three connections a minute, between samples that are four off either way.
    runway = course(
        [50 + 0.1 * i + draw.uniform(-4, 4) for i in range(300)],
        2.0,
        span=900,
        fall=0.5,
    )

    assert seconds(runway, 100) == pytest.approx(400, rel=0.25)


def test_after_a_fall_it_starts_anew():
    """A restart: the slope from before says nothing of the time after."""
    runway = course([*range(0, 100, 10), 1.0, 2.0, 3.0, 4.0])
    assert seconds(runway, 100) is None  # too few points since

    runway.take(140.0, 5.0)

    assert seconds(runway, 100) == pytest.approx(950)


def test_after_two_falls_it_waits_until_it_is_higher_than_ever():
    runway = course([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])
    assert seconds(runway, 20) is None

    runway.take(180.0, 7.0)

    assert seconds(runway, 20) == pytest.approx(130)


def test_falls_are_forgotten_with_time():
    runway = course([1, 9, 1, 9, 1], 10.0, span=1000)
    for i in range(150):
        runway.take(50.0 + 10.0 * i, 1.0 + 0.01 * i)

    assert seconds(runway, 20) is not None


def test_a_small_step_back_is_no_fall_where_some_is_allowed():
    values = [100.0 + i - 3 * (i % 5 == 0) for i in range(28)]

    assert seconds(course(values), 200) is None
    assert seconds(course(values, fall=0.1), 200) is not None


def test_at_the_limit_nothing_is_left():
    assert seconds(course([100.0]), 100.0) == 0.0
    assert seconds(course([1.0, 2.0, 101.0]), 100.0) == 0.0


def test_a_moment_that_is_not_later_is_ignored():
    runway = course(range(10))
    before = seconds(runway, 100)

    runway.take(90.0, 1000.0)
    runway.take(5.0, 0.0)

    assert seconds(runway, 100) == before


def test_nothing_seen_nothing_told():
    assert Runway().left(1.0) is None


# How sure it is.


def test_the_interval_holds_the_truth_nine_times_of_ten():
    """Of noise that is independent; Sen (1968)."""
    held = told = 0
    for seed in range(200):
        draw = random.Random(seed)
        runway = Runway(fall=1.0)
        for i in range(40):
            runway.take(10.0 * i, i + draw.gauss(0, 4))
        left = runway.left(80.0)
        if left is not None:
            told += 1
            truth = (80.0 - runway._value[-1]) * 10.0
            held += left.soonest <= truth <= left.latest

    assert told >= 190
    assert 0.84 <= held / told <= 0.96


def test_what_stood_still_has_shown_no_growth():
    """A day of nothing, and ten minutes of growth: they speak for minutes, not for days."""
    runway = course([0.0] * 100 + [float(i) for i in range(1, 11)], 60.0)

    assert runway.left(100.0).seen == pytest.approx(600.0)


def test_a_small_fall_does_not_make_a_high_one_forgotten():
    """It has come and gone at a hundred; what it did at one, often, is no news of that."""
    values = [1.0, 100.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]
    runway = course([*values, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 60.0)

    assert runway.left(1000.0) is None


def test_the_trend_is_looked_for_again_once_it_could_be_another():
    runway = course(range(200), 10.0)
    before = runway.left(1e6)
    runway.take(2010.0, 200.5)

    assert runway.left(1e6).seconds == pytest.approx(before.seconds, rel=0.01)


# What goes up and down each day.


def tide(days, growth, swing=10.0):
    """The disk of a server with a backup each night."""
    seen, at = Tide(), 0.0
    while at < days * 86_400:
        backup = swing if at % 86_400 < 7200 else 0.0
        seen.take(at, 50 + growth * at / 86_400 + backup)
        at += 900.0
    return seen


def test_a_backup_each_night_hides_no_growth():
    left = tide(4, growth=1.0).left(100.0)

    # Its highest, 64 by now, is at 100 in 36 days.
    assert left.seconds == pytest.approx(36 * 86_400, rel=0.05)


def test_a_backup_each_night_is_no_growth():
    assert tide(4, growth=0.0).left(100.0) is None


def test_within_the_first_day_nothing_is_told_of_the_tide():
    assert tide(0.9, growth=1.0).left(100.0) is None
    assert Tide().left(1.0) is None
