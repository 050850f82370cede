"""Traces: a span a probe cycle, an event a transition. The importer of OpenTelemetry.

Spans are made when a reading is there, with its own times, so that a healthy ping that
is not sampled costs one comparison. A collector that is down, slow or refusing costs a
bounded queue and one line in the log a minute.

Attributes are those of the stable semantic conventions for databases:
https://opentelemetry.io/docs/specs/semconv/database/database-spans/
"""

import asyncio
import contextlib
import importlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

from pgbreaker.clock import Clock
from pgbreaker.core.reading import Reading
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds, Share
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event

_EXPORT_WITHIN: Final[Seconds] = 2.0
_QUEUE: Final = 2048  # spans; beyond that the oldest wait and new ones are dropped
_QUIET: Final[Seconds] = 60.0  # between two lines that say the same


class Traces:
    """Makes spans of readings, and puts transitions on them; a sink."""

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
        self._clock = clock
        self._sample = sample
        self._draw = draw
        self._exporter = exporter
        self._about = {n: _about(t.plan.dsn.reveal()) for n, t in board.targets.items()}
        resource = Resource.create(
            {"service.name": "pgbreaker", "service.version": version}
        )
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter, max_queue_size=_QUEUE, schedule_delay_millis=1000
            )
        )
        self._tracer = self._provider.get_tracer("pgbreaker", version)
        self._open: tuple[Span, int, str] | None = None  # span, its end, its target

    def __call__(self, event: Event) -> None:
        """Take an event from the hub.

        A reading is told before the moves that it brings about, in one go: its span
        stays open until the next event that is none of its moves.
        """
        if isinstance(event, Transition):
            self._add(event)
            return
        self._end()
        if isinstance(event, Reading):
            self._begin(event)
            asyncio.get_running_loop().call_soon(self._end)

    def _begin(self, reading: Reading) -> None:
        if reading.answered and self._draw() >= self._sample:
            return
        begun = self._nanoseconds(reading.at)
        span = self._tracer.start_span(
            f"probe {reading.probe}",
            kind=SpanKind.CLIENT,
            start_time=begun,
            attributes={**self._about[reading.target], **_of_reading(reading)},
        )
        assert isinstance(span, Span)
        if not reading.answered:
            span.set_status(Status(StatusCode.ERROR, str(reading.evidence or "")))
        self._open = (span, begun + int(reading.took * 1e9), reading.target)

    def _add(self, move: Transition) -> None:
        target = move.breaker.partition("/")[0]
        if self._open is None or self._open[2] != target:
            # Its reading was good and not sampled, or time or an operator moved it.
            self._end()
            now = self._nanoseconds(move.at)
            span = self._tracer.start_span(
                "transition", start_time=now, attributes=self._about[target]
            )
            assert isinstance(span, Span)
            self._open = (span, now, target)
        self._open[0].add_event(
            "pgbreaker.transition",
            {
                "pgbreaker.breaker": move.breaker,
                "pgbreaker.from": move.before.value,
                "pgbreaker.to": move.after.value,
                "pgbreaker.cause": move.cause.value,
                "pgbreaker.reason": move.reason,
            },
            timestamp=self._nanoseconds(move.at),
        )

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
    """Lets one line a minute through, of each logger: the rest would be the same."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._told.get("opentelemetry", -_QUIET) < _QUIET:
            return False
        self._told["opentelemetry"] = now
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


def _about(dsn: str) -> Mapping[str, Any]:
    """What never changes about a target; nothing secret."""
    parts = urlsplit(dsn)
    return {
        "db.system.name": "postgresql",
        "db.namespace": parts.path.lstrip("/") or (parts.username or "postgres"),
        "server.address": parts.hostname or "localhost",
        "server.port": parts.port or 5432,
    }


def _of_reading(reading: Reading) -> dict[str, Any]:
    found = {
        "pgbreaker.target": reading.target,
        "pgbreaker.probe": reading.probe,
        "pgbreaker.finding": reading.finding.value,
        "pgbreaker.late_seconds": reading.late,
    }
    if not reading.answered:
        found["error.type"] = reading.finding.value
    if reading.evidence is not None and reading.evidence.sqlstate is not None:
        found["db.response.status_code"] = reading.evidence.sqlstate
        found["error.type"] = reading.evidence.sqlstate
    return found
