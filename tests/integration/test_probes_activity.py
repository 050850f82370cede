"""What the probes of activity see, beside what psql says, on servers with real load."""

import contextlib

import asyncpg
import pytest

from pgbreaker.core.reading import Finding, Reading
from pgbreaker.monitor.outlook import Outlook
from pgbreaker.probes.absent import AbsentError
from pgbreaker.probes.blocking import BLOCKING
from pgbreaker.probes.database import DATABASE
from pgbreaker.probes.identity import IDENTITY
from pgbreaker.probes.saturation import SATURATION
from pgbreaker.probes.statements import STATEMENTS
from support.asking import ask, ask_on, session
from support.servers import Crowd, lock_relation, psql, quiet, running_server, until

WAIT = "SELECT pg_advisory_lock({})"
TRY = "SELECT pg_try_advisory_lock({})"


@pytest.fixture
async def crowd(server):
    await quiet(server)
    async with Crowd(server) as crowd:
        yield crowd


@pytest.fixture
def orders(server):
    psql(server, "CREATE TABLE orders AS SELECT 1 AS id", database="app")
    psql(server, "ALTER TABLE orders OWNER TO app_user", database="app")
    yield
    psql(server, "DROP TABLE orders", database="app")


@pytest.fixture
def plain(server):
    """A role that was granted nothing."""
    psql(server, f"CREATE ROLE plain LOGIN PASSWORD '{server.password}'")
    yield "plain"
    psql(server, "DROP ROLE plain")


def pid(connection):
    return connection.get_server_pid()


def row_of(rows, **labels):
    """The one row that has these labels."""
    (row,) = (row for row in rows if labels.items() <= row.items())
    return row


def series(probe, seen):
    """The series that metrics show of it: name and labels."""
    for shown in probe.shows:
        rows = (seen,) if shown.rows is None else seen[shown.rows]
        for row in rows:
            if row.get(shown.value) is not None:
                labels = {label: row[label] for label in shown.by} | dict(shown.labels)
                yield shown.family.name, tuple(sorted(labels.items()))


async def test_identity_is_the_server_s_own(server):
    seen = await ask(server, IDENTITY)

    said = psql(
        server,
        "SELECT pg_is_in_recovery(), extract(epoch FROM pg_postmaster_start_time()),"
        " current_setting('server_version_num'),"
        " (pg_control_system()).system_identifier,"
        " (pg_control_checkpoint()).timeline_id,"
        " extract(epoch FROM (pg_control_checkpoint()).checkpoint_time)::int,"
        " extract(epoch FROM stats_reset) FROM pg_stat_bgwriter",
    ).split("|")
    assert seen["in_recovery"] is False
    assert said[0] == "f"
    assert seen["started"] == pytest.approx(float(said[1]), abs=1e-5)
    assert seen["version"] == int(said[2])
    assert seen["system_id"] == said[3]
    assert seen["timeline"] == int(said[4])
    assert seen["checkpoint_at"] == int(said[5])
    assert seen["counters_since"] == pytest.approx(float(said[6]), abs=1e-5)
    assert seen["is_monitor"] is True


async def test_identity_tells_its_own_process(server):
    async with session(server) as connection:
        seen = await ask_on(connection, IDENTITY)

        assert seen["backend_pid"] == pid(connection)


async def test_a_checkpoint_moves_its_time(server):
    before = (await ask(server, IDENTITY))["checkpoint_at"]
    await until(server, f"SELECT extract(epoch FROM now()) >= {before + 1}")
    psql(server, "CHECKPOINT")

    assert (await ask(server, IDENTITY))["checkpoint_at"] > before


async def test_saturation_counts_each_state(server, crowd):
    await crowd.join()
    await crowd.join()
    await crowd.join("BEGIN", "SELECT 1")
    failed = await crowd.join("BEGIN")
    with contextlib.suppress(asyncpg.PostgresError):
        await failed.execute("SELECT 1/0")
    await crowd.leave(await crowd.join(), "SELECT pg_sleep(60)")

    seen = await ask(server, SATURATION)
    assert (seen["active"], seen["idle"], seen["idle_in_transaction"]) == (2, 2, 2)
    assert seen["slots_used"] == 6  # the sleeper and we are the active ones
    assert seen["max_connections"] == 20
    assert seen["slots_usable"] == 17
    assert seen["slots_ratio"] == pytest.approx(6 / 17)


