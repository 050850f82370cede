"""What is foretold of a target: the warnings that stand, and what they rest on."""

from dataclasses import dataclass
from typing import Final

from pgbreaker.core.forecast.foretold import Change, Foretold, Model, RunsOut
from pgbreaker.core.forecast.runway import Left
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.forecast.telling import span, tally, uncounted
from pgbreaker.core.forecast.warning import FAILURE, KINDS, Forewarning
from pgbreaker.core.units import Seconds, percent, roughly
from pgbreaker.sinks.board import TargetBoard

_FAR: Final[Seconds] = 3650 * 86400.0  # the rate of some hours says nothing of then

WITHIN: Final = roughly(KINDS[FAILURE].within)
"""The time of which the probability of a failure is told, for people."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning that stands, as it is shown.

    Attributes:
        of: Name of its kind.
        reason: One sentence, with its numbers.
        since: Moment at which it began.
        left: Seconds until what it warns of. None: not a question of time.
        tally: How often such warnings came true so far.
        is_fading: Whether its reason is gone, and it ends when that stays so.
    """

    of: str
    reason: str
    since: Seconds
    left: Seconds | None
    tally: str
    is_fading: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that can run out, as it is shown.

    Attributes:
        says: What.
        left: How long it lasts. None: there is no end in sight, or nobody looks.
        is_warned: Whether it is warned of.
        is_watched: Whether somebody looks.
        needs: What it takes for that.
    """

    says: str
    left: Left | None
    is_warned: bool
    is_watched: bool
    needs: str

    @property
    def when(self) -> str:
        """When that is."""
        if self.left is None:
            return "no end in sight"
        return "now" if self.left.seconds < 1 else f"in {span(self.left)}"


@dataclass(frozen=True, slots=True)
class Odds:
    """How likely a breaker opens soon, as it is shown.

    Attributes:
        says: The probability. None: the model is silent.
        why: What speaks for it; where it is silent, why.
        openings: That it has learnt from.
    """

    says: str | None
    why: tuple[str, ...]
    openings: int


@dataclass(frozen=True, slots=True)
class Tallied:
    """What came of the warnings of one kind, as it is shown.

    Attributes:
        says: What is warned of.
        came: How many came true, of how many. Empty: none was seen to its end.
        late: Failures warned of less than a minute before.
        missed: Failures that came unannounced.
        ahead: How long before they came, the median. Empty: none did.
    """

    says: str
    came: str
    late: int
    missed: int
    ahead: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """All that is foretold of one target.

    Attributes:
        warned: Warnings that stand, the most urgent first.
        endings: What can run out, the soonest first; last what nobody looks at.
        odds: How likely a breaker opens soon.
        changes: What is not as usual.
        record: What came of warnings, of those kinds of which something did.
    """

    warned: tuple[Warned, ...]
    endings: tuple[Ending, ...]
    odds: Odds
    changes: tuple[Change, ...]
    record: tuple[Tallied, ...]

    @property
    def is_failing(self) -> bool:
        """Whether it is warned of a breaker that opens."""
        return any(told.of == FAILURE for told in self.warned)


def warned(target: TargetBoard) -> tuple[Warned, ...]:
    """The warnings of *target* that stand, the most urgent first. Costs nothing where
    none does: the overview asks five hundred."""
    if not target.forewarnings or target.foretold is None:
        return ()
    return _warned(target.foretold())


def forecast(target: TargetBoard) -> Forecast | None:
    """All that is foretold of *target*. None: this daemon does not watch it."""
    if target.foretold is None:
        return None
    seen = target.foretold()
    return Forecast(
        warned=_warned(seen),
        endings=_endings(seen),
        odds=_odds(seen.model),
        changes=seen.changes,
        record=tuple(
            _tallied(of, score)
            for of, score in seen.record.items()
            if score.came or score.late or score.false or score.missed
        ),
    )


def _warned(seen: Foretold) -> tuple[Warned, ...]:
    short = {end.of for end in seen.runways if end.is_short}
    return tuple(
        Warned(
            of=told.of,
            reason=told.reason,
            since=told.since,
            left=None if told.left is None else told.left.seconds,
            tally=_tally_of(told, seen),
            is_fading=told.left is not None and told.of not in short,
        )
        for told in seen.warnings
    )


def _tally_of(told: Forewarning, seen: Foretold) -> str:
    score = seen.record.get(told.of)
    return uncounted(told.of) if score is None else tally(score)


def _endings(seen: Foretold) -> tuple[Ending, ...]:
    warned_of = {told.of for told in seen.warnings}
    watched = {end.of for end in seen.runways}
    found = [_ending(end, end.of in warned_of) for end in seen.runways]
    found += [
        Ending(kind.says, None, False, False, kind.needs)
        for kind in KINDS.values()
        if kind.is_runway and kind.of not in watched
    ]
    return tuple(
        sorted(
            found,
            key=lambda one: (
                one.left is None,
                one.left.seconds if one.left else 0.0,
                not one.is_watched,
            ),
        )
    )


def _ending(end: RunsOut, is_warned: bool) -> Ending:
    kind, left = KINDS[end.of], end.left
    if left is not None and left.seconds > _FAR:
        left = None
    says = f"{kind.says} ({end.name})" if end.name and left else kind.says
    return Ending(says, left, is_warned, True, kind.needs)


def _odds(model: Model) -> Odds:
    if model.probability is not None:
        return Odds(percent(model.probability), model.reasons, model.openings)
    why = () if model.silent_because is None else (model.silent_because,)
    return Odds(None, why, model.openings)


def _tallied(of: str, score: Score) -> Tallied:
    told = score.came + score.false
    return Tallied(
        says=KINDS[of].says,
        came=f"{score.came} of {told}" if told else "",
        late=score.late,
        missed=score.missed,
        ahead="" if score.lead is None else roughly(score.lead),
    )
