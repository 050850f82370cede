"""The recording: every reading and every move, a JSON object a line.

It is what `pgbreaker simulate` replays against other thresholds. A line holds what is
shown anyway, and no secret: neither addresses nor queries.

A disk that hangs must hold back nothing: a thread of its own writes, from a queue of so
many; what finds it full is counted and left out.
"""

import asyncio
import json
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, fields
from io import FileIO
from pathlib import Path
from typing import Any, Final, TypeAlias

from pgbreaker.clock import Clock
from pgbreaker.core.plan import RecordPlan, TargetPlan
from pgbreaker.core.policy import Policy
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Cause, Evidence, State, Transition
from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.hub import Event

log = logging.getLogger(__name__)

SCHEMA: Final = 1
"""Of the lines; a recording of a later one is not read."""

_QUEUED: Final = 20_000  # events; at a thousand targets, some seconds
_AT_ONCE: Final = 500  # lines to one write
_PARTING: Final[Seconds] = 2.0
_AGAIN: Final[Seconds] = 5.0  # after the disk refused
_LONGEST: Final = 16 * 1024  # bytes of a line; more is rows that nobody judges by

# -- What is written ---------------------------------------------------------------


def begun(
    targets: Iterable[TargetPlan], clock: Clock, version: str, *, goes_on: bool
) -> dict[str, Any]:
    """The first line of a file, and of each run in it: whose clock follows, and by which
    rules it was judged.

    Args:
        goes_on: Whether breakers have seen more than what follows.
    """
    return {
        "kind": "begun",
        "schema": SCHEMA,
        "version": version,
        "at": clock.now(),
        "wall": clock.wall(),
        "goes_on": goes_on,
        "targets": {
            plan.name: {
                "operations": plan.operations,
                "policy": asdict(plan.policy),
                "probes": {n: {"limit": p.limit} for n, p in plan.probes.items()},
            }
            for plan in targets
        },
    }


def of_reading(reading: Reading, told: Seconds) -> dict[str, Any]:
    """The line of a reading; what is as usual is left out.

    Args:
        told: Moment at which breakers were told.
    """
    line: dict[str, Any] = {
        "kind": "reading",
        "target": reading.target,
        "probe": reading.probe,
        "at": round(reading.at, 6),
        "took": round(reading.took, 6),
        "told": round(told, 6),
        "finding": reading.finding.value,
    }
    if reading.judged:
        line["judged"] = True
    if reading.confirmed:
        line["confirmed"] = True
    if reading.evidence is not None:
        line["evidence"] = _evidence(reading.evidence)
    if reading.values:
        line["values"] = {
            name: [dict(row) for row in value] if isinstance(value, tuple) else value
            for name, value in reading.values.items()
        }
    return line


def of_move(move: Transition) -> dict[str, Any]:
    """The line of a move."""
    return {
        "kind": "move",
        "breaker": move.breaker,
        "from": move.before.value,
        "to": move.after.value,
        "cause": move.cause.value,
        "reason": move.reason,
        "at": round(move.at, 6),
        "retry_after": round(move.retry_after, 6),
        "override": None if move.override is None else move.override.value,
    }


def _evidence(seen: Evidence) -> dict[str, Any]:
    return {name: value for name, value in asdict(seen).items() if value}


def _line(event: dict[str, Any]) -> bytes:
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"), default=str)
    if len(text) > _LONGEST and "values" in event:
        values = event["values"].items()
        scalars = {n: v for n, v in values if not isinstance(v, list)}
        return _line({**event, "values": scalars})
    return text.encode() + b"\n"


_Queued: TypeAlias = tuple[Reading | Transition | dict[str, Any], Seconds]
"""What is to be written, and the moment at which it was told."""


