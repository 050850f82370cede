"""Tables and states for a terminal, and for who reads one through a pipe."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import click

# A glyph and a word: colours are not seen by everybody, and not on every terminal.
_GLYPHS: Final[Mapping[str, tuple[str, str]]] = {
    "closed": ("●", "green"),
    "up": ("●", "green"),
    "half_open": ("◐", "yellow"),
    "degraded": ("◐", "yellow"),
    "open": ("○", "red"),
    "down": ("○", "red"),
    "forced_open": ("⊘", "red"),
    "disabled": ("◌", "magenta"),
    "metrics_only": ("◌", "magenta"),
    "unknown": ("?", "magenta"),
}
_PLAIN: Final = {"●": "+", "◐": "~", "○": "x", "⊘": "X", "◌": "-"}

GRADES: Final[Mapping[str, int]] = {
    "closed": 0,
    "metrics_only": 0,
    "disabled": 0,
    "half_open": 1,
    "open": 2,
    "forced_open": 2,
}
"""State of a breaker -> how bad that is, as an exit code."""

UNKNOWN: Final = 3
"""The grade of what cannot be told."""


def stated(state: str) -> str:
    """A state as a glyph and its word."""
    glyph, _ = _GLYPHS.get(state, ("?", ""))
    if not _speaks_unicode():
        glyph = _PLAIN.get(glyph, glyph)
    return f"{glyph} {state}"


def coloured(cell: str) -> str:
    """A cell that holds a state, in its colour; others as they are."""
    state = cell.strip().partition(" ")[2]
    if state not in _GLYPHS or not shows_colours():
        return cell
    return click.style(cell, fg=_GLYPHS[state][1])


def shows_colours() -> bool:
    """Whether colours may be used; see https://no-color.org."""
    return not os.environ.get("NO_COLOR") and sys.stdout.isatty()


def _speaks_unicode() -> bool:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        "●◐○⊘◌".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None
) -> Iterator[str]:
    """Lay *rows* out below *head*, each column as wide as it has to be.

    Args:
        width: Columns that a line may take; what is longer ends in an ellipsis. None:
            as many as it needs.
    """
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        cells = [cell.ljust(w) for cell, w in zip(line[:-1], widths, strict=False)]
        used = sum(map(len, cells)) + 2 * len(cells)
        cells.append(line[-1] if width is None else clipped(line[-1], width - used))
        shown = cells if number == 0 else map(coloured, cells)
        yield clip_line("  ".join(shown).rstrip(), width)


def clip_line(line: str, width: int | None) -> str:
    """Cut a line that is too long for the terminal, where it has no colours."""
    if width is None or len(click.unstyle(line)) <= width:
        return line
    return clipped(click.unstyle(line), width)


def clipped(text: str, width: int) -> str:
    """Cut *text* to *width* characters, and show that something is left out."""
    if len(text) <= width:
        return text
    return text[: max(0, width - 1)] + "…" if width > 0 else ""


def grade(target: Mapping[str, object]) -> int:
    """How bad a target is: 0 all closed, 1 half-open or degraded, 2 open, 3 unknown."""
    if target["state"] == "unknown":
        return UNKNOWN
    breakers = target["breakers"]
    assert isinstance(breakers, list)
    grades = [GRADES.get(breaker["state"], UNKNOWN) for breaker in breakers]
    return max([*grades, int(target["state"] == "degraded")])