async def test_saturation_knows_the_oldest(server, crowd):
    old = await crowd.join("BEGIN", "SELECT 1")
    await until(
        server,
        f"SELECT now() - state_change > '300ms' FROM pg_stat_get_activity({pid(old)})",
    )
    await crowd.join("BEGIN", "SELECT 1")
    await crowd.leave(await crowd.join(), "SELECT pg_sleep(60)")

    seen = await ask(server, SATURATION)
    said = psql(
        server,
        "SELECT extract(epoch FROM max(now() - xact_start)),"
        " extract(epoch FROM max(now() - state_change)"
        "   FILTER (WHERE state LIKE 'idle in%')),"
        " extract(epoch FROM max(now() - query_start) FILTER (WHERE state = 'active'))"
        " FROM pg_stat_activity WHERE datname = 'app'",
    ).split("|")
    assert seen["oldest_transaction_seconds"] > 0.3
    names = ("transaction", "idle_in_transaction", "query")
    for name, later in zip(names, said, strict=True):
        assert 0 < seen[f"oldest_{name}_seconds"] < float(later)
        assert seen[f"oldest_{name}_seconds"] == pytest.approx(float(later), abs=1)


async def test_an_idle_server_has_no_ages(server, crowd):
    await crowd.join()

    seen = await ask(server, SATURATION)
    assert seen["oldest_idle_in_transaction_seconds"] == 0
    assert 0 <= seen["oldest_transaction_seconds"] < 0.1  # our own
    assert 0 <= seen["oldest_query_seconds"] < 0.1


async def test_saturation_counts_what_backends_wait_for(server, crowd):
    await crowd.join(TRY.format(1))
    await crowd.leave(await crowd.join(), WAIT.format(1))
    await crowd.leave(await crowd.join(), WAIT.format(1))
    await crowd.leave(await crowd.join(), "SELECT pg_sleep(60)")  # Timeout

    seen = await ask(server, SATURATION)
    assert seen["waiting_lock"] == 2
    assert seen["waiting_other"] == 1
    assert (seen["waiting_lwlock"], seen["waiting_io"], seen["waiting_ipc"]) == (0,) * 3


async def test_without_pg_monitor_slots_are_still_counted(server, crowd, plain):
    """Their kind of process is hidden as well, and a full server must not look empty."""
    await crowd.join("BEGIN", "SELECT 1")
    await crowd.join()

    seen = await ask(server, SATURATION, user=plain)
    assert seen["slots_used"] == 3
    assert seen["slots_ratio"] == pytest.approx(3 / 17)


async def test_without_pg_monitor_what_others_do_is_unknown(server, crowd, plain):
    await crowd.join("BEGIN", "SELECT 1")

    assert (await ask(server, IDENTITY, user=plain))["is_monitor"] is False
    seen = await ask(server, SATURATION, user=plain)
    hidden = {name for name, value in seen.items() if value is None}
    assert {"active", "idle", "oldest_transaction_seconds", "waiting_lock"} <= hidden
    seen = await ask(server, DATABASE, user=plain)
    by_database = seen["connections_by_database"]
    assert row_of(by_database, database="app")["state"] == "unknown"
    assert row_of(seen["connections_by_user"], user="app_user")["connections"] == 1


async def test_without_pg_monitor_a_blocker_is_named_but_not_what_it_does(
    server, crowd, plain
):
    root = await crowd.join(TRY.format(1))
    await crowd.leave(await crowd.join(), WAIT.format(1))

    seen = await ask(server, BLOCKING, user=plain)
    assert (seen["blocker_pid"], seen["blocker_application"]) == (pid(root), "shop")
    assert seen["blocker_state"] is None
    assert seen["blocker_age_seconds"] is None


async def test_nobody_waits(server, crowd):
    await crowd.join("BEGIN", TRY.format(1))

    seen = await ask(server, BLOCKING)
    numbers = {name: value for name, value in seen.items() if value is not None}
    assert numbers == {
        "lock_waiters": 0,
        "lock_wait_oldest_seconds": 0,
        "lock_blockers": 0,
        "lock_chain_depth": 0,
    }


async def test_a_reader_before_a_ddl_is_named_for_the_whole_pile(server, orders, crowd):
    root = await crowd.join("BEGIN", "SELECT * FROM orders", name="<a & 'b'>")
    ddl = await crowd.join(name="migration")
    await crowd.leave(ddl, "ALTER TABLE orders ADD note text")
    for _ in range(5):
        await crowd.leave(await crowd.join(), "SELECT * FROM orders")

    seen = await ask(server, BLOCKING, database="app")
    assert seen["lock_waiters"] == 6
    assert seen["lock_blockers"] == 1
    assert seen["lock_chain_depth"] == 2  # a reader waits for the DDL, it for the root
    assert seen["blocker_pid"] == pid(root)
    assert seen["blocker_application"] == "<a & 'b'>"
    assert seen["blocker_state"] == "idle in transaction"
    assert seen["blocker_waits"] == 6
    assert seen["blocker_relation"] == "public.orders"
    later = psql(
        server,
        "SELECT extract(epoch FROM max(clock_timestamp() - waitstart)),"
        f" (SELECT extract(epoch FROM clock_timestamp() - xact_start)"
        f" FROM pg_stat_get_activity({pid(root)})) FROM pg_locks",
    ).split("|")
    assert 0 < seen["lock_wait_oldest_seconds"] < float(later[0])
    assert seen["lock_wait_oldest_seconds"] < seen["blocker_age_seconds"]
    assert seen["blocker_age_seconds"] < float(later[1])


