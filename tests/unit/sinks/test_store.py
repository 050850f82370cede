"""The store: what is written is read again, by this process and the next."""

import asyncio
import re
import sqlite3
import stat
import threading
from contextlib import closing

import pytest

from pgbreaker.core.entry import Kind
from pgbreaker.core.wanted import Wanted
from pgbreaker.sinks.history import NotKeptError, NotReadError
from pgbreaker.sinks.store import Counts, Failure, InUseError, reading
from pgbreaker.sinks.store.file import connect, open_to_read, uri_of
from pgbreaker.sinks.store.rows import Bucket
from support.storing import entry, override, storing, until, window


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


def change(path, *statements) -> None:
    """Do to a file what the store would not."""
    with closing(connect(uri_of(path, "mode=rw"))) as connection:
        for statement in statements:
            connection.execute(statement)


async def test_what_was_written_is_there_with_the_next_start(path):
    """
    Overrides, windows and memories come back, and only those that hold; so do the
    entries, and the ids go on from the last.
    """
    async with storing(path) as store:
        await store.record([entry(1), override(2), override(3, breaker="main/write")])
        await store.record([override(4, None), window(5), window(6)])
        await store.record([window(7, details={"ended": 5})])
        store.keep({"main/read": {"state": "open"}})

    async with storing(path) as store:
        found = store.restored()

    assert found.last_id == 7
    assert [e.id for e in found.entries] == [1, 2, 3, 4, 5, 6, 7]
    assert found.entries[0] == entry(1)
    assert found.overrides == {
        "main/write": {
            "state": "forced_open",
            "reason": "work",
            "until": 9e9,
            "author": "mia",
            "at": 0.003,
        }
    }
    assert found.windows == (window(6),)
    assert found.memories == {"main/read": (1_800_000_100.0, {"state": "open"})}
    assert store.degraded is None


async def test_what_is_acknowledged_is_on_disk(path):
    async with storing(path) as store:
        await store.record([override(1)])

        with closing(sqlite3.connect(path)) as other:
            written = other.execute("SELECT id FROM entry").fetchall()

    assert written == [(1,)]


async def test_a_window_that_ran_out_by_itself_is_gone(path):
    async with storing(path) as store:
        await store.record([window(1)])
        ended = window(2, author=None, details={"ended": 1})
        await store.record([ended])

    async with storing(path) as store:
        assert store.restored().windows == ()


async def test_the_file_and_all_beside_it_are_for_the_owner_alone(path):
    path.touch(0o644)

    async with storing(path) as store:
        await store.record([entry(1)])

        modes = {
            file.name: stat.S_IMODE(file.stat().st_mode)
            for file in path.parent.iterdir()
        }

    assert modes == {
        f"state.db{suffix}": 0o600 for suffix in ("", "-wal", "-shm", ".lock")
    }


async def test_two_daemons_do_not_share_a_store(path):
    async with storing(path) as store:
        await store.record([entry(1)])

        with pytest.raises(InUseError, match=r"state\.db is in use by .* process \d+"):
            async with storing(path):
                pass

        await store.record([entry(2)])
    async with storing(path) as store:
        assert store.restored().last_id == 2


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Wanted(), [1, 2, 3, 4]),
        (Wanted(limit=2), [3, 4]),
        (Wanted(after=1, limit=2), [2, 3]),
        (Wanted(before=3, limit=1), [2]),
        (Wanted(since=0.002), [2, 3, 4]),
        (Wanted(kinds=frozenset((Kind.OVERRIDE,))), [2, 3]),
        (Wanted(breaker="main/write"), [3]),
        (Wanted(target="other"), [4]),
        (Wanted(text="ÄRGER"), [4]),
    ],
)
async def test_entries_are_found_by_what_is_asked(path, wanted, ids):
    written = [
        *(entry(1), override(2), override(3, breaker="main/write")),
        entry(4, target="other", text="nur ärger 100 %"),
    ]
    async with storing(path) as store:
        await store.record(written)

        found = await store.entries(wanted)

    assert [e.id for e in found] == ids
    # As memory is asked the same.
    assert wanted.cut([e for e in written if wanted.matches(e)]) == found


