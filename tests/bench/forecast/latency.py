"""Whether a change of latency is seen, and how soon: our detector beside river's.

All of them get the mean time of statements of each minute, as a logarithm, from servers
whose days have seasons. Those of river also get what ours gets, by how much a minute is
unlike what is usual; of each the parameter is taken that sees most at no more false alarms
than ours has, chosen on what it is measured with, which is in its favour.
"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final, Protocol

from incidents import DAY, HOUR, TARGET, latencies
from report import percentile

from pgbreaker.core.forecast.usual import Usual
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.outlook.signals import Signals

DAYS: Final = 7
FROM: Final[Seconds] = DAY  # until then nobody is measured
LOOKS: Final[Seconds] = 2 * HOUR  # after a change; what is seen later is missed
EACH: Final = 2  # changes of each kind to a server
MINUTE: Final[Seconds] = 60.0
CALLS: Final = 3000.0  # in half a minute
OURS: Final = "pgbreaker"

CHANGES: Final[dict[str, Callable[[Seconds], float]]] = {
    "+50 %": lambda _at: 1.5,
    "twice": lambda _at: 2.0,
    "four times": lambda _at: 4.0,
    "twice within the hour": lambda at: 2 ** min(at / HOUR, 1.0),
    "doubling every 10 min": lambda at: 2 ** (at / 600.0),
}


class Detector(Protocol):
    """Whoever takes the mean time of each minute, and says whether it has changed."""

    def take(self, wall: float, mean: Seconds) -> bool: ...


class Ours:
    """The signals of a target, of which there is one."""

    def __init__(self) -> None:
        self._signals = Signals(_same)
        self._calls = self._spent = 0.0

    def take(self, wall: float, mean: Seconds) -> bool:
        for half in (0.0, 30.0):
            self._calls += CALLS
            self._spent += CALLS * mean
            seen = {"statement_calls": self._calls, "statement_seconds": self._spent}
            self._signals.take(
                Reading(TARGET, "statements", wall + half, 0.01, Finding.OK, seen)
            )
        return any(change.signal == "statements" for change in self._signals.changes)


def _same(at: Seconds) -> float:
    return at


class Rivers:
    """One of river's detectors, of the logarithm or of how unlike the usual that is."""

    def __init__(self, make: Callable[[], object], *, by_usual: bool) -> None:
        self._make = make
        self._detector = make()
        self._usual = Usual(absolute=0.25) if by_usual else None
        self._mean: float | None = None
        self._since_last = math.inf

    def take(self, wall: float, mean: Seconds) -> bool:
        value = math.log(mean)
        if self._usual is not None:
            deviation = self._usual.take(wall, value)
            if deviation is None:
                return False
            value = deviation
        before = self._mean
        self._detector.update(value)
        # Both ways are found, and only a rise is of interest.
        self._mean = value if before is None else before + 0.02 * (value - before)
        return bool(self._detector.drift_detected) and value > (before or value)


def rivers() -> dict[str, dict[str, Detector]]:
    """Make river's detectors: by name, and then by their parameter."""
    from river import drift

    def adwin(delta: float) -> Callable[[], object]:
        return lambda: drift.ADWIN(delta=delta, clock=1)

    def hinkley(threshold: float, delta: float) -> Callable[[], object]:
        return lambda: drift.PageHinkley(threshold=threshold, delta=delta, mode="up")

    made: dict[str, dict[str, Detector]] = {}
    for of, by_usual in (("the logarithm", False), ("how unusual it is", True)):
        made[f"river ADWIN, {of}"] = {
            f"delta {delta:g}": Rivers(adwin(delta), by_usual=by_usual)
            for delta in (2e-3, 1e-4, 1e-6, 1e-9, 1e-13, 1e-18)
        }
        made[f"river PageHinkley, {of}"] = {
            f"threshold {threshold:g}, delta {delta:g}": Rivers(
                hinkley(threshold, delta), by_usual=by_usual
            )
            for delta in ((0.75, 0.25) if by_usual else (0.1, 0.02))
            for threshold in (
                (50.0, 25.0, 15.0, 8.0) if by_usual else (50, 8.0, 3.0, 1.0)
            )
        }
    return made


