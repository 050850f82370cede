"""Faults of replication: a replica that is stale or cut off, a failover, a commit that
waits for a standby; what opens, what must not, and how it closes again."""

import asyncio
import contextlib
import time
from dataclasses import replace

import asyncpg
import pytest

from pgbreaker.core.reading import Finding
from pgbreaker.core.states import Cause, State
from pgbreaker.sinks.board import Condition
from support.servers import psql, quiet, running_server, until
from support.standby import running_standby
from support.switch import Switch
from support.watching import DEFAULT, QUICK, Watching

MAX_LAG = 1.0

REPLICA = {name: plan for name, plan in QUICK.items() if name != "commit"} | {
    "replication": replace(QUICK["replication"], interval=0.5, limit=MAX_LAG)
}
READS = ("connect", "read")


@pytest.fixture(scope="module")
def primary():
    with running_server(15) as primary:
        psql(primary, "CREATE TABLE orders (id int)")
        yield primary


@pytest.fixture(scope="module")
def replica(primary):
    """A replica that tests leave as it was."""
    with running_standby(primary, name="replica_a") as replica:
        yield replica


@pytest.fixture
def follower(primary):
    """A replica of the test's own."""
    with running_standby(primary, name="replica_b") as follower:
        yield follower


@pytest.fixture
async def pair():
    """A primary and its replica, to be torn apart."""
    with running_server(15) as old, running_standby(old) as new:
        psql(old, "CREATE TABLE orders (id int)")
        yield old, new


def alter(server, **settings):
    """Set what is given in ``postgresql.auto.conf``; None: as it was."""
    for name, value in settings.items():
        to = f"RESET {name}" if value is None else f"SET {name} = '{value}'"
        psql(server, f"ALTER SYSTEM {to}")
    psql(server, "SELECT pg_reload_conf()")


def counted(server):
    """Our connections, as the server counts them."""
    sql = (
        "SELECT count(*) FROM pg_stat_get_activity(NULL) AS a"
        " JOIN pg_roles AS r ON r.oid = a.usesysid WHERE rolname = 'pgbreaker'"
    )
    return int(psql(server, sql))


# A replica, watched for itself.


async def test_a_healthy_replica_is_up(replica):
    """With the usual probes: that it takes no writes is no fault where nobody writes."""
    dsn = replica.dsn(user="pgbreaker")
    async with Watching(dsn, probes=QUICK, operations=READS) as seen:
        await seen.until_watched()
        await seen.until_closed()

        assert seen.moves == []


async def test_a_replica_asked_for_writes_says_that_it_takes_none(replica):
    async with Watching(replica.dsn(user="pgbreaker"), probes=QUICK) as seen:
        await seen.until_open("write", within=4.0)

        assert seen.opened == {"write"}
        assert "25006 the server is in recovery" in seen.reasons("write")[0]


async def test_a_replica_that_lags_opens_read_alone(primary, replica):
    dsn = replica.dsn(user="pgbreaker")
    psql(primary, "INSERT INTO orders VALUES (1)")
    async with Watching(dsn, probes=REPLICA, operations=READS) as seen:
        await seen.until_watched()
        await until(replica, "SELECT pg_last_xact_replay_timestamp() IS NOT NULL")
        psql(replica, "SELECT pg_wal_replay_pause()")
        try:
            psql(primary, "INSERT INTO orders VALUES (1)")
            await seen.until_open("read", within=8.0)

            assert "behind its primary (limit 1.0 s)" in seen.reasons("read")[0]
            assert seen.openings[0].cause is Cause.FAILURE_RUN
            assert seen.board.facts["replay_paused"] is True
            assert seen.board.condition is Condition.DEGRADED
        finally:
            psql(replica, "SELECT pg_wal_replay_resume()")
        await seen.until_closed(within=8.0)
    assert seen.opened == {"read"}


