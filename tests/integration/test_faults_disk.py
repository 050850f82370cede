"""A full disk: that of the write-ahead log stops the server, that of the tables does not.

Where rows find no room, an application's INSERT fails with 53100, and that is for its own
breakers to count: the commit probe writes no row, and a commit goes on as before.
"""

import asyncio

import asyncpg
import pytest

from pgbreaker.core.states import Cause
from pgbreaker.sinks.board import Condition
from support.disk import move, small_disk
from support.servers import psql, running_server
from support.watching import QUICK, Watching

# Two segments are made beforehand, so that it is soon time for a third.
WAL = {"min_wal_size": "32MB", "max_wal_size": "32MB"}

WRITE = "INSERT INTO orders SELECT repeat('x', 1000) FROM generate_series(1, 3000)"


@pytest.fixture
def server():
    with running_server(15, **WAL) as server:
        psql(server, "CREATE TABLE orders (about text)")
        yield server


async def write_until_it_fails(server):
    """As an application that has no idea. Gives the error that stopped it."""
    connection = await asyncpg.connect(server.dsn(), timeout=10)
    try:
        async with asyncio.timeout(30):
            while True:
                await connection.execute(WRITE)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        return error
    finally:
        connection.terminate()


async def test_a_full_disk_of_the_log_opens_all_until_there_is_room_again(server):
    """The server panics, and cannot recover either: it needs room for that, too."""
    server.stop()
    with small_disk(server, "disk", "64m") as disk:
        move(server.data / "pg_wal", disk)
        server.start()
        async with Watching(server.dsn(user="pgbreaker"), probes=QUICK) as watching:
            await watching.until_watched()
            await watching.until_closed()

            await asyncio.to_thread(disk.fill)
            await write_until_it_fails(server)
            await watching.until_open(within=6.0)

            assert {move.cause for move in watching.openings} == {Cause.CONFIRMED}
            seen = [move.evidence for move in watching.openings]
            # In recovery, or already gone: as the second look found it.
            assert {e.code for e in seen} <= {"starting", "refused", "lost"}
            assert watching.board.condition is Condition.DOWN
            await watching.until(lambda: not server.is_running, within=10.0)

            disk.free()
            await asyncio.to_thread(server.start)
            await watching.until_closed(within=10.0)
            await watching.until(lambda: "restarted" in watching.noticed, within=5.0)
            assert "after a crash" in watching.noticed["restarted"]


async def test_a_full_disk_of_tables_opens_nothing(server):
    with small_disk(server, "disk", "16m") as disk:
        psql(server, f"CREATE TABLESPACE small LOCATION '{disk.path}'")
        psql(server, "ALTER TABLE orders SET TABLESPACE small")
        async with Watching(server.dsn(user="pgbreaker"), probes=QUICK) as watching:
            await watching.until_watched()
            await watching.until_closed()

            await asyncio.to_thread(disk.fill)
            error = await write_until_it_fails(server)
            commits = watching.answers("commit")
            await watching.until(
                lambda: watching.answers("commit") >= commits + 2, within=8.0
            )

            assert error.sqlstate == "53100"
            assert watching.board.condition is Condition.UP
            assert watching.moves == []
