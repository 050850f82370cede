"""The audit log: who decided what, each line sealed with the one before it.

Whoever changes, drops or slips in a line has to make every later seal anew, and the last
one, which others may have noted.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgbreaker.core.entry import Entry, Kind

BEGINNING: Final = "0" * 64
"""What stands for the seal before the first."""

_ALWAYS: Final = frozenset(
    (Kind.OVERRIDE, Kind.MAINTENANCE, Kind.PAUSE, Kind.NOTE, Kind.RELOAD)
)


@dataclass(frozen=True, slots=True)
class Audited:
    """One line of the audit log.

    Attributes:
        entry: What was decided, and by whom.
        number: 1 for the first line that was ever written. None: it is written nowhere.
        before: Seal of the line before. None: it is written nowhere.
        seal: SHA-256 of that and of this line, in hex. None: it is written nowhere.
    """

    entry: Entry
    number: int | None = None
    before: str | None = None
    seal: str | None = None


def is_audited(entry: Entry) -> bool:
    """Whether *entry* belongs in the audit log: somebody decided it, or it changes what
    somebody decided."""
    return entry.author is not None or entry.kind in _ALWAYS


def spelt(details: Mapping[str, Any]) -> str:
    """Write details as JSON, in the one way that seals are made of.

    Raises:
        TypeError: They are not fit for JSON.
        ValueError: A number in them is none.
    """
    return json.dumps(details, sort_keys=True, separators=(",", ":"), allow_nan=False)


def seal(before: str, number: int, entry: Entry) -> str:
    """Seal *entry* as line *number*, after the line with the seal *before*."""
    line = [
        *(before, number, entry.id, float(entry.at), entry.kind.value, entry.text),
        *(entry.target, entry.breaker, entry.author, spelt(entry.details)),
    ]
    return hashlib.sha256(json.dumps(line).encode("ascii")).hexdigest()
