"""Servers for tests, and what tests do to them."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import asyncpg
import pytest

from pgbreaker.demo.server import Server, ServerError, find_binaries
from support.tools import missing

# What tests/fetch-servers brings: a directory for each major.
FETCHED = Path(__file__).parents[2] / ".venv/servers"


def _of_one_version(fixture: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(fixture, [17], ids=["pg17"], indirect=True)


# For tests of what no server's version makes a difference to, and that take their time.
one_server = _of_one_version("server")
one_breakable_server = _of_one_version("breakable_server")

SETTINGS = {"max_connections": "20", "fsync": "off", "full_page_writes": "off"}

SETUP = """
CREATE ROLE pgbreaker LOGIN NOSUPERUSER CONNECTION LIMIT 4 PASSWORD '{password}';
GRANT pg_monitor TO pgbreaker;
CREATE ROLE app_user LOGIN NOSUPERUSER PASSWORD '{password}';
"""


def prepare(server: Server) -> None:
    """Create the roles and the database that tests use."""
    psql(server, SETUP.format(password=server.password))
    psql(server, "CREATE DATABASE app OWNER app_user")


@contextlib.contextmanager
def running_server(major: int, **settings: str) -> Iterator[Server]:
    """A prepared server of *major*, for the time of the block.

    A missing package skips, with its name; in CI, where everything has to be there,
    it fails.
    """
    fetched = FETCHED / str(major) / "bin"
    try:
        binaries = find_binaries(fetched if fetched.is_dir() else None, major)
    except ServerError as error:
        missing(f"{error}; or run tests/fetch-servers")
    with Server.create(binaries, settings={**SETTINGS, **settings}) as server:
        server.start()
        prepare(server)
        yield server


def psql(server: Server, sql: str, *, database: str = "postgres") -> str:
    """Run *sql* as the superuser over the Unix socket; returns what it printed."""
    command = [
        *("psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"),
        *("-h", server.socket_dir, "-p", str(server.port), "-U", "postgres"),
        *("-d", database, "-c", sql),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def count_connections(server: Server, user: str) -> int:
    """Connections that the server says *user* has."""
    sql = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'"
    return int(psql(server, sql))


@contextlib.asynccontextmanager
async def fill_connections(server: Server) -> AsyncIterator[int]:
    """Take every connection slot, as an application would; gives their number."""
    taken: list[asyncpg.Connection] = []
    try:
        while True:
            try:
                taken.append(
                    await asyncpg.connect(server.dsn(user="app_user"), timeout=10)
                )
            except asyncpg.TooManyConnectionsError:
                break
        yield len(taken)
    finally:
        for connection in taken:
            connection.terminate()


@contextlib.asynccontextmanager
async def lock_relation(
    server: Server, name: str, *, database: str = "postgres"
) -> AsyncIterator[None]:
    """Hold *name* ACCESS EXCLUSIVE, as the superuser."""
    connection = await asyncpg.connect(server.dsn(database=database), timeout=10)
    try:
        await connection.execute(f"BEGIN; LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        connection.terminate()


class Crowd:
    """Sessions of applications, for the time of a block."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sessions: dict[int, asyncpg.Connection] = {}
        self._statements: list[asyncio.Task[str]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # A session that sleeps or waits for a lock does not notice that its client goes.
        pids = ",".join(map(str, self._sessions))
        end = f"SELECT pg_terminate_backend(unnest('{{{pids}}}'::int[]))"
        await asyncio.to_thread(psql, self._server, end)
        for session in self._sessions.values():
            session.terminate()
        await asyncio.gather(*self._statements, return_exceptions=True)

    async def join(
        self,
        *begun: str,
        user: str = "app_user",
        database: str = "app",
        name: str = "shop",
    ) -> asyncpg.Connection:
        """A new session, which has done all that is *begun*."""
        session = await asyncpg.connect(
            self._server.dsn(user=user, database=database),
            timeout=10,
            server_settings={"application_name": name},
        )
        self._sessions[session.get_server_pid()] = session
        for sql in begun:
            await session.execute(sql)
        return session

    async def leave(
        self,
        session: asyncpg.Connection,
        sql: str,
        *,
        seen_by: asyncpg.Connection | None = None,
    ) -> None:
        """Have *session* execute *sql*, and come back when it waits there."""
        self._statements.append(asyncio.create_task(session.execute(sql)))
        waits = (
            "SELECT state = 'active' AND wait_event_type IS NOT NULL"
            f" FROM pg_stat_get_activity({session.get_server_pid()})"
        )
        await until(self._server, waits, on=seen_by)


async def until(
    server: Server,
    sql: str,
    *,
    within: float = 10,
    on: asyncpg.Connection | None = None,
) -> None:
    """Wait until *sql* says true, to the superuser unless *on* is given.

    Fails after *within* seconds.
    """
    connection = on or await asyncpg.connect(server.dsn(), timeout=10)
    try:
        async with asyncio.timeout(within):
            while not await connection.fetchval(sql):  # noqa: ASYNC110 - nobody tells us
                await asyncio.sleep(0.01)
    finally:
        if on is None:
            connection.terminate()


async def quiet(server: Server) -> None:
    """Wait until nobody is connected: a session ends a little after its client."""
    await until(
        server,
        "SELECT count(*) = 0 FROM pg_stat_get_activity(NULL)"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
