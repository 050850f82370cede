"""What follows from what probes saw before: how long until something runs out, how much
more a count has become.

All of it warns, none of it opens a breaker.
"""

from collections.abc import Callable, Iterable
from typing import Final

from pgbreaker.core.metric import Shown, counter, gauge
from pgbreaker.core.reading import NOTHING, Reading, Row, Seen
from pgbreaker.core.runway import Runway
from pgbreaker.core.units import Seconds, Share

_RUNWAY: Final = "pgbreaker_runway_seconds"
_RUNWAY_SAYS: Final = (
    "Seconds until ids, a sequence, the WAL that a slot may hold back, or the disk (by"
    " all that is on it, or by WAL that is not archived) are used up at the present rate,"
    " of each kind the soonest; absent while it cannot be told."
)

_ENDS: Final = ("abandoned", "fatal", "killed")

OUTLOOK: Final[tuple[Shown, ...]] = (
    gauge(
        "pgbreaker_connection_exhaustion_seconds",
        "Seconds until every usable connection slot is taken at the present rate;"
        " absent below half of them and while it cannot be told.",
        "connection_exhaustion_seconds",
    ),
    *(
        gauge(_RUNWAY, _RUNWAY_SAYS, f"{of}_runway_seconds", labels={"of": of})
        for of in ("xid", "multixact", "sequence", "slot", "archiver", "disk")
    ),
    gauge(
        "pgbreaker_disk_used_ratio",
        "Share of the configured capacity that data, WAL and temporary files take.",
        "disk_used_ratio",
    ),
    gauge(
        "pgbreaker_statement_mean_seconds_ratio",
        "Mean time of a statement lately, as a multiple of what is usual here.",
        "statement_mean_ratio",
    ),
    *(
        counter(
            "pgbreaker_session_ends_total",
            "Sessions that ended badly, in all databases, since the daemon first saw the"
            " server: abandoned by the client, by a fatal error, or killed by an operator.",
            f"session_ends_{end}",
            labels={"end": end},
        )
        for end in _ENDS
    ),
)

# A leak fills a pool within minutes to hours, and what the day was like does not
# matter. Below half the slots the waves of everyday look like leaks.
_LEAK_SPAN: Final[Seconds] = 900.0
_LEAK_FALL: Final[Share] = 0.5
_LEAK_FROM: Final[Share] = 0.5

# Segments that wait to be archived pile up within hours, or not at all.
_PILE_SPAN: Final[Seconds] = 3600.0

# What a slot holds back goes up and down a little with each confirmation.
_SLOT_FALL: Final[Share] = 0.1
_MOST_SLOTS: Final = 10  # those that hold back most; what is kept here stays small


class Outlook:
    """What the readings of one target, one after the other, say of its future.

    Args:
        capacity: Bytes of the disk that holds its data and WAL. None: not known.
    """

    def __init__(self, capacity: float | None = None) -> None:
        self._capacity = capacity
        self._disk_used: float | None = None  # bytes, when last looked
        self._connections = Runway(span=_LEAK_SPAN, fall=_LEAK_FALL)
        self._xid = Runway()
        self._multixact = Runway()
        self._sequences: dict[str, Runway] = {}
        self._slots: dict[str, Runway] = {}
        self._statements = _Usual()
        self._ends = {end: _Growth() for end in _ENDS}
        self._takers: dict[str, Callable[[Seconds, Seen], Seen]] = {
            "saturation": self._take_saturation,
            "database": self._take_database,
            "maintenance": self._take_maintenance,
            "slots": self._take_slots,
            "statements": self._take_statements,
        }
        if capacity is not None:
            self._disk = Runway()
            self._archiver = Runway(span=_PILE_SPAN)
            self._takers |= {"size": self._take_size, "wal_ckpt": self._take_wal}

    def take(self, reading: Reading) -> Seen:
        """Learn from *reading*; returns what follows from it, by name.

        What cannot be told is None. A reading without values says nothing.
        """
        taker = self._takers.get(reading.probe)
        if taker is None or not reading.values:
            return NOTHING
        return taker(reading.at, reading.values)

    def _take_saturation(self, at: Seconds, seen: Seen) -> Seen:
        used, usable = _number(seen, "slots_used"), _number(seen, "slots_usable")
        left = None
        if used is not None and usable is not None:
            self._connections.take(at, used)
            if used >= _LEAK_FROM * usable:
                left = self._connections.left(usable)
        return {"connection_exhaustion_seconds": left}

    def _take_database(self, at: Seconds, seen: Seen) -> Seen:
        limit = _number(seen, "xid_limit")
        return {
            "xid_runway_seconds": _ahead(
                self._xid, at, _number(seen, "xid_age_max"), limit
            ),
            # Both kinds of ids are 32 bits wide and are refused as early.
            "multixact_runway_seconds": _ahead(
                self._multixact, at, _number(seen, "mxid_age_max"), limit
            ),
            **{
                f"session_ends_{end}": growth.take(_number(seen, f"sessions_{end}"))
                for end, growth in self._ends.items()
            },
        }

    def _take_maintenance(self, at: Seconds, seen: Seen) -> Seen:
        courses = [
            (str(row["sequence"]), _number(row, "ratio"), 1.0)
            for row in _rows(seen, "sequences")
        ]
        name, left = _soonest(self._sequences, Runway, at, courses)
        return {"sequence_runway_seconds": left, "sequence_soonest": name}

    def _take_slots(self, at: Seconds, seen: Seen) -> Seen:
        courses = []
        for row in _rows(seen, "slots")[:_MOST_SLOTS]:
            retained, safe = _number(row, "retained_bytes"), _number(row, "safe_bytes")
            # Without max_slot_wal_keep_size there is no limit but the disk, and that
            # cannot be seen from here; a slot that is lost has neither value.
            if retained is not None and safe is not None:
                courses.append((str(row["slot"]), retained, retained + safe))
        name, left = _soonest(self._slots, lambda: Runway(fall=_SLOT_FALL), at, courses)
        return {"slot_runway_seconds": left, "slot_soonest": name}

    def _take_size(self, at: Seconds, seen: Seen) -> Seen:
        used = self._disk_used = _number(seen, "disk_used_bytes")
        if used is None or self._capacity is None:
            return NOTHING
        return {
            "disk_runway_seconds": _ahead(self._disk, at, used, self._capacity),
            "disk_used_ratio": used / self._capacity,
        }

    def _take_wal(self, at: Seconds, seen: Seen) -> Seen:
        """An archive command that fails fills the disk, and sooner than data does."""
        pending = _number(seen, "archiver_pending")
        segment = _number(seen, "wal_segment_bytes")
        used, capacity = self._disk_used, self._capacity
        if pending is None or segment is None or used is None or capacity is None:
            return {"archiver_runway_seconds": None}
        # What waited when the disk was looked at is part of what was used then; that
        # much is left out twice, which errs to the safe side.
        limit = max(capacity - used, 0.0) / segment
        return {"archiver_runway_seconds": _ahead(self._archiver, at, pending, limit)}

    def _take_statements(self, at: Seconds, seen: Seen) -> Seen:
        calls = _number(seen, "statement_calls")
        spent = _number(seen, "statement_seconds")
        if calls is None or spent is None:
            return NOTHING
        return {"statement_mean_ratio": self._statements.take(at, calls, spent)}


