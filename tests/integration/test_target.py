"""One connection to a real server: its settings, its deadline, and knocking."""

import asyncio
import socket
import time

import asyncpg
import pytest

from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.secret import Secret
from pgbreaker.demo.proxy import Proxy
from pgbreaker.postgres.target import Target
from pgbreaker.probes.commit import commit
from pgbreaker.probes.ping import ping
from support.servers import count_connections, psql

PROBES = {"ping": ProbePlan(interval=1.0, timeout=0.5)}


def target(dsn: str, **more) -> Target:
    return Target(TargetPlan(name="main", dsn=Secret(dsn), probes=PROBES, **more))


@pytest.fixture
async def session(server):
    session = await target(server.dsn(user="pgbreaker")).connect("ping", 2.0)
    yield session
    await session.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("application_name", "pgbreaker/ping"),
        ("statement_timeout", "1600ms"),  # a little before our own two seconds
        ("lock_timeout", "200ms"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("default_transaction_read_only", "on"),
        ("search_path", "pg_catalog"),
        ("jit", "off"),
    ],
)
async def test_the_server_keeps_limits_for_us(session, setting, value):
    row = await session.connection.fetchrow(f"SELECT current_setting('{setting}') AS v")

    assert row["v"] == value


async def test_the_kernel_gives_up_a_silent_peer_for_us(session):
    sock = session._raw._transport.get_extra_info("socket")

    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


async def test_a_monitor_cannot_write(session):
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await session.connection.execute("CREATE TABLE t (i int)")


async def test_the_commit_probe_commits_with_the_rights_of_pg_monitor(server):
    session = await target(server.dsn(user="pgbreaker")).connect(
        "commit", 2.0, read_only=False
    )
    where = "SELECT pg_current_wal_insert_lsn()"
    before = psql(server, where)

    await session.ask(commit, 2.0)

    assert psql(server, where) != before
    await session.close()


async def test_a_deadline_ends_the_connection_and_opens_no_other(server):
    """asyncpg would send a cancel request, over a new connection that hangs, too."""
    async with Proxy("127.0.0.1", server.port) as proxy:
        dsn = server.dsn(user="pgbreaker", port=proxy.port)
        session = await target(dsn).connect("ping", 2.0)
        accepted = proxy.accepted
        proxy.blackhole()
        begun = time.monotonic()

        with pytest.raises(TimeoutError, match="no answer within 200 ms"):
            await session.ask(ping, 0.2)

        assert time.monotonic() - begun < 0.45
        assert not session.is_open
        assert proxy.accepted == accepted
        proxy.restore()


async def test_a_question_that_is_cancelled_ends_the_connection(server):
    async with Proxy("127.0.0.1", server.port) as proxy:
        dsn = server.dsn(user="pgbreaker", port=proxy.port)
        session = await target(dsn).connect("ping", 2.0)
        proxy.blackhole()
        asking = asyncio.create_task(session.ask(ping, 30.0))
        await asyncio.sleep(0)

        asking.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asking, 1.0)
        assert not session.is_open
        proxy.restore()


async def test_its_end_is_told_at_once(server, session):
    lost = asyncio.Event()
    session.when_lost(lost.set)

    psql(
        server,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'pgbreaker/ping'",
    )

    await asyncio.wait_for(lost.wait(), 2.0)


async def test_a_knock_is_no_session(server):
    before = int(psql(server, "SELECT sum(sessions) FROM pg_stat_database"))

    for _ in range(10):
        await target(server.dsn(user="pgbreaker")).knock(2.0)

    after = int(psql(server, "SELECT sum(sessions) FROM pg_stat_database"))
    assert count_connections(server, "pgbreaker") == 0
    assert after - before <= 2  # those of the two looks


async def test_a_knock_at_a_frozen_server_is_told_apart_from_no_server(fresh_server):
    plan = target(fresh_server.dsn(user="pgbreaker"))
    fresh_server.freeze()
    try:
        with pytest.raises(TimeoutError, match="connected, but the server is silent"):
            await plan.knock(0.2)
    finally:
        fresh_server.thaw()
    await asyncio.to_thread(fresh_server.stop, "immediate")

    with pytest.raises(ConnectionRefusedError):
        await plan.knock(0.2)


async def test_a_knock_works_over_a_unix_socket(server):
    dsn = f"postgresql://postgres@/postgres?host={server.socket_dir}&port={server.port}"

    await target(dsn).knock(2.0)
    session = await target(dsn).connect("ping", 2.0)

    await session.ask(ping, 1.0)
    await session.close()


async def test_a_password_that_is_rotated_is_read_anew(server, tmp_path):
    path = tmp_path / "password"
    path.write_text("wrong\n")
    bare = server.dsn(user="pgbreaker").replace(f":{server.password}@", "@")
    rotated = target(bare, password_file=path)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await rotated.connect("ping", 2.0)

    path.write_text(f"{server.password}\n")

    session = await rotated.connect("ping", 2.0)
    await session.close()
