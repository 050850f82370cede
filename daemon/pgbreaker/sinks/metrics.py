"""What Prometheus scrapes: from memory, complete from the first second.

A scrape never waits for a server, and a series never vanishes because one is away: its
age is a series of its own (`pgbreaker_probe_last_success_timestamp_seconds`).

Nothing that is written is kept: a thousand targets with 250 series each would be a
quarter of a million lines. Kept are the numbers, and the labels of each target, breaker
and probe as text, once each.
"""

import asyncio
import platform
import re
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Final, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import COMMIT, LATENCY, LOGIN, PING, deciding, judge
from pgbreaker.core.metric import Family, Shown
from pgbreaker.core.policy import Policy
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import (
    BY_CALLS,
    MOVES,
    Cause,
    Outcome,
    State,
    Transition,
)
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import Board, Condition, TargetBoard
from pgbreaker.sinks.exposition import (
    OPENMETRICS,
    TEXT,
    Histogram,
    Showing,
    SpanIds,
    check_stems,
    escape,
    exemplar,
    head,
    more,
    opened,
    showings,
    without_exemplars,
)
from pgbreaker.sinks.hub import NOTICES, Event

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
_LATE_BOUNDS: Final = (0.005, 0.02, 0.1, 0.5, 2.5)
_DETECTION_BOUNDS: Final = (0.01, 0.05, 0.25, 1.0, 2.5, 10.0)

# A histogram a probe is what makes series many: four probes that decide have one, of
# the others the time is summed up.
_TIMED: Final = frozenset((PING, LOGIN, COMMIT, LATENCY))

# What can have an exemplar, as OpenMetrics has it.
_EXEMPLARY: Final = frozenset(("histogram", "counter"))

_LINES_AT_A_TIME: Final = 500  # then the loop may run something else
_BYTES_AT_A_TIME: Final = 64 * 1024  # that are compressed, or sent, in one go

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


