"""What is true now, as JSON. Reads are pure: none of them changes anything."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry
from pgbreaker.core.maintenance import Window
from pgbreaker.core.reading import Reading
from pgbreaker.core.wall import moment
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.recent import Run
from pgbreaker.web import foretelling

_NO_CAUSE: Final = {"code": None, "sqlstate": None, "probe": None}


@dataclass(frozen=True, slots=True)
class Stored:
    """How the store is.

    Attributes:
        degraded: What is wrong with it, in one line. None: nothing is.
        size: Bytes that it takes on disk.
        audit_fault: Where its audit log is not as it was written. None: nowhere, as far
            as is known.
    """

    degraded: str | None
    size: int
    audit_fault: str | None = None


@dataclass(frozen=True, slots=True)
class LastReload:
    """The last time that the configuration was read anew.

    Attributes:
        at: Wall time, in seconds since the epoch.
        problem: Why it could not be used. None: it is what is true now.
    """

    at: float
    problem: str | None = None


def _nothing() -> None:
    return None


class Views:
    """Shows a board.

    Attributes:
        epoch: What this run of the daemon is called; a new one starts counting anew.
        stored: Tells how the store is; None where there is none.
        last_reload: Tells what came of reading the configuration anew; None before the
            first time.
    """

    def __init__(
        self,
        board: Board,
        clock: Clock,
        epoch: str,
        *,
        stored: Callable[[], Stored | None] = _nothing,
        last_reload: Callable[[], LastReload | None] = _nothing,
        engine_problem: Callable[[], str | None] = _nothing,
    ) -> None:
        """Look at a board.

        Args:
            engine_problem: Why the engine that daemons share is not reached; None or
                empty: it is, or there is none.
            stored: How the store is; None where there is none.
            last_reload: What came of reading the configuration anew; None before the
                first time.
        """
        self._board = board
        self._clock = clock
        self.stored = stored
        self.last_reload = last_reload
        self.engine_problem = engine_problem
        self.epoch = epoch

    def status(self) -> dict[str, Any]:
        """Everything, a target after the other."""
        windows = self._board.windows.values()
        return {
            "epoch": self.epoch,
            **self.heartbeat(),
            "overrides": self._overrides(),
            "maintenance": [self.window(window) for window in windows],
            "store": self._store(),
            "reload": self._reload(),
            "peers": self._peers(),
            "warnings": [
                told
                for target in self._board.targets.values()
                for told in foretelling.warnings(target, self._clock)
            ],
            "targets": [self._target(t) for t in self._board.targets.values()],
        }

    def _overrides(self) -> int:
        return sum(
            breaker.override is not None
            for target in self._board.targets.values()
            for breaker in target.breakers.values()
        )

    def _store(self) -> dict[str, Any] | None:
        stored = self.stored()
        if stored is None:
            return None
        return {
            "degraded": stored.degraded is not None,
            "problem": stored.degraded,
            "size_bytes": stored.size,
            "audit_fault": stored.audit_fault,
        }

    def _peers(self) -> dict[str, Any] | None:
        circle = self._board.circle
        if circle is None:
            return None
        return {
            "name": circle.name,
            "joined": not circle.is_alone,
            "problem": self.engine_problem() or None,
            "daemons": list(circle.live),
            "watching": len(circle.watching),
        }

    def _reload(self) -> dict[str, Any] | None:
        last = self.last_reload()
        if last is None:
            return None
        return {
            "ok": last.problem is None,
            "at": moment(last.at),
            "problem": last.problem,
        }

    def mark(self, *targets: TargetBoard) -> str:
        """A word that is another as soon as any state is, of these targets or, where none
        is given, of all: a target's, a breaker's."""
        seen = [
            (
                target.plan.name,
                target.condition.value,
                [(b.era, b.state.value, b.override) for b in target.breakers.values()],
            )
            for target in targets or self._board.targets.values()
        ]
        return f"{self.epoch}-{zlib.crc32(repr(seen).encode()):08x}"

    def heartbeat(self) -> dict[str, Any]:
        """That the daemon is there, and how old what it knows is."""
        now = self._clock.now()
        ends = (
            reading.at + reading.took
            for target in self._board.targets.values()
            for reading in target.readings.values()
        )
        last = max(ends, default=None)
        return {
            "time": moment(self._clock.wall()),
            "data_at": None if last is None else moment(self._clock.wall_of(last)),
            "age_seconds": None if last is None else round(max(0.0, now - last), 3),
        }

    def window(self, window: Window) -> dict[str, Any]:
        """One window of maintenance."""
        return {
            "id": window.id,
            "targets": list(window.targets),
            "reason": window.reason,
            "author": window.author,
            "starts": moment(window.starts),
            "ends": moment(window.ends),
            "active": window.is_on(self._clock.wall()),
        }

    def entry(self, entry: Entry) -> dict[str, Any]:
        """One entry of the history."""
        return {
            "id": entry.id,
            "time": moment(entry.at),
            "kind": entry.kind.value,
            "target": entry.target,
            "breaker": entry.breaker,
            "text": entry.text,
            "author": entry.author,
            "details": dict(entry.details),
        }

    def told(self, entry: Entry) -> dict[str, Any]:
        """One entry, with its breaker as it is now, where it has one and there still is
        one."""
        shown = self.entry(entry)
        if entry.breaker is not None and self._board.breaker(entry.breaker) is not None:
            name, operation = self._board.home(entry.breaker)
            target = self._board.targets[name]
            shown["breaker_status"] = self.breaker(target, operation)
        return shown

    def targets(self) -> list[dict[str, Any]]:
        """Every target."""
        return [self.target(target) for target in self._board.targets.values()]

    def target(self, target: TargetBoard) -> dict[str, Any]:
        """One target with its breakers, probes, facts, and what is foretold of it."""
        told = foretelling.forecast(target, self._clock)
        return {**self._target(target), "forecast": told}

    def _target(self, target: TargetBoard) -> dict[str, Any]:
        window = target.maintenance
        return {
            "name": target.plan.name,
            "state": target.condition.value,
            "up": target.is_up,
            "reason": target.reason,
            "labels": dict(target.plan.labels),
            "connections": target.connections,
            "facts": dict(target.facts),
            "maintenance": None if window is None else self.window(window),
            "watched": _watchers(target),
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

    def run(self, run: Run) -> dict[str, Any]:
        """One run of a probe, with the time of each of its steps."""
        evidence = run.evidence
        return {
            "probe": run.probe,
            "at": moment(self._clock.wall_of(run.at)),
            "outcome": run.finding.value,
            "took_seconds": round(run.took, 6),
            "connecting_seconds": round(run.connecting, 6),
            "steps": {name: round(took, 6) for name, took in run.steps},
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
            "fleet": _fleet(target, operation),
            "applications": _applications(target, operation),
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


def _fleet(target: TargetBoard, operation: str) -> dict[str, Any] | None:
    """What the daemons think of a breaker. None: this one is the only one."""
    ballot = target.ballot(operation)
    if ballot is None:
        return None
    return {
        "opinion": ballot.opinion.value,
        "open": len(ballot.opens),
        "voters": ballot.voters,
        "needed": ballot.need,
        "minority": list(ballot.minority),
        "views": [
            {
                "daemon": daemon,
                "opinion": view.opinion.value,
                "state": view.state.value,
                "reason": view.reason,
                "sqlstate": view.sqlstate,
            }
            for daemon, view in ballot.views.items()
        ],
    }


def _watchers(target: TargetBoard) -> dict[str, Any] | None:
    """Who watches a target. None: this daemon, which is the only one."""
    circle = target.circle
    if circle is None:
        return None
    name = target.plan.name
    others = () if circle.is_alone else circle.chosen(name)
    return {
        "here": name in circle.watching,
        "others": [daemon for daemon in others if daemon != circle.name],
    }


def _applications(target: TargetBoard, operation: str) -> dict[str, Any] | None:
    crowd = target.crowd(operation)
    return None if crowd is None else crowd.written()


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
