"""What is true now, as JSON. Reads are pure: none of them changes anything."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.reading import Reading
from pgbreaker.sinks.board import Board, TargetBoard

_NO_CAUSE: Final = {"code": None, "sqlstate": None, "probe": None}


def moment(wall: float) -> str:
    """Write wall time as RFC 3339, in UTC with milliseconds."""
    when = datetime.fromtimestamp(wall, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Views:
    """Shows a board.

    Attributes:
        epoch: What this run of the daemon is called; a new one starts counting anew.
    """

    def __init__(self, board: Board, clock: Clock, epoch: str) -> None:
        self._board = board
        self._clock = clock
        self.epoch = epoch

    def status(self) -> dict[str, Any]:
        """Everything, a target after the other."""
        return {
            "epoch": self.epoch,
            "time": moment(self._clock.wall()),
            "targets": [self.target(t) for t in self._board.targets.values()],
        }

    def target(self, target: TargetBoard) -> dict[str, Any]:
        """One target with its breakers, probes and facts."""
        return {
            "name": target.plan.name,
            "state": target.condition.value,
            "up": target.is_up,
            "reason": target.reason,
            "labels": dict(target.plan.labels),
            "connections": target.connections,
            "facts": dict(target.facts),
            "breakers": [self.breaker(target, name) for name in target.breakers],
            "probes": [self._probe(target, probe) for probe in target.plan.probes],
        }

    def _probe(self, target: TargetBoard, probe: str) -> dict[str, Any]:
        plan = target.plan.probes[probe]
        reading = target.readings.get(probe)
        answered = target.answered.get(probe)
        return {
            "name": probe,
            "interval_seconds": plan.interval,
            "timeout_seconds": plan.timeout,
            "last_success": None if answered is None else moment(answered),
            "last": None if reading is None else self._reading(reading),
        }

    def _reading(self, reading: Reading) -> dict[str, Any]:
        evidence = reading.evidence
        return {
            "at": moment(self._clock.wall_of(reading.at)),
            "outcome": reading.finding.value,
            "took_seconds": reading.took,
            "sqlstate": evidence.sqlstate if evidence else None,
            "text": evidence.text if evidence else None,
        }

    def breakers(self) -> list[dict[str, Any]]:
        """Every breaker of every target."""
        return [
            self.breaker(target, operation)
            for target in self._board.targets.values()
            for operation in target.breakers
        ]

    def breaker(self, target: TargetBoard, operation: str) -> dict[str, Any]:
        """One breaker, as other programs read it."""
        breaker = target.breakers[operation]
        now = self._clock.now()
        seen = breaker.snapshot(now)
        return {
            "name": breaker.name,
            "target": target.plan.name,
            "operation": operation,
            "state": seen["state"],
            "computed_state": seen["computed_state"],
            "since": moment(target.moved[operation]),
            "reason": breaker.explain(now),
            "cause": _cause(breaker),
            "retry_after_seconds": round(seen["retry_after_seconds"], 3),
            "override": self._override(breaker),
            "version": {"epoch": self.epoch, "seq": breaker.era},
            "window": seen["window"],
            "totals": seen["totals"],
        }

    def _override(self, breaker: Breaker) -> Mapping[str, Any] | None:
        override = breaker.override
        if override is None:
            return None
        until = override.until
        return {
            "state": override.state.value,
            "reason": override.reason,
            "author": override.author,
            "until": None if until is None else moment(self._clock.wall_of(until)),
        }


def _cause(breaker: Breaker) -> dict[str, Any]:
    evidence = breaker.evidence
    if breaker.cause is None:
        return dict(_NO_CAUSE)
    return {
        "code": breaker.cause.value,
        "sqlstate": evidence.sqlstate if evidence else None,
        "probe": evidence.probe if evidence else None,
        "finding": evidence.code if evidence else None,
    }
