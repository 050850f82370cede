"""The probes of replication, slots, WAL, maintenance and size, against psql."""

import asyncio
import contextlib
import time
from types import SimpleNamespace

import asyncpg
import pytest

from pgbreaker.probes.maintenance import MAINTENANCE
from pgbreaker.probes.replication import REPLICATION
from pgbreaker.probes.size import SIZE
from pgbreaker.probes.slots import SLOTS
from pgbreaker.probes.wal import WAL
from support.asking import ask, ask_on, session
from support.servers import lock_relation, psql, running_server
from support.standby import running_standby

ALL = {probe.name: probe for probe in (REPLICATION, SLOTS, WAL, MAINTENANCE, SIZE)}


@pytest.fixture(scope="module", params=[15, 17], ids=["pg15", "pg17"])
def primary(request):
    """A server of each major that can prepare transactions and archives its WAL."""
    with running_server(
        request.param,
        archive_mode="on",
        archive_command="'/bin/true'",
        full_page_writes="on",  # else there is no copying a replica
        autovacuum="off",
        max_prepared_transactions="5",
        max_replication_slots="70",
    ) as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary):
    with running_standby(primary, name="replica_a") as standby:
        yield standby


@contextlib.contextmanager
def altered(server, **settings):
    """A server with these settings for the time of the block."""
    for name, value in settings.items():
        psql(server, f"ALTER SYSTEM SET {name} = '{value}'")
    psql(server, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        for name in settings:
            psql(server, f"ALTER SYSTEM RESET {name}")
        psql(server, "SELECT pg_reload_conf()")


async def until(real, probe, happens, **how):
    """Ask until what is seen is so that it *happens*, and give that."""
    deadline = time.monotonic() + 15
    while True:
        seen = await ask(real, probe, **how)
        if happens(seen):
            return seen
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.05)


def only(rows, **columns):
    """The one row that has these values."""
    (row,) = [r for r in rows if columns.items() <= r.items()]
    return row


def write(server, rows=2000):
    psql(
        server,
        "CREATE TABLE IF NOT EXISTS written (text text);"
        f" INSERT INTO written SELECT repeat('x', 100) FROM generate_series(1, {rows})",
    )


# Replication.


async def test_a_primary_alone_has_no_standbys(primary):
    seen = await ask(primary, REPLICATION)

    assert seen == {"standbys": (), "sync_wanted": 0, "sync_present": 0}
    assert REPLICATION.weighs(seen, 0.01, 30.0) is None


async def test_a_standby_that_has_it_all_is_not_behind(primary, standby):
    write(primary)

    row = only(
        (
            await until(
                primary,
                REPLICATION,
                lambda seen: (
                    seen["standbys"] and seen["standbys"][0]["replay_bytes"] == 0
                ),
            )
        )["standbys"],
        standby="replica_a",
    )

    assert (row["state"], row["sync_state"]) == ("streaming", "async")
    stages = ("sent", "write", "flush", "replay")
    assert [row[f"{stage}_bytes"] for stage in stages] == [0, 0, 0, 0]
    assert [row[f"{stage}_seconds"] for stage in stages[1:]] == [0, 0, 0]


async def test_a_replica_of_an_idle_primary_is_not_old(primary, standby):
    """The age of the last commit grows, that of the data does not."""
    write(primary, 1)
    await until(standby, REPLICATION, lambda seen: seen["received_replayed_bytes"] == 0)
    await asyncio.sleep(0.3)

    seen = await ask(standby, REPLICATION)

    commit_age = "SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())"
    assert float(psql(standby, commit_age)) > 0.2
    assert seen == {
        "standbys": (),
        "wal_receiver_up": 1,
        "wal_receiver_wanted": True,
        "replay_age_seconds": 0.0,
        "replay_paused": False,
        "received_replayed_bytes": 0,
    }
    assert REPLICATION.weighs(seen, 0.01, 0.1) is None