async def test_a_relation_of_another_database_is_not_named(server, orders, crowd):
    """Its number may well be that of another relation here."""
    await crowd.join("BEGIN", "SELECT * FROM orders")
    await crowd.leave(await crowd.join("BEGIN"), "LOCK TABLE orders")

    seen = await ask(server, BLOCKING, database="postgres")
    assert seen["lock_waiters"] == 1
    assert seen["blocker_relation"] is None


async def test_a_row_s_lock_leads_to_its_relation(server, orders, crowd):
    update = "UPDATE orders SET id = id"
    root = await crowd.join("BEGIN", update)
    for _ in range(3):
        await crowd.leave(await crowd.join(), update)

    seen = await ask(server, BLOCKING, database="app")
    assert (seen["blocker_pid"], seen["blocker_waits"]) == (pid(root), 3)
    assert seen["blocker_relation"] == "public.orders"


async def test_a_chain_is_followed_to_its_front(server, crowd):
    root = await crowd.join(TRY.format(1))
    for number in (1, 2, 3):
        waiting = await crowd.join(TRY.format(number + 1))
        await crowd.leave(waiting, WAIT.format(number))

    seen = await ask(server, BLOCKING)
    assert seen["lock_chain_depth"] == 3
    assert (seen["blocker_pid"], seen["blocker_waits"]) == (pid(root), 3)


async def test_of_two_blockers_the_one_with_more_behind_it_is_named(server, crowd):
    await crowd.join("BEGIN", TRY.format(1))  # older, but only one waits for it
    await crowd.leave(await crowd.join(), WAIT.format(1))
    worse = await crowd.join(TRY.format(2))
    for _ in range(2):
        await crowd.leave(await crowd.join(), WAIT.format(2))

    seen = await ask(server, BLOCKING)
    assert seen["lock_blockers"] == 2
    assert (seen["blocker_pid"], seen["blocker_waits"]) == (pid(worse), 2)


async def test_a_queue_where_each_waits_for_all_before_it(server, orders, crowd):
    """Its paths are as many as 2^11; they must not be walked one by one."""
    root = await crowd.join("BEGIN", "LOCK TABLE orders")
    for _ in range(12):
        await crowd.leave(await crowd.join("BEGIN"), "LOCK TABLE orders")

    seen = await ask(server, BLOCKING)
    assert seen["lock_chain_depth"] == 12
    assert (seen["blocker_pid"], seen["blocker_waits"]) == (pid(root), 12)


async def test_a_deadlock_is_no_endless_walk(server, crowd):
    patient = "SET deadlock_timeout = '1min'"  # the superuser's privilege
    one = await crowd.join(patient, TRY.format(1), user="postgres")
    two = await crowd.join(patient, TRY.format(2), user="postgres")
    await crowd.leave(one, WAIT.format(2))
    await crowd.leave(two, WAIT.format(1))

    seen = await ask(server, BLOCKING)
    assert seen["lock_waiters"] == 2
    assert seen["lock_chain_depth"] == 2
    assert seen["lock_blockers"] == 0  # nobody is at the front
    assert seen["blocker_pid"] is None


async def test_an_autovacuum_that_blocks_is_called_so(fresh_server):
    server = fresh_server
    psql(server, "ALTER SYSTEM SET autovacuum_naptime = '1s'")
    psql(server, "SELECT pg_reload_conf()")
    psql(
        server,
        # A vacuum that takes very long, by taking long rests.
        "CREATE TABLE worn (i int) WITH (autovacuum_vacuum_threshold = 1,"
        " autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_limit = 1,"
        " autovacuum_vacuum_cost_delay = 100)",
        database="app",
    )
    psql(server, "INSERT INTO worn SELECT generate_series(1, 50000)", database="app")
    psql(server, "DELETE FROM worn", database="app")
    await until(
        server,
        "SELECT count(*) > 0 FROM pg_stat_activity JOIN pg_locks USING (pid)"
        " WHERE backend_type = 'autovacuum worker' AND datname = 'app'"
        " AND mode = 'ShareUpdateExclusiveLock'",
        within=30,
    )

    async with Crowd(server) as crowd:
        # It gives way to whoever has waited for deadlock_timeout.
        waiting = await crowd.join(
            "SET deadlock_timeout = '1min'", "BEGIN", user="postgres"
        )
        await crowd.leave(waiting, "LOCK TABLE worn")
        seen = await ask(server, BLOCKING, database="app")
    psql(server, "DROP TABLE worn", database="app")

    assert seen["blocker_application"] == "autovacuum"
    assert seen["blocker_relation"] == "public.worn"
    assert seen["blocker_state"] == "active"


