"""What became of a target in the last day, week and quarter, as a table."""

from dataclasses import dataclass
from typing import Final

from pgbreaker.core.units import hundredths, lasting
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.store import Past
from pgbreaker.web.api.past import SPANS, Summary

_WHOLE: Final = 0.999  # share of a span from which on all of it counts as seen
_NOTHING: Final = "not known"


@dataclass(frozen=True, slots=True)
class PastSight:
    """What became of a target, as it is shown.

    Attributes:
        spans: Heads of the columns.
        rows: Head of a row, and for each span what it says and what it adds in small
            letters.
        trouble: Why there is nothing to show. None: there is.
    """

    spans: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    trouble: str | None = None


def past_of(target: TargetBoard, summary: Summary | None) -> PastSight:
    """Show what became of *target*; None: nobody knows yet."""
    if summary is None:
        return PastSight((), (), "It is being read.")
    if summary.trouble is not None:
        return PastSight((), (), f"It cannot be read: {summary.trouble}")
    pasts = tuple(summary.pasts.values())
    rows = [
        (operation, tuple(_passed(past, breaker.name) for past in pasts))
        for operation, breaker in target.breakers.items()
    ]
    rows.append(("an answer took", tuple(map(_took, pasts))))
    rows.append(("seen", tuple(map(_seen, pasts))))
    return PastSight(tuple(_in_words(span) for span in SPANS), tuple(rows))


def _in_words(span: str) -> str:
    return f"{span[:-1]} {span[-1]}"


def _passed(past: Past, breaker: str) -> tuple[str, str]:
    share = past.passed(breaker)
    if share is None:
        return _NOTHING, ""
    shut = past.shut.get(breaker, 0.0)
    return hundredths(share), f"shut for {lasting(shut)}" if shut else ""


def _took(past: Past) -> tuple[str, str]:
    if past.mean is None:
        return _NOTHING, ""
    return lasting(past.mean), f"at most {lasting(past.most)}"


def _seen(past: Past) -> tuple[str, str]:
    if not past.seen:
        return "none of it", ""
    is_whole = past.seen >= _WHOLE * (past.until - past.since)
    return ("all of it" if is_whole else lasting(past.seen)), ""
