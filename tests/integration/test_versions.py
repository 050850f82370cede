"""Every question is asked of every supported major, by a role with pg_monitor alone."""

import asyncio
import time

import asyncpg
import pytest

from pgbreaker.probes import PROBES
from pgbreaker.probes.blocking import BLOCKING
from pgbreaker.probes.database import DATABASE
from pgbreaker.probes.identity import IDENTITY
from pgbreaker.probes.probe import Server
from pgbreaker.probes.saturation import SATURATION
from pgbreaker.probes.statements import STATEMENTS
from support.asking import ask, ask_on, session
from support.servers import Crowd, psql, quiet, running_server, until

MAJORS = (14, 15, 16, 17, 18)
# Commit's own tests have it write; the session here is held to reading.
ASKING = [
    probe
    for name, probe in PROBES.items()
    if name != "commit" and probe.asks(Server(MAJORS[-1] * 10_000)) is not None
]


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"pg{major}")
def real(request):
    """A server of each major in turn, for all tests here."""
    settings = {
        "max_connections": "60",
        "max_prepared_transactions": "2",
        "shared_preload_libraries": "pg_stat_statements",
    }
    with running_server(request.param, **settings) as server:
        # Not where anybody would look for it.
        psql(
            server, 'CREATE SCHEMA "Odd one"; GRANT USAGE ON SCHEMA "Odd one" TO PUBLIC'
        )
        psql(server, 'CREATE EXTENSION pg_stat_statements SCHEMA "Odd one"')
        yield server


@pytest.mark.parametrize("probe", ASKING, ids=lambda probe: probe.name)
async def test_every_question_is_understood(real, probe):
    seen = await ask(real, probe)

    for shown in probe.shows:
        for row in (seen,) if shown.rows is None else seen[shown.rows]:
            assert isinstance(row.get(shown.value), int | float | bool | None)
            assert all(isinstance(row[label], str) for label in shown.by)


async def test_identity_tells_the_version(real):
    seen = await ask(real, IDENTITY)

    assert seen["version"] // 10_000 == int(
        psql(real, "SHOW server_version").split(".")[0]
    )


async def test_reserved_connections_count_where_there_are_any(real):
    """The setting is there since 16; before, no slots are reserved so."""
    seen = await ask(real, SATURATION)

    said = psql(real, "SELECT current_setting('reserved_connections', true)")
    assert seen["reserved_connections"] == int(said or 0)
    assert seen["slots_usable"] == 60 - 3 - int(said or 0)


async def test_a_wait_has_a_beginning(real):
    """pg_locks tells it since 14."""
    async with Crowd(real) as crowd:
        await crowd.join("SELECT pg_advisory_lock(1)")
        await crowd.leave(await crowd.join(), "SELECT pg_advisory_lock(1)")

        seen = await ask(real, BLOCKING)
        assert seen["lock_waiters"] == 1
        assert seen["lock_wait_oldest_seconds"] > 0


async def test_a_long_queue_is_asked_about_in_part_and_counted_in_full(real):
    await quiet(real)
    psql(real, "CREATE TABLE IF NOT EXISTS queued (i int)")
    async with Crowd(real) as crowd, session(real) as connection:
        lock = "BEGIN; LOCK TABLE queued"
        root = await crowd.join(lock, user="postgres", database="postgres")
        for _ in range(40):
            waiting = await crowd.join(user="postgres", database="postgres")
            await crowd.leave(waiting, lock, seen_by=connection)

        begun = time.monotonic()
        seen = await ask_on(connection, BLOCKING)
        assert time.monotonic() - begun < 0.5
        assert seen["lock_waiters"] == seen["blocker_waits"] == 40
        assert seen["lock_chain_depth"] == 20  # as far as is looked
        assert seen["lock_blockers"] == 1
        assert seen["blocker_pid"] == root.get_server_pid()
        assert seen["blocker_relation"] == "public.queued"


async def test_a_prepared_transaction_blocks_without_a_process(real):
    psql(real, "CREATE TABLE IF NOT EXISTS queued (i int)")
    psql(real, "BEGIN; LOCK TABLE queued; PREPARE TRANSACTION 'left'")
    try:
        async with Crowd(real) as crowd:
            waiting = await crowd.join(user="postgres", database="postgres")
            await crowd.leave(waiting, "SELECT * FROM queued")
            seen = await ask(real, BLOCKING)
    finally:
        psql(real, "ROLLBACK PREPARED 'left'")

    assert seen["blocker_application"] == "prepared transaction"
    assert (seen["blocker_pid"], seen["blocker_waits"]) == (0, 1)
    assert seen["blocker_age_seconds"] is None


async def test_sessions_are_counted(real):
    """pg_stat_database has them since 14."""
    await (await asyncpg.connect(real.dsn())).close()
    await until(
        real,
        "SELECT sessions > 0 FROM pg_stat_database WHERE datname = 'postgres'",
    )

    rows = (await ask(real, DATABASE))["databases"]
    (row,) = (row for row in rows if row["database"] == "postgres")
    assert row["sessions"] > 0


async def test_statements_are_summed_wherever_the_extension_is(real):
    psql(real, "SELECT count(*) FROM generate_series(1, 1000)")
    before = await ask(real, STATEMENTS)
    psql(real, "SELECT generate_series(1, 1000)")
    seen = await ask(real, STATEMENTS)
    said = psql(
        real,
        "SELECT sum(calls), sum(total_exec_time) / 1000, sum(rows)"
        ' FROM "Odd one".pg_stat_statements(false)',
    ).split("|")

    assert seen["statement_rows"] - before["statement_rows"] >= 1000
    assert before["statement_calls"] < seen["statement_calls"] <= int(said[0])
    assert 0 < seen["statement_seconds"] <= float(said[1])
    assert seen["statement_rows"] <= int(said[2])
    assert seen["statement_read_seconds"] == 0  # track_io_timing is off
    assert seen["statement_evictions"] == 0


async def test_an_extension_from_before_an_upgrade_of_the_server(real):
    """pg_upgrade leaves the extension at its version, with the names of then."""
    oldest = psql(
        real,
        "SELECT min(version) FROM pg_available_extension_versions"
        " WHERE name = 'pg_stat_statements' AND version ~ '^1[.][4-9]$'",
    )
    psql(
        real, f"CREATE EXTENSION pg_stat_statements VERSION '{oldest}'", database="app"
    )
    try:
        seen = await ask(real, STATEMENTS, database="app")
    finally:
        psql(real, "DROP EXTENSION pg_stat_statements", database="app")

    assert seen["statement_calls"] > 0
    assert seen["statement_evictions"] is None  # told since 1.9


# What follows restarts the server: the last tests here.


async def test_a_start_moves_the_start(real):
    before = await ask(real, IDENTITY)
    real.stop()
    real.start()

    assert (await ask(real, IDENTITY))["started"] > before["started"]


async def test_recovery_from_a_crash_moves_counters_since_alone(real):
    """The server kept its start time, and has discarded its statistics."""
    before = await ask(real, IDENTITY)
    victim = await asyncpg.connect(real.dsn())
    real.kill_backend(victim.get_server_pid())
    victim.terminate()
    async with asyncio.timeout(20):
        while True:
            try:
                seen = await ask(real, IDENTITY)
            except (asyncpg.PostgresError, OSError):
                await asyncio.sleep(0.05)
                continue
            if seen["counters_since"] != before["counters_since"]:
                break

    assert seen["started"] == before["started"]
    assert seen["counters_since"] > before["counters_since"]