async def test_a_replica_that_never_replayed_a_commit_lags_all_the_same(
    primary, follower
):
    """Since it began, that is: then it has no commit to tell its age by."""
    dsn = follower.dsn(user="pgbreaker")
    assert psql(follower, "SELECT pg_last_xact_replay_timestamp() IS NULL") == "t"
    async with Watching(dsn, probes=REPLICA, operations=READS) as seen:
        await seen.until_watched()
        psql(follower, "SELECT pg_wal_replay_pause()")
        psql(primary, "INSERT INTO orders VALUES (4)")

        await seen.until_open("read", within=8.0)
    assert seen.opened == {"read"}


async def test_a_replica_that_is_cut_off_opens_read_alone(replica):
    dsn = replica.dsn(user="pgbreaker")
    where = psql(replica, "SHOW primary_conninfo").replace("'", "''")
    async with Watching(dsn, probes=REPLICA, operations=READS) as seen:
        await seen.until_watched()
        try:
            alter(replica, primary_conninfo="host=/nowhere")
            await seen.until_open("read", within=8.0)
            assert "does not stream from its primary" in seen.reasons("read")[0]
        finally:
            alter(replica, primary_conninfo=where)
        await seen.until_closed(within=8.0)
    assert seen.opened == {"read"}


async def test_a_replica_with_no_limit_may_lag(primary, replica):
    dsn = replica.dsn(user="pgbreaker")
    probes = REPLICA | {"replication": replace(REPLICA["replication"], limit=None)}
    psql(primary, "INSERT INTO orders VALUES (2)")
    async with Watching(dsn, probes=probes, operations=READS) as seen:
        await until(replica, "SELECT pg_last_xact_replay_timestamp() IS NOT NULL")
        psql(replica, "SELECT pg_wal_replay_pause()")
        try:
            psql(primary, "INSERT INTO orders VALUES (3)")
            await seen.until(
                lambda: (seen.board.facts.get("replay_age_seconds") or 0) > MAX_LAG,
                within=8.0,
            )
        finally:
            psql(replica, "SELECT pg_wal_replay_resume()")
    assert seen.moves == []


# A failover.


async def test_a_promotion_is_told_and_lets_writes_pass(follower):
    async with Watching(follower.dsn(user="pgbreaker"), probes=QUICK) as seen:
        await seen.until_open("write", within=4.0)
        await seen.until(lambda: seen.answers("identity"), within=4.0)

        psql(follower, "SELECT pg_promote()")
        await seen.until_closed(within=8.0)
        await seen.until(lambda: "role" in seen.noticed, within=3.0)

        assert seen.noticed["role"] == "the server is a primary now"
        assert not {"restarted", "crashed", "moved"} & seen.noticed.keys()
    assert seen.opened == {"write"}


async def test_a_primary_that_comes_back_as_a_replica_opens_write(pair):
    old, _ = pair
    async with Watching(old.dsn(user="pgbreaker"), probes=QUICK) as seen:
        await seen.until_watched()

        await asyncio.to_thread(old.stop, "fast")
        await seen.until_open(within=3.0)
        (old.data / "standby.signal").touch()
        await asyncio.to_thread(old.start)
        await seen.until(lambda: "role" in seen.noticed, within=5.0)
        await seen.until(
            lambda: seen.states["read"] is seen.states["connect"] is State.CLOSED,
            within=8.0,
        )

        assert seen.noticed["role"] == "the server is a replica now"
        assert seen.states["write"] is State.OPEN
        assert seen.board.breakers["write"].evidence.sqlstate == "25006"
        assert seen.board.condition is Condition.DEGRADED


async def test_an_endpoint_that_was_switched_is_followed(pair):
    """The old primary runs on, read-only, and answers our held connection as before:
    nothing but a new one tells that the name leads elsewhere by now."""
    old, new = pair
    async with (
        Switch("127.0.0.1", old.port) as endpoint,
        Watching(old.dsn(user="pgbreaker", port=endpoint.port), probes=QUICK) as seen,
    ):
        await seen.until_watched()
        started = seen.board.facts["started"]

        alter(old, default_transaction_read_only="on")
        await seen.until_open("write", within=4.0)
        assert seen.openings[0].evidence.sqlstate == "25006"
        psql(new, "SELECT pg_promote()")
        endpoint.lead(new.port)
        await seen.until(lambda: "moved" in seen.noticed, within=5.0)
        await seen.until(
            lambda: seen.board.facts.get("started", started) != started, within=5.0
        )
        await seen.until_closed(within=8.0)

        assert "another server" in seen.noticed["moved"]
        # Held to the new one now, and to the old one no more.
        assert counted(new) >= 1
        await quiet(old)
    assert seen.opened == {"write"}
    assert [notice.code for notice in seen.notices].count("moved") == 1


