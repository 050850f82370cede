"""What is true now: the one place that status, metrics and pages read from."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.ballot import Ballot
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.circle import Circle
from pgbreaker.core.condition import Condition as Condition
from pgbreaker.core.forecast.foretold import Foretold
from pgbreaker.core.forecast.warning import Forewarning
from pgbreaker.core.judge import GONE, PING, SHUT_OUT, deciding
from pgbreaker.core.maintenance import Window
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import NOTHING, Finding, Reading, Row, Seen, Value
from pgbreaker.core.report import Crowd
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.sinks.hub import Event, Notice
from pgbreaker.sinks.reports import Reports

_FRESH: Final = 3  # intervals of a ping; older than that, nobody has looked
_NOTHING_THERE: Final = (Finding.ABSENT, Finding.DENIED)
_OF_ONE_SERVER: Final = ("started", "counters_since", "backend_pid")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Who else watches a target, where this daemon does not.

    Attributes:
        daemons: Their names; empty: nobody, for the moment.
        condition: How the target is, as they see it.
    """

    daemons: tuple[str, ...]
    condition: Condition


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
        elsewhere: Who watches it, where others do. None: this daemon does.
        circle: The daemons that share the work. None: this one is the only one.
        reports: What applications tell, of this target's breakers or another's. None:
            nobody listens to them.
        foretold: Says what is foretold of it. None: nobody watches it here.
        forewarnings: Kind -> the warning of it that stands; kept by whoever foretells,
            so that it costs nothing to see that there is none.
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
        self.elsewhere: Elsewhere | None = None
        self.circle: Circle | None = None
        self.reports: Reports | None = None
        self.foretold: Callable[[], Foretold] | None = None
        self.forewarnings: Mapping[str, Forewarning] = {}
        self._clock = clock
        # Of work that nobody does here, no probe is bad news: a replica takes no commit.
        decides = deciding(plan.probes)
        self._deciding = frozenset().union(*(decides.get(o, ()) for o in breakers))

    @property
    def condition(self) -> Condition:
        """How the target is. A server that is full is up; one that does not let
        us in to look is unknown, whatever it does for others."""
        if self.elsewhere is not None:
            return self.elsewhere.condition
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
        ping, now = self.readings.get(PING), self._clock.now()
        if ping is None and self.elsewhere is None:
            return "no probe has come back yet"
        for breaker in self.breakers.values():
            if not breaker.passes:
                return breaker.explain(now)
        if self.elsewhere is not None or ping is None:
            who = ", ".join(self.elsewhere.daemons if self.elsewhere else ())
            return f"watched by {who}" if who else "nobody watches it at the moment"
        for probe, reading in self.readings.items():
            if probe in self._deciding and not reading.answered:
                seen = reading.evidence or reading.finding.value
                return f"probe {probe} ended {reading.finding.value}: {seen}"
        return f"answered the last ping in {lasting(ping.took)}"

    def warnings(self) -> tuple[Forewarning, ...]:
        """What it is warned of, the most urgent first."""
        if not self.forewarnings or self.foretold is None:
            return ()
        return self.foretold().warnings

    def ballot(self, operation: str) -> Ballot | None:
        """What the daemons think of a breaker. None: this one is the only one."""
        if self.circle is None:
            return None
        return self.circle.ballot(self.breakers[operation].name, self._clock.now())

    def is_fresh(self, now: Seconds) -> bool:
        """Whether this daemon has looked at it of late, by its ping."""
        ping = self.readings.get(PING)
        if ping is None:
            return False
        plan = self.plan.probes[PING]
        every = self.intervals.get(PING, plan.interval)
        return now - (ping.at + ping.took) <= _FRESH * every + plan.timeout

    def rest(self) -> None:
        """Know no more what was seen here: this daemon looks at it no more."""
        for seen in (self.readings, self.facts, self._seen, self.notices):
            seen.clear()
        self.connections = 0
        self.foretold, self.forewarnings = None, {}

    def mirror(self, operation: str) -> None:
        """Note that a breaker is as another daemon has it."""
        breaker = self.breakers[operation]
        self.moved[operation] = self._clock.wall_of(breaker.since)
        if breaker.left_closed is not None:
            self.left_closed[operation] = self._clock.wall_of(breaker.left_closed)

    def take(self, reading: Reading) -> None:
        """Note what a probe saw."""
        if self.circle is not None and self.plan.name in self.circle.watching:
            self.elsewhere = None  # until then it is as others saw it
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
        self.elsewhere = old.elsewhere
        for operation, breaker in self.breakers.items():
            before = old.breakers.get(operation)
            if before is None:
                continue
            breaker.recall(before.memory(now), now)
            _inherit_ruling(breaker, before)
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


def _inherit_ruling(breaker: Breaker, before: Breaker) -> None:
    if isinstance(breaker, RuledBreaker) and isinstance(before, RuledBreaker):
        ruling = before.ruling
        if ruling is not None:
            breaker.rule(ruling.state, ruling.because, ruling.since)


class Board:
    """What is true now, of every configured target; a sink.

    Attributes:
        targets: Name -> what is true of it, in the order of the configuration.
        windows: Id -> window of maintenance, of those that are not over.
        circle: The daemons that share the work. None: this one is the only one.
        reports: What applications tell of their breakers.
    """

    def __init__(self, targets: Iterable[TargetBoard], clock: Clock) -> None:
        self.targets: dict[str, TargetBoard] = {}
        self.windows: dict[int, Window] = {}
        self.circle: Circle | None = None
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
        target.circle = self.circle
        target.reports = self.reports
        self.targets[name] = target
        for operation, breaker in target.breakers.items():
            self._homes[breaker.name] = (target, operation)

    def leads(self, target: str) -> bool:
        """Whether this daemon is the one to act on a target, where one has to."""
        return self.circle is None or self.circle.leads(target)

    def share(self, circle: Circle) -> None:
        """Know of the daemons that share the work from now on."""
        self.circle = circle
        for target in self.targets.values():
            target.circle = circle

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

    @property
    def breakers(self) -> Collection[str]:
        """The names of all breakers."""
        return self._homes.keys()

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
