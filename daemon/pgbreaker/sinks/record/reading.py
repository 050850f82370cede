"""From lines to what they tell."""

import gzip
import heapq
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import fields
from io import BufferedIOBase
from pathlib import Path
from typing import Any, Final, TypeAlias

from pgbreaker.core.policy import Policy
from pgbreaker.core.reading import NOTHING, Finding, Reading, Row, Seen, Value
from pgbreaker.core.states import Cause, Evidence, State, Transition
from pgbreaker.sinks.record.shelf import full_files, live_name
from pgbreaker.sinks.record.told import (
    SCHEMA,
    TICKS,
    Asked,
    Begun,
    Heard,
    Recorded,
    RecordingError,
    Rules,
    Unread,
)

_MAGIC: Final = b"\x1f\x8b"  # of gzip
_HEADS: Final = 4096  # bytes in which a recording shows that it is one
_FIRST: Final = 5  # place of the first value, as in `writing`
_Json: TypeAlias = Any  # what json.loads returns
_NONSENSE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read(path: Path) -> Iterator[Recorded]:
    """Read a recording, with the files before it where these are there, in order.

    All moments are made wall time, which runs of several processes share; within a run
    they keep the distances of its own clock.

    Raises:
        RecordingError: It is none.
    """
    with ExitStack() as stack:
        # First the last: the daemon may put it aside while those before it are read.
        last = _open(path, may_be_gone=bool(full_files(path)))
        if last is not None:
            stack.enter_context(last)
        for one in full_files(path):
            raw = _open(one.path, may_be_gone=True)
            if raw is not None:
                with raw:
                    if last is None or not os.path.sameopenfile(
                        raw.fileno(), last.fileno()
                    ):
                        yield from Reader(one.path).read(raw)
        if last is not None:
            yield from Reader(path).read(last)


def read_all(paths: Path | Iterable[Path]) -> Iterator[Recorded]:
    """Read several recordings, merged by time; of a directory all that are in it.

    Raises:
        RecordingError: One of these is none, or a directory has none in it.
    """
    given = [paths] if isinstance(paths, Path) else paths
    found = dict.fromkeys(file for path in given for file in _recordings(path))
    return heapq.merge(*map(read, found), key=lambda event: event.at)


def _recordings(path: Path) -> Iterator[Path]:
    """The recordings that *path* stands for, each by the name of its last file."""
    if not path.is_dir():
        yield path
        return
    try:
        files = sorted(file for file in path.iterdir() if _is_recording(file))
    except OSError as error:
        raise _unreadable(path, error) from None
    if not files:
        raise RecordingError(f"{path}: no recording of pgbreaker in it")
    names = {file.name for file in files}
    for file in files:
        # Without the last one, as when full ones were copied, each is read by itself.
        if live_name(file.name) not in names:
            yield file


def _is_recording(file: Path) -> bool:
    if not file.is_file():
        return False
    raw = _open(file, may_be_gone=True)
    if raw is None:
        return False
    with raw:
        try:
            return raw.read(_HEADS).lstrip(b"\n").startswith(b'{"kind":"begun"')
        except (EOFError, OSError, zlib.error):
            return False


def _open(file: Path, *, may_be_gone: bool) -> BufferedIOBase | None:
    """Open a file of a recording. None: it has gone.

    Raises:
        RecordingError: It cannot be opened.
    """
    for name in (file, file.with_name(f"{file.name}.gz")):
        try:
            raw = name.open("rb")
            if not raw.peek(len(_MAGIC)).startswith(_MAGIC):
                return raw
            raw.close()
            return gzip.open(name, "rb")
        except FileNotFoundError as error:
            if not may_be_gone:
                raise _unreadable(file, error) from None
            # It may have been compressed meanwhile.
        except OSError as error:
            raise _unreadable(file, error) from None
    return None


def _unreadable(file: Path, error: OSError) -> RecordingError:
    reason = (error.strerror or str(error)).lower()
    return RecordingError(f"{file}: cannot be read: {reason}")


# -- One file ----------------------------------------------------------------------


