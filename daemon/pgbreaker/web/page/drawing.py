"""Lines and bands, reckoned: the numbers that the templates put into SVG.

Everything is drawn with attributes: the page's policy allows no style in the markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.units import Seconds, lasting
from pgbreaker.sinks.recent import SLICES, Course

WIDE: Final = 2 * SLICES
"""Units of a line's width; one slice takes two."""

HIGH: Final = 24
"""Units of its height."""

_PAD: Final = 2.0
_HEADROOM: Final = 1.5  # of what is usual, that the line leaves above it


@dataclass(frozen=True, slots=True)
class Line:
    """The course of a target's pings.

    Attributes:
        paths: Its pieces, as SVG's ``points``; there is a gap where nothing answered.
        band: Top and height of what is usual. None: not known yet.
        failed: Left edges of the slices in which a ping failed.
        says: All of it in a sentence.
        last: Seconds that the last answered ping took. None: none was answered.
    """

    paths: tuple[str, ...]
    band: tuple[float, float] | None
    failed: tuple[int, ...]
    says: str
    last: Seconds | None


def line(course: Course | None, now: Seconds) -> Line:
    """Draw *course* up to *now*; None is that of a target nothing was seen of."""
    if course is None:
        return Line((), None, (), "no ping has come back yet", None)
    slices = course.slices(now)
    seen = [took for took, _ in slices if took is not None]
    failed = tuple(2 * n for n, (_, is_failed) in enumerate(slices) if is_failed)
    usual = course.usual
    top = max([*seen, _HEADROOM * usual[1] if usual else 0.0], default=0.0) or 1.0

    def height(took: Seconds) -> float:
        share = min(1.0, took / top)
        return round(HIGH - _PAD - share * (HIGH - 2 * _PAD), 1)

    band = None
    if usual is not None:
        upper = height(usual[1])
        band = (upper, round(max(1.0, height(usual[0]) - upper), 1))
    paths = tuple(_paths([None if t is None else height(t) for t, _ in slices]))
    return Line(paths, band, failed, _says(seen, usual, len(failed), course), course.last)  # fmt: skip


def _paths(heights: Sequence[float | None]) -> list[str]:
    """The pieces of a line that has gaps."""
    pieces: list[list[str]] = [[]]
    for place, height in enumerate(heights):
        if height is None:
            if pieces[-1]:
                pieces.append([])
        else:
            pieces[-1].append(f"{2 * place},{height:g}")
            pieces[-1].append(f"{2 * place + 2},{height:g}")
    return [" ".join(piece) for piece in pieces if piece]


def _says(
    seen: Sequence[Seconds],
    usual: tuple[Seconds, Seconds] | None,
    failed: int,
    course: Course,
) -> str:
    if not seen and not failed:
        return "no ping in the last 5 minutes"
    parts = ["pings of the last 5 minutes"]
    if course.last is not None and seen:
        parts.append(f"last {lasting(course.last)}")
        parts.append(f"slowest {lasting(max(seen))}")
    if usual is not None:
        parts.append(f"usually {lasting(usual[0])} to {lasting(usual[1])}")
    if failed:
        parts.append(f"failures in {failed} of {SLICES} parts")
    return f"{parts[0]}: {', '.join(parts[1:])}"


@dataclass(frozen=True, slots=True)
class Bar:
    """A number against its threshold.

    Attributes:
        label: What is measured.
        value: The number, a share of 1.
        limit: From where on it is bad, a share of 1. None: nowhere.
        says: The number in words.
        counts: Whether the threshold counts: of too few calls a share says nothing.
    """

    label: str
    value: float
    limit: float | None
    says: str
    counts: bool = True

    @property
    def filled(self) -> float:
        """Percent that are filled."""
        return round(100 * min(1.0, max(0.0, self.value)), 1)

    @property
    def mark(self) -> float | None:
        """Where the threshold stands, in percent."""
        return None if self.limit is None else round(100 * self.limit, 1)

    @property
    def is_over(self) -> bool:
        """Whether the threshold is reached."""
        return self.counts and self.limit is not None and self.value >= self.limit
