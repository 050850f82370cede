"""Whatever becomes of the store's disk and file, the daemon goes on, and says so."""

import asyncio
import contextlib
import os
import random
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from pgbreaker.core.wanted import Wanted
from pgbreaker.sinks.history import NotKeptError, NotReadError
from pgbreaker.sinks.store.file import connect, uri_of
from pgbreaker.sinks.store.schema import SCHEMA, Schema
from support.disk import mounted
from support.flips import filled, survive
from support.storing import entry, override, storing, until, window


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def disk(tmp_path):
    with mounted(tmp_path / "disk", "2m") as disk:
        yield disk


async def ids(store) -> list[int]:
    return [e.id for e in await store.entries(Wanted(limit=1000))]


# The disk.


async def test_a_full_disk_refuses_decisions_and_what_came_about_is_made_good(disk):
    path = disk.path / "state.db"
    async with storing(path) as store:
        await store.record([override(1)])
        disk.fill()
        words = "x" * 4096  # more than is left of the log as it is
        late = 2
        while store.degraded is None:  # until what the log has left is full
            with contextlib.suppress(NotKeptError):
                await store.record([override(late, text=words)])
                late += 1

        assert "no space is left on the disk" in str(store.degraded)
        with pytest.raises(NotKeptError):
            await store.record([entry(1000, text=words)])
        disk.free()
        await until(lambda: store.degraded is None)
        await store.record([override(2000)])

        assert await ids(store) == [*range(1, late), 1000, 2000]
        assert await store.verify_audit() is None
    assert store.lost == 0


async def test_a_full_disk_at_the_start_is_no_reason_not_to_start(disk):
    disk.fill()

    async with storing(disk.path / "state.db") as store:
        assert store.degraded is not None
        with pytest.raises(NotKeptError):
            await store.record([override(1)])
        disk.free()
        await until(lambda: store.degraded is None)

        await store.record([override(2)])
        assert await ids(store) == [2]


async def test_a_read_only_disk_still_tells_what_holds(disk):
    path = disk.path / "state.db"
    async with storing(path) as store:
        await store.record([override(1), window(2)])
    disk.forbid()

    async with storing(path) as store:
        found = store.restored()

        assert "Read-only file system" in str(store.degraded)
        assert found.overrides.keys() == {"main/read"}
        assert found.windows == (window(2),)
        assert found.last_id == 2
        with pytest.raises(NotKeptError, match="Read-only"):
            await store.record([override(3)])
        disk.allow()
        await until(lambda: store.degraded is None)
        await store.record([override(4)])
        assert await ids(store) == [1, 2, 4]


async def test_a_directory_that_is_not_there_is_waited_for(tmp_path):
    path = tmp_path / "later" / "state.db"
    async with storing(path) as store:
        assert f"{path}.lock: No such file or directory" in str(store.degraded)
        with pytest.raises(NotKeptError):
            await store.record([entry(1)])
        with pytest.raises(NotReadError):
            await store.entries(Wanted())
        path.parent.mkdir()
        await until(lambda: store.degraded is None)

        assert await ids(store) == [1]


async def test_what_is_owed_is_bounded_and_what_is_dropped_is_counted(tmp_path):
    async with storing(tmp_path / "never" / "state.db", rests=(60.0, 60.0)) as store:
        many = [entry(n) for n in range(1, 10_011)]
        for first in range(0, len(many), 10):
            with pytest.raises(NotKeptError):
                await store.record(many[first : first + 10])

        assert store.lost == 10
    # And what is left was not written when it ended.
    assert store.lost == 10_010


class Hanging(sqlite3.Connection):
    """A connection whose disk answers for entries when it is let; what is tidied up
    meanwhile has nothing to wait for."""

    answers = threading.Event()
    waits = threading.Event()
    has_entries = False

    def executemany(self, statement, *more):
        self.has_entries |= statement.startswith("INSERT INTO entry")
        return super().executemany(statement, *more)

    def execute(self, statement, *more):
        if statement == "COMMIT" and self.has_entries:
            self.has_entries = False
            self.waits.set()
            assert self.answers.wait(10.0)
        return super().execute(statement, *more)


def connect_hanging(uri):
    return sqlite3.connect(uri, isolation_level=None, uri=True, factory=Hanging)


