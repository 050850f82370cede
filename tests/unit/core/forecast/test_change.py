"""The CUSUM: how often it is wrong, how soon it is right, next to river's detectors."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.forecast.change import Cusum

MINUTE = 60.0
WEEK = 7 * 24 * 60  # minutes


def noise(count, seed, correlation=0.5):
    """Normal noise of standard deviation 1, each value like the one before it."""
    draw = np.random.default_rng(seed).standard_normal(count)
    draw *= math.sqrt(1 - correlation**2)
    values, value = [], 0.0
    for fresh in draw.tolist():
        value = correlation * value + fresh
        values.append(value)
    return values


class Ours:
    """A CUSUM that is asked as river's are: whether a change begins with this value."""

    def __init__(self):
        self.cusum, self.at = Cusum(), 0.0

    def take(self, value):
        was, self.at = self.cusum.since, self.at + MINUTE
        self.cusum.take(self.at, value)
        return was is None and self.cusum.since is not None


class Theirs:
    def __init__(self, name, **how):
        # Here, or every process of the suite would have it, and scipy's, in its memory.
        from river import drift

        self.detector = getattr(drift, name)(**how)

    def take(self, value):
        self.detector.update(value)
        return self.detector.drift_detected


def alarms(detector, values):
    return sum(detector.take(value) for value in values)


def delay(new, jump, seed, before=200, after=250):
    """Values from a jump to the alarm; all of them when there is none."""
    detector, values = new(), noise(before + after, seed)
    alarms(detector, values[:before])
    return next(
        (n for n, v in enumerate(values[before:], 1) if detector.take(v + jump)), after
    )


def test_noise_alone_is_a_change_once_a_week_at_most():
    """At a sample a minute, of noise with an autocorrelation of one half."""
    values = noise(20 * WEEK, seed=1)

    assert alarms(Ours(), values) <= 20


@pytest.mark.parametrize("correlation", [0.7, 0.9, 0.95])
def test_noise_that_strays_for_longer_is_one_hardly_more_often(correlation):
    """A pool that grows and shrinks within an hour is not new each hour."""
    detector, values = Ours(), noise(20 * WEEK, 3, correlation)
    alarms(detector, values[:WEEK])

    assert alarms(detector, values[WEEK:]) <= 2 * 19


def test_noise_without_memory_is_none_at_all():
    assert alarms(Ours(), noise(10 * WEEK, seed=2, correlation=0.0)) == 0


@pytest.mark.parametrize(
    "new",
    [
        lambda: Theirs("PageHinkley", delta=0.5, threshold=25, mode="up"),
        lambda: Theirs("PageHinkley", delta=0.75, threshold=20, mode="up"),
        lambda: Theirs("ADWIN", delta=1e-5, clock=1),
    ],
    ids=["PageHinkley, as small a drift", "PageHinkley, our drift", "ADWIN"],
)
def test_it_is_as_soon_as_others_that_are_wrong_no_less_often(new):
    """What is usual has to be found by them, and is known to ours: the baseline's part."""
    quiet = noise(5 * WEEK, seed=7)

    assert alarms(Ours(), quiet) <= alarms(new(), quiet)
    for jump in (1, 1.5, 2, 3, 4):
        ours, theirs = (
            np.mean([delay(kind, jump, seed) for seed in range(1000, 1012)])
            for kind in (Ours, new)
        )
        assert ours <= theirs, f"{jump} spreads: {ours} minutes, {theirs} theirs"


@pytest.mark.parametrize(("jump", "minutes"), [(2, 15), (3, 9), (4, 6), (9, 2)])
def test_a_change_is_seen_within_minutes(jump, minutes):
    delays = [delay(Ours, jump, seed) for seed in range(20)]

    assert np.median(delays) <= minutes


# What stands, and since when.


def taking(deviations, cusum=None, at=0.0):
    cusum = cusum or Cusum()
    for n, deviation in enumerate(deviations, 1):
        cusum.take(at + n * MINUTE, deviation)
    return cusum


def test_it_began_when_the_sum_was_zero_last():
    cusum = taking([0, 0, 3, -9, 0, 4, 4, 4, 4, 4])

    assert cusum.since == 5 * MINUTE
    assert cusum.level > 1