async def test_counts_of_a_minute_add_up_and_make_hours(path):
    hour, minute = 1_800_000_000, 1_800_000_060
    first = Counts({("main", hour): Bucket(hour, 2, 0.3, 0.2, 1)}, {("m/r", hour): 5.0})
    second = Counts({("main", minute): Bucket(minute, 1, 0.5, 0.5, 0)})
    late = Counts({("main", hour): Bucket(hour, 1, 0.1, 0.1, 2)}, {("m/r", hour): 2.5})

    async with storing(path) as store:
        for counts in (first, second, late):
            store.count(counts)

    async with storing(path) as store:
        minutes = await store.buckets("main", hour)
        hours = await store.buckets("main", 0, hours=True)
        shut = await store.shut("m/r", 0)

        assert await store.buckets("other", 0) == []
        assert await store.shut("m/r", 0, hours=True) == [(hour, 7.5)]
    assert [(b.start, b.count, b.most, b.bad) for b in minutes] == [
        (hour, 3, 0.2, 3),
        (minute, 1, 0.5, 0),
    ]
    assert [b.total for b in minutes] == pytest.approx([0.4, 0.5])
    assert [(b.start, b.count, b.most, b.bad) for b in hours] == [(hour, 4, 0.5, 3)]
    assert shut == [(hour, 7.5)]


async def test_the_last_fifty_failures_of_each_target_are_kept(path):
    def failed(target, at):
        return Failure(target, at, "ping", "refused", 0.01, None, "nobody listens")

    many = [failed("main", float(at)) for at in range(60)]

    async with storing(path) as store:
        store.count(Counts(failures=[*many, failed("other", 1.0)]))

    async with storing(path) as store:
        assert await store.failures("main") == many[-50:]
        assert await store.failures("other") == [failed("other", 1.0)]


# What became of a target.

HOUR = 1_800_000_000 - 3600
WIDE = [86_400.0, 7 * 86_400.0, 90 * 86_400.0]


def minutes(start: int, count: int, pings: int = 60, bad: int = 0) -> Counts:
    """So many minutes from *start* on, in each of which main was asked once a second."""
    starts = range(start, start + 60 * count, 60)
    one = (pings, pings * 0.001, 0.002, bad)
    return Counts({("main", at): Bucket(at, *one) for at in starts})


async def test_what_became_of_a_target_is_of_the_time_in_which_it_was_seen(path):
    """The daemon ran for ten minutes, and for fifty: not for the twenty between."""
    async with storing(path) as store:
        store.count(minutes(HOUR - 1200, 10))
        store.count(minutes(HOUR + 600, 50))
        store.count(Counts(shut={("main/read", HOUR + 1200): 36.0}))

    async with storing(path) as store:
        day, week, quarter = await store.past("main", ["main/read"], WIDE, 1.0)

    # The last minute of ten was seen until the next ping came, or its end.
    assert day.seen == 60 * 60
    assert (day.count, day.bad, day.most) == (3600, 0, 0.002)
    assert day.mean == pytest.approx(0.001)
    assert day.passed("main/read") == pytest.approx(0.99)
    assert (week.seen, quarter.seen) == (day.seen, day.seen)


async def test_of_hours_whose_minutes_are_gone_as_much_was_seen_as_was_asked(path):
    """An hour's sum does not say when in it the daemon ran; how often it asked does."""
    old = HOUR - 30 * 86_400
    async with storing(path) as store:
        store.count(minutes(old, 60))
        store.count(minutes(old + 3600, 15))
        store.count(minutes(old + 7200, 3))
        store.count(Counts(shut={("main/read", old + 7200): 1800.0}))
        store.count(minutes(HOUR, 1))
    change(path, f"DELETE FROM ping_1m WHERE start < {HOUR}")

    async with storing(path) as store:
        _, week, quarter = await store.past("main", ["main/read"], WIDE, 1.0)

    assert week.seen == 60.0
    assert quarter.seen == 3600 + 15 * 60 + 1800 + 60
    assert quarter.shut == {"main/read": 1800.0}
    assert quarter.count == 79 * 60


