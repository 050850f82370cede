"""What the forecasts of one target have learned, as it is put by: a few kilobytes.

It is read only by whoever goes on by it; until then a thousand of them are a few
megabytes, and not a hundred.
"""

import json
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

_LEVEL: Final = 1  # half the size for half a millisecond
_MOST: Final = 1024 * 1024  # bytes, unpacked; what is larger nobody of ours wrote
_SINCE: Final = 2  # the version of the tables that has it first


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned.

    Attributes:
        at: Wall time at which it was put by, in seconds since the epoch.
        packed: The rest, as only `memory` reads it.
    """

    at: float
    packed: bytes

    @classmethod
    def of(cls, memory: Mapping[str, Any], at: float) -> "Learned":
        """Put *memory* by.

        A number in it that is none is left to whoever goes on by it: it must not end the
        keeping of all the others.

        Raises:
            TypeError: It is not fit for JSON.
        """
        text = json.dumps(memory, separators=(",", ":"))
        return cls(at, zlib.compress(text.encode(), _LEVEL))

    def memory(self) -> dict[str, Any]:
        """Read it again.

        Raises:
            ValueError: It was damaged.
        """
        unpacking = zlib.decompressobj()
        try:
            text = unpacking.decompress(self.packed, _MOST)
            read = json.loads(text) if unpacking.eof else None
        except (zlib.error, ValueError, RecursionError) as error:
            raise ValueError(f"it was damaged: {error}") from None
        if not isinstance(read, dict):
            raise ValueError("it was damaged")  # noqa: TRY004 - as any other damage
        return read


def write_learned(
    connection: sqlite3.Connection, learned: Mapping[str, Learned], room: float = inf
) -> list[str]:
    """Write what was learned of targets, in the place of what was before.

    Args:
        learned: Target -> that.
        room: Bytes that all of it may take, of all targets.

    Returns:
        Targets there was no room for. What is written of others stays: else a store that
        is too small would keep each of them now and then, and none for good.
    """
    sizes: dict[str, int] = dict(
        connection.execute("SELECT target, length(memory) FROM forecast")
    )
    taken, left_out = sum(sizes.values()), []
    for target, one in learned.items():
        grows = len(one.packed) - sizes.get(target, 0)
        if grows > 0 and taken + grows > room:
            left_out.append(target)
            continue
        taken += grows
        connection.execute(
            "INSERT OR REPLACE INTO forecast (target, at, memory) VALUES (?, ?, ?)",
            (target, one.at, one.packed),
        )
    return left_out


def read_learned(connection: sqlite3.Connection) -> dict[str, Learned]:
    """Read what was learned of every target, but for what is no such thing.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < _SINCE:  # on a disk that takes no upgrade it is as it was
        return {}
    rows = connection.execute("SELECT target, at, memory FROM forecast")
    return {
        target: Learned(at, memory)
        for target, at, memory in rows
        if isinstance(target, str)
        and isinstance(at, float)
        and isinstance(memory, bytes)
    }
