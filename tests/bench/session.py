"""What a guarded connection costs, on a real server: ours against the same without.

python tests/bench/session.py [ROUNDS]
"""

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import asyncpg
import psycopg_pool
from report import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

import pgbreaker
from pgbreaker import CircuitBreakerIntegratedSessionManager, Target
from pgbreaker.demo.server import Server
from support.servers import running_server

CALLS = 150
ONE = text("SELECT 1")

Ask = Callable[[], Awaitable[object]]


async def timed(ask: Ask) -> float:
    """Seconds that a number of calls take, one after the other."""
    gc.collect()
    gc.disable()
    begun = time.perf_counter()
    for _ in range(CALLS):
        await ask()
    took = time.perf_counter() - begun
    gc.enable()
    return took


async def compare(
    table: Table, name: str, plain: Ask, guarded: Ask, rounds: int, goal: float | None
) -> None:
    """Measure both in turn, the one first in one round and the other in the next."""
    more = []
    for ask in (plain, guarded):
        await timed(ask)
    for number in range(rounds):
        order = (plain, guarded) if number % 2 else (guarded, plain)
        took = {ask: await timed(ask) for ask in order}
        more.append((took[guarded] / took[plain] - 1) * 100)
    table.row(name, more, p50=goal)


async def sqlalchemy(table: Table, server: Server, rounds: int) -> None:
    dsn = server.dsn(user="app_user", database="app")
    url = dsn.replace("postgresql://", "postgresql+asyncpg://")
    bare, watched = create_async_engine(url), create_async_engine(url)
    sessions = async_sessionmaker(bare)
    manager = CircuitBreakerIntegratedSessionManager(
        async_sessionmaker(watched), breaker=Target("session")
    )

    async def plain() -> None:
        async with sessions() as session:
            await session.execute(ONE)

    async def guarded() -> None:
        async with manager.get_session() as session:
            await session.execute(ONE)

    await compare(table, "SQLAlchemy session", plain, guarded, rounds, 3.0)
    await bare.dispose()
    await watched.dispose()


async def of_asyncpg(table: Table, server: Server, rounds: int) -> None:
    pool = await asyncpg.create_pool(
        server.dsn(user="app_user", database="app"), min_size=1, max_size=2
    )
    protected = pgbreaker.asyncpg.protect(pool, breaker=Target("asyncpg"))

    async def plain() -> None:
        await pool.fetchval("SELECT 1")

    async def guarded() -> None:
        await protected.fetchval("SELECT 1")

    await compare(table, "asyncpg pool.fetchval", plain, guarded, rounds, None)
    await pool.close()


async def of_psycopg(table: Table, server: Server, rounds: int) -> None:
    dsn = server.dsn(user="app_user", database="app")
    bare = psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=2, open=False)
    watched = pgbreaker.psycopg.AsyncConnectionPool(
        dsn, min_size=1, max_size=2, open=False, breaker=Target("psycopg")
    )
    async with bare, watched:

        async def plain() -> None:
            async with bare.connection() as connection:
                await connection.execute("SELECT 1")

        async def guarded() -> None:
            async with watched.connection() as connection:
                await connection.execute("SELECT 1")

        await compare(table, "psycopg pool.connection", plain, guarded, rounds, None)


async def main(rounds: int) -> int:
    table = Table("a guarded connection, more than the same without", "%")
    with running_server(15) as server:
        for measure in (sqlalchemy, of_asyncpg, of_psycopg):
            await measure(table, server, rounds)
    return table.missed


if __name__ == "__main__":
    chosen = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    sys.exit(1 if asyncio.run(main(chosen)) else 0)
