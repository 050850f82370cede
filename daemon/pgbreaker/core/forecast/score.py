"""The record: what came of the warnings that were given.

A warning that comes again within an hour is the same one, and so is a failure. A warning
less than a minute before is none: nobody can do anything with it, and to count it would
be to boast of storms that nobody foresaw. What somebody averted counts as false: nobody
can tell the two apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from pgbreaker.core.remembered import number_or_none, numbers, reading, whole
from pgbreaker.core.units import Seconds, Share

FORESIGHT: Final[Seconds] = 60.0
"""Seconds by which a warning must come before a failure to have foreseen it."""

_ONE: Final[Seconds] = 3600.0  # within which two are one
_LEADS: Final = 100  # that are kept
_COUNTS: Final = ("came", "late", "false", "missed")
_TIMES: Final = ("began", "ended", "failed")


@dataclass
class Score:
    """What came of the warnings of one kind.

    Attributes:
        came: Failures that were warned of in time.
        late: Failures that were warned of less than a minute before.
        false: Warnings that nothing came of within an hour of their end.
        missed: Failures without a warning.
    """

    came: int = 0
    late: int = 0
    false: int = 0
    missed: int = 0
    # Of the warning that nothing came of yet; while it stands, it has not ended.
    _began: Seconds | None = None
    _ended: Seconds | None = None
    _failed: Seconds | None = None  # when it last failed
    _looked: Seconds = 0.0
    _stands: bool = False  # a warning, be it of what failed a moment ago
    _leads: list[Seconds] = field(default_factory=list)

    def begins(self, at: Seconds) -> None:
        """A warning begins at *at*."""
        self._stands = True
        self.settle(at)
        if self._began is not None:
            self._ended = None

    def ends(self, at: Seconds) -> None:
        """The warning that stands ends at *at*."""
        self.settle(at)
        self._stands = False
        if self._began is not None:
            self._ended = at

    def fails(self, at: Seconds) -> None:
        """What it would be warned of is there at *at*."""
        self.settle(at)
        is_same, self._failed = self._is_failing(at), at
        if is_same:
            return
        began, self._began, self._ended = self._began, None, None
        if began is None:
            self.missed += 1
        elif at - began < FORESIGHT:
            self.late += 1
        else:
            self.came += 1
            self._leads = [*self._leads, at - began][-_LEADS:]

    def settle(self, at: Seconds) -> None:
        """Count a warning as false that nothing came of up to *at*."""
        self._looked = at
        if self._ended is not None and at - self._ended >= _ONE:
            self.false += 1
            self._began = self._ended = None
        # Nobody is warned of what is there: one that stands then is of the next time.
        if self._stands and self._began is None and not self._is_failing(at):
            self._began = at

    def _is_failing(self, at: Seconds) -> bool:
        return self._failed is not None and at - self._failed < _ONE

    @property
    def precision(self) -> Share | None:
        """Share of the warnings that something came of. None: none is settled."""
        told = self.came + self.false
        return self.came / told if told else None

    @property
    def recall(self) -> Share | None:
        """Share of the failures that were warned of in time. None: none has been."""
        failures = self.came + self.late + self.missed
        return self.came / failures if failures else None

    @property
    def lead(self) -> Seconds | None:
        """Seconds from the warning to the failure, the median of the last hundred.
        None: no failure has been foreseen."""
        return median(self._leads) if self._leads else None

    @property
    def leads(self) -> tuple[Seconds, ...]:
        """Seconds from the warning to the failure, of the last hundred."""
        return tuple(self._leads)

    def memory(self, epoch: float = 0.0) -> dict[str, Any]:
        """What is remembered of it, fit for JSON.

        Args:
            epoch: Wall time of moment 0.
        """
        counts = {name: getattr(self, name) for name in _COUNTS}
        return {
            **counts,
            **{
                name: None if at is None else round(at + epoch)
                for name, at in zip(_TIMES, self._times(), strict=True)
            },
            "leads": [round(lead) for lead in self._leads],
        }

    @classmethod
    @reading("record")
    def recall_from(cls, memory: Mapping[str, Any], epoch: float = 0.0) -> "Score":
        """Go on from a memory.

        Args:
            epoch: Wall time of moment 0.

        Raises:
            ValueError: It is none.
        """
        counts: dict[str, Any] = {name: whole(memory[name], name) for name in _COUNTS}
        score = cls(**counts)
        score._leads = numbers(memory["leads"], "leads", least=0.0)[-_LEADS:]
        # Those that were written at first have no times.
        times = [number_or_none(memory.get(name), name, 0.0) for name in _TIMES]
        began, ended, failed = (None if at is None else at - epoch for at in times)
        score._began, score._ended, score._failed = began, ended, failed
        return score

    def _times(self) -> tuple[Seconds | None, ...]:
        # To who reads it, a warning that stands has ended, or will be given anew.
        ended = self._looked if self._ended is None else self._ended
        return self._began, None if self._began is None else ended, self._failed
