"""How likely it is that a breaker of the target opens soon, learnt from those that did.

A logistic regression that learns by the minute, of one target only. It is silent until it
has seen enough, and whenever its own record is no better than the base rate: most targets
fail too seldom to learn from, and saying nothing is the honest answer there.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pgbreaker.core.forecast.calibration import Calibration, Skill
from pgbreaker.core.remembered import number_or_none, numbers, reading, short, whole
from pgbreaker.core.units import Seconds, Share

HORIZON: Final[Seconds] = 900.0
"""How far it looks ahead."""

LEAD: Final[Seconds] = 60.0
"""What is seen later than this before an opening is no foresight, and not learnt from."""

REST: Final[Seconds] = 3600.0
"""For how long after an opening what is seen is still of it."""

OPENINGS: Final = 5
TIME: Final[Seconds] = 86_400.0
SKILL: Final[Share] = 0.02
"""What it needs to have before it says anything; chance alone has a skill about 0."""

VERSION: Final = 1
_DIGITS: Final = 7  # of what is remembered
_MOST: Final = 1e12  # that it can be; no weight comes near

_MINUTE: Final[Seconds] = 60.0
_CLOSEST: Final[Seconds] = 30.0  # between two examples; what comes in between is a look
_GAP: Final[Seconds] = 300.0  # nobody saw what happened in it
_WAITING: Final = int(HORIZON / _CLOSEST) + 2

# What is usual is told from the last 14 days, and from an hour at least.
_USUAL: Final = 14 * 1440
_WARM: Final = 60
_STILL: Final = 1e-12  # variance of what never changed but for rounding

# Counts and bytes spread over orders of magnitude, shares and seconds do not: the inverse
# hyperbolic sine is a logarithm of what is far above this, and leaves alone what is below.
_LINEAR: Final = 10.0

# A value that is far out says no more for being still further out.
_FARTHEST: Final = 20.0

# Steps, by coordinate (AdaGrad), with a little weight decay. Chosen with the seeds for
# tuning of tests/bench/forecast/model.py. Openings get no more weight than quiet minutes:
# that ranked no better, and a score would not be a logit any more.
_STEP: Final = 0.05
_DECAY: Final = 1e-4
_BIAS: Final = -4.0  # until it knows: an opening or two a day
# Of what shortens the steps, this is left after an opening: the world may have changed.
_KEPT: Final[Share] = 0.95


class Example(NamedTuple):
    """One minute, and what was said in it."""

    at: Seconds
    features: list[float]  # as standard deviations from what is usual
    score: float
    said: Share
    base: Share


class Odds:
    """The probability that a breaker of one target opens within `HORIZON`.

    Moments are seconds, of which only differences count. They only go up: features of a
    moment that is not later are ignored.

    A minute is an example once it is known what came of it: an opening within the horizon,
    or none. Those less than `LEAD` before one are dropped, and so is what is seen while a
    breaker is open, until `REST` after. What it says of an example is counted, for the
    calibration and for its own record, as it was said then, before learning from it.

    Args:
        names: Of the features, in the order in which they come.

    Attributes:
        examples: Minutes that it learnt from.
        begun: Moment of the first features. None: there were none.
        learned: Moment of the last example learnt from. None: there was none.
    """

    __slots__ = (
        "_ages",
        "_bias",
        "_calibration",
        "_features",
        "_is_open",
        "_last",
        "_mean",
        "_probability",
        "_resting_until",
        "_skill",
        "_squares",
        "_taken",
        "_taken_at",
        "_variance",
        "_waiting",
        "_weights",
        "begun",
        "examples",
        "learned",
        "names",
    )

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._begin()

    def _begin(self) -> None:
        many = len(self.names)
        self.examples = 0
        self.begun: Seconds | None = None
        self.learned: Seconds | None = None
        self._ages: tuple[Seconds | None, Seconds | None] | None = None
        self._taken = 0
        self._taken_at: Seconds | None = None
        self._mean = [0.0] * many
        self._variance = [0.0] * many
        self._weights = [0.0] * many
        self._bias = _BIAS
        # The last one is the bias': of gradients, for the length of the next step.
        self._squares = [1.0] * (many + 1)
        self._features = [0.0] * many
        self._calibration = Calibration()
        self._skill = Skill()
        self._waiting: deque[Example] = deque(maxlen=_WAITING)
        self._probability: Share | None = None
        self._last: Seconds | None = None
        self._is_open = False
        self._resting_until: Seconds | None = None

    def take(self, at: Seconds, features: Sequence[float]) -> Share | None:
        """Take the features of a minute, learn from what is due.

        A feature that is not finite is unknown, and taken for usual.

        Returns the probability that a breaker of the target opens within `HORIZON`; None
        while it is silent.
        """
        if len(features) != len(self.names):
            raise ValueError(f"{len(features)} features are not {len(self.names)}")
        before = self._taken_at
        if before is not None and at <= before:
            return self._spoken()
        if before is not None and at - before > _GAP:
            self._waiting.clear()
        self._taken_at = at
        self._pass(at)
        if self._is_resting:
            self._probability = None
            return None
        self._settle(at)
        z = self._features = self._standard(features)
        if self._taken < _WARM:
            return None
        score = self._bias + sum(map(float.__mul__, self._weights, z))
        said = self._probability = self._calibration.probability(score)
        if not self._waiting or at - self._waiting[-1].at >= _CLOSEST:
            base = self._calibration.base
            self._waiting.append(Example(at, z, score, said, base))
        return self._spoken()

    def opened(self, at: Seconds) -> None:
        """A breaker of the target opened by itself.

        Those that follow before all are closed, or within `REST` after, are of the same
        incident.
        """
        self._pass(at)
        is_one_more = not self._is_resting
        self._is_open = True
        self._probability = None
        if not is_one_more:
            return
        self._settle(at)
        before = [example for example in self._waiting if at - example.at >= LEAD]
        self._waiting.clear()
        if not before:
            return  # nobody looked: there is nothing to learn
        self._calibration.forget()
        self._skill.forget()
        self._squares = [max(1.0, square * _KEPT) for square in self._squares]
        for example in before:
            self._learn(example, came=True)

    def closed(self, at: Seconds) -> None:
        """All breakers of the target are closed again."""
        self._pass(at)
        if self._is_open:
            self._is_open = False
            self._resting_until = at + REST

    def skip(self, at: Seconds) -> None:
        """What was seen lately is no example: of a maintenance, of a time unwatched."""
        self._pass(at)
        self._waiting.clear()

    @property
    def openings(self) -> int:
        """Openings that it learnt from: those before which it saw anything."""
        return self._calibration.incidents

    @property
    def silent_because(self) -> str | None:
        """Why it says nothing. None: it does."""
        hours = self.examples * _MINUTE / 3600
        skill = self._skill.value
        if self.openings < OPENINGS:
            return f"has seen {self.openings} of the {OPENINGS} openings that it needs"
        if hours < TIME / 3600:
            return f"has learnt for {int(hours)} h of the {TIME / 3600:.0f} h that it needs"
        if skill is None or skill <= SKILL:
            return (
                "its own record is no better than the base rate"
                f" of {self._calibration.base:.2%}"
            )
        if self._is_open:
            return "a breaker is open"
        if self._is_resting:
            return f"a breaker closed less than {REST / 60:.0f} min ago"
        return None

    @property
    def skill(self) -> float | None:
        """How much better than the base rate what it said was: 1 never wrong, 0 not at all.

        None: nothing is known of it yet.
        """
        return self._skill.value

    @property
    def base(self) -> Share:
        """Share of minutes that were followed by an opening, so far."""
        return self._calibration.base

    def reasons(self, limit: int = 3) -> list[tuple[str, float]]:
        """What made the last probability high: features, those that weigh most first.

        Beside each is what it adds to the score, in logits. What lowers it is left out.
        """
        parts = map(float.__mul__, self._weights, self._features)
        raising = [part for part in zip(self.names, parts, strict=True) if part[1] > 0]
        return sorted(raising, key=lambda part: -part[1])[:limit]

    def memory(self) -> dict[str, Any]:
        """What is to be remembered, fit for JSON.

        What waits for its label is not of it: who recalls does not know what came.
        """
        columns = (self._mean, self._variance, self._weights, self._squares)
        begun_ago, learned_ago = self._ages or (
            self._ago(self.begun),
            self._ago(self.learned),
        )
        return {
            "version": VERSION,
            "names": list(self.names),
            "examples": self.examples,
            "taken": self._taken,
            "begun_ago": begun_ago,
            "learned_ago": learned_ago,
            "bias": [short(self._bias, _DIGITS)],
            "columns": [
                [short(number, _DIGITS) for number in column] for column in columns
            ],
            "calibration": self._calibration.memory(),
            "skill": self._skill.memory(),
        }

    @reading("memory of odds")
    def recall(self, memory: Mapping[str, Any], ago: Seconds = 0.0) -> None:
        """Be as who wrote *memory* was; of other features than these: begin anew.

        Args:
            ago: Seconds since *memory* was written, as of the next moment.

        Raises:
            ValueError: `memory` did not write this, or that of another version did.
                Nothing has changed then.
        """
        if memory["version"] != VERSION:
            raise ValueError(f"version {memory['version']!r} of odds is not {VERSION}")
        other = Odds(self.names)
        if memory["names"] == list(self.names):
            other._read(memory, ago)
        for name in self.__slots__:
            setattr(self, name, getattr(other, name))

    def _read(self, memory: Mapping[str, Any], ago: Seconds) -> None:
        many = len(self.names)
        self.examples = whole(memory["examples"], "examples")
        self._taken = whole(memory["taken"], "taken")
        begun, learned = (
            number_or_none(memory[name], name, 0.0, _MOST)
            for name in ("begun_ago", "learned_ago")
        )
        self._ages = (
            None if begun is None else begun + ago,
            None if learned is None else learned + ago,
        )
        (self._bias,) = numbers(memory["bias"], "bias", 1, -_MOST, _MOST)
        mean, variance, weights, squares = memory["columns"]
        self._mean = numbers(mean, "mean", many, -_MOST, _MOST)
        self._variance = numbers(variance, "variance", many, 0.0, _MOST)
        self._weights = numbers(weights, "weights", many, -_MOST, _MOST)
        self._squares = numbers(squares, "squares", many + 1, 1.0, _MOST)
        self._calibration = Calibration.recalled(memory["calibration"])
        self._skill = Skill.recalled(memory["skill"])

    @property
    def _is_resting(self) -> bool:
        until = self._resting_until
        return self._is_open or (
            until is not None and self._last is not None and self._last < until
        )

    def _spoken(self) -> Share | None:
        return self._probability if self.silent_because is None else None

    def _ago(self, moment: Seconds | None) -> Seconds | None:
        if moment is None or self._last is None:
            return None
        return round(self._last - moment, 3)

    def _pass(self, at: Seconds) -> None:
        """Note that it is *at* now."""
        self._last = at if self._last is None else max(at, self._last)
        if self._ages is not None:
            begun_ago, learned_ago = self._ages
            self.begun = None if begun_ago is None else at - begun_ago
            self.learned = None if learned_ago is None else at - learned_ago
            self._ages = None
        if self.begun is None:
            self.begun = at

    def _settle(self, at: Seconds) -> None:
        """Learn from the minutes that no opening came of."""
        waiting = self._waiting
        while waiting and at - waiting[0].at > HORIZON:
            self._learn(waiting.popleft(), came=False)

    def _standard(self, features: Sequence[float]) -> list[float]:
        """Features as standard deviations from what is usual, at most `_FARTHEST`."""
        self._taken += 1
        rate = 1 / min(self._taken, _USUAL)
        mean, variance, z = self._mean, self._variance, []
        for i, feature in enumerate(features):
            if not math.isfinite(feature):
                z.append(0.0)
                continue
            off = math.asinh(feature / _LINEAR) - mean[i]
            # As it was before this one came, which may be what makes it unusual.
            far = off / math.sqrt(variance[i] + _STILL)
            z.append(far * _FARTHEST / (_FARTHEST + abs(far)))
            mean[i] += rate * off
            variance[i] += rate * ((1 - rate) * off * off - variance[i])
        return z

    def _learn(self, example: Example, *, came: bool) -> None:
        """Learn what came of *example*."""
        self._skill.take(example.said, example.base, came=came)
        self._calibration.take(example.score, came=came)
        self.examples += 1
        self.learned = self._last
        # The score that it had may be old by a quarter of an hour: the step is from here.
        weights, squares, z = self._weights, self._squares, example.features
        score = self._bias + sum(map(float.__mul__, weights, z))
        error = _logistic(score) - came
        for i, value in enumerate(z):
            slope = error * value + _DECAY * weights[i]
            square = squares[i] = squares[i] + slope * slope
            weights[i] -= _STEP * slope / math.sqrt(square)
        squares[-1] += error * error
        self._bias -= _STEP * error / math.sqrt(squares[-1])


def _logistic(score: float) -> Share:
    return 1 / (1 + math.exp(-max(-35.0, min(score, 35.0))))
