"""What a recording would have come to by other rules.

The readings of a recording go through the same feed, judgement and breakers as they did
when they were read, on the recording's own clock; nobody is asked anything.

What cannot be replayed is what other rules would have made the daemon ask: while a
breaker is not closed it asks more often, and a first failure is asked again at once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import BY_OPERATORS
from pgbreaker.core.judge import PING
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.policy import Policy
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, State, Transition
from pgbreaker.core.units import Seconds, Share
from pgbreaker.monitor.feed import Feed
from pgbreaker.probes import PROBES, probe_called
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Event, Hub
from pgbreaker.sinks.record import Begun, Heard, Recorded, Rules, Unread

_MIDDLE: Final[Share] = 0.5  # of a lot that really was never drawn


@dataclass(slots=True)
class Course:
    """The moves of one breaker, one after the other.

    Attributes:
        moves: Those that it made by itself.
    """

    moves: list[Transition] = field(default_factory=list)

    @property
    def openings(self) -> int:
        """Times that it left closed."""
        return sum(move.before is State.CLOSED for move in self.moves)

    def shut_for(self, until: float) -> Seconds:
        """Seconds for which it was not closed, as seen at *until*."""
        shut, since = 0.0, None
        for move in self.moves:
            if since is None and move.after is not State.CLOSED:
                since = move.at
            elif since is not None and move.after is State.CLOSED:
                shut, since = shut + move.at - since, None
        return shut + (until - since if since is not None else 0.0)


@dataclass(slots=True)
class Replayed:
    """What came of a replay.

    Attributes:
        began: Wall time of the first thing recorded, in seconds since the epoch; 0 when
            there is none.
        ended: Wall time of the last.
        readings: How many were replayed.
        really: Breaker -> what it did.
        simulated: Breaker -> what it would have done.
        unknown: Targets that were recorded and that the configuration has not.
        unread: Damage of the recording.
        overridden: Times that somebody's word went before a breaker's: a replay knows
            what the breakers themselves did.
        goes_on: Whether breakers had seen more than what is recorded.
    """

    began: float = 0.0
    ended: float = 0.0
    readings: int = 0
    really: dict[str, Course] = field(default_factory=dict)
    simulated: dict[str, Course] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    unread: list[Unread] = field(default_factory=list)
    overridden: int = 0
    goes_on: bool = False

    def _note(self, at: float) -> None:
        self.began = min(self.began or at, at)
        self.ended = max(self.ended, at)


def replay(
    recorded: Callable[[], Iterable[Recorded]],
    plans: Iterable[TargetPlan],
    *,
    only: str | None = None,
) -> Replayed:
    """Replay a recording against other rules.

    Args:
        recorded: Begins to read the recording, which is done twice: it can be larger
            than memory.
        plans: The rules, by the names of the targets.
        only: The one target to look at. None: all.
    """
    known = {plan.name: plan for plan in plans if only in (None, plan.name)}
    return _Replay(known, _lots(recorded()), only).run(recorded())


class _Replay:
    """Readings in, moves out."""

    def __init__(
        self,
        plans: Mapping[str, TargetPlan],
        lots: Mapping[str, list[Share]],
        only: str | None,
    ) -> None:
        self._now = 0.0
        self._only = only
        clock = Clock(now=lambda: self._now, wall=lambda: self._now)
        self.done = Replayed()
        self._feeds: dict[str, Feed] = {}
        for name, plan in plans.items():
            breakers = {
                operation: _breaker(f"{name}/{operation}", plan.policy, lots)
                for operation in plan.operations
            }
            for breaker in breakers.values():
                self.done.simulated[breaker.name] = Course()
                self.done.really[breaker.name] = Course()
            board = TargetBoard(plan, breakers, clock)
            hub = Hub([Board([board], clock), self._simulated])
            self._feeds[name] = Feed(board, hub, clock)

    def run(self, recorded: Iterable[Recorded]) -> Replayed:
        for event in recorded:
            match event:
                case Begun():
                    self.done.goes_on |= event.goes_on and not self.done.readings
                case Heard():
                    self._read(event.reading, event.at)
                case Transition():
                    self._really(event)
                case Unread():
                    self.done.unread.append(event)
        return self.done

    def _read(self, reading: Reading, told: float) -> None:
        if self._only not in (None, reading.target):
            return
        feed = self._feeds.get(reading.target)
        if feed is None:
            self.done.unknown.add(reading.target)
            return
        self._now = max(self._now, told)
        self.done._note(self._now)
        self.done.readings += 1
        if reading.probe not in PROBES:
            return  # of the user's own, or of another version: it decides nothing
        reading = weighed(reading, feed.board.plan)
        if reading.judged:
            feed.judge(reading)
        else:
            feed.show(reading)

    def _simulated(self, event: Event) -> None:
        if isinstance(event, Transition):
            self.done.simulated[event.breaker].moves.append(event)

    def _really(self, move: Transition) -> None:
        target = move.breaker.partition("/")[0]
        if self._only not in (None, target):
            return
        self.done._note(move.at)
        if move.cause in BY_OPERATORS:
            self.done.overridden += 1
            return
        self.done.really.setdefault(move.breaker, Course()).moves.append(move)


def weighed(reading: Reading, plan: TargetPlan) -> Reading:
    """What *reading* had been found, had it been asked by *plan*."""
    probe = probe_called(reading.probe)
    own = plan.probes.get(reading.probe)
    was_answered = reading.finding in (Finding.OK, Finding.SLOW, probe.beyond)
    if not was_answered or own is None:
        return reading
    if reading.probe == PING:
        slow_call = plan.policy.slow_call
        is_slow = slow_call is not None and reading.took >= slow_call
        return replace(reading, finding=Finding.SLOW if is_slow else Finding.OK)
    if probe.weighs is None or (not reading.values and reading.probe != "latency"):
        return reading
    bad = (
        None
        if own.limit is None
        else probe.weighs(reading.values, reading.took, own.limit)
    )
    if bad is None:
        return replace(reading, finding=Finding.OK, evidence=None)
    evidence = Evidence(probe.beyond.value, bad, probe=reading.probe)
    return replace(reading, finding=probe.beyond, evidence=evidence)


# -- The lots that were drawn ------------------------------------------------------


def _breaker(name: str, policy: Policy, lots: Mapping[str, list[Share]]) -> Breaker:
    """A breaker that draws what was drawn when it really opened."""
    drawn = iter(lots.get(name, ()))
    return Breaker(name, policy, 0.0, draw=lambda: next(drawn, _MIDDLE))


def _lots(events: Iterable[Recorded]) -> Mapping[str, list[Share]]:
    """Breaker -> by how much each opening was really prolonged, 0 to 1.

    By the same rules a breaker then does the same again, to the moment.
    """
    rules: dict[str, Rules] = {}
    lots: dict[str, list[Share]] = defaultdict(list)
    for event in events:
        if isinstance(event, Begun):
            rules |= event.targets
        elif isinstance(event, Transition) and event.after is State.OPEN:
            target = event.breaker.partition("/")[0]
            if target in rules and event.cause not in BY_OPERATORS:
                lots[event.breaker].append(_lot(event, rules[target].policy))
    return lots


def _lot(move: Transition, policy: Policy) -> Share:
    if not policy.jitter:
        return 0.0
    for base in _waits(policy):
        lot = (move.retry_after / base - 1) / policy.jitter
        if -1e-3 <= lot <= 1 + 1e-3:
            return min(max(lot, 0.0), 1.0)
    return 0.0  # as long as the server itself asked for


def _waits(policy: Policy) -> Iterator[Seconds]:
    wait = policy.timeout
    while wait < policy.max_timeout:
        yield wait
        wait *= 2
    yield policy.max_timeout
