"""Incidents on a target that does not exist: what its probes would have seen, and when
it really failed.

A `Course` is what happens at a server, a tick of two seconds after the other: a healthy
one comes of a seed, and `strike` makes an incident of a given kind happen in it, of which
it says when it began and when the server failed. `readings` is what probes see of a
course. All that is random comes of the seed: the same seed gives the same readings.

What is healthy is tuned to what the thresholds cost in false alarms (80 % of the slots:
1.25 a day, 90 %: 0.33), so that forecasts are not measured on a server that is too calm.

What takes days is in `clocks.py`.
"""

import math
import random
from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Final

from pgbreaker.core.reading import NOTHING, Finding, Reading, Seen
from pgbreaker.core.states import Evidence
from pgbreaker.core.units import Seconds, Share

TICK: Final[Seconds] = 2.0
DAY: Final[Seconds] = 86_400.0
HOUR: Final[Seconds] = 3600.0

MONDAY: Final = 1_772_409_600.0  # 2026-03-02 00:00 UTC
TARGET: Final = "simulated"

EVERY: Final[dict[str, Seconds]] = {
    "ping": 1.0,
    "saturation": 2.0,
    "login": 5.0,
    "commit": 5.0,
    "blocking": 5.0,
    "database": 15.0,
    "statements": 30.0,
}
"""Seconds between two readings of each probe."""

CONNECTIONS: Final = ("saturation", "database", "statements")
"""What a forecast of connections needs, and `readings` gives unless told otherwise."""

ALL: Final = tuple(EVERY)

USERS: Final = {"app_web": 0.6, "app_worker": 0.28, "cron": 0.12}


class Kind(StrEnum):
    """What can happen within hours."""

    LEAK = "leak"  # connections are taken and not given back
    QUEUE = "queue"  # statements take ever longer, and calls come as before
    LOCK = "lock"  # calls queue behind a DDL that waits for a long transaction
    STORM = "storm"  # everybody connects at once
    CRASH = "crash"  # the server is gone


@dataclass(frozen=True, slots=True)
class Incident:
    """The truth about one.

    Attributes:
        kind: Which.
        begins: Moment from which a course is another than a healthy one.
        fails_at: Moment at which it fails: no slot is left, nothing answers.
        ends: Moment at which it works again.
        owner: User whose connections they are; empty where that is nobody's.
        state: What those connections do.
    """

    kind: str
    begins: Seconds
    fails_at: Seconds
    ends: Seconds
    owner: str = ""
    state: str = ""

    @property
    def lasts(self) -> Seconds:
        """Seconds in which one could have warned."""
        return self.fails_at - self.begins


@dataclass(frozen=True)
class Course:
    """What happens at a server; of each array one value a tick.

    Attributes:
        seed: What it came of.
        usable: Connection slots for applications.
        born: Wall time of the first tick.
        used: Slots taken.
        active: Connections that run a statement.
        in_transaction: Connections that are idle in a transaction.
        waiting: Connections that wait for a lock.
        oldest: Age of the oldest transaction.
        rate: Transactions a second.
        mean: Seconds that a statement takes in the mean.
        gone: Ticks at which nothing answers: from, to.
        owner: User who holds more than usual, from the tick at which it does so.
    """

    seed: int
    usable: int
    born: float
    used: array
    active: array
    in_transaction: array
    waiting: array
    oldest: array
    rate: array
    mean: array
    gone: tuple[int, int] = (0, 0)
    owner: str = ""
    owned: array = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.used)

    @property
    def lasts(self) -> Seconds:
        """Seconds from the first tick to the end."""
        return len(self) * TICK

    def wall_of(self, at: Seconds) -> float:
        """Say what a clock on the wall shows at a moment of the readings."""
        return self.born + at

    @cached_property
    def transactions(self) -> array:
        """Transactions since the first tick."""
        return array("d", accumulate(rate * TICK for rate in self.rate))

    @cached_property
    def spent(self) -> array:
        """Seconds that statements took since the first tick, one a transaction."""
        return array(
            "d",
            accumulate(r * m * TICK for r, m in zip(self.rate, self.mean, strict=True)),
        )

    @cached_property
    def sessions(self) -> array:
        """Sessions begun since the first tick: what pools renew, and what is new."""
        risen = (max(0.0, b - a) for a, b in pairwise(self.used[:1] + self.used))
        return array("d", accumulate(0.01 * self.usable / 30 + r for r in risen))


