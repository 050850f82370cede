"""What is true now: the one place that status, metrics and pages read from."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import GONE, PING, SHUT_OUT, deciding
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import NOTHING, Finding, Reading, Row, Seen, Value
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.sinks.hub import Event, Notice


class Condition(StrEnum):
    """How a target is, in one word; the label ``state`` of its state metric."""

    UP = "up"
    DEGRADED = "degraded"  # it answers, but some work on it fails
    DOWN = "down"
    UNKNOWN = "unknown"  # nothing seen yet, or not let in to look


_NOTHING_THERE: Final = (Finding.ABSENT, Finding.DENIED)
_OF_ONE_SERVER: Final = ("started", "counters_since", "backend_pid")


class TargetBoard:
    """What is true now of one target. Complete from the first second.

    Attributes:
        plan: What was configured.
        breakers: Operation -> its breaker.
        readings: Probe -> its last reading; configured probes that have not
            answered yet are missing.
        answered: Probe -> wall time of its last good answer, in seconds since
            the epoch.
        facts: Name -> value, as last seen by whichever probe sees it. Kept when
            the server goes away: `readings` tells their age.
        moved: Operation -> wall time of its breaker's last move.
        left_closed: Operation -> wall time at which its breaker last ceased to let calls
            pass as a matter of course, in seconds since the epoch; missing when it
            never has.
        connections: Connections that the daemon has to the server right now.
        held_since: Moment at which the held connection was made.
        intervals: Probe -> seconds between two runs at present: dear probes are asked
            less often when they take long.
    """

    def __init__(
        self, plan: TargetPlan, breakers: Mapping[str, Breaker], clock: Clock
    ) -> None:
        self.plan = plan
        self.breakers = breakers
        self.readings: dict[str, Reading] = {}
        self.answered: dict[str, float] = {}
        self.facts: dict[str, Value | tuple[Row, ...]] = {}
        self._seen: dict[str, Seen] = {}  # probe -> facts it saw last
        self.moved = dict.fromkeys(breakers, clock.wall())
        self.left_closed: dict[str, float] = {}
        self.connections = 0
        self.held_since: Seconds = clock.now()
        self.intervals = {name: probe.interval for name, probe in plan.probes.items()}
        self.notices: dict[str, Notice] = {}
        self._clock = clock
        # Of work that nobody does here, no probe is bad news: a replica takes no commit.
        decides = deciding(plan.probes)
        self._deciding = frozenset().union(*(decides.get(o, ()) for o in breakers))

    @property
    def condition(self) -> Condition:
        """How the target is. A server that is full is up; one that does not let
        us in to look is unknown, whatever it does for others."""
        ping = self.readings.get(PING)
        if ping is None or ping.finding in SHUT_OUT:
            return Condition.UNKNOWN
        if ping.finding in GONE and ping.confirmed:
            return Condition.DOWN
        if ping.finding is Finding.FULL or not self._all_well():
            return Condition.DEGRADED
        return Condition.UP if ping.answered else Condition.UNKNOWN

    def _all_well(self) -> bool:
        troubled = any(not breaker.passes for breaker in self.breakers.values())
        return not troubled and all(
            reading.answered
            for reading in self.readings.values()
            if reading.probe in self._deciding
        )

    @property
    def is_up(self) -> bool:
        """Whether the server is known to serve somebody."""
        return self.condition in (Condition.UP, Condition.DEGRADED)

    @property
    def reason(self) -> str:
        """One sentence: why `condition` is what it is."""
        ping = self.readings.get(PING)
        if ping is None:
            return "no probe has come back yet"
        now = self._clock.now()
        for breaker in self.breakers.values():
            if not breaker.passes:
                return breaker.explain(now)
        for probe, reading in self.readings.items():
            if probe in self._deciding and not reading.answered:
                seen = reading.evidence or reading.finding.value
                return f"probe {probe} ended {reading.finding.value}: {seen}"
        return f"answered the last ping in {lasting(ping.took)}"

    def take(self, reading: Reading) -> None:
        """Note what a probe saw."""
        self.readings[reading.probe] = reading
        if reading.answered or reading.values:
            ended = reading.at + reading.took
            self.answered[reading.probe] = self._clock.wall_of(ended)
            self._learn(reading.probe, reading.values)
        elif reading.finding in _NOTHING_THERE:
            self._learn(reading.probe, NOTHING)

    def move(self, operation: str, move: Transition) -> None:
        """Note that a breaker moved."""
        at = self._clock.wall_of(move.at)
        self.moved[operation] = at
        if move.leaves_closed:
            self.left_closed[operation] = at

    def _learn(self, probe: str, values: Seen) -> None:
        """Take what *probe* sees for true, and what it no longer sees for gone: a
        server that was promoted has no lag any more."""
        for name in self._seen.get(probe, ()):
            if name not in values:
                self.facts.pop(name, None)
        self._seen[probe] = values
        self.facts.update(values)

    def forget(self) -> None:
        """Forget what was of one server alone: from now on it is another that is seen,
        and that began at another time without having been restarted."""
        for fact in _OF_ONE_SERVER:
            self.facts.pop(fact, None)


class Board:
    """What is true now, of every configured target; a sink.

    Attributes:
        targets: Name -> what is true of it, in the order of the configuration.
    """

    def __init__(self, targets: Iterable[TargetBoard], clock: Clock) -> None:
        self.targets = {target.plan.name: target for target in targets}
        self._clock = clock
        self._homes = {
            breaker.name: (target, operation)
            for target in self.targets.values()
            for operation, breaker in target.breakers.items()
        }

    def home(self, breaker: str) -> tuple[str, str]:
        """Name the target and the operation of a breaker, by its name.

        Raises:
            KeyError: There is no such breaker.
        """
        target, operation = self._homes[breaker]
        return target.plan.name, operation

    def wall_of(self, at: Seconds) -> float:
        """Show a monotonic moment as wall time, in seconds since the epoch."""
        return self._clock.wall_of(at)

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        match event:
            case Reading():
                self.targets[event.target].take(event)
            case Transition():
                target, operation = self._homes[event.breaker]
                target.move(operation, event)
            case Notice():
                target = self.targets[event.target]
                target.notices[event.code] = event
                if event.code == "moved":
                    target.forget()
