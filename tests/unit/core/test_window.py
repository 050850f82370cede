"""The window against counting by hand, over random clocks."""

import random

import pytest

from pgbreaker.core.window import Window


@pytest.mark.parametrize("seed", range(200))
def test_it_counts_what_counting_by_hand_counts(seed):
    draw = random.Random(seed)
    buckets = draw.choice([1, 2, 5, 10])
    length = draw.choice([1.0, 10.0])
    window, now = Window(length, buckets, 0.0), 0.0
    calls: list[tuple[float, bool]] = []
    for _ in range(400):
        now += draw.choice([0.0, 0.01, 0.1, 0.5, 3.0, 50.0]) * draw.random()
        failed = draw.random() < 0.5
        window.rotate(now)
        window.failed += failed
        window.ok += not failed
        calls.append((now, failed))

        counts = window.counts()
        surely = [c for c in calls if c[0] > now - length * (buckets - 1) / buckets]
        possibly = [c for c in calls if c[0] > now - length]
        assert len(surely) <= counts.total <= len(possibly)
        assert sum(c[1] for c in surely) <= counts.failed <= sum(c[1] for c in possibly)
        assert window.successes + window.failures == len(calls)


def test_a_gap_as_long_as_the_window_clears_all_of_it():
    """Clearing one bucket only would let old failures open a healthy breaker."""
    window = Window(2.0, 10, 0.0)
    window.failed = 9

    window.rotate(9.0)

    assert window.counts().total == 0
    assert window.failures == 9


def test_nothing_is_forgotten_within_the_bucket():
    window = Window(10.0, 10, 0.0)
    window.ok = 3

    window.rotate(0.999)

    assert window.counts().total == 3


def test_ratios_of_an_empty_window_are_none_at_all():
    counts = Window(10.0, 10, 0.0).counts()

    assert (counts.failure_ratio, counts.slow_ratio) == (0.0, 0.0)
