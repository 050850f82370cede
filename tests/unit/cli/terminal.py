"""A terminal that commands are run on, and what they draw on it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager


class Terminal:
    """A terminal that a command draws on.

    Attributes:
        drawn: All that was written to it.
    """

    def __init__(self, number: int, process: subprocess.Popen) -> None:
        self._number = number
        self.process = process
        self.drawn = ""

    def until(self, word: str, *, columns: int = 1000, within: float = 10.0) -> None:
        """Read until *word* was drawn, and nothing wider than *columns*."""
        ends = time.monotonic() + within
        while not self._shows(word, columns):
            left = ends - time.monotonic()
            assert left > 0, (word, self.drawn)
            if select.select([self._number], [], [], left)[0]:
                self._read()

    def _shows(self, word: str, columns: int) -> bool:
        fits = all(len(line) <= columns for line in self.shown)
        return fits and word in self._last

    def _read(self) -> None:
        try:
            raw = os.read(self._number, 65536)
        except OSError:  # its other end was closed
            raw = b""
        assert raw, self.drawn
        self.drawn += raw.decode()

    def type(self, text: str) -> None:
        """What somebody types who sits there."""
        os.write(self._number, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._number, termios.TIOCSWINSZ, size)
        self.process.send_signal(signal.SIGWINCH)

    @property
    def shown(self) -> list[str]:
        """The lines of the last drawing."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._last).splitlines()

    @property
    def _last(self) -> str:
        return self.drawn.rpartition("\x1b[H")[2]


@contextmanager
def on_terminal(*words: str, columns: int = 100, rows: int = 24):
    """Run a command on a terminal of its own."""
    ours, theirs = pty.openpty()
    size = struct.pack("HHHH", rows, columns, 0, 0)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    env = {n: v for n, v in os.environ.items() if n not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pgbreaker", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)