class _Target:
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

    def take(self, reading: Reading, ended: float, span: SpanIds | None) -> None:
        """Count a reading.

        Args:
            ended: Wall time at which it ended.
            span: What was made of it. None: nothing that is sent.
        """
        name = reading.probe
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
        if "version" not in facts:
            return []
        about = more(
            {
                "version": str(facts["version"]),
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
        return [f"{name}{p.labels}}} {p.ran}\n" for p in self.probes.values()]

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


_T: Final = ("target",)
_P: Final = ("target", "probe")
_B: Final = ("target", "operation", "breaker")

_Lines: TypeAlias = Callable[[_Target, str], list[str]]

# What the daemon says of targets, one row a metric with what writes it; beside it stands
# what probes show. The reference in daemon/METRICS.md is made of this table, and a test
# holds alerts and documents against it.
_WRITTEN: Final[Mapping[Family, _Lines]] = {
    Family(
        "pgbreaker_target_up",
        "gauge",
        "1 while the server is known to serve somebody, else 0. Never absent.",
        _T,
    ): _Target.up_lines,
    Family(
        "pgbreaker_target_state",
        "gauge",
        "1 for the state that the target is in: up, degraded, down or unknown.",
        (*_T, "state"),
    ): _Target.state_lines,
    Family(
        "pgbreaker_target_info",
        "gauge",
        "Always 1; carries the labels that the configuration gives to the target, prefixed label_. Only where it gives some.",
        (*_T, "label_*"),
    ): _Target.info_lines,
    Family(
        "pgbreaker_breaker_state",
        "gauge",
        "1 for the state that callers feel.",
        (*_B, "state"),
    ): _Target.breaker_state_lines,
    Family(
        "pgbreaker_breaker_computed_state",
        "gauge",
        "1 for the state that the breaker would be in without its operator: closed, open or half_open. Only while an operator has put another before it.",
        (*_B, "state"),
    ): _Target.computed_state_lines,
    Family(
        "pgbreaker_breaker_override",
        "gauge",
        "1 for the state that an operator has put before the breaker's own. Only while one has.",
        (*_B, "state"),
    ): _Target.override_lines,
    Family(
        "pgbreaker_breaker_transitions_total",
        "counter",
        "Moves of the breaker.",
        (*_B, "from", "to", "cause"),
    ): _Target.moves_lines,
    Family(
        "pgbreaker_breaker_state_since_timestamp_seconds",
        "gauge",
        "Unix time of the last move, or of the start, in seconds.",
        _B,
    ): _Target.since_lines,
    Family(
        "pgbreaker_breaker_left_closed_timestamp_seconds",
        "gauge",
        "Unix time at which it last left closed: ceased to let calls pass as a matter of course, in seconds; 0 when it never has.",
        _B,
    ): _Target.left_closed_lines,
    Family(
        "pgbreaker_breaker_evidence",
        "gauge",
        "Always 1; carries what was seen last against the breaker: the finding, the SQLSTATE where the server told one, the probe. Only while it would not be closed by itself.",
        (*_B, "code", "sqlstate", "probe"),
    ): _Target.evidence_lines,
    Family(
        "pgbreaker_breaker_failure_ratio",
        "gauge",
        "Share of the window that failed, 0 to 1.",
        _B,
    ): _Target.ratio_lines,
    Family(
        "pgbreaker_breaker_failure_ratio_threshold",
        "gauge",
        "Share of the window at which it opens, 0 to 1.",
        _B,
    ): _Target.threshold_lines,
    Family(
        "pgbreaker_calls_total",
        "counter",
        "What probes found that a call of this kind would come to.",
        (*_B, "outcome"),
    ): _Target.calls_lines,
    Family(
        "pgbreaker_detection_seconds",
        "histogram",
        "Time from the first bad reading to a breaker's opening, in seconds, by what was wrong. Only once it has happened.",
        (*_T, "fault_class"),
    ): _Target.detection_lines,
    Family(
        "pgbreaker_probes_total",
        "counter",
        "Runs of the probe, by how they ended.",
        (*_P, "outcome"),
    ): _Target.runs_lines,
    Family(
        "pgbreaker_probe_duration_seconds",
        "histogram",
        "Time from asking to the answer, or to giving up, in seconds; of ping.",
        _P,
    ): _Target.pings_lines,
    Family(
        "pgbreaker_probe_seconds_total",
        "counter",
        "Time that all runs of the probe took, in seconds; of those that have no histogram: ping, login, commit and latency do.",
        _P,
    ): _Target.spent_lines,
    Family(
        "pgbreaker_login_duration_seconds",
        "histogram",
        "Time until a new connection was let in, in seconds; of logins that were.",
        _T,
    ): _Target.logins_lines,
    Family(
        "pgbreaker_commit_duration_seconds",
        "histogram",
        "Time that a small commit took, without connecting, in seconds; of those that were made.",
        _T,
    ): _Target.commits_lines,
    Family(
        "pgbreaker_canary_duration_seconds",
        "histogram",
        "Time that the canary, a query of the user's own, took without connecting, in seconds; of those that were answered, and of those that the server gave up for their length. Only where the probe latency is configured.",
        _T,
    ): _Target.canaries_lines,
    Family(
        "pgbreaker_probe_lateness_seconds",
        "histogram",
        "Time by which a run began after it was due, in seconds; of ping.",
        _P,
    ): _Target.pings_late_lines,
    Family(
        "pgbreaker_probe_last_success_timestamp_seconds",
        "gauge",
        "Unix time of the last answer, in seconds, be what it tells worse than it may be; 0 when there was none yet.",
        _P,
    ): _Target.success_lines,
    Family(
        "pgbreaker_probe_last_run_timestamp_seconds",
        "gauge",
        "Unix time at which the last run ended, in seconds; 0 when there was none yet.",
        _P,
    ): _Target.ran_lines,
    Family(
        "pgbreaker_probe_interval_seconds",
        "gauge",
        "Time between two runs at present, in seconds.",
        _P,
    ): _Target.interval_lines,
    Family(
        "pgbreaker_probe_limit_seconds",
        "gauge",
        "Time from which what the probe measures counts as bad, in seconds. Only of those that have such a limit.",
        _P,
    ): _Target.limit_lines,
    Family(
        "pgbreaker_probe_connections",
        "gauge",
        "Connections that the daemon has to the server.",
        _T,
    ): _Target.connections_lines,
    Family(
        "pgbreaker_slow_call_threshold_seconds",
        "gauge",
        "Time from which a ping counts as slow, in seconds.",
        _T,
    ): _Target.slow_call_lines,
    Family(
        "pgbreaker_notices_total",
        "counter",
        f"Things told that moved no breaker: {', '.join(NOTICES)}.",
        (*_T, "code"),
    ): _Target.notices_lines,
    Family(
        "pgbreaker_server_info",
        "gauge",
        "Always 1; carries what the server says of itself.",
        (*_T, "version", "role", "system_id"),
    ): _Target.server_lines,
}

FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in _WRITTEN}
"""What is said of targets, apart from what probes show."""

BUILD: Final = Family(
    "pgbreaker_build_info",
    "gauge",
    "Always 1; carries the version.",
    ("version", "python"),
)
RELOADED: Final = Family(
    "pgbreaker_config_last_reload_successful",
    "gauge",
    "1 when the configuration in use is the one in the file.",
)
TARGETS: Final = Family("pgbreaker_targets", "gauge", "Targets configured.")
LATE: Final = Family(
    "pgbreaker_schedule_lateness_seconds",
    "histogram",
    "Time by which a run of any probe but ping began after it was due, in seconds.",
)
SERIES: Final = Family("pgbreaker_series", "gauge", "Series in the last scrape.")
SCRAPE: Final = Family(
    "pgbreaker_scrape_duration_seconds",
    "gauge",
    "Time that writing the last scrape took, with waiting for its reader, in seconds.",
)
CLOCK_STEPS: Final = Family(
    "pgbreaker_clock_steps_total",
    "counter",
    "Jumps of the wall clock that were noticed.",
)
SKIPPED: Final = Family(
    "pgbreaker_schedule_skipped_total",
    "counter",
    "Runs left out because the one before had not ended, or for lateness.",
)
DROPPED: Final = Family(
    "pgbreaker_events_dropped_total",
    "counter",
    "Events that one of those who are told of them could not take.",
)
LOOP_LATE: Final = Family(
    "pgbreaker_loop_late_seconds_total",
    "counter",
    "Time by which the daemon's own loop ran late, in seconds; no deadline counts it.",
)
ALERTS_PUSHED: Final = Family(
    "pgbreaker_alerts_pushed_total",
    "counter",
    "Alerts that an Alertmanager took from the daemon.",
)
PUSH_FAILURES: Final = Family(
    "pgbreaker_alerts_push_failures_total",
    "counter",
    "Posts of alerts that no Alertmanager took.",
)
SPANS_SENT: Final = Family(
    "pgbreaker_spans_sent_total",
    "counter",
    "Spans that the collector of traces took.",
)
SPANS_FAILED: Final = Family(
    "pgbreaker_spans_failed_total",
    "counter",
    "Spans that were made and did not reach the collector of traces.",
)

# Counted by others, who take over with `Metrics.own`; 0 where they do not run.
_ELSEWHERE: Final = (
    *(CLOCK_STEPS, SKIPPED, DROPPED, LOOP_LATE),
    *(ALERTS_PUSHED, PUSH_FAILURES, SPANS_SENT, SPANS_FAILED),
)

OWN: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        *(BUILD, RELOADED, TARGETS, LATE, SERIES, SCRAPE),
        *_ELSEWHERE,
    )
}
"""Of the daemon itself, without a target."""


