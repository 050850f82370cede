"""Asking one probe of a real server, as the monitor would."""

import contextlib
from collections.abc import AsyncIterator

import asyncpg

from pgbreaker.core.reading import Seen
from pgbreaker.demo.server import Server as Real
from pgbreaker.probes.probe import Probe, Server
from pgbreaker.probes.statement import rows_of, statement

# Those of a held connection, see `postgres.target`.
SETTINGS = {
    "application_name": "pgbreaker/ping",
    "statement_timeout": "10000",  # a loaded machine must not fail a test of contents
    "lock_timeout": "200",
    "search_path": "pg_catalog",
    "jit": "off",
    "client_min_messages": "error",
    "default_transaction_read_only": "on",
}


@contextlib.asynccontextmanager
async def session(
    real: Real, *, user: str = "pgbreaker", database: str = "postgres"
) -> AsyncIterator[asyncpg.Connection]:
    """A connection with the settings of the held one."""
    connection = await asyncpg.connect(
        real.dsn(user=user, database=database),
        timeout=10,
        statement_cache_size=0,
        server_settings=SETTINGS,
    )
    try:
        yield connection
    finally:
        connection.terminate()


async def known_of(connection: asyncpg.Connection) -> Server:
    """What the monitor knows of the server when it asks."""
    version = await connection.fetchval(
        "SELECT current_setting('server_version_num')::int"
    )
    return Server(version, await connection.fetchval("SELECT pg_is_in_recovery()"))


async def ask(
    real: Real, probe: Probe, *, user: str = "pgbreaker", database: str = "postgres"
) -> Seen:
    """Ask *probe* of *real* on a session of its own; raises what asyncpg raises."""
    async with session(real, user=user, database=database) as connection:
        return await ask_on(connection, probe)


async def ask_on(connection: asyncpg.Connection, probe: Probe) -> Seen:
    """Ask *probe* on *connection*."""
    sql = probe.asks(await known_of(connection))
    assert sql is not None, f"{probe.name} has nothing to ask here"
    answer = await connection.fetchrow(statement({probe.name: sql}))
    return probe.reads(rows_of(answer, probe.name))
