"""`pgbreaker.opentelemetry`: events in the span in which they happen."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pgbreaker import (
    PostgreSQLCircuitBreaker,
    PostgreSQLCircuitBreakerConfig,
    circuit_breaker,
)
from pgbreaker.opentelemetry import install
from pgbreaker.testing import ManualClock, ScriptedServer, isolated

AT_ONCE = PostgreSQLCircuitBreakerConfig(base_backoff_delay=0.0)


@pytest.fixture
def traced():
    """The tracer of an application, and what it has exported."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    end = install(provider)
    yield provider.get_tracer("application"), exporter
    end()


def open_(breaker):
    for _ in range(5):
        breaker.record(breaker.acquire(), ConnectionResetError())


def test_a_transition_is_an_event_of_the_span_that_brought_it_about(traced):
    tracer, exporter = traced
    with tracer.start_as_current_span("request"):
        open_(PostgreSQLCircuitBreaker("orders"))

    (span,) = exporter.get_finished_spans()
    (event,) = span.events
    assert event.name == "pgbreaker.transition"
    assert event.attributes["pgbreaker.breaker"] == "orders"
    assert event.attributes["pgbreaker.to"] == "open"
    assert event.attributes["pgbreaker.cause"] == "failure_run"
    assert "5 failures in a row" in event.attributes["pgbreaker.reason"]


def test_a_transition_outside_of_any_span_is_a_span_of_its_own(traced):
    _, exporter = traced
    open_(PostgreSQLCircuitBreaker("orders"))

    (span,) = exporter.get_finished_spans()
    assert span.name == "pgbreaker.transition"
    assert span.attributes["pgbreaker.breaker"] == "orders"


async def test_trials_and_retries_are_events_too(traced):
    tracer, exporter = traced
    server = ScriptedServer([ConnectionRefusedError(111, "no"), 1])
    with isolated(), tracer.start_as_current_span("request"):

        @circuit_breaker("retried", config=AT_ONCE)
        async def ask():
            return await server()

        assert await ask() == 1
        time = ManualClock()
        breaker = PostgreSQLCircuitBreaker("tried", clock=time.clock)
        open_(breaker)
        time.advance(100)
        with breaker:
            pass

    (span,) = exporter.get_finished_spans()
    assert [event.name for event in span.events] == [
        "pgbreaker.retry",
        "pgbreaker.transition",
        "pgbreaker.transition",
        "pgbreaker.trial",
    ]


def test_calls_that_end_well_leave_no_trace(traced):
    tracer, exporter = traced
    breaker = PostgreSQLCircuitBreaker("quiet")
    with tracer.start_as_current_span("request"):
        for _ in range(100):
            with breaker:
                pass

    (span,) = exporter.get_finished_spans()
    assert span.events == ()
