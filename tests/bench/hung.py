"""A server that hangs, and what an application makes of it: with and without a breaker.

    python tests/bench/hung.py

25 calls a second for 12 s through SQLAlchemy's pool of 5+5; after 2 s the server is
frozen, at the end it is thawed. The same load meets each variant in turn.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import machine, percentile
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    async_sessionmaker,
    create_async_engine,
)

from pgbreaker import (
    CircuitBreakerIntegratedSessionManager,
    PostgreSQLCircuitBreakerConfig,
    Target,
    circuit_breaker,
    stale,
)
from pgbreaker.demo.server import Server
from pgbreaker.testing import isolated
from support.servers import running_server

RATE, LONG, FREEZE_AT = 25, 12.0, 2.0
AT_ONCE = 0.02
WEB = PostgreSQLCircuitBreakerConfig.preset("web")

Ask = Callable[[int], Awaitable[object]]


@dataclass
class Run:
    """What became of the calls of one variant.

    Attributes:
        took: Seconds from each call made while the server hung to its end.
        good: How many of these had an answer.
        in_flight: Calls that wait at this moment.
        peak: The most that ever did.
        back: Seconds from the thaw to the first new answer.
    """

    took: list[float] = field(default_factory=list)
    good: int = 0
    in_flight: int = 0
    peak: int = 0
    back: float = 0.0

    async def call(self, ask: Ask, number: int, counts: bool) -> None:
        begun = time.monotonic()
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await ask(number)
            self.good += counts
        except asyncio.CancelledError:
            raise
        except Exception:
            pass
        finally:
            self.in_flight -= 1
            if counts:
                self.took.append(time.monotonic() - begun)


async def load(server: Server, ask: Ask) -> Run:
    """Call at a steady rate, freeze, thaw, and see when it works again."""
    run, calls = Run(), []
    begun = time.monotonic()
    frozen = False
    for number in range(int(RATE * LONG)):
        due = begun + number / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if not frozen and number >= FREEZE_AT * RATE:
            server.freeze()
            frozen = True
        calls.append(asyncio.create_task(run.call(ask, number, frozen)))
    server.thaw()
    thawed = time.monotonic()
    while True:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await ask(-1)
            break
        await asyncio.sleep(0.05)
        if time.monotonic() - thawed > 90:
            break
    run.back = time.monotonic() - thawed
    await asyncio.wait(calls, timeout=40)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    return run


@contextlib.asynccontextmanager
async def engine_for(server: Server, **options: object) -> AsyncIterator[AsyncEngine]:
    dsn = server.dsn(user="app_user", database="app")
    url = dsn.replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, pool_size=5, max_overflow=5, **options)
    try:
        yield engine
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(5):
                await engine.dispose()


def plain(engine: AsyncEngine) -> Ask:
    sessions = async_sessionmaker(engine)

    async def ask(number: int) -> object:
        async with sessions() as session:
            return (await session.execute(text("SELECT 1"))).scalar()

    return ask


def guarded(engine: AsyncEngine, config: PostgreSQLCircuitBreakerConfig) -> Ask:
    manager = CircuitBreakerIntegratedSessionManager(
        async_sessionmaker(engine), breaker=Target("shop", config)
    )

    async def ask(number: int) -> object:
        async with manager.get_session() as session:
            return (await session.execute(text("SELECT 1"))).scalar()

    return ask


def cached(engine: AsyncEngine) -> Ask:
    inner = guarded(engine, WEB)

    @circuit_breaker("players", config=WEB, cache=stale("5m", single_flight=False))
    async def player(number: int) -> object:
        return await inner(number)

    async def ask(number: int) -> object:
        return await player(number % 7)

    return ask


LIMITS = {"pool_timeout": 3, "connect_args": {"timeout": 3, "command_timeout": 3}}
VARIANTS: tuple[tuple[str, dict[str, object], Callable[[AsyncEngine], Ask]], ...] = (
    ("no breaker, defaults of SQLAlchemy", {}, plain),
    ("no breaker, every timeout 3 s", LIMITS, plain),
    (
        "breaker, its defaults",
        {},
        lambda engine: guarded(engine, PostgreSQLCircuitBreakerConfig()),
    ),
    ("breaker, web, every timeout 3 s", LIMITS, lambda engine: guarded(engine, WEB)),
    ("and a stale cache", LIMITS, cached),
)


async def main() -> int:
    missed, unprotected = 0, 0
    print(f"\na hung server   ({machine()})")
    head = (
        f"{'':<38}{'p50':>9}{'p90':>9}{'at once':>9}{'good':>6}{'peak':>6}{'back':>8}"
    )
    print(head + "   goal")
    for name, options, make in VARIANTS:
        with running_server(15) as server, isolated():
            async with engine_for(server, **options) as engine:
                run = await load(server, make(engine))
        at_once = sum(took < AT_ONCE for took in run.took) / len(run.took)
        unprotected = unprotected or run.peak
        goal, met = "", True
        if name == "breaker, its defaults":
            goal = "at once >= 90 %, peak <= 25 %"
            met = at_once >= 0.9 and run.peak <= 0.25 * unprotected
        missed += not met
        ms = [percentile(run.took, share) * 1000 for share in (0.5, 0.9)]
        print(
            f"{name:<38}{ms[0]:>7.0f}ms{ms[1]:>7.0f}ms{at_once:>8.0%} {run.good:>5}"
            f"{run.peak:>6}{run.back:>7.2f}s   {goal}{'' if met else '   MISSED'}"
        )
        sys.stdout.flush()
    return missed


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main()) else 0)
