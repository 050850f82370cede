"""A real pgbouncer, told to hold its clients back while a breaker is open.

What is ours is undone whatever happens to us; what is somebody else's never is.
"""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest

from pgbreaker.core.entry import Kind
from pgbreaker.core.plan import PausePlan, StorePlan
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Override, State
from pgbreaker.monitor.pausing import EVERY, Pausing
from pgbreaker.sinks.history import History
from pgbreaker.sinks.store import Store
from support.boards import Scene
from support.pooler import ADMIN, USER, running_pooler
from support.servers import running_server

SOON = 10.0


@pytest.fixture(scope="module")
def server():
    """One major is enough: it is the pooler that talks."""
    with running_server(15) as server:
        yield server


@pytest.fixture
def pooler(server):
    with running_pooler(
        server, query_wait_timeout="30", default_pool_size="2"
    ) as pooler:
        yield pooler


def is_paused(pooler) -> bool:
    rows = pooler.tell("SHOW DATABASES")
    return next(row["paused"] for row in rows if row["name"] == "app") == 1


class Watched:
    """A target whose breaker for writes a test opens and closes, and its history."""

    def __init__(self, pooler, store: Store | None, scene: Scene) -> None:
        self.scene = scene
        restored = None if store is None else store.restored()
        self.history = History(
            scene.board,
            scene.clock,
            store,
            archive=store,
            last=0 if restored is None else restored.last_id,
            entries=() if restored is None else restored.entries,
        )
        self.pausing = Pausing(
            scene.board, self.history, scene.clock, is_kept=store is not None
        )
        scene.also(self.history, self.pausing)
        address = Secret(pooler.dsn(user=ADMIN, database="pgbouncer"))
        self.plan = PausePlan(address=address, database="app")
        self.at_first = len(self.history.entries)

    async def take(self, plan: PausePlan | None) -> None:
        target = self.scene.board.targets["main"].plan
        await self.pausing.take((replace(target, pause=plan),))

    @property
    def breaker(self):
        return self.scene.board.targets["main"].breakers["write"]

    def open(self) -> None:
        now = self.scene.time.now
        override = Override(State.FORCED_OPEN, "a test", "ana", now + 9e9)
        self.scene.hub.publish(self.breaker.force(override, now))

    def close(self) -> None:
        move = self.breaker.resume(self.scene.time.now, "handed back")
        self.scene.hub.publish(move)

    @property
    def told(self) -> list:
        entries = list(self.history.entries)[self.at_first :]
        return [entry for entry in entries if entry.kind is Kind.PAUSE]

    async def until(self, what) -> None:
        try:
            async with asyncio.timeout(SOON):
                while not what():  # noqa: ASYNC110 - some of it is another process's
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError([entry.text for entry in self.told]) from None

    async def until_told(self, words: str) -> None:
        await self.until(lambda: self.told and words in self.told[-1].text)


@asynccontextmanager
async def watching(pooler, path=None, scene=None):
    """What pauses *pooler*, and is killed at the end: nothing is resumed by that."""
    scene = scene or Scene()
    store = (
        None if path is None else await Store.open(StorePlan(path=path), scene.clock)
    )
    watched = Watched(pooler, store, scene)
    await watched.take(watched.plan)
    running = asyncio.create_task(watched.pausing.run())
    try:
        yield watched
        assert not running.done()
    finally:
        for pool in watched.pausing._pools.values():
            pool.task.cancel()
            await asyncio.wait((pool.task,))
        running.cancel()
        await asyncio.wait((running,))
        await watched.history.close()
        if store is not None:
            await store.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


def asking(pooler, statement="SELECT 'served'"):
    """A client that asks through the pooler, under way."""

    def ask() -> str:
        with psycopg.connect(pooler.dsn(), autocommit=True) as client:
            return client.execute(statement).fetchone()[0]

    return asyncio.create_task(asyncio.to_thread(ask))


async def test_clients_wait_while_it_is_open_and_are_served_then(pooler, path):
    """
    All of it is in the audit log: what was decided, before it was done; what was sent,
    and what was answered.
    """
    async with watching(pooler, path) as watched:
        watched.open()
        await watched.until_told("has paused")
        client = asking(pooler)
        await watched.until(
            lambda: any(row["cl_waiting"] for row in pooler.tell("SHOW POOLS"))
        )
        watched.close()

        assert await client == "served"
        await watched.until_told("has resumed")
        audited = [line.entry for line in await watched.history.audit()]

    assert [(e.author, e.details["sent"], e.details["answered"]) for e in audited] == [
        ("pgbreaker", 'PAUSE "app"', None),
        (None, 'PAUSE "app"', "done"),
        (None, 'RESUME "app"', "done"),
    ]
    assert audited[0].text == (
        "pgbouncer is told to pause app, for 30s at most: main/write is open"
    )
    assert audited[2].text == (
        "pgbouncer has resumed app: main/write is not open any more"
    )


async def test_a_query_that_runs_goes_on_and_is_not_waited_for(pooler, path):
    """
    ``PAUSE`` is answered when none runs any more; on a frozen server that is never.
    """
    async with watching(pooler, path) as watched:
        runs = asking(pooler, "SELECT 'done' FROM pg_sleep(4)")
        await watched.until(
            lambda: any(row["sv_active"] for row in pooler.tell("SHOW POOLS"))
        )
        watched.open()
        await watched.until_told("has not answered yet")
        paused = is_paused(pooler)
        watched.close()
        await watched.until_told("has resumed")

        assert paused
        assert not is_paused(pooler)
        assert await asking(pooler) == "served"
        assert not runs.done()
        assert await runs == "done"


