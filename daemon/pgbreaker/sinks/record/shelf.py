"""The files of a recording: the one that is written, and those that were full.

``readings.jsonl`` is written, ``readings.jsonl.3.gz`` was full before it. A full one is
first put aside as it is, then compressed beside itself: whenever that ends, either stands.
"""

import os
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from pgbreaker.core.plan import RecordPlan

_PARTS: Final = 8
_LARGEST: Final = 8 * 1024 * 1024  # compressing more at once would hold readings back
_CHUNK: Final = 64 * 1024
_LEVEL: Final = 6  # 9 takes twice as long for a hundredth less
_FULL: Final = re.compile(r"(.+)\.(\d{1,9})(\.gz)?", re.DOTALL)
_GZIP: Final = 31  # zlib's word for: with the frame of gzip


@dataclass(frozen=True, slots=True)
class Full:
    """A file that was full.

    Attributes:
        number: Larger is later.
    """

    number: int
    path: Path

    @property
    def is_packed(self) -> bool:
        """Whether it is compressed."""
        return self.path.suffix == ".gz"


def live_name(name: str) -> str | None:
    """What the file is called that was begun after the full one of this *name*; None
    where that is no name of a full one."""
    found = _FULL.fullmatch(name)
    return found[1] if found else None


def full_files(path: Path) -> list[Full]:
    """Those that were full before *path* was begun, the oldest first; none where there
    is no such directory."""
    kept: dict[int, Full] = {}
    with suppress(FileNotFoundError, NotADirectoryError):
        for file in path.parent.iterdir():
            found = _FULL.fullmatch(file.name)
            if found is None or found[1] != path.name:
                continue
            full = Full(int(found[2]), file)
            # Of both, the compressed one may not be whole on the disk yet.
            if full.number not in kept or not full.is_packed:
                kept[full.number] = full
    return [kept[number] for number in sorted(kept)]


class Shelf:
    """Appends to a file, and keeps as many full ones as there is room for.

    All of them together never take more than *max_size*, not while one is compressed
    either. No method is for more than one thread.

    Attributes:
        path: The file that is written.
        size: Bytes that it has.
    """

    def __init__(self, plan: RecordPlan) -> None:
        self.path = plan.path
        self.size = 0
        self._most = plan.max_size
        self._part = max(min(plan.max_size // _PARTS, _LARGEST), 1)
        self._open: FileIO | None = None
        self._kept: list[tuple[Full, int]] = []  # with their sizes, the oldest first
        self._last = 0

    @property
    def is_open(self) -> bool:
        """Whether something can be appended."""
        return self._open is not None

    def is_full(self, more: int) -> bool:
        """Whether another file is to be begun before so many bytes."""
        return self.size + more > self._part

    def open(self) -> None:
        """Open the file, or make it.

        Raises:
            OSError: The disk refused.
        """
        # Others on this machine are not to read what is known of our servers.
        number = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # Not buffered: what is told to the kernel outlives us.
        self._open = FileIO(number, "ab")
        self.size = os.fstat(number).st_size
        self._look()
        if self.size:
            self.append(
                b"\n"
            )  # a last line that was cut must not take the next with it

    def _look(self) -> None:
        """Find what is kept."""
        full = full_files(self.path)
        self._kept = [(one, one.path.stat().st_size) for one in full]
        self._last = full[-1].number if full else 0

    def append(self, raw: bytes | bytearray) -> None:
        """Append *raw*; the oldest makes room for it.

        Raises:
            OSError: The disk refused.
        """
        assert self._open is not None
        self._make_room(len(raw))
        left = memoryview(raw)
        while left:
            done = self._open.write(left)
            self.size += done
            left = left[done:]

    def put_aside(self) -> None:
        """Put the file that is written with the full ones, and close it.

        Raises:
            OSError: The disk refused.
        """
        self.close()
        self._last += 1
        full = Full(self._last, self.path.with_name(f"{self.path.name}.{self._last}"))
        os.replace(self.path, full.path)
        self._kept.append((full, self.size))
        self.size = 0

    def pack(self) -> None:
        """Compress those that are full and not compressed yet, the latest first.

        Raises:
            OSError: The disk refused; they stay as they are.
        """
        plain = [one for one, _ in reversed(self._kept) if not one.is_packed]
        for full in plain:  # what an end of the process left of the last try
            _packed(full.path).unlink(missing_ok=True)
            _torn(full.path).unlink(missing_ok=True)
        for full in plain:
            if any(full is one for one, _ in self._kept):
                self._pack(full)

    def _pack(self, full: Full) -> None:
        packed, torn = _packed(full.path), _torn(full.path)
        try:
            size = self._compress(full, torn)
            if size is None:
                return
            os.replace(torn, packed)
        finally:
            torn.unlink(missing_ok=True)
        full.path.unlink()
        self._kept = [
            (Full(full.number, packed), size) if one is full else (one, before)
            for one, before in self._kept
        ]

    def _compress(self, full: Full, into: Path) -> int | None:
        """Returns the size; None when there was no room for it."""
        size, packing = 0, zlib.compressobj(_LEVEL, wbits=_GZIP)
        number = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(number, "wb") as packed, full.path.open("rb") as plain:
            is_whole = False
            while not is_whole:
                raw = plain.read(_CHUNK)
                is_whole = not raw
                part = packing.compress(raw) if raw else packing.flush()
                if not self._make_room(len(part), sparing=full, torn=size):
                    return None
                size += packed.write(part)
            packed.flush()
            os.fsync(number)  # or the name could be there before what it stands for
        return size

    def _make_room(self, more: int, sparing: Full | None = None, torn: int = 0) -> bool:
        """Delete the oldest until there is room; returns whether there is.

        Args:
            sparing: What is being compressed, to *torn* bytes so far.
        """
        used = self.size + torn + sum(size for _, size in self._kept)
        while used + more > self._most and self._kept:
            full, size = self._kept[0]
            if full is sparing:
                break
            full.path.unlink(missing_ok=True)
            del self._kept[0]
            used -= size
        return used + more <= self._most

    def close(self) -> None:
        """Close it."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.close()


def _packed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _torn(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz.part")
