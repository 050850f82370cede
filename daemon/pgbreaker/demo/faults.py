"""The ways in which the demo breaks its server, and mends it again."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg

from pgbreaker.core.units import Seconds
from pgbreaker.demo.server import Server

Break: TypeAlias = Callable[[Server, AsyncExitStack], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a server.

    Attributes:
        what: What is done to it, for a person.
        expect: What is then to be seen.
        lasts: Seconds until it is mended.
        begin: Breaks it, and leaves on the stack what mends it.
    """

    what: str
    expect: str
    lasts: Seconds
    begin: Break


async def _crash(server: Server, mend: AsyncExitStack) -> None:
    server.kill()
    mend.push_async_callback(asyncio.to_thread, server.start)


async def _freeze(server: Server, mend: AsyncExitStack) -> None:
    server.freeze()
    mend.callback(server.thaw)


async def _exhaust(server: Server, mend: AsyncExitStack) -> None:
    while True:
        try:
            connection = await asyncpg.connect(server.dsn(), timeout=5)
        except asyncpg.TooManyConnectionsError:
            return
        mend.callback(connection.terminate)


async def _lock(server: Server, mend: AsyncExitStack) -> None:
    connection = await asyncpg.connect(server.dsn(), timeout=5)
    mend.callback(connection.terminate)
    await connection.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")


async def _slow(server: Server, mend: AsyncExitStack) -> None:
    async def stutter() -> None:
        try:
            while True:
                server.freeze()
                await asyncio.sleep(0.35)
                server.thaw()
                await asyncio.sleep(0.02)
        finally:
            server.thaw()

    stuttering = asyncio.create_task(stutter())
    mend.push_async_callback(asyncio.wait, [stuttering])
    mend.callback(stuttering.cancel)


FAULTS: Final[Mapping[str, Fault]] = {
    "crash": Fault(
        "kill -9 of every process of the server",
        "all three breakers open within milliseconds",
        6.0,
        _crash,
    ),
    "freeze": Fault(
        "SIGSTOP to every process of the server: connections stay, nothing answers",
        "all three breakers open within 2.1 s; no exporter would notice",
        8.0,
        _freeze,
    ),
    "exhaust": Fault(
        "every connection slot taken",
        "only primary/connect opens: who has a connection is served",
        15.0,
        _exhaust,
    ),
    "lock": Fault(
        "one table locked, which the application needs",
        "no breaker opens: the server is well, one table is not",
        8.0,
        _lock,
    ),
    "slow": Fault(
        "the server stutters: it answers, but in 350 ms",
        "primary/read opens once most pings of a window were slow",
        20.0,
        _slow,
    ),
}
"""Name -> fault. To add one: write the function, add the row."""