async def test_it_ends_in_time_whatever_the_breaker_says(pooler, path):
    async with watching(pooler, path) as watched:
        watched.open()
        await watched.until_told("has paused")
        watched.scene.time.now += 30.0
        await watched.until_told("has resumed app: it has lasted 30s")
        watched.scene.time.now += EVERY
        # The same opening still: it has had its pause.
        await watched.pausing._pools["main"]._look()

        assert not is_paused(pooler)
        assert len(watched.told) == 3


async def test_one_a_minute_is_the_most(pooler, path):
    async with watching(pooler, path) as watched:
        for _ in range(3):
            watched.open()
            await watched.until(lambda: watched.pausing._pools["main"]._is_spent)
            watched.close()
            await watched.until(lambda: not watched.pausing._pools["main"]._is_spent)
        often = [entry.text for entry in watched.told if entry.author is not None]
        watched.scene.time.now += EVERY
        watched.open()
        await watched.until_told("has paused")

    assert len(often) == 1


async def test_what_a_person_has_paused_is_left_to_them(pooler, path):
    async with watching(pooler, path) as watched:
        pooler.tell("PAUSE app")
        watched.open()
        await watched.until_told("is paused at pgbouncer already, by somebody else")
        watched.close()
        await watched.until(lambda: not watched.pausing._pools["main"]._is_spent)

        assert is_paused(pooler)


async def test_where_all_is_paused_nothing_is_ours(pooler, path):
    """
    ``PAUSE`` without a name marks no database; a second one is refused.
    """
    async with watching(pooler, path) as watched:
        pooler.tell("PAUSE")
        watched.open()
        await watched.until_told("already suspended/paused")
        watched.close()
        await watched.until(lambda: not watched.pausing._pools["main"]._is_spent)

        with pytest.raises(psycopg.Error, match="already suspended"):
            pooler.tell("PAUSE")


async def test_what_a_person_has_resumed_is_not_ours_any_more(pooler, path):
    async with watching(pooler, path) as watched:
        watched.open()
        await watched.until_told("has paused")
        pooler.tell("RESUME app")
        await watched.until_told("by somebody else's word")
        pooler.tell("PAUSE app")
        watched.close()
        await watched.until(lambda: not watched.pausing._pools["main"]._is_spent)

        assert is_paused(pooler)
        assert not watched.told[-1].details["held"]


async def test_a_console_that_hangs_is_told_until_it_answers(pooler, path):
    async with watching(pooler, path) as watched:
        watched.open()
        await watched.until_told("has paused")
        os.kill(pooler._process.pid, signal.SIGSTOP)
        try:
            watched.close()
            await watched.until_told("it is told again each second")
        finally:
            os.kill(pooler._process.pid, signal.SIGCONT)
        await watched.until_told("has resumed")

        assert not is_paused(pooler)


async def test_a_console_that_hangs_is_not_waited_for_to_pause(pooler, path):
    async with watching(pooler, path) as watched:
        os.kill(pooler._process.pid, signal.SIGSTOP)
        try:
            watched.open()
            await watched.until_told("is not paused at pgbouncer: no answer within")
        finally:
            os.kill(pooler._process.pid, signal.SIGCONT)

        assert not is_paused(pooler)
        assert [entry.details["sent"] for entry in watched.told] == [None]


async def test_a_restart_of_the_pooler_is_noticed(pooler, path):
    """
    It has forgotten that it was paused.
    """
    async with watching(pooler, path) as watched:
        watched.open()
        await watched.until_told("has paused")
        pooler.kill()
        pooler.start()
        await watched.until_told("is not paused at pgbouncer any more")


async def test_who_may_only_look_pauses_nothing(server, path):
    with running_pooler(server, stats_users=USER) as pooler:
        async with watching(pooler, path) as watched:
            looks = Secret(pooler.dsn(user=USER, database="pgbouncer"))
            await watched.take(replace(watched.plan, address=looks))
            watched.open()
            await watched.until_told("it says: admin access needed")

            assert not is_paused(pooler)
            assert not watched.told[-1].details["held"]


async def test_another_configuration_resumes_first(pooler, path):
    async with watching(pooler, path) as watched:
        watched.open()
        await watched.until_told("has paused")
        await watched.take(None)

        assert not is_paused(pooler)
        assert watched.told[-1].text.endswith("it is configured otherwise")


async def test_the_next_daemon_undoes_what_one_that_was_killed_has_left(pooler, path):
    """
    Whatever the breaker says: it is still open.
    """
    async with watching(pooler, path) as watched:
        watched.open()
        await watched.until_told("has paused")
        scene = watched.scene
    assert is_paused(pooler)

    async with watching(pooler, path, scene) as watched:
        await watched.until_told("whoever paused it has ended since")

        assert not is_paused(pooler)
        assert not watched.breaker.passes


async def test_what_nobody_can_resume_any_more_is_told(pooler, path):
    async with watching(pooler, path) as watched:
        watched.open()
        await watched.until_told("has paused")
        scene = watched.scene
    store = await Store.open(StorePlan(path=path), scene.clock)
    try:
        watched = Watched(pooler, store, scene)
        running = asyncio.create_task(watched.pausing.run())
        await watched.until_told('tell it RESUME "app"')
        running.cancel()
        await asyncio.wait((running,))
        await watched.history.close()
    finally:
        await store.close()

    assert f"pgbouncer at 127.0.0.1:{pooler.port} may have app" in watched.told[-1].text


async def test_without_a_store_nothing_is_paused(pooler):
    """
    A daemon that is killed would leave a pool behind that nobody knows of.
    """
    async with watching(pooler) as watched:
        watched.open()
        await watched.until_told("there is no store")

        assert not is_paused(pooler)