class _Usual:
    """What a statement usually takes, and how the last interval compares to that."""

    _HALF_LIFE: Final[Seconds] = 1800.0
    _FEWEST_CALLS: Final = 20
    _SILENT_FOR: Final = 10

    def __init__(self) -> None:
        self._last: tuple[Seconds, float, float] | None = None
        self._usual: Seconds = 0.0
        self._learnt = 0

    def take(self, at: Seconds, calls: float, spent: Seconds) -> float | None:
        """Take both counters; returns the ratio, None while it says nothing."""
        last, self._last = self._last, (at, calls, spent)
        if last is None:
            return None
        since, more, longer = at - last[0], calls - last[1], spent - last[2]
        # Counters that were reset go backwards; of few calls the mean is chance.
        if since <= 0 or more < self._FEWEST_CALLS or longer < 0:
            return None
        mean = longer / more
        is_known = self._learnt >= self._SILENT_FOR and self._usual > 0
        ratio = mean / self._usual if is_known else None
        self._learnt += 1
        # At first the plain mean of all, or the very first would weigh on for hours.
        weight = max(1 - 0.5 ** (since / self._HALF_LIFE), 1 / self._learnt)
        self._usual += weight * (mean - self._usual)
        return ratio


class _Growth:
    """By how much a count has grown since it was first seen.

    The sum over all databases falls when one is dropped or its statistics are reset;
    Prometheus would take what is left for new. What grew unseen before that is lost.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._grown = 0.0

    def take(self, count: float | None) -> float | None:
        """Take the count; returns its growth, None while nothing is known of it."""
        if count is not None:
            if self._last is not None:
                self._grown += max(0.0, count - self._last)
            self._last = count
        return None if self._last is None else self._grown


def _soonest(
    runways: dict[str, Runway],
    new: Callable[[], Runway],
    at: Seconds,
    courses: Iterable[tuple[str, float | None, float]],
) -> tuple[str | None, Seconds | None]:
    """Take a sample of each course: name, value and limit; find the first to end.

    Courses that are not among these any more are forgotten.
    """
    kept: dict[str, Runway] = {}
    soonest: tuple[str | None, Seconds | None] = (None, None)
    for name, value, limit in courses:
        kept[name] = runways.get(name) or new()
        left = _ahead(kept[name], at, value, limit)
        if left is not None and (soonest[1] is None or left < soonest[1]):
            soonest = (name, left)
    runways.clear()
    runways.update(kept)
    return soonest


def _ahead(
    runway: Runway, at: Seconds, value: float | None, limit: float | None
) -> Seconds | None:
    if value is None or limit is None:
        return None
    runway.take(at, value)
    return runway.left(limit)


def _number(seen: Seen | Row, name: str) -> float | None:
    value = seen.get(name)
    return float(value) if isinstance(value, int | float) else None


def _rows(seen: Seen, name: str) -> tuple[Row, ...]:
    rows = seen.get(name)
    return rows if isinstance(rows, tuple) else ()
