"""One connection to a real server: its settings, its deadline, and knocking."""

import asyncio
import socket
import time

import asyncpg
import pytest

from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.secret import Secret
from pgbreaker.demo.proxy import Proxy
from pgbreaker.postgres.target import Target, version_num
from pgbreaker.probes.commit import COMMIT
from pgbreaker.probes.probe import Server
from support.servers import count_connections, psql

PROBES = {"ping": ProbePlan(interval=1.0, timeout=0.5)}


def target(dsn: str, **more) -> Target:
    return Target(TargetPlan(name="main", dsn=Secret(dsn), probes=PROBES, **more))


@pytest.fixture
async def session(server):
    session = await target(server.dsn(user="pgbreaker")).connect(2.0, limit=2.0)
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
    row = await session.fetch(f"SELECT current_setting('{setting}') AS v", 2.0)

    assert row["v"] == value


async def test_the_kernel_gives_up_a_silent_peer_for_us(session):
    sock = session._raw._transport.get_extra_info("socket")

    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


async def test_no_more_is_asked_of_the_kernel_than_an_answer_takes(server, session):
    """
    asyncio makes room for 256 kB each time that something comes, and gives back all but
    a few bytes: between them the heap grew for as long as anybody looked.
    """
    visit = await target(server.dsn(user="pgbreaker")).visit("login", 2.0, limit=1.0)

    for transport in (session._raw._transport, visit._wire._line._transport):
        assert transport.max_size == 16_384
    await visit.close()


async def test_a_monitor_cannot_write(session):
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await session.fetch("CREATE TABLE t (i int)", 2.0)


async def test_the_commit_probe_commits_with_the_rights_of_pg_monitor(server):
    visit = await target(server.dsn(user="pgbreaker")).visit(
        "commit", 2.0, limit=2.0, read_only=False
    )
    where = "SELECT pg_current_wal_insert_lsn()"
    before = psql(server, where)

    await visit.fetch(COMMIT.asks(Server(visit.version)), 2.0)

    assert psql(server, where) != before
    await visit.close()


async def test_a_visitor_has_the_same_limits(server):
    visit = await target(server.dsn(user="pgbreaker")).visit("login", 2.0, limit=2.0)

    row = await visit.fetch(
        "SELECT current_setting('application_name') AS name,"
        " current_setting('lock_timeout') AS lock,"
        " current_setting('default_transaction_read_only') AS read_only",
        2.0,
    )

    assert row == {"name": "pgbreaker/login", "lock": "200ms", "read_only": "on"}
    await visit.close()


async def test_a_visitor_hangs_up_when_no_answer_comes_in_time(server):
    async with Proxy("127.0.0.1", server.port) as proxy:
        dsn = server.dsn(user="pgbreaker", port=proxy.port)
        visit = await target(dsn).visit("login", 2.0, limit=2.0)
        proxy.blackhole()

        with pytest.raises(TimeoutError, match="no answer within 200 ms"):
            await visit.fetch("SELECT 1", 0.2)

        assert not visit.is_open
        proxy.restore()


async def test_both_kinds_of_session_know_the_server(server):
    dsn = server.dsn(user="pgbreaker")
    session = await target(dsn).connect(2.0, limit=2.0)
    visit = await target(dsn).visit("login", 2.0, limit=2.0)
    version = int(psql(server, "SHOW server_version_num"))

    for one in (session, visit):
        row = await one.fetch("SELECT pg_backend_pid()::text AS pid", 2.0)
        assert (one.version, one.in_recovery) == (version, False)
        assert one.pid == int(row["pid"])
        await one.close()


@pytest.mark.parametrize(
    ("said", "number"),
    [("15.18 (Debian 15.18-0+deb12u1)", 150018), ("18beta1", 180000), ("", 0)],
)
def test_versions_are_read_as_the_server_numbers_them(said, number):
    assert version_num(said) == number


async def test_a_deadline_ends_the_connection_and_opens_no_other(server):
    """asyncpg would send a cancel request, over a new connection that hangs, too."""
    async with Proxy("127.0.0.1", server.port) as proxy:
        dsn = server.dsn(user="pgbreaker", port=proxy.port)
        session = await target(dsn).connect(2.0, limit=2.0)
        accepted = proxy.accepted
        proxy.blackhole()
        begun = time.monotonic()

        with pytest.raises(TimeoutError, match="no answer within 200 ms"):
            await session.ping(0.2)

        assert time.monotonic() - begun < 0.45
        assert not session.is_open
        assert proxy.accepted == accepted
        proxy.restore()


async def test_a_question_that_is_cancelled_ends_the_connection(server):
    async with Proxy("127.0.0.1", server.port) as proxy:
        dsn = server.dsn(user="pgbreaker", port=proxy.port)
        session = await target(dsn).connect(2.0, limit=2.0)
        proxy.blackhole()
        asking = asyncio.create_task(session.ping(30.0))
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
    session = await target(dsn).connect(2.0, limit=2.0)

    await session.ping(1.0)
    await session.close()


async def test_a_password_that_is_rotated_is_read_anew(server, tmp_path):
    path = tmp_path / "password"
    path.write_text("wrong\n")
    bare = server.dsn(user="pgbreaker").replace(f":{server.password}@", "@")
    rotated = target(bare, password_file=path)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await rotated.connect(2.0, limit=2.0)

    path.write_text(f"{server.password}\n")

    session = await rotated.connect(2.0, limit=2.0)
    await session.close()
