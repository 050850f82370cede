"""The outlook: what follows from one reading after the other."""

import random
import sys
from types import SimpleNamespace

import pytest

from pgbreaker.core.forecast.runway import Runway
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.monitor.outlook import OUTLOOK, Outlook


def reading(probe, at, **values):
    return Reading("orders", probe, at, 0.01, Finding.OK, values)


class Watched:
    """An outlook, and a clock that goes on by the interval of the probe."""

    def __init__(self, probe, step, capacity=None):
        self.outlook = Outlook(capacity=capacity)
        self.probe, self.step = probe, step
        self.at = 0.0

    def take(self, **values):
        self.at += self.step
        return self.outlook.take(reading(self.probe, self.at, **values))


# Connections.


def test_a_leak_of_connections_has_an_end():
    watched = Watched("saturation", 2.0)
    for i in range(450):
        said = watched.take(slots_used=50 + i // 15, slots_usable=97)

    assert said["connection_exhaustion_seconds"] == pytest.approx(18 * 30, rel=0.1)


def test_below_half_the_slots_no_end_is_foretold():
    watched = Watched("saturation", 2.0)
    for i in range(380):
        said = watched.take(slots_used=10 + i // 10, slots_usable=97)

    assert said["connection_exhaustion_seconds"] is None


def test_a_full_server_has_no_time_left():
    watched = Watched("saturation", 2.0)

    said = watched.take(slots_used=97, slots_usable=97)

    assert said["connection_exhaustion_seconds"] == 0


def test_connections_that_come_and_go_are_no_leak():
    draw = random.Random(3)
    watched = Watched("saturation", 2.0)
    said = [
        watched.take(slots_used=70 + draw.randint(-8, 8), slots_usable=97)
        for _ in range(1000)
    ]

    assert sum(s["connection_exhaustion_seconds"] is not None for s in said) <= 3


# Ids.


def test_ids_run_out_at_the_rate_at_which_they_are_used():
    watched = Watched("database", 15.0)
    for i in range(200):
        said = watched.take(
            xid_age_max=100_000_000 + 15_000 * i,
            mxid_age_max=0,
            xid_limit=2_144_483_648,
        )

    left = (2_144_483_648 - 100_000_000 - 15_000 * 199) / 1000
    assert said["xid_runway_seconds"] == pytest.approx(left)
    assert said["multixact_runway_seconds"] is None


def test_a_vacuum_that_freezes_starts_the_count_anew():
    watched = Watched("database", 15.0)
    values = [*range(190_000_000, 200_000_000, 1_000_000), 50_000_000, 50_015_000]
    for age in values:
        said = watched.take(xid_age_max=age, mxid_age_max=age, xid_limit=2**31)

    assert said["xid_runway_seconds"] is said["multixact_runway_seconds"] is None


def test_a_server_without_these_values_has_no_runway():
    watched = Watched("database", 15.0)

    assert watched.take(xid_age_max=None)["xid_runway_seconds"] is None


# Sessions.


def test_a_count_goes_on_where_it_was_when_that_of_the_server_falls():
    watched = Watched("database", 15.0)

    counts = [
        watched.take(sessions_killed=killed)["session_ends_killed"]
        for killed in (700, 703, 3, 3, 5, 0, 1)
    ]

    assert counts == [0, 3, 3, 3, 5, 5, 6]


# Sequences and slots.


def test_of_sequences_the_soonest_counts():
    watched = Watched("maintenance", 300.0)
    for i in range(10):
        said = watched.take(
            sequences=(
                {"sequence": "public.slow", "ratio": 0.9},
                {"sequence": "public.fast", "ratio": 0.5 + 0.01 * i},
                {"sequence": "public.slower", "ratio": 0.5 + 0.001 * i},
            )
        )

    assert said["sequence_runway_seconds"] == pytest.approx(41 * 300.0)
    assert said["sequence_soonest"] == "public.fast"


def test_without_sequences_nothing_runs_out():
    watched = Watched("maintenance", 300.0)

    assert set(watched.take(sequences=()).values()) == {None}


def test_a_slot_that_nobody_reads_is_lost_in_time():
    watched = Watched("slots", 30.0)
    for i in range(10):
        retained = 1_000_000 * i
        said = watched.take(
            slots=(
                {
                    "slot": "left_behind",
                    "retained_bytes": retained,
                    "safe_bytes": 100_000_000 - retained,
                },
                {"slot": "no_limit", "retained_bytes": 9**9 * i, "safe_bytes": None},
                {"slot": "lost", "retained_bytes": None, "safe_bytes": None},
            )
        )

    assert said["slot_runway_seconds"] == pytest.approx(91 * 30.0)
    assert said["slot_soonest"] == "left_behind"


def test_a_slot_that_is_read_now_and_then_is_not_lost():
    """It grows between two confirmations, and a little more each time."""
    watched = Watched("slots", 30.0)
    said = []
    for i in range(200):
        retained = 1_000_000 * (i % 10)
        row = {"retained_bytes": retained, "safe_bytes": 50_000_000 - retained}
        said.append(watched.take(slots=({"slot": "consumer", **row},)))

    assert all(s["slot_runway_seconds"] is None for s in said[20:])


def test_what_is_gone_is_forgotten():
    watched = Watched("slots", 30.0)
    for i in range(1000):
        row = {"slot": f"s{i}", "retained_bytes": i, "safe_bytes": 10}
        watched.take(slots=(row,))

    assert list(watched.outlook._runways._slots) == ["s999"]


# Statements.


class Work:
    """The counters of pg_stat_statements, as statements of so many seconds come in."""

    def __init__(self):
        self.watched = Watched("statements", 30.0)
        self.calls, self.spent = 0, 0.0

    def do(self, mean, calls=1000):
        self.calls += calls
        self.spent += calls * mean
        said = self.watched.take(
            statement_calls=self.calls, statement_seconds=self.spent
        )
        return said["statement_mean_ratio"]


def test_statements_that_take_longer_than_usual():
    work = Work()
    for _ in range(20):
        usual = work.do(0.002)

    assert usual == pytest.approx(1.0)
    assert work.do(0.008) == pytest.approx(4.0)


def test_it_learns_for_ten_intervals_before_it_says_anything():
    work = Work()
    said = [work.do(0.002) for _ in range(12)]

    assert said[:11] == [None] * 11  # the first reading is no interval yet
    assert said[11] == pytest.approx(1.0)


def test_the_usual_follows_within_half_an_hour():
    work = Work()
    for _ in range(200):
        work.do(0.002)
    said = [work.do(0.004) for _ in range(60)]

    assert said[0] == pytest.approx(2.0, rel=0.01)
    assert said[-1] == pytest.approx(4 / 3, rel=0.02)  # half the way after 30 minutes


def test_a_few_calls_are_chance():
    work = Work()
    for _ in range(20):
        work.do(0.002)

    assert work.do(5.0, calls=19) is None
    assert work.do(0.002) == pytest.approx(1.0)


def test_counters_that_were_reset_say_nothing():
    work = Work()
    for _ in range(20):
        work.do(0.002)
    work.calls, work.spent = 0, 0.0

    assert work.do(0.002, calls=500) is None
    assert work.do(0.002) == pytest.approx(1.0)


def test_statements_that_take_no_time_at_all_do_no_harm():
    work = Work()

    assert {work.do(0.0) for _ in range(30)} == {None}


# All of it.


@pytest.mark.parametrize("probe", ["ping", "slots", "statements", "no such probe"])
def test_a_reading_without_values_says_nothing(probe):
    assert Outlook().take(reading(probe, 1.0)) == {}


def test_values_that_are_not_there_do_no_harm():
    for probe in ("saturation", "database", "maintenance", "slots", "statements"):
        assert set(Outlook().take(reading(probe, 1.0, other=1)).values()) <= {None}


def test_every_metric_has_a_value_that_somebody_gives():
    outlook = Outlook(capacity=1000.0, lag_limit=30.0)
    given = {}
    for probe, values in {
        "saturation": {"slots_used": 1, "slots_usable": 10},
        "database": {"xid_limit": 10, "xid_age_max": 1, "mxid_age_max": 1},
        "maintenance": {"sequences": ()},
        "slots": {"slots": ()},
        "statements": {"statement_calls": 1, "statement_seconds": 1},
        "size": {"disk_used_bytes": 1.0},
        "wal_ckpt": {"archiver_pending": 1, "wal_segment_bytes": 1},
        "pgbouncer": {"pools": ()},
        "replication": {"replay_age_seconds": 0.0},
    }.items():
        given |= outlook.take(reading(probe, 1.0, **values))

    assert {shown.value for shown in OUTLOOK} <= set(given)


def _size(thing, seen):
    if id(thing) in seen or isinstance(thing, type | SimpleNamespace):
        return 0
    seen.add(id(thing))
    size = sys.getsizeof(thing)
    if isinstance(thing, dict):
        return size + sum(_size(k, seen) + _size(v, seen) for k, v in thing.items())
    if isinstance(thing, tuple):
        return size + sum(_size(item, seen) for item in thing)
    if isinstance(thing, Runway):
        return size + sum(_size(getattr(thing, s), seen) for s in Runway.__slots__)
    return size + _size(getattr(thing, "__dict__", ()), seen)


def test_a_quiet_server_takes_little_memory():
    outlook = Outlook()
    for i in range(500):
        at = 30.0 * i
        outlook.take(reading("saturation", at, slots_used=60, slots_usable=97))
        outlook.take(
            reading("database", at, xid_age_max=10, mxid_age_max=1, xid_limit=100)
        )
        rows = tuple(
            {"sequence": f"public.s{i}_id_seq", "ratio": 0.1} for i in range(5)
        )
        outlook.take(reading("maintenance", at, sequences=rows))
        rows = tuple(
            {"slot": f"s{i}", "retained_bytes": 0, "safe_bytes": 100} for i in range(20)
        )
        outlook.take(reading("slots", at, slots=rows))

    assert _size(outlook, set()) <= 40_000


# The disk, where its size was told.


def test_a_disk_that_fills_has_an_end():
    watched = Watched("size", 900.0, capacity=1000.0)
    for used in range(100, 200, 10):
        said = watched.take(disk_used_bytes=used)

    assert said["disk_runway_seconds"] == pytest.approx((1000 - 190) * 90)
    assert said["disk_used_ratio"] == pytest.approx(0.19)


def test_without_its_size_nothing_is_said_of_the_disk():
    watched = Watched("size", 900.0)
    for used in range(100, 200, 10):
        assert watched.take(disk_used_bytes=used) == {}


def test_segments_that_are_not_archived_fill_the_disk():
    watched = Watched("wal_ckpt", 30.0, capacity=1000.0)
    watched.outlook.take(reading("size", 0.0, disk_used_bytes=400.0))
    for pending in range(2, 22):
        said = watched.take(archiver_pending=pending, wal_segment_bytes=10.0)

    assert said["archiver_runway_seconds"] == pytest.approx((60 - 21) * 30)


def test_without_an_archive_nothing_is_said_of_it():
    watched = Watched("wal_ckpt", 30.0, capacity=1000.0)
    watched.outlook.take(reading("size", 0.0, disk_used_bytes=400.0))

    said = watched.take(archiver_pending=None, wal_segment_bytes=10.0)

    assert said["archiver_runway_seconds"] is None
