"""What is foretold, as JSON."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from pgbreaker.clock import Clock
from pgbreaker.core.forecast.foretold import Change, Foretold, Model, RunsOut
from pgbreaker.core.forecast.runway import Left
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.forecast.telling import tally
from pgbreaker.core.forecast.warning import KINDS, Forewarning
from pgbreaker.core.units import Seconds
from pgbreaker.core.wall import moment
from pgbreaker.sinks.board import TargetBoard


def forecast(target: TargetBoard, clock: Clock) -> dict[str, Any] | None:
    """All that is foretold of a target. None: this daemon does not watch it."""
    if target.foretold is None:
        return None
    seen: Foretold = target.foretold()
    return {
        "warnings": [_warning(told, clock) for told in seen.warnings],
        "runways": [_runway(end) for end in seen.runways],
        "failure_probability": seen.model.probability,
        "silent_because": seen.model.silent_because,
        "reasons": list(seen.model.reasons),
        "model": _model(seen.model, clock),
        "changes": [_change(change) for change in seen.changes],
        "record": {of: _record(score) for of, score in seen.record.items()},
    }


def warnings(target: TargetBoard, clock: Clock) -> Iterator[dict[str, Any]]:
    """The warnings of a target that stand, in short."""
    for told in target.warnings():
        yield {
            "target": target.plan.name,
            "of": told.of,
            "since": moment(clock.wall_of(told.since)),
            "seconds": None if told.left is None else _seconds(told.left.seconds),
            "probability": told.probability,
            "reason": told.said,
        }


def _warning(told: Forewarning, clock: Clock) -> dict[str, Any]:
    return {
        "of": told.of,
        "since": moment(clock.wall_of(told.since)),
        **_left(told.left),
        "probability": told.probability,
        "reason": told.said,
    }


def _runway(end: RunsOut) -> dict[str, Any]:
    says = KINDS[end.of].says
    return {"of": end.of, "what": says, "name": end.name, **_left(end.left)}


def _left(left: Left | None) -> dict[str, Seconds | None]:
    if left is None:
        return dict.fromkeys(("seconds", "soonest_seconds", "latest_seconds"))
    return {
        "seconds": _seconds(left.seconds),
        "soonest_seconds": _seconds(left.soonest),
        "latest_seconds": _seconds(left.latest),
    }


def _seconds(seconds: Seconds) -> Seconds | None:
    """As JSON has it, which knows no infinity: None is never."""
    return round(seconds, 3) if isfinite(seconds) else None


def _model(model: Model, clock: Clock) -> dict[str, Any]:
    def wall(at: Seconds | None) -> str | None:
        return None if at is None else moment(clock.wall_of(at))

    return {
        "openings": model.openings,
        "begun": wall(model.begun),
        "learned": wall(model.learned),
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "signal": change.signal,
        "since": moment(change.since),
        "now": change.now,
        "usual": change.usual,
        "text": change.text,
    }


def _record(score: Score) -> dict[str, Any]:
    return {
        "warnings": score.came + score.late + score.false,
        "came": score.came,
        "late": score.late,
        "false": score.false,
        "missed": score.missed,
        "precision": score.precision,
        "recall": score.recall,
        "lead_seconds": score.lead,
        "text": tally(score),
    }
