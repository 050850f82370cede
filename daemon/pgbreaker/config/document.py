"""A YAML document, with the place of everything in it, and guards around it.

YAML 1.2's core schema, not 1.1's: ``on`` and ``no`` are words, ``1:30`` is not ninety.
"""

import difflib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pgbreaker.config.nodes import (
    Map,
    Node,
    Sequence,
    Text,
    TooMuchError,
    WrongError,
    compose,
)

Scalar: TypeAlias = str | int | float | bool | None
Data: TypeAlias = "Scalar | list[Data] | dict[str, Data]"
Path: TypeAlias = tuple[str | int, ...]

MAX_BYTES: Final = 1024 * 1024
_MAX_DEPTH: Final = 32
_MAX_NODES: Final = 40_000  # which are read within a second
_MAX_SHOWN: Final = 200
_LONGEST_WORD: Final = 64

_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# ``$${`` stands for ``${``. No brace within a default: else a text of nothing but
# beginnings would be looked through once for each of them.
_VARIABLE: Final = re.compile(
    r"\$(?:(\$)(?=\{)|\{([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^{}]*))?\}|(\{))"
)
# A DSN may stand where none belongs, and a message shows what stood there; where that is
# a path, it has one slash less.
_PASSWORD: Final = re.compile(
    r"((?<=://)|(?<=:/)(?!/))[^\s:@]*:\S*(?=@)|(?<=password=)[^\s&'\"]+",
    re.IGNORECASE,
)
_HIDDEN: Final = "..."
_NO_VARIABLE: Final = "a ${ that is no variable; write ${NAME}, ${NAME:-default} or ${NAME:?why}; or $${ for ${ itself"
_WORD: Final = re.compile(r"[A-Za-z0-9_.<-]{1,64}")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, and where.

    Attributes:
        line: Line, from 1.
        column: Column, from 1.
        text: What is wrong, in one line; never a secret.
    """

    line: int
    column: int
    text: str


@dataclass(slots=True)
class Document:
    """What a file says, and where it says it.

    Attributes:
        name: What the file is called, for those who read its problems.
        data: Its content, of plain types.
        places: Path of a value -> its line and column, from 1.
        keys: Path of a value -> line and column of the key it stands behind.
        raw: Path of a text with variables in it -> how it is written.
        problems: What is wrong so far.
    """

    name: str = "configuration"
    data: dict[str, Data] = field(default_factory=dict)
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    raw: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _spoilt: set[Path] = field(default_factory=set)
    _touched: set[Path] = field(default_factory=set)

    def is_spoilt(self, path: Path) -> bool:
        """Whether what stands at *path* was complained of, with or within something.

        Whatever is said of it besides may be an echo of that.
        """
        return path in self._touched or self.is_lost(path)

    def is_lost(self, path: Path) -> bool:
        """Whether *path*, or something that it is part of, was complained of."""
        return any(path[:length] in self._spoilt for length in range(len(path) + 1))

    def complain(
        self,
        path: Path,
        text: str,
        *,
        at_key: bool = False,
        spoils: Path | None = None,
    ) -> None:
        """Note that *text* is wrong with the value at *path*.

        A value that is not there is complained of where its parent is.

        Args:
            at_key: Whether it is the key that is wrong.
            spoils: What cannot be relied on any more, when that is not at *path*.
        """
        places = self.keys if at_key else self.places
        where = path
        while where and where not in places and where not in self.places:
            where = where[:-1]
        line, column = places.get(where) or self.places.get(where, (1, 1))
        self.spoil(path if spoils is None else spoils)
        self.note(line, column, path, text)

    def spoil(self, path: Path) -> None:
        """Remember that what stands at *path* cannot be relied on."""
        self._spoilt.add(path)
        self._touched.update(path[:length] for length in range(1, len(path) + 1))

    def note(self, line: int, column: int, path: Path, text: str) -> None:
        """Note a problem at this place, which spoils nothing."""
        name = dotted(path)
        said = _one_line(f"{name}: {text}" if name else text)
        self.problems.append(Problem(line, column, said))

    def lines(self) -> Iterator[str]:
        """Every problem in a line, in the order of the file; no more than
        anybody reads, for what follows is not looked for either."""
        ordered = sorted(set(self.problems))
        for problem in ordered[:_MAX_SHOWN]:
            yield f"{self.name}:{problem.line}:{problem.column}: {problem.text}"
        if rest := ordered[_MAX_SHOWN:]:
            first = rest[0]
            yield f"{self.name}:{first.line}:{first.column}: more problems, from here on"

    @property
    def is_full(self) -> bool:
        """Whether what is noted now is no longer worth wording well."""
        return len(self.problems) > _MAX_SHOWN


def dotted(path: Path) -> str:
    """Write a path as ``targets.0.dsn``.

    What is no word is shown as ``?``: where a space was forgotten behind a colon, the
    key is ``dsn:postgresql://...``, password and all.
    """
    return ".".join(word(str(part)) for part in path)


def word(text: str) -> str:
    """Give back *text* where it is a word, ``?`` for whatever else it is."""
    return text if _WORD.fullmatch(text) else "?"


def read(
    raw: bytes,
    env: Mapping[str, str] = os.environ,
    *,
    name: str = "configuration",
    budget: "Budget | None" = None,
) -> Document:
    """Read a document; everything that is wrong with it is in its `problems`.

    Args:
        budget: What it may still take of what all files may take together.
    """
    document, budget = Document(name), budget or Budget()
    budget.size -= len(raw)
    if budget.size < 0:
        document.complain((), f"the configuration has more than {MAX_BYTES} bytes")
        return document
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8-sig")
        line, column = _end_of(before)
        wrong = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        document.note(line, column, (), wrong)
        return document
    try:
        root = compose(text, depth=_MAX_DEPTH, most=budget.nodes)
        if root is None:
            document.complain(
                (), "the file is empty; it needs at least version and targets"
            )
        else:
            _Reader(document, env, budget).read(root)
    except WrongError as error:
        document.data = {}
        document.note(error.line, error.column, (), str(error))
    except TooMuchError as error:
        document.data = {}
        too_many = f"more than {_MAX_NODES} values, aliases counted in full"
        document.complain((), str(error) or too_many)
    return document


@dataclass(slots=True)
class Budget:
    """What all files of a configuration may still take.

    Attributes:
        size: Bytes.
        nodes: Keys and values.
    """

    size: int = MAX_BYTES
    nodes: int = _MAX_NODES


def _end_of(text: str) -> tuple[int, int]:
    """Line and column of what would follow *text*."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _one_line(text: str) -> str:
    return _PASSWORD.sub(_HIDDEN, " ".join(text.splitlines()))


