"""What forecasts have learned, in the store: it comes back, and harms nobody."""

import random
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from pgbreaker.core.wanted import Wanted
from pgbreaker.sinks.store import Learned
from pgbreaker.sinks.store.file import connect, uri_of
from support.boards import Stopped
from support.disk import mounted
from support.storing import entry, override, storing, until

FIRST = Path(__file__).parents[2] / "fixtures/store-1.sql"
NOW = 1_800_000_100.0
DAY = 86_400


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


def learned(at: float = NOW, **more) -> Learned:
    return Learned.of({"outlook": more}, at)


def large(seed: int, size: int) -> Learned:
    """Some that no packing makes smaller than *size* bytes."""
    return learned(noise=random.Random(seed).randbytes(size).hex())


def first_version(path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST.read_text("utf-8"))


def change(path, *statements) -> None:
    """Do to a file what the store would not."""
    with closing(connect(uri_of(path, "mode=rw"))) as connection:
        for statement in statements:
            connection.execute(statement)


async def test_what_was_learned_last_is_there_with_the_next_start(path):
    async with storing(path) as store:
        store.learn({"a": learned(of=1), "b": learned(of=2)})
        store.learn({"b": learned(NOW + 5, of=3)})

    async with storing(path) as store:
        found = store.restored().learned

    assert {name: one.memory() for name, one in found.items()} == {
        "a": {"outlook": {"of": 1}},
        "b": {"outlook": {"of": 3}},
    }
    assert (found["a"].at, found["b"].at) == (NOW, NOW + 5)


async def test_what_was_given_is_on_its_way_to_disk_before_the_end(path):
    """Nothing more is needed to outlast a kill -9: the file has it."""
    async with storing(path) as store:
        store.learn({"a": learned()})

        def is_written() -> bool:
            with closing(sqlite3.connect(path)) as other:
                return other.execute("SELECT target FROM forecast").fetchall() != []

        await until(is_written)


async def test_a_store_of_the_first_version_takes_it_from_then_on(path):
    first_version(path)
    async with storing(path) as store:
        assert store.restored().learned == {}
        store.learn({"main": learned(of=1)})

    async with storing(path) as store:
        assert store.restored().learned["main"].memory() == {"outlook": {"of": 1}}
        assert store.degraded is None
    assert store.quarantined is None


async def test_a_disk_that_takes_no_upgrade_still_tells_what_holds(tmp_path):
    """The table is not there, and that is no damage."""
    with mounted(tmp_path / "disk", "2m") as disk:
        path = disk.path / "state.db"
        first_version(path)
        disk.forbid()

        async with storing(path) as store:
            found = store.restored()
            assert "Read-only file system" in str(store.degraded)
            disk.allow()
            await until(lambda: store.degraded is None)

    assert found.overrides.keys() == {"main/write"}
    assert found.learned == {}
    assert store.quarantined is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\x00",
        zlib.compress(b"{}")[:-1],
        zlib.compress(b"no JSON"),
        zlib.compress(b"[1]"),
        zlib.compress(b"\xff"),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b"[" + b" " * 20_000_000),
    ],
    ids=["empty", "noise", "short", "words", "list", "bytes", "deep", "vast"],
)
def test_what_was_damaged_says_so(damaged):
    with pytest.raises(ValueError, match="it was damaged"):
        Learned(NOW, damaged).memory()


async def test_what_is_no_such_thing_is_left_out_and_the_rest_is_there(path):
    async with storing(path) as store:
        store.learn({name: learned() for name in ("a", "b", "c", "d")})
    change(
        path,
        "UPDATE forecast SET memory = 'text' WHERE target = 'a'",
        "UPDATE forecast SET at = 'never' WHERE target = 'b'",
        "UPDATE forecast SET memory = x'00' WHERE target = 'c'",
    )

    async with storing(path) as store:
        found = store.restored().learned

    assert found.keys() == {"c", "d"}
    with pytest.raises(ValueError, match="it was damaged"):
        found["c"].memory()
    assert store.quarantined is None


async def test_what_was_learned_leaves_room_for_what_happened(path, caplog):
    """A quarter of the size, and those that have a place keep it: it is said once."""
    room = 2 * 1024**2 // 2 // 4
    names = [f"t{number:02}" for number in range(20)]
    async with storing(path, max_size=2 * 1024**2) as store:
        await store.record([entry(n) for n in range(1, 401)])
        for turn in range(2):
            store.learn({n: large(turn, room // 10) for n in names})
            await until(lambda: not store._writer._learned)
        assert len(await store.entries(Wanted(limit=1000))) == 400

    async with storing(path) as store:
        kept = store.restored().learned

    assert list(kept) == names[: len(kept)]
    assert 5 <= len(kept) < 10
    assert sum(len(one.packed) for one in kept.values()) <= room
    assert kept["t00"] == large(1, room // 10)
    assert caplog.text.count("the store has no room for what forecasts learned") == 1


async def test_a_target_that_nobody_has_any_more_is_forgotten_after_a_month(path):
    old, new = learned(NOW - 31 * DAY), learned(NOW - 29 * DAY)
    async with storing(path) as store:
        store.learn({"gone": old, "away": new})

    async with storing(path) as store:
        await until(lambda: _targets(path) == ["away"])


def _targets(path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT target FROM forecast ORDER BY target")
        return [target for (target,) in rows]


async def test_two_weeks_of_learning_are_saved_from_a_file_that_broke(path):
    """And so is what holds: for this process, and the next."""
    async with storing(path) as store:
        await store.record([override(1)])
        store.learn({"main": learned(of=1)})
    with closing(connect(uri_of(path, "mode=rw"))) as connection:
        root = "SELECT rootpage FROM sqlite_schema WHERE name = 'entry'"
        (page,) = connection.execute(root).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 4096)

    async with storing(path) as store:
        await until(lambda: store.quarantined is not None)
        now = store.restored()

    async with storing(path) as store:
        for found in (now, store.restored()):
            assert found.learned["main"].memory() == {"outlook": {"of": 1}}
            assert found.overrides.keys() == {"main/read"}


async def test_what_a_disk_does_not_take_is_written_once_it_does(tmp_path):
    with mounted(tmp_path / "disk", "2m") as disk:
        path = disk.path / "state.db"
        time = Stopped()
        async with storing(path, clock=time.clock()) as store:
            await store.record([override(1)])
            disk.fill()
            store.learn({"a": large(1, 200_000)})
            await until(lambda: store.degraded is not None)
            store.learn({"b": learned(of=2)})
            disk.free()
            await until(lambda: store.degraded is None)

        async with storing(path) as store:
            found = store.restored().learned

    assert found["a"] == large(1, 200_000)
    assert found["b"].memory() == {"outlook": {"of": 2}}