async def test_a_disk_that_hangs_refuses_new_decisions(path):
    """
    What is being written is waited for: only its end tells. What waits behind it is not
    written, nor is what comes then.
    """
    Hanging.answers.set()
    more = {"connect": connect_hanging, "patience": 0.05}
    async with storing(path, **more) as store:
        Hanging.answers.clear()
        first = asyncio.create_task(store.record([override(1)]))
        await until(lambda: store.degraded is not None)

        with pytest.raises(NotKeptError, match="has not answered for"):
            await store.record([override(2)])
        assert not first.done()
        Hanging.answers.set()
        await first

        await until(lambda: store.degraded is None)
        await store.record([override(3)])
        assert await ids(store) == [1, 3]


async def test_what_waited_behind_a_disk_that_hangs_is_not_written(path):
    Hanging.answers.set()
    more = {"connect": connect_hanging, "patience": 0.3}
    async with storing(path, **more) as store:
        Hanging.answers.clear()
        Hanging.waits.clear()
        first = asyncio.create_task(store.record([override(1)]))
        await until(Hanging.waits.is_set)
        behind = asyncio.create_task(store.record([override(2)]))
        left = asyncio.create_task(store.record([override(3)]))
        await asyncio.sleep(0)
        left.cancel()

        with pytest.raises(NotKeptError, match="has not answered"):
            await behind
        Hanging.answers.set()
        await first

        assert await ids(store) == [1]


# The file.


async def test_a_file_that_was_deleted_is_begun_anew_with_what_holds(path):
    async with storing(path) as store:
        await store.record([override(1), window(2)])
        path.unlink()

        await store.record([override(3, breaker="main/write")])

        assert await ids(store) == [3]
        assert store.degraded is None
    async with storing(path) as store:
        found = store.restored()
    assert found.overrides.keys() == {"main/read", "main/write"}
    assert found.windows == (window(2),)


async def test_a_log_that_was_deleted_costs_nothing(path):
    async with storing(path) as store:
        await store.record([override(1)])
        os.unlink(f"{path}-wal")

        await store.record([override(2)])

    async with storing(path) as store:
        assert await ids(store) == [1, 2]
        assert await store.verify_audit() is None


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_what_goes_in_the_middle_of_a_write_is_noticed_before_it_is_told(
    path, suffix
):
    """The write itself succeeds: to a file that has no name any more."""
    Hanging.answers.set()
    async with storing(path, connect=connect_hanging) as store:
        await store.record([override(1)])
        Hanging.answers.clear()
        Hanging.waits.clear()
        deciding = asyncio.create_task(store.record([override(2)]))
        await until(Hanging.waits.is_set)
        os.unlink(f"{path}{suffix}")
        Hanging.answers.set()
        await deciding

        assert 2 in await ids(store)
        assert await store.verify_audit() is None
        assert store.degraded is None
    async with storing(path) as store:
        assert store.restored().overrides.keys() == {"main/read"}


async def test_no_database_is_put_aside(path):
    path.write_bytes(b"this is no database" * 1000)

    async with storing(path) as store:
        aside = store.quarantined

        assert aside is not None
        assert aside.name.startswith("state.db.corrupt-")
        assert aside.read_bytes().startswith(b"this is no database")
        await store.record([override(1)])
        assert store.degraded is None


async def test_a_file_that_breaks_under_the_daemon_is_put_aside(path, caplog):
    """
    Its pages are overwritten while it is open: the next that needs them finds out, and
    the new file has what holds.
    """
    async with storing(path) as store:
        for first in range(1, 4001, 500):
            await store.record([entry(n) for n in range(first, first + 500)])
        await store.record([override(4001)])
    async with storing(path) as store:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(size - 4096))

        # Readers have nothing cached: they find it, and tell the writer.
        with pytest.raises(NotReadError):
            await store.entries(Wanted(text="nothing has this"))
        await until(lambda: store.quarantined is not None)
        await store.record([override(5000, breaker="main/write")])

        assert await ids(store) == [5000]
    assert "is broken" in caplog.text
    async with storing(path) as store:
        kept = store.restored().overrides
        assert kept.keys() == {"main/read", "main/write"}


async def test_what_holds_is_saved_from_a_broken_file_at_the_start(path):
    async with storing(path) as store:
        await store.record([override(1), window(2)])
        for first in range(10, 4001, 500):
            await store.record([entry(n) for n in range(first, first + 500)])
    with closing(connect(uri_of(path, "mode=rw"))) as connection:
        # The table of what was counted, which only the look through everything sees.
        root = "SELECT rootpage FROM sqlite_schema WHERE name = 'override'"
        (page,) = connection.execute(root).fetchone()
        (meta,) = connection.execute(root.replace("override", "meta")).fetchone()
        assert page != meta
    with path.open("r+b") as file:
        file.seek((meta - 1) * 4096)
        file.write(b"\xff" * 4096)

    async with storing(path) as store:
        await until(lambda: store.quarantined is not None)
        await store.record([entry(9000)])

    async with storing(path) as store:
        assert store.restored().overrides.keys() == {"main/read"}
        assert store.restored().windows == (window(2),)


