"""Small disks, to be filled."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgbreaker.demo.server import Server
from support.tools import missing, need

_PIECE = 64 * 1024


@dataclass(frozen=True)
class Disk:
    """A file system in memory.

    Attributes:
        path: Where it is mounted.
    """

    path: Path

    def fill(self) -> None:
        """Write until not a byte is left."""
        with (
            contextlib.suppress(OSError),
            (self.path / "ballast").open("wb", buffering=0) as ballast,
        ):
            while True:
                ballast.write(bytes(_PIECE))

    def forbid(self) -> None:
        """Have nobody write, as a kernel does that found errors on a disk."""
        self._remount("ro")

    def allow(self) -> None:
        """Have it written to again."""
        self._remount("rw")

    def _remount(self, how: str) -> None:
        command = ("mount", "-o", f"remount,{how}", str(self.path))
        subprocess.run(command, check=True)

    def free(self) -> None:
        """Take back what `fill` wrote."""
        (self.path / "ballast").unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(server: Server, name: str, size: str) -> Iterator[Disk]:
    """A disk of *size*, such as ``64m``, that belongs to the user of *server*.

    Whoever may not mount one skips; in CI, fails. What was written to it is gone
    afterwards, so the server is ended first.
    """
    with mounted(server.home / name, size) as disk:
        owner = os.stat(server.data)
        os.chown(disk.path, owner.st_uid, owner.st_gid)
        try:
            yield disk
        finally:
            server.kill()


@contextlib.contextmanager
def mounted(path: Path, size: str) -> Iterator[Disk]:
    """A disk of *size*, such as ``64m``, at *path*, which is made for it.

    Whoever may not mount one skips; in CI, fails. What was written to it is gone
    afterwards.
    """
    path.mkdir()
    mounting = subprocess.run(
        [
            *(need("mount", "mount"), "-t", "tmpfs"),
            *("-o", f"size={size},mode=0700", "pgbreaker", str(path)),
        ],
        capture_output=True,
        text=True,
    )
    if mounting.returncode != 0:
        missing(f"no disk of our own to fill: {mounting.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def move(directory: Path, disk: Disk) -> None:
    """Move *directory* of a server that does not run to *disk*, and link to it."""
    there = disk.path / directory.name
    subprocess.run(["cp", "-a", str(directory), str(there)], check=True)
    shutil.rmtree(directory)
    directory.symlink_to(there)
