"""What Prometheus scrapes: from memory, complete from the first second.

A scrape never waits for a server, and a series never vanishes because one is away: its
age is a series of its own (`pgbreaker_probe_last_success_timestamp_seconds`).

Nothing that is written is kept: a thousand targets with 250 series each would be a
quarter of a million lines. Kept are the numbers, and the labels of each target, breaker
and probe as text, once each.
"""

import asyncio
import platform
import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Final, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)

from pgbreaker.core.judge import PING
from pgbreaker.core.metric import Family, Shown
from pgbreaker.core.reading import Reading
from pgbreaker.core.states import (
    Transition,
)
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.exposition import (
    OPENMETRICS,
    TEXT,
    Histogram,
    Showing,
    SpanIds,
    check_stems,
    head,
    opened,
    showings,
    without_exemplars,
)
from pgbreaker.sinks.hub import FORETOLD, NOTICES, Event, Notice
from pgbreaker.sinks.tally import Tally

# Bounds of the one histogram that is of the daemon itself, in seconds.
_LATE_BOUNDS: Final = (0.005, 0.02, 0.1, 0.5, 2.5)

# What can have an exemplar, as OpenMetrics has it.
_EXEMPLARY: Final = frozenset(("histogram", "counter"))

_LINES_AT_A_TIME: Final = 500  # then the loop may run something else
_BYTES_AT_A_TIME: Final = 64 * 1024  # that are compressed, or sent, in one go

_T: Final = ("target",)
_P: Final = ("target", "probe")
_B: Final = ("target", "operation", "breaker")

_Lines: TypeAlias = Callable[[Tally, str], list[str]]