class Recorder:
    """Writes what the hub tells to a file, of which the one before is kept; a sink.

    Attributes:
        failures: Times that the disk refused.
    """

    def __init__(
        self,
        plan: RecordPlan,
        targets: Iterable[TargetPlan],
        clock: Clock,
        version: str,
    ) -> None:
        # Each counted up by one thread alone, or what both count at once would be lost.
        self._refused = 0  # for want of room in the queue
        self._unwritten = 0  # by the disk
        self.failures = 0
        self._clock = clock
        self._version = version
        self._targets = tuple(targets)
        self._queue: queue.Queue[_Queued | None] = queue.Queue(_QUEUED)
        self._file = _File(plan, self._head)
        self._goes_on = False
        self._ending = threading.Event()
        self._writing = threading.Thread(
            target=self._write, name="recording", daemon=True
        )

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        if isinstance(event, Reading | Transition):
            self._put((event, self._clock.now()))

    def turn(self, targets: Iterable[TargetPlan]) -> None:
        """Go on by the rules of a configuration that was read anew."""
        self._targets = tuple(targets)
        self._put((self._head(), self._clock.now()))

    def _head(self) -> dict[str, Any]:
        head = begun(self._targets, self._clock, self._version, goes_on=self._goes_on)
        self._goes_on = True
        return head

    def _put(self, queued: _Queued) -> None:
        try:
            self._queue.put_nowait(queued)
        except queue.Full:
            self._refused += 1

    @property
    def dropped(self) -> int:
        """Events that were left out: too many waited, or the disk refused."""
        return self._refused + self._unwritten

    @property
    def waiting(self) -> int:
        """Events that wait to be written."""
        return self._queue.qsize()

    def start(self) -> None:
        """Begin to write."""
        self._writing.start()

    def close(self, within: Seconds = _PARTING) -> None:
        """Write what is still to be written, as far as the disk lets us, and end."""
        self._ending.set()
        with suppress(queue.Full):  # then it is awake
            self._queue.put_nowait(None)
        self._writing.join(within)

    # In the thread.

    def _write(self) -> None:
        while not (self._ending.is_set() and self._queue.empty()):
            events = list(self._take())
            try:
                self._file.write(b"".join(map(_written, events)))
            except OSError as error:
                self._fail(error, len(events))
        self._file.close()

    def _take(self) -> Iterator[_Queued]:
        first = self._queue.get()
        if first is not None:
            yield first
        for _ in range(_AT_ONCE):
            try:
                event = self._queue.get_nowait()
            except queue.Empty:
                return
            if event is not None:
                yield event

    def _fail(self, error: OSError, lost: int) -> None:
        if self.failures == 0:
            log.error(
                "cannot record to %s: %s",
                self._file.path,
                (error.strerror or str(error)).lower(),
            )
        self._unwritten += lost
        self.failures += 1
        self._file.close()
        self._ending.wait(_AGAIN)


def _written(queued: _Queued) -> bytes:
    event, told = queued
    match event:
        case Reading():
            return _line(of_reading(event, told))
        case Transition():
            return _line(of_move(event))
        case _:
            return _line(event)


