"""Containers: our image, made of this tree, run by podman as its documents say."""

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pgbreaker import __version__
from support.tools import missing

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / ".venv/containers"
IMAGE = f"localhost/pgbreaker:{__version__}"
BASE = (
    "docker.io/library/"
    + re.findall(
        "^ARG PYTHON=(.+)$",
        (ROOT / "daemon/Dockerfile").read_text("utf-8"),
        re.MULTILINE,
    )[0]
)
# As it is to be run: it has no power, and nothing to write to but its volume.
HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
MADE_WITHIN = 400.0
DONE_WITHIN = 60.0


def environment() -> dict[str, str]:
    """Ours, in which podman, and whatever calls it, works in the tests' own house."""
    return {
        **os.environ,
        "CONTAINERS_CONF": str(HOUSE / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(HOUSE / "storage.conf"),
    }


@cache
def made(*names: str) -> None:
    """Have ``tests/make-images`` make images, by its names for them.

    Skips where they cannot be had; in CI, where everything has to be there, fails.
    """
    done = subprocess.run(
        [ROOT / "tests/make-images", *names],
        capture_output=True,
        text=True,
        timeout=MADE_WITHIN,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in done.stdout.splitlines():
        if line.startswith("cannot be had"):
            missing(f"{line} {done.stderr}")


def podman(*arguments: str | Path, fails: bool = False) -> "Done":
    """Run podman to its end.

    Args:
        fails: It may end with another status than 0.
    """
    done = subprocess.run(
        ["podman", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DONE_WITHIN,
        check=False,
    )
    assert fails or done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done


Done = subprocess.CompletedProcess[str]


def inspected(kind: str, name: str) -> dict[str, Any]:
    """What podman knows of an image or a container."""
    (known,) = json.loads(podman(kind, "inspect", name).stdout)
    return dict(known)


class Container:
    """One of ours, that runs.

    Attributes:
        name: What podman calls it.
        url: Where it is reached from outside.
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url

    def exec(self, *command: str, fails: bool = False) -> Done:
        """Run a command within, to its end."""
        return podman("exec", self.name, *command, fails=fails)

    def get(self, path: str, within: float = 5.0) -> str:
        """Ask it from outside."""
        with urllib.request.urlopen(self.url + path, timeout=within) as answer:
            return str(answer.read().decode())

    def refused(self, path: str) -> int:
        """Ask it for what it is to refuse. Returns the status."""
        try:
            said = self.get(path)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        raise AssertionError(f"{path} was answered: {said}")

    def until(self, word: str, path: str = "/metrics", within: float = 20.0) -> None:
        """Wait until *word* is in what it answers."""
        deadline = time.monotonic() + within
        said = ""
        while word not in said:
            assert time.monotonic() < deadline, f"{word!r} is not in {said}{self.log()}"
            try:
                said = self.get(path)
            except OSError as error:  # not yet
                said = f"{error}\n"
            time.sleep(0.02)

    def health(self) -> tuple[int, str]:
        """Have its health looked at. Returns podman's exit status, and its word."""
        done = podman("healthcheck", "run", self.name, fails=True)
        return done.returncode, done.stdout.strip()

    def until_healthy(self, within: float = 30.0) -> None:
        """Wait until its health is good, which it need not be right after a start."""
        deadline = time.monotonic() + within
        while (health := self.health())[0] != 0:
            assert time.monotonic() < deadline, (health, self.log())

    def signal(self, name: str) -> None:
        """Send a signal to the daemon, from outside."""
        podman("kill", "--signal", name, self.name)

    def stop(self) -> int:
        """Have podman stop it. Returns its exit status, 137 when it took over 10 s."""
        podman("stop", self.name)
        return int(inspected("container", self.name)["State"]["ExitCode"])

    def log(self) -> str:
        """All that it wrote."""
        done = podman("logs", self.name)
        return done.stdout + done.stderr


@contextmanager
def running(*options: str | Path, command: tuple[str, ...] = ()) -> Iterator[Container]:
    """Have a container of ours run for the time of the block.

    Args:
        options: Of ``podman run``, besides those that harden it.
        command: What it is to do; nothing: what it does by itself.
    """
    made("pgbreaker")
    name = f"pgbreaker-{uuid.uuid4().hex[:8]}"
    publish = ("--publish", "127.0.0.1::9432")
    how = ("--detach", "--name", name, "--pull=never", *HARDENED, *publish)
    try:
        podman("run", *how, *options, IMAGE, *command)
        address = podman("port", name, "9432/tcp").stdout.strip()
        yield Container(name, f"http://{address}")
    finally:
        podman("rm", "--force", "--volumes", "--time", "0", "--ignore", name)


@contextmanager
def volume() -> Iterator[str]:
    """A volume for the time of the block."""
    name = f"pgbreaker-{uuid.uuid4().hex[:8]}"
    podman("volume", "create", name)
    try:
        yield name
    finally:
        podman("volume", "rm", "--force", name)


def once(*options: str | Path, command: tuple[str, ...] = ()) -> Done:
    """Run a container of ours to its end. Returns what it said, and its exit status."""
    made("pgbreaker")
    how = ("--rm", "--pull=never", "--network=none", *HARDENED)
    return podman("run", *how, *options, IMAGE, *command, fails=True)