async def test_of_a_minute_beside_a_gap_as_much_was_seen_as_was_asked(path):
    """A daemon that began in the middle of a minute saw half of it; and whoever has
    changed the interval since does not change what the minutes between were."""
    async with storing(path) as store:
        store.count(minutes(HOUR, 1, pings=14, bad=15))
        store.count(minutes(HOUR + 60, 3, pings=6))
        store.count(minutes(HOUR + 240, 1, pings=9))
        store.count(Counts(shut={("main/read", HOUR + 240): 20.0}))

    async with storing(path) as store:
        (day,) = await store.past("main", ["main/read"], WIDE[:1], 1.0)

    assert day.seen == 30 + 3 * 60 + 20


async def test_who_is_asked_seldom_is_seen_between_two_questions(path):
    async with storing(path) as store:
        for at in range(HOUR, HOUR + 3600, 300):
            store.count(minutes(at, 1, pings=1))

    async with storing(path) as store:
        (day,) = await store.past("main", [], WIDE[:1], 300.0)

    assert day.seen == 3600.0


async def test_a_target_that_nobody_has_asked_has_no_past(path):
    async with storing(path) as store:
        (empty,) = await store.past("main", ["main/read"], WIDE[:1], 1.0)
        store.count(minutes(HOUR, 1))
    async with storing(path) as store:
        (other,) = await store.past("other", ["other/read"], WIDE[:1], 1.0)

    for past in (empty, other):
        assert (past.seen, past.passed("main/read"), past.mean) == (0.0, None, None)


async def test_the_past_of_one_among_many_takes_no_look_at_the_others(path):
    """Rows stand by their time: of five hundred targets a week is five million."""
    async with storing(path) as store:
        store.count(minutes(HOUR, 60))
    change(
        path,
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
        " INSERT INTO ping_1m SELECT start, 'other' || i, count, total, most, bad"
        " FROM ping_1m JOIN n",
    )
    steps = []

    with closing(connect(uri_of(path, "mode=ro"))) as connection:
        connection.set_progress_handler(lambda: steps.append(1), 1000)
        now = float(HOUR + 3600)
        day = reading.past(connection, "main", ["main/read"], now - 86_400, now, 1.0)

    assert day.count == 3600
    assert len(steps) < 60


# The audit log.


async def test_who_decided_what_is_sealed_in_one_chain_over_restarts(path):
    async with storing(path) as store:
        await store.record([entry(1), override(2)])
    async with storing(path) as store:
        await store.record([override(3, None, author=None)])

        lines = await store.audit()

        assert await store.verify_audit() is None
    assert [(line.number, line.entry.id) for line in lines] == [(1, 2), (2, 3)]
    assert lines[0].entry == override(2)
    assert lines[1].before == lines[0].seal


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE audit SET author = 'eve' WHERE number = 2", "line 2 .* was changed"),
        ("DELETE FROM audit WHERE number = 2", "line 2 .* is missing"),
        ("DELETE FROM audit WHERE number = 3", "does not end with line 2"),
        ("DELETE FROM audit", "does not end with line 0"),
        ("UPDATE audit SET before = 'x' WHERE number = 3", "line 3 .* not follow"),
        ("UPDATE audit SET details = '[]' WHERE number = 1", "line 1 .* was changed"),
        ("UPDATE entry SET author = 'eve' WHERE id = 3", "entry of line 3"),
    ],
)
async def test_whoever_changes_the_audit_log_is_found_out(path, statement, fault):
    async with storing(path) as store:
        await store.record([override(1), override(2, None), override(3)])
    change(path, statement)

    async with storing(path) as store:
        found = await store.verify_audit()

    assert found is not None
    assert re.search(fault, found)


async def test_a_store_is_looked_through_for_that_as_it_is_opened(path, caplog):
    async with storing(path) as store:
        await store.record([override(1), override(2, None)])

        assert await store.looked_through() is None
        assert caplog.text == ""
    change(path, "UPDATE audit SET author = 'eve' WHERE number = 2")

    async with storing(path) as store:
        fault = await store.looked_through()

    assert fault == store.audit_fault == "line 2 of the audit log was changed"
    (line,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert line.getMessage().endswith("not as it was written: " + fault)


async def test_a_store_that_is_closed_waits_for_no_long_read(path):
    """Who reads holds the file; with the last who does, its log goes."""
    began = threading.Event()

    def endless(connection: sqlite3.Connection) -> None:
        began.set()
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n)"
            " SELECT max(i) FROM n"
        ).fetchone()

    async with storing(path) as store:
        reading_on = asyncio.create_task(store._read(endless))
        await asyncio.to_thread(began.wait, 5.0)

    with pytest.raises(NotReadError, match="interrupted"):
        await reading_on
    with pytest.raises(NotReadError, match="it is closed"):
        await store.audit()
    assert [file.name for file in path.parent.glob("state.db-*")] == []