class _File:
    """A file that takes half of what may be taken; then it is the one before."""

    def __init__(self, plan: RecordPlan, head: Callable[[], dict[str, Any]]) -> None:
        self.path = plan.path
        self._most = max(plan.max_size // 2, 1)
        self._head = head
        self._open: FileIO | None = None
        self._size = 0

    def write(self, raw: bytes) -> None:
        """Append *raw*.

        Raises:
            OSError: The disk refused.
        """
        if not raw:
            return
        if self._open is None:
            self._begin()
        elif self._size + len(raw) > self._most:
            self.close()
            os.replace(self.path, before(self.path))
            self._begin()
        assert self._open is not None
        self._append(raw)

    def _begin(self) -> None:
        # Others on this machine are not to read what is known of our servers.
        number = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # Not buffered: what is told to the kernel outlives us.
        self._open = FileIO(number, "ab")
        self._size = os.fstat(number).st_size
        # A last line that was cut must not take this one with it.
        self._append((b"\n" if self._size else b"") + _line(self._head()))

    def _append(self, raw: bytes) -> None:
        assert self._open is not None
        left = memoryview(raw)
        while left:
            done = self._open.write(left)
            self._size += done
            left = left[done:]

    def close(self) -> None:
        """Close it; the next write opens it anew."""
        opened, self._open = self._open, None
        if opened is not None:
            opened.close()


def before(path: Path) -> Path:
    """Where the file is that was full before *path* was begun."""
    return path.with_name(path.name + ".1")


@asynccontextmanager
async def recording(
    plan: RecordPlan, targets: Iterable[TargetPlan], clock: Clock, version: str
) -> AsyncIterator[Recorder]:
    """Record for the time of the block."""
    recorder = Recorder(plan, targets, clock, version)
    recorder.start()
    try:
        yield recorder
    finally:
        await asyncio.to_thread(recorder.close)


# -- What is read ------------------------------------------------------------------


class RecordingError(PgbreakerError):
    """A file is no recording, or of a later version."""


@dataclass(frozen=True, slots=True)
class Rules:
    """By which rules a target was judged.

    Attributes:
        operations: What it had a breaker for.
        policy: The rules of those.
    """

    operations: tuple[str, ...]
    policy: Policy


@dataclass(frozen=True, slots=True)
class Begun:
    """From here on another run, or other rules.

    Attributes:
        at: Wall time, in seconds since the epoch, as all moments of a recording.
        goes_on: Whether breakers have seen more than what follows.
        targets: Name -> its rules.
    """

    at: float
    goes_on: bool
    targets: Mapping[str, Rules]


@dataclass(frozen=True, slots=True)
class Heard:
    """A reading, and when the breakers were told of it.

    Attributes:
        at: Wall time, in seconds since the epoch.
    """

    reading: Reading
    at: float


Recorded: TypeAlias = Begun | Heard | Transition


def read(path: Path) -> Iterator[Recorded]:
    """Read a recording, with the file before it where that is there, in order.

    All moments are made wall time, which runs of several processes share; within a run
    they keep the distances of its own clock.

    Raises:
        RecordingError: It is none.
    """
    files = [file for file in (before(path), path) if file == path or file.exists()]
    offset: float | None = None
    for file in files:
        for number, line in enumerate(_lines(file), 1):
            # The last line may have been cut, by an end of the process or of the disk.
            told = _parsed(line)
            if told is not None and told.get("kind") == "begun":
                _check(told, file)
                offset = told["wall"] - told["at"]
            if offset is None:
                raise RecordingError(f"{file}:{number}: no recording of pgbreaker")
            if told is None:
                continue
            try:
                event = _event(told, offset)
            except (KeyError, ValueError, TypeError):
                raise RecordingError(
                    f"{file}:{number}: no line of a recording"
                ) from None
            if event is not None:
                yield event


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as opened:
            yield from opened
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RecordingError(f"{file}: cannot be read: {reason}") from None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _check(told: Mapping[str, Any], file: Path) -> None:
    if told.get("schema") != SCHEMA:
        raise RecordingError(
            f"{file}: a recording of pgbreaker {told.get('version')}, which this version"
            " does not read"
        )


def _event(told: Mapping[str, Any], offset: float) -> Recorded | None:
    at = told["at"] + offset if "at" in told else 0.0
    match told.get("kind"):
        case "begun":
            return Begun(
                at,
                bool(told["goes_on"]),
                {name: _rules(rules) for name, rules in told["targets"].items()},
            )
        case "reading":
            return Heard(_reading(told, at), told["told"] + offset)
        case "move":
            override = told["override"]
            return Transition(
                told["breaker"],
                State(told["from"]),
                State(told["to"]),
                Cause(told["cause"]),
                told["reason"],
                at,
                0,
                told["retry_after"],
                override=None if override is None else State(override),
            )
    return None  # of a later minor version


def _reading(told: Mapping[str, Any], at: float) -> Reading:
    return Reading(
        told["target"],
        told["probe"],
        at,
        told["took"],
        Finding(told["finding"]),
        values=_values(told.get("values", {})),
        evidence=_seen(told.get("evidence")),
        confirmed=bool(told.get("confirmed")),
        judged=bool(told.get("judged")),
    )


def _rules(told: Mapping[str, Any]) -> Rules:
    known = {field.name for field in fields(Policy)}
    policy = {name: v for name, v in told["policy"].items() if name in known}
    return Rules(tuple(told["operations"]), Policy(**policy))


def _values(told: Mapping[str, Any]) -> dict[str, Any]:
    return {n: tuple(v) if isinstance(v, list) else v for n, v in told.items()}


def _seen(told: Mapping[str, Any] | None) -> Evidence | None:
    return None if told is None else Evidence(**told)
