"""The log: one line an event, for a terminal, a journal or a collector.

Same facts as the metrics, never the only place. A probe that fails is the server's
affair, and so at most INFO; ERROR is for faults of ours.

Nobody waits for the log: a thread of its own writes, from a queue of so many lines. A
pipe that nobody reads any more costs lines, and not the daemon.
"""

import asyncio
import json
import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, TextIO

from pgbreaker.core.reading import Reading
from pgbreaker.core.states import State, Transition
from pgbreaker.core.units import Seconds
from pgbreaker.core.wall import moment
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event, Notice

log = logging.getLogger("pgbreaker.events")

# https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html
_PRIORITY: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}

_QUEUED: Final = 10_000  # lines; as many as the tasks of a thousand targets dumped
_AT_ONCE: Final = 500  # lines to one write
_PARTING: Final[Seconds] = 1.0
_REPEATS: Final[Seconds] = 60.0  # in which the same error is written once, and counted


class LogSink:
    """Writes each transition and notice, and readings for whoever debugs; a sink."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        match event:
            case Transition() if self._board.breaker(event.breaker) is not None:
                target, operation = self._board.home(event.breaker)
                # For callers it is good news only when they get through again.
                is_good = event.after in (State.CLOSED, State.HALF_OPEN)
                log.log(
                    logging.INFO if is_good else logging.WARNING,
                    "breaker %s: %s -> %s: %s",
                    event.breaker,
                    event.before.value,
                    event.after.value,
                    event.reason,
                    extra={"fields": _of_transition(event, target, operation)},
                )
            case Reading():
                if log.isEnabledFor(logging.DEBUG):
                    log.debug(
                        "probe %s of %s: %s in %.1f ms",
                        event.probe,
                        event.target,
                        event.finding.value,
                        event.took * 1000,
                        extra={"fields": _of_reading(event)},
                    )
            case Notice():
                log.warning(
                    "%s: %s",
                    event.target,
                    event.text,
                    extra={"fields": {"event": event.code, "target": event.target}},
                )


def _of_transition(move: Transition, target: str, operation: str) -> dict[str, Any]:
    evidence = move.evidence
    return {
        "event": "transition",
        "target": target,
        "operation": operation,
        "breaker": move.breaker,
        "from": move.before.value,
        "to": move.after.value,
        "cause": move.cause.value,
        "reason": move.reason,
        "sqlstate": evidence.sqlstate if evidence else None,
        "probe": evidence.probe if evidence else None,
        "seq": move.era,
        "retry_after_seconds": round(move.retry_after, 3),
    }


def _of_reading(reading: Reading) -> dict[str, Any]:
    return {
        "event": "reading",
        "target": reading.target,
        "probe": reading.probe,
        "outcome": reading.finding.value,
        "took_seconds": round(reading.took, 6),
        "sqlstate": reading.evidence.sqlstate if reading.evidence else None,
    }


def tell_fall(log: logging.Logger, task: "asyncio.Task[None]") -> None:
    """Say at once that a task fell which ought not to end; to be called when it has.

    Args:
        log: Of whoever began it.
    """
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical(
            "the %s fell, which is a fault of ours", task.get_name(), exc_info=error
        )


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an event's own fields beside the usual ones."""

    def format(self, record: logging.LogRecord) -> str:
        """Write *record*; a traceback is one string in it."""
        line = {
            "time": moment(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class JournalFormatter(logging.Formatter):
    """Wraps another formatter's lines with the priority that journald reads."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Write *record*, each of its lines with ``<n>`` before it."""
        prefix = f"<{_PRIORITY.get(record.levelname, 6)}>"
        lines = self._inner.format(record).splitlines()
        return "\n".join(prefix + line for line in lines)


@dataclass(slots=True)
class _Repeated:
    """An error that may come again.

    Attributes:
        since: Moment at which it was written.
        count: How often it came since then.
    """

    record: logging.LogRecord
    since: Seconds
    count: int = 0

    def told(self, now: Seconds) -> logging.LogRecord:
        """The line that says how often it came."""
        often = (
            f"{self.record.getMessage()} (x{self.count} in {now - self.since:.0f} s)"
        )
        told = copy(self.record)
        told.msg, told.args, told.exc_info, told.exc_text = often, None, None, None
        told.created = time.time()
        return told


class Scribe(logging.Handler):
    """Has a thread write the lines, so that who does not read them holds up nobody.

    An error that comes again and again is written once a minute, with how often it came.

    Args:
        descriptor: Where to write: a file, a terminal, a pipe.
        most: Lines that may wait.
    """

    def __init__(self, descriptor: int, most: int = _QUEUED) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._most = most
        # Each is counted up by one side alone: the same number counted up by both would
        # lose what they count at once.
        self._refused = 0  # by who logs, under the handler's lock
        self._unwritten = 0  # by the thread
        self._told = 0  # of both
        self._repeated: dict[tuple[str, str], _Repeated] = {}
        # Unbounded and counted: this queue alone may be put to while it is put to, as
        # in a destructor that logs.
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writing = threading.Thread(target=self._write, name="log", daemon=True)
        self._writing.start()

    @property
    def dropped(self) -> int:
        """Lines that were left out: the queue was full, or nobody could read."""
        return self._refused + self._unwritten

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record written soon."""
        self._tell_repeated(time.monotonic())
        if record.levelno < logging.ERROR or not self._is_repeated(record):
            self._put(record)

    def _is_repeated(self, record: logging.LogRecord) -> bool:
        """Whether the same was written just now; then it is counted."""
        key = (record.name, record.getMessage())
        known = self._repeated.get(key)
        if known is None:
            self._repeated[key] = _Repeated(record, time.monotonic())
            return False
        known.count += 1
        return True

    def _tell_repeated(self, now: Seconds, within: Seconds = _REPEATS) -> None:
        """Say how often came what was written *within* seconds ago or earlier."""
        over = [k for k, known in self._repeated.items() if now - known.since >= within]
        for key in over:
            known = self._repeated.pop(key)
            if known.count:
                self._put(known.told(now))

    def _put(self, record: logging.LogRecord) -> None:
        if self._queue.qsize() >= self._most:
            self._refused += 1
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler does: it ends nobody
            self.handleError(record)
            return
        self._queue.put(f"{line}\n")

    def close(self) -> None:
        """Write what waits, as far as that goes in a moment, and end."""
        if self._writing.is_alive():
            self._tell_repeated(time.monotonic(), within=0.0)
            self._queue.put(None)
            self._writing.join(_PARTING)
        super().close()

    # In the thread.

    def _write(self) -> None:
        is_over = False
        while not is_over:
            lines, is_over = self._take()
            lost = self.dropped - self._told
            text = "".join(lines) + (self._confession(lost) if lost else "")
            try:
                self._write_all(memoryview(text.encode("utf-8", "backslashreplace")))
            except OSError:  # nobody can read it: closed, or the disk is full
                self._unwritten += len(lines)
            else:
                self._told += lost

    def _take(self) -> tuple[list[str], bool]:
        """Take what waits. Returns it, and whether nothing comes after it."""
        lines: list[str] = []
        line = self._queue.get()
        while line is not None:
            lines.append(line)
            if len(lines) >= _AT_ONCE:
                return lines, False
            try:
                line = self._queue.get_nowait()
            except queue.Empty:
                return lines, False
        return lines, True

    def _confession(self, lost: int) -> str:
        record = logging.makeLogRecord(
            {
                "name": __name__,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "%d lines of the log were left out: nobody took them in time",
                "args": (lost,),
            }
        )
        return f"{self.format(record)}\n"

    def _write_all(self, left: memoryview) -> None:
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # whoever shares the terminal may have made it so
                select.select((), (self._descriptor,), ())


def dropped() -> int:
    """Lines of the process's log that were left out."""
    scribes = (h for h in logging.getLogger().handlers if isinstance(h, Scribe))
    return sum(scribe.dropped for scribe in scribes)


def configure(
    form: str = "auto",
    level: str = "INFO",
    *,
    stream: TextIO | None = None,
    env: Mapping[str, str] = os.environ,
) -> None:
    """Send the log of the process to stderr; called again, go on by other rules.

    Args:
        form: ``json``, ``console``, or ``auto``: console on a terminal.
        level: Name of the lowest level shown.
        stream: Where to write instead, at once.
    """
    root = logging.getLogger()
    handler = _handler(root, stream)
    handler.setFormatter(_formatter(form, stream or sys.stderr, env))
    if handler not in root.handlers:
        logging.basicConfig(handlers=[handler], force=True)
    root.setLevel(level)
    # Libraries speak at their own lengths; what they complain of we tell ourselves.
    for chatty in ("aiohttp.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _handler(root: logging.Logger, stream: TextIO | None) -> logging.Handler:
    if stream is not None:
        return logging.StreamHandler(stream)
    known = (handler for handler in root.handlers if isinstance(handler, Scribe))
    return next(known, None) or Scribe(sys.stderr.fileno())


def _formatter(form: str, stream: TextIO, env: Mapping[str, str]) -> logging.Formatter:
    if form == "auto":
        form = "console" if stream.isatty() else "json"
    formatter: logging.Formatter = JsonFormatter()
    if form == "console":
        formatter = logging.Formatter(
            "%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"
        )
    if _is_journal(stream, env):
        formatter = JournalFormatter(formatter)
    return formatter


def _is_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether what is written there goes to the journal; the variable alone is inherited
    by whatever a service starts, wherever that writes.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#%24JOURNAL_STREAM
    """
    said = env.get("JOURNAL_STREAM")
    if not said or stream is not sys.stderr:
        return False
    at = os.fstat(stream.fileno())
    return said == f"{at.st_dev}:{at.st_ino}"