# What the daemon says of targets, one row a metric with what writes it; beside it stands
# what probes show. The reference in daemon/METRICS.md is made of this table, and a test
# holds alerts and documents against it.
_WRITTEN: Final[Mapping[Family, _Lines]] = {
    Family(
        "pgbreaker_target_up",
        "gauge",
        "1 while the server is known to serve somebody, else 0. Never absent.",
        _T,
    ): Tally.up_lines,
    Family(
        "pgbreaker_target_state",
        "gauge",
        "1 for the state that the target is in: up, degraded, down or unknown.",
        (*_T, "state"),
    ): Tally.state_lines,
    Family(
        "pgbreaker_target_info",
        "gauge",
        "Always 1; carries the labels that the configuration gives to the target, prefixed label_. Only where it gives some.",
        (*_T, "label_*"),
    ): Tally.info_lines,
    Family(
        "pgbreaker_maintenance",
        "gauge",
        "1 while the target is in a window of maintenance, else absent.",
        _T,
    ): Tally.maintenance_lines,
    Family(
        "pgbreaker_breaker_state",
        "gauge",
        "1 for the state that callers feel.",
        (*_B, "state"),
    ): Tally.breaker_state_lines,
    Family(
        "pgbreaker_breaker_computed_state",
        "gauge",
        "1 for the state that the breaker would be in without its operator: closed, open or half_open. Only while an operator has put another before it.",
        (*_B, "state"),
    ): Tally.computed_state_lines,
    Family(
        "pgbreaker_breaker_override",
        "gauge",
        "1 for the state that an operator has put before the breaker's own. Only while one has.",
        (*_B, "state"),
    ): Tally.override_lines,
    Family(
        "pgbreaker_breaker_transitions_total",
        "counter",
        "Moves of the breaker.",
        (*_B, "from", "to", "cause"),
    ): Tally.moves_lines,
    Family(
        "pgbreaker_breaker_state_since_timestamp_seconds",
        "gauge",
        "Unix time of the last move, or of the start, in seconds.",
        _B,
    ): Tally.since_lines,
    Family(
        "pgbreaker_breaker_left_closed_timestamp_seconds",
        "gauge",
        "Unix time at which it last left closed: ceased to let calls pass as a matter of course, in seconds; 0 when it never has.",
        _B,
    ): Tally.left_closed_lines,
    Family(
        "pgbreaker_breaker_disagreement",
        "gauge",
        "1 while several daemons rule over the breaker and this one's own sight of the server says otherwise, else 0. Only while several rule.",
        _B,
    ): Tally.disagreement_lines,
    Family(
        "pgbreaker_breaker_evidence",
        "gauge",
        "Always 1; carries what was seen last against the breaker: the finding, the SQLSTATE where the server told one, the probe. Only while it would not be closed by itself.",
        (*_B, "code", "sqlstate", "probe"),
    ): Tally.evidence_lines,
    Family(
        "pgbreaker_breaker_failure_ratio",
        "gauge",
        "Share of the window that failed, 0 to 1.",
        _B,
    ): Tally.ratio_lines,
    Family(
        "pgbreaker_breaker_failure_ratio_threshold",
        "gauge",
        "Share of the window at which it opens, 0 to 1.",
        _B,
    ): Tally.threshold_lines,
    Family(
        "pgbreaker_calls_total",
        "counter",
        "What probes found that a call of this kind would come to.",
        (*_B, "outcome"),
    ): Tally.calls_lines,
    Family(
        "pgbreaker_application_processes",
        "gauge",
        "Processes of applications that take the advice of the breaker, and report. Only while any does.",
        _B,
    ): Tally.processes_lines,
    Family(
        "pgbreaker_application_processes_open",
        "gauge",
        "Those of them in which calls do not pass, by who holds them back: the process's own calls, advice, an operator. Only while any reports; it moves no breaker of the daemon.",
        (*_B, "by"),
    ): Tally.processes_open_lines,
    Family(
        "pgbreaker_detection_seconds",
        "histogram",
        "Time from the first bad reading to a breaker's opening, in seconds, by what was wrong. Only once it has happened.",
        (*_T, "fault_class"),
    ): Tally.detection_lines,
    Family(
        "pgbreaker_probes_total",
        "counter",
        "Runs of the probe, by how they ended.",
        (*_P, "outcome"),
    ): Tally.runs_lines,
    Family(
        "pgbreaker_probe_duration_seconds",
        "histogram",
        "Time from asking to the answer, or to giving up, in seconds; of ping.",
        _P,
    ): Tally.pings_lines,
    Family(
        "pgbreaker_probe_seconds_total",
        "counter",
        "Time that all runs of the probe took, in seconds; of those that have no histogram: ping, login, commit and latency do.",
        _P,
    ): Tally.spent_lines,
    Family(
        "pgbreaker_login_duration_seconds",
        "histogram",
        "Time until a new connection was let in, in seconds; of logins that were.",
        _T,
    ): Tally.logins_lines,
    Family(
        "pgbreaker_commit_duration_seconds",
        "histogram",
        "Time that a small commit took, without connecting, in seconds; of those that were made.",
        _T,
    ): Tally.commits_lines,
    Family(
        "pgbreaker_canary_duration_seconds",
        "histogram",
        "Time that the canary, a query of the user's own, took without connecting, in seconds; of those that were answered, and of those that the server gave up for their length. Only where the probe latency is configured.",
        _T,
    ): Tally.canaries_lines,
    Family(
        "pgbreaker_probe_lateness_seconds",
        "histogram",
        "Time by which a run began after it was due, in seconds; of ping.",
        _P,
    ): Tally.pings_late_lines,
    Family(
        "pgbreaker_probe_last_success_timestamp_seconds",
        "gauge",
        "Unix time of the last answer, in seconds, be what it tells worse than it may be; 0 when there was none yet.",
        _P,
    ): Tally.success_lines,
    Family(
        "pgbreaker_probe_last_run_timestamp_seconds",
        "gauge",
        "Unix time at which the last run ended, in seconds; 0 when there was none yet, and while other daemons watch the target.",
        _P,
    ): Tally.ran_lines,
    Family(
        "pgbreaker_probe_interval_seconds",
        "gauge",
        "Time between two runs at present, in seconds.",
        _P,
    ): Tally.interval_lines,
    Family(
        "pgbreaker_probe_limit_seconds",
        "gauge",
        "Time from which what the probe measures counts as bad, in seconds. Only of those that have such a limit.",
        _P,
    ): Tally.limit_lines,
    Family(
        "pgbreaker_probe_connections",
        "gauge",
        "Connections that the daemon has to the server.",
        _T,
    ): Tally.connections_lines,
    Family(
        "pgbreaker_slow_call_threshold_seconds",
        "gauge",
        "Time from which a ping counts as slow, in seconds.",
        _T,
    ): Tally.slow_call_lines,
    Family(
        "pgbreaker_notices_total",
        "counter",
        f"Things told that moved no breaker: {', '.join((*NOTICES, *FORETOLD))}.",
        (*_T, "code"),
    ): Tally.notices_lines,
    Family(
        "pgbreaker_server_info",
        "gauge",
        "Always 1; carries what the server says of itself.",
        (*_T, "version", "role", "system_id"),
    ): Tally.server_lines,
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
    "1 when the configuration in use is the one in the file, 0 when that could not be taken.",
)
RELOADED_AT: Final = Family(
    "pgbreaker_config_last_reload_success_timestamp_seconds",
    "gauge",
    "Unix time at which a configuration was taken last, at the start or later, in seconds.",
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
    "Spans that did not reach the collector, those left out for a full queue too.",
)
OVERRIDES: Final = Family(
    "pgbreaker_overrides",
    "gauge",
    "Breakers that an operator's word stands before.",
)
STREAMS: Final = Family(
    "pgbreaker_streams",
    "gauge",
    "Streams of events that are open.",
)
FOLLOWERS: Final = Family(
    "pgbreaker_followers",
    "gauge",
    "Processes of applications that follow the advice.",
)
FOLLOWERS_DROPPED: Final = Family(
    "pgbreaker_followers_dropped_total",
    "counter",
    "Followers that were hung up on, for they took nothing of what they were told.",
)
REPORTERS: Final = Family(
    "pgbreaker_reporters",
    "gauge",
    "Processes of applications that report.",
)
REPORTS_REFUSED: Final = Family(
    "pgbreaker_reports_refused_total",
    "counter",
    "Reports that were none, or of more processes than there may be (advice.followers).",
)
REFUSED: Final = Family(
    "pgbreaker_http_refused_total",
    "counter",
    "Requests that were turned away: from nobody known or not allowed, by another name than ours, too many.",
)
STORE_DEGRADED: Final = Family(
    "pgbreaker_store_degraded",
    "gauge",
    "1 while the store cannot be written to: the disk is full, or the file is read-only or broken; 0 where there is none, too.",
)
STORE_SIZE: Final = Family(
    "pgbreaker_store_size_bytes",
    "gauge",
    "Size of the store on disk; 0 where there is none.",
)
STORE_LOST: Final = Family(
    "pgbreaker_store_lost_total",
    "counter",
    "Entries of the history that were told and could not be written down.",
)
RECORDING_DROPPED: Final = Family(
    "pgbreaker_recording_dropped_total",
    "counter",
    "Readings and moves that the recording lacks: too many waited, or the disk refused.",
)
RECORDING_FAILURES: Final = Family(
    "pgbreaker_recording_failures_total",
    "counter",
    "Times that the disk refused to take the recording.",
)
LOG_DROPPED: Final = Family(
    "pgbreaker_log_dropped_total",
    "counter",
    "Lines of the log that were left out: nobody took them in time.",
)