async def test_a_paused_replica_grows_old(primary, standby):
    psql(standby, "SELECT pg_wal_replay_pause()")
    try:
        write(primary)
        await asyncio.sleep(0.3)
        seen = await until(
            standby, REPLICATION, lambda seen: seen["received_replayed_bytes"]
        )
        row = only(
            (
                await until(
                    primary,
                    REPLICATION,
                    lambda seen: seen["standbys"][0]["flush_bytes"] == 0,
                )
            )["standbys"],
            standby="replica_a",
        )

        behind = "pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
        assert seen["received_replayed_bytes"] == int(psql(standby, f"SELECT {behind}"))
        replay = "pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)"
        assert row["replay_bytes"] == int(
            psql(primary, f"SELECT {replay} FROM pg_stat_replication")
        )
        assert seen["replay_paused"] is True
        assert seen["replay_age_seconds"] > 0.2
        said = REPLICATION.weighs(seen, 0.01, 0.1)
        assert said.startswith("replays ")
        assert said.endswith(" behind its primary (limit 100 ms)")
        assert REPLICATION.weighs(seen, 0.01, 3600.0) is None
    finally:
        psql(standby, "SELECT pg_wal_replay_resume()")


async def test_a_replica_that_is_cut_off_does_not_know_how_old_it_is(primary, standby):
    """All that it received is replayed: by that alone it would look its best."""
    where = psql(standby, "SHOW primary_conninfo").replace("'", "''")
    psql(standby, "ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
    psql(standby, "SELECT pg_reload_conf()")
    try:
        seen = await until(
            standby, REPLICATION, lambda seen: seen["wal_receiver_up"] == 0
        )
        assert seen["received_replayed_bytes"] == 0
        assert seen["replay_age_seconds"] is None
        assert REPLICATION.weighs(seen, 0.01, 30.0) == (
            "its WAL receiver does not stream from its primary"
        )
    finally:
        psql(standby, f"ALTER SYSTEM SET primary_conninfo = '{where}'")
        psql(standby, "SELECT pg_reload_conf()")
    await until(standby, REPLICATION, lambda seen: seen["wal_receiver_up"] == 1)


async def test_a_replica_of_an_archive_needs_no_receiver(primary, standby):
    where = psql(standby, "SHOW primary_conninfo").replace("'", "''")
    with altered(standby, restore_command="/bin/false"):
        psql(standby, "ALTER SYSTEM SET primary_conninfo = ''")
        psql(standby, "SELECT pg_reload_conf()")
        try:
            seen = await until(
                standby, REPLICATION, lambda seen: seen["wal_receiver_up"] == 0
            )
        finally:
            psql(standby, f"ALTER SYSTEM SET primary_conninfo = '{where}'")

    assert REPLICATION.weighs(seen, 0.01, 30.0) is None
    await until(standby, REPLICATION, lambda seen: seen["wal_receiver_up"] == 1)


async def test_synchronous_standbys_that_are_there_and_that_are_missing(
    primary, standby
):
    for names, wanted, present in (
        ("nobody", 1, 0),
        ("replica_a", 1, 1),
        ("FIRST 2 (replica_a, nobody)", 2, 1),
        ("ANY 2 (replica_a, nobody)", 2, 1),
    ):
        with altered(primary, synchronous_standby_names=names):
            seen = await until(
                primary, REPLICATION, lambda seen, n=present: seen["sync_present"] == n
            )
            assert (names, seen["sync_wanted"]) == (names, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("primary", [17], ids=["pg17"], indirect=True)
async def test_a_frozen_standby_grows_late_though_it_reports_nothing(primary):
    """Its last report says that it was up to date, and stays."""
    with running_standby(primary, name="frozen") as frozen:
        write(primary)
        await until(
            primary,
            REPLICATION,
            lambda seen: (
                seen["standbys"] and only(seen["standbys"], standby="frozen")["state"]
            ),
        )
        frozen.freeze()
        write(primary)
        await asyncio.sleep(21)
        seen = await ask(primary, REPLICATION)
        frozen.thaw()

    row = only(seen["standbys"], standby="frozen")
    assert row["replay_bytes"] > 100_000
    assert row["replay_seconds"] > 19


async def test_standbys_of_the_same_name_have_a_series_each(primary, standby):
    with running_standby(primary, name="replica_a"):
        seen = await until(
            primary, REPLICATION, lambda seen: len(seen["standbys"]) == 2
        )

    pids = psql(primary, "SELECT pid FROM pg_stat_replication").split()
    names = {row["standby"] for row in seen["standbys"]}
    assert len(names) == 2
    assert f"replica_a {pids[0]}" in names


async def test_a_replica_of_a_replica_is_behind_what_that_has_received(
    primary, standby
):
    with running_standby(standby, name="replica_b") as second:
        psql(second, "SELECT pg_wal_replay_pause()")
        write(primary)
        seen = await until(
            standby,
            REPLICATION,
            lambda seen: seen["standbys"] and seen["standbys"][0]["replay_bytes"],
        )

    assert only(seen["standbys"], standby="replica_b")["replay_bytes"] > 100_000
    assert "sync_wanted" not in seen


async def test_a_promoted_replica_is_asked_as_the_primary_that_it_is(primary):
    """For a moment the monitor still takes it for a replica."""
    with running_standby(primary, name="heir") as heir:
        async with session(heir) as connection:
            before = await ask_on(connection, REPLICATION)
            psql(heir, "SELECT pg_promote()")
            after = await ask_on(connection, REPLICATION)
            slots = await ask_on(connection, SLOTS)

    assert before["wal_receiver_up"] in (0, 1)
    assert after == {"standbys": (), "sync_wanted": 0, "sync_present": 0}
    assert REPLICATION.weighs(after, 0.01, 0.001) is None
    assert slots["replication_slots_used"] == 0


# Slots.


async def test_a_slot_retains_what_nobody_reads(primary):
    psql(primary, "SELECT pg_create_physical_replication_slot('left_behind', true)")
    try:
        write(primary)
        seen = await ask(primary, SLOTS)
        retained = "pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)"
        expected = psql(
            primary, f"SELECT {retained}, wal_status FROM pg_replication_slots"
        )
    finally:
        psql(primary, "SELECT pg_drop_replication_slot('left_behind')")

    row = only(seen["slots"], slot="left_behind")
    assert f"{row['retained_bytes']}|{row['wal_status']}" == expected
    assert row["active"] is False
    assert row["safe_bytes"] is None
    assert seen["replication_slots_used"] == 1
    assert seen["replication_slots_limit"] == 70
    assert seen["replication_slots_lost"] == 0


async def test_a_slot_that_retains_too_much_is_lost(primary):
    psql(primary, "SELECT pg_create_physical_replication_slot('doomed', true)")
    try:
        with altered(primary, max_slot_wal_keep_size="32MB"):
            first = await until(
                primary, SLOTS, lambda seen: seen["slots"][0]["safe_bytes"] is not None
            )
            for _ in range(5):
                write(primary, 1)
                psql(primary, "SELECT pg_switch_wal()")
            beyond = await ask(primary, SLOTS)
            psql(primary, "CHECKPOINT")
            last = await ask(primary, SLOTS)
    finally:
        psql(primary, "SELECT pg_drop_replication_slot('doomed')")

    assert 0 < only(first["slots"], slot="doomed")["safe_bytes"] <= 48 << 20
    row = only(beyond["slots"], slot="doomed")
    assert row["wal_status"] == "unreserved"
    assert row["safe_bytes"] <= 0
    assert last["replication_slots_lost"] == 1
    row = only(last["slots"], slot="doomed")
    assert (row["wal_status"], row["safe_bytes"]) == ("lost", None)
    major = int(psql(primary, "SHOW server_version_num")) // 10_000
    assert row["reason"] == ("wal_removed" if major >= 17 else None)


async def test_of_sixty_slots_twenty_are_shown_and_all_counted(primary):
    create = "pg_create_physical_replication_slot('s' || i, i % 2 = 0)"
    psql(primary, f"SELECT {create} FROM generate_series(1, 60) AS i")
    try:
        seen = await ask(primary, SLOTS)
    finally:
        psql(
            primary,
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
        )

    assert seen["replication_slots_used"] == 60
    assert len(seen["slots"]) == 20
    assert all(row["retained_bytes"] is not None for row in seen["slots"])


async def test_temporary_slots_count_as_one(primary):
    """Each backup has one with its pid in the name."""
    async with session(primary, user="postgres") as connection:
        for name in ("pg_basebackup_1", "pg_basebackup_2"):
            await connection.execute(
                f"SELECT pg_create_physical_replication_slot('{name}', true, true)"
            )
        seen = await ask(primary, SLOTS)

    assert [row["slot"] for row in seen["slots"]] == ["(temporary)"]
    assert seen["replication_slots_used"] == 2


async def test_a_replica_has_slots_of_its_own(standby):
    psql(standby, "SELECT pg_create_physical_replication_slot('cascade', true)")
    try:
        seen = await ask(standby, SLOTS)
    finally:
        psql(standby, "SELECT pg_drop_replication_slot('cascade')")

    assert only(seen["slots"], slot="cascade")["retained_bytes"] >= 0


# WAL.


async def test_wal_and_checkpoints_are_what_the_views_say(primary):
    write(primary)
    psql(primary, "CHECKPOINT")
    await asyncio.sleep(1.1)  # statistics of a session reach the others with a delay

    seen = await ask(primary, WAL)

    major = int(psql(primary, "SHOW server_version_num")) // 10_000
    view = "pg_stat_checkpointer" if major >= 17 else "pg_stat_bgwriter"
    columns = (
        "num_timed, num_requested, write_time, sync_time"
        if major >= 17
        else "checkpoints_timed, checkpoints_req, checkpoint_write_time,"
        " checkpoint_sync_time"
    )
    expected = psql(primary, f"SELECT {columns} FROM {view}").split("|")
    assert [
        seen["checkpoints_timed"],
        seen["checkpoints_requested"],
        seen["checkpoint_write_seconds"],
        seen["checkpoint_sync_seconds"],
    ] == [
        int(expected[0]),
        int(expected[1]),
        pytest.approx(float(expected[2]) / 1000),
        pytest.approx(float(expected[3]) / 1000),
    ]
    wal_bytes = int(psql(primary, "SELECT wal_bytes FROM pg_stat_wal"))
    assert 0 <= wal_bytes - seen["wal_bytes"] < 100_000
    age = "extract(epoch FROM now() - checkpoint_time) FROM pg_control_checkpoint()"
    assert seen["checkpoint_age_seconds"] == pytest.approx(
        float(psql(primary, f"SELECT {age}")), abs=1.0
    )


async def test_segments_that_cannot_be_archived_are_seen_to_wait(primary):
    archived = (await ask(primary, WAL))["archiver_archived"]
    with altered(primary, archive_command="/bin/false"):
        for _ in range(2):
            write(primary, 1)
            psql(primary, "SELECT pg_switch_wal()")
        seen = await until(
            primary,
            WAL,
            lambda seen: seen["archiver_failed"] and seen["archiver_pending"] >= 2,
        )
        assert seen["archiving"] is True

    write(primary, 1)
    psql(primary, "SELECT pg_switch_wal()")
    seen = await until(
        primary,
        WAL,
        lambda seen: (
            seen["archiver_archived"] > archived and seen["archiver_pending"] == 0
        ),
    )
    assert 0 <= seen["last_archived_age_seconds"] < 60
    counts = "SELECT archived_count, failed_count FROM pg_stat_archiver"
    assert f"{seen['archiver_archived']}|{seen['archiver_failed']}" == psql(
        primary, counts
    )


async def test_where_nothing_is_archived_nothing_waits(server):
    seen = await ask(server, WAL)

    assert seen["archiving"] is False
    assert seen["archiver_pending"] is None
    assert seen["last_archived_age_seconds"] is None


async def test_a_replica_leaves_archiving_to_its_primary(standby):
    seen = await ask(standby, WAL)

    assert seen["archiving"] is False
    assert seen["archiver_pending"] is None
    assert seen["checkpoint_age_seconds"] >= 0


# Maintenance.


@pytest.fixture
def tables(primary):
    """A schema that is gone afterwards."""
    psql(primary, "CREATE SCHEMA worn; GRANT USAGE ON SCHEMA worn TO pgbreaker")
    yield "worn"
    psql(primary, "DROP SCHEMA worn CASCADE")


async def test_tables_with_dead_rows(primary, tables):
    for i in range(12):
        psql(
            primary,
            f"CREATE TABLE worn.t{i} AS SELECT generate_series(1, 4000) AS id;"
            f" DELETE FROM worn.t{i} WHERE id <= {i * 300}",
        )
    seen = await until(
        primary,
        MAINTENANCE,
        lambda seen: (
            seen["tables"]
            and seen["tables"][0]["dead_tuples"] == 3300
            # Each session's statistics come in on their own.
            and seen["tables"][-1]["dead_tuples"] == 1200
        ),
    )

    # 300, 600 and 900 are not worth a line, and neither is none.
    assert [row["table"] for row in seen["tables"]] == [
        f"worn.t{i}" for i in range(11, 3, -1)
    ]
    assert seen["tables"][0] == {
        "table": "worn.t11",
        "dead_tuples": 3300,
        "dead_ratio": pytest.approx(3300 / 4000),
        "last_autovacuum_age_seconds": None,
    }


def grant_sequences(server):
    """Let us read the sequences of the schema, and let them come of age."""
    psql(server, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA worn TO pgbreaker")
    come_of_age(server)


def come_of_age(server):
    psql(
        server,
        "DO $$ BEGIN FOR i IN 0..100 LOOP"
        " PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
    )


SEQUENCES = """
CREATE TABLE worn.orders (id serial, small int2);
SELECT setval('worn.orders_id_seq', 2000000000);
CREATE TABLE worn.grown (id int);
CREATE SEQUENCE worn.grown_seq OWNED BY worn.grown.id;
SELECT setval('worn.grown_seq', 1073741824);
CREATE SEQUENCE worn.small_seq OWNED BY worn.orders.small;
SELECT setval('worn.small_seq', 32767 / 4);
CREATE SEQUENCE worn.round MAXVALUE 100 CYCLE;
SELECT setval('worn.round', 99);
CREATE SEQUENCE worn.down INCREMENT -1;
CREATE TABLE worn.named (id bigint GENERATED ALWAYS AS IDENTITY);
CREATE SEQUENCE worn.unused;
CREATE SEQUENCE worn.more;
"""


async def test_sequences_end_where_their_column_ends(primary, tables):
    psql(primary, SEQUENCES)
    young = await ask(primary, MAINTENANCE)
    come_of_age(primary)
    unread = await ask(primary, MAINTENANCE)
    grant_sequences(primary)
    seen = await ask(primary, MAINTENANCE)

    assert (young["sequences"], young["sequences_hidden"]) == ((), 0)
    assert (unread["sequences"], unread["sequences_hidden"]) == ((), 6)
    assert seen["sequences_hidden"] == 0
    assert [row["sequence"] for row in seen["sequences"]] == [
        "worn.orders_id_seq",
        "worn.grown_seq",  # a bigint sequence under an int4 column
        "worn.small_seq",
        "worn.more",
        "worn.named_id_seq",
    ]
    assert [row["ratio"] for row in seen["sequences"]] == [
        pytest.approx(2_000_000_000 / 2_147_483_647),
        pytest.approx(0.5),
        pytest.approx(0.25, abs=1e-4),
        0,
        0,
    ]


@pytest.mark.parametrize("is_waiting", [False, True], ids=["locked", "waited for"])
async def test_a_locked_sequence_does_not_cost_the_others(primary, tables, is_waiting):
    psql(primary, SEQUENCES)
    grant_sequences(primary)
    alter = "ALTER SEQUENCE worn.orders_id_seq MAXVALUE 2100000000"
    async with (
        session(primary, user="postgres") as holder,
        session(primary, user="postgres") as waiter,
    ):
        for connection in (holder, waiter):
            await connection.execute("SET lock_timeout = 0; BEGIN READ WRITE")
        if is_waiting:
            # Its own RowExclusiveLock would not be in our way; who waits behind it is.
            await holder.execute("SELECT nextval('worn.orders_id_seq')")
            waiting = asyncio.create_task(waiter.execute(alter))
            await asyncio.sleep(0.3)
        else:
            await holder.execute(alter)

        seen = await ask(primary, MAINTENANCE)

        if is_waiting:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    assert seen["sequences"][0]["sequence"] == "worn.grown_seq"
    assert seen["sequences_hidden"] == 1


async def test_of_many_sequences_some_are_left_alone(primary, tables):
    """Each one that is opened takes a place in the lock table of all."""
    psql(
        primary,
        "DO $$ BEGIN FOR i IN 1..250 LOOP"
        " EXECUTE format('CREATE SEQUENCE worn.q%s', i); END LOOP; END $$",
    )
    psql(primary, "CREATE TABLE worn.full (id serial)")
    psql(primary, "INSERT INTO worn.full SELECT FROM generate_series(1, 5000)")
    psql(primary, "ANALYZE worn.full")
    grant_sequences(primary)

    seen = await ask(primary, MAINTENANCE)

    assert seen["sequences_hidden"] == 51
    assert len(seen["sequences"]) == 5
    assert seen["sequences"][0]["sequence"] == "worn.full_id_seq"


async def test_sequences_that_are_dropped_meanwhile_do_no_harm(primary, tables):
    psql(primary, SEQUENCES)
    grant_sequences(primary)
    psql(
        primary,
        "ALTER DEFAULT PRIVILEGES IN SCHEMA worn GRANT SELECT ON SEQUENCES TO pgbreaker",
    )
    async with session(primary, user="postgres") as churning:
        await churning.execute(
            "SET default_transaction_read_only = off; SET lock_timeout = 0"
        )

        async def churn():
            while True:
                await churning.execute("CREATE TABLE worn.brief (id serial)")
                await churning.execute("DROP TABLE worn.brief")

        running = asyncio.create_task(churn())
        async with session(primary) as connection:
            for _ in range(200):
                seen = await ask_on(connection, MAINTENANCE)
                assert seen["sequences"][0]["sequence"] == "worn.orders_id_seq"
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_prepared_transaction_holds_back_vacuum(primary, tables):
    psql(primary, "CREATE TABLE worn.t (id int)")
    psql(primary, "BEGIN; INSERT INTO worn.t VALUES (1); PREPARE TRANSACTION 'tx 1'")
    try:
        for _ in range(3):
            psql(primary, "SELECT pg_current_xact_id()")
        await asyncio.sleep(0.2)
        seen = await ask(primary, MAINTENANCE)
        age = int(psql(primary, "SELECT max(age(transaction)) FROM pg_prepared_xacts"))
    finally:
        psql(primary, "ROLLBACK PREPARED 'tx 1'")

    assert seen["xmin_holder"] == "prepared transaction tx 1"
    assert seen["xmin_age"] == age
    assert age >= 4
    assert seen["prepared_transactions"] == 1
    assert 0.1 < seen["prepared_oldest_seconds"] < 20
    gone = await ask(primary, MAINTENANCE)
    assert gone["prepared_transactions"] == gone["prepared_oldest_seconds"] == 0


async def test_whoever_has_written_and_idles_holds_back_vacuum(primary):
    """Between two statements it has no snapshot, and so no xmin."""
    async with session(primary, user="postgres") as idle:
        await idle.execute("SET application_name = 'forgotten'; BEGIN READ WRITE")
        await idle.execute("SELECT pg_current_xact_id()")
        psql(primary, "SELECT pg_current_xact_id()")
        seen = await ask(primary, MAINTENANCE)
        pid = await idle.fetchval("SELECT pg_backend_pid()")

    assert seen["xmin_holder"] == f"pid {pid}, forgotten"
    assert seen["xmin_age"] >= 2


async def test_a_slot_holds_back_vacuum_for_a_standby_that_is_gone(primary):
    psql(primary, "SELECT pg_create_physical_replication_slot('away')")
    try:
        with running_standby(
            primary, hot_standby_feedback="on", primary_slot_name="'away'"
        ):
            await until(
                primary,
                MAINTENANCE,
                lambda seen: seen["xmin_holder"] == "slot away",
            )
        for _ in range(3):
            psql(primary, "SELECT pg_current_xact_id()")
        seen = await ask(primary, MAINTENANCE)
    finally:
        psql(primary, "SELECT pg_drop_replication_slot('away')")

    assert seen["xmin_holder"] == "slot away"
    assert seen["xmin_age"] >= 3


async def test_a_running_vacuum_and_how_far_it_is(primary, tables):
    psql(
        primary,
        "CREATE TABLE worn.large AS SELECT i, repeat('x', 500) AS text"
        " FROM generate_series(1, 30000) AS i; DELETE FROM worn.large WHERE i % 2 = 0",
    )
    async with session(primary, user="postgres") as vacuuming:
        await vacuuming.execute(
            "SET vacuum_cost_delay = 20; SET vacuum_cost_limit = 20;"
            " SET statement_timeout = 0"
        )
        running = asyncio.create_task(
            vacuuming.execute("VACUUM (INDEX_CLEANUP off) worn.large")
        )
        seen = await until(
            primary,
            MAINTENANCE,
            lambda seen: seen["vacuums"] and seen["vacuums"][0]["progress_ratio"],
        )
        elsewhere = await ask(primary, MAINTENANCE, database="app")
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_vacuum"
        psql(primary, end)
        await asyncio.gather(running, return_exceptions=True)

    assert seen["vacuums_running"] == elsewhere["vacuums_running"] == 1
    assert seen["vacuums"][0]["table"] == "worn.large"
    assert 0 < seen["vacuums"][0]["progress_ratio"] <= 1
    assert elsewhere["vacuums"] == ()  # its name is not known there


async def test_sequences_are_read_on_a_replica_too(primary, standby, tables):
    psql(primary, SEQUENCES)
    psql(primary, "CREATE UNLOGGED TABLE worn.fleeting (id serial)")
    grant_sequences(primary)

    seen = await until(
        standby, MAINTENANCE, lambda seen: seen["sequences"], user="pgbreaker"
    )

    assert seen["sequences"][0] == {
        "sequence": "worn.orders_id_seq",
        "ratio": pytest.approx(2_000_000_000 / 2_147_483_647),
    }


# Size.


async def test_sizes_are_what_psql_says(primary):
    psql(primary, "CREATE TABLE IF NOT EXISTS written (text text)")

    seen = await ask(primary, SIZE)

    sizes = psql(
        primary,
        "SELECT datname || ' ' || pg_database_size(oid) FROM pg_database"
        " WHERE datname <> 'postgres' AND NOT datistemplate",
    ).splitlines()
    assert {
        f"{row['database']} {row['bytes']}"
        for row in seen["sizes"]
        if row["database"] != "postgres"
    } == set(sizes)
    ours = int(psql(primary, "SELECT pg_database_size('postgres')"))
    assert only(seen["sizes"], database="postgres")["bytes"] == pytest.approx(ours, 0.1)
    wal = int(psql(primary, "SELECT sum(size) FROM pg_ls_waldir()"))
    assert seen["wal_directory_bytes"] == pytest.approx(wal, abs=64 << 20)
    assert seen["temp_directory_bytes"] == 0


async def test_spilled_files_are_seen(primary):
    async with session(primary, user="postgres") as spilling:
        await spilling.execute("SET work_mem = '64kB'; BEGIN")
        await spilling.execute(
            "DECLARE c CURSOR FOR SELECT i FROM generate_series(1, 500000) AS i"
            " ORDER BY i DESC"
        )
        await spilling.execute("FETCH 1 FROM c")
        seen = await ask(primary, SIZE)

    assert seen["temp_directory_bytes"] > 1_000_000


@pytest.mark.slow
async def test_of_many_databases_twenty_are_shown_and_the_rest_summed(primary):
    for i in range(24):
        psql(primary, f"CREATE DATABASE d{i}")
    try:
        seen = await ask(primary, SIZE)
        total = int(
            psql(
                primary,
                "SELECT sum(pg_database_size(oid)) FROM pg_database WHERE NOT datistemplate",
            )
        )
    finally:
        for i in range(24):
            psql(primary, f"DROP DATABASE d{i}")

    assert len(seen["sizes"]) == 21
    assert sum(row["bytes"] for row in seen["sizes"]) == pytest.approx(total, 0.01)
    assert only(seen["sizes"], database="other")["bytes"] > 5 * 7_000_000


# What answers when not all is well.


@pytest.mark.parametrize("name", ALL)
async def test_all_but_sizes_answer_while_pg_database_is_locked(primary, name):
    async with session(primary) as connection, lock_relation(primary, "pg_database"):
        if name == "size":
            with pytest.raises(asyncpg.LockNotAvailableError):
                await ask_on(connection, ALL[name])
        else:
            assert await ask_on(connection, ALL[name])


@pytest.mark.parametrize("name", ALL)
async def test_sizes_and_segments_take_a_grant(primary, name):
    """What lists a directory is refused (42501) as a whole; the rest is thinner."""
    if name in ("wal_ckpt", "size"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ask(primary, ALL[name], user="app_user")
    else:
        assert await ask(primary, ALL[name], user="app_user")


async def test_what_is_not_for_us_to_see_is_unknown_rather_than_missing(
    primary, standby
):
    await until(primary, REPLICATION, lambda seen: seen["standbys"])

    at_primary = await ask(primary, REPLICATION, user="app_user")
    at_standby = await ask(standby, REPLICATION, user="app_user")

    assert at_primary == {"standbys": (), "sync_wanted": 0, "sync_present": None}
    assert at_standby["wal_receiver_up"] == 1
    # Its own age is nobody's secret; a worker of the primary may just have written.
    assert 0 <= at_standby["replay_age_seconds"] < 60
    assert at_standby["wal_receiver_wanted"] is None


@pytest.mark.parametrize("name", ALL)
async def test_every_value_that_is_shown_is_seen(primary, standby, name):
    """A metric of a value that no probe gives would be absent for ever."""
    probe = ALL[name]
    seen = {**await ask(standby, probe), **await ask(primary, probe)}

    for shown in probe.shows:
        assert (shown.rows or shown.value) in seen
    assert all(
        isinstance(value, int | float | str | bool | None | tuple)
        for value in seen.values()
    )


@pytest.mark.parametrize("version", [140_023, 150_018, 160_014, 170_010, 180_004])
@pytest.mark.parametrize("name", ALL)
def test_every_version_is_asked_something(name, version):
    server = SimpleNamespace(version=version, major=version // 10_000)

    assert ALL[name].asks(server).strip().startswith("SELECT")
