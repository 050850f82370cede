"""What a breaker costs in a partial outage: a plain client beside a protected one.

    python tests/bench/price.py

Both have the same pool of ten and make 40 calls a second each, of three kinds, against
the same server at the same time, while it is restarted, locked, made read-only, flaps or
is away. What counts is the share of the calls that succeed; and that a kind of work that
the fault does not touch goes on.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import asyncpg
from report import machine

import pgbreaker
from pgbreaker import PostgreSQLCircuitBreakerConfig, State, Target, subscribe
from pgbreaker.core.states import Transition
from pgbreaker.demo.server import Server
from support.servers import lock_relation, psql, running_server

RATE, LIMIT = 40, 1.0
AFTER = 10.0  # seconds after the fault that count too
KINDS = {
    "read": "SELECT 1",
    "write": "INSERT INTO busy VALUES (1)",
    "other": "SELECT count(*) FROM quiet",
}
WEB = PostgreSQLCircuitBreakerConfig.preset("web")


@dataclass
class Client:
    """One of the two, and what became of its calls.

    Attributes:
        good: Kind -> calls that succeeded; `made` likewise those that ended.
        late: The same of calls from three seconds into the fault on.
        answered: Moments of successes.
    """

    pool: "asyncpg.Pool | pgbreaker.asyncpg.ProtectedPool"
    made: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    good: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    late_made: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    late_good: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    answered: list[float] = field(default_factory=list)

    async def call(self, kind: str, *, is_late: bool) -> None:
        is_good = False
        with contextlib.suppress(Exception):
            await self._ask(kind)
            is_good = True
            self.answered.append(time.monotonic())
        self.made[kind] += 1
        self.good[kind] += is_good
        self.late_made[kind] += is_late
        self.late_good[kind] += is_late and is_good

    async def _ask(self, kind: str) -> None:
        if isinstance(self.pool, asyncpg.Pool):
            async with self.pool.acquire(timeout=LIMIT) as connection:
                await connection.fetch(KINDS[kind], timeout=LIMIT)
        else:
            await self.pool.fetch(KINDS[kind], operation=kind)

    def share(self) -> float:
        return sum(self.good.values()) / max(1, sum(self.made.values()))

    def late_share(self, kind: str) -> float:
        return self.late_good[kind] / max(1, self.late_made[kind])


Fault = Callable[[Server], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def restart(server: Server) -> AsyncIterator[None]:
    await asyncio.to_thread(server.stop, "fast")
    await asyncio.to_thread(server.start)
    yield


@contextlib.asynccontextmanager
async def away(server: Server) -> AsyncIterator[None]:
    server.kill()
    yield
    await asyncio.to_thread(server.start)


@contextlib.asynccontextmanager
async def locked(server: Server) -> AsyncIterator[None]:
    async with lock_relation(server, "busy", database="app"):
        yield


@contextlib.asynccontextmanager
async def read_only(server: Server) -> AsyncIterator[None]:
    psql(server, "ALTER SYSTEM SET default_transaction_read_only = on")
    psql(server, "SELECT pg_reload_conf()")
    yield
    psql(server, "ALTER SYSTEM RESET default_transaction_read_only")
    psql(server, "SELECT pg_reload_conf()")


@contextlib.asynccontextmanager
async def flapping(server: Server) -> AsyncIterator[None]:
    async def flap() -> None:
        for _ in range(4):
            server.kill()
            await asyncio.sleep(3)
            await asyncio.to_thread(server.start)
            await asyncio.sleep(3)

    task = asyncio.create_task(flap())
    yield
    await task


@dataclass(frozen=True)
class Case:
    """A fault, for so many seconds, and what it may cost.

    Attributes:
        margin: Share of success that the protected client may be behind.
        touched: The kinds of work that it touches.
    """

    name: str
    fault: Fault
    seconds: float
    margin: float
    touched: frozenset[str] = frozenset(KINDS)


CASES = (
    Case("planned restart", restart, 4.0, 0.20),
    Case("lock pile-up", locked, 6.0, 0.05, frozenset({"write"})),
    Case("read-only failover", read_only, 6.0, 0.05, frozenset({"write"})),
    Case("flapping 3 s / 3 s", flapping, 24.0, 0.20),
    Case("away for 10 s", away, 10.0, 0.05),
)


async def load(
    clients: list[Client], during: asyncio.Event, over: asyncio.Event
) -> None:
    """Call at a steady rate until *over*."""
    kinds, calls = list(KINDS), []
    begun, number, struck = time.monotonic(), 0, None
    while not over.is_set():
        await asyncio.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        if during.is_set():
            struck = struck or time.monotonic()
        is_late = (
            during.is_set() and struck is not None and time.monotonic() - struck > 3
        )
        kind = kinds[number % len(kinds)]
        calls += [
            asyncio.create_task(client.call(kind, is_late=is_late))
            for client in clients
        ]
        number += 1
    await asyncio.gather(*calls)


async def run(case: Case) -> int:
    target, moves = Target("shop", WEB), []
    end = subscribe(lambda event: moves.append(event))
    with running_server(15) as server:
        for table in ("busy", "quiet"):
            psql(server, f"CREATE TABLE {table} (n int)", database="app")
            psql(server, f"GRANT ALL ON {table} TO app_user", database="app")
        dsn = server.dsn(user="app_user", database="app")
        options = {"min_size": 1, "max_size": 6, "timeout": LIMIT}
        pools = [await asyncpg.create_pool(dsn, **options) for _ in range(2)]
        protected = pgbreaker.asyncpg.protect(
            pools[1], breaker=target, timeout=LIMIT, acquire_timeout=LIMIT
        )
        plain, ours = Client(pools[0]), Client(protected)
        during, over = asyncio.Event(), asyncio.Event()
        calling = asyncio.create_task(load([plain, ours], during, over))
        await asyncio.sleep(2)
        during.set()
        async with case.fault(server):
            await asyncio.sleep(case.seconds)
        during.clear()
        ended = time.monotonic()
        while not all(b.state is State.CLOSED for b in target.breakers):
            await asyncio.sleep(0.02)
            if time.monotonic() - ended > 20:
                break
        closed = time.monotonic() - ended
        await asyncio.sleep(max(0.0, AFTER - closed))
        over.set()
        await calling
        for pool in pools:
            pool.terminate()
    end()
    return tell(case, plain, ours, target, moves, closed)


def tell(
    case: Case,
    plain: Client,
    ours: Client,
    target: Target,
    moves: list[object],
    closed: float,
) -> int:
    """Print the row of a case; gives the number of goals that it missed."""
    innocent = [kind for kind in KINDS if kind not in case.touched]
    late = min((ours.late_share(kind) for kind in innocent), default=1.0)
    opened = [
        move.breaker
        for move in moves
        if isinstance(move, Transition)
        and move.before is State.CLOSED
        and move.after is State.OPEN
    ]
    guilty = {f"shop/{kind}" for kind in case.touched} | (
        {"shop/connect"} if not innocent else set()
    )
    most = max((opened.count(name) for name in set(opened)), default=0)
    calls = target.connect.calls() or target.breaker("read").calls()
    attempts = 1 + sum(b.retries for b in target.breakers) / max(1, calls)
    goals = {
        f"success >= plain - {case.margin:.0%}": ours.share()
        >= plain.share() - case.margin,
        "innocent >= 95 %": late >= 0.95,
        "no innocent opens": set(opened) <= guilty,
        "openings <= 6": most <= 6,
        "closed <= 5 s": closed <= 5,
        "attempts <= 1.2": attempts <= 1.2,
    }
    missed = [goal for goal, met in goals.items() if not met]
    print(
        f"{case.name:<22}{plain.share():>8.1%}{ours.share():>11.1%}{late:>10.0%}"
        f"{most:>10}{closed:>9.2f} s{attempts:>10.2f}"
        f"   {'MISSED: ' + ', '.join(missed) if missed else 'all goals met'}"
    )
    sys.stdout.flush()
    return len(missed)


async def main() -> int:
    print(f"\nthe price of a partial outage   ({machine()})")
    print(
        f"{'':<22}{'plain':>8}{'protected':>11}{'innocent':>10}{'openings':>10}"
        f"{'closed':>11}{'attempts':>10}"
    )
    chosen = sys.argv[1:] or [case.name for case in CASES]
    return sum([await run(case) for case in CASES if case.name in chosen])


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main()) else 0)