# -- what is healthy -------------------------------------------------------------------

_BURSTS: Final = 6.0  # a day
_DEPLOYS: Final = 3.0
_CEILING: Final[Share] = 0.97
_BENDS: Final[Share] = 0.84  # from here on pools make do with what they have


def healthy(seed: int, *, days: float = 1.0, usable: int | None = None) -> Course:
    """Make a course without an incident.

    Args:
        seed: What all of it comes of.
        days: How long it lasts; it begins at midnight of some day of the week.
        usable: Connection slots; drawn where not given: 100 mostly, sometimes 97 or 500.
    """
    luck = random.Random(f"healthy {seed}")
    slots = luck.choice((100, 100, 100, 97, 500))
    usable = slots if usable is None else usable
    count = round(days * DAY / TICK)
    born = MONDAY + luck.randrange(7) * DAY
    traffic = _traffic(luck, count, born)
    level, busy = _level(luck, count, traffic)
    for begins in _moments(luck, count, _BURSTS):
        _burst(luck, level, busy, begins)
    for begins in _moments(luck, count, _DEPLOYS):
        _deploy(luck, level, begins)
    active = array("d", (max(1.0, round(usable * b)) for b in busy))
    gauss = luck.gauss
    used = array(
        "d",
        (
            min(
                max(round(usable * _bent(share) + gauss(0.0, 0.7)), a + 4),
                _CEILING * usable // 1,
            )
            for share, a in zip(level, active, strict=True)
        ),
    )
    mean = _means(luck, traffic)
    return Course(
        seed=seed,
        usable=usable,
        born=born,
        used=used,
        active=array("d", map(min, active, used)),
        in_transaction=array(
            "d",
            (
                float(luck.random() < 0.5) + round(0.02 * u * luck.random())
                for u in used
            ),
        ),
        waiting=_blips(luck, count),
        oldest=_ages(luck, count),
        rate=array("d", (usable * 5.0 * t for t in traffic)),
        mean=mean,
    )


def _traffic(luck: random.Random, count: int, born: float) -> array:
    """Calls, as a share of what they can be: more by day, less at weekends."""
    night = luck.uniform(0.25, 0.45)
    peak = luck.uniform(11, 17) * HOUR
    weekend = luck.uniform(0.45, 0.8)
    step = 30  # by the minute; nobody sees the difference
    made = array("d")
    for tick in range(0, count, step):
        at = born + tick * TICK
        day = 0.5 + 0.5 * math.cos(2 * math.pi * (at - peak) / DAY)
        share = night + (1 - night) * day**1.4
        if (at - MONDAY) // DAY % 7 >= 5:
            share *= weekend
        made.extend([share] * min(step, count - tick))
    return made


def _level(luck: random.Random, count: int, traffic: array) -> tuple[array, array]:
    """Slots taken and slots busy, as shares of the usable ones: pools follow traffic,
    and what they need wanders."""
    floor = luck.uniform(0.15, 0.3)
    high = luck.random() < 0.4  # a server that is nearly too small, and goes on so
    top = luck.uniform(0.70, 0.78) if high else luck.uniform(0.46, 0.66)
    noise = luck.uniform(0.015, 0.035)
    keep = math.exp(-TICK / luck.uniform(120.0, 900.0))
    jolt = noise * math.sqrt(1 - keep * keep)
    gauss, wander = luck.gauss, 0.0
    level, busy = array("d"), array("d")
    for share in traffic:
        wander = keep * wander + gauss(0.0, jolt)
        level.append(floor + (top - floor) * share + wander)
        busy.append(0.1 * share * (1 + 4 * wander) + gauss(0.0, 0.008))
    return level, busy


def _moments(luck: random.Random, count: int, a_day: float) -> list[int]:
    """Ticks of what happens so often a day, by chance."""
    found, tick = [], 0.0
    while True:
        tick += luck.expovariate(a_day / DAY * TICK)
        if tick >= count:
            return found
        found.append(int(tick))


