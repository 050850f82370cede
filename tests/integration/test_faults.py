"""Every fault on a real server: what opens, what must not, and how it closes again.

Each test watches a server with default probes, breaks it, and mends it. That no fault
ever makes more than three connections to it is counted at the server throughout.
"""

import asyncio
import subprocess

import asyncpg
import pytest

from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.states import Cause, State
from pgbreaker.demo.proxy import Proxy
from pgbreaker.sinks.board import Condition
from support.servers import (
    count_connections,
    fill_connections,
    lock_relation,
    one_breakable_server,
    one_server,
    psql,
)
from support.watching import DEFAULT, FAST, QUICK, QUICKENED, Watching

ALL = {"connect", "read", "write"}


@pytest.fixture
async def watching(fresh_server):
    async with Watching(fresh_server.dsn(user="pgbreaker"), probes=QUICK) as watching:
        await watching.until_watched()
        await watching.until_closed()
        yield watching


# What opens everything.


@one_breakable_server
@pytest.mark.parametrize("how", ["kill", "immediate", "fast"])
async def test_a_server_that_dies_opens_all_at_once(fresh_server, watching, how):
    if how == "kill":
        fresh_server.kill()
    else:
        await asyncio.to_thread(fresh_server.stop, how)

    await watching.until_open(within=2.0)
    assert watching.board.condition is Condition.DOWN
    assert all(move.evidence is not None for move in watching.openings)

    await asyncio.to_thread(fresh_server.start)
    await watching.until_closed(within=5.0)
    assert "restarted" in {notice.code for notice in watching.notices}


@one_breakable_server
async def test_a_backend_killed_is_ridden_through(fresh_server, watching):
    """One SIGKILL makes the server end every session and recover from the crash."""
    pid = psql(
        fresh_server,
        "SELECT pid FROM pg_stat_activity WHERE usename = 'pgbreaker' LIMIT 1",
    )

    fresh_server.kill_backend(int(pid))

    await watching.until(lambda: Finding.LOST in watching.findings("ping"), within=2.0)
    await watching.until_closed(within=5.0)
    assert len(watching.openings) <= 3  # each breaker once, or not at all


@one_breakable_server
@pytest.mark.parametrize(
    ("probes", "within"), [(DEFAULT, 2.6), (FAST, 1.2)], ids=["default", "fast"]
)
async def test_a_server_that_freezes_opens_all(fresh_server, probes, within):
    async with Watching(fresh_server.dsn(user="pgbreaker"), probes=probes) as watching:
        await watching.until_watched()

        fresh_server.freeze()
        await watching.until_open(within=within)
        fresh_server.thaw()

        await watching.until_closed(within=5.0)
    assert watching.opened == ALL
    assert {move.evidence.code for move in watching.openings} == {"timeout"}


@one_server
async def test_a_black_hole_opens_all_and_no_session_is_left_behind(server):
    async with Proxy("127.0.0.1", server.port) as proxy:
        dsn = server.dsn(user="pgbreaker", port=proxy.port)
        async with Watching(dsn) as watching:
            await watching.until_watched()

            proxy.blackhole()
            await watching.until_open(within=2.6)
            proxy.restore()

            await watching.until_closed(within=5.0)
            assert count_connections(server, "pgbreaker") <= 3


@one_server
async def test_a_long_way_to_the_server_is_slow_and_not_a_dead_server(server):
    """A question is two round trips and a login five: late is not gone."""
    async with (
        Proxy("127.0.0.1", server.port) as proxy,
        Watching(
            server.dsn(user="pgbreaker", port=proxy.port), probes=QUICK
        ) as watching,
    ):
        await watching.until_watched()

        proxy.delay(0.14)
        await watching.until_open("connect", "read", within=15.0)

        causes = {move.breaker: move.cause for move in watching.openings}
        assert causes["main/read"] is Cause.SLOW_RATE
        assert watching.board.condition is Condition.DEGRADED
        assert Finding.OK in {r.finding for r in watching.readings("identity")[-3:]}


@one_server
async def test_connections_reset_on_the_way_open_all(server):
    async with (
        Proxy("127.0.0.1", server.port) as proxy,
        Watching(server.dsn(user="pgbreaker", port=proxy.port)) as watching,
    ):
        await watching.until_watched()

        proxy.reset()
        await watching.until_open(within=2.0)
        proxy.restore()

        await watching.until_closed(within=5.0)


