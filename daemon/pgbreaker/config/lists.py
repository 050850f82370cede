"""How many there may be of a thing, and that each is there once.

Looked at as the file has it, before its shape: what is wrong with one of a list does not
hide what is wrong with the list.
"""

from collections.abc import Iterator
from typing import Final

from pgbreaker.config.document import Data, Document, Path
from pgbreaker.config.units import quoted
from pgbreaker.config.wording import at

MOST_TARGETS: Final = 2500
"""More than one daemon asks in time: beyond, another watches the rest."""

_LABELS: Final = (16, "labels")
# Path, with * for each of a list -> most of them, and what they are.
_MOST: Final[dict[Path, tuple[int, str]]] = {
    ("targets",): (MOST_TARGETS, "targets"),
    ("targets", "*", "custom"): (20, "queries"),
    ("targets", "*", "labels"): _LABELS,
    ("alertmanager", "labels"): _LABELS,
    ("alertmanager", "urls"): (8, "addresses"),
    ("http", "allowed_hosts"): (32, "names"),
    ("include",): (32, "files"),
}
_ONCE: Final[tuple[Path, ...]] = (
    ("targets", "*", "operations"),
    ("alertmanager", "urls"),
    ("http", "allowed_hosts"),
    ("include",),
)


def check_lists(document: Document) -> None:
    """Note what is there too often, and leave out what is beyond."""
    for pattern, (most, things) in _MOST.items():
        for path in _matching(document.data, pattern):
            found = at(document.data, path)
            if isinstance(found, list | dict) and len(found) > most:
                text = f"{len(found)} {things}; at most {most} are taken"
                # What is wrong with one of them is still to be told; with one of those
                # beyond, it is not.
                document.complain(path, text, spoils=(*path, "*"))
                if isinstance(found, list):
                    del found[most:]
    for pattern in _ONCE:
        for path in _matching(document.data, pattern):
            _check_each(document, path)


def _check_each(document: Document, path: Path) -> None:
    found = at(document.data, path)
    if not isinstance(found, list) or document.is_spoilt(path):
        return  # far too many of them, perhaps
    seen: set[str] = set()
    for index, one in enumerate(found):
        if document.is_full:
            return
        text = one.rstrip("/") if isinstance(one, str) else None
        if text in seen:
            said = quoted(document.raw.get((*path, index), text))
            document.complain((*path, index), f"{said} is given twice")
        if text is not None:
            seen.add(text)


def _matching(data: Data, pattern: Path) -> Iterator[Path]:
    if "*" not in pattern:
        yield pattern
        return
    cut = pattern.index("*")
    found = at(data, pattern[:cut])
    if isinstance(found, list):
        for index in range(len(found)):
            yield (*pattern[:cut], index, *pattern[cut + 1 :])
