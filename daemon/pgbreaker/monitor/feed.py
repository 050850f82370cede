"""From a reading to the breakers: judge it, tell them, tell the world."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.forecast.warning import KINDS, Forewarning
from pgbreaker.core.judge import (
    PING,
    REPLICATION,
    SATURATION,
    Verdict,
    deciding,
    is_mute,
    is_of_role,
    judge,
)
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import NOTHING, Reading, Seen
from pgbreaker.core.states import Outcome, Transition
from pgbreaker.core.units import Seconds, Share
from pgbreaker.monitor.notices import notices
from pgbreaker.monitor.outlook import Outlook
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.hub import Hub, Notice

log = logging.getLogger(__name__)

Recall: TypeAlias = Callable[[], tuple[Mapping[str, Any], Seconds] | None]
"""Gives back what `Feed.memory` once was, and how many seconds ago. None: nothing is
remembered. Raises ValueError: It was damaged."""

_NEARLY_FULL: Final[Share] = 0.9
_OF_ADDRESS: Final = ("host", "port", "dbname", "database")


class Feed:
    """Feeds the breakers of one target with what its probes saw.

    Attributes:
        board: What is true of the target.
        decides: Operation -> the probes that decide about it at present.
    """

    def __init__(
        self,
        board: TargetBoard,
        hub: Hub,
        clock: Clock,
        when_told: Callable[[str], None] = lambda _code: None,
        when_filling: Callable[[], None] = lambda: None,
        recall: Recall = lambda: None,
    ) -> None:
        self.board = board
        self._recall: Recall | None = recall  # until the first reading
        self._has_failed = False
        self._place = _place_of(board.plan)
        self._system: str | None = None  # the cluster that the outlook has learned of
        self.decides = deciding(board.plan.probes)
        # A probe is as quick as ever though it cannot tell just now.
        served = [d for o, d in self.decides.items() if o in board.breakers]
        self._deciding = frozenset(probe for probes in served for probe in probes)
        self._mute: frozenset[str] = frozenset()
        self._bad: dict[str, set[str]] = {name: set() for name in self.decides}
        self._hub = hub
        self._clock = clock
        self._outlook = self._new_outlook()
        self._when_told = when_told
        self._when_filling = when_filling

    def _new_outlook(self) -> Outlook:
        probes = self.board.plan.probes
        size, replication = probes.get("size"), probes.get(REPLICATION)
        outlook = Outlook(
            self._clock.wall_of,
            capacity=None if size is None else size.capacity,
            lag_limit=None if replication is None else replication.limit,
            bearer=SATURATION if SATURATION in probes else PING,
            troubled=[
                breaker.name
                for breaker in self.board.breakers.values()
                if self._is_waiting(breaker)
            ],
            is_planned=lambda: self.board.maintenance is not None,
        )
        self.board.foretold = outlook.foretold
        self.board.forewarnings = outlook.warnings
        return outlook

    def show(self, reading: Reading) -> None:
        """Tell the world, but not the breakers."""
        seen = self._learn(reading)
        if seen:
            reading = replace(reading, values={**reading.values, **seen})
        for notice in notices(self.board, reading):
            self._hub.publish(notice)
            if notice.code in ("moved", "cluster"):
                self._outlook = self._new_outlook()  # what was seen is another's
            self._when_told(notice.code)
        self._hub.publish(reading)
        if reading.probe == SATURATION and self.is_nearly_full:
            self._when_filling()

    def _learn(self, reading: Reading) -> Seen:
        """Have the forecasts learn. Whatever becomes of them, breakers are told: a fault
        of theirs is told once, and they begin anew."""
        try:
            self._recognise(reading)
            before = dict(self._outlook.warnings)
            seen = self._outlook.take(reading)
            self._tell_warnings(reading.at, before)
            return seen
        except Exception as error:  # noqa: BLE001 - no fault of a forecast costs a judgement
            self._begin_anew(error)
            return NOTHING

    def _tell_warnings(self, at: Seconds, before: Mapping[str, Forewarning]) -> None:
        """Tell of warnings that began or ended: later, somebody asks when it was known."""
        stand, name = self._outlook.warnings, self.board.plan.name
        for of in stand.keys() - before.keys():
            self._hub.publish(Notice(name, "warned", stand[of].reason, at))
        for of in before.keys() - stand.keys():
            text = f"warned no longer of {KINDS[of].says}"
            self._hub.publish(Notice(name, "warning_over", text, at))

    def _begin_anew(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.error(
                "the forecasts of %s failed, which is a fault of ours; they begin anew",
                self.board.plan.name,
                exc_info=error,
            )
        self._outlook = self._new_outlook()

    def _recognise(self, reading: Reading) -> None:
        """Go on by what was learned before, unless it was of another server."""
        if self._recall is not None:
            recall, self._recall = self._recall, None
            try:
                self._go_on(recall())
            except ValueError as error:
                name = self.board.plan.name
                log.warning("the forecasts of %s begin anew: %s", name, error)
                self._outlook = self._new_outlook()
        system = reading.values.get("system_id")
        if not isinstance(system, str) or system == self._system:
            return
        if self._system is not None:
            # Nobody saw it change when it did so while no process watched.
            self._outlook = self._new_outlook()
        self._system = system

    def _go_on(self, told: tuple[Mapping[str, Any], Seconds] | None) -> None:
        memory, ago = told or ({}, 0.0)
        if memory.get("place") != self._place:
            return
        outlook, system = memory.get("outlook"), memory.get("system")
        # Without any it is damaged, which the outlook says as of any other damage.
        self._outlook.recall(outlook if isinstance(outlook, Mapping) else {}, ago)
        self._system = system if isinstance(system, str) else None

    def memory(self) -> dict[str, Any] | None:
        """What the forecasts have learned, fit for JSON, and of whom. None: nothing came
        yet to learn from."""
        if self._recall is not None:
            return None
        return {
            "place": self._place,
            "system": self._system,
            "outlook": self._outlook.memory(),
        }

    def judge(self, reading: Reading) -> None:
        """Tell the world and the breakers, in this order: a move is explained by
        the reading before it."""
        reading = replace(reading, judged=True)
        self.show(reading)
        self._listen(reading)
        verdict = judge(reading, self.decides)
        self._forget(reading, verdict)
        now = self._clock.now()
        for operation, outcome in verdict.outcomes.items():
            breaker = self.board.breakers.get(operation)
            if breaker is None or self._is_contradicted(operation, reading, outcome):
                continue
            for move in breaker.observe(
                outcome,
                now,
                slow=verdict.slow,
                confirmed=verdict.confirmed,
                evidence=verdict.evidence,
            ):
                self._hub.publish(move)
                self._note(move)

    def _note(self, move: Transition) -> None:
        try:
            self._outlook.note(move)
        except Exception as error:  # noqa: BLE001 - no fault of a forecast costs a move
            self._begin_anew(error)

    def _listen(self, reading: Reading) -> None:
        """Have another probe decide while one cannot tell."""
        mute = self._mute - {reading.probe}
        if is_mute(reading):
            mute |= {reading.probe}
        if mute != self._mute:
            self._mute = mute
            self.decides = deciding(self.board.plan.probes, mute)

    def _forget(self, reading: Reading, verdict: Verdict) -> None:
        """Hold nothing against an operation any more by a probe that cannot tell."""
        for operation, bad in self._bad.items():
            if operation not in verdict.outcomes:
                bad.discard(reading.probe)

    def _is_contradicted(
        self, operation: str, reading: Reading, outcome: Outcome
    ) -> bool:
        """Whether a good answer of one probe is no news, because another that decides
        about *operation* gave a bad one last."""
        bad = self._bad[operation]
        if outcome is Outcome.SUCCESS:
            bad.discard(reading.probe)
            return bool(bad)
        if reading.probe in self.decides[operation]:
            bad.add(reading.probe)
        return False

    @property
    def is_nearly_full(self) -> bool:
        """Whether hardly a connection slot was left when last seen."""
        ratio = self.board.facts.get("slots_ratio")
        return isinstance(ratio, int | float) and ratio >= _NEARLY_FULL

    @property
    def all_pass(self) -> bool:
        """Whether every breaker of the target lets calls pass, but for what is not the
        server's role: that is no trouble, and can last for ever."""
        return not any(map(self._is_waiting, self.board.breakers.values()))

    def is_wanted(self, probe: str) -> bool:
        """Whether a breaker waits for *probe* to let calls pass again."""
        return any(
            probe in deciders and self._is_waiting(self.board.breakers[operation])
            for operation, deciders in self.decides.items()
            if operation in self.board.breakers
        )

    @staticmethod
    def _is_waiting(breaker: Breaker) -> bool:
        return not breaker.computed_passes and not is_of_role(breaker.evidence)

    def is_deciding(self, probe: str) -> bool:
        """Whether some breaker of the target goes by *probe*, when it can tell."""
        return probe in self._deciding


def _place_of(plan: TargetPlan) -> str:
    """Where the server is by its address, such that two can be compared and nobody reads
    it: role and password are none of it."""
    parts = urlsplit(plan.dsn.reveal())
    said = [pair for pair in parse_qsl(parts.query) if pair[0] in _OF_ADDRESS]
    place = (parts.netloc.rpartition("@")[2], parts.path, sorted(said))
    return sha256(repr(place).encode()).hexdigest()[:16]