def _written_by(showing: Showing) -> _Lines:
    return lambda target, _name: showing.lines(target.labels, target.board.facts)


class Tracing(Protocol):
    """Who makes spans of events, and is told of each before `Metrics` is."""

    @property
    def current(self) -> SpanIds | None:
        """The span that was made of the event that is being told. None: none that is
        sent."""

    @property
    def sent(self) -> int:
        """Spans that the collector took."""

    @property
    def failed(self) -> int:
        """Spans that it did not."""


class Metrics:
    """Counts what the hub tells, and writes it for a scrape; a sink.

    Args:
        shown: What becomes series of the values that probes saw.

    Raises:
        ValueError: Two metrics have one name, or would have in OpenMetrics.
    """

    def __init__(self, board: Board, version: str, shown: Iterable[Shown] = ()) -> None:
        self._board = board
        self._targets = {name: _Target(t) for name, t in board.targets.items()}
        self._written: dict[Family, _Lines] = dict(_WRITTEN)
        for name, showing in showings(shown).items():
            if name in FAMILIES or name in OWN:
                raise ValueError(f"{name} is shown by a probe, and is ours already")
            self._written[showing.family] = _written_by(showing)
        check_stems({*OWN, *(family.name for family in self._written)})
        self._late = Histogram(_LATE_BOUNDS)
        self._build = opened(version=version, python=platform.python_version())
        self.series = 0
        self._took: Seconds = 0.0
        self._traces: Tracing | None = None
        self._own: dict[str, tuple[Family, Callable[[], float]]] = {}
        self.own(RELOADED, lambda: 1)
        self.own(TARGETS, lambda: len(self._targets))
        self.own(SERIES, lambda: self.series)
        self.own(SCRAPE, lambda: self._took)
        for family in _ELSEWHERE:
            self.own(family, lambda: 0)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def own(self, family: Family, read: Callable[[], float]) -> None:
        """Tell a number of the daemon itself, which *read* gives at each scrape.

        Whoever tells one again goes before whoever told it until now.

        Raises:
            ValueError: The metric is one of targets, or written here.
        """
        names = {f.name for f in self._written}
        if family in (BUILD, LATE) or family.name in names:
            raise ValueError(f"{family.name} is not for others to tell")
        check_stems({*OWN, *names, *self._own, family.name})
        self._own[family.name] = (family, read)

    def lead_to(self, traces: Tracing) -> None:
        """Have buckets and moves lead to their traces, and count the spans."""
        self._traces = traces
        self.own(SPANS_SENT, lambda: traces.sent)
        self.own(SPANS_FAILED, lambda: traces.failed)

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        span = None if self._traces is None else self._traces.current
        match event:
            case Reading():
                ended = self._board.wall_of(event.at + event.took)
                self._targets[event.target].take(event, ended, span)
                if event.probe != PING:
                    self._late.observe(event.late)
            case Transition():
                target, operation = self._board.home(event.breaker)
                at = self._board.wall_of(event.at)
                self._targets[target].move(operation, event, at, span)
            case _:
                self._targets[event.target].note(event.code)

    async def chunks(self, *, openmetrics: bool = False) -> AsyncGenerator[str, None]:
        """Write everything, some hundred lines at a time.

        Between them the loop runs others; so what is said of two targets, or by two
        metrics, may be of different moments. One metric of one target is of one.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        series = 0
        pending: list[str] = []
        weight = 0  # of what was done since the loop ran others: lines, written or not
        for family, write in self._written.items():
            is_begun = False
            is_bared = (
                self._traces is not None
                and not openmetrics
                and family.kind in _EXEMPLARY
            )
            for target in tuple(self._targets.values()):
                lines = write(target, family.name)
                if is_bared:
                    lines = without_exemplars(lines)
                if lines:
                    if not is_begun:
                        pending.append(head(family, openmetrics=openmetrics))
                        is_begun = True
                    pending += lines
                    series += len(lines)
                weight += 1 + len(lines)
                if weight >= _LINES_AT_A_TIME:
                    if pending:
                        yield "".join(pending)
                        pending.clear()
                    await asyncio.sleep(0)
                    weight = 0
        for family, lines in self._own_written():
            pending.append(head(family, openmetrics=openmetrics))
            pending += lines
            series += len(lines)
        generate = generate_openmetrics if openmetrics else generate_latest
        process = generate(self._process).decode()  # ends with # EOF, if openmetrics
        series += sum(line[0] != "#" for line in process.splitlines())
        pending.append(process)
        yield "".join(pending)
        self.series, self._took = series, loop.time() - begun

    def _own_written(self) -> Iterator[tuple[Family, list[str]]]:
        yield BUILD, [f"{BUILD.name}{self._build}}} 1\n"]
        yield LATE, self._late.bare_lines(LATE.name)
        for family, read in self._own.values():
            yield family, [f"{family.name} {+read()}\n"]

    async def render(self, *, openmetrics: bool = False) -> str:
        """Write everything, as one text."""
        async with aclosing(self.chunks(openmetrics=openmetrics)) as chunks:
            return "".join([chunk async for chunk in chunks])

    def scrape(
        self, accept: str, encoding: str
    ) -> tuple[dict[str, str], AsyncGenerator[bytes, None]]:
        """Answer a scrape.

        Args:
            accept: The request's ``Accept``.
            encoding: The request's ``Accept-Encoding``.

        Returns:
            The headers that describe the body, and its parts.
        """
        openmetrics = "application/openmetrics-text" in accept
        headers = {
            "Content-Type": OPENMETRICS if openmetrics else TEXT,
            "Vary": "Accept, Accept-Encoding",
        }
        parts = self._parts(openmetrics=openmetrics)
        if "gzip" in encoding:
            headers["Content-Encoding"] = "gzip"
            parts = _zipped(parts)
        return headers, parts

    async def _parts(self, *, openmetrics: bool) -> AsyncGenerator[bytes, None]:
        part = bytearray()
        async with aclosing(self.chunks(openmetrics=openmetrics)) as chunks:
            async for chunk in chunks:
                part += chunk.encode()
                if len(part) >= _BYTES_AT_A_TIME:
                    yield bytes(part)
                    part.clear()
        if part:
            yield bytes(part)


async def _zipped(parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # as gzip
    async with aclosing(parts):
        async for part in parts:
            if len(part) < _BYTES_AT_A_TIME:
                zipped = packer.compress(part)
            else:  # in a thread: zlib lets go of the GIL
                zipped = await asyncio.to_thread(packer.compress, part)
            if zipped:
                yield zipped
    yield packer.flush()
