"""From text to the nodes of YAML, each with its place.

Out of PyYAML's pure-Python events, one by one, so that a document that is too deep or
too large is left as soon as that is seen: its own composer would recurse first.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

Place: TypeAlias = tuple[int, int]
"""Line and column, from 1."""


class WrongError(Exception):
    """The text is not YAML, or not one document of it."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.line, self.column = place


class TooMuchError(Exception):
    """The document is deeper or larger than any configuration is."""


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar; `is_plain` without quotes."""

    place: Place
    tag: str | None
    text: str
    is_plain: bool


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    place: Place
    tag: str | None
    items: "list[Node]" = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Map:
    """Keys and values, as they come; a key may be there twice."""

    place: Place
    tag: str | None
    pairs: "list[tuple[Node, Node]]" = field(default_factory=list)


Node: TypeAlias = Text | Sequence | Map


def compose(text: str, *, depth: int, most: int) -> Node | None:
    """Read the one document that *text* holds; None when it is empty.

    Args:
        depth: Most that may be nested.
        most: Most keys and values.

    Raises:
        WrongError: It is not YAML, or there is a second document.
        TooMuchError: It is too deep, or too large.
    """
    composer = _Composer(depth, most)
    try:
        _parse(text, composer)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        said = " ".join(part for part in (error.context, error.problem) if part)
        # What stands in quotes there is a character, but for this one.
        known = said.partition(" undefined tag handle ")
        said = f"{known[0]} undefined tag handle" if known[1] else said
        raise WrongError(place, f"not YAML: {' '.join(said.split())}") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        code = error.character
        character = chr(code) if isinstance(code, int) else code
        wrong = f"the character {character!r} is not allowed"
        raise WrongError((line, column), wrong) from None
    return composer.root


def _parse(text: str, composer: "_Composer") -> None:
    # The pure-Python parser; it resolves nothing here, the nodes are ours to read.
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_event():
            composer.take(loader.get_event())  # type: ignore[no-untyped-call]
    except (ValueError, OverflowError):
        # Of a character beyond Unicode, or of a %YAML of thousands of digits.
        mark = loader.get_mark()
        wrong = "not YAML: a number here is too large"
        raise WrongError((mark.line + 1, mark.column + 1), wrong) from None
    finally:
        loader.dispose()


class _Composer:
    """Builds nodes out of events.

    Attributes:
        root: What the document holds, None so far.
    """

    def __init__(self, depth: int, most: int) -> None:
        self.root: Node | None = None
        self._depth = depth
        self._left = most
        self._documents = 0
        self._anchors: dict[str, Node] = {}
        self._open: list[Sequence | Map] = []
        # Of each open map: the key that waits for its value.
        self._waiting: list[Node | None] = []

    def take(self, event: Event) -> None:
        """Go on by one event."""
        if isinstance(event, DocumentStartEvent):
            self._documents += 1
        elif isinstance(event, CollectionEndEvent):
            self._open.pop()
            self._waiting.pop()
        elif isinstance(event, NodeEvent):
            self._add(event)

    def _add(self, event: NodeEvent) -> None:
        mark = event.start_mark
        assert mark is not None
        place = (mark.line + 1, mark.column + 1)
        if self._documents > 1:
            wrong = "a second document; one file is one configuration"
            raise WrongError((place[0], 1), wrong)
        self._left -= 1
        if self._left < 0:
            raise TooMuchError
        node = self._made(event, place)
        self._put(node)
        if isinstance(node, Sequence | Map) and not isinstance(event, AliasEvent):
            if len(self._open) > self._depth:
                raise TooMuchError(f"nested more than {self._depth} deep")
            self._open.append(node)
            self._waiting.append(None)

    def _made(self, event: NodeEvent, place: Place) -> Node:
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                # Its name is not shown: a password may begin with *.
                wrong = "not YAML: an alias (*...) of nothing; if it is a text, put it in quotes"
                raise WrongError(place, wrong)
            return self._anchors[event.anchor]
        node: Node
        match event:
            case ScalarEvent():
                node = Text(place, event.tag, event.value, event.style is None)
            case SequenceStartEvent():
                node = Sequence(place, event.tag)
            case MappingStartEvent():
                node = Map(place, event.tag)
            case _:
                raise AssertionError(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _put(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        match self._open[-1]:
            case Sequence(items=items):
                items.append(node)
            case Map(pairs=pairs):
                key = self._waiting[-1]
                if key is None:
                    self._waiting[-1] = node
                else:
                    pairs.append((key, node))
                    self._waiting[-1] = None
