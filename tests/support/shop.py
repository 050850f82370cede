"""An application, as a process of its own: it sells, by the library, and tells Prometheus.

    python shop.py DSN POOLER PORT

Its pool has fewer connections than it has customers, so that some of them wait; so has
the pooler, where others stand. What it cannot read it gives from before, or says that it
has none. And it leaks: every second a connection more, up to a dozen.
"""

import asyncio
import random
import sys
from contextlib import suppress

import asyncpg
from prometheus_client import CollectorRegistry, start_http_server

import pgbreaker
import pgbreaker.asyncpg
import pgbreaker.metrics
from pgbreaker import BulkheadFullError, CircuitOpenError, circuit_breaker, stale

CONNECTIONS, CUSTOMERS = 4, 6
LEAKED = 12
# InternalClientError is how asyncpg, now and then, tells of a session that was ended:
# https://github.com/MagicStack/asyncpg/issues/784
AWAY = (
    *(CircuitOpenError, BulkheadFullError, OSError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError),
)
CONFIG = pgbreaker.PostgreSQLCircuitBreakerConfig(
    failure_threshold=5, timeout=2.0, slow_call=0.25, enable_detailed_logging=False
)


async def sell(pool: pgbreaker.asyncpg.ProtectedPool) -> None:
    """One customer, who reads more often than buying."""

    @circuit_breaker(
        "catalogue",
        config=CONFIG,
        cache=stale("1m"),
        fallback=nothing,
        timeout="500ms",
    )
    async def look(item: int) -> str:
        async with pool.acquire(operation="read", timeout=0.5) as connection:
            # Now and then slowly: for longer than some of them wait.
            seconds = 0.4 if random.random() < 0.03 else 0.01
            await connection.fetchval("SELECT pg_sleep($1)", seconds)
            return str(item)

    while True:
        try:
            if random.random() < 0.8:
                # Some ask for what nobody has asked for before.
                async with asyncio.timeout(random.choice((0.35, 1.0))):
                    await look(random.randrange(20) or random.randrange(10**9))
            else:
                async with pool.acquire(operation="write", timeout=0.5) as connection:
                    await connection.execute("INSERT INTO sale DEFAULT VALUES")
        except AWAY:
            pass  # the customer comes again
        await asyncio.sleep(0.02)


async def nothing(item: int) -> str:
    """What is shown when there is no answer, not even an old one."""
    return f"{item}?"


async def queue(pooler: str) -> None:
    """One of those who stand at the pooler."""
    while True:
        try:
            connection = await asyncpg.connect(
                pooler, statement_cache_size=0, timeout=2.0
            )
            while True:
                await connection.execute("SELECT pg_sleep(0.05)")
        except AWAY:
            await asyncio.sleep(0.2)


async def leak(dsn: str) -> None:
    """Open connections and forget them."""
    forgotten: list[asyncpg.Connection] = []
    while True:
        forgotten = [one for one in forgotten if not one.is_closed()]
        if len(forgotten) < LEAKED:
            with suppress(AWAY):
                forgotten.append(await asyncpg.connect(dsn, timeout=2.0))
        await asyncio.sleep(1.0)


async def main(dsn: str, pooler: str, port: int) -> None:
    """Sell until ended."""
    registry = CollectorRegistry()
    registry.register(pgbreaker.metrics.collector())
    async with asyncpg.create_pool(
        dsn, min_size=CONNECTIONS, max_size=CONNECTIONS, timeout=1.0
    ) as raw:
        pool = pgbreaker.asyncpg.protect(
            raw, breaker="main", config=CONFIG, timeout=1.0, share=1.0
        )
        await raw.execute(
            "CREATE TABLE IF NOT EXISTS sale (id bigserial, at timestamptz DEFAULT now())"
        )
        start_http_server(port, addr="127.0.0.1", registry=registry)
        selling = (sell(pool) for _ in range(CUSTOMERS))
        queueing = (queue(pooler) for _ in range(CUSTOMERS))
        await asyncio.gather(*selling, *queueing, leak(dsn))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3], port=int(sys.argv[3])))
