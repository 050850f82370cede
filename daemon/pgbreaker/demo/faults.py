"""The ways in which the demo breaks its server, and mends it again."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg

from pgbreaker.core.units import Seconds
from pgbreaker.demo.proxy import Proxy
from pgbreaker.demo.server import Server


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo plays on.

    Attributes:
        server: The server.
        proxy: A way to it that can be made bad.
    """

    server: Server
    proxy: Proxy


Break: TypeAlias = Callable[[Stage, AsyncExitStack], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a server.

    Attributes:
        what: What is done to it, for a person.
        expect: What is then to be seen.
        lasts: Seconds until it is mended.
        begin: Breaks it, and leaves on the stack what mends it.
        on_the_way: Whether it breaks the way to the server: then the daemon goes
            through the proxy.
    """

    what: str
    expect: str
    lasts: Seconds
    begin: Break
    on_the_way: bool = False


async def _crash(stage: Stage, mend: AsyncExitStack) -> None:
    stage.server.kill()
    mend.push_async_callback(asyncio.to_thread, stage.server.start)


async def _freeze(stage: Stage, mend: AsyncExitStack) -> None:
    stage.server.freeze()
    mend.callback(stage.server.thaw)


async def _exhaust(stage: Stage, mend: AsyncExitStack) -> None:
    while True:
        try:
            connection = await asyncpg.connect(stage.server.dsn(), timeout=5)
        except asyncpg.TooManyConnectionsError:
            return
        mend.callback(connection.terminate)


async def _lock(stage: Stage, mend: AsyncExitStack) -> None:
    connection = await asyncpg.connect(stage.server.dsn(), timeout=5)
    mend.callback(connection.terminate)
    await connection.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")


async def _slow(stage: Stage, mend: AsyncExitStack) -> None:
    stage.proxy.delay(0.14)
    mend.callback(stage.proxy.restore)


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
        "the network takes 280 ms for a round trip",
        "primary/connect opens, for a login is five of them, and primary/read once"
        " most pings of a window were slow",
        20.0,
        _slow,
        on_the_way=True,
    ),
}
"""Name -> fault. To add one: write the function, add the row."""
