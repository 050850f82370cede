"""The sketch: quantiles next to numpy's exact ones."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.forecast.sketch import Sketch

SHARES = (0.0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
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


def exactly(values, share):
    """The least value that so large a share is at or below."""
    return float(np.quantile(values, share, method="inverted_cdf"))


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("error", [0.005, 0.02, 0.1])
def test_quantiles_are_as_near_as_was_said(name, error):
    values = VALUES[name].tolist()
    sketch = of(values, error=error, most=4096)

    for share in SHARES:
        exact = exactly(values, share)
        assert sketch.quantile(share) == pytest.approx(exact, rel=error * 1.0001)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60), st.floats(0, 1))
@settings(deadline=None)
def test_whatever_is_taken_they_are(values, share):
    near = exactly(values, share)
    # A share of so many values that is a whole number by rounding alone is either.
    beside = {exactly(values, min(max(share + off, 0.0), 1.0)) for off in (-1e-9, 1e-9)}

    found = of(values, most=2000).quantile(share)

    assert any(math.isclose(found, exact, rel_tol=0.0201) for exact in {near, *beside})


def test_when_there_are_too_many_buckets_the_low_quantiles_suffer():
    values = VALUES["heavy tail"].tolist()

    sketch = of(values, most=100)

    assert len(sketch._buckets) == 100
    assert sketch.total == len(values)
    for share in (0.99, 0.999, 1.0):
        assert sketch.quantile(share) == pytest.approx(
            exactly(values, share), rel=0.0201
        )
    assert sketch.quantile(0.01) >= exactly(values, 0.01)


def test_the_default_holds_three_powers_of_ten_and_more():
    """From 50 microseconds to a second: what a server's answers take."""
    values = np.geomspace(5e-5, 1.0, 3000).tolist()

    assert of(values).quantile(0.001) == pytest.approx(
        exactly(values, 0.001), rel=0.0201
    )


def test_what_has_aged_weighs_less():
    sketch = of([1.0] * 1000)
    sketch.age(0.01)
    for _ in range(30):
        sketch.take(5.0)

    assert sketch.total == pytest.approx(40)
    assert sketch.quantile(0.2) == pytest.approx(1.0, rel=0.0201)
    assert sketch.quantile(0.5) == pytest.approx(5.0, rel=0.0201)


def test_what_is_very_old_is_forgotten():
    sketch = of([0.0, 1.0, 2.0])

    sketch.age(1e-6)

    assert sketch.total == 0
    assert sketch.quantile(0.5) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_what_is_no_size_is_ignored(value):
    sketch = of([value])

    assert sketch.total == 0
    assert sketch.quantile(1.0) is None


def test_it_remembers():
    sketch = of([0.0, *VALUES["latencies"].tolist()])
    sketch.age(0.3)
    text = json.dumps(sketch.memory(), separators=(",", ":"))
    other = Sketch()

    other.recall(json.loads(text))

    assert len(text) < 4000
    for share in SHARES:
        # A share that is at the edge of two buckets may be of either, for rounding.
        assert other.quantile(share) == pytest.approx(sketch.quantile(share), rel=0.05)


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
    assert sketch.quantile(0.5) == pytest.approx(7.0, rel=0.02)


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (lambda: Sketch(error=0), "error between"),
        (lambda: Sketch(most=0), "a bucket"),
        (lambda: Sketch().quantile(1.5), "a share is 0 to 1"),
        (lambda: Sketch().age(2), "a factor is 0 to 1"),
    ],
    ids=["no error", "no bucket", "no share", "no factor"],
)
def test_what_makes_no_sense_is_refused(does, says):
    with pytest.raises(ValueError, match=says):
        does()


SIZES = st.just(0.0) | st.floats(1e-6, 1e6)


@given(st.lists(SIZES, min_size=1, max_size=200), st.floats(1e-6, 1e6))
def test_a_rank_is_the_share_that_is_below_but_for_the_error(values, value):
    sketch = Sketch(error=0.02)
    for one in values:
        sketch.take(one)

    surely = sum(one < value * 0.95 for one in values) / len(values)
    perhaps = sum(one < value * 1.05 for one in values) / len(values)
    assert surely - 1e-9 <= sketch.rank(value) <= perhaps + 1e-9


def test_of_nothing_there_is_no_rank():
    assert Sketch().rank(1.0) is None
