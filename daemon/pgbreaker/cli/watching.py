"""`pgbreaker watch`: the live table in a terminal."""

import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import click

from pgbreaker.cli import options
from pgbreaker.cli.daemon import Asked, Told
from pgbreaker.cli.ending import EndError
from pgbreaker.cli.following import LOST, follow
from pgbreaker.cli.looking import SILENCE, shown, why, written
from pgbreaker.cli.table import clip_line, shows_colours, stated
from pgbreaker.core.units import Seconds, lasting

_STALE: Final[Seconds] = 12.0
"""Seconds without a word of the daemon after which what is shown is said to be old: two
heartbeats have not come by then."""

# https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # the other screen, without a cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_TO_LINE_END: Final = "\x1b[K"
_TO_END: Final = "\x1b[J"


@click.command()
@options.asks
def watch(daemon: Asked) -> None:
    """Show the breakers as they move, until Ctrl-C.

    In a terminal it is a table that is drawn anew; into a pipe goes a line for each
    move.
    """
    is_screen = sys.stdout.isatty()
    try:
        if is_screen:
            _Screen(daemon, sys.stdout).run()
        else:
            _tell_moves(daemon)
    except KeyboardInterrupt:
        return


# -- Lines -------------------------------------------------------------------------


def _tell_moves(daemon: Asked) -> None:
    known: dict[str, str] = {}
    for told in follow(daemon, silence=SILENCE):
        if told.kind == "snapshot":
            states = _states(told.json())
        elif told.kind == LOST:
            click.echo(f"{written(datetime.now(UTC))}  {told.data}")
            continue
        else:
            states = _states_after(told)
        for name, (state, reason, since) in states.items():
            if known.get(name) != state:
                click.echo(f"{since}  {name}  {stated(state)}  {reason}")
            known[name] = state


def _states(status: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {
        breaker["name"]: (breaker["state"], why(breaker), breaker["since"])
        for target in status["targets"]
        for breaker in target["breakers"]
    }


def _states_after(told: Told) -> dict[str, tuple[str, str, str]]:
    """The state that an event left its breaker in; nothing, where it has none."""
    if not told.data or told.kind in ("comment", "heartbeat", "bye"):
        return {}
    event = told.json()
    seen = event.get("breaker_status")
    if seen is None:
        return {}
    return {seen["name"]: (seen["state"], why(seen), seen["since"])}


# -- A table -----------------------------------------------------------------------


class _Screen:
    """A table on a terminal of its own, drawn anew when there is news.

    One thread reads the stream, this one draws: so a key, a new size, and time that
    passes are seen at once, whatever the daemon does.
    """

    def __init__(self, daemon: Asked, out: TextIO) -> None:
        self._daemon = daemon
        self._out = out
        # Simple: a signal puts into it, too, at any moment.
        self._news: queue.SimpleQueue[Told | EndError | None] = queue.SimpleQueue()
        self._status: Mapping[str, Any] | None = None
        self._heard = time.monotonic()
        self._lost: str | None = None

    def run(self) -> None:
        """Draw until interrupted.

        Raises:
            EndError: The daemon will not tell us anything.
        """
        self._status = self._daemon.get("/api/v1/status", "targets", "time")
        reading = threading.Thread(target=self._read, daemon=True)
        reading.start()
        with _own_screen(self._out), _when_resized(lambda: self._news.put(None)):
            while True:
                self._draw()
                self._take()

    def _read(self) -> None:
        try:
            for told in follow(self._daemon, silence=SILENCE):
                self._news.put(told)
        except EndError as error:
            self._news.put(error)

    def _take(self) -> None:
        """Wait for news, or a second; take all that there is."""
        try:
            news = [self._news.get(timeout=1.0)]
        except queue.Empty:
            return
        while not self._news.empty():
            news.append(self._news.get())
        for one in news:
            self._note(one)
        # What moved is only half of it: how targets are, and why, is not in the event.
        if self._lost is None and any(news):
            self._refresh()

    def _note(self, news: Told | EndError | None) -> None:
        match news:
            case EndError():
                raise news
            case Told() if news.kind == LOST:
                self._lost = news.data
            case Told():
                self._lost, self._heard = None, time.monotonic()
                if news.kind == "snapshot":
                    self._status = news.json()

    def _refresh(self) -> None:
        try:
            self._status = self._daemon.get("/api/v1/status", "targets", "time")
        except EndError as error:
            self._lost = error.message

    def _draw(self) -> None:
        width, height = shutil.get_terminal_size()
        lines = list(self._lines(width))
        if len(lines) > height:
            left = len(lines) - height + 1
            lines = [*lines[: height - 1], f"… {left} more lines; pgbreaker status"]
        text = "".join(f"{line}{_TO_LINE_END}\n" for line in lines[:-1])
        last = f"{lines[-1]}{_TO_LINE_END}" if lines else ""
        self._out.write(f"{_HOME}{text}{last}{_TO_END}")
        self._out.flush()

    def _lines(self, width: int) -> Iterator[str]:
        silent = time.monotonic() - self._heard
        head = f"{self._daemon.place.url}  {datetime.now():%H:%M:%S}  Ctrl-C ends"  # noqa: DTZ005 - for who sits here
        if self._lost is not None or silent > _STALE:
            why = f": {self._lost}" if self._lost else ""
            head = f"CONNECTION LOST, what is shown is {lasting(silent)} old{why}"
            head = click.style(head, reverse=True) if shows_colours() else head
        yield clip_line(head, width)
        yield ""
        if self._status is not None:
            yield from shown(self._status, width=width)


@contextmanager
def _own_screen(out: TextIO) -> Iterator[None]:
    """Use the terminal's other screen, and leave the first as it was."""
    out.write(_ENTER)
    try:
        yield
    finally:
        out.write(_LEAVE)
        out.flush()


@contextmanager
def _when_resized(tell: Callable[[], None]) -> Iterator[None]:
    before = signal.signal(signal.SIGWINCH, lambda _number, _frame: tell())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
