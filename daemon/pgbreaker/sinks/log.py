"""The log: one line an event, for a terminal, a journal or a collector.

Same facts as the metrics, never the only place. A probe that fails is the server's
affair, and so at most INFO; ERROR is for faults of ours.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from pgbreaker.core.reading import Reading
from pgbreaker.core.states import State, Transition
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event

log = logging.getLogger("pgbreaker.events")

# https://www.freedesktop.org/software/systemd/man/latest/sd-daemon.html
_PRIORITY: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


class LogSink:
    """Writes each transition and notice, and readings for whoever debugs; a sink."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        match event:
            case Transition():
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
            case _:
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


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an event's own fields beside the usual ones."""

    def format(self, record: logging.LogRecord) -> str:
        """Write *record*; a traceback is one string in it."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
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


def configure(
    form: str = "auto",
    level: str = "INFO",
    *,
    stream: TextIO | None = None,
    env: Mapping[str, str] = os.environ,
) -> None:
    """Send the log of the process to stderr.

    Args:
        form: ``json``, ``console``, or ``auto``: console on a terminal.
        level: Name of the lowest level shown.
        stream: Where to write instead of stderr.
    """
    stream = stream or sys.stderr
    if form == "auto":
        form = "console" if stream.isatty() else "json"
    formatter: logging.Formatter = JsonFormatter()
    if form == "console":
        formatter = logging.Formatter(
            "%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"
        )
    if env.get("JOURNAL_STREAM") and stream is sys.stderr:
        formatter = JournalFormatter(formatter)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Libraries speak at their own lengths; what they complain of we tell ourselves.
    for chatty in ("aiohttp.access", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
