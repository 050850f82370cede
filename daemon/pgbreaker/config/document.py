"""A YAML document, with the place of everything in it, and guards around it.

YAML 1.2's core schema, not 1.1's: ``on`` and ``no`` are words, ``1:30`` is not ninety.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Scalar: TypeAlias = str | int | float | bool | None
Data: TypeAlias = "Scalar | list[Data] | dict[str, Data]"
Path: TypeAlias = tuple[str | int, ...]

_MAX_BYTES: Final = 1024 * 1024
_MAX_DEPTH: Final = 32
_MAX_NODES: Final = 100_000

_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^}]*))?\}")


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
        data: Its content, of plain types.
        places: Path of a value -> its line and column, from 1.
        keys: Path of a value -> line and column of the key it stands behind.
        problems: What is wrong so far.
    """

    data: dict[str, Data] = field(default_factory=dict)
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _complained: set[Path] = field(default_factory=set)

    def has_complaint(self, path: Path) -> bool:
        """Whether something at *path*, or within it, was complained of already."""
        return any(known[: len(path)] == path for known in self._complained if path)

    def complain(self, path: Path, text: str, *, at_key: bool = False) -> None:
        """Note that *text* is wrong with the value at *path*.

        A value that is not there is complained of where its parent is.
        """
        places = self.keys if at_key else self.places
        where = path
        while where and where not in places and where not in self.places:
            where = where[:-1]
        line, column = places.get(where) or self.places.get(where, (1, 1))
        self._complained.add(path)
        name = ".".join(str(part) for part in path)
        self.problems.append(Problem(line, column, f"{name}: {text}" if name else text))


def read(raw: bytes, env: Mapping[str, str] = os.environ) -> Document:
    """Read a document; everything that is wrong with it is in its `problems`."""
    document = Document()
    if len(raw) > _MAX_BYTES:
        document.complain((), f"the file has {len(raw)} bytes, more than {_MAX_BYTES}")
        return document
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        wrong = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        document.problems.append(Problem(line, column, wrong))
        return document
    root = _compose(text, document)
    if root is not None:
        _Reader(document, env).read(root)
    return document


def _compose(text: str, document: Document) -> Node | None:
    try:
        # The pure-Python loader; it resolves nothing here, the nodes are ours to read.
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = " ".join(part for part in (error.context, error.problem) if part)
        document.problems.append(Problem(line, column, f"not YAML: {_one_line(said)}"))
        return None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        code = error.character
        character = chr(code) if isinstance(code, int) else code
        wrong = f"the character {character!r} is not allowed"
        document.problems.append(Problem(line, column, wrong))
        return None
    except RecursionError:
        document.complain((), f"nested more than {_MAX_DEPTH} deep")
        return None
    if not nodes or nodes[0] is None:
        document.complain(
            (), "the file is empty; it needs at least version and targets"
        )
        return None
    if len(nodes) > 1:
        line = nodes[1].start_mark.line + 1
        wrong = "a second document; one file is one configuration"
        document.problems.append(Problem(line, 1, wrong))
        return None
    return nodes[0]


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _TooMuch(Exception):
    """The document is deeper or larger than any configuration is."""


class _Reader:
    """Turns nodes into plain data, noting places."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self._document = document
        self._env = env
        self._count = 0

    def read(self, root: Node) -> None:
        document = self._document
        if not isinstance(root, MappingNode):
            document.places[()] = _place(root)
            document.complain(
                (), "the file must hold keys and values (version: 1, ...)"
            )
            return
        try:
            data = self._value(root, ())
        except _TooMuch as error:
            document.complain((), str(error))
            return
        assert isinstance(data, dict)
        document.data = data

    def _value(self, node: Node, path: Path) -> Data:
        self._count += 1
        if self._count > _MAX_NODES:
            raise _TooMuch(f"more than {_MAX_NODES} values, aliases counted in full")
        if len(path) > _MAX_DEPTH:
            raise _TooMuch(f"nested more than {_MAX_DEPTH} deep")
        self._document.places[path] = _place(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._value(item, (*path, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, ScalarNode)
        return self._scalar(node, path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Data]:
        found: dict[str, Data] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, ScalarNode) or not isinstance(key, str):
                self._document.places[(*path, "?")] = _place(key_node)
                self._document.complain((*path, "?"), "a key must be a word")
                continue
            where = (*path, key)
            if key in found:
                first = self._document.keys[where][0]
                self._document.keys[where] = _place(key_node)
                text = f"given twice, first in line {first}"
                self._document.complain(where, text, at_key=True)
                continue
            self._document.keys[where] = _place(key_node)
            found[key] = self._value(value_node, where)
        return found

    def _scalar(self, node: ScalarNode, path: Path) -> Scalar:
        text: str = node.value
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            self._document.complain(path, f"the tag {node.tag!r} is not supported")
            return None
        if node.style is None:  # plain, not quoted
            if text in _NULL:
                return None
            if text in _BOOL:
                return _BOOL[text]
            if _INT.fullmatch(text):
                return int(text)
            if _FLOAT.fullmatch(text):
                return float(text)
        return self._expand(text, path)

    def _expand(self, text: str, path: Path) -> str:
        """Put in the environment's variables: ``${A}``, ``${A:-b}``, ``${A:?why}``."""

        def value(match: re.Match[str]) -> str:
            name, kind, rest = match.groups()
            found = self._env.get(name)
            if found:
                return found
            if kind == "-":
                return rest or ""
            if found is not None and kind is None:
                return found
            why = f": {rest}" if kind == "?" and rest else ""
            help_ = "" if why else f" (set it, or write ${{{name}:-default}})"
            self._document.complain(path, f"the variable {name} is not set{why}{help_}")
            return ""

        return _VARIABLE.sub(value, text)


def _place(node: Node) -> tuple[int, int]:
    mark = node.start_mark
    return mark.line + 1, mark.column + 1


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Say which of *words* was probably meant, or which there are."""
    by_lower = {known.lower(): known for known in words}
    close = difflib.get_close_matches(word.lower(), by_lower, 1, 0.6)
    if close:
        return f"did you mean {by_lower[close[0]]!r}?"
    return f"there are {', '.join(by_lower.values())}"
