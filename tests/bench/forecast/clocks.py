"""Slow clocks of a target that does not exist: what runs out within hours, days, weeks.

As `incidents` has it: all of it comes of a seed, and the truth is known. A clock that
fails is healthy for a while, and then nobody clears away any more; one that does not
shows for as long what a healthy server does: vacuum freezes, slots are read, files go.
Readings are those of the clock's own probe, wider apart than it would make them where
that changes nothing.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from incidents import DAY, HOUR, MONDAY, TARGET, Incident

from pgbreaker.core.reading import Finding, Reading, Seen
from pgbreaker.core.units import Seconds, Share

XID_LIMIT: Final = 2_144_483_648
SEGMENT: Final = 16 * 2**20
CAPACITY: Final = 1e12
"""Bytes of the disk that all of these have."""

LAG_LIMIT: Final[Seconds] = 300.0
"""Seconds behind its primary at which a replica is of no use."""

NEAR: Final[Share] = 0.8

_GB: Final = 1e9


class Ticking(StrEnum):
    """What runs out; named as its runway is."""

    XID = "xid"
    MULTIXACT = "multixact"
    SEQUENCE = "sequence"
    SLOT = "slot"
    DISK = "disk"
    ARCHIVER = "archiver"
    LAG = "lag"


@dataclass(frozen=True, slots=True)
class Clock:
    """One clock.

    Attributes:
        of: What runs out.
        seed: What it came of.
        seen: Moments and what was seen at them, by probe.
        incident: The truth; None where it never fails.
        nears: Moments at which 80 % of the limit are passed upwards.
        born: Wall time of moment 0.
    """

    of: Ticking
    seed: int
    seen: tuple[tuple[Seconds, str, Seen], ...]
    incident: Incident | None
    nears: tuple[Seconds, ...]
    born: float = MONDAY

    @property
    def lasts(self) -> Seconds:
        """Seconds from the first reading to the last."""
        return self.seen[-1][0]

    def wall_of(self, at: Seconds) -> float:
        """Say what a clock on the wall shows at a moment of the readings."""
        return self.born + at

    def readings(self) -> Iterator[Reading]:
        """Give what probes see, in the order of time."""
        for at, probe, seen in self.seen:
            yield Reading(TARGET, probe, at, 0.01, Finding.OK, seen)


def clock(of: str, seed: int, *, fails: bool) -> Clock:
    """Make a clock that fails, or one that does not."""
    luck = random.Random(f"clock {of} {fails} {seed}")
    every, course = _CLOCKS[Ticking(of)]
    seen: list[tuple[Seconds, str, Seen]] = []
    nears: list[Seconds] = []
    begins, fails_at, before = None, None, 0.0
    for at, by_probe, is_ill, share in course(luck, every, fails):
        seen.extend((at, probe, values) for probe, values in by_probe.items())
        if before < NEAR <= share:
            nears.append(at)
        before = share
        if begins is None and is_ill:
            begins = at
        if share >= 1.0:
            fails_at = at
            break
    if not fails:
        return Clock(Ticking(of), seed, tuple(seen), None, tuple(nears))
    if begins is None or fails_at is None:
        raise ValueError(f"{of}, seed {seed}: the clock never came to its end")
    truth = Incident(of, begins, fails_at, fails_at + HOUR)
    return Clock(Ticking(of), seed, tuple(seen), truth, tuple(nears))


# Moment, what is seen by which probe, whether it is ill by now, how much of the limit is used.
_Steps = Iterator[tuple[Seconds, dict[str, Seen], bool, Share]]

_Course = Callable[[random.Random, Seconds, bool], _Steps]


def _moments(every: Seconds, most: Seconds) -> Iterator[Seconds]:
    return (n * every for n in range(math.ceil(most / every)))


def _by_day(at: Seconds, depth: Share) -> float:
    """What there is to do at a moment, in the mean 1: more by day, less at weekends."""
    share = 1 + depth * math.sin(2 * math.pi * (at / DAY - 0.375))
    return share * (0.7 if at // DAY % 7 >= 5 else 1.12)


def _ids(name: str) -> _Course:
    """Ids are handed out at the rate of writes; vacuum freezes when they are old."""

    def course(luck: random.Random, every: Seconds, fails: bool) -> _Steps:
        days = luck.uniform(14, 70)
        freezes = luck.uniform(1.5e8, 2.2e8)  # autovacuum_freeze_max_age, and a little
        floor = luck.uniform(2e7, 6e7)
        rate = (XID_LIMIT - freezes) / (days * DAY) if fails else luck.uniform(50, 1500)
        healthy_for = luck.uniform(0, 5) * DAY if fails else math.inf
        relief = luck.random() < 0.3  # somebody vacuums one large table, and no other
        age, depth = luck.uniform(floor, freezes), luck.uniform(0.2, 0.7)
        for at in _moments(every, 150 * DAY if fails else 30 * DAY):
            is_ill = at >= healthy_for and age > freezes
            age += rate * every * _by_day(at, depth) * luck.uniform(0.9, 1.1)
            if age > freezes and at < healthy_for:
                age = floor
            elif relief and age > 0.4 * XID_LIMIT:
                age, relief = age * luck.uniform(0.7, 0.9), False
            ages: Seen = {
                "xid_age_max": 4e7,
                "mxid_age_max": 1e6,
                "xid_limit": XID_LIMIT,
                name: age // 1,
            }
            yield at, {"database": ages}, is_ill, age / XID_LIMIT

    return course


def _sequence(luck: random.Random, every: Seconds, fails: bool) -> _Steps:
    """A column of four bytes that is counted up; now and then much at once."""
    days = luck.uniform(10, 60) if fails else luck.uniform(400, 4000)
    ratio = luck.uniform(0.3, 0.85) if fails else luck.uniform(0.05, 0.7)
    rate, depth = (1 - ratio) / (days * DAY), luck.uniform(0.2, 0.7)
    for at in _moments(every, 120 * DAY if fails else 30 * DAY):
        ratio += rate * every * _by_day(at, depth) * luck.uniform(0.8, 1.2)
        if luck.random() < every / (10 * DAY):  # an import
            ratio += luck.uniform(0.0, 0.004)
        rows = (
            {"sequence": "public.orders_id_seq", "ratio": ratio},
            {"sequence": "public.users_id_seq", "ratio": 0.02 + 1e-6 * at / HOUR},
        )
        yield at, {"maintenance": {"sequences": rows}}, True, ratio


def _slot(luck: random.Random, every: Seconds, fails: bool) -> _Steps:
    """What is read is let go, in batches; then nobody reads any more."""
    keep = luck.uniform(30, 400) * _GB
    hours = math.exp(luck.uniform(math.log(3), math.log(120)))
    rate = keep / (hours * HOUR) if fails else luck.uniform(0.2, 4.0) * 1e6
    healthy_for = luck.uniform(6, 30) * HOUR if fails else math.inf
    depth, retained, catches_up = luck.uniform(0.1, 0.5), 0.0, 0.0
    for at in _moments(every, 12 * DAY if fails else 3 * DAY):
        is_ill = at >= healthy_for
        retained += rate * every * _by_day(at, depth) * luck.uniform(0.8, 1.2)
        if not is_ill and at >= catches_up:
            retained *= luck.uniform(0.0, 0.2)
            slow = luck.random() < 0.05  # the consumer is deployed, or has much to do
            catches_up = at + (
                luck.uniform(600, 3600) if slow else luck.uniform(30, 300)
            )
        rows = (
            {
                "slot": "warehouse",
                "active": not is_ill,
                "retained_bytes": retained // 1,
                "safe_bytes": max(keep - retained, 0.0) // 1,
                "wal_status": "reserved",
                "reason": None,
            },
        )
        seen: Seen = {"replication_slots_lost": 0, "slots": rows}
        yield at, {"slots": seen}, is_ill, retained / keep


def _disk(luck: random.Random, every: Seconds, fails: bool) -> _Steps:
    """Data grow; temporary files and backups come and go."""
    used = luck.uniform(0.4, 0.8)
    days = luck.uniform(5, 60) if fails else luck.uniform(400, 4000)
    rate, depth = (1 - used) / (days * DAY), luck.uniform(0.2, 0.7)
    backup = luck.uniform(0.0, 0.06)
    for at in _moments(every, 120 * DAY if fails else 30 * DAY):
        used += rate * every * _by_day(at, depth) * luck.uniform(0.7, 1.3)
        files = backup if at % DAY < 2 * HOUR else 0.0
        files += 0.01 * luck.random() ** 4
        seen: Seen = {"disk_used_bytes": (used + files) * CAPACITY // 1}
        yield at, {"size": seen}, True, used + files


def _archiver(luck: random.Random, every: Seconds, fails: bool) -> _Steps:
    """Segments wait for a moment; then the command that archives them fails."""
    used = luck.uniform(0.3, 0.8) * CAPACITY
    room = (CAPACITY - used) / SEGMENT
    hours = math.exp(luck.uniform(math.log(3), math.log(72)))
    rate = room / (hours * HOUR) if fails else luck.uniform(0.02, 0.5)
    healthy_for = luck.uniform(6, 30) * HOUR if fails else math.inf
    depth, pending, stuck = luck.uniform(0.1, 0.5), 0.0, 0.0
    for at in _moments(every, 8 * DAY if fails else 3 * DAY):
        is_ill = at >= healthy_for
        pending += rate * every * _by_day(at, depth) * luck.uniform(0.8, 1.2)
        if luck.random() < every / (8 * HOUR):  # the store is slow for a while
            stuck = at + luck.uniform(60, 1200)
        if not is_ill and at >= stuck:
            pending = max(0.0, pending - 4 * rate * every - 1)
        by_probe: dict[str, Seen] = {
            "wal_ckpt": {
                "archiving": True,
                "archiver_pending": pending // 1,
                "wal_segment_bytes": SEGMENT,
            }
        }
        if at % 900.0 == 0:
            by_probe["size"] = {"disk_used_bytes": used + pending // 1 * SEGMENT}
        yield at, by_probe, is_ill, pending / room


def _lag(luck: random.Random, every: Seconds, fails: bool) -> _Steps:
    """A replica replays a bulk load late and catches up; then it does not."""
    minutes = math.exp(luck.uniform(math.log(10), math.log(300)))
    rate = LAG_LIMIT / (minutes * 60)
    healthy_for = luck.uniform(4, 12) * HOUR if fails else math.inf
    age, loaded, slope = 0.0, 0.0, 0.0
    for at in _moments(every, 24 * HOUR):
        is_ill = at >= healthy_for
        if luck.random() < every / (4 * HOUR):  # a bulk load
            loaded, slope = at + luck.uniform(20, 240), luck.uniform(0.1, 0.6)
        if is_ill:
            age += rate * every * luck.uniform(0.5, 1.5)
        elif at < loaded:
            age += slope * every
        else:
            age = max(0.0, age - 2 * every)
        shown = age + 0.3 * luck.random()
        seen: Seen = {
            "standbys": (),
            "wal_receiver_up": 1,
            "replay_age_seconds": shown,
            "received_replayed_bytes": shown * 4e6 // 1,
            "replay_paused": False,
        }
        yield at, {"replication": seen}, is_ill, shown / LAG_LIMIT


_CLOCKS: Final[dict[Ticking, tuple[Seconds, _Course]]] = {
    Ticking.XID: (3600.0, _ids("xid_age_max")),
    Ticking.MULTIXACT: (3600.0, _ids("mxid_age_max")),
    Ticking.SEQUENCE: (3600.0, _sequence),
    Ticking.SLOT: (60.0, _slot),
    Ticking.DISK: (900.0, _disk),
    Ticking.ARCHIVER: (60.0, _archiver),
    Ticking.LAG: (10.0, _lag),
}
"""Seconds between two readings of each clock, and how it goes."""
