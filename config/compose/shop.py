"""A shop that outlives its database: an application as the library is meant for.

Its customers look at orders all the time, and buy now and then. While the database is
away they are shown what they were shown before, and purchases are refused at once, with
the time to come again. What they get is logged every five seconds, and counted at
/metrics; anybody may look: curl http://127.0.0.1:9096/orders/7
"""

import asyncio
import logging
import os
import random
import signal
import sys
import time
from collections import Counter as Tally
from typing import Any, Final

import asyncpg
import prometheus_client
from aiohttp import web

import pgbreaker
import pgbreaker.asyncpg
import pgbreaker.metrics
from pgbreaker import BulkheadFullError, CircuitOpenError, circuit_breaker, stale

log = logging.getLogger("shop")

CUSTOMERS: Final = 6
ORDERS: Final = 200
TOLD_EVERY: Final = 5.0  # seconds
# Somebody waits for the answer, so openings are short.
WEB: Final = pgbreaker.PostgreSQLCircuitBreakerConfig.preset("web")
# What a call ends with when the database is the reason, and not we. BulkheadFullError: all
# connections that calls of its kind may have wait for it. InternalClientError is how
# asyncpg, now and then, tells of a session that was ended:
# https://github.com/MagicStack/asyncpg/issues/784
AWAY: Final = (
    *(OSError, BulkheadFullError, asyncpg.PostgresError),
    *(asyncpg.InterfaceError, asyncpg.InternalClientError),
)

REGISTRY: Final = prometheus_client.CollectorRegistry()
REGISTRY.register(pgbreaker.metrics.collector())  # breakers, and the pool behind them
ANSWERS: Final = prometheus_client.Counter(
    "shop_answers",
    "What customers got: fresh, stale (from before), refused at once, failed.",
    ["answer"],
    registry=REGISTRY,
)


class Shop:
    """Sells orders out of a pool that is guarded.

    Attributes:
        got: What customers got since it was told last.
        slowest: Seconds that the slowest of them waited.
    """

    def __init__(self, pool: pgbreaker.asyncpg.ProtectedPool) -> None:
        self._pool = pool
        self.got: Tally[str] = Tally()
        self.slowest = 0.0
        # Each order is kept as it was last seen, and shown when it cannot be asked for.
        guarded = circuit_breaker("orders", config=WEB, cache=stale("1h"))
        self.look = guarded(self._look)

    async def _look(self, order: int) -> int | None:
        async with self._pool.acquire(operation="read") as connection:
            amount: int | None = await connection.fetchval(
                "SELECT amount FROM orders WHERE id = $1", order
            )
            return amount

    async def buy(self, order: int) -> None:
        """Buy one more. There is no answer from before for that: it is done or not."""
        async with self._pool.acquire(operation="write") as connection:
            await connection.execute(
                "UPDATE orders SET amount = amount + 1 WHERE id = $1", order
            )

    async def serve(self) -> None:
        """One customer, who comes again and again."""
        while True:
            begun = time.monotonic()
            order = random.randrange(1, ORDERS + 1)
            try:
                if random.random() < 0.8:
                    await self.look(order)
                    came = pgbreaker.answered_by()
                    answer = "stale" if came == "stale" else "fresh"
                else:
                    await self.buy(order)
                    answer = "fresh"
            except CircuitOpenError:
                answer = "refused"
            except AWAY:
                answer = "failed"
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.got[answer] += 1
            ANSWERS.labels(answer).inc()
            await asyncio.sleep(0.05)

    async def tell(self) -> None:
        """Log what they got."""
        while True:
            await asyncio.sleep(TOLD_EVERY)
            counts = ", ".join(
                f"{self.got[answer]:3} {answer}"
                for answer in ("fresh", "stale", "refused", "failed")
            )
            log.info("%s; the slowest after %.0f ms", counts, self.slowest * 1000)
            self.got.clear()
            self.slowest = 0.0

    # -- Over HTTP -------------------------------------------------------------------

    async def order(self, request: web.Request) -> web.Response:
        """An order, and how old it is when it comes from before."""
        try:
            amount = await self.look(int(request.match_info["order"]))
        except CircuitOpenError as error:
            again = str(max(1, round(error.retry_after)))
            return web.json_response(
                {"error": str(error)}, status=503, headers={"Retry-After": again}
            )
        except AWAY as error:
            return web.json_response({"error": str(error)}, status=503)
        age = pgbreaker.stale_age()
        headers = {} if age is None else {"Age": f"{age:.0f}"}
        return web.json_response(
            {"amount": amount, "from": pgbreaker.answered_by()}, headers=headers
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        """For Prometheus."""
        return web.Response(
            body=prometheus_client.generate_latest(REGISTRY),
            headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST},
        )

    async def status(self, _request: web.Request) -> web.Response:
        """All that its breakers and its pool can say of themselves."""
        return web.json_response(await self._pool.monitor.get_comprehensive_status())


async def healthy(_request: web.Request) -> web.Response:
    """It runs; whether the database does is another question."""
    return web.Response(text="ok\n")


async def main() -> None:
    """Sell until told to stop."""
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    # With min_size=0 it starts without a database, too.
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=0, max_size=4, timeout=2.0
    ) as raw:
        pool = pgbreaker.asyncpg.protect(
            raw, breaker="shop", config=WEB, timeout="2s", acquire_timeout="2s"
        )
        shop = Shop(pool)
        app = web.Application()
        app.router.add_get(r"/orders/{order:\d{1,9}}", shop.order)
        app.router.add_get("/metrics", shop.metrics)
        app.router.add_get("/", shop.status)
        app.router.add_get("/healthy", healthy)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, os.environ.get("HOST", "127.0.0.1"), 9096).start()
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(shop.serve()) for _ in range(CUSTOMERS)
        ]
        tasks.append(asyncio.create_task(shop.tell()))
        await asyncio.wait(
            [*tasks, ended := asyncio.create_task(over.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in (*tasks, ended):
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
        raw.terminate()  # a database that is away answers no goodbye
    for end in ends:
        if isinstance(end, Exception):
            raise end


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    asyncio.run(main())