async def test_counters_of_a_database_are_the_server_s(server, orders, crowd):
    before = row_of((await ask(server, DATABASE))["databases"], database="app")
    busy = await crowd.join(
        "SET work_mem = '64kB'",
        "SELECT count(*) FROM (SELECT generate_series(1, 50000) ORDER BY 1 DESC) AS s",
    )
    with contextlib.suppress(asyncpg.PostgresError):
        await busy.execute("SELECT 1/0")
    await busy.close()
    await quiet(server)

    seen = await ask(server, DATABASE)
    row = row_of(seen["databases"], database="app")
    said = psql(
        server,
        "SELECT xact_commit, xact_rollback, deadlocks, temp_bytes, sessions"
        " FROM pg_stat_database WHERE datname = 'app'",
    ).split("|")
    names = ("commits", "rollbacks", "deadlocks", "temp_bytes", "sessions")
    assert [row[name] for name in names] == [int(number) for number in said]
    assert row["rollbacks"] == before["rollbacks"] + 1
    assert row["sessions"] == before["sessions"] + 1
    assert row["temp_bytes"] > before["temp_bytes"]
    assert row["conflicts"] is None  # there are none on a primary


async def test_a_deadlock_is_counted(server, crowd):
    before = row_of((await ask(server, DATABASE))["databases"], database="app")
    one = await crowd.join(TRY.format(1))
    two = await crowd.join(
        "SET deadlock_timeout = '10ms'", TRY.format(2), user="postgres"
    )
    await crowd.leave(one, WAIT.format(2))
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await two.execute(WAIT.format(1))
    await two.close()
    await until(
        server,
        "SELECT pg_stat_get_db_deadlocks(oid) > "
        f"{before['deadlocks']} FROM pg_database WHERE datname = 'app'",
    )

    row = row_of((await ask(server, DATABASE))["databases"], database="app")
    assert row["deadlocks"] == before["deadlocks"] + 1


async def test_sessions_that_end_badly_are_counted_in_all_databases(server, crowd):
    before = await ask(server, DATABASE)
    killed = await crowd.join()
    psql(server, f"SELECT pg_terminate_backend({pid(killed)}, 5000)")
    gone = await crowd.join(user="postgres", database="postgres")
    gone._transport.abort()  # as when its machine loses power; terminate() says goodbye
    await quiet(server)

    after = await ask(server, DATABASE)
    more = {
        end: after[f"sessions_{end}"] - before[f"sessions_{end}"]
        for end in ("killed", "abandoned", "fatal")
    }
    assert more == {"killed": 1, "abandoned": 1, "fatal": 0}


async def test_a_database_that_is_dropped_takes_no_ends_of_sessions_along(
    server, crowd
):
    """Its own statistics go; a counter that fell would be taken for a new one."""
    outlook, ends = Outlook(), []

    async def look():
        values = await ask(server, DATABASE)
        reading = Reading("orders", "database", 0.0, 0.0, Finding.OK, values)
        ends.append(outlook.take(reading)["session_ends_killed"])
        return values["sessions_killed"]

    async def kill(database):
        killed = await crowd.join(user="postgres", database=database)
        psql(server, f"SELECT pg_terminate_backend({pid(killed)}, 5000)")
        await quiet(server)

    psql(server, "CREATE DATABASE passing")
    await kill("app")
    await look()
    await kill("passing")
    before = await look()
    psql(server, "DROP DATABASE passing")
    after = await look()
    await kill("app")
    await look()

    assert after == before - 1
    assert ends == [0, 1, 1, 2]


async def test_connections_are_told_by_database_and_user(server, crowd):
    await crowd.join()
    await crowd.join("BEGIN", "SELECT 1")
    await crowd.join(user="postgres")

    seen = await ask(server, DATABASE)
    by_database = seen["connections_by_database"]
    assert row_of(by_database, database="app", state="idle")["connections"] == 2
    held = row_of(by_database, database="app", state="idle_in_transaction")
    assert held["connections"] == 1
    assert row_of(by_database, database="postgres")["state"] == "active"  # we
    users = {row["user"]: row["connections"] for row in seen["connections_by_user"]}
    assert users == {"app_user": 2, "postgres": 1, "pgbreaker": 1}


