"""From a score to a probability: how often it came when the score was such.

A score of a model puts minutes in an order. Whether "0.8" comes in 80 % of the cases only
the cases tell, so they are counted here, by score; where there were none, what the score
claims is all that is known.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pgbreaker.core.remembered import numbers, short, whole
from pgbreaker.core.units import Share

# The minutes before one opening are one incident seen fifteen times, and the quiet ones
# between are as much alike. So each example is a part of one, and what the bins hold are
# numbers of incidents: what shrinks by them shrinks by what is known, not by how often it
# was looked at.
PART: Final = 1 / 15

# A score is in logits. Bins are of one each; what is beyond counts to the outer ones.
_LOW: Final = -9.0
_BINS: Final = 15
_HIGH: Final = _LOW + _BINS - 1

# What each score claims by itself.
_CLAIMS: Final = tuple(1 / (1 + math.exp(-(_LOW + i))) for i in range(_BINS))

# How many incidents a score's own claim counts for, against those seen with it.
_PRIOR: Final = 1.0

_NONE: Final = 1e-6  # weight of a bin that nothing was seen in
_MOST: Final = 1e12  # of what is remembered; no count comes near
_DIGITS: Final = 7  # of it: what is lost is far below what is known

# What is left of a count after one more incident: about twenty are remembered.
_KEPT: Final[Share] = 0.95


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

    Each bin starts from what the score claims, and goes to what came. The probability grows
    with the score: bins that are out of order are one.

    Attributes:
        incidents: Those that came so far.
    """

    __slots__ = ("_came", "_curve", "_seen", "incidents")

    def __init__(self) -> None:
        self.incidents = 0
        self._came = [0.0] * _BINS
        self._seen = [0.0] * _BINS
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
        i = round(_place(score))
        self._seen[i] += PART
        if came:
            self._came[i] += PART
        self._curve = None

    def forget(self) -> None:
        """Make what was counted count a little less: one more incident came."""
        self.incidents += 1
        self._came = [count * _KEPT for count in self._came]
        self._seen = [count * _KEPT for count in self._seen]
        self._curve = None

    def probability(self, score: float) -> Share:
        """The probability that it comes when the score is *score*."""
        if self._curve is None:
            self._curve = self._draw()
        place = _place(score)
        i = min(int(place), _BINS - 2)
        low, high = self._curve[i : i + 2]
        return _between(low, high, place - i)

    def memory(self) -> dict[str, Any]:
        """What is to be remembered, fit for JSON."""
        return {
            "incidents": self.incidents,
            "came": [short(count, _DIGITS) for count in self._came],
            "seen": [short(count, _DIGITS) for count in self._seen],
        }

    @classmethod
    def recalled(cls, memory: Mapping[str, Any]) -> "Calibration":
        """Make one that remembers *memory*.

        Raises:
            KeyError, TypeError, ValueError: No `memory` wrote this.
        """
        one = cls()
        one.incidents = whole(memory["incidents"], "incidents")
        one._came = numbers(memory["came"], "came", _BINS, 0.0, _MOST)
        one._seen = numbers(memory["seen"], "seen", _BINS, 0.0, _MOST)
        for came, seen in one.bins:
            if came > seen * (1 + 1e-6):  # what is written is rounded
                raise ValueError(f"{came:g} cannot have come of {seen:g}")
        return one

    def _draw(self) -> list[Share]:
        """The probability in the middle of each bin.

        A block says what it says in its own middle, by weight, and what is between two
        middles lies between (centred isotonic regression): the order of scores, which a
        staircase would lose, is kept.
        """
        curve: list[Share] = []
        before, below = 0.0, None
        for came, seen, places, weight in self._blocks():
            middle, likely = places / weight, came / seen
            for i in range(len(curve), int(middle) + 1):
                if below is None:
                    curve.append(likely)
                else:
                    part = (i - before) / (middle - before)
                    curve.append(_between(below, likely, part))
            before, below = middle, likely
        return curve + [likely] * (_BINS - len(curve))

    def _blocks(self) -> list[tuple[float, float, float, float]]:
        """Bins merged until their rates only rise (PAV), from the lowest on.

        Of each: what came and what was seen, with what is claimed of it; the bins' places,
        by weight, summed up; that weight, which is what was seen alone.
        """
        blocks: list[tuple[float, float, float, float]] = []
        for i, claim in enumerate(_CLAIMS):
            # What nothing was seen in has a middle, too.
            weight = self._seen[i] or _NONE
            came = self._came[i] + _PRIOR * claim
            seen, places = self._seen[i] + _PRIOR, i * weight
            while blocks and blocks[-1][0] * seen >= came * blocks[-1][1]:
                last = blocks.pop()
                came += last[0]
                seen += last[1]
                places += last[2]
                weight += last[3]
            blocks.append((came, seen, places, weight))
        return blocks


class Skill:
    """Whether the probabilities that were said are worth more than the base rate.

    It compares squared errors (Brier) of what was said before it was known what comes.
    They are forgotten with incidents, for what was good once does not vouch for ever.
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
        return [short(self._ours, _DIGITS), short(self._base, _DIGITS)]

    @classmethod
    def recalled(cls, memory: object) -> "Skill":
        """Make one that remembers *memory*.

        Raises:
            TypeError, ValueError: No `memory` wrote this.
        """
        return cls(*numbers(memory, "skill", 2, 0.0, _MOST))


def _place(score: float) -> float:
    """Where among the bins *score* is: 0 is the middle of the first."""
    return min(max(score, _LOW), _HIGH) - _LOW


def _between(low: Share, high: Share, part: Share) -> Share:
    """What lies at *part* of the way from *low* to *high*, by ratios."""
    return min(high, low * (high / low) ** part) if low else high * part
