"""The baseline: what each hour is like, and what it learns of what is unusual."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.forecast.usual import Usual

MONDAY = 1_699_833_600.0  # 2023-11-13, at midnight
HOUR, DAY = 60, 24 * 60  # minutes


class Course:
    """A baseline that has seen a signal, a sample a minute since a Monday's midnight.

    What the hour brings, and noise of one spread each minute of which is half as the one
    before it was.
    """

    def __init__(self, season=lambda _wall: 0.0, seed=1, sigma=1.0, **floor):
        self.usual = Usual(**(floor or {"absolute": 0.01}))
        self.season, self.sigma = season, sigma
        self.draw, self.noise, self.minute = random.Random(seed), 0.0, 0
        self.seen = []

    def wall(self):
        return MONDAY + 60 * self.minute

    def run(self, minutes, shift=0.0):
        """Go on; returns the deviations that were told."""
        told = []
        for _ in range(minutes):
            self.noise = 0.5 * self.noise + math.sqrt(0.75) * self.draw.gauss(0, 1)
            value = 50 + self.season(self.wall()) + self.sigma * self.noise + shift
            told.append(self.usual.take(self.wall(), value))
            self.seen.append((self.wall(), value))
            self.minute += 1
        return told


def daily(wall):
    return 10 * math.sin(2 * math.pi * (wall % 86_400) / 86_400)


def busy(wall):
    """Twenty more from nine to five, UTC."""
    return 20.0 * (9 <= wall % 86_400 / 3600 < 17)


def steady(values, **floor):
    usual = Usual(**floor)
    for n, value in enumerate(values):
        usual.take(MONDAY + 60 * n, value)
    return usual


# What is unusual.


def test_for_six_hours_it_says_nothing():
    course = Course()

    assert set(course.run(6 * HOUR)) == {None}
    assert course.usual.is_cold is False
    assert None not in course.run(HOUR)


def test_nothing_is_expected_before():
    usual = steady([1.0] * 359, absolute=0.1)

    assert usual.is_cold
    assert usual.expects(MONDAY) is None


def test_a_value_is_compared_with_what_was_before_it():
    usual = steady([10.0] * 500, absolute=0.1)

    assert usual.take(MONDAY + 500 * 60, 10.5) == pytest.approx(5)
    assert usual.take(MONDAY + 501 * 60, 9.5) == pytest.approx(-5, rel=0.03)


def test_a_spread_has_a_floor_so_that_constants_do_not_make_all_unusual():
    """River's GaussianScorer raises TypeError there."""
    usual = steady([100.0] * 1000, absolute=0.1, relative=0.05)

    assert usual.take(MONDAY + 1000 * 60, 105.0) == pytest.approx(1)
    assert usual.expects(MONDAY).spread == pytest.approx(5, rel=0.01)


def test_deviations_are_normal_when_the_noise_is():
    course = Course(daily)
    course.run(14 * DAY)

    told = np.array(course.run(5 * DAY))  # the hours of working days, seen ten times

    assert abs(told.mean()) < 0.1
    assert 0.8 < told.std() < 1.1
    assert np.abs(told).max() < 6


def test_the_middle_and_the_spread_are_those_of_the_hour():
    """Next to numpy's mean and standard deviation of all that came at that hour."""
    course = Course(daily, sigma=2.0)
    course.run(26 * DAY)
    for hour in (3, 12, 20):
        found = [
            value
            for wall, value in course.seen
            if wall // 3600 % 24 == hour and abs(wall % 3600 - 1800) <= 600
        ]

        expected = course.usual.expects(MONDAY + 28 * 86_400 + (hour + 0.5) * 3600)

        assert expected.middle == pytest.approx(np.mean(found), abs=1.0)
        assert expected.spread == pytest.approx(np.std(found), rel=0.25)


def test_what_is_usual_at_noon_is_unusual_at_night():
    course = Course(busy)
    course.run(11 * DAY)

    at_noon = course.usual.expects(MONDAY + 14 * 86_400 + 12.5 * 3600)
    at_night = course.usual.expects(MONDAY + 14 * 86_400 + 3.5 * 3600)

    assert at_noon.middle == pytest.approx(70, abs=1)
    assert at_night.middle == pytest.approx(50, abs=1)
    assert at_noon.middle > at_night.middle + 5 * at_night.spread


