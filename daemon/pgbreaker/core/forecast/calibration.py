"""From a score to a probability: how often it came when the score was such.

A score of a model puts minutes in an order. Whether "0.8" comes in 80 % of the cases only
the cases tell, so they are counted here, by score, and nothing is said that they do not
support.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from pgbreaker.core.units import Share

# The minutes before one opening are one incident seen fifteen times, and the quiet ones
# between are as much alike. So each example is a part of one, and what the bins hold are
# numbers of incidents: what shrinks by them shrinks by what is known, not by how often it
# was looked at.
PART: Final = 1 / 15

_LOW: Final = -8.0
_WIDTH: Final = 0.75
_BINS: Final = 17
_HIGH: Final = _LOW + _WIDTH * (_BINS - 1)

# How many incidents the base rate counts for, against those that a bin has seen.
_PRIOR: Final = 1.5

# What a bin remembers at most, in incidents that came. Where nothing comes it remembers
# for as long as it takes to see that many: a low rate needs the longer time.
_REMEMBERED: Final = 10.0

_KEPT: Final[Share] = 0.95
"""What is left of a count after one more incident: about twenty are remembered."""


_DOUBT = 10.0

_CLAIMS = [1/(1+math.exp(-(_LOW+_WIDTH*i))) for i in range(_BINS)]

class Bin(NamedTuple):
    """What came of scores that are alike, in incidents.

    Attributes:
        came: Those that were followed by one.
        seen: All.
    """

    came: float
    seen: float


class Calibration:
    """What came of which score, and so the probability that it comes again.

    The probability grows with the score (bins that are out of order are one, PAV), and is
    drawn towards the base rate where little was seen: after five incidents, each foretold
    and none of them wrongly, it is at most 5 / 6.5.
    """

    __slots__ = ("_came", "_curve", "_incidents", "_seen")

    def __init__(self) -> None:
        self._came = [0.0] * _BINS
        self._seen = [0.0] * _BINS
        self._incidents = 0.0
        self._curve: list[Share] | None = None  # None: to be drawn anew

    @property
    def base(self) -> Share:
        """Share of all examples that came; 0 when there are none."""
        seen = sum(self._seen)
        return sum(self._came) / seen if seen else 0.0

    @property
    def bins(self) -> list[Bin]:
        """What was counted, from the lowest score to the highest."""
        return [Bin(*counts) for counts in zip(self._came, self._seen, strict=True)]

    def take(self, score: float, *, came: bool) -> None:
        """Count what came of *score*, one example."""
        i = round((min(max(score, _LOW), _HIGH) - _LOW) / _WIDTH)
        self._seen[i] += PART
        if came:
            self._came[i] += PART
            if self._came[i] > _REMEMBERED:
                self._seen[i] *= _REMEMBERED / self._came[i]
                self._came[i] = _REMEMBERED
        self._curve = None

    def forget(self) -> None:
        """Make all that was counted count a little less: one more incident is over."""
        self._came = [count * _KEPT for count in self._came]
        self._seen = [count * _KEPT for count in self._seen]
        self._incidents += 1
        self._curve = None

    def probability(self, score: float) -> Share:
        """The probability that it comes when the score is *score*."""
        if self._curve is None:
            self._curve = self._draw()
        place = (min(max(score, _LOW), _HIGH) - _LOW) / _WIDTH
        i = min(int(place), _BINS - 2)
        low, high = self._curve[i : i + 2]
        return _between(low, high, place - i)

    def memory(self) -> list[list[float]]:
        """What is to be remembered, fit for JSON: [came, seen] of each bin."""
        return [
            [float(f"{came:.7g}"), float(f"{seen:.7g}")] for came, seen in self.bins
        ]

    @classmethod
    def recalled(cls, memory: object) -> "Calibration":
        """Make one that remembers *memory*.

        Raises:
            ValueError: No `memory` wrote this.
        """
        if not isinstance(memory, list) or len(memory) != _BINS:
            raise ValueError(f"no memory of a calibration: it has not {_BINS} bins")
        one = cls()
        for i, bin_ in enumerate(memory):
            came, seen = numbers(bin_, 2, "a bin")
            if not 0 <= came <= seen * (1 + 1e-6):  # what is written is rounded
                raise ValueError(f"bin {bin_!r} has more that came than it has seen")
            one._came[i], one._seen[i] = min(came, seen), seen
        return one

    def _draw(self) -> list[Share]:
        """The probability in the middle of each bin.

        A block says what it says in its own middle, by weight, and what is between two
        middles lies between (centred isotonic regression): the order of scores, which a
        staircase would lose, is kept.
        """
        curve: list[Share] = []
        before = below = 0.0
        for came, seen, places in self._blocks():
            middle, likely = places / seen, came / seen
            if not curve:
                curve.append(likely)
                before, below = 0.0, likely
            for i in range(len(curve), int(middle) + 1):
                part = (i - before) / (middle - before)
                curve.append(_between(below, likely, part))
            before, below = middle, likely
        return curve + [below] * (_BINS - len(curve))

    def _blocks(self) -> list[tuple[float, float, float]]:
        """Bins merged until their rates only rise (PAV), from the lowest on.

        Of each: what came, what was seen, and the places of what was seen, summed up.
        """
        base = self.base
        trust = self._incidents / (self._incidents + _DOUBT)
        blocks: list[tuple[float, float, float]] = []
        for i, claim in enumerate(_CLAIMS):
            likely = base + trust * (claim - base)
            came, seen = self._came[i] + _PRIOR * likely, self._seen[i] + _PRIOR
            places = i * seen
            while blocks and blocks[-1][0] * seen >= came * blocks[-1][1]:
                more_came, more_seen, more_places = blocks.pop()
                came += more_came
                seen += more_seen
                places += more_places
            blocks.append((came, seen, places))
        return blocks


def _between(low: Share, high: Share, part: Share) -> Share:
    """What lies at *part* of the way from *low* to *high*, by ratios."""
    return low * (high / low) ** part if low else high * part


class Skill:
    """Whether the probabilities that were said are worth more than the base rate.

    It compares squared errors (Brier) of what was said before it was known what comes.
    Errors are forgotten with incidents, so that what was good once does not vouch for ever.
    """

    __slots__ = ("_base", "_ours")

    def __init__(self, ours: float = 0.0, base: float = 0.0) -> None:
        self._ours, self._base = ours, base

    @property
    def value(self) -> float | None:
        """1: never wrong; 0: no better than the base rate. None: nothing came yet."""
        return 1 - self._ours / self._base if self._base else None

    def take(self, said: Share, base: Share, *, came: bool) -> None:
        """Count what came after *said* was said, and *base* was the base rate."""
        self._ours += PART * (came - said) ** 2
        self._base += PART * (came - base) ** 2

    def forget(self) -> None:
        """Make what was counted count a little less: one more incident is over."""
        self._ours *= _KEPT
        self._base *= _KEPT

    def memory(self) -> list[float]:
        """What is to be remembered, fit for JSON."""
        return [float(f"{self._ours:.7g}"), float(f"{self._base:.7g}")]

    @classmethod
    def recalled(cls, memory: object) -> "Skill":
        """Make one that remembers *memory*.

        Raises:
            ValueError: No `memory` wrote this.
        """
        ours, base = numbers(memory, 2, "skill")
        if ours < 0 or base < 0:
            raise ValueError(f"skill {memory!r} has errors below 0")
        return cls(ours, base)


def numbers(memory: object, count: int, of: str) -> Sequence[float]:
    """Read *count* finite numbers.

    Raises:
        ValueError: They are none, or not that many.
    """
    if not isinstance(memory, list) or len(memory) != count:
        raise ValueError(f"{of} {memory!r} is not {count} numbers")
    for number in memory:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{of} {memory!r} is not {count} numbers")
        if not math.isfinite(number):
            raise ValueError(f"{of} {memory!r} is not finite")
    return [float(number) for number in memory]
