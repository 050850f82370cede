"""What runs out, and when, at the present rate."""

from dataclasses import dataclass
from typing import Final

from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.web.page.breakers import number
from pgbreaker.web.page.words import neat

_DAY: Final[Seconds] = 86400.0
_FAR: Final[Seconds] = 3650 * _DAY  # the rate of some hours says nothing of then


@dataclass(frozen=True, slots=True)
class _Kind:
    """Something that can run out.

    Attributes:
        fact: Name of the board's fact.
        says: What runs out.
        soon: Seconds below which it needs attention.
        needs: What it takes to be able to tell.
        which: Name of the fact that says which one it is. None: there is one.
    """

    fact: str
    says: str
    soon: Seconds
    needs: str
    which: str | None = None


_KINDS: Final = (
    _Kind(
        "connection_exhaustion_seconds",
        "connection slots",
        900.0,
        "the probe saturation, and more than half of the slots taken",
    ),
    _Kind("xid_runway_seconds", "transaction ids", _DAY, "the probe database"),
    _Kind("multixact_runway_seconds", "multixact ids", _DAY, "the probe database"),
    _Kind(
        "sequence_runway_seconds",
        "a sequence",
        _DAY,
        "the probe maintenance",
        "sequence_soonest",
    ),
    _Kind(
        "slot_runway_seconds",
        "WAL that a slot may hold back",
        _DAY,
        "the probe slots, and max_slot_wal_keep_size",
        "slot_soonest",
    ),
    _Kind(
        "archiver_runway_seconds",
        "disk, by WAL that is not archived",
        _DAY,
        "the probe size with its capacity",
    ),
    _Kind(
        "disk_runway_seconds",
        "disk, by all that is on it",
        _DAY,
        "the probe size with its capacity",
    ),
)


@dataclass(frozen=True, slots=True)
class Runway:
    """Something that runs out.

    Attributes:
        says: What.
        left: Seconds until then. None: there is no end in sight, or nobody looks.
        is_soon: Whether that needs attention.
        is_watched: Whether somebody looks.
        needs: What it takes for that.
    """

    says: str
    left: Seconds | None
    is_soon: bool
    is_watched: bool
    needs: str

    @property
    def when(self) -> str:
        """When that is, to be said after "run out"."""
        return "now" if not self.left or self.left < 1 else f"in {neat(self.left)}"


def forecast(target: TargetBoard) -> list[Runway]:
    """Everything that can run out, the soonest first; last what nobody looks at."""
    found = []
    for kind in _KINDS:
        left = number(target, kind.fact)
        if left is not None and left > _FAR:
            left = None
        name = target.facts.get(kind.which) if kind.which else None
        says = f"{kind.says} ({name})" if isinstance(name, str) and left else kind.says
        is_soon = left is not None and left < kind.soon
        is_watched = kind.fact in target.facts
        found.append(Runway(says, left, is_soon, is_watched, kind.needs))
    return sorted(
        found, key=lambda r: (r.left is None, r.left or 0.0, not r.is_watched)
    )


def soon(target: TargetBoard) -> list[Runway]:
    """What runs out so soon that somebody should look."""
    if not any(kind.fact in target.facts for kind in _KINDS):
        return []
    return [runway for runway in forecast(target) if runway.is_soon]