class _Reader:
    """Turns nodes into plain data, noting places."""

    def __init__(
        self, document: Document, env: Mapping[str, str], budget: Budget
    ) -> None:
        self._document = document
        self._env = env
        self._budget = budget

    def read(self, root: Node) -> None:
        document = self._document
        if not isinstance(root, Map):
            document.places[()] = root.place
            document.complain(
                (), "the file must hold keys and values (version: 1, ...)"
            )
            return
        data = self._value(root, ())
        assert isinstance(data, dict)
        document.data = data

    def _value(self, node: Node, path: Path) -> Data:
        self._budget.nodes -= 1
        if self._budget.nodes < 0:
            raise TooMuchError
        if len(path) > _MAX_DEPTH:
            raise TooMuchError(f"nested more than {_MAX_DEPTH} deep")
        self._document.places[path] = node.place
        if node.tag is not None:
            self._document.complain(path, "tags are not supported; leave it out")
            return None
        match node:
            case Map():
                return self._mapping(node, path)
            case Sequence():
                return [
                    self._value(item, (*path, i)) for i, item in enumerate(node.items)
                ]
            case Text():
                return self._scalar(node, path)

    def _mapping(self, node: Map, path: Path) -> dict[str, Data]:
        found: dict[str, Data] = {}
        document = self._document
        for key_node, value_node in node.pairs:
            if not isinstance(key_node, Text) or key_node.tag is not None:
                document.note(*key_node.place, (*path, "?"), "a key must be a word")
                continue
            key = key_node.text if _is_unicode(key_node.text) else "?"
            where = (*path, key)
            if key in found:
                first = document.keys[where][0]
                text = f"given twice, first in line {first}"
                document.note(*key_node.place, where, text)
                continue
            document.keys[where] = key_node.place
            found[key] = self._value(value_node, where)
        return found

    def _scalar(self, node: Text, path: Path) -> Scalar:
        found = resolved(node.text) if node.is_plain else node.text
        if not isinstance(found, str):
            return found
        text = self._expand(found, path) if "${" in found else found
        if not _is_unicode(text):
            self._document.complain(path, "half a character; UTF-8 has none of these")
            return ""
        return text

    def _expand(self, text: str, path: Path) -> str:
        """Put in the environment's variables: ``${A}``, ``${A:-b}``, ``${A:?why}``."""
        wrong: dict[str, None] = {}

        def value(match: re.Match[str]) -> str:
            is_escaped, name, kind, rest, begins = match.groups()
            if is_escaped:
                return "$"
            if begins:
                wrong[_NO_VARIABLE] = None
                return ""
            found = self._env.get(name)
            if found:
                return found
            if kind == "-":
                return rest or ""
            if found is not None and kind is None:
                return found
            why = f": {rest}" if kind == "?" and rest else ""
            help_ = "" if why else f" (set it, or write ${{{name}:-default}})"
            wrong[f"the variable {name} is not set{why}{help_}"] = None
            return ""

        self._document.raw[path] = text
        expanded = _VARIABLE.sub(value, text)
        for complaint in wrong:
            self._document.complain(path, complaint)
        return expanded


def _is_unicode(text: str) -> bool:
    """Whether *text* can be written anywhere: a quoted "\\ud800" cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def resolved(text: str) -> Scalar:
    """What a text without quotes stands for, by YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    number = float(text) if _FLOAT.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text


def escaped(text: str) -> str:
    """Write *text* so that no variable is put in when it is read."""
    return text.replace("${", "$${")


def closest(word: str, words: Iterable[str]) -> str | None:
    """Which of *words* was probably meant. None: none of them."""
    by_lower = {known.lower(): known for known in words}
    if len(word) > _LONGEST_WORD:
        return None
    close = difflib.get_close_matches(word.lower(), by_lower, 1, 0.6)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Say which of *words* was probably meant, or which there are."""
    words = tuple(words)
    meant = closest(word, words)
    if meant is not None:
        return f"did you mean {meant!r}?"
    return f"there are {', '.join(words)}"
