"""Commits that wait: never a pile of them, whatever stands between and is lost."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from pgbreaker.core.reading import Finding
from pgbreaker.core.states import State
from pgbreaker.probes import PROBES
from support.pooler import running_pooler
from support.servers import psql
from support.watching import QUICK, Watching

PROBES_OF_A_STALL = {
    name: replace(QUICK[name], interval=0.5, timeout=min(QUICK[name].timeout, 1.0))
    for name in ("ping", "login", "commit", "identity")
}
STUCK = """
SELECT count(*) FROM pg_stat_activity
 WHERE application_name = 'pgbreaker/commit' AND wait_event = 'SyncRep'
"""


@contextlib.contextmanager
def no_standby(server):
    """Commits wait for a synchronous standby that is not there."""
    psql(server, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    psql(server, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        psql(server, "ALTER SYSTEM RESET synchronous_standby_names")
        psql(server, "SELECT pg_reload_conf()")


async def count_stuck(server) -> int:
    return int(await asyncio.to_thread(psql, server, STUCK))


async def until_stuck_no_more(server) -> None:
    for _ in range(500):
        if await count_stuck(server) == 0:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("commits are stuck still")


@pytest.mark.parametrize("server", [15], ids=["pg15"], indirect=True)
async def test_through_a_pooler_one_commit_is_stuck_and_told_as_that(server):
    """The pooler tells its clients a pid of its own making."""
    with running_pooler(server, default_pool_size="10") as pooler:
        dsn = pooler.dsn(user="app_user")
        async with Watching(dsn, probes=PROBES_OF_A_STALL) as watching:
            await watching.until_watched(10.0)
            with no_standby(server):
                await watching.until_open("write", within=10.0)
                n = len(watching.readings("commit"))
                await watching.until(
                    lambda: len(watching.readings("commit")) >= n + 6, within=20.0
                )
                stuck = await count_stuck(server)
                assert watching.readings("commit")[-1].finding is Finding.SYNC_REP
                assert watching.states["read"] is State.CLOSED
            await until_stuck_no_more(server)
            await watching.until_closed(within=15.0)

    assert stuck == 1


@pytest.mark.parametrize("server", [15], ids=["pg15"], indirect=True)
async def test_a_held_connection_that_is_lost_meanwhile_makes_no_pile(server):
    dsn = server.dsn(user="pgbreaker")
    async with Watching(dsn, probes=PROBES_OF_A_STALL) as watching:
        await watching.until_watched(10.0)
        with no_standby(server):
            await watching.until_open("write", within=10.0)
            for _ in range(4):
                pings = watching.answers("ping")
                commits = len(watching.readings("commit"))
                psql(
                    server,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'pgbreaker/ping'",
                )
                await watching.until(
                    lambda n=pings, m=commits: (
                        watching.answers("ping") > n
                        and len(watching.readings("commit")) > m + 2
                    ),
                    within=10.0,
                )
            stuck = await count_stuck(server)
            assert watching.board.connections <= 3
        await until_stuck_no_more(server)
        await watching.until_closed(within=15.0)

    assert stuck == 1


@pytest.mark.parametrize("server", [15], ids=["pg15"], indirect=True)
async def test_a_query_of_the_users_cannot_write_behind_a_pooler_either(server):
    """It takes no settings at login, so each question brings them along."""
    psql(server, "CREATE SEQUENCE IF NOT EXISTS counted", database="app")
    psql(server, "GRANT ALL ON SEQUENCE counted TO app_user", database="app")
    custom = replace(PROBES["custom"].plan, interval=0.5)
    probes = {
        "ping": QUICK["ping"],
        "custom.writing": replace(
            custom, query="SELECT nextval('public.counted') AS n"
        ),
        "custom.slow": replace(custom, query="SELECT pg_sleep(20)::text, 1 AS n"),
        "custom.good": replace(custom, query="SELECT 1 AS n -- one"),
    }
    with running_pooler(server, default_pool_size="10") as pooler:
        dsn = pooler.dsn(user="app_user")
        async with Watching(dsn, probes=probes) as watching:
            await watching.until(
                lambda: all(watching.readings(name) for name in probes), within=15.0
            )
            found = {name: watching.readings(name)[0] for name in probes}

    assert found["custom.writing"].evidence.sqlstate == "25006"
    assert found["custom.slow"].evidence.sqlstate == "57014"  # statement_timeout
    assert found["custom.good"].finding is Finding.OK
    assert found["custom.good"].values["custom.good"][0]["value"] == 1.0