async def test_ages_are_shares_of_what_there_can_be(server):
    seen = await ask(server, DATABASE)

    said = psql(
        server,
        "SELECT max(age(datfrozenxid)), max(mxid_age(datminmxid)) FROM pg_database",
    ).split("|")
    assert seen["xid_age_max"] == int(said[0])
    assert seen["mxid_age_max"] == int(said[1])
    assert seen["xid_limit"] == 2**31 - 3_000_000
    names = {row["database"] for row in seen["ages"]}
    assert {"postgres", "template0", "template1", "app"} <= names
    oldest = max(row["xid_age_ratio"] for row in seen["ages"])
    assert oldest == pytest.approx(int(said[0]) / 2**31)


async def test_limits_of_the_database_and_of_our_role(server):
    seen = await ask(server, DATABASE, database="app")
    assert (seen["database_limit"], seen["role_limit"]) == (None, 4)

    psql(server, "ALTER DATABASE app CONNECTION LIMIT 7")
    seen = await ask(server, DATABASE, database="app")
    psql(server, "ALTER DATABASE app CONNECTION LIMIT -1")
    assert seen["database_limit"] == 7


async def test_a_fresh_server_makes_few_series(server, crowd):
    assert len(list(series(DATABASE, await ask(server, DATABASE)))) <= 25


@pytest.fixture
def crowded_server():
    """A server with fifty databases, d00 to d49."""
    with running_server(17) as server:
        for number in range(50):
            psql(server, f"CREATE DATABASE d{number:02}")
        yield server


async def test_fifty_databases_make_no_more_series_than_twenty(crowded_server):
    server = crowded_server
    async with Crowd(server) as crowd:
        # The busiest come first; d49, ours, is the least busy of all.
        for number in range(30):
            busy = await crowd.join(
                *["SELECT 1"] * (60 - number),
                user="postgres",
                database=f"d{number:02}",
            )
            await busy.close()
        await quiet(server)
        for number in range(30, 42):
            await crowd.join(user="postgres", database=f"d{number}")
        seen = await ask(server, DATABASE, database="d49")

    names = [row["database"] for row in seen["databases"]]
    assert len(names) == len(set(names)) == 21
    assert {"d49", "d00", "other"} <= set(names)
    assert "d29" not in names
    commits = psql(
        server,
        "SELECT sum(xact_commit) FROM pg_stat_database JOIN pg_database USING (datname)"
        " WHERE NOT datistemplate AND datname LIKE 'd%'",
    )
    assert sum(row["commits"] for row in seen["databases"]) >= int(commits)
    assert len(seen["ages"]) == 5
    by_database = seen["connections_by_database"]
    assert len({row["database"] for row in by_database}) == 11
    assert sum(row["connections"] for row in by_database) == 13
    assert row_of(by_database, database="other", state="idle")["connections"] >= 2
    shown = list(series(DATABASE, seen))
    assert len(shown) == len(set(shown)) <= 260


@pytest.mark.parametrize(
    "probe", [IDENTITY, SATURATION, BLOCKING], ids=lambda p: p.name
)
async def test_fast_probes_answer_while_pg_database_is_locked(server, probe):
    async with session(server) as connection, lock_relation(server, "pg_database"):
        seen = await ask_on(connection, probe)

    assert seen


async def test_whoever_waits_for_pg_database_is_seen(server):
    async with session(server) as connection, Crowd(server) as crowd:
        waiting = await crowd.join()
        async with lock_relation(server, "pg_database"):
            await crowd.leave(waiting, "SELECT * FROM pg_database", seen_by=connection)
            seen = await ask_on(connection, BLOCKING)

    assert seen["lock_waiters"] == 1
    assert seen["blocker_relation"] == "pg_database"


async def test_a_server_without_the_extension_says_what_would_help(server):
    with pytest.raises(
        AbsentError, match=r"shared_preload_libraries.*CREATE EXTENSION"
    ):
        await ask(server, STATEMENTS)


async def test_an_extension_that_is_not_loaded_is_absent_too(server):
    psql(server, "CREATE EXTENSION pg_stat_statements", database="app")
    try:
        with pytest.raises(AbsentError):
            await ask(server, STATEMENTS, database="app")
    finally:
        psql(server, "DROP EXTENSION pg_stat_statements", database="app")