async def test_only_the_last_broken_files_are_kept(path):
    for _ in range(5):
        path.write_bytes(b"this is no database" * 1000)
        async with storing(path) as store:
            assert store.degraded is None

    assert len(list(path.parent.glob("state.db.corrupt-*"))) == 3


async def test_somebody_elses_database_is_left_alone(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()

    async with storing(path) as store:
        assert "is a database of something else" in str(store.degraded)
        with pytest.raises(NotKeptError):
            await store.record([override(1)])

    assert path.read_bytes() == before
    assert store.quarantined is None


@pytest.mark.parametrize("seed", range(10))
async def test_flipped_bits_never_reach_the_daemon(path, seed):
    await filled(path)

    await survive(path, random.Random(seed))


# Versions.

FIRST = Path(__file__).parents[2] / "fixtures/store-1.sql"
NEXT = SCHEMA.version + 1
LATER = Schema(
    NEXT,
    {**SCHEMA.steps, NEXT: "ALTER TABLE entry ADD COLUMN more TEXT DEFAULT 'new';"},
)


async def test_an_upgrade_keeps_everything_and_a_copy(path):
    async with storing(path) as store:
        await store.record([override(1), entry(2)])

    async with storing(path, schema=LATER) as store:
        assert await ids(store) == [1, 2]
        assert await store.verify_audit() is None
        assert store.restored().overrides.keys() == {"main/read"}
        await store.record([override(3)])

    copy = path.with_name(f"state.db.bak-v{SCHEMA.version}")
    assert copy.stat().st_mode & 0o777 == 0o600
    path.unlink()
    copy.rename(path)
    async with storing(path) as store:
        assert await ids(store) == [1, 2]


async def test_a_step_that_fails_leaves_all_as_it_was(path):
    async with storing(path) as store:
        await store.record([override(1)])
    step = "CREATE TABLE new (x); INSERT INTO new VALUES (1, 2);"
    wrong = Schema(NEXT, {**SCHEMA.steps, NEXT: step})

    async with storing(path, schema=wrong) as store:
        assert "table new has 1 columns but 2 values" in str(store.degraded)

    async with storing(path) as store:
        assert await ids(store) == [1]
        assert store.degraded is None
    assert store.quarantined is None


async def test_no_upgrade_without_a_copy(disk):
    path = disk.path / "state.db"
    async with storing(path) as store:
        await store.record([entry(n, text="x" * 500) for n in range(1, 1500)])

    async with storing(path, schema=LATER) as store:
        assert "no space" in str(store.degraded)

    async with storing(path) as store:
        assert len(await ids(store)) == 1000
        assert store.degraded is None


async def test_a_downgrade_is_refused_and_touches_nothing(path):
    async with storing(path, schema=LATER) as store:
        await store.record([override(1)])
    before = {file: file.read_bytes() for file in path.parent.glob("state.db*")}

    async with storing(path) as store:
        assert "was written by a later version of pgbreaker" in str(store.degraded)
        assert "put the copy" in str(store.degraded)
        with pytest.raises(NotKeptError):
            await store.record([override(2)])
        await store.close()

    assert {file: file.read_bytes() for file in path.parent.glob("state.db*")} == before


@pytest.mark.parametrize("schema", [SCHEMA, LATER], ids=["as it is", "upgraded"])
async def test_a_store_of_the_first_schema_is_read_for_good(path, schema):
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST.read_text("utf-8"))

    async with storing(path, schema=schema) as store:
        found = store.restored()
        [bucket] = await store.buckets("main", 0, hours=True)
        [failure] = await store.failures("main")

        assert await ids(store) == list(range(1, 9))
        assert await store.verify_audit() is None
        assert await store.shut("main/read", 0) == [(1_800_000_000, 12.5)]
    assert found.overrides.keys() == {"main/write"}
    assert [w.id for w in found.windows] == [6]
    assert found.memories["main/read"][1]["state"] == "open"
    assert (bucket.count, bucket.bad) == (59, 1)
    assert failure.text == "nobody listens"
    assert store.degraded is None