async def test_details_of_any_shape_keep_their_seal(path):
    """What JSON makes something else of is sealed as it will be read."""
    odd = override(1, text="half \ud800", details={"b": (1, 2.0), "a": {10: 1, 9: 2}})

    async with storing(path) as store:
        await store.record([odd])

        assert await store.verify_audit() is None


@pytest.mark.parametrize("odd", [object(), float("nan")])
async def test_what_is_not_fit_for_json_is_refused_at_once(path, odd):
    async with storing(path) as store:
        with pytest.raises((TypeError, ValueError)):
            await store.record([override(1, details={"odd": odd})])

        await store.record([override(2)])
    assert store.degraded is None


# What goes.


async def test_a_store_stays_below_its_size_and_keeps_what_holds(path):
    """
    The oldest entries go. The override that still holds, and the audit log, stay.
    """
    words = "x" * 1000
    async with storing(path, max_size=2 * 1024**2) as store:
        await store.looked_through()  # who reads meanwhile puts it off
        await store.record([override(1)])
        for first in range(2, 6002, 500):
            many = [entry(n, text=words) for n in range(first, first + 500)]
            await store.record(many)
        await until(lambda: path.stat().st_size <= 1024**2)
        oldest = await store.entries(Wanted(after=0, limit=1))
        newest = await store.entries(Wanted(limit=1))

    async with storing(path) as store:
        assert store.restored().overrides.keys() == {"main/read"}
        assert [line.entry.id for line in await store.audit()] == [1]
        assert await store.verify_audit() is None
    assert oldest[0].id > 2000
    assert newest[0].id == 6001


async def test_a_store_that_somebody_reads_gets_smaller_once_they_have_done(path):
    """What was taken out stays in the file while a reader may still want it."""
    words = "x" * 1000
    async with storing(path, max_size=2 * 1024**2) as store:
        for first in range(1, 3001, 500):
            many = [entry(n, text=words) for n in range(first, first + 500)]
            await store.record(many)
            if first == 1:
                reader = open_to_read(path)
                reader.execute("BEGIN")
                reader.execute("SELECT max(id) FROM entry").fetchone()
        await until(lambda: store._writer._is_held)
        held = store.size_bytes
        reader.close()

        await until(lambda: path.stat().st_size <= 1024**2)

    assert held > 1024**2


async def test_minutes_go_after_two_weeks_and_hours_after_400_days(path):
    day, now = 86_400, 1_800_000_100 // 3600 * 3600
    ages = (401 * day, 15 * day, 13 * day)
    starts = [now - age for age in ages]

    async with storing(path) as store:
        store.count(
            Counts({("main", s): Bucket(s, 1, 0.1, 0.1, 0) for s in starts}, {})
        )

    async with storing(path) as store:
        await until(lambda: _starts(path, "ping_1h") == starts[1:])
        assert [b.start for b in await store.buckets("main", 0)] == starts[2:]


def _starts(path, table) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(f"SELECT start FROM {table} ORDER BY start")
        return [start for (start,) in rows]


# Many at once.


async def test_many_who_decide_at_once_are_all_answered(path):
    async with storing(path) as store:
        await asyncio.gather(*(store.record([override(n)]) for n in range(1, 201)))

        assert len(await store.audit(limit=500)) == 200
        assert await store.verify_audit() is None


async def test_of_two_entries_with_one_id_the_second_is_refused_alone(path):
    async with storing(path) as store:
        await store.record([override(1)])

        results = await asyncio.gather(
            *(store.record([override(n)]) for n in (2, 1, 3)), return_exceptions=True
        )

        assert [type(r) for r in results] == [type(None), NotKeptError, type(None)]
        assert [line.entry.id for line in await store.audit()] == [1, 2, 3]
    assert store.degraded is None
