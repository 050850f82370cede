"""How something goes through the code, drawn from a run of it.

The run is a real one. What is kept of it is each call from one of the modules that the
drawing is of to another.
"""

import asyncio
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, TypeAlias

import pgbreaker
from pgbreaker.config.load import USUAL
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.secret import Secret
from pgbreaker.errors import CircuitOpenError
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.events import log as LIBRARY_LOG
from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Hub
from support.boards import Stopped

Parts: TypeAlias = Mapping[str, tuple[str, ...]]
"""Module -> what of it is drawn, in the order of the columns."""

Step: TypeAlias = tuple[str, str, str]
"""Who calls, who is called, what of it."""

PACKAGE: Final = Path(pgbreaker.__file__).parent

READING: Final[Parts] = {
    "monitor/sentinel": ("beat",),
    "monitor/line": ("ping", "renew"),
    "monitor/feed": ("show", "judge"),
    "core/judge": ("judge",),
    "core/breaker": ("observe",),
    "sinks/hub": ("publish",),
}
CALL: Final[Parts] = {
    "guard/wrap": ("guarded",),
    "guard/gate": ("enter", "leave", "fail"),
    "guard/outcomes": ("judge",),
    "postgres/classify": ("classify",),
    "core/breaker": ("turn", "admit", "settle", "fail"),
    "guard/events": ("note", "flush"),
}


class Tracer:
    """Keeps the calls between the modules of a drawing.

    Attributes:
        steps: In their order.
    """

    def __init__(self, parts: Parts) -> None:
        self.steps: list[Step] = []
        self._parts = parts
        self._seen: list[FrameType] = []  # a coroutine is entered as often as it waits

    def __call__(self, frame: FrameType, event: str, _what: object) -> None:
        called = self._place(frame) if event == "call" else ""
        if not called or any(frame is seen for seen in self._seen):
            return
        self._seen.append(frame)
        caller = self._caller(frame.f_back)
        if caller and caller != called:
            self.steps.append((caller, called, frame.f_code.co_name))

    def _caller(self, frame: FrameType | None) -> str:
        while frame is not None:
            if place := self._place(frame):
                return place
            frame = frame.f_back
        return ""

    def _place(self, frame: FrameType) -> str:
        path = Path(frame.f_code.co_filename)
        if not path.is_relative_to(PACKAGE):
            return ""
        module = str(path.relative_to(PACKAGE).with_suffix(""))
        is_drawn = frame.f_code.co_name in self._parts.get(module, ())
        return module if is_drawn else ""


@contextmanager
def traced(parts: Parts) -> Iterator[Tracer]:
    """Keep the calls of the block."""
    tracer, before = Tracer(parts), sys.getprofile()
    sys.setprofile(tracer)
    try:
        yield tracer
    finally:
        sys.setprofile(before)


def drawn(parts: Parts, scenes: Mapping[str, list[Step]]) -> str:
    """A Mermaid sequence diagram: what a scene is of, and its steps."""
    first, *_, last = (_word(name) for name in parts)
    lines = [f"    participant {_word(name)} as {name}" for name in parts]
    for title, steps in scenes.items():
        lines.append(f"    Note over {first},{last}: {title}")
        lines += once([f"    {_word(a)}->>{_word(b)}: {what}" for a, b, what in steps])
    return "\n".join(["```mermaid", "sequenceDiagram", *lines, "```"]) + "\n"


def _word(module: str) -> str:
    return module.replace("/", "_")


def once(lines: list[str]) -> list[str]:
    """The lines, without a group of them that only repeats the one before it."""
    kept: list[str] = []
    for line in lines:
        kept.append(line)
        for size in range(1, len(kept) // 2 + 1):
            if kept[-size:] == kept[-2 * size : -size]:
                del kept[-size:]
                break
    return kept


def walk_of_a_reading() -> str:
    """The first beat at a server where nobody listens: the whole suspicion."""

    async def beat(port: int) -> list[Step]:
        clock = Stopped().clock()
        dsn = Secret(f"postgresql://me@127.0.0.1:{port}/app")
        plan = TargetPlan(name="main", dsn=dsn, probes=USUAL)
        breakers = {
            operation: Breaker(f"main/{operation}", DAEMON, clock.now())
            for operation in plan.operations
        }
        board = TargetBoard(plan, breakers, clock)
        hub = Hub([Board([board], clock)])
        patrol = Patrol(board, hub, Schedule(clock), clock)
        try:
            with traced(READING) as tracer:
                await patrol._sentinel.beat()
        finally:
            await patrol._line.close()
        return tracer.steps

    with socket.socket() as taken:  # and so nobody listens there
        taken.bind(("127.0.0.1", 0))
        steps = asyncio.run(beat(taken.getsockname()[1]))
    return drawn(READING, {"a ping, where nobody listens any more": steps})


def walk_of_a_call() -> str:
    """A guarded call that is let in, one that fails and opens, one that is refused."""
    clock = Stopped().clock()
    rules = PostgreSQLCircuitBreakerConfig(failure_threshold=1)
    breaker = PostgreSQLCircuitBreaker("orders", rules, clock=clock)

    @breaker
    async def call(error: BaseException | None = None) -> None:
        if error is not None:
            raise error

    def make(error: BaseException | None = None) -> list[Step]:
        with suppress(ConnectionError, CircuitOpenError), traced(CALL) as tracer:
            asyncio.run(call(error))
        return tracer.steps

    make()  # begins the first slice of time
    with quiet():
        return drawn(
            CALL,
            {
                "all is well: two comparisons": make(),
                "it fails, and the breaker opens": make(ConnectionRefusedError()),
                "the next one is refused": make(),
            },
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Have the library log nothing for the time of the block."""
    before = LIBRARY_LOG.disabled
    LIBRARY_LOG.disabled = True
    try:
        yield
    finally:
        LIBRARY_LOG.disabled = before
