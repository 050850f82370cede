"""What one target's events have come to so far, and how each metric of it is written.

What is kept are numbers, and labels as text, once each; a line is made when it is asked
for.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import COMMIT, LATENCY, LOGIN, PING, deciding, judge
from pgbreaker.core.policy import Policy
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.report import By
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.states import (
    BY_CALLS,
    MOVES,
    Cause,
    Outcome,
    State,
    Transition,
)
from pgbreaker.core.units import Seconds, server_version
from pgbreaker.sinks.board import Condition, TargetBoard
from pgbreaker.sinks.exposition import (
    Histogram,
    SpanIds,
    escape,
    exemplar,
    more,
    opened,
)
from pgbreaker.sinks.hub import NOTICES

# Bounds of histograms, in seconds; the infinite one comes on top, and is where what hits
# a deadline lands: 1 s of a login, 2 s of a commit.
_PING_BOUNDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0),
)
_LOGIN_BOUNDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
_COMMIT_BOUNDS: Final = (0.001, 0.0025, 0.01, 0.05, 0.25, 1.0)
_CANARY_BOUNDS: Final = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5)
_PING_LATE_BOUNDS: Final = (0.05, 0.5)
_DETECTION_BOUNDS: Final = (0.01, 0.05, 0.25, 1.0, 2.5, 10.0)

# A histogram a probe is what makes series many: four probes that decide have one, of
# the others the time is summed up.
_TIMED: Final = frozenset((PING, LOGIN, COMMIT, LATENCY))

# What has not happened yet is 0 and not missing, or its first increase is lost. That is
# told for what does happen.
_PING_ENDS: Final = (
    *(Finding.OK, Finding.SLOW, Finding.TIMEOUT, Finding.REFUSED, Finding.LOST),
    *(Finding.UNRESOLVED, Finding.AUTH, Finding.FULL, Finding.STARTING),
    *(Finding.QUERY, Finding.SYSTEM),
)
_OUTCOMES: Final = (
    *("success", "failure", "slow", "ignored"),
    *("unreached", "cut", "released", "rejected"),
)
_OF_ADMITTED: Final = frozenset((Cause.EXPIRED, Cause.BARREN))
_FAULTS: Final = frozenset(finding.value for finding in Finding)
_SQLSTATE: Final = re.compile(r"[0-9A-Z]{5}")
_UNTRACED: Final[Mapping[str, str]] = {}

# Label texts that many series share.
_ENDED: Final = {finding: f',outcome="{finding.value}"}}' for finding in Finding}
_MOVED: Final = {
    (before, after, cause): f',from="{before}",to="{after}",cause="{cause}"}}'
    for (before, cause), after in MOVES.items()
}
_CALLED: Final = {outcome: f',outcome="{outcome}"}}' for outcome in _OUTCOMES}
_IN: Final = {state: f',state="{state}"}}' for state in State}
_COMPUTED: Final = tuple(
    (state, _IN[state]) for state in (State.CLOSED, State.OPEN, State.HALF_OPEN)
)
_NOTED: Final = {code: f',code="{code}"}}' for code in NOTICES}
_HELD: Final = {by: f',by="{by}"}}' for by in By}
_IS: Final = {condition: f',state="{condition}"}}' for condition in Condition}


def _fault(code: str) -> str:
    """A word for a label, from the list that is closed."""
    return code if code in _FAULTS else "other"


class _Probe:
    """What one probe on one target has come to so far."""

    __slots__ = ("labels", "name", "ran", "runs", "spent")

    def __init__(self, target: str, name: str) -> None:
        self.name = name
        self.labels = f'{target},probe="{escape(name)}"'
        ends = _PING_ENDS if name == PING else (Finding.OK,)
        self.runs = {_ENDED[finding]: 0 for finding in ends}
        self.spent: Seconds = 0.0
        self.ran = 0.0

    def inherit(self, old: "_Probe") -> None:
        """Go on counting where *old* was."""
        self.runs = {**self.runs, **old.runs}
        self.spent, self.ran = old.spent, old.ran


class _Breaker:
    """What one breaker has come to so far."""

    __slots__ = ("breaker", "exemplars", "labels", "moves", "operation", "usual")

    def __init__(
        self, target: str, operation: str, breaker: Breaker, *, meets_slow: bool
    ) -> None:
        self.operation = operation
        self.breaker = breaker
        self.labels = target + more({"operation": operation, "breaker": breaker.name})
        self.moves = dict.fromkeys(_usual_moves(breaker.policy, meets_slow), 0)
        self.exemplars = _UNTRACED  # by the same key, of those that have one
        self.usual = ("success", "failure", "slow") if meets_slow else _OUTCOMES[:2]

    def move(self, move: Transition, traced: str) -> None:
        """Count a move.

        Args:
            traced: Its exemplar, empty where it has none.
        """
        text = _MOVED.get((move.before, move.after, move.cause)) or _moved(move)
        self.moves[text] = self.moves.get(text, 0) + 1
        if traced:
            self.exemplars = {**self.exemplars, text: traced}

    def inherit(self, old: "_Breaker") -> None:
        """Go on counting where *old* was."""
        self.moves = {**self.moves, **old.moves}
        self.exemplars = old.exemplars

    @property
    def evidence(self) -> str | None:
        """What was seen last against it, as labels. None while it is closed.

        A failure that it has recovered from is no evidence any more.
        """
        seen = self.breaker.evidence
        if seen is None or self.breaker.computed_passes:
            return None
        sqlstate = seen.sqlstate or ""
        about = {
            "code": _fault(seen.code),
            "sqlstate": sqlstate if _SQLSTATE.fullmatch(sqlstate) else "",
            "probe": seen.probe or "",
        }
        return f"{self.labels}{more(about)}}}"


def _moved(move: Transition) -> str:
    """Labels of a move that is none of the machine's own: an operator's."""
    return f',from="{move.before}",to="{move.after}",cause="{move.cause}"}}'


def _usual_moves(policy: Policy, meets_slow: bool) -> Iterator[str]:
    """Those that somebody can bring about who observes: no call was let in, none is
    in flight."""
    never = BY_CALLS | _OF_ADMITTED
    if policy.slow_rate is None or not meets_slow:
        never |= {Cause.SLOW_RATE}
    if policy.failure_threshold is None:
        never |= {Cause.FAILURE_RUN}
    for (_, _, cause), text in _MOVED.items():
        if cause not in never:
            yield text


class Tally:
    """What one target's events have come to so far, and how each metric of it is
    written: a method takes the metric's name and gives its lines."""

    __slots__ = (
        *("bad_since", "board", "breakers", "canaries", "commits", "decides"),
        "detections",
        *("info", "labels", "logins", "notices", "pings", "pings_late", "probes"),
    )

    def __init__(self, board: TargetBoard) -> None:
        plan = board.plan
        self.board = board
        self.labels = opened(target=plan.name)
        self.info = more({f"label_{k}": v for k, v in plan.labels.items()})
        self.decides = deciding(plan.probes)
        self.breakers = {
            operation: _Breaker(
                self.labels,
                operation,
                breaker,
                meets_slow=PING in self.decides.get(operation, ())
                and plan.policy.slow_call is not None,
            )
            for operation, breaker in board.breakers.items()
        }
        self.probes = {probe: _Probe(self.labels, probe) for probe in plan.probes}
        self.pings = Histogram(_PING_BOUNDS)
        self.pings_late = Histogram(_PING_LATE_BOUNDS)
        self.logins = Histogram(_LOGIN_BOUNDS)
        self.commits = Histogram(_COMMIT_BOUNDS)
        self.canaries = Histogram(_CANARY_BOUNDS) if LATENCY in plan.probes else None
        self.notices = dict.fromkeys(_NOTED.values(), 0)
        # Probe -> beginning of the first reading of its trouble, while it has one. A good
        # ping is no end of failing commits.
        self.bad_since: dict[str, Seconds] = {}
        self.detections: dict[str, Histogram] = {}

    def inherit(self, old: "Tally") -> None:
        """Go on counting where *old* was, which told of this target until it was
        configured anew. What it has no more is forgotten."""
        for operation, breaker in self.breakers.items():
            if operation in old.breakers:
                breaker.inherit(old.breakers[operation])
        for name, probe in self.probes.items():
            if name in old.probes:
                probe.inherit(old.probes[name])
        self.pings, self.pings_late = old.pings, old.pings_late
        self.logins, self.commits = old.logins, old.commits
        self.detections, self.bad_since = old.detections, old.bad_since
        if self.canaries is not None and old.canaries is not None:
            self.canaries = old.canaries
        self.notices = {**self.notices, **old.notices}

    def take(self, reading: Reading, ended: float, span: SpanIds | None) -> None:
        """Count a reading.

        Args:
            ended: Wall time at which it ended.
            span: What was made of it. None: nothing that is sent.
        """
        name = reading.probe
        if name not in self.probes:
            return  # it was configured away while it ran
        probe = self.probes[name]
        text = _ENDED[reading.finding]
        probe.runs[text] = probe.runs.get(text, 0) + 1
        probe.ran = ended
        if name == PING:
            self.pings_late.observe(reading.late)
        if name not in _TIMED:
            probe.spent += reading.took
        elif (timed := self._time(reading)) is not None:
            histogram, seconds = timed
            histogram.observe(seconds, exemplar(span, seconds, ended))
        if Outcome.FAILURE in judge(reading, self.decides).outcomes.values():
            self.bad_since.setdefault(name, reading.at)
        elif reading.answered:
            self.bad_since.pop(name, None)

    def _time(self, reading: Reading) -> tuple[Histogram, Seconds] | None:
        """Say what of a reading is timed, and where. None: it came to nothing.

        Only a ping that is given up on tells how long: of other probes some were never
        asked. The server itself ends a canary before that.
        """
        if reading.probe == PING:
            return self.pings, reading.took
        if not reading.answered:
            return None
        if reading.probe == LOGIN:
            return self.logins, reading.connecting
        histogram = self.commits if reading.probe == COMMIT else self.canaries
        assert histogram is not None  # who is read is configured
        return histogram, max(0.0, reading.took - reading.connecting)

    def move(
        self, operation: str, move: Transition, at: float, span: SpanIds | None
    ) -> None:
        """Count a move of one of its breakers.

        Args:
            at: Wall time of it.
            span: What was made of it. None: nothing that is sent.
        """
        self.breakers[operation].move(move, exemplar(span, 1, at))
        since = self._bad_since(operation, move)
        if since is not None and move.evidence is not None:
            fault = _fault(move.evidence.code)
            if fault not in self.detections:
                self.detections[fault] = Histogram(_DETECTION_BOUNDS)
            took = max(0.0, move.at - since)
            self.detections[fault].observe(took, exemplar(span, took, at))

    def _bad_since(self, operation: str, move: Transition) -> Seconds | None:
        """When the trouble began that made *move* an opening; None: it is none."""
        if move.before is not State.CLOSED or move.after is not State.OPEN:
            return None
        # A server that is gone is seen by the ping, whoever else decides.
        seen_by = None if move.evidence is None else move.evidence.probe
        signs = {*self.decides.get(operation, ()), seen_by}
        begun = [at for probe, at in self.bad_since.items() if probe in signs]
        return min(begun, default=None)

    def note(self, code: str) -> None:
        """Count a notice."""
        text = _NOTED.get(code) or more({"code": code}) + "}"
        self.notices[text] = self.notices.get(text, 0) + 1

    # Of the target.

    def up_lines(self, name: str) -> list[str]:
        return [f"{name}{self.labels}}} {+self.board.is_up}\n"]

    def state_lines(self, name: str) -> list[str]:
        now, labels = self.board.condition, self.labels
        return [f"{name}{labels}{text} {+(now is c)}\n" for c, text in _IS.items()]

    def maintenance_lines(self, name: str) -> list[str]:
        return [f"{name}{self.labels}}} 1\n"] if self.board.maintenance else []

    def info_lines(self, name: str) -> list[str]:
        return [f"{name}{self.labels}{self.info}}} 1\n"] if self.info else []

    def connections_lines(self, name: str) -> list[str]:
        return [f"{name}{self.labels}}} {self.board.connections}\n"]

    def slow_call_lines(self, name: str) -> list[str]:
        slow_call = self.board.plan.policy.slow_call
        return [] if slow_call is None else [f"{name}{self.labels}}} {slow_call}\n"]

    def notices_lines(self, name: str) -> list[str]:
        return [f"{name}{self.labels}{t} {n}\n" for t, n in self.notices.items()]

    def server_lines(self, name: str) -> list[str]:
        facts = self.board.facts
        version = facts.get("version")
        if not isinstance(version, int):
            return []
        about = more(
            {
                "version": server_version(version),
                "role": "replica" if facts.get("in_recovery") else "primary",
                "system_id": str(facts.get("system_id") or ""),
            }
        )
        return [f"{name}{self.labels}{about}}} 1\n"]

    def detection_lines(self, name: str) -> list[str]:
        return [
            line
            for fault, histogram in self.detections.items()
            for line in histogram.lines(name, f'{self.labels},fault_class="{fault}"')
        ]

    # Of its breakers.

    def breaker_state_lines(self, name: str) -> list[str]:
        return [
            f"{name}{b.labels}{text} {+(b.breaker.state is state)}\n"
            for b in self.breakers.values()
            for state, text in _IN.items()
        ]

    def computed_state_lines(self, name: str) -> list[str]:
        return [
            f"{name}{b.labels}{text} {+(b.breaker.computed_state is state)}\n"
            for b in self.breakers.values()
            if b.breaker.override is not None
            for state, text in _COMPUTED
        ]

    def disagreement_lines(self, name: str) -> list[str]:
        lines = []
        for b in self.breakers.values():
            ruling = b.breaker.ruling if isinstance(b.breaker, RuledBreaker) else None
            if ruling is not None:
                is_open = ruling.state is not State.CLOSED
                lines.append(
                    f"{name}{b.labels}}} {+(is_open is b.breaker.computed_passes)}\n"
                )
        return lines

    def override_lines(self, name: str) -> list[str]:
        return [
            f"{name}{b.labels}{_IN[override.state]} 1\n"
            for b in self.breakers.values()
            if (override := b.breaker.override) is not None
        ]

    def moves_lines(self, name: str) -> list[str]:
        lines = []
        for b in self.breakers.values():
            labels, led = b.labels, b.exemplars
            if led:
                moves = b.moves.items()
                lines += [f"{name}{labels}{t} {n}{led.get(t, '')}\n" for t, n in moves]
            else:
                lines += [f"{name}{labels}{t} {n}\n" for t, n in b.moves.items()]
        return lines

    def since_lines(self, name: str) -> list[str]:
        moved = self.board.moved
        return [
            f"{name}{b.labels}}} {moved[operation]}\n"
            for operation, b in self.breakers.items()
        ]

    def left_closed_lines(self, name: str) -> list[str]:
        left = self.board.left_closed
        return [
            f"{name}{b.labels}}} {left.get(operation, 0)}\n"
            for operation, b in self.breakers.items()
        ]

    def evidence_lines(self, name: str) -> list[str]:
        return [
            f"{name}{labels} 1\n"
            for b in self.breakers.values()
            if (labels := b.evidence) is not None
        ]

    def ratio_lines(self, name: str) -> list[str]:
        return [
            f"{name}{b.labels}}} {b.breaker.window.counts().failure_ratio}\n"
            for b in self.breakers.values()
        ]

    def threshold_lines(self, name: str) -> list[str]:
        return [
            f"{name}{b.labels}}} {b.breaker.policy.failure_rate}\n"
            for b in self.breakers.values()
        ]

    def calls_lines(self, name: str) -> list[str]:
        lines = []
        for b in self.breakers.values():
            totals, labels, usual = b.breaker.totals, b.labels, b.usual
            for outcome, text in _CALLED.items():
                count = totals[outcome]
                if count or outcome in usual:
                    lines.append(f"{name}{labels}{text} {count}\n")
        return lines

    def processes_lines(self, name: str) -> list[str]:
        return [
            f"{name}{b.labels}}} {crowd.processes}\n"
            for operation, b in self.breakers.items()
            if (crowd := self.board.crowd(operation)) is not None
        ]

    def processes_open_lines(self, name: str) -> list[str]:
        return [
            f"{name}{b.labels}{text} {crowd.held[by]}\n"
            for operation, b in self.breakers.items()
            if (crowd := self.board.crowd(operation)) is not None
            for by, text in _HELD.items()
        ]

    # Of its probes.

    def runs_lines(self, name: str) -> list[str]:
        return [
            f"{name}{p.labels}{text} {count}\n"
            for p in self.probes.values()
            for text, count in p.runs.items()
        ]

    def spent_lines(self, name: str) -> list[str]:
        return [
            f"{name}{p.labels}}} {p.spent}\n"
            for p in self.probes.values()
            if p.name not in _TIMED
        ]

    def pings_lines(self, name: str) -> list[str]:
        return self.pings.lines(name, f'{self.labels},probe="{PING}"')

    def pings_late_lines(self, name: str) -> list[str]:
        return self.pings_late.lines(name, f'{self.labels},probe="{PING}"')

    def logins_lines(self, name: str) -> list[str]:
        return self.logins.lines(name, self.labels) if LOGIN in self.probes else []

    def commits_lines(self, name: str) -> list[str]:
        return self.commits.lines(name, self.labels) if COMMIT in self.probes else []

    def canaries_lines(self, name: str) -> list[str]:
        canaries = self.canaries
        return [] if canaries is None else canaries.lines(name, self.labels)

    def success_lines(self, name: str) -> list[str]:
        answered = self.board.answered
        return [
            f"{name}{p.labels}}} {answered.get(probe, 0)}\n"
            for probe, p in self.probes.items()
        ]

    def ran_lines(self, name: str) -> list[str]:
        # Of a target that others watch it would only grow old, and an alert call for it.
        is_ours = self.board.elsewhere is None
        probes = self.probes.values()
        return [f"{name}{p.labels}}} {p.ran if is_ours else 0}\n" for p in probes]

    def interval_lines(self, name: str) -> list[str]:
        intervals = self.board.intervals
        return [
            f"{name}{p.labels}}} {intervals[probe]}\n"
            for probe, p in self.probes.items()
        ]

    def limit_lines(self, name: str) -> list[str]:
        return [
            f"{name}{self.probes[probe].labels}}} {plan.limit}\n"
            for probe, plan in self.board.plan.probes.items()
            if plan.limit is not None
        ]
