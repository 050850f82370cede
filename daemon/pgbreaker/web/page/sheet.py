"""A page in pieces, each with the number of its last change.

A browser that has the page asks for what changed since the number it knows. Whoever
else looks at the same page is answered from the same pieces: fifty browsers cost as
much as one.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

_EDITIONS: Final = 64
"""Sheets that are kept; a page nobody looked at for longest goes first."""


class Sheet:
    """The pieces of one page.

    Attributes:
        edition: Which run of which daemon it is of: numbers of another mean nothing.
        version: Number of the last change of any piece.
        pieces: Name -> markup, in the order of the page.
        lock: Held by whoever writes: the others wait for what comes of it.
    """

    def __init__(self, edition: str) -> None:
        self.edition = edition
        self.version = 0
        self.lock = asyncio.Lock()
        self.pieces: dict[str, Markup] = {}
        self._changed: dict[str, int] = {}
        self._stamps: dict[str, object] = {}
        self._whole: object = None

    def is_whole(self, stamp: object) -> bool:
        """Whether all of it was written for *stamp*: who wrote may have gone away in the
        middle, and left it as it was."""
        return self._whole == stamp

    def finish(self, stamp: object) -> None:
        """Note that all of it was written for *stamp*."""
        self._whole = stamp

    def is_due(self, name: str, stamp: object) -> bool:
        """Whether a piece has to be written anew, because *stamp* is another."""
        return self._stamps.get(name) != stamp or name not in self.pieces

    def put(self, name: str, stamp: object, markup: Markup) -> None:
        """Take a piece that was written for *stamp*."""
        self._stamps[name] = stamp
        if self.pieces.get(name) != markup:
            self.version += 1
            self.pieces[name] = markup
            self._changed[name] = self.version

    def since(self, version: int) -> Iterable[Markup]:
        """The pieces that changed after *version*."""
        return [self.pieces[n] for n, at in self._changed.items() if at > version]

    @property
    def mark(self) -> str:
        """Edition and version, as a browser hands it back."""
        return f"{self.edition}.{self.version}"

    def known(self, mark: str) -> int | None:
        """The version that *mark* names, None when it is not of this edition."""
        edition, _, version = mark.rpartition(".")
        if edition != self.edition or not version.isdigit():
            return None
        return min(int(version), self.version)


class Sheets:
    """The sheets that are looked at, by page and reader."""

    def __init__(self) -> None:
        self._sheets: dict[tuple[object, ...], Sheet] = {}
        self._made = 0

    def of(self, key: tuple[object, ...], epoch: str) -> Sheet:
        """The sheet of *key*; a new one when there is none of *epoch*."""
        sheet = self._sheets.pop(key, None)
        if sheet is None or not sheet.edition.startswith(f"{epoch}-"):
            self._made += 1
            sheet = Sheet(f"{epoch}-{self._made}")
        self._sheets[key] = sheet  # the latest last
        while len(self._sheets) > _EDITIONS:
            del self._sheets[next(iter(self._sheets))]
        return sheet