class Reader:
    """Reads the lines of one file, which begins with a head.

    Args:
        path: What the file is called in what is said of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset: float | None = None  # of wall time
        self._now = 0  # ticks at which streams began
        self._streams: dict[int, _Stream] = {}
        self._is_older = False  # by schema 1, each line of which stands for itself
        self._at = 0.0
        self._first_lost = self._lost = 0

    def read(self, raw: BufferedIOBase) -> Iterator[Recorded]:
        """Read what *raw* holds, to its end.

        Raises:
            RecordingError: It is no recording.
        """
        number = 0
        try:
            for number, line in enumerate(raw, 1):
                yield from self._take(number, line)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            # One that was cut to nothing may have been a recording.
            if self._offset is None and not isinstance(error, EOFError):
                raise self._alien(1) from None
            yield from self._given_up()
            yield Unread(self._at, f"{self._path}:{number + 1}", None)
        except OSError as error:
            raise _unreadable(self._path, error) from None
        else:
            yield from self._given_up()

    def _alien(self, number: int) -> RecordingError:
        return RecordingError(f"{self._path}:{number}: no recording of pgbreaker")

    def _take(self, number: int, line: bytes) -> Iterator[Recorded]:
        told = _parsed(line)
        kind = told.get("kind") if isinstance(told, dict) else None
        if kind == "begun":
            assert isinstance(told, dict)
            self._check(told)
        elif self._offset is None:
            raise self._alien(number)
        # A line may have been cut, by an end of the process or of the disk.
        if told is None:
            self._lose(number, line)
            return
        if self._lost and kind not in ("begun", "anew"):
            self._lost += 1
            return
        yield from self._given_up()
        try:
            event = self._event(told, kind)
        except _NONSENSE:
            raise RecordingError(
                f"{self._path}:{number}: no line of a recording"
            ) from None
        if event is not None:
            self._at = event.at
            yield event

    def _lose(self, number: int, line: bytes) -> None:
        if not self._is_older and line.strip():
            self._first_lost = self._first_lost or number
            self._lost += 1

    def _given_up(self) -> Iterator[Unread]:
        # A line that was cut is the last of its run, and nothing was lost with it.
        if self._lost > 1:
            where = f"{self._path}:{self._first_lost}"
            yield Unread(self._at, where, self._lost)
        self._first_lost = self._lost = 0

    def _check(self, told: Mapping[str, Any]) -> None:
        schema = told.get("schema")
        if schema not in range(1, SCHEMA + 1):
            raise RecordingError(
                f"{self._path}: a recording of pgbreaker {told.get('version')}, which"
                " this version does not read"
            )
        self._is_older = schema == 1

    def _event(self, told: _Json, kind: _Json) -> Recorded | None:
        if isinstance(told, list):
            return self._of_stream(told)
        if kind in ("begun", "anew"):
            self._streams = {}
            self._now = round(told["at"] * TICKS)
        if kind == "begun":
            self._offset = told["wall"] - told["at"]
            return self._begun(told)
        assert self._offset is not None
        if kind == "reading":
            return _heard(told, self._offset)
        if kind == "move":
            return _move(told, self._offset)
        return None  # of a later minor version

    def _begun(self, told: Mapping[str, Any]) -> Begun:
        named, rules = told["targets"], told.get("rules")
        if rules is not None:
            rules = [_rules(one) for one in rules]
            targets = {name: rules[number] for name, number in named.items()}
        else:
            targets = {name: _rules(one) for name, one in named.items()}
        return Begun(float(told["wall"]), bool(told["goes_on"]), targets)

    def _of_stream(self, told: list[Any]) -> Heard | None:
        if told[0] == "stream":
            _, number, target, probe, every, places = told
            due = self._now
            if number in self._streams:
                due = self._streams[number].due
            self._streams[number] = _Stream(target, probe, every, due, places)
        elif not isinstance(told[0], str):
            assert self._offset is not None
            return self._streams[told[0]].heard(told, self._offset)
        return None  # of a later minor version


def _parsed(line: bytes) -> dict[str, Any] | list[Any] | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict | list) else None


class _Stream:
    """What was told last of a probe of a target.

    Attributes:
        due: Ticks at which its next reading is due.
    """

    def __init__(
        self, target: _Json, probe: _Json, every: _Json, due: int, places: list[Any]
    ) -> None:
        self._target, self._probe = _text(target), _text(probe)
        self._every, self.due = int(every), due
        self._names: list[str] = []
        self._columns: list[list[str] | None] = []
        for place in places:
            name, columns = place if isinstance(place, list) else (place, None)
            self._names.append(_text(name))
            self._columns.append(columns)
        self._cells: list[Any] = [None] * (_FIRST + len(self._names))

    def heard(self, told: list[Any], offset: float) -> Heard:
        """Take a line; returns what it tells."""
        late, took = int(told[1]), int(told[2])
        lag = told[3] if len(told) > 3 else 0
        for n in range(4, len(told), 2):
            self._put(told[n], told[n + 1])
        now = self.due + late
        self.due = now + self._every
        finding, judged, confirmed, seen, is_empty = self._cells[:_FIRST]
        reading = Reading(
            self._target,
            self._probe,
            (now - took - lag * (TICKS // 1000)) / TICKS + offset,
            took / TICKS,
            Finding(finding),
            values=NOTHING if is_empty else self._values(),
            evidence=seen,
            confirmed=bool(confirmed),
            judged=bool(judged),
        )
        return Heard(reading, now / TICKS + offset)

    def _put(self, place: _Json, cell: _Json) -> None:
        if not 0 <= place < len(self._cells):
            raise ValueError(place)
        if place == _FIRST - 2:
            cell = None if cell is None else _evidence(*cell)
        elif place >= _FIRST and isinstance(cell, list):
            cell = self._rows(self._cells[place], self._columns[place - _FIRST], cell)
        elif isinstance(cell, list | dict):
            raise ValueError(place)
        self._cells[place] = cell

    def _rows(
        self, old: _Json, columns: list[str] | None, told: list[Any]
    ) -> tuple[Row, ...]:
        if columns is None:
            raise ValueError(told)
        last = old if isinstance(old, tuple) else ()
        return tuple(
            last[n]
            if row == 0
            else _row(row, last[n] if n < len(last) else {}, columns)
            for n, row in enumerate(told)
        )

    def _values(self) -> Seen:
        return dict(zip(self._names, self._cells[_FIRST:], strict=True))


def _row(told: _Json, was: Row, columns: list[str]) -> Row:
    """Pairs, column and value, on top of what *was*; or an odd row as it is."""
    if isinstance(told, dict):
        return _odd(told)
    row = dict(was) if list(was) == columns else {}
    for n in range(0, len(told), 2):
        if told[n] < 0:
            raise ValueError(told)
        row[_text(columns[told[n]])] = _scalar(told[n + 1])
    if len(row) != len(columns):
        raise ValueError(told)
    return row


def _odd(told: Mapping[str, _Json]) -> Row:
    return {_text(name): _scalar(value) for name, value in told.items()}


def _scalar(value: _Json) -> Value:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(value)


def _text(value: _Json) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _evidence(
    code: _Json,
    text: _Json,
    sqlstate: _Json = None,
    probe: _Json = None,
    hint: _Json = 0.0,
) -> Evidence:
    return Evidence(
        _text(code),
        _text(text),
        None if sqlstate is None else _text(sqlstate),
        None if probe is None else _text(probe),
        float(hint),
    )


# -- Lines that are objects --------------------------------------------------------


def _heard(told: Mapping[str, Any], offset: float) -> Heard:
    """The line of a reading by schema 1."""
    seen = told.get("evidence")
    reading = Reading(
        _text(told["target"]),
        _text(told["probe"]),
        told["at"] + offset,
        float(told["took"]),
        Finding(told["finding"]),
        values={
            name: tuple(map(_odd, value)) if isinstance(value, list) else _scalar(value)
            for name, value in told.get("values", {}).items()
        },
        evidence=None if seen is None else _evidence(**{"text": "", **seen}),
        confirmed=bool(told.get("confirmed")),
        judged=bool(told.get("judged")),
    )
    return Heard(reading, told["told"] + offset)


def _move(told: Mapping[str, Any], offset: float) -> Transition:
    override = told["override"]
    return Transition(
        _text(told["breaker"]),
        State(told["from"]),
        State(told["to"]),
        Cause(told["cause"]),
        _text(told["reason"]),
        told["at"] + offset,
        0,
        float(told["retry_after"]),
        override=None if override is None else State(override),
    )


def _rules(told: Mapping[str, Any]) -> Rules:
    known = {field.name for field in fields(Policy)}
    policy = {name: v for name, v in told["policy"].items() if name in known}
    asked = {field.name for field in fields(Asked)}
    return Rules(
        tuple(map(_text, told["operations"])),
        Policy(**policy),
        {
            _text(name): Asked(**{key: v for key, v in one.items() if key in asked})
            for name, one in told.get("probes", {}).items()
        },
    )