def _burst(luck: random.Random, level: array, busy: array, begins: int) -> None:
    """A cron job, or a spike of calls: it rises, levels off, and goes."""
    size = min(luck.lognormvariate(math.log(0.12), 0.55), 0.4)
    lasts = luck.uniform(60.0, 900.0)
    rises = luck.uniform(5.0, 60.0)
    is_logistic = luck.random() < 0.5  # which begins as a queue does
    working = luck.uniform(0.3, 1.0)
    for n in range(int((lasts + 6 * rises) / TICK)):
        tick, at = begins + n, n * TICK
        if tick >= len(level):
            return
        if at > lasts + 3 * rises:
            share = math.exp(-(at - lasts - 3 * rises) / rises)
        elif is_logistic:
            share = 1 / (1 + math.exp(-(at - 3 * rises) * 2 / rises))
        else:
            share = 1 - math.exp(-at / rises)
        level[tick] += size * share
        busy[tick] += size * share * working


def _deploy(luck: random.Random, level: array, begins: int) -> None:
    """New processes connect before the old ones go: a batch after the other."""
    batches = luck.randint(1, 4)
    tick = begins
    for _ in range(batches):
        extra = level[min(tick, len(level) - 1)] * luck.uniform(0.4, 0.75)
        extra /= batches**0.7
        opens = int(luck.uniform(5.0, 40.0) / TICK) or 1
        stays = int(luck.uniform(20.0, 240.0) / TICK)
        closes = int(luck.uniform(2.0, 20.0) / TICK) or 1
        for n in range(opens + stays + closes):
            if tick >= len(level):
                return
            share = min(1.0, (n + 1) / opens, (opens + stays + closes - n) / closes)
            level[tick] += extra * share
            tick += 1


def _bent(share: Share) -> Share:
    """A healthy server does not run out, however much comes together."""
    if share <= _BENDS:
        return share
    room = _CEILING - _BENDS
    return _BENDS + room * (1 - math.exp(-(share - _BENDS) / (room * 1.5)))


def _means(luck: random.Random, traffic: array) -> array:
    """Mean time of a statement: higher under load, and never quite the same."""
    usual = luck.uniform(0.002, 0.02)
    wander = 0.0
    made = array("d")
    for tick in range(0, len(traffic), 15):  # by the interval of its probe
        wander = 0.9 * wander + luck.gauss(0.0, 0.04)
        factor = (1 + 0.5 * traffic[tick]) * math.exp(wander + luck.gauss(0.0, 0.05))
        if luck.random() < 0.004:  # a checkpoint, a report
            factor *= luck.uniform(1.5, 3.0)
        made.extend([usual * factor] * min(15, len(traffic) - tick))
    return made


def _blips(luck: random.Random, count: int) -> array:
    """Waits for locks that are over before anybody looks."""
    waiting = array("d", bytes(8 * count))
    for begins in _moments(luck, count, 12.0):
        most = luck.randint(1, 8)
        for tick in range(begins, min(count, begins + luck.randint(1, 10))):
            waiting[tick] = most
    return waiting


def _ages(luck: random.Random, count: int) -> array:
    """Age of the oldest transaction: moments, and now and then that of a long report."""
    ages = array("d", (luck.expovariate(4.0) for _ in range(count)))
    for begins in _moments(luck, count, 3.0):
        lasts = int(luck.uniform(60.0, 1200.0) / TICK)
        for n in range(min(lasts, count - begins)):
            ages[begins + n] = n * TICK
    return ages


def latencies(seed: int, *, days: float) -> tuple[float, array]:
    """Make the mean times of statements alone, of a healthy server.

    Returns:
        Wall time at which they begin, and seconds, one for each half minute.
    """
    luck = random.Random(f"latencies {seed}")
    born = MONDAY + luck.randrange(7) * DAY
    traffic = _traffic(luck, round(days * DAY / TICK), born)
    return born, _means(luck, traffic)[::15]


# -- what goes wrong -------------------------------------------------------------------

_Shape = Callable[[Seconds], float]


def strike(
    course: Course, kind: str, at: Seconds, seed: int
) -> tuple[Course, Incident]:
    """Make an incident happen in a course, from *at* on.

    Returns:
        A course that is the same until then, and the truth about the incident. It ends
        some minutes after it failed, or with the course.

    Raises:
        ValueError: The course is over before the server fails.
    """
    luck = random.Random(f"{kind} {seed} {course.seed}")
    struck = replace(
        course,
        **{
            name: getattr(course, name)[:]
            for name in (
                "used",
                "active",
                "in_transaction",
                "waiting",
                "oldest",
                "mean",
            )
        },
        owned=array("d", bytes(8 * len(course))),
    )
    first = math.ceil(at / TICK)
    if kind == Kind.CRASH:
        last = min(len(course), first + int(luck.uniform(30.0, 600.0) / TICK))
        begins = first * TICK
        struck = replace(struck, gone=(first, last))
        return struck, Incident(kind, begins, begins, last * TICK)
    return _STRIKES[Kind(kind)](luck, struck, first)


