"""Several questions in one statement, and what happens when one of them cannot be asked."""

import asyncio

from pgbreaker.core.reading import Finding
from pgbreaker.sinks.board import Condition
from support.servers import psql
from support.watching import QUICK, Watching

LOOKS = ("slots", "statements", "wal_ckpt")  # due together, in one statement


async def test_a_privilege_that_is_missing_is_a_state_of_one_probe(server):
    """The role has no grant at all: 42501 for two probes, an answer for the others."""
    async with Watching(server.dsn(user="app_user"), probes=QUICK) as watching:
        await watching.until_watched(10.0)

        assert watching.findings("wal_ckpt") == {Finding.DENIED}
        assert watching.findings("size") == {Finding.DENIED}
        assert watching.findings("slots") == {Finding.OK}
        assert watching.findings("statements") == {Finding.ABSENT}
        assert watching.findings("database") == {Finding.OK}
        assert "permission denied" in str(watching.readings("wal_ckpt")[0].evidence)
        assert watching.board.condition is Condition.UP
        assert [notice.code for notice in watching.notices] == ["blind"]
        assert watching.moves == []


async def test_what_cannot_be_asked_is_asked_alone_and_less_often(server):
    plans = {name: QUICK[name] for name in ("ping", *LOOKS)}
    quick = {
        name: plan if name == "ping" else type(plan)(interval=0.3, timeout=1.0)
        for name, plan in plans.items()
    }
    log = server.home / "log"
    begun = len(await asyncio.to_thread(log.read_bytes))
    async with Watching(server.dsn(user="app_user"), probes=quick) as watching:
        await watching.until(lambda: watching.answers("slots") >= 20, within=15.0)
        denied = len(watching.readings("wal_ckpt"))

    said = (await asyncio.to_thread(log.read_bytes))[begun:]
    assert 1 <= denied <= 7  # 1, 2, 4, 8, 16 runs apart
    assert said.count(b"permission denied") <= denied + 2


async def test_a_plan_is_kept_by_the_server_only_where_no_pooler_stands(server):
    async with Watching(server.dsn(user="pgbreaker"), probes=QUICK) as watching:
        await watching.until(lambda: watching.answers("identity") >= 3, within=10.0)
        held = watching.patrol._line._held
        row = await held.fetch("SELECT count(*) AS n FROM pg_prepared_statements", 2.0)

        assert row["n"] >= 1
        assert watching.board.facts["through_pooler"] is False
    assert psql(server, "SELECT 1") == "1"
