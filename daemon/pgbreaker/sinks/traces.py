"""Traces: a span a probe cycle, below it one a transition; one a reload. The importer of
OpenTelemetry.

Spans are made when a reading is there, with its own times, so that a healthy ping that
is not sampled costs a few comparisons. A collector that is down, slow or refusing costs
a bounded queue and one line in the log a minute.

Attributes are those of the stable semantic conventions for databases, and the name of a
span is its ``db.query.summary``, as they have it:
https://opentelemetry.io/docs/specs/semconv/db/database-spans/
"""

import asyncio
import contextlib
import importlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from pgbreaker.clock import Clock
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.judge import PGBOUNCER, deciding, is_bad
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Cause, State, Transition
from pgbreaker.core.units import Seconds, Share
from pgbreaker.errors import PgbreakerError
from pgbreaker.postgres.dsn import resolve
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.exposition import SpanIds
from pgbreaker.sinks.hub import Event

_EXPORT_WITHIN: Final[Seconds] = 2.0
_QUEUE: Final = 2048  # spans that may wait; those that come then are dropped
_BATCH: Final = 128  # encoded in one go, while the loop waits for the interpreter
_QUIET: Final[Seconds] = 60.0  # between two lines that say the same

# Nothing was asked, or there is nothing of the kind: that is no failure of anybody.
_UNEVENTFUL: Final = frozenset((Finding.ABSENT, Finding.SKIPPED))
_BY_OPERATORS: Final = frozenset((Cause.OVERRIDDEN, Cause.RESUMED))