@dataclass(slots=True)
class Heard:
    """What one detector said of one server.

    Attributes:
        days: Of the server that were healthy, and looked at.
        false: Alarms in these; within an hour they are one.
        delays: Kind of change -> seconds until it was seen; None: it was not.
    """

    days: float = DAYS - FROM / DAY
    false: int = 0
    delays: dict[str, list[Seconds | None]] = field(default_factory=dict)


def listen(seed: int) -> dict[tuple[str, str], Heard]:
    """Put all detectors through one server, by name and parameter."""
    born, halves = latencies(seed, days=DAYS)
    means = [sum(halves[i : i + 2]) / 2 for i in range(0, len(halves), 2)]
    detectors: dict[tuple[str, str], Detector] = {(OURS, ""): Ours()}
    for name, some in rivers().items():
        detectors |= {(name, parameter): one for parameter, one in some.items()}
    minutes = len(means)
    changes = {
        round(minutes * (0.4 + 0.5 * (n + 0.5 * (seed % 7) / 7) / EACH)): None
        for n in range(EACH)
    }
    return {
        key: _listen(detector, born, means, changes)
        for key, detector in detectors.items()
    }


def _listen(
    detector: Detector, born: float, means: Sequence[Seconds], changes: dict[int, None]
) -> Heard:
    heard = Heard(delays={name: [] for name in CHANGES})
    last = -math.inf
    for minute, mean in enumerate(means):
        if minute in changes:
            for name, factor in CHANGES.items():
                heard.delays[name].append(
                    _delay(deepcopy(detector), born, means, minute, factor)
                )
        at = minute * MINUTE
        if detector.take(born + at, mean):
            heard.false += at >= FROM and at - last > HOUR
            last = at
    return heard


def _delay(
    detector: Detector,
    born: float,
    means: Sequence[Seconds],
    first: int,
    factor: Callable[[Seconds], float],
) -> Seconds | None:
    for minute in range(first, min(len(means), first + round(LOOKS / MINUTE))):
        since = (minute - first) * MINUTE
        if detector.take(born + minute * MINUTE, means[minute] * factor(since)):
            return since + MINUTE
    return None


def report_latency(heard: Sequence[dict[tuple[str, str], Heard]]) -> None:
    """Print ours, and of each of river's the one that does best."""
    ours = _joined(heard, (OURS, ""))
    limit = ours.false / ours.days
    print(
        f"\nLatency: {ours.days:.0f} healthy days of {len(heard)} servers,"
        f" {EACH * len(heard)} changes of each kind; seen within two hours, median delay\n"
    )
    print(f"| detector | false alarms a day | {' | '.join(CHANGES)} |")
    print(f"|---|---|{'---|' * len(CHANGES)}")
    names = dict.fromkeys(name for name, _ in heard[0])
    for name in names:
        tried = {key: _joined(heard, key) for key in heard[0] if key[0] == name}
        # None of so few alarms: then that of the fewest.
        best = min(
            tried,
            key=lambda key: (
                max(tried[key].false / tried[key].days, limit),
                -_seen(tried[key]),
            ),
        )
        one = tried[best]
        cells = [_cell(one.delays[change]) for change in CHANGES]
        title = ", ".join(filter(None, best))
        print(f"| {title} | {one.false / one.days:.3f} | {' | '.join(cells)} |")


def _joined(
    heard: Sequence[dict[tuple[str, str], Heard]], key: tuple[str, str]
) -> Heard:
    whole = Heard(days=0.0, delays={name: [] for name in CHANGES})
    for one in heard:
        whole.days += one[key].days
        whole.false += one[key].false
        for name, delays in one[key].delays.items():
            whole.delays[name] += delays
    return whole


def _seen(heard: Heard) -> int:
    return sum(d is not None for delays in heard.delays.values() for d in delays)


def _cell(delays: Sequence[Seconds | None]) -> str:
    seen = [delay for delay in delays if delay is not None]
    if not seen:
        return "0.00"
    return f"{len(seen) / len(delays):.2f}, {percentile(seen, 0.5) / MINUTE:.0f} min"
