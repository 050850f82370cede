"""Clean environments of each supported Python, and what is tried in them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from release.tree import EXTRAS, LOCK, ROOT, ReleaseError, run, uv

PYTHONS = ("3.11", "3.12", "3.13")
"""Those that pyproject.toml names."""

_SMOKE = ROOT / "tests/smoke"


def find_python(wanted: str) -> Path | None:
    """A Python of version *wanted*, such as 3.12, on this machine; None: there is none.

    It is looked for as this one, on the PATH, in pyenv's versions and by uv.
    """
    for candidate in _candidates(wanted):
        says = "import sys; print('%d.%d' % sys.version_info[:2])"
        try:
            done = subprocess.run(
                [candidate, "-I", "-c", says], capture_output=True, text=True
            )
        except OSError:
            continue
        if done.stdout.strip() == wanted:
            return candidate
    return None


def _candidates(wanted: str) -> Iterator[Path]:
    yield Path(sys.executable)
    name = f"python{wanted}"
    if found := shutil.which(name):
        yield Path(found)
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from sorted(pyenv.glob(f"versions/{wanted}.*/bin/{name}"), reverse=True)
    if uv := shutil.which("uv"):
        asked = [uv, "python", "find", "--no-python-downloads", wanted]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode == 0:
            yield Path(done.stdout.strip())


def missing_python(wanted: str) -> str:
    """What is to be said where *wanted* is not there."""
    return f"no Python {wanted} here: neither on the PATH, nor pyenv's, nor uv's"


class Clean:
    """An environment that holds nothing yet.

    Attributes:
        python: Its interpreter.
    """

    def __init__(self, home: Path, interpreter: Path) -> None:
        run(interpreter, "-m", "venv", "--clear", "--without-pip", home)
        self.python = home / "bin/python"

    def install(self, *what: object) -> None:
        """Install as users do, by pip.

        Raises:
            ReleaseError: It cannot be.
        """
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install")
        run(*pip, "-q", "--disable-pip-version-check", "--no-compile", *what)

    def install_daemon(self, package: Path) -> None:
        """Install the daemon: its dependencies as locked, and the wheel *package*.

        Raises:
            ReleaseError: The lock lacks something, or its hashes do not match.
        """
        # By uv, which takes a tenth of pip's time for it.
        uv(
            "pip",
            "install",
            "-q",
            "--python",
            self.python,
            "--require-hashes",
            "-r",
            LOCK,
        )
        wanted = f"pgbreaker[{','.join(EXTRAS)}]"
        # Nothing may come from elsewhere: what the lock lacks is told here.
        self.install("--no-index", "--find-links", package.parent, wanted)

    def smoke(self, name: str, *arguments: str) -> str:
        """Run a smoke test in it; gives what it says.

        Raises:
            ReleaseError: It failed.
        """
        return run(self.python, "-I", _SMOKE / name, *arguments).strip()


def try_out(home: Path, interpreter: Path, package: Path, dsn: str) -> list[str]:
    """Install *package*, a wheel or an sdist, in a clean environment, and try it.

    Args:
        dsn: Of a server that is up, by a role with pg_monitor.

    Returns:
        What the smoke tests say.

    Raises:
        ReleaseError: Something failed.
    """
    clean = Clean(home, interpreter)
    clean.install(package)
    said = [clean.smoke("library.py")]
    wheel, *_ = package.parent.glob("*.whl")
    clean.install_daemon(wheel)
    said.append(clean.smoke("daemon.py", dsn))
    return said


__all__ = [
    "PYTHONS",
    "Clean",
    "ReleaseError",
    "find_python",
    "missing_python",
    "try_out",
]