def test_working_days_and_weekends_are_apart():
    def season(wall):
        is_weekend = (wall - MONDAY) // 86_400 % 7 >= 5
        return 0.0 if is_weekend else 20.0

    course = Course(season)
    course.run(14 * DAY)

    at = MONDAY + 14 * 86_400 + 12.5 * 3600
    assert course.usual.expects(at).middle == pytest.approx(70, abs=2)
    assert course.usual.expects(at + 5 * 86_400).middle == pytest.approx(50, abs=2)


def test_after_a_quiet_weekend_a_monday_is_nothing_new():
    course = Course(lambda wall: busy(wall) * ((wall - MONDAY) // 86_400 % 7 < 5))
    course.run(7 * DAY)

    monday = course.run(DAY)

    assert sum(far > 4 for far in monday) <= 3


@pytest.fixture(scope="module")
def two_weeks():
    """A baseline of an office."""
    course = Course(busy)
    course.run(14 * DAY)
    return course.usual


@given(second=st.integers(0, 14 * 86_400))
@settings(deadline=None, max_examples=50)
def test_the_edge_of_an_hour_is_no_step(two_weeks, second):
    at = MONDAY + 14 * 86_400 + second

    one, next_ = two_weeks.expects(at), two_weeks.expects(at + 1)

    # Twenty in an hour are 0.006 a second.
    assert abs(one.middle - next_.middle) < 0.02
    assert abs(one.spread - next_.spread) < 0.02


def test_an_hour_never_seen_is_as_all_others_together():
    course = Course(lambda wall: 10.0 * (wall % 86_400 >= 4 * 3600))
    course.run(8 * HOUR)  # 4 hours of 50, then 4 of 60

    expected = course.usual.expects(MONDAY + 15.5 * 3600)

    assert 50 < expected.middle < 60


def test_a_first_weekend_begins_like_working_days():
    course = Course(busy)
    course.run(5 * DAY)

    saturday = course.run(DAY)

    assert max(saturday) < 6


# What it learns.


def test_an_hour_of_an_incident_does_not_become_the_usual():
    course = Course(daily)
    course.run(10 * DAY)
    before = course.usual.expects(MONDAY + 10 * 86_400 + 3600)
    assert min(course.run(HOUR, shift=10.0)) > 3

    after = course.usual.expects(course.wall())

    assert after.middle - before.middle < daily(3600) * 0.2 + 1.0
    assert after.spread < 1.5 * before.spread
    assert np.mean(course.run(HOUR)) > -1.2


@pytest.mark.parametrize("shift", [3.0, 10.0, 100.0, 1000.0, -10.0, -100.0])
def test_a_new_level_that_lasts_is_usual_after_two_days(shift):
    course = Course(daily)
    course.run(7 * DAY)
    course.run(2 * DAY, shift=shift)

    told = np.array(course.run(2 * HOUR, shift=shift))

    assert np.abs(told).mean() < 2.5


def test_an_hour_is_half_forgotten_in_two_weeks():
    """One of its own, that is: a job that runs no more."""

    def job(wall):
        return 3.0 * (12 <= wall % 86_400 / 3600 < 13)

    course = Course(job, sigma=0.5, absolute=2.0)
    course.run(28 * DAY)
    noon = 12.5 * 3600
    at_first = course.usual.expects(course.wall() + noon).middle
    course.season = lambda _wall: 0.0
    course.run(14 * DAY)

    left = course.usual.expects(course.wall() + noon).middle - 50

    assert at_first == pytest.approx(53, abs=0.7)
    assert 0.3 < left / (at_first - 50) < 0.65


def test_noise_that_grows_for_good_is_learnt_too():
    course = Course(daily)
    course.run(7 * DAY)
    course.sigma = 3.0
    course.run(2 * DAY)

    assert np.std(course.run(DAY)) < 1.6


# What surprises.


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_ignored(value):
    usual = steady([1.0] * 400, absolute=0.1)
    before = usual.memory()

    assert usual.take(MONDAY, value) is None
    assert usual.memory() == before


def test_a_clock_that_steps_finds_another_hour():
    course = Course(busy)
    course.run(7 * DAY)
    course.minute -= 3 * DAY + 7 * HOUR + 13

    told = course.run(HOUR)

    assert max(map(abs, told)) < 6


@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_whatever_it_takes_deviations_are_numbers(seed, absolute, relative):
    draw = random.Random(seed)
    usual, size = Usual(absolute=absolute, relative=relative), 10 ** draw.uniform(-9, 9)
    for n in range(450):
        wall = draw.choice([60.0 * n, 60.0 * n, draw.uniform(-1e11, 1e11)])
        value = draw.choice([0.0, size, draw.gauss(0, size), 1e3 * draw.gauss(0, size)])
        far = usual.take(wall, value)
        assert far is None or math.isfinite(far)
    expected = usual.expects(draw.uniform(-1e11, 1e11))

    assert math.isfinite(expected.middle)
    assert absolute * 0.999 <= expected.spread < 1e16
    assert len(json.dumps(usual.memory(), separators=(",", ":"))) < 700


def test_numbers_that_are_too_large_leave_it_as_it_was():
    usual = steady([1.0] * 400, absolute=1e-9)

    assert usual.take(MONDAY, 1.7e308) is None
    assert usual.take(MONDAY, 1.0) == pytest.approx(0)


@pytest.mark.parametrize("first", [-6.9, 6.9, 1e6])
def test_a_first_value_that_is_odd_is_made_good_within_the_first_hours(first):
    """When a daemon begins, the first minute is that of all that connects."""
    usual = steady([first, *[0.0] * 400], absolute=0.15)

    assert abs(usual.take(MONDAY + 401 * 60, 0.0)) < 1
    assert usual.expects(MONDAY + 402 * 60).spread < 0.5


@pytest.mark.parametrize("floor", [0.0, -1.0, math.nan, math.inf])
def test_there_is_no_spread_without_a_floor(floor):
    with pytest.raises(ValueError, match="floor above 0"):
        Usual(absolute=floor)


# Memory.


def test_it_remembers():
    course = Course(busy)
    course.run(9 * DAY)
    text = json.dumps(course.usual.memory(), separators=(",", ":"))
    other = Usual(absolute=0.01)

    other.recall(json.loads(text))

    assert len(text) < 700
    for hour in range(7 * 24):
        wall = course.wall() + 3600 * hour
        one, two = course.usual.expects(wall), other.expects(wall)
        assert two.middle == pytest.approx(one.middle, abs=0.1 * one.spread)
        assert two.spread == pytest.approx(one.spread, rel=0.06)
    told = course.run(HOUR)
    again = [other.take(wall, value) for wall, value in course.seen[-HOUR:]]
    assert again == pytest.approx(told, rel=0.06, abs=0.1)


def test_one_that_has_seen_nothing_remembers_that():
    usual = steady([1.0] * 400, absolute=0.1)

    usual.recall(Usual(absolute=0.1).memory())

    assert usual.is_cold
    assert usual.is_taught is False


GOOD = steady([float(n % 7) for n in range(500)], absolute=0.1).memory()
BINS = GOOD["offsets"]


@pytest.mark.parametrize(
    "memory",
    [
        None,
        [],
        "usual",
        {},
        *({name: GOOD[name] for name in GOOD if name != left} for left in GOOD),
        GOOD | {"seen": -1},
        GOOD | {"seen": True},
        GOOD | {"seen": 1.5},
        GOOD | {"run": 10**30},
        GOOD | {"now": [1.0, 2.0, 3.0]},
        GOOD | {"now": [1.0, 2.0, -1.0, 1.0]},
        GOOD | {"now": [1.0, 2.0, 1.0, 0.0]},
        GOOD | {"now": [1.0, math.nan, 1.0, 1.0]},
        GOOD | {"now": [1.0, None, 1.0, 1.0]},
        GOOD | {"units": [-1.0, 1.0]},
        GOOD | {"units": [1.0, math.inf]},
        GOOD | {"offsets": BINS[1:]},
        GOOD | {"offsets": [*BINS[1:], 10**6]},
        GOOD | {"offsets": [*BINS[1:], None]},
        GOOD | {"deviations": [-1] * 48},
        GOOD | {"counts": [True] * 48},
        GOOD | {"counts": dict.fromkeys(range(48), 1)},
    ],
    ids=lambda memory: str(memory)[:60],
)
def test_rubbish_is_no_memory(memory):
    usual = steady([1.0] * 400, absolute=0.1)
    before = usual.memory()

    with pytest.raises(ValueError, match=r"no memory of the usual"):
        usual.recall(memory)

    assert usual.memory() == before


def test_its_own_memory_is_one():
    usual = Usual(absolute=0.1)

    usual.recall(GOOD)

    assert usual.memory() == GOOD
