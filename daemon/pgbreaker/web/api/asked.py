"""What is asked, read strictly: whatever is wrong with it is told at once, all of it."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from aiohttp import web

from pgbreaker.core.units import Seconds, duration, lasting
from pgbreaker.monitor.desk import AUTHOR, RefusedError, one_line
from pgbreaker.web.problems import WrongError, meant, quoted
from pgbreaker.web.route import WHO

LAST_ID: Final = 253_402_300_799_999
"""The largest id that an event can have: they are times, and years have four digits."""

SOMEONE: Final = "someone on this machine"
"""Who did it, where nobody has to say who they are."""

DURATION: Final = r"([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+"
"""How a duration is written, as a pattern."""

DURATION_LENGTH: Final = 60
"""Characters that one has at most."""

T = TypeVar("T")

_RFC3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_AS_TIME: Final = "write it like 2026-11-26T03:12:00Z"
_ID: Final = re.compile(r"\d{1,15}", re.ASCII)
_DURATION: Final = re.compile(DURATION)
_LOST_PLUS: Final = re.compile(r" (\d\d:\d\d)$")
_LONGEST: Final = 200  # characters of what is searched for


def moment_of(text: str) -> float:
    """Read a moment as RFC 3339 writes it: wall time, in seconds since the epoch.

    Raises:
        ValueError: It is none.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{quoted(text)} is no time; {_AS_TIME}")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{quoted(text)} is no time: {error}") from None