def moment(course: Course, kind: str, seed: int, since: Seconds = 6 * HOUR) -> Seconds:
    """Draw when an incident begins, *since* at the earliest, so that it fails within
    the course. Too much latency is a thing of busy hours, all else of any."""
    luck = random.Random(f"moment {kind} {seed} {course.seed}")
    first = math.ceil(since / TICK)
    last = len(course) - math.ceil(_LONGEST[Kind(kind)] / TICK)
    if kind != Kind.QUEUE:
        return luck.randint(first, last) * TICK
    busy = sorted(course.rate[first:last])[int(0.7 * (last - first))]
    ticks = [
        tick
        for tick in range(first, last)
        if course.rate[tick] >= busy and course.used[tick] < 0.75 * course.usable
    ]
    return luck.choice(ticks or range(first, last)) * TICK


_LONGEST: Final[dict[Kind, Seconds]] = {
    Kind.LEAK: 4 * HOUR,
    Kind.QUEUE: 1500.0,
    Kind.LOCK: 1800.0,
    Kind.STORM: 1000.0,
    Kind.CRASH: 600.0,
}
"""Seconds that one may take, with what comes after."""


def _leak(luck: random.Random, course: Course, first: int) -> tuple[Course, Incident]:
    lasts = luck.uniform(600.0, 3 * HOUR)
    owner = luck.choice(("app_worker", "app_web"))
    state = luck.choice(("idle in transaction", "idle"))
    is_ragged = luck.random() < 0.3
    room = course.usable - course.used[first]
    # As requests end, some of what they held comes back: a saw, whose teeth grow.
    period, depth = luck.uniform(40.0, 300.0), luck.uniform(0.1, 0.35)

    def extra(at: Seconds) -> float:
        grown = room * at / lasts
        if is_ragged and at < lasts:
            grown *= 1 - depth * (at % period) / period
        return grown

    def leave(tick: int, at: Seconds, count: float) -> None:
        course.owned[tick] = count
        if state == "idle in transaction":
            course.in_transaction[tick] += count
            course.oldest[tick] = max(course.oldest[tick], at)

    course = replace(course, owner=owner)
    return course, _fill(luck, course, first, Kind.LEAK, extra, leave, owner, state)


def _queue(luck: random.Random, course: Course, first: int) -> tuple[Course, Incident]:
    room = course.usable - course.used[first]
    # A pool has some that are idle at hand, before it opens more.
    at_hand = luck.uniform(0.0, 0.15) * (course.used[first] - course.active[first])
    while True:
        doubles = luck.uniform(20.0, 130.0)
        begun = luck.uniform(0.01, 0.06) * course.usable
        if 90.0 <= doubles * math.log2((room + at_hand) / begun + 1) <= 480.0:
            break

    def queued(at: Seconds) -> float:
        return begun * (2 ** (at / doubles) - 1)

    def leave(tick: int, at: Seconds, _count: float) -> None:
        course.active[tick] = min(
            course.used[tick], course.active[tick] + queued(at) // 1
        )
        # Only what has ended is counted, and that began when it was less bad.
        course.mean[tick] *= min(2 ** (0.8 * at / doubles), 1000.0)
        course.oldest[tick] = max(course.oldest[tick], course.mean[tick] * 20)

    def extra(at: Seconds) -> float:
        return max(0.0, queued(at) - at_hand)

    return course, _fill(luck, course, first, Kind.QUEUE, extra, leave, "", "active")


def _lock(luck: random.Random, course: Course, first: int) -> tuple[Course, Incident]:
    room = course.usable - course.used[first]
    at_hand = luck.uniform(0.0, 0.3) * (course.used[first] - course.active[first])
    a_second = (room + at_hand) / luck.uniform(60.0, 600.0)
    held = luck.uniform(10.0, 1200.0)  # for so long the transaction in front is open

    def extra(at: Seconds) -> float:
        return max(0.0, a_second * at - at_hand)

    def leave(tick: int, at: Seconds, _count: float) -> None:
        waiters = 1 + a_second * at // 1
        course.active[tick] = min(course.used[tick], course.active[tick] + waiters)
        course.waiting[tick] = min(course.active[tick], course.waiting[tick] + waiters)
        course.oldest[tick] = held + at

    for n in range(min(first, int(held / TICK))):
        tick = first - 1 - n
        course.oldest[tick] = max(course.oldest[tick], held - (n + 1) * TICK)
    return course, _fill(luck, course, first, Kind.LOCK, extra, leave, "", "active")