PEERS: Final = Family(
    "pgbreaker_peers",
    "gauge",
    "Daemons that share the engine and are there, this one too; 0 while it is alone. Only where an engine is configured.",
)
ENGINE_UP: Final = Family(
    "pgbreaker_engine_up",
    "gauge",
    "1 while the engine that daemons share answers, 0 while this one is alone. Only where one is configured.",
)
ENGINE_LOSSES: Final = Family(
    "pgbreaker_engine_losses_total",
    "counter",
    "Times that the engine was lost, and this daemon went on alone. Only where one is configured.",
)
WATCHED: Final = Family(
    "pgbreaker_targets_watched",
    "gauge",
    "Targets that this daemon watches itself; the others are as its peers see them. Only where an engine is configured.",
)
PEER_MESSAGES_TOLD: Final = Family(
    "pgbreaker_peer_messages_told_total",
    "counter",
    "Messages that this daemon gave to the engine. Only where one is configured.",
)
PEER_MESSAGES_HEARD: Final = Family(
    "pgbreaker_peer_messages_heard_total",
    "counter",
    "Messages of other daemons that came by the engine. Only where one is configured.",
)
PEER_MESSAGES_UNREAD: Final = Family(
    "pgbreaker_peer_messages_unread_total",
    "counter",
    "Messages of other daemons that could not be read: of another version, or of none. Only where one is configured.",
)

