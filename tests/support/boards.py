"""A board made by hand, for tests of what is shown."""

import itertools
from collections.abc import Iterable

from pgbreaker.clock import Clock
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence, Outcome
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Hub, Sink

PROBES = {
    "ping": ProbePlan(interval=1.0, timeout=0.5),
    "login": ProbePlan(interval=5.0, timeout=1.0),
}
FULL = Evidence("full", "sorry, too many clients already", "53300", "login")


class Stopped:
    """Clocks that stand where a test puts them."""

    def __init__(self) -> None:
        self.now = 100.0

    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, wall=lambda: 1_800_000_000.0 + self.now)


class Scene:
    """Some targets, and a hub to tell of them.

    Attributes:
        time: The clocks.
        board: What is true.
        hub: Tells the board, and whatever else was given.
    """

    def __init__(
        self,
        names: Iterable[str] = ("main",),
        *,
        labels: dict[str, str] | None = None,
        operations: tuple[str, ...] = ("connect", "read", "write"),
    ) -> None:
        self.time = Stopped()
        self.clock = self.time.clock()
        eras = itertools.count(1)
        self.board = Board(
            [
                TargetBoard(
                    TargetPlan(
                        name=name,
                        dsn=Secret(f"postgresql://me:hunter2@db/{name}"),
                        labels=labels or {},
                        operations=operations,
                        probes=PROBES,
                    ),
                    {
                        operation: RuledBreaker(
                            f"{name}/{operation}",
                            DAEMON,
                            self.time.now,
                            draw=lambda: 0.0,
                            eras=eras,
                        )
                        for operation in operations
                    },
                    self.clock,
                )
                for name in names
            ],
            self.clock,
        )
        self.hub = Hub([self.board])

    def also(self, *sinks: Sink) -> None:
        """Tell these, too."""
        self.hub = Hub([self.board, *sinks])

    def read(self, probe: str = "ping", finding: Finding = Finding.OK, **more) -> None:
        """Tell of a reading of the target main."""
        self.hub.publish(self.reading(probe, finding, **more))

    def reading(self, probe: str = "ping", finding: Finding = Finding.OK, **more):
        """A reading of the target main, now."""
        return Reading("main", probe, self.time.now, 0.002, finding, **more)

    def open(self, operation: str = "connect") -> None:
        """Open a breaker of the target main, by a reading and its move."""
        self.read("login", Finding.FULL, evidence=FULL, confirmed=True)
        breaker = self.board.targets["main"].breakers[operation]
        for move in breaker.observe(
            Outcome.FAILURE, self.time.now, confirmed=True, evidence=FULL
        ):
            self.hub.publish(move)