class Traces:
    """Makes spans of readings and, below these, of transitions; a sink.

    Whoever wants to know what became of an event (`current`) is told of it after this.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        board: Board,
        clock: Clock,
        *,
        sample: Share,
        version: str,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._board = board
        self._clock = clock
        self._sample = sample
        self._draw = draw
        self._exporter = _Counting(exporter)
        self._targets: dict[str, _Target] = {}
        resource = Resource.create(
            {"service.name": "pgbreaker", "service.version": version}
        )
        # Who samples is `sample` alone, and not what OTEL_TRACES_SAMPLER says.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False
        )
        self._queue = _Queue(self._exporter)
        self._provider.add_span_processor(self._queue)
        self._tracer = self._provider.get_tracer("pgbreaker", version)
        self._open: tuple[Span, int, str] | None = None  # span, its end, its target
        self._current: SpanContext | None = None

    @property
    def current(self) -> SpanIds | None:
        """The span that was made of the event told last. None: it has none."""
        if self._current is None:
            return None
        span = self._current
        return format_trace_id(span.trace_id), format_span_id(span.span_id)

    @property
    def sent(self) -> int:
        """Spans that the collector took."""
        return self._exporter.sent

    @property
    def failed(self) -> int:
        """Spans that did not reach it, those left out for a full queue too."""
        return self._exporter.failed + self._queue.dropped

    def __call__(self, event: Event) -> None:
        """Take an event from the hub.

        A reading is told before the moves that it brings about, in one go: its span
        stays open until the loop turns, or another is told.
        """
        self._current = None
        if isinstance(event, Transition):
            self._add(event)
        elif isinstance(event, Reading) and event.target in self._board.targets:
            self._end()
            self._begin(event)

    def _target(self, name: str) -> "_Target":
        """What never changes about the spans of a target, as it is configured now."""
        plan = self._board.targets[name].plan
        known = self._targets.get(name)
        if known is None or known.plan is not plan:
            known = self._targets[name] = _Target(plan)
        return known

    def _begin(self, reading: Reading) -> None:
        target = self._target(reading.target)
        trials = self._trials(reading)
        failed = _has_failed(reading)
        if not failed and not trials and self._draw() >= self._sample:
            return
        if self._queue.is_full:
            self._queue.drop()  # so that nothing leads to a span that is nowhere
            return
        begun = self._nanoseconds(reading.at)
        found = {**target.asked(reading.probe), **_of_reading(reading)}
        if trials:
            found["pgbreaker.trial"] = trials
        span = self._tracer.start_span(
            f"probe {reading.probe}",
            kind=SpanKind.CLIENT,
            start_time=begun,
            attributes=found,
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR, str(reading.evidence or "")))
        self._open = (span, begun + int(reading.took * 1e9), reading.target)
        self._lead_to(span)
        asyncio.get_running_loop().call_soon(self._end)

    def _trials(self, reading: Reading) -> list[str]:
        """Name the breakers that *reading* is a trial for: it decides whether they
        close again."""
        board = self._board.targets[reading.target]
        decides = self._target(reading.target).decides
        now = self._clock.now()
        return [
            breaker.name
            for operation, breaker in board.breakers.items()
            if not breaker.computed_passes
            and reading.probe in decides.get(operation, ())
            and (breaker.computed_state is State.HALF_OPEN or breaker.is_due(now))
        ]

    def _add(self, move: Transition) -> None:
        if self._board.breaker(move.breaker) is None:
            return  # its target was removed
        if self._queue.is_full:
            self._queue.drop()
            return
        target, operation = self._board.home(move.breaker)
        # Without one, its reading was good and not sampled, or it was moved by time or
        # by an operator.
        is_caused = self._open is not None and self._open[2] == target
        above = self._open[0] if self._open is not None and is_caused else None
        now = self._nanoseconds(move.at)
        found = {"pgbreaker.target": target, **_of_move(move)}
        if move.cause is Cause.OVERRIDDEN:
            override = self._board.targets[target].breakers[operation].override
            if override is not None:
                found["pgbreaker.author"] = override.author
        span = self._tracer.start_span(
            "override" if move.cause in _BY_OPERATORS else "transition",
            context=None if above is None else set_span_in_context(above),
            start_time=now,
            attributes=found,
        )
        span.end(now)
        self._lead_to(span)

    def heed(self, entry: Entry) -> None:
        """Take an entry of the history: that the configuration was read anew."""
        if entry.kind is not Kind.RELOAD:
            return
        if self._queue.is_full:
            self._queue.drop()
            return
        details, ended = entry.details, int(entry.at * 1e9)
        found: dict[str, Any] = {"pgbreaker.changes": list(details.get("changes", ()))}
        if entry.author is not None:
            found["pgbreaker.author"] = entry.author
        span = self._tracer.start_span(
            "reload",
            start_time=ended - int(details["took_seconds"] * 1e9),
            attributes=found,
        )
        if not details["ok"]:
            span.set_status(Status(StatusCode.ERROR, entry.text))
        span.end(ended)

    def _lead_to(self, span: Span) -> None:
        """Have what is told of the event lead to *span*, if it is one that is sent:
        with OTEL_SDK_DISABLED none is."""
        context = span.get_span_context()
        self._current = context if context.trace_flags.sampled else None

    def _end(self) -> None:
        if self._open is not None:
            span, ended, _ = self._open
            self._open = None
            span.end(ended)

    def _nanoseconds(self, at: Seconds) -> int:
        return int(self._clock.wall_of(at) * 1e9)

    async def close(self) -> None:
        """Send what is left, as far as that goes in a short time."""
        self._end()
        # A collector that is away was told of in the log already.
        with contextlib.suppress(TimeoutError):
            flushing = asyncio.to_thread(self._provider.force_flush, 1000)
            await asyncio.wait_for(flushing, 1.0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._shut_down), _EXPORT_WITHIN)

    def _shut_down(self) -> None:
        # In this order: the provider's own waits half a minute for a dead collector.
        self._exporter.shutdown()
        self._provider.shutdown()


def open_traces(
    endpoint: str, sample: Share, board: Board, clock: Clock, version: str
) -> Traces:
    """Send traces to *endpoint*, by OTLP over HTTP.

    Args:
        sample: Share of the spans of good readings that is sent; failures and
            transitions always are.

    Raises:
        PgbreakerError: The extra ``otlp`` is not installed.
    """
    try:
        otlp = importlib.import_module(
            "opentelemetry.exporter.otlp.proto.http.trace_exporter"
        )
    except ImportError:
        raise PgbreakerError(
            "otlp is configured, but its exporter is not installed:"
            " pip install 'pgbreaker[otlp]'"
        ) from None
    quieten()
    exporter = otlp.OTLPSpanExporter(
        endpoint=f"{endpoint}/v1/traces", timeout=_EXPORT_WITHIN
    )
    return Traces(exporter, board, clock, sample=sample, version=version)


class _Quiet(logging.Filter):
    """Lets one line a minute through, of all loggers: the rest would be the same."""

    def __init__(self) -> None:
        super().__init__()
        self._told_at = -_QUIET

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._told_at < _QUIET:
            return False
        self._told_at = now
        said = record.getMessage()
        record.msg, record.args = "traces are not being sent: %s", (said,)
        record.exc_info = None  # the message says it; a traceback of urllib3 does not
        return True


def quieten() -> None:
    """Have the exporter complain once a minute, without tracebacks."""
    quiet = _Quiet()
    for name in (
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.sdk._shared_internal",
        "opentelemetry.sdk.trace.export",
    ):
        logger = logging.getLogger(name)
        logger.filters = [f for f in logger.filters if not isinstance(f, _Quiet)]
        logger.addFilter(quiet)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


class _Counting(SpanExporter):
    """Hands spans on to another exporter, and counts how they fared.

    Attributes:
        sent: Spans that the collector took.
        failed: Spans that it did not.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_shut = False
        self.sent = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.sent += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        # The provider shuts it down once more, which it would complain of.
        if not self._is_shut:
            self._is_shut = True
            self._exporter.shutdown()


