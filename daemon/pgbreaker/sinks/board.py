"""What is true now: the one place that status, metrics and pages read from."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import GONE, PING, SHUT_OUT, deciding
from pgbreaker.core.maintenance import Window
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import NOTHING, Finding, Reading, Row, Seen, Value
from pgbreaker.core.report import Crowd
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.sinks.hub import Event, Notice
from pgbreaker.sinks.reports import Reports


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
        moved: Operation -> wall time of its breaker's last move that callers feel.
        left_closed: Operation -> wall time at which its breaker last ceased to let calls
            pass as a matter of course, in seconds since the epoch; missing when it
            never has.
        connections: Connections that the daemon has to the server right now.
        held_since: Moment at which the held connection was made.
        intervals: Probe -> seconds between two runs at present: dear probes are asked
            less often when they take long.
        windows: Id -> window of maintenance, of this target or another.
        reports: What applications tell, of this target's breakers or another's. None:
            nobody listens to them.
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
        # As they are: one that was recalled moved before this process began.
        self.moved = {o: clock.wall_of(b.since) for o, b in breakers.items()}
        self.left_closed = {
            operation: clock.wall_of(breaker.left_closed)
            for operation, breaker in breakers.items()
            if breaker.left_closed is not None
        }
        self.connections = 0
        self.held_since: Seconds = clock.now()
        self.intervals = {name: probe.interval for name, probe in plan.probes.items()}
        self.notices: dict[str, Notice] = {}
        self.windows: Mapping[int, Window] = {}
        self.reports: Reports | None = None
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

    @property
    def maintenance(self) -> Window | None:
        """The window of maintenance that the target is in now, None when in none."""
        if not self.windows:
            return None
        wall, plan = self._clock.wall(), self.plan
        for window in self.windows.values():
            if window.is_on(wall) and window.covers(plan.name, plan.labels):
                return window
        return None

    def crowd(self, operation: str) -> Crowd | None:
        """What applications tell of a breaker; it moves nothing. None: none does."""
        if self.reports is None:
            return None
        return self.reports.crowd(self.breakers[operation].name, self._clock.now())

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
        if move.override is None:  # else it is, for callers, where it was
            self.moved[operation] = at
        if move.leaves_closed:
            self.left_closed[operation] = at

    def inherit(self, old: "TargetBoard") -> None:
        """Go on where *old* is, which was this target until it was configured anew.

        Breakers keep their state, their counts and their operator's word. What was seen
        is kept where the server is the same by its address; nobody is told.
        """
        now = self._clock.now()
        for operation, breaker in self.breakers.items():
            before = old.breakers.get(operation)
            if before is None:
                continue
            breaker.recall(before.memory(now), now)
            if before.override is not None:
                breaker.force(before.override, before.refusing_since)
            self.moved[operation] = old.moved[operation]
            if operation in old.left_closed:
                self.left_closed[operation] = old.left_closed[operation]
        if self.plan.dsn == old.plan.dsn:
            self._inherit_facts(old)

    def _inherit_facts(self, old: "TargetBoard") -> None:
        for probe in self.plan.probes:
            if probe in old.readings:
                self.readings[probe] = old.readings[probe]
            if probe in old.answered:
                self.answered[probe] = old.answered[probe]
            if probe in old._seen:
                self._learn(probe, old._seen[probe])
        self.notices.update(old.notices)

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
        windows: Id -> window of maintenance, of those that are not over.
        reports: What applications tell of their breakers.
    """

    def __init__(self, targets: Iterable[TargetBoard], clock: Clock) -> None:
        self.targets: dict[str, TargetBoard] = {}
        self.windows: dict[int, Window] = {}
        self._clock = clock
        self._homes: dict[str, tuple[TargetBoard, str]] = {}
        self.reports = Reports(self._homes.__contains__)
        for target in targets:
            self.add(target)

    def add(self, target: TargetBoard) -> None:
        """Know of a target from now on, in the place of the one that has its name."""
        name = target.plan.name
        if name in self.targets:
            self._leave(self.targets[name])
        target.windows = self.windows
        target.reports = self.reports
        self.targets[name] = target
        for operation, breaker in target.breakers.items():
            self._homes[breaker.name] = (target, operation)

    def remove(self, name: str) -> None:
        """Know of a target no more.

        Raises:
            KeyError: There is none of this name.
        """
        self._leave(self.targets.pop(name))

    def _leave(self, target: TargetBoard) -> None:
        for breaker in target.breakers.values():
            del self._homes[breaker.name]

    def arrange(self, names: Sequence[str]) -> None:
        """Have the targets in the order of *names*.

        Raises:
            ValueError: These are not all of theirs.
        """
        if sorted(names) != sorted(self.targets):
            raise ValueError(f"{list(names)} are not {list(self.targets)}")
        places = {name: self.targets[name] for name in names}
        self.targets.clear()
        self.targets.update(places)

    def home(self, breaker: str) -> tuple[str, str]:
        """Name the target and the operation of a breaker, by its name.

        Raises:
            KeyError: There is no such breaker.
        """
        target, operation = self._homes[breaker]
        return target.plan.name, operation

    def breaker(self, name: str) -> Breaker | None:
        """The breaker of this name, None when there is none any more."""
        if name not in self._homes:
            return None
        target, operation = self._homes[name]
        return target.breakers[operation]

    def now(self) -> Seconds:
        """The moment by the clock that nobody sets."""
        return self._clock.now()

    def wall(self) -> float:
        """Wall time now, in seconds since the epoch."""
        return self._clock.wall()

    def wall_of(self, at: Seconds) -> float:
        """Show a monotonic moment as wall time, in seconds since the epoch."""
        return self._clock.wall_of(at)

    def __call__(self, event: Event) -> None:
        """Take an event from the hub. One of a target that was removed is no news."""
        match event:
            case Reading() if event.target in self.targets:
                self.targets[event.target].take(event)
            case Transition() if event.breaker in self._homes:
                target, operation = self._homes[event.breaker]
                target.move(operation, event)
            case Notice() if event.target in self.targets:
                target = self.targets[event.target]
                target.notices[event.code] = event
                if event.code == "moved":
                    target.forget()
