"""The tree that is released."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "daemon/requirements.lock"
EXTRAS = ("daemon", "otlp", "auth", "redis")
"""What the daemon is installed with, by us and in the image."""

_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


class ReleaseError(Exception):
    """A part of the release failed; it says which, and why."""


def version(root: Path = ROOT) -> str:
    """The version of the tree at *root*, by its own word."""
    text = (root / "daemon/pgbreaker/__init__.py").read_text("utf-8")
    found = _VERSION.search(text)
    if found is None:
        raise ReleaseError("daemon/pgbreaker/__init__.py has no __version__")
    return found[1]


def snapshot(into: Path, root: Path = ROOT) -> Path:
    """Copy the tree, without what git ignores and without its history."""
    lines = (root / ".gitignore").read_text("utf-8").split()
    ignored = shutil.ignore_patterns(".git", *(line.strip("/") for line in lines))
    shutil.copytree(root, into, ignore=ignored)
    return into


def run(
    *command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run a command; gives what it printed.

    Raises:
        ReleaseError: It failed; with what it said.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=None if env is None else {**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        words = " ".join(str(word) for word in command)
        raise ReleaseError(f"{words}\nended with {done.returncode}:\n{said}")
    return done.stdout


def uv(*arguments: object) -> str:
    """Run uv, by the index that pip was told of; gives what it printed.

    Raises:
        ReleaseError: It failed; with what it said.
    """
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL")
    env = {"UV_DEFAULT_INDEX": index} if index else {}
    return run(sys.executable, "-m", "uv", *arguments, cwd=ROOT, env=env)