# What opens one breaker alone.


async def test_a_full_server_opens_connect_alone(fresh_server):
    async with Watching(fresh_server.dsn(user="pgbreaker")) as watching:
        await watching.until_watched()
        async with fill_connections(fresh_server):
            await watching.until_open("connect", within=6.1)
            assert watching.opened == {"connect"}
            assert watching.openings[0].evidence.sqlstate == "53300"
            assert watching.board.condition is Condition.DEGRADED

        await watching.until_closed(within=5.0)


async def test_a_server_that_became_read_only_opens_write_alone(fresh_server, watching):
    psql(fresh_server, "ALTER SYSTEM SET default_transaction_read_only = on")
    psql(fresh_server, "SELECT pg_reload_conf()")

    await watching.until_open("write", within=3.0)
    assert watching.opened == {"write"}
    assert watching.openings[0].evidence.sqlstate == "25006"

    psql(
        fresh_server,
        "ALTER SYSTEM RESET default_transaction_read_only",
    )
    psql(fresh_server, "SELECT pg_reload_conf()")
    await watching.until_closed(within=5.0)


# What must not open anything.


async def test_our_connections_terminated_again_and_again_open_nothing(
    fresh_server, watching
):
    for _ in range(8):
        before = watching.answers("ping")
        psql(
            fresh_server,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgbreaker'",
        )
        await watching.until(lambda n=before: watching.answers("ping") > n, within=2.0)

    assert Finding.LOST in watching.findings("ping")
    assert watching.moves == []


@one_breakable_server
async def test_a_locked_pg_database_opens_nothing_and_is_told_as_that(
    fresh_server, watching
):
    """New logins hang, whoever is in goes on: not down, and no queue of our own."""
    async with lock_relation(fresh_server, "pg_catalog.pg_database"):
        await watching.until(
            lambda: (
                len(
                    [
                        r
                        for r in watching.readings("login")
                        if r.finding is Finding.QUERY
                    ]
                )
                >= 2
            ),
            within=6.0,
        )
        told = {notice.code: notice.text for notice in watching.notices}
        assert "logins wait for a lock on pg_database" in told["logins_wait"]

    await watching.until(lambda: watching.readings("login")[-1].answered, within=6.0)
    assert watching.moves == []


async def test_a_locked_table_opens_nothing(fresh_server, watching):
    psql(fresh_server, "CREATE TABLE IF NOT EXISTS orders (id int)", database="app")
    async with lock_relation(fresh_server, "orders", database="app"):
        probes = {probe: watching.answers(probe) for probe in QUICKENED}
        await watching.until(
            lambda: all(watching.answers(p) > n for p, n in probes.items()), within=6.0
        )

    assert watching.moves == []
    assert watching.findings("ping") == {Finding.OK}


async def test_a_wrong_password_is_an_alarm_and_opens_nothing(server):
    async with Watching(server.dsn(user="pgbreaker", password="wrong")) as watching:
        await watching.until(lambda: watching.notices, within=3.0)

        assert watching.notices[0].code == "locked_out"
        assert "28P01" in watching.notices[0].text
        assert watching.board.condition is Condition.UNKNOWN
        assert watching.moves == []
        # No storm of logins: the next try is seconds away.
        assert len(watching.readings("ping")) == 1


async def test_a_missing_database_is_an_alarm_and_opens_nothing(server):
    async with Watching(server.dsn(user="pgbreaker", database="nowhere")) as watching:
        await watching.until(lambda: watching.notices, within=3.0)

        assert "3D000" in watching.notices[0].text
        assert watching.moves == []


@pytest.mark.slow
@pytest.mark.parametrize("server", [15], ids=["pg15"], indirect=True)
async def test_a_saturated_server_opens_nothing(server, watching_pgbench):
    async with Watching(server.dsn(user="pgbreaker")) as watching:
        await watching.until_watched()

        await watching_pgbench(seconds=20)

        assert watching.answers("ping") >= 18
        assert watching.openings == []


