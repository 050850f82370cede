"""A patrol in this process, and a record of all that it told."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from pgbreaker.clock import Clock
from pgbreaker.config.load import USUAL
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import SERVED
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON, Policy
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import State, Transition
from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.sinks.board import Board, Condition, TargetBoard
from pgbreaker.sinks.hub import Event, Hub, Notice

DEFAULT = dict(USUAL)
QUICKENED = {
    "ping": 0.2,
    "login": 1.0,
    "commit": 1.0,
    "identity": 0.5,
    "saturation": 0.5,
}
QUICK = {
    name: replace(plan, interval=QUICKENED.get(name, plan.interval))
    for name, plan in USUAL.items()
}
FAST = DEFAULT | {"ping": ProbePlan(interval=0.1, timeout=0.25)}


NOTHING_TO_SEE = {Finding.ABSENT, Finding.DENIED, Finding.WRONG_ROLE}


class Watching:
    """Watches one server for the time of an ``async with``.

    Attributes:
        events: Everything that the hub was told, in order.
        board: What is true of the target.
        boards: What is true of all targets, which is the one.
    """

    def __init__(
        self,
        dsn: str,
        *,
        probes: Mapping[str, ProbePlan] = DEFAULT,
        operations: Iterable[str] = SERVED,
        policy: Policy = DAEMON,
    ) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self._clock = Clock()
        plan = TargetPlan(
            name="main",
            dsn=Secret(dsn),
            probes=probes,
            operations=tuple(operations),
            policy=policy,
        )
        breakers = {
            operation: Breaker(f"main/{operation}", policy, self._clock.now())
            for operation in plan.operations
        }
        self.board = TargetBoard(plan, breakers, self._clock)
        self._schedule = Schedule(self._clock)
        self.boards = Board([self.board], self._clock)
        hub = Hub([self.boards, self._record])
        self.patrol = Patrol(self.board, hub, self._schedule, self._clock)

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def __aenter__(self) -> Self:
        self.patrol.start()
        self._schedule.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._schedule.close(within=0.1)
        await self.patrol.close()

    @property
    def states(self) -> dict[str, State]:
        return {name: b.state for name, b in self.board.breakers.items()}

    @property
    def moves(self) -> list[Transition]:
        return [e for e in self.events if isinstance(e, Transition)]

    @property
    def openings(self) -> list[Transition]:
        return [move for move in self.moves if move.after is State.OPEN]

    @property
    def opened(self) -> set[str]:
        """The operations whose breaker opened at least once."""
        return {move.breaker.partition("/")[2] for move in self.openings}

    @property
    def notices(self) -> list[Notice]:
        return [e for e in self.events if isinstance(e, Notice)]

    @property
    def noticed(self) -> dict[str, str]:
        """Code -> text of the notices so far."""
        return {notice.code: notice.text for notice in self.notices}

    def reasons(self, operation: str) -> list[str]:
        """What the breaker said each time that it opened."""
        name = f"{self.board.plan.name}/{operation}"
        return [move.reason for move in self.openings if move.breaker == name]

    def readings(self, probe: str) -> list[Reading]:
        return [e for e in self.events if isinstance(e, Reading) and e.probe == probe]

    def answers(self, probe: str) -> int:
        """How often *probe* has been answered."""
        return sum(reading.answered for reading in self.readings(probe))

    def findings(self, probe: str) -> set[Finding]:
        return {reading.finding for reading in self.readings(probe)}

    async def until(self, what, within: float) -> float:
        """Wait until *what* holds, looking after each event. Returns the moment."""
        deadline = time.monotonic() + within
        while not what():
            self._changed.clear()
            left = deadline - time.monotonic()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                raise AssertionError(self._told(within)) from None
        return time.monotonic()

    def _told(self, within: float) -> str:
        last = "\n  ".join(str(event) for event in self.events[-12:])
        states = {name: state.value for name, state in self.states.items()}
        return f"did not come true within {within} s; {states}; last told:\n  {last}"

    async def until_closed(self, within: float = 5.0) -> float:
        """Wait until every breaker is closed and the target is up."""
        return await self.until(
            lambda: (
                set(self.states.values()) == {State.CLOSED}
                and self.board.condition is Condition.UP
            ),
            within,
        )

    async def until_open(self, *operations: str, within: float) -> float:
        """Wait until these breakers, or all, are open."""
        names = operations or tuple(self.board.breakers)
        return await self.until(
            lambda: all(self.states[name] is State.OPEN for name in names), within
        )

    async def until_watched(self, within: float = 5.0) -> None:
        """Wait until every probe has been answered once, or told why it cannot be."""
        await self.until(
            lambda: all(
                self.answers(probe) or self.findings(probe) & NOTHING_TO_SEE
                for probe in self.board.plan.probes
            ),
            within,
        )
