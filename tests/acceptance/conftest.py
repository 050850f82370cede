"""The daemon as a process, as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "pgbreaker"]


def pgbreaker(*arguments: str, timeout: float = 30.0, **env: str):
    """Run one command to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **env},
        check=False,
    )


class Daemon:
    """A daemon that was started with *arguments*.

    Attributes:
        url: Where it serves.
    """

    def __init__(self, *arguments: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "run", "--listen", "127.0.0.1:0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **env},
        )
        self.lines: list[dict] = []
        self.url = ""

    def start(self) -> None:
        """Wait until it says where it listens."""
        line = self.read_until("listening on")
        self.url = "http://" + line["message"].rpartition("listening on ")[2]

    def read_until(self, word: str, within: float = 15.0) -> dict:
        """Read its log until a line holds *word*."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            text = self.process.stderr.readline()
            if not text:
                break
            line = json.loads(text)
            self.lines.append(line)
            if word in line["message"]:
                return line
        raise AssertionError(f"{word!r} was not said; it said {self.lines}")

    def get(self, path: str, timeout: float = 5.0):
        """Get JSON from it."""
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
            return json.load(answer)

    def refusal(self, path: str) -> tuple[int, str | None]:
        """Get what is refused. Returns the status and ``Retry-After``."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5.0) as answer:
                raise AssertionError(f"{path} answered {answer.status}")
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, error.headers["Retry-After"]

    def until(self, what, within: float = 10.0) -> None:
        """Wait until *what* holds of its status."""
        deadline = time.monotonic() + within
        while not what(status := self.get("/api/v1/status")):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float, str]:
        """End it. Returns its exit status, the seconds it took, and its last words."""
        begun = time.monotonic()
        self.process.send_signal(number)
        _, words = self.process.communicate(timeout=20)
        return self.process.returncode, time.monotonic() - begun, words


@pytest.fixture
def daemon():
    """Starts daemons, and ends those that a test left."""
    started: list[Daemon] = []

    def start(*arguments: str, **env: str) -> Daemon:
        one = Daemon(*arguments, **env)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.fixture
def config(tmp_path):
    """Writes a configuration."""

    def write(*targets: tuple[str, str], more: str = "") -> Path:
        path = tmp_path / "pgbreaker.yaml"
        lines = "".join(f"  - name: {n}\n    dsn: {dsn}\n" for n, dsn in targets)
        path.write_text(f"version: 1\ntargets:\n{lines}{more}", "utf-8")
        return path

    return write