# Counted by others, who take over with `Metrics.own`; 0 where they do not run.
_ELSEWHERE: Final = (
    *(CLOCK_STEPS, SKIPPED, DROPPED, LOOP_LATE),
    *(ALERTS_PUSHED, PUSH_FAILURES, SPANS_SENT, SPANS_FAILED),
    *(STREAMS, REFUSED, STORE_DEGRADED, STORE_SIZE, STORE_LOST),
    *(RECORDING_DROPPED, RECORDING_FAILURES, LOG_DROPPED),
    *(FOLLOWERS, FOLLOWERS_DROPPED),
)

SHARED: Final = (
    *(PEERS, ENGINE_UP, ENGINE_LOSSES, WATCHED),
    *(PEER_MESSAGES_TOLD, PEER_MESSAGES_HEARD, PEER_MESSAGES_UNREAD),
)
"""Of a daemon that shares an engine with others, and of no other."""

OWN: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        *(BUILD, RELOADED, RELOADED_AT, TARGETS, OVERRIDES, LATE, SERIES, SCRAPE),
        *(REPORTERS, REPORTS_REFUSED),
        *_ELSEWHERE,
        *SHARED,
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
        self._tallies = {name: Tally(t) for name, t in board.targets.items()}
        self._own: dict[str, tuple[Family, Callable[[], float]]] = {}
        self._written: dict[Family, _Lines] = {}
        self.show(shown)
        self._late = Histogram(_LATE_BOUNDS)
        self._build = opened(version=version, python=platform.python_version())
        self.series = 0
        self._took: Seconds = 0.0
        self._traces: Tracing | None = None
        begun = board.wall()
        self.own(RELOADED, lambda: 1)
        self.own(RELOADED_AT, lambda: begun)
        self.own(TARGETS, lambda: len(self._board.targets))
        self.own(OVERRIDES, self._overrides)
        self.own(REPORTERS, lambda: self._board.reports.count(self._board.now()))
        self.own(REPORTS_REFUSED, lambda: self._board.reports.refused)
        self.own(SERIES, lambda: self.series)
        self.own(SCRAPE, lambda: self._took)
        for family in _ELSEWHERE:
            self.own(family, lambda: 0)
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def show(self, shown: Iterable[Shown]) -> None:
        """Have these become series of the values that probes saw, and no others.

        Raises:
            ValueError: Two metrics have one name, or would have in OpenMetrics; nothing
                has changed.
        """
        written: dict[Family, _Lines] = dict(_WRITTEN)
        for name, showing in showings(shown).items():
            if name in FAMILIES or name in OWN:
                raise ValueError(f"{name} is shown by a probe, and is ours already")
            written[showing.family] = _written_by(showing)
        check_stems({*OWN, *self._own, *(family.name for family in written)})
        self._written = written

    def _overrides(self) -> int:
        return sum(
            breaker.override is not None
            for target in self._board.targets.values()
            for breaker in target.breakers.values()
        )

    def _tally(self, target: str) -> Tally | None:
        """What is counted of a target. None: there is none of this name any more."""
        board, known = self._board.targets.get(target), self._tallies.get(target)
        if board is None:
            self._tallies.pop(target, None)
            return None
        if known is not None and known.board is board:
            return known
        tally = self._tallies[target] = Tally(board)
        if known is not None:
            tally.inherit(known)
        return tally

    def _follow(self) -> tuple[Tally, ...]:
        """What is counted of each target that there is now, in the board's order."""
        gone = self._tallies.keys() - self._board.targets.keys()
        for target in gone:
            del self._tallies[target]
        tallies = map(self._tally, tuple(self._board.targets))
        return tuple(tally for tally in tallies if tally is not None)

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
            case Reading() if (tally := self._tally(event.target)) is not None:
                ended = self._board.wall_of(event.at + event.took)
                tally.take(event, ended, span)
                if event.probe != PING:
                    self._late.observe(event.late)
            case Transition() if self._board.breaker(event.breaker) is not None:
                target, operation = self._board.home(event.breaker)
                at = self._board.wall_of(event.at)
                if (tally := self._tally(target)) is not None:
                    tally.move(operation, event, at, span)
            case Notice() if (tally := self._tally(event.target)) is not None:
                tally.note(event.code)

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
        tallies = self._follow()
        for family, write in self._written.items():
            is_begun = False
            is_bared = (
                self._traces is not None
                and not openmetrics
                and family.kind in _EXEMPLARY
            )
            for target in tallies:
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
