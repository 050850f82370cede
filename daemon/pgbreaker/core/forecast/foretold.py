"""What is foretold of one target, for whoever shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgbreaker.core.forecast.runway import Left
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.forecast.warning import Forewarning
from pgbreaker.core.units import Seconds, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsOut:
    """Something that can run out.

    Attributes:
        of: Name of its kind, as in `KINDS`.
        name: Which one, of several: a sequence, a slot, a pool. None: there is one.
        left: What is left. None: no end is in sight.
        is_short: Whether that is so little, and so sure, that people should know.
    """

    of: str
    name: str | None = None
    left: Left | None = None
    is_short: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A signal that is not as usual.

    Attributes:
        signal: Its name.
        since: Wall time at which that began, in seconds since the epoch.
        now: What it was in the last minute.
        usual: What it usually is at this hour.
        text: One sentence, with these numbers.
    """

    signal: str
    since: float
    now: float
    usual: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What the probability of a failure comes from.

    Attributes:
        probability: That a breaker of the target opens within a quarter of an hour.
            None: the model is silent.
        silent_because: Why it is. None: it is not.
        reasons: What weighs most in the probability, the heaviest first.
        openings: That it has learnt from.
        begun: Moment at which it began to learn. None: it has not.
        learned: Moment at which it last learned.
    """

    probability: Share | None = None
    silent_because: str | None = None
    reasons: tuple[str, ...] = ()
    openings: int = 0
    begun: Seconds | None = None
    learned: Seconds | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """All that is foretold of one target. It warns, and opens no breaker.

    Attributes:
        warnings: Those that stand, the most urgent first.
        runways: What can run out, of the kinds that somebody looks at.
        model: The probability of a failure, and where it comes from.
        changes: What is not as usual.
        record: Name of a kind -> what came of its warnings.
    """

    warnings: tuple[Forewarning, ...] = ()
    runways: tuple[RunsOut, ...] = ()
    model: Model = field(default_factory=Model)
    changes: tuple[Change, ...] = ()
    record: Mapping[str, Score] = field(default_factory=dict)
