"""What follows from what probes saw before: how long until something runs out, what is
not as usual, how likely a breaker opens.

All of it warns, none of it opens a breaker.

    runways   how long is left of what runs out      owners   whose connections they are
    standing  warnings, and what came of them        counts   counters, as they are shown
    shown     all of it as metrics
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pgbreaker.core.forecast.foretold import Foretold
from pgbreaker.core.forecast.warning import CONNECTIONS, FAILURE, Forewarning
from pgbreaker.core.judge import SATURATION
from pgbreaker.core.reading import NOTHING, Finding, Reading, Seen, Value
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.outlook.counts import Counts
from pgbreaker.monitor.outlook.runways import Runways
from pgbreaker.monitor.outlook.shown import OUTLOOK as OUTLOOK
from pgbreaker.monitor.outlook.standing import Warnings

_VERSION: Final = 1  # of what is remembered


class Outlook:
    """What the readings of one target, one after the other, say of its future.

    Args:
        wall_of: Shows a moment as wall time: what is usual depends on the hour.
        capacity: Bytes of the disk that holds its data and WAL. None: not known.
        lag_limit: Seconds that a replica may be behind. None: as many as it likes.
        bearer: Name of the probe whose readings carry what is said of no probe alone.
    """

    def __init__(
        self,
        wall_of: Callable[[Seconds], float] = lambda at: at,
        *,
        capacity: float | None = None,
        lag_limit: Seconds | None = None,
        bearer: str = SATURATION,
    ) -> None:
        self._wall_of = wall_of
        self._bearer = bearer
        self._runways = Runways(capacity, lag_limit)
        self._counts = Counts()
        self._warnings = Warnings()
        self._borne: dict[str, Value] = {}
        self._bear(0.0)

    def take(self, reading: Reading) -> Seen:
        """Learn from *reading*, answered or not; returns what follows from it, by name.

        What cannot be told is None. A reading without values says nothing.
        """
        if not reading.values or not reading.answered:
            return NOTHING
        seen = self._runways.take(reading)
        if seen:
            self._warn(reading)
        counts = self._counts.take(reading)
        if counts:
            seen = {**seen, **counts}
            self._runways.take_slowness(reading.at, self._counts.slowness)
        return {**seen, **self._borne} if reading.probe == self._bearer else seen

    def note(self, move: Transition, *, is_planned: bool = False) -> None:
        """Learn from what a breaker of the target does.

        Args:
            is_planned: Whether the target is in maintenance: what fails then teaches
                nothing.
        """
        seen = move.evidence
        by_role = seen is not None and seen.code == Finding.WRONG_ROLE
        if is_planned or by_role or not move.leaves_closed:
            return
        self._warnings.fails(FAILURE, move.at)
        if seen is not None and seen.code == Finding.FULL:
            self._warnings.fails(CONNECTIONS, move.at)

    @property
    def warnings(self) -> Mapping[str, Forewarning]:
        """Kind -> the warning of it that stands."""
        return self._warnings.standing

    def foretold(self) -> Foretold:
        """All of it, for whoever shows it."""
        return Foretold(
            warnings=self._warnings.by_urgency(),
            runways=self._runways.all(),
            record=self._warnings.record,
        )

    def memory(self) -> dict[str, Any]:
        """What it has learned, fit for JSON. Moments in it are wall time: those of a
        process are of no use to the next."""
        return {"version": _VERSION, "record": self._warnings.memory()}

    def recall(self, memory: Mapping[str, Any], ago: Seconds = 0.0) -> None:
        """Go on by a memory that was written so many seconds *ago*.

        Raises:
            ValueError: It is none.
        """
        record = memory.get("record")
        if memory.get("version") != _VERSION or not isinstance(record, Mapping):
            raise ValueError("no memory of a forecast, or one of another version")
        self._warnings.recall(record)
        self._bear(0.0)

    def _warn(self, reading: Reading) -> None:
        found, reason = self._runways.seen_by(reading.probe), self._runways.reason
        looks = [self._warnings.look(reading.at, one, reason) for one in found]
        if any(looks):
            self._bear(reading.at)

    def _bear(self, at: Seconds) -> None:
        """Put together what is said of no probe alone."""
        self._borne = {
            "failure_probability": None,
            "model_begun": None,
            "model_learned": None,
            **self._warnings.values(at),
        }
