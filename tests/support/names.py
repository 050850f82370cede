"""A process whose host names are ours to give and to take away."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from support.tools import missing, need

# In a name space of its own, so that nobody else's names change.
_IN_ITS_OWN = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'


class Names:
    """A file of host names that a process has in the place of /etc/hosts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.resolve()

    def resolve(self, *names: str) -> None:
        """Have these names lead to this machine, besides its own; and no others."""
        # Written in place: it is this very file that is mounted.
        lines = (f"127.0.0.1 {name}\n" for name in ("localhost", *names))
        self._path.write_text("".join(lines), "ascii")

    @classmethod
    def below(cls, home: Path) -> Self:
        """A new file in *home*. Whoever may not mount it skips; in CI, fails."""
        names = cls(home / "hosts")
        trying = subprocess.run(names.command("true"), capture_output=True, text=True)
        if trying.returncode != 0:
            missing(f"no host names of our own: {trying.stderr.strip()}")
        return names

    def command(self, *words: str) -> list[str]:
        """Say how to run a program that goes by these names."""
        unshare = need("unshare", "util-linux")
        shell = ["sh", "-c", _IN_ITS_OWN, "sh", str(self._path), *words]
        return [unshare, "--mount", "--propagation", "private", *shell]


def daemon_by(names: Names, *arguments: str) -> "subprocess.Popen[str]":
    """Start a daemon that goes by *names*; it logs JSON to its standard error."""
    return subprocess.Popen(
        names.command(sys.executable, "-m", "pgbreaker", "run", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