@pytest.fixture
def watching_pgbench(server):
    """Saturate every core with pgbench, as the superuser, for some seconds."""

    async def run(seconds: int) -> None:
        common = [
            "-h",
            server.socket_dir,
            "-p",
            str(server.port),
            "-U",
            "postgres",
            "app",
        ]
        pgbench = str(server.binaries / "pgbench")
        await asyncio.to_thread(
            subprocess.run,
            [pgbench, "-i", "-q", "-s", "5", *common],
            check=True,
            capture_output=True,
        )
        await asyncio.to_thread(
            subprocess.run,
            [pgbench, "-c", "10", "-j", "2", "-T", str(seconds), *common],
            check=True,
            capture_output=True,
        )

    return run


# Where there was nothing from the start.


@one_breakable_server
async def test_a_server_that_is_not_there_at_start_is_a_state(fresh_server):
    await asyncio.to_thread(fresh_server.stop, "fast")
    async with Watching(fresh_server.dsn(user="pgbreaker")) as watching:
        assert watching.board.condition is Condition.UNKNOWN

        await watching.until_open(within=3.0)
        assert watching.board.condition is Condition.DOWN

        await asyncio.to_thread(fresh_server.start)
        await watching.until_closed(within=5.0)


async def test_a_name_that_does_not_resolve_is_a_state():
    async with Watching("postgresql://pgbreaker@no-such-host.invalid/app") as watching:
        await watching.until_open(within=15.0)

        assert watching.findings("ping") == {Finding.UNRESOLVED}
        assert watching.board.condition is Condition.DOWN


# What holds in every fault.


@one_breakable_server
@pytest.mark.parametrize("fault", ["kill", "freeze", "full", "locked"])
async def test_there_are_never_more_than_three_connections(fresh_server, fault):
    """Counted at the server, often, by a session of somebody else's."""
    async with Watching(fresh_server.dsn(user="pgbreaker"), probes=QUICK) as watching:
        await watching.until_watched()
        counted: list[int] = []

        async def count() -> None:
            connection = await asyncpg.connect(fresh_server.dsn(), timeout=10)
            try:
                while True:
                    counted.append(
                        await connection.fetchval(
                            "SELECT count(*) FROM pg_stat_get_activity(NULL) AS a"
                            " JOIN pg_roles AS r ON r.oid = a.usesysid"
                            " WHERE rolname = 'pgbreaker'"
                        )
                    )
                    await asyncio.sleep(0.002)
            finally:
                connection.terminate()

        match fault:
            case "kill":
                fresh_server.kill()
                await watching.until_open(within=2.0)
                await asyncio.to_thread(fresh_server.start)
                counting = asyncio.create_task(count())
            case "freeze":
                counting = asyncio.create_task(count())
                await watching.until(lambda: counted, within=2.0)
                fresh_server.freeze()
                await watching.until_open(within=2.0)
                await asyncio.sleep(5.0)  # the time in which sessions could pile up
                fresh_server.thaw()
            case "full":
                counting = asyncio.create_task(count())
                async with fill_connections(fresh_server):
                    await watching.until_open("connect", within=6.1)
            case "locked":
                counting = asyncio.create_task(count())
                async with lock_relation(fresh_server, "pg_catalog.pg_database"):
                    await asyncio.sleep(7.0)  # likewise
        await watching.until_closed(within=8.0)
        assert not counting.done()  # it has counted to the end
        counting.cancel()
        await asyncio.wait([counting])

    assert counted
    assert max(counted) <= 3


async def test_the_patrol_is_well_and_hangs_up_when_closed(server):
    async with Watching(server.dsn(user="pgbreaker")) as watching:
        await watching.until_watched()
        assert watching.patrol.trouble is None
        assert count_connections(server, "pgbreaker") == 1

    for _ in range(200):
        if count_connections(server, "pgbreaker") == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a connection was left behind")


async def test_a_target_without_write_has_no_such_breaker(server):
    probes = {"ping": ProbePlan(interval=0.1, timeout=0.25)}
    dsn = server.dsn(user="pgbreaker")
    async with Watching(dsn, probes=probes, operations=("connect", "read")) as watching:
        await watching.until_closed()

        assert watching.states == {"connect": State.CLOSED, "read": State.CLOSED}
