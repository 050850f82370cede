"""Servers for tests, and what tests do to them."""

import contextlib
import subprocess
from collections.abc import AsyncIterator, Iterator

import asyncpg

from pgbreaker.demo.server import Server, ServerError, find_binaries
from support.tools import missing

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
def running_server(major: int) -> Iterator[Server]:
    """A prepared server of *major*, for the time of the block.

    A missing package skips, with its name; in CI, where everything has to be there,
    it fails.
    """
    try:
        binaries = find_binaries(major=major)
    except ServerError as error:
        missing(str(error))
    with Server.create(binaries, settings=SETTINGS) as server:
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