async def test_a_replica_that_became_the_endpoints_primary_is_followed(pair):
    """Led to the replica first, as a name of a cluster may be in a switchover."""
    old, new = pair
    async with (
        Switch("127.0.0.1", new.port) as endpoint,
        Watching(old.dsn(user="pgbreaker", port=endpoint.port), probes=QUICK) as seen,
    ):
        await seen.until_open("write", within=4.0)
        await seen.until(lambda: seen.answers("identity"), within=4.0)

        endpoint.lead(old.port)
        await seen.until(lambda: "moved" in seen.noticed, within=5.0)
        await seen.until_closed(within=8.0)

        assert "a primary, where a replica was held" in seen.noticed["moved"]
        assert seen.board.facts["in_recovery"] is False
        assert not {"restarted", "crashed"} & seen.noticed.keys()


async def test_two_replicas_behind_one_name_are_no_move(replica, follower):
    dsn = replica.dsn(user="pgbreaker")
    async with (
        Switch("127.0.0.1", replica.port) as endpoint,
        Watching(
            dsn.replace(str(replica.port), str(endpoint.port)),
            probes=REPLICA,
            operations=READS,
        ) as seen,
    ):
        await seen.until_watched()
        endpoint.lead(follower.port)
        logins = seen.answers("login")
        await seen.until(lambda: seen.answers("login") >= logins + 3, within=8.0)

        assert seen.notices == []
        assert seen.moves == []
        assert counted(replica) == 1  # the held one stays


# A commit that waits.


@pytest.mark.slow
async def test_a_missing_synchronous_standby_opens_write_alone(primary):
    """By the default intervals; 7.1 s is the goal, on a machine that is idle."""
    async with Watching(primary.dsn(user="pgbreaker"), probes=DEFAULT) as seen:
        await seen.until_watched()
        await seen.until_closed()
        counts: list[int] = []
        counting = asyncio.create_task(_count(primary, counts))
        begun = time.monotonic()
        try:
            alter(primary, synchronous_standby_names="nobody")
            await seen.until_open("write", within=9.0)
            took = time.monotonic() - begun

            assert (
                "a commit waits for a synchronous standby" in seen.reasons("write")[0]
            )
            assert seen.openings[0].evidence.code == Finding.SYNC_REP
            while time.monotonic() < begun + 20:
                told = len(seen.events)
                await seen.until(lambda n=told: len(seen.events) > n, within=5.0)
            assert seen.board.condition is Condition.DEGRADED
        finally:
            alter(primary, synchronous_standby_names=None)
        await seen.until_closed(within=8.0)
        counting.cancel()
        await asyncio.wait([counting])
        assert counted(primary) <= 3
    assert seen.opened == {"write"}
    assert max(counts) <= 3
    await quiet(primary)
    print(  # noqa: T201 - a figure that is asked for
        f"\nwrite opened {took:.2f} s after the stall; at most {max(counts)} connections"
    )


async def _count(server, counts):
    """Count our connections at the server, often, by a session of somebody else's."""
    connection = await asyncpg.connect(server.dsn(), timeout=10)
    try:
        while True:
            counts.append(
                await connection.fetchval(
                    "SELECT count(*) FROM pg_stat_get_activity(NULL) AS a"
                    " JOIN pg_roles AS r ON r.oid = a.usesysid"
                    " WHERE rolname = 'pgbreaker'"
                )
            )
            await asyncio.sleep(0.005)
    finally:
        with contextlib.suppress(Exception):
            connection.terminate()