def test_one_value_alone_is_never_a_change():
    cusum = taking([0, 1e9])

    assert cusum.since is None
    assert 0 < cusum.level < 1


def test_it_ends_when_the_value_has_been_back_for_five_minutes():
    cusum = taking([6] * 30)

    taking([0] * 4, cusum, at=30 * MINUTE)
    assert cusum.since == MINUTE
    cusum.take(36 * MINUTE, 0.0)

    assert cusum.since is None
    assert cusum.level == 0


def test_it_ends_soon_though_there_is_noise():
    lengths = []
    for seed in range(20):
        cusum, values = taking([6] * 30), noise(300, seed)
        lengths.append(
            next(
                n
                for n, value in enumerate(values)
                if taking([value], cusum, at=(30 + n) * MINUTE).since is None
            )
        )

    assert np.median(lengths) <= 10
    assert max(lengths) <= 30


def test_a_moment_of_rest_does_not_end_it():
    cusum = taking(([6] * 4 + [0] * 4) * 30)

    assert cusum.since == MINUTE


def test_it_ends_when_the_baseline_has_learnt_it():
    cusum = taking([6 * 0.5 ** (n / 240) for n in range(2880)])

    assert cusum.since is None


def test_what_is_new_from_the_first_sample_on_began_with_it():
    assert taking([5] * 10).since == MINUTE


@given(st.lists(st.tuples(st.floats(), st.floats(-1e6, 1e6)), max_size=100))
@settings(deadline=None)
def test_whatever_comes_its_level_is_within_bounds(samples):
    """Moments that go back, too: clocks step."""
    cusum = Cusum()
    for deviation, at in samples:
        cusum.take(at, deviation)

        assert 0 <= cusum.level <= 2
        assert cusum.since is None or cusum.since in [at for _, at in samples]


def test_a_clock_that_went_back_does_not_keep_a_change_forever():
    cusum = taking([6] * 10, at=1e6)

    taking([0] * 7, cusum)

    assert cusum.since is None


@pytest.mark.parametrize("seed", range(12))
def test_it_goes_on_where_it_was(seed):
    before, after = noise(300, seed, 0.8), noise(60, seed + 100, 0.8)
    one = taking([3 * value for value in before])
    other = Cusum()
    other.recall(json.loads(json.dumps(one.memory())))

    for n, value in enumerate(after):
        taking([3 * value], one, at=(300 + n) * MINUTE)
        taking([3 * value], other, at=(300 + n) * MINUTE)

        assert other.level == pytest.approx(one.level, abs=0.01)
        assert other.since == one.since


@pytest.mark.parametrize(
    "memory",
    [
        None,
        {},
        [],
        [0, 1.0, 1.0, 0.5, 0.0, 3.0],
        [0, "1", 1.0, 0.5, 0.0, None, None],
        [0, None, 1.0, 0.5, 0.0, None, None],
        [0, -1.0, 1.0, 0.5, 0.0, None, None],
        [0, math.nan, 1.0, 0.5, 0.0, None, None],
        [0, 1.0, 10.0, 0.5, 0.0, None, None],
        [0, 1.0, -1.0, 0.5, 0.0, None, None],
        [0, 1.0, 1.0, 2.0, 0.0, None, None],
        [0, 1.0, 1.0, True, 0.0, None, None],
        [None, 1.0, 1.0, 0.5, 0.0, None, None],
        [-1, 1.0, 1.0, 0.5, 0.0, None, None],
        [0.5, 1.0, 1.0, 0.5, 0.0, None, None],
        [9, 1.0, 1.0, 0.5, 0.0, None, None],
        [True, 1.0, 1.0, 0.5, 0.0, None, None],
        [0, 1.0, 1.0, 0.5, 9.0, None, None],
        [0, 1.0, 1.0, 0.5, 0.0, True, None],
        [0, 1.0, 1.0, 0.5, 0.0, math.inf, None],
        [0, 1.0, 1.0, 0.5, 0.0, None, [2]],
    ],
    ids=str,
)
def test_rubbish_is_no_memory(memory):
    cusum = taking([6] * 10)

    with pytest.raises(ValueError, match="no memory of a change"):
        cusum.recall(memory)

    assert cusum.since == MINUTE
