"""Recordings of what never was, written by the real recorder on a clock that a test sets."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pgbreaker.clock import Clock
from pgbreaker.core.plan import ProbePlan, RecordPlan, TargetPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Cause, Evidence, State, Transition
from pgbreaker.sinks.record import Recorder

BEGAN = 1_800_000_000.0
"""Wall time of the moment 0."""

USABLE = 97
FULL = Evidence("full", "sorry, too many clients already", "53300", "login")
ROLE = Evidence("wrong_role", "it is a replica", "25006", "identity")
TAKES = 0.001


class Recording:
    """One run of a daemon, for the time of a block. Moments are seconds since it began.

    Args:
        names: Of its targets.
        wall: Wall time of the moment 0.
        probes: Name -> plan, of each target.
    """

    def __init__(
        self,
        path: Path,
        *,
        names: Iterable[str] = ("main",),
        wall: float = BEGAN,
        probes: Mapping[str, ProbePlan] | None = None,
    ) -> None:
        self._now = 0.0
        clock = Clock(now=lambda: self._now, wall=lambda: wall + self._now)
        dsn = Secret("postgresql://me@db/app")
        plans = [TargetPlan(name=name, dsn=dsn, probes=probes or {}) for name in names]
        self._recorder = Recorder(RecordPlan(path=path), plans, clock, "1.2.3")

    def __enter__(self) -> Self:
        self._recorder.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._recorder.close(within=30.0)
        assert self._recorder.dropped == 0

    def heard(
        self,
        probe: str,
        at: float,
        values: Mapping[str, Any] | None = None,
        *,
        target: str = "main",
        evidence: Evidence | None = None,
    ) -> None:
        """Tell of a reading."""
        self._now = at + TAKES
        finding = Finding.OK if evidence is None else Finding(evidence.code)
        self._recorder(
            Reading(
                *(target, probe, at, TAKES, finding, values or {}),
                evidence=evidence,
                judged=True,
            )
        )

    def slots(self, at: float, used: float, held: int = 5, **more: Any) -> None:
        """Tell how many connection slots are used, of them *held* within a transaction
        that does nothing."""
        seen = {
            "slots_used": round(used),
            "slots_usable": USABLE,
            "active": 5,
            "idle_in_transaction": held,
        }
        self.heard("saturation", at, {**seen, **more})

    def opened(self, at: float, breaker: str = "main/connect", **more: Any) -> None:
        """Tell that a breaker opened, by itself unless *more* says otherwise."""
        told = {"cause": Cause.FAILURE_RUN, "after": State.OPEN, **more}
        self._move(breaker, at, State.CLOSED, "3 calls failed in a row", **told)

    def closed(self, at: float, breaker: str = "main/connect") -> None:
        """Tell that a breaker closed by itself."""
        told = {"cause": Cause.RECOVERED, "after": State.CLOSED}
        self._move(breaker, at, State.HALF_OPEN, "2 trials succeeded", **told)

    def _move(
        self, breaker: str, at: float, before: State, reason: str, **told: Any
    ) -> None:
        self._now = at
        self._recorder(
            Transition(
                breaker=breaker, before=before, reason=reason, at=at, era=1, **told
            )
        )

    def leak(self, since: float, fills_in: float, then: float = 60.0) -> None:
        """Tell of connections that are not given back, until all slots are taken, and a
        login is refused; half of them are from the beginning."""
        half = USABLE / 2
        at = since
        while at <= since + fills_in + then:
            lost = min(half * (at - since) / fills_in, half)
            self.slots(at, half + lost, held=5 + round(lost))
            if at == since + fills_in:
                self.heard("login", at + 1, evidence=FULL)
                self.opened(at + 1.5)
            at += 5.0


def leaking(path: Path, **more: Any) -> None:
    """Record a quarter of an hour of quiet, and a leak that fills the slots 40 minutes
    after it began."""
    with Recording(path, **more) as recording:
        for at in range(0, 900, 5):
            recording.slots(at, USABLE / 2)
        recording.leak(900.0, 2400.0)
