"""Minutes of a target as features, some of which rise before a breaker opens.

What they are is made up, of what is seen of targets: a day's season, noise that lasts, a
batch at night, deploys, blips that pass. Of what leads to an opening there are three
kinds, a part of which comes to nothing; and there are openings that nothing foretells.
"""

from dataclasses import dataclass

import numpy as np

NAMES = (
    "slots",
    "growth",
    "latency",
    "drift",
    "waiters",
    "errors",
    "connects",
    "runway",
    "idle",
    "lag",
    "wal",
    "rollbacks",
)
DAY = 1440


@dataclass(frozen=True)
class Mix:
    """What happens in a day, on average.

    Attributes:
        leaks, piles, ramps: Courses that lead to an opening.
        sudden: Openings that nothing foretells.
        lost: Share of the courses that come to nothing.
    """

    leaks: float
    piles: float
    ramps: float
    sudden: float
    lost: float


@dataclass(frozen=True)
class Life:
    """Minutes of one target.

    Attributes:
        features: One row a minute, in the order of `NAMES`.
        openings: Minute of an opening, and the one at which all is closed again.
    """

    features: np.ndarray
    openings: list[tuple[int, int]]


def live(seed: int, days: int, mix: Mix) -> Life:
    """Make *days* of a target."""
    draw = np.random.default_rng(seed)
    n = days * DAY
    base = _base(draw, n)
    at = _happen(draw, base, mix, days)
    openings: list[tuple[int, int]] = []
    for minute in sorted(at):
        if not openings or minute - openings[-1][0] > 40:
            openings.append((minute, minute + int(draw.integers(2, 12))))
    return Life(_derived(base, n), openings)


def _lasting(draw: np.random.Generator, n: int, keeps: float, sd: float) -> np.ndarray:
    """Noise that keeps a share of itself from minute to minute."""
    steps = draw.normal(0, sd * np.sqrt(1 - keeps * keeps), n)
    values = np.empty(n)
    value = 0.0
    for i, step in enumerate(steps.tolist()):
        value = keeps * value + step
        values[i] = value
    return values


def _base(draw: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """A target that nothing happens to but its days."""
    season = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) / DAY - draw.uniform()))
    waiting = np.exp(-2.5 + season + _lasting(draw, n, 0.9, 0.7))
    base = {
        "season": season,
        "slots": 0.35 + 0.15 * season + _lasting(draw, n, 0.95, 0.03),
        "log_latency": np.log(3) + 0.3 * season + _lasting(draw, n, 0.8, 0.15),
        "waiters": draw.poisson(waiting).astype(float),
        "errors": np.maximum(0, draw.normal(-0.004, 0.003, n)),
        "connects": draw.poisson(20 + 15 * season).astype(float),
        "idle": draw.poisson(2 + 2 * season).astype(float),
        "lag": np.exp(_lasting(draw, n, 0.9, 0.8)) * 0.05,
        "wal": 3e6 * np.exp(season + _lasting(draw, n, 0.9, 0.4)),
        "rollbacks": draw.poisson(1 + season).astype(float),
    }
    night = int(draw.uniform(0, DAY))
    for day in range(n // DAY):
        batch = slice(day * DAY + night, day * DAY + night + 30)
        base["log_latency"][batch] += 0.8
        base["wal"][batch] *= 6
        base["idle"][batch] += 2
    for at in draw.integers(0, n, int(n / DAY * 0.7)):  # deploys
        base["connects"][at : at + 3] += 60
        base["slots"][at : at + 240] += 0.08
        base["errors"][at : at + 2] += 0.01
    for at in draw.integers(0, n, n // DAY * 6):  # blips
        blip = slice(at, at + int(draw.integers(1, 4)))
        base["waiters"][blip] += draw.integers(3, 12)
        base["log_latency"][blip] += draw.uniform(0.2, 0.6)
    return base


def _happen(
    draw: np.random.Generator, base: dict[str, np.ndarray], mix: Mix, days: int
) -> list[int]:
    """Let things go wrong. Returns the minutes in which a breaker opens."""
    openings: list[int] = []
    courses = ((_leak, mix.leaks), (_pile, mix.piles), (_ramp, mix.ramps))
    for course, rate in courses:
        for at in draw.integers(200, days * DAY - 200, draw.poisson(rate * days)):
            course(draw, base, at)
            if draw.random() > mix.lost:
                openings.append(int(at))
    sudden = draw.integers(200, days * DAY - 200, draw.poisson(mix.sudden * days))
    return openings + sudden.tolist()


def _leak(draw: np.random.Generator, base: dict[str, np.ndarray], at: int) -> None:
    took = int(draw.integers(15, 60))
    course, before = np.linspace(0, 1, took), slice(at - took, at)
    base["slots"][before] += course * 0.5 * draw.uniform(0.8, 1.1)
    base["idle"][before] += course * 30


def _pile(draw: np.random.Generator, base: dict[str, np.ndarray], at: int) -> None:
    took = int(draw.integers(4, 12))
    course, before = np.linspace(0, 1, took) ** 1.5, slice(at - took, at)
    base["waiters"][before] += np.round(course * draw.uniform(8, 30))
    base["log_latency"][before] += course
    base["slots"][before] += 0.1 * course


def _ramp(draw: np.random.Generator, base: dict[str, np.ndarray], at: int) -> None:
    took = int(draw.integers(6, 16))
    course, before = np.linspace(0, 1, took), slice(at - took, at)
    base["log_latency"][before] += course * draw.uniform(1, 2.2)
    base["errors"][before] += course * course * 0.03 * draw.uniform(0.3, 1)
    base["slots"][before] += 0.15 * course
    base["rollbacks"][before] += np.round(course * 4)


def _derived(base: dict[str, np.ndarray], n: int) -> np.ndarray:
    """Features, of which some are made from the others as the daemon makes them."""
    slots, latency = base["slots"], base["log_latency"]
    growth = np.zeros(n)
    growth[10:] = slots[10:] - slots[:-10]
    unusual = (latency - np.log(3) - 0.3 * base["season"]).tolist()
    drift, drifted = np.zeros(n), 0.0
    for i, off in enumerate(unusual):
        drift[i] = drifted = max(0.0, 0.9 * drifted + off - 0.1)
    columns = {
        **base,
        "growth": growth,
        "latency": np.exp(latency) / 1000,
        "drift": drift,
        "runway": np.clip(growth * 1.5 / np.maximum(0.02, 0.97 - slots), 0, 2),
    }
    return np.column_stack([columns[name] for name in NAMES])
