"""`daemon/requirements.lock`: every package that the daemon is installed with, its
version, and the hash of each file of it."""

import re
import shutil
import tempfile
from pathlib import Path

from release.tree import EXTRAS, LOCK, ReleaseError, uv

_PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


def locked(lock: Path = LOCK) -> dict[str, str]:
    """Package -> version that is locked."""
    return dict(_PIN.findall(lock.read_text("utf-8")))


def lock(into: Path = LOCK, *, renew: bool = True) -> None:
    """Write the lock, for every platform and supported Python.

    Args:
        renew: Whether versions that are locked already make way for newer ones.

    Raises:
        ReleaseError: It cannot be made.
    """
    extras = (word for extra in EXTRAS for word in ("--extra", extra))
    uv(
        *("pip", "compile", "pyproject.toml", *extras),
        *("--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"),
        *("--custom-compile-command", "make lock", "--output-file", into),
        *(("--upgrade",) if renew else ()),
    )


def check_lock() -> None:
    """Look whether the lock is what pyproject.toml asks for.

    Raises:
        ReleaseError: It is not.
    """
    with tempfile.TemporaryDirectory() as temporary:
        again = Path(temporary) / LOCK.name
        if LOCK.exists():
            shutil.copy(LOCK, again)
        lock(again, renew=False)
        if not LOCK.exists() or again.read_bytes() != LOCK.read_bytes():
            raise ReleaseError("daemon/requirements.lock is out of date: make lock")