def duration_of(value: object) -> Seconds:
    """Read a duration as programs write it: no blanks in it, and no odd digits.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, str) and not _DURATION.fullmatch(value):
        raise ValueError(f"{quoted(value)} is no duration; write it like 30m or 1m30s")
    return duration(value)


class _Asked:
    """What was asked, and what is wrong with it so far."""

    def __init__(self, given: Mapping[str, Any], known: Sequence[str]) -> None:
        self._given = given
        self._errors: list[tuple[str, str]] = []
        for name in given:
            if name not in known:
                there_are = (
                    f"there are {', '.join(known)}" if known else "there is none"
                )
                self.wrong(name, f"unknown{meant(name, known)}; {there_are}")

    def wrong(self, field: str, detail: str) -> None:
        """Note that something is wrong."""
        self._errors.append((field, detail))

    def check(self) -> None:
        """Go on, if all is well.

        Raises:
            WrongError: It is not.
        """
        if self._errors:
            raise WrongError(self._errors)


class Query(_Asked):
    """The query of an address."""

    def __init__(
        self, request: web.Request, *known: str, lists: Sequence[str] = ()
    ) -> None:
        """Read it.

        Args:
            known: Names that there are.
            lists: Those of them that may come more than once.
        """
        query = request.query
        super().__init__({name: query[name] for name in query}, known)
        self._all = {name: query.getall(name) for name in query}
        for name, values in self._all.items():
            if len(values) > 1 and name not in lists:
                self.wrong(name, "given more than once")

    def text(self, name: str) -> str | None:
        """A text. None: not given."""
        value: str | None = self._given.get(name)
        if value is not None and not 0 < len(value) <= _LONGEST:
            self.wrong(name, f"{len(value)} characters are not 1 to {_LONGEST}")
            return None
        return value

    def number(self, name: str, least: int, most: int) -> int | None:
        """A whole number. None: not given."""
        text: str | None = self._given.get(name)
        if text is None:
            return None
        if not _ID.fullmatch(text) or not least <= int(text) <= most:
            self.wrong(name, f"{quoted(text)} is no number from {least} to {most}")
            return None
        return int(text)

    def lasting(self, name: str, most: Seconds) -> Seconds | None:
        """A duration. None: not given."""
        text: str | None = self._given.get(name)
        if text is None:
            return None
        try:
            seconds = duration_of(text)
        except ValueError as error:
            self.wrong(name, str(error))
            return None
        if seconds > most:
            self.wrong(name, f"{quoted(text)} is longer than {lasting(most)}")
            return None
        return seconds

    def words(self, name: str, there_are: Sequence[str]) -> list[str]:
        """Words of a list that is closed, by commas or one after the other."""
        words = [w for given in self._all.get(name, ()) for w in given.split(",")]
        for word in words:
            if word not in there_are:
                named = ", ".join(there_are)
                said = f"no {quoted(word)}{meant(word, there_are)}; there are {named}"
                self.wrong(name, said)
        return words

    def word(self, name: str, there_are: Sequence[str]) -> str:
        """One word of a list that is closed; the first, where none is given."""
        return (self.words(name, there_are) or [there_are[0]])[0]

    def since(self, name: str, now: float) -> tuple[float | None, int | None]:
        """From when on: a moment, an age, or the id of an event that is seen already.

        Returns:
            Wall time and None, or None and the id. Twice None: not given.
        """
        text: str | None = self._given.get(name)
        if text is None:
            return None, None
        if _ID.fullmatch(text) and int(text) <= LAST_ID:
            return None, int(text)
        # A plus that nobody has escaped is a blank here.
        text = _LOST_PLUS.sub(r"+\1", text)
        try:
            return (moment_of(text) if "-" in text else now - duration_of(text)), None
        except ValueError:
            self.wrong(
                name,
                f"{quoted(text)} is no time, age or id of an event; write"
                " 2026-11-26T03:12:00Z, 24h, or the id",
            )
            return None, None

    def moment(self, name: str, now: float) -> float | None:
        """As `since`, in wall time alone. None: not given."""
        at, seen = self.since(name, now)
        return at if seen is None else seen / 1000  # ids are times


class Body(_Asked):
    """A JSON object that was sent."""

    @classmethod
    async def of(
        cls, request: web.Request, *known: str, may_lack: bool = False
    ) -> "Body":
        """Read it.

        Args:
            may_lack: Whether nothing at all will do, too.

        Raises:
            WrongError: It is no JSON object.
        """
        if may_lack and not await request.read():
            return cls({}, known)
        return cls(await object_of(request), known)

    def text(self, name: str, default: str | None = None) -> str:
        """A text, which has to be there unless there is a default."""
        value = self._value(name, str, "a text", default)
        return "" if value is None else value

    def texts(self, name: str) -> list[str]:
        """A list of texts, which has to be there."""
        values = self._value(name, list, "a list of texts", None) or []
        if not all(isinstance(value, str) for value in values):
            self.wrong(name, "is a list of texts")
            return []
        return [str(value) for value in values]

    def lasting(self, name: str, default: Seconds | None = None) -> Seconds | None:
        """A duration. None: not given, and there is no default."""
        if name not in self._given:
            return default
        try:
            return duration_of(self._given[name])
        except ValueError as error:
            self.wrong(name, str(error))
            return default

    def moment(self, name: str) -> float | None:
        """A moment: wall time, in seconds since the epoch. None: not given."""
        value = self._given.get(name)
        if name not in self._given:
            return None
        try:
            if isinstance(value, str):
                return moment_of(value)
            self.wrong(name, f"is a time; {_AS_TIME}")
        except ValueError as error:
            self.wrong(name, str(error))
        return None

    def word(self, name: str, there_are: Sequence[str]) -> str:
        """One word of a list that is closed, which has to be there."""
        word = self.text(name)
        if word not in there_are and name in self._given and not self._is_wrong(name):
            named = ", ".join(there_are)
            said = f"no {quoted(word)}{meant(word, there_are)}; there are {named}"
            self.wrong(name, said)
        return word

    def has(self, name: str) -> bool:
        """Whether it was given."""
        return name in self._given

    def _is_wrong(self, name: str) -> bool:
        return any(field == name for field, _ in self._errors)

    def _value(
        self, name: str, kind: type[T], called: str, default: T | None
    ) -> T | None:
        if name not in self._given:
            if default is None:
                self.wrong(name, f"missing; it is {called}")
            return default
        value = self._given[name]
        if not isinstance(value, kind):
            self.wrong(name, f"is {called}")
            return default
        return value


async def object_of(request: web.Request) -> dict[str, Any]:
    """Read a JSON object that was sent.

    Raises:
        WrongError: It is none.
    """
    raw = await request.read()
    try:
        given = json.loads(raw, parse_constant=_no_constant, object_pairs_hook=_once)
    # What is nested a thousand deep is no order of anybody's.
    except (ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise WrongError([("body", f"no JSON: {why}")], status=400) from None
    if not isinstance(given, dict):
        raise WrongError([("body", "no JSON object")])
    return given


def author_of(request: web.Request, body: Body) -> str:
    """Who it is: whoever logged in, or else who they say that they are."""
    said = body.text("author", SOMEONE)
    try:
        # By the desk's rule, also where the desk is not asked, as for a reload.
        said = one_line(said, "author", AUTHOR)
    except RefusedError as error:
        body.wrong(error.field, error.text)
    return request[WHO].name or said


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number there")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object none of whose keys comes twice: which of them is meant?"""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found
