"""Daemons that share an engine, without servers to watch: their boards, and what keeps
them in touch. What probes would see is told by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from pgbreaker.app.peering import peers_of
from pgbreaker.clock import Clock
from pgbreaker.core.plan import EnginePlan, PeersPlan, ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence, Outcome
from pgbreaker.monitor.desk import Desk
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Hub, Sink

REFUSED = Evidence("refused", "connection refused")
PINGS = 0.2  # seconds between two
WITHIN = 10.0


class Hand:
    """One daemon.

    Attributes:
        watching: Targets that it was told to watch, and pings.
        unwell: Of these, those that it sees fail.
    """

    def __init__(
        self, engine: EnginePlan, name: str, targets: Iterable[str], **more: int
    ) -> None:
        self.name = name
        self.clock = Clock()
        self.watching: set[str] = set()
        self.unwell: set[str] = set()
        self.board = Board((self._target(t) for t in targets), self.clock)
        self.history = History(self.board, self.clock)
        self.hub = Hub([self.board, self.history])
        self.desk = Desk(self.board, self.hub, self.history, self.clock)
        self.peers = peers_of(
            PeersPlan(engine=engine, name=name, **more),
            *(self.board, self.history, self.hub, self.clock, self.desk),
            watch=self._watch,
            overrides={},
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _target(self, name: str) -> TargetBoard:
        plan = TargetPlan(
            name=name,
            dsn=Secret(f"postgresql://db/{name}"),
            operations=("read",),
            probes={"ping": ProbePlan(interval=PINGS, timeout=PINGS)},
        )
        breaker = RuledBreaker(
            f"{name}/read", DAEMON, self.clock.now(), draw=lambda: 0.0
        )
        return TargetBoard(plan, {"read": breaker}, self.clock)

    async def _watch(self, take: Iterable[str], leave: Iterable[str]) -> None:
        self.watching = self.watching.union(take).difference(leave)
        self.ping()

    def also(self, sink: Sink) -> None:
        """Tell it, too, of all that this daemon sees."""
        self.hub._sinks = (*self.hub._sinks, sink)

    async def join(self) -> None:
        """Begin."""
        await self.peers.join()
        works = (self.peers.run(), self._ping(), self.desk.run())
        self._tasks = [asyncio.create_task(work) for work in works]

    async def _ping(self) -> None:
        while True:
            self.ping()
            await asyncio.sleep(PINGS)

    def ping(self) -> None:
        """See how every target is that is watched here."""
        for name in sorted(self.watching & self.board.targets.keys()):
            is_well = name not in self.unwell
            now = self.clock.now()
            finding = Finding.OK if is_well else Finding.REFUSED
            self.hub.publish(Reading(name, "ping", now, 0.001, finding))
            self.see(name, is_well)

    def see(self, target: str, is_well: bool) -> None:
        """Have a breaker know how its server is; a failure is a confirmed one."""
        outcome = Outcome.SUCCESS if is_well else Outcome.FAILURE
        seen = None if is_well else REFUSED
        for move in self.breaker(target).observe(
            outcome, self.clock.now(), confirmed=not is_well, evidence=seen
        ):
            self.hub.publish(move)

    def fail(self, target: str) -> None:
        """See a target fail from now on."""
        self.unwell.add(target)
        self.see(target, False)

    def breaker(self, target: str) -> RuledBreaker:
        found = self.board.targets[target].breakers["read"]
        assert isinstance(found, RuledBreaker)
        return found

    def states(self) -> dict[str, str]:
        """Target -> what callers feel of its breaker."""
        return {name: self.breaker(name).state.value for name in self.board.targets}

    @property
    def is_settled(self) -> bool:
        """Whether it hears of the others, and watches what it is to."""
        peers = self.peers
        return peers.is_joined and peers.circle.is_settled and not peers.sights.untold

    async def kill(self) -> None:
        """End it as a power cut would: it says goodbye to nobody."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.watching.clear()
        self.peers._unfollow()
        self.peers._unfollow = lambda: None
        await self.peers._engine.close()

    async def close(self) -> None:
        """End it in order."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.peers.close()


@asynccontextmanager
async def crew(
    engine: EnginePlan, *names: str, targets: int = 12, **more: int
) -> AsyncIterator[list[Hand]]:
    """Daemons of these names for the time of the block, all joined, with as many
    targets; *more* is of their plan."""
    wanted = [f"t{number:02}" for number in range(targets)]
    hands = [Hand(engine, name, wanted, **more) for name in names]
    try:
        for hand in hands:
            await hand.join()
        await settled(hands)
        yield hands
    finally:
        for hand in hands:
            with suppress(Exception):
                await hand.close()


async def settled(hands: Iterable[Hand]) -> None:
    """Wait until all know each other, and every target is watched by as many as shall."""
    hands = tuple(hands)

    def is_so() -> bool:
        everybody = tuple(sorted(hand.name for hand in hands))
        if not all(h.is_settled and h.peers.circle.live == everybody for h in hands):
            return False
        return all(
            {h.name for h in hands if target in h.watching}
            == set(hands[0].peers.circle.chosen(target))
            for target in hands[0].board.targets
        )

    await until(is_so)


async def until(holds: Callable[[], bool], within: float = WITHIN) -> float:
    """Wait until something holds. Returns the seconds."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while not holds():
        assert loop.time() < begun + within, "it did not come about"
        await asyncio.sleep(0.002)
    return loop.time() - begun
