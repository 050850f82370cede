"""A daemon whose loop is made to hang, and what its surroundings see of it."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from support.manager import Manager
from support.process import free_port

# The daemon itself, and a signal that has its loop do nothing for a while.
PROGRAM = """
import asyncio, signal, sys, time
from pathlib import Path
from pgbreaker import app
from pgbreaker.sinks.log import configure

def hang_here():
    time.sleep(float(sys.argv[3]))

async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, hang_here)
    source = app.Source(Path(sys.argv[1]), sys.argv[2])
    config = source.read()
    configure("json", config.log.level)
    await app.run(config, source=source)

asyncio.run(main())
"""


@dataclass(slots=True)
class Seen:
    """What was seen of a daemon whose loop hung.

    Attributes:
        longest_unfed: Seconds for which the watchdog got nothing.
        fed_again: Whether it was fed when the loop turned again.
        stacks_after: Seconds from the beginning to the stacks in the log. None: there
            were none.
        place_is_told: Whether the place where it hung is among them.
        health: What `/-/healthy` answered to who asked meanwhile: status, and why.
        code: Its exit status at the end. Below 0: the signal that ended it.
    """

    longest_unfed: float
    fed_again: bool
    stacks_after: float | None
    place_is_told: bool
    health: tuple[int, str]
    code: int


class _Log:
    """Reads the log in a thread, and notes when the stacks came."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.stacks: tuple[float, str] | None = None
        self.is_listening = threading.Event()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "listening on" in line:
                self.is_listening.set()
            if "the loop has hung" in line:
                self.stacks = (time.monotonic(), json.loads(line)["message"])

    def end(self) -> None:
        self._reading.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


def hanging(config: Path, manager: Manager, seconds: float, watchdog: float) -> Seen:
    """Have a daemon hang for *seconds*, and end it when it has come to itself.

    Args:
        watchdog: Seconds that its service manager gives it.
    """
    port = free_port()
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(config), address, str(seconds)],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "NOTIFY_SOCKET": manager.path,
            "WATCHDOG_USEC": str(int(watchdog * 1e6)),
        },
    )
    log = _Log(process)
    try:
        assert log.is_listening.wait(20)
        manager.until("WATCHDOG=1")
        process.send_signal(signal.SIGWINCH)
        begun = time.monotonic()
        time.sleep(min(1.0, seconds / 4))
        health = _ask(f"http://{address}/-/healthy", within=seconds + 10)
        count = len(manager.heard)
        manager.until("WATCHDOG=1", within=watchdog + 5, since=count)
        fed = manager.fed_at()
        process.terminate()
        code = process.wait(15)
    finally:
        process.kill()
        log.end()
        process.wait()
    gaps = [b - a for a, b in itertools.pairwise(fed)]
    stacks = log.stacks
    return Seen(
        longest_unfed=max(gaps),
        fed_again=fed[-1] > begun + seconds,
        stacks_after=None if stacks is None else stacks[0] - begun,
        place_is_told=stacks is not None and "hang_here" in stacks[1],
        health=health,
        code=code,
    )


def _ask(url: str, within: float) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=within) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["detail"]
