"""A wall clock that is set while a process goes by it."""

from pathlib import Path

from support.tools import need


class Wall:
    """A wall clock that is kept in a file, by libfaketime.

    Attributes:
        env: What a process needs to go by it.
    """

    def __init__(self, path: Path, library: Path) -> None:
        self._path = path
        self.step(0)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def step(self, seconds: int) -> None:
        """Set it, to so many seconds after what it really is."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{seconds:+d}s", "ascii")
        new.rename(self._path)  # at one blow: it is read all the time


def wall_at(path: Path, looks: int = 0) -> Wall:
    """A wall clock that is kept in this file; skips where libfaketime is missing.

    Args:
        looks: Seconds between two looks at it, for a process that has other things to do
            all the time. 0: it is looked at as often as the time is asked for.
    """
    need("faketime", "faketime")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    wall = Wall(path, library)
    if looks:
        del wall.env["FAKETIME_NO_CACHE"]
        wall.env["FAKETIME_CACHE_DURATION"] = str(looks)
    return wall
