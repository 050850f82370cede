"""How long is left of what runs out: clocks with physics, each by the probe that sees it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from pgbreaker.core.forecast.filling import Filling
from pgbreaker.core.forecast.foretold import RunsOut
from pgbreaker.core.forecast.runway import Left, Runway, Tide
from pgbreaker.core.forecast.telling import span
from pgbreaker.core.forecast.warning import CONNECTIONS, KINDS, is_short
from pgbreaker.core.reading import NOTHING, Reading, Seen
from pgbreaker.core.remembered import part, reading
from pgbreaker.core.units import Seconds, Share, lasting
from pgbreaker.monitor.outlook.owners import Owners
from pgbreaker.monitor.outlook.shown import bound_of, runway_of
from pgbreaker.monitor.outlook.values import number, rows

# Ids grow until vacuum freezes them, which it does by itself at a tenth of all
# (autovacuum_freeze_max_age): up to there that they grow is no news.
# https://www.postgresql.org/docs/current/runtime-config-vacuum.html
_IDS_FROM: Final[Share] = 0.25

# What a slot holds back goes up and down a little with each confirmation.
_SLOT_FALL: Final[Share] = 0.1

# Pools and replicas come and go within minutes, as the work does.
_WAVE_SPAN: Final[Seconds] = 900.0
_WAVE_FALL: Final[Share] = 0.5
_WAVE_FROM: Final[Share] = 0.5
_REMEMBERED: Final = 3  # sequences, slots and pools, the first, which are the worst
_MOST: Final = 10  # slots and pools, the worst of them; what is kept here stays small

# Statements that take half as long again as usual, or a part of all slots that wait for
# locks: then work piles up.
_SLOW: Final = 1.5
_SLOW_FOR: Final[Seconds] = 90.0  # three readings of its probe
_MANY_WAIT: Final[Share] = 0.03

_SEES: Final[Mapping[str, tuple[str, ...]]] = {
    "saturation": (CONNECTIONS,),
    "database": ("xid", "multixact"),
    "maintenance": ("sequence",),
    "slots": ("slot",),
    "pgbouncer": ("pool",),
    "replication": ("lag",),
    "size": ("disk",),
    "wal_ckpt": ("archiver",),
}

_SAYS: Final[Mapping[str, str]] = {
    "xid": "its transaction ids are used up",
    "multixact": "its multixact ids are used up",
    "sequence": "the sequence {name} is used up",
    "slot": "the slot {name} holds back more WAL than it may",
    "pool": "every server connection of the pool {name} is taken",
    "archiver": "WAL that is not archived fills the disk",
    "disk": "the disk is full",
}


class Runways:
    """What of one target can run out, and how long that takes.

    Args:
        capacity: Bytes of the disk. None: not known.
        lag_limit: Seconds that a replica may be behind. None: as many as it likes.

    Attributes:
        has_other_limits: Whether there are as many slots no more as at the last look.
    """

    def __init__(self, capacity: float | None, lag_limit: Seconds | None) -> None:
        self._capacity = capacity
        self._lag_limit = lag_limit
        self._disk_used: float | None = None  # bytes, when last looked
        self._slots_usable = 0.0
        self.has_other_limits = False
        self._slow = False
        self._slow_seen: Seconds = float("-inf")
        self._found: dict[str, RunsOut] = {}
        self._owners = Owners()
        self._filling = Filling()
        self._xid = Runway()
        self._multixact = Runway()
        self._disk = Runway()
        self._disk_by_day = Tide()
        self._archiver = Runway()
        self._lag = _wave()
        self._sequences: dict[str, Runway] = {}
        self._slots: dict[str, Runway] = {}
        self._pools: dict[str, Runway] = {}
        self._new: Mapping[str, Callable[[], Runway]] = {
            "sequences": Runway,
            "slots": lambda: Runway(fall=_SLOT_FALL),
            "pools": _wave,
        }
        self._takers: dict[str, Callable[[Seconds, Seen], Seen]] = {
            "saturation": self._take_saturation,
            "database": self._take_database,
            "maintenance": self._take_maintenance,
            "slots": self._take_slots,
            "pgbouncer": self._take_pools,
        }
        if lag_limit is not None:
            self._takers["replication"] = self._take_lag
        if capacity is not None:
            self._takers |= {"size": self._take_size, "wal_ckpt": self._take_wal}

    def take(self, reading: Reading) -> Seen:
        """Learn from a reading; returns what is left of what its probe sees, by name."""
        taker = self._takers.get(reading.probe)
        return NOTHING if taker is None else taker(reading.at, reading.values)

    def take_slowness(self, at: Seconds, ratio: float | None) -> None:
        """Learn how long statements take lately, as a multiple of what is usual. None:
        it cannot be told."""
        if ratio is not None:
            self._slow, self._slow_seen = ratio > _SLOW, at

    def memory(self, epoch: float) -> dict[str, Any]:
        """What is remembered of them, fit for JSON.

        Args:
            epoch: Wall time of moment 0.
        """
        return {
            **{of: one.memory(epoch) for of, one in self._singles().items()},
            **{
                of: {
                    name: one.memory(epoch)
                    for name, one in list(several.items())[:_REMEMBERED]
                }
                for of, several in self._several().items()
            },
        }

    @reading("memory of runways")
    def recall(self, memory: Mapping[str, Any], epoch: float) -> None:
        """Go on from a memory.

        Args:
            epoch: Wall time of moment 0.

        Raises:
            ValueError: It is none.
        """
        for of, one in self._singles().items():
            one.recall(part(memory, of), epoch)
        for of, several in self._several().items():
            told = part(memory, of)
            several |= {name: self._new[of]() for name in list(told)[:_REMEMBERED]}
            for name, one in several.items():
                one.recall(part(told, name), epoch)

    def _singles(self) -> Mapping[str, Filling | Runway | Tide]:
        return {
            CONNECTIONS: self._filling,
            "xid": self._xid,
            "multixact": self._multixact,
            "disk": self._disk,
            "disk_by_day": self._disk_by_day,
            "archiver": self._archiver,
            "lag": self._lag,
        }

    def _several(self) -> Mapping[str, dict[str, Runway]]:
        return {
            "sequences": self._sequences,
            "slots": self._slots,
            "pools": self._pools,
        }

    def all(self) -> tuple[RunsOut, ...]:
        """What can run out, of the kinds that somebody looks at."""
        return tuple(self._found.values())

    def seen_by(self, probe: str) -> tuple[RunsOut, ...]:
        """What can run out of that which *probe* sees."""
        kinds = _SEES.get(probe, ())
        return tuple(self._found[of] for of in kinds if of in self._found)

    def reason(self, of: str) -> str:
        """Say in one sentence what runs out and when, with what is known of why."""
        found = self._found[of]
        left, said = found.left, self._says(of, found.name)
        if left is None or left.seconds < 1:
            is_ahead, said = False, f"now {said}"
        else:
            is_ahead, said = True, f"at this rate {said} in {span(left)}"
        if of != CONNECTIONS:
            return said
        if self._filling.is_surge and is_ahead:
            said += "; work piles up"
        owner = self._owners.named
        return f"{said}; owner: {owner}" if owner else said

    def _says(self, of: str, name: str | None) -> str:
        if of == CONNECTIONS:
            return f"the {self._slots_usable:.0f} slots are full"
        if of == "lag":
            return f"it is {lasting(self._lag_limit or 0.0)} behind its primary"
        return _SAYS[of].format(name=name)

    def _tell(
        self,
        of: str,
        left: Left | None,
        name: str | None = None,
        *,
        short: bool | None = None,
    ) -> Seen:
        if short is None:
            short = is_short(KINDS[of], left)
        self._found[of] = RunsOut(of=of, name=name, left=left, is_short=short)
        latest = None if left is None or left.latest == float("inf") else left.latest
        return {
            runway_of(of): None if left is None else left.seconds,
            bound_of(of, "soonest"): None if left is None else left.soonest,
            bound_of(of, "latest"): latest,
        }

    # -- Probe by probe ---------------------------------------------------------------

    def _take_saturation(self, at: Seconds, seen: Seen) -> Seen:
        used, usable = number(seen, "slots_used"), number(seen, "slots_usable")
        if used is None or usable is None or usable <= 0:
            return self._tell(CONNECTIONS, None)
        self.has_other_limits = usable != self._slots_usable
        self._slots_usable = usable
        self._owners.take_states(at, seen)
        filling = self._filling
        strained = self._is_strained(at, seen, usable)
        active, held = number(seen, "active"), number(seen, "idle_in_transaction")
        filling.take(at, used, usable, active, held, strained)
        return self._tell(CONNECTIONS, filling.left, short=filling.is_short)

    def _is_strained(self, at: Seconds, seen: Seen, usable: float) -> bool | None:
        """Whether work takes longer than usual. None: nobody tells."""
        waiting = number(seen, "waiting_lock")
        if waiting is not None and waiting > _MANY_WAIT * usable:
            return True
        return self._slow if at - self._slow_seen < _SLOW_FOR else None

    def _take_database(self, at: Seconds, seen: Seen) -> Seen:
        self._owners.take_users(at, rows(seen, "connections_by_user"))
        # Both kinds of ids are 32 bits wide and are refused as early.
        limit = number(seen, "xid_limit")
        return {
            **self._tell_ids("xid", self._xid, at, number(seen, "xid_age_max"), limit),
            **self._tell_ids(
                "multixact", self._multixact, at, number(seen, "mxid_age_max"), limit
            ),
        }

    def _tell_ids(
        self,
        of: str,
        runway: Runway,
        at: Seconds,
        age: float | None,
        limit: float | None,
    ) -> Seen:
        left = _ahead(runway, at, age, limit)
        if age is None or limit is None or age < _IDS_FROM * limit:
            return self._tell(of, left, short=False)
        return self._tell(of, left)

    def _take_maintenance(self, at: Seconds, seen: Seen) -> Seen:
        courses = [
            (str(row.get("sequence")), number(row, "ratio"), 1.0)
            for row in rows(seen, "sequences")
        ]
        name, left = _soonest(self._sequences, self._new["sequences"], at, courses)
        return {**self._tell("sequence", left, name), "sequence_soonest": name}

    def _take_slots(self, at: Seconds, seen: Seen) -> Seen:
        courses = []
        for row in rows(seen, "slots")[:_MOST]:
            retained, safe = number(row, "retained_bytes"), number(row, "safe_bytes")
            # Without max_slot_wal_keep_size there is no limit but the disk, and that
            # cannot be seen from here; a slot that is lost has neither value.
            if retained is not None and safe is not None:
                courses.append((str(row.get("slot")), retained, retained + safe))
        name, left = _soonest(self._slots, self._new["slots"], at, courses)
        return {**self._tell("slot", left, name), "slot_soonest": name}

    def _take_pools(self, at: Seconds, seen: Seen) -> Seen:
        size = number(seen, "pooler_pool_size")
        courses = []
        for row in rows(seen, "pools")[:_MOST]:
            busy, waiting = number(row, "server_active"), number(row, "waiting")
            if size is None or busy is None or waiting is None:
                continue
            # A database may have a pool of its own size, which is not told: one that is
            # larger than usual and has nobody waiting has room.
            if busy <= size or waiting:
                pool = f"{row.get('database')}/{row.get('user')}"
                # Full and with nobody waiting is nearly, and not there yet.
                needed = busy + waiting if waiting else min(busy, size - 0.5)
                courses.append((pool, needed, size))
        new = self._new["pools"]
        name, left = _soonest(self._pools, new, at, courses, _WAVE_FROM)
        return {**self._tell("pool", left, name), "pool_soonest": name}

    def _take_lag(self, at: Seconds, seen: Seen) -> Seen:
        age = number(seen, "replay_age_seconds")
        return self._tell("lag", _ahead(self._lag, at, age, self._lag_limit))

    def _take_size(self, at: Seconds, seen: Seen) -> Seen:
        used = self._disk_used = number(seen, "disk_used_bytes")
        if used is None or self._capacity is None:
            return NOTHING
        self._disk_by_day.take(at, used)
        told = (
            _ahead(self._disk, at, used, self._capacity),
            self._disk_by_day.left(self._capacity),
        )
        return {
            **self._tell("disk", _sooner(*told)),
            "disk_used_ratio": used / self._capacity,
        }

    def _take_wal(self, at: Seconds, seen: Seen) -> Seen:
        """An archive command that fails fills the disk, and sooner than data does."""
        pending = number(seen, "archiver_pending")
        segment = number(seen, "wal_segment_bytes")
        used, capacity = self._disk_used, self._capacity
        if pending is None or not segment or used is None or capacity is None:
            return self._tell("archiver", None)
        # What waited when the disk was looked at is part of what was used then; that
        # much is left out twice, which errs to the safe side.
        limit = max(capacity - used, 0.0) / segment
        return self._tell("archiver", _ahead(self._archiver, at, pending, limit))


def _sooner(one: Left | None, other: Left | None) -> Left | None:
    """Whichever ends first, of those that are short; else of those that there are."""
    found = [left for left in (one, other) if left is not None]
    short = [left for left in found if is_short(KINDS["disk"], left)]
    return min(short or found, key=lambda left: left.seconds, default=None)


def _wave() -> Runway:
    return Runway(span=_WAVE_SPAN, fall=_WAVE_FALL)


def _soonest(
    runways: dict[str, Runway],
    new: Callable[[], Runway],
    at: Seconds,
    courses: Iterable[tuple[str, float | None, float]],
    least: Share = 0.0,
) -> tuple[str | None, Left | None]:
    """Take a sample of each course: name, value and limit; find the first to end.

    Courses that are not among these any more are forgotten.

    Args:
        least: Share of the limit below which nothing is told.
    """
    kept: dict[str, Runway] = {}
    soonest: tuple[str | None, Left | None] = (None, None)
    for name, value, limit in courses:
        runway = kept[name] = runways.get(name) or new()
        if value is None:
            continue
        runway.take(at, value)
        left = runway.left(limit) if value >= least * limit else None
        if left is not None and (
            soonest[1] is None or left.seconds < soonest[1].seconds
        ):
            soonest = (name, left)
    runways.clear()
    runways.update(kept)
    return soonest


def _ahead(
    runway: Runway, at: Seconds, value: float | None, limit: float | None
) -> Left | None:
    if value is None or limit is None:
        return None
    runway.take(at, value)
    return runway.left(limit)