def _storm(luck: random.Random, course: Course, first: int) -> tuple[Course, Incident]:
    room = course.usable - course.used[first]
    lasts = luck.uniform(15.0, 60.0)

    def extra(at: Seconds) -> float:
        return room * at / lasts

    def leave(tick: int, _at: Seconds, count: float) -> None:
        course.active[tick] = min(
            course.used[tick], course.active[tick] + count * 0.7 // 1
        )

    return course, _fill(luck, course, first, Kind.STORM, extra, leave, "", "active")


_STRIKES: Final = {
    Kind.LEAK: _leak,
    Kind.QUEUE: _queue,
    Kind.LOCK: _lock,
    Kind.STORM: _storm,
}


def _fill(
    luck: random.Random,
    course: Course,
    first: int,
    kind: str,
    extra: _Shape,
    leave: Callable[[int, Seconds, float], None],
    owner: str,
    state: str,
) -> Incident:
    """Add *extra* connections from a tick on until all slots are taken, and hold that
    until somebody mends it."""
    fails: int | None = None
    holds = int(luck.uniform(120.0, 900.0) / TICK)
    usable, used = float(course.usable), course.used
    tick = first
    while tick < len(course) and (fails is None or tick < fails + holds):
        at = (tick - first) * TICK
        taken = used[tick] + max(0.0, extra(at)) // 1
        if fails is not None or taken >= usable:
            fails = tick if fails is None else fails
            taken = usable
        count, used[tick] = taken - used[tick], taken
        leave(tick, at, count)
        tick += 1
    if fails is None:
        raise ValueError(
            f"{kind}: the course of {course.lasts:g} s is over before it fails"
        )
    return Incident(kind, first * TICK, fails * TICK, tick * TICK, owner, state)


# -- what probes see -------------------------------------------------------------------


def readings(
    course: Course,
    *,
    since: Seconds = 0.0,
    until: Seconds | None = None,
    probes: Collection[str] = CONNECTIONS,
    thin: int = 1,
) -> Iterator[Reading]:
    """Give what probes see of a course, in the order of time.

    Args:
        since: Moment of the first one.
        until: Moment before which the last one is; None: the end of the course.
        probes: Which are made, of `ALL`.
        thin: Every how manieth ping is made; all others are.
    """
    end = course.lasts if until is None else min(until, course.lasts)
    looks = [
        (EVERY[name] * (thin if name == "ping" else 1), name, _SEES[name])
        for name in ALL
        if name in probes
    ]
    due = [math.ceil(since / every) * every for every, _, _ in looks]
    gone_from, gone_to = (tick * TICK for tick in course.gone)
    while True:
        at = min(due)
        if at >= end:
            return
        tick = int(at / TICK)
        for index, (every, name, sees) in enumerate(looks):
            if due[index] == at:
                due[index] = at + every
                if gone_from <= at < gone_to:
                    yield _refused(name, at)
                else:
                    yield sees(course, tick, at)


def _refused(probe: str, at: Seconds) -> Reading:
    evidence = Evidence("refused", "nobody listens", probe=probe)
    return Reading(TARGET, probe, at, 0.001, Finding.REFUSED, NOTHING, evidence)


def _ping(course: Course, tick: int, at: Seconds) -> Reading:
    return Reading(TARGET, "ping", at, _took(course, tick), Finding.OK)


def _login(course: Course, tick: int, at: Seconds) -> Reading:
    if course.used[tick] >= course.usable:
        evidence = Evidence("full", "no slot is left", sqlstate="53300", probe="login")
        return Reading(TARGET, "login", at, 0.004, Finding.FULL, NOTHING, evidence)
    seen = {"door_in_recovery": False, "door_started": 0.0, "door_system_id": "1"}
    took = 0.005 + _took(course, tick)
    return Reading(TARGET, "login", at, took, Finding.OK, seen, connecting=took * 0.8)