class _Queue(BatchSpanProcessor):
    """Keeps spans until a thread of its own sends them.

    Its like drops the oldest when it is full, and says so in the log. This drops what
    comes then, before it is full, and counts it.

    Attributes:
        dropped: Spans that it did not take.
    """

    def __init__(self, exporter: _Counting) -> None:
        super().__init__(
            exporter,
            max_queue_size=_QUEUE,
            max_export_batch_size=_BATCH,
            schedule_delay_millis=1000,
        )
        self._counts = exporter
        self._taken = 0
        self.dropped = 0

    @property
    def is_full(self) -> bool:
        """Whether as many wait, or are being sent, as may."""
        return self._taken - self._counts.sent - self._counts.failed >= _QUEUE

    def drop(self) -> None:
        """Count a span that is not even made."""
        self.dropped += 1

    def on_end(self, span: ReadableSpan) -> None:
        if self.is_full:
            self.drop()
            return
        self._taken += 1
        super().on_end(span)


class _Target:
    """What never changes about the spans of a target; nothing secret.

    Attributes:
        plan: What was configured.
        decides: Operation -> the probes that decide about it.
    """

    def __init__(self, plan: TargetPlan) -> None:
        self.plan = plan
        self.decides = deciding(plan.probes)
        self._probes = plan.probes
        self._here = _about(plan.dsn.reveal())
        self._elsewhere = {
            name: _about(probe.address.reveal())
            for name, probe in plan.probes.items()
            if probe.address is not None
        }

    def asked(self, probe: str) -> Mapping[str, Any]:
        """Whom *probe* asks, and for what. Never by its text: a question of the user's
        own may hold what is nobody's business."""
        about = self._elsewhere.get(probe, self._here)
        if "db.system.name" not in about:
            return about
        found = {**about, "db.query.summary": f"probe {probe}"}
        asks = self._probes.get(probe)
        if asks is None or asks.query is None:
            operation = "SHOW" if probe == PGBOUNCER else "SELECT"
            found["db.operation.name"] = operation
        return found


def _about(address: str) -> Mapping[str, Any]:
    """Say where a DSN leads, or the URL of something that is no database."""
    if address.startswith("http"):
        parts = urlsplit(address)
        found: dict[str, Any] = {"server.address": parts.hostname or ""}
        return found if parts.port is None else found | {"server.port": parts.port}
    found = {"db.system.name": "postgresql"}
    try:
        there = resolve(address, password="")  # which is not looked for then
    except (ValueError, LookupError, OSError):
        return found  # it leads nowhere, and whoever asks there says why
    found |= {"db.namespace": there.database}
    if there.socket is not None:
        return found | {"server.address": there.socket}
    return found | {"server.address": there.host, "server.port": there.port}


def _has_failed(reading: Reading) -> bool:
    # A canary that took too long was answered, and is bad all the same.
    is_silent = not reading.answered and reading.finding not in _UNEVENTFUL
    return is_silent or is_bad(reading)


def _of_reading(reading: Reading) -> dict[str, Any]:
    found: dict[str, Any] = {
        "pgbreaker.target": reading.target,
        "pgbreaker.probe": reading.probe,
        "pgbreaker.finding": reading.finding.value,
        "pgbreaker.late_seconds": reading.late,
    }
    if _has_failed(reading):
        sqlstate = reading.evidence.sqlstate if reading.evidence is not None else None
        found["error.type"] = sqlstate or reading.finding.value
        if sqlstate is not None:
            found["db.response.status_code"] = sqlstate
    return found


def _of_move(move: Transition) -> dict[str, Any]:
    found: dict[str, Any] = {
        "pgbreaker.breaker": move.breaker,
        "pgbreaker.from": move.before.value,
        "pgbreaker.to": move.after.value,
        "pgbreaker.cause": move.cause.value,
        "pgbreaker.reason": move.reason,
    }
    if move.override is not None:  # callers do not feel it
        found["pgbreaker.override"] = move.override.value
    return found
