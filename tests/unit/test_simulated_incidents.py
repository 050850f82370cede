"""The simulated incidents that forecasts are measured with: what is said of them is so."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest

# Last, so that none of its modules hides another of the tests.
sys.path.append(str(Path(__file__).parents[1] / "bench/forecast"))

from clocks import CAPACITY, LAG_LIMIT, XID_LIMIT, Ticking, clock
from incidents import ALL, HOUR, TICK, Kind, healthy, moment, readings, strike

from pgbreaker.core.reading import Finding

DAYS = 16


@pytest.fixture(scope="module")
def courses():
    return [healthy(seed) for seed in range(1000, 1000 + DAYS)]


def alarms(course, share):
    """How often so much is taken, twice within an hour being once."""
    above = [
        tick * TICK
        for tick, used in enumerate(course.used)
        if used >= share * course.usable
    ]
    return bool(above) + sum(b - a > HOUR for a, b in pairwise(above))


@pytest.mark.parametrize(("share", "a_day"), [(0.8, 1.25), (0.9, 0.33)])
def test_a_healthy_server_costs_thresholds_their_false_alarms(courses, share, a_day):
    """
    Of a server that is calmer than that any forecast would look good, and of one that is
    wilder none.
    """
    counted = sum(alarms(course, share) for course in courses) / DAYS

    assert a_day / 2 <= counted <= a_day * 2


def test_a_healthy_server_never_fails(courses):
    assert all(max(course.used) < course.usable for course in courses)


@pytest.mark.parametrize("kind", [Kind.LEAK, Kind.QUEUE, Kind.LOCK, Kind.STORM])
def test_slots_are_full_when_an_incident_says_so_and_not_before(courses, kind):
    for seed, course in enumerate(courses[:3]):
        struck, incident = strike(course, kind, moment(course, kind, seed), seed)
        begins, fails = round(incident.begins / TICK), round(incident.fails_at / TICK)

        assert struck.used[:begins] == course.used[:begins]
        assert max(struck.used[:fails]) < struck.usable
        assert struck.used[fails] == struck.usable
        after = readings(struck, since=incident.fails_at, probes=("login",))
        assert next(after).finding is Finding.FULL


def test_the_same_seed_gives_the_same_readings():
    first, second = (healthy(7, days=0.1) for _ in range(2))

    assert list(readings(first, probes=ALL)) == list(readings(second, probes=ALL))
    assert first.used != healthy(8, days=0.1).used


def test_readings_come_in_the_order_of_time_each_probe_at_its_interval(courses):
    seen = list(readings(courses[0], since=HOUR, until=HOUR + 60, probes=ALL))

    assert [r.at for r in seen] == sorted(r.at for r in seen)
    counts = {name: sum(r.probe == name for r in seen) for name in ALL}
    assert counts == {
        "ping": 60,
        "saturation": 30,
        "login": 12,
        "commit": 12,
        "blocking": 12,
        "database": 4,
        "statements": 2,
    }


def test_after_a_crash_nothing_answers_until_it_ends(courses):
    course = courses[0]
    struck, crash = strike(course, Kind.CRASH, 20 * HOUR, 1)

    down = readings(struck, since=crash.fails_at, until=crash.ends, probes=ALL)
    assert {reading.finding for reading in down} == {Finding.REFUSED}
    up = readings(struck, since=crash.ends, until=crash.ends + 10, probes=ALL)
    assert all(reading.answered for reading in up)


SHARES = {
    (Ticking.XID, "database"): lambda seen: seen["xid_age_max"] / XID_LIMIT,
    (Ticking.MULTIXACT, "database"): lambda seen: seen["mxid_age_max"] / XID_LIMIT,
    (Ticking.SEQUENCE, "maintenance"): lambda seen: seen["sequences"][0]["ratio"],
    (Ticking.SLOT, "slots"): lambda seen: (
        1
        - seen["slots"][0]["safe_bytes"]
        / sum(seen["slots"][0][name] for name in ("retained_bytes", "safe_bytes"))
    ),
    (Ticking.DISK, "size"): lambda seen: seen["disk_used_bytes"] / CAPACITY,
    (Ticking.ARCHIVER, "size"): lambda seen: seen["disk_used_bytes"] / CAPACITY,
    (Ticking.LAG, "replication"): lambda seen: seen["replay_age_seconds"] / LAG_LIMIT,
}


def shares(made):
    """How much of what a clock has is used, as it was seen."""
    return [
        (at, SHARES[made.of, probe](seen))
        for at, probe, seen in made.seen
        if (made.of, probe) in SHARES
    ]


@pytest.mark.parametrize("of", Ticking)
def test_a_clock_that_fails_is_at_its_limit_then_and_one_that_does_not_never(of):
    failing, calm = clock(of, 3, fails=True), clock(of, 3, fails=False)
    seen = shares(failing)

    assert failing.incident.begins < failing.incident.fails_at == failing.lasts
    assert max(share for at, share in seen if at < failing.lasts) < 1.0
    # The disk is looked at each quarter of an hour: by then it is nearly full.
    assert seen[-1][1] >= (0.9 if of == Ticking.ARCHIVER else 1.0)

    assert calm.incident is None
    assert max(share for _, share in shares(calm)) < 1.0
