"""The rank of a value among many, in little space and within a relative error."""

from collections.abc import Mapping
from math import ceil, log
from typing import Any, Final

from pgbreaker.core.remembered import number, numbers, reading, short, wholes
from pgbreaker.core.units import Share

_LEAST: Final = 1e-9  # below this a value counts as 0
_GREATEST: Final = 1e18  # an exabyte, in bytes
_LIGHTEST: Final = 1e-3  # a bucket that weighs less is forgotten
_DIGITS: Final = 4  # of a weight that is remembered


class Sketch:
    """The ranks of sizes: of what is 0 or above.

    Values are counted in buckets each of which is wider than the one below it by the
    same factor, so that no two in one are further apart than by a share (DDSketch:
    Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
    relative-error guarantees", 2019). When there are too many buckets, the lowest become
    one: ranks of low values are then too low, the others as good as before.

    Args:
        error: Share by which values of one bucket are off its middle.
        most: Buckets that are kept.
    """

    __slots__ = ("_base", "_buckets", "_error", "_most", "_total", "_zero")

    def __init__(self, *, error: Share = 0.02, most: int = 256) -> None:
        if not 0 < error < 1 or most < 1:
            raise ValueError("a sketch has an error between 0 and 1, and a bucket")
        self._error = error
        self._base = log((1 + error) / (1 - error))
        self._most = most
        self._buckets: dict[int, float] = {}  # power that it reaches up to -> weight
        self._zero = 0.0
        self._total = 0.0

    @property
    def total(self) -> float:
        """How many values it holds; those that have aged count as less than one."""
        return self._total

    def take(self, value: float) -> None:
        """Count *value*; what is below 0, above 1e18 or no number is ignored."""
        if not 0 <= value <= _GREATEST:
            return
        self._total += 1.0
        if value < _LEAST:
            self._zero += 1.0
            return
        power = ceil(log(value) / self._base)
        weight = self._buckets.get(power)
        if weight is None:
            self._buckets[power] = 1.0
            if len(self._buckets) > self._most:
                self._collapse()
        else:
            self._buckets[power] = weight + 1.0

    def _collapse(self) -> None:
        lowest, second = sorted(self._buckets)[:2]
        self._buckets[second] += self._buckets.pop(lowest)

    def rank(self, value: float) -> Share | None:
        """The share of all that are below *value*, but for those in the bucket of it.
        None: it holds none."""
        if not self._total:
            return None
        if value < _LEAST:
            return 0.0
        power = ceil(log(value) / self._base)
        below = sum(n for reach, n in self._buckets.items() if reach < power)
        return min((self._zero + below) / self._total, 1.0)

    def age(self, factor: Share) -> None:
        """Let all that was taken weigh *factor* of what it did."""
        if not 0 <= factor <= 1:
            raise ValueError(f"a factor is 0 to 1, got {factor!r}")
        self._zero = _aged(self._zero * factor)
        self._buckets = {
            power: weight * factor
            for power, weight in self._buckets.items()
            if weight * factor >= _LIGHTEST
        }
        self._sum_up()

    def _sum_up(self) -> None:
        self._total = self._zero + sum(self._buckets.values())

    # -- Memory --------------------------------------------------------------------

    def memory(self) -> dict[str, Any]:
        """What is remembered of it, fit for JSON; of each bucket about 10 bytes."""
        powers = sorted(self._buckets)
        return {
            "error": self._error,
            "zero": short(self._zero, _DIGITS),
            "powers": powers,
            "weights": [short(self._buckets[power], _DIGITS) for power in powers],
        }

    @reading("memory of a sketch")
    def recall(self, memory: Mapping[str, Any]) -> None:
        """Be what is remembered.

        Raises:
            ValueError: `memory` did not write this, or a sketch with another error or
                more buckets did; nothing has changed then.
        """
        if memory["error"] != self._error:
            raise ValueError(f"another error: {memory['error']!r}, not {self._error}")
        zero = number(memory["zero"], "zero", 0.0)
        farthest = ceil(log(_GREATEST) / self._base)
        powers = wholes(memory["powers"], "powers", None, -farthest, farthest)
        if len(powers) > self._most:
            raise ValueError(f"{len(powers)} buckets are more than {self._most}")
        weights = numbers(memory["weights"], "weights", len(powers), _LIGHTEST / 2)
        self._zero, self._buckets = zero, dict(zip(powers, weights, strict=True))
        self._sum_up()


def _aged(weight: float) -> float:
    return weight if weight >= _LIGHTEST else 0.0
