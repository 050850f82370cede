"""A small application on the demo's server: it reads and writes, and counts."""

import asyncio
from typing import Final

import asyncpg

from pgbreaker.core.units import Seconds

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, amount int NOT NULL);
INSERT INTO orders (amount) SELECT generate_series(1, 1000)
"""

_CLIENTS: Final = 4
_PAUSE: Final[Seconds] = 0.05
_PATIENCE: Final[Seconds] = 2.0


class Workload:
    """Four clients that each ask twenty times a second, and reconnect when lost.

    Attributes:
        served: Calls that were answered.
        failed: Calls that were not, or not in time.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.served = 0
        self.failed = 0

    async def prepare(self) -> None:
        """Create what the clients read and write."""
        connection = await asyncpg.connect(self._dsn, timeout=10)
        await connection.execute(SCHEMA)
        await connection.close(timeout=2)

    async def run(self) -> None:
        """Go on until cancelled."""
        await asyncio.gather(*(self._client() for _ in range(_CLIENTS)))

    async def _client(self) -> None:
        connection = None
        try:
            while True:
                try:
                    if connection is None or connection.is_closed():
                        connection = await asyncpg.connect(self._dsn, timeout=_PATIENCE)
                    await self._call(connection)
                    self.served += 1
                except (
                    OSError,
                    TimeoutError,
                    asyncpg.PostgresError,
                    asyncpg.InterfaceError,
                ):
                    self.failed += 1
                    if connection is not None:
                        connection.terminate()
                await asyncio.sleep(_PAUSE)
        finally:
            if connection is not None:
                connection.terminate()

    async def _call(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        # Time ends the connection, not the call: a cancelled call makes asyncpg
        # open another connection, to a server that may be frozen.
        overdue = asyncio.get_running_loop().call_later(_PATIENCE, connection.terminate)
        try:
            await connection.execute(
                "UPDATE orders SET amount = amount + 1 WHERE id = 1"
            )
            await connection.execute("SELECT count(*) FROM orders")
        finally:
            overdue.cancel()
