"""The sketch: ranks next to numpy's exact ones."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.forecast.sketch import Sketch

SHARES = (0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
SIZES = st.just(0.0) | st.floats(1e-6, 1e6)
DRAWN = np.random.default_rng(9)
VALUES = {
    "even": DRAWN.uniform(0, 100, 5000),
    "waits": DRAWN.exponential(0.02, 5000),
    "latencies": DRAWN.lognormal(-7, 1.0, 5000),
    "heavy tail": DRAWN.pareto(1.5, 5000),
    "two plans": np.concatenate(
        [DRAWN.normal(0.001, 0.0001, 4000).clip(0), DRAWN.normal(30, 1, 1000)]
    ),
    "mostly none": DRAWN.poisson(0.1, 5000).astype(float),
    "one": np.array([0.25]),
    "large": DRAWN.uniform(1e9, 1e15, 2000),
}


def of(values, **how):
    sketch = Sketch(**how)
    for value in values:
        sketch.take(value)
    return sketch


def exactly(values, value):
    """The share of *values* that are below, by numpy."""
    return np.searchsorted(np.sort(values), value) / len(values)


def is_near(sketch, values, value, error=0.02):
    """Whether a rank misses none but what is of the same bucket as *value*: those are
    below it by less than its width."""
    width = (1 + error) / (1 - error)
    least = exactly(values, value / width * (1 - 1e-9))
    most = exactly(values, value * (1 + 1e-9))
    return least - 1e-9 <= sketch.rank(value) <= most + 1e-9


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("error", [0.005, 0.02, 0.1])
def test_ranks_are_as_near_as_was_said(name, error):
    values = VALUES[name].tolist()
    sketch = of(values, error=error, most=4096)

    for value in np.quantile(values, SHARES, method="inverted_cdf"):
        for beside in (0.5, 0.99, 1.0, 1.01, 2.0):
            assert is_near(sketch, values, value * beside, error)


@given(st.lists(SIZES, min_size=1, max_size=60), st.floats(1e-6, 1e6))
@settings(deadline=None)
def test_whatever_is_taken_they_are(values, value):
    sketch = of(values, most=2000)

    assert all(is_near(sketch, values, one) for one in (value, *values))


def test_when_there_are_too_many_buckets_the_low_ranks_suffer():
    values = VALUES["heavy tail"].tolist()

    sketch = of(values, most=100)

    assert len(sketch._buckets) == 100
    assert sketch.total == len(values)
    for value in np.quantile(values, (0.99, 0.999, 1.0)):
        assert is_near(sketch, values, value)
    low = np.quantile(values, 0.01)
    assert sketch.rank(low) < exactly(values, low / 1.05)


def test_the_default_holds_three_powers_of_ten_and_more():
    """From 50 microseconds to a second: what a server's answers take."""
    values = np.geomspace(5e-5, 1.0, 3000).tolist()
    sketch = of(values)

    assert all(is_near(sketch, values, value) for value in values)


def test_what_has_aged_weighs_less():
    sketch = of([1.0] * 1000)
    sketch.age(0.01)
    for _ in range(30):
        sketch.take(5.0)

    assert sketch.total == pytest.approx(40)
    assert sketch.rank(0.9) == 0
    assert sketch.rank(1.1) == sketch.rank(4.7) == pytest.approx(10 / 40)
    assert sketch.rank(5.3) == pytest.approx(1)


def test_what_is_very_old_is_forgotten():
    sketch = of([0.0, 1.0, 2.0])

    sketch.age(1e-6)

    assert sketch.total == 0
    assert sketch.rank(1.5) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_what_is_no_size_is_ignored(value):
    sketch = of([value])

    assert sketch.total == 0
    assert sketch.rank(1.0) is None


def test_it_remembers():
    sketch = of([0.0, *VALUES["latencies"].tolist()])
    sketch.age(0.3)
    text = json.dumps(sketch.memory(), separators=(",", ":"))
    other = Sketch()

    other.recall(json.loads(text))

    assert len(text) < 4000
    for value in (0.0, *np.quantile(VALUES["latencies"], SHARES)):
        assert other.rank(value) == pytest.approx(sketch.rank(value), rel=1e-3)


GOOD = of([0.0, 1.0, 2.0]).memory()


@pytest.mark.parametrize(
    "memory",
    [
        {},
        [],
        None,
        "sketch",
        GOOD | {"error": 0.01},
        GOOD | {"zero": -1},
        GOOD | {"zero": math.nan},
        GOOD | {"zero": True},
        GOOD | {"powers": [1]},
        GOOD | {"powers": [1, "2"]},
        GOOD | {"powers": [1, 10**9]},
        GOOD | {"powers": {"1": 2}},
        GOOD | {"weights": [1.0, math.inf]},
        GOOD | {"weights": [1.0, 0.0]},
        GOOD | {"weights": [1.0, None]},
        GOOD | {"powers": list(range(300)), "weights": [1.0] * 300},
    ],
    ids=str,
)
def test_rubbish_is_no_memory(memory):
    sketch = of([7.0])

    with pytest.raises(ValueError, match=r"no memory of a sketch|another error"):
        sketch.recall(memory)

    assert sketch.total == 1
    assert (sketch.rank(6.7), sketch.rank(7.4)) == (0, 1)


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (lambda: Sketch(error=0), "error between"),
        (lambda: Sketch(most=0), "a bucket"),
        (lambda: Sketch().age(2), "a factor is 0 to 1"),
    ],
    ids=["no error", "no bucket", "no factor"],
)
def test_what_makes_no_sense_is_refused(does, says):
    with pytest.raises(ValueError, match=says):
        does()


def test_of_nothing_there_is_no_rank():
    assert Sketch().rank(1.0) is None