def _commit(course: Course, tick: int, at: Seconds) -> Reading:
    return Reading(TARGET, "commit", at, 0.002 + 2 * _took(course, tick), Finding.OK)


def _took(course: Course, tick: int) -> Seconds:
    """Seconds of an answer: the mean of the statements, within bounds of a ping."""
    return min(0.0005 + 0.1 * course.mean[tick], 0.5)


def _saturation(course: Course, tick: int, at: Seconds) -> Reading:
    used, active = course.used[tick], course.active[tick]
    waiting = min(course.waiting[tick], active)
    idle = used - active
    in_transaction = min(course.in_transaction[tick], idle)
    seen: Seen = {
        "max_connections": course.usable + 3,
        "superuser_reserved_connections": 3,
        "reserved_connections": 0,
        "slots_usable": course.usable,
        "slots_used": used,
        "slots_ratio": used / course.usable,
        "active": active,
        "idle": idle - in_transaction,
        "idle_in_transaction": in_transaction,
        "oldest_transaction_seconds": course.oldest[tick],
        "oldest_query_seconds": course.oldest[tick] if active > in_transaction else 0.0,
        "oldest_idle_in_transaction_seconds": course.oldest[tick]
        if in_transaction
        else 0.0,
        "waiting_lock": waiting,
        "waiting_lwlock": 0.0,
        "waiting_io": (active - waiting) // 4,
        "waiting_ipc": 0.0,
        "waiting_other": 0.0,
    }
    return Reading(TARGET, "saturation", at, 0.002, Finding.OK, seen)


def _blocking(course: Course, tick: int, at: Seconds) -> Reading:
    waiters = course.waiting[tick]
    first = tick
    while first and course.waiting[first - 1]:
        first -= 1
    seen: Seen = {
        "lock_waiters": waiters,
        "lock_wait_oldest_seconds": (tick - first) * TICK if waiters else 0.0,
        "lock_blockers": int(waiters > 0),
        "lock_chain_depth": int(waiters > 0) + int(waiters > 1),
        "blocker_pid": 4711 if waiters else None,
        "blocker_application": "report" if waiters else None,
        "blocker_state": "idle in transaction" if waiters else None,
        "blocker_age_seconds": course.oldest[tick] if waiters else None,
        "blocker_waits": waiters or None,
        "blocker_relation": "orders" if waiters else None,
    }
    return Reading(TARGET, "blocking", at, 0.003, Finding.OK, seen)


def _database(course: Course, tick: int, at: Seconds) -> Reading:
    used = course.used[tick]
    owned = course.owned[tick] if course.owner else 0.0
    users = [
        {
            "user": user,
            "connections": round((used - owned) * share)
            + (owned if user == course.owner else 0.0),
        }
        for user, share in USERS.items()
    ]
    users.sort(key=lambda row: -row["connections"])
    transactions = course.transactions[tick]
    rollbacks = transactions * 0.002 // 1
    seen: dict[str, Any] = {
        "databases": (
            {
                "database": "app",
                "commits": transactions // 1,
                "rollbacks": rollbacks,
                "deadlocks": 0,
                "conflicts": None,
                "temp_bytes": 0,
                "sessions": course.sessions[tick] // 1,
            },
        ),
        "connections_by_user": tuple(users),
        "sessions_abandoned": 0,
        "sessions_fatal": 0,
        "sessions_killed": 0,
        "xid_age_max": 20_000_000 + transactions // 1,
        "mxid_age_max": 1_000_000,
        "xid_limit": 2_144_483_648,
        "database_limit": None,
        "role_limit": None,
    }
    return Reading(TARGET, "database", at, 0.01, Finding.OK, seen)


def _statements(course: Course, tick: int, at: Seconds) -> Reading:
    seen: Seen = {
        "statement_calls": course.transactions[tick] // 1,
        "statement_seconds": course.spent[tick],
        "statement_rows": course.transactions[tick] * 3 // 1,
        "statement_read_seconds": 0.0,
        "statement_evictions": 0,
    }
    return Reading(TARGET, "statements", at, 0.005, Finding.OK, seen)


_SEES: Final[dict[str, Callable[[Course, int, Seconds], Reading]]] = {
    "ping": _ping,
    "saturation": _saturation,
    "login": _login,
    "commit": _commit,
    "blocking": _blocking,
    "database": _database,
    "statements": _statements,
}
