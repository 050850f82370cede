"""`pgbreaker.metrics`: what Prometheus is told of an application's breakers."""

import gc
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pgbreaker import PostgreSQLCircuitBreaker, PostgreSQLCircuitBreakerConfig, State
from pgbreaker.core.states import MOVES
from pgbreaker.metrics import LIBRARY, collector
from pgbreaker.testing import ManualClock
from support.tools import need


@pytest.fixture
def registry():
    gc.collect()  # the breakers of other tests
    registry = CollectorRegistry()
    registry.register(collector())
    return registry


def value(registry, name, breaker, **labels):
    return registry.get_sample_value(name, {"breaker": breaker} | labels)


def test_every_series_is_there_at_zero_from_the_start(registry):
    breaker = PostgreSQLCircuitBreaker("fresh")

    names = {
        sample.name
        for family in registry.collect()
        for sample in family.samples
        if sample.labels["breaker"] == "fresh"
    }

    stems = {name.removesuffix("_bucket").removesuffix("_count") for name in names}
    assert stems == set(LIBRARY)
    assert value(registry, "pgbreaker_calls_total", "fresh", outcome="failure") == 0
    moves = [
        value(
            registry,
            "pgbreaker_breaker_transitions_total",
            "fresh",
            **{"from": before.value, "to": after.value, "cause": cause.value},
        )
        for (before, cause), after in MOVES.items()
    ]
    assert moves == [0] * len(MOVES)
    assert breaker.state is State.CLOSED


def test_it_tells_what_the_breaker_says_of_itself(registry):
    time = ManualClock(100)
    breaker = PostgreSQLCircuitBreaker("told", clock=time.clock)
    for _ in range(4):
        with breaker:
            time.advance(0.003)
    for _ in range(5):
        breaker.record(breaker.acquire(), ConnectionResetError())

    assert value(registry, "pgbreaker_breaker_state", "told", state="open") == 1
    assert value(registry, "pgbreaker_breaker_state", "told", state="closed") == 0
    calls = "pgbreaker_calls_total"
    assert value(registry, calls, "told", outcome="success") == 4
    assert value(registry, calls, "told", outcome="failure") == 5
    errors = "pgbreaker_errors_total"
    assert value(registry, errors, "told", category="transient") == 5
    duration = "pgbreaker_call_duration_seconds"
    assert value(registry, f"{duration}_bucket", "told", le="0.0025") == 5
    assert value(registry, f"{duration}_bucket", "told", le="0.005") == 9
    assert value(registry, f"{duration}_count", "told") == 9
    since = "pgbreaker_breaker_state_since_timestamp_seconds"
    assert value(registry, since, "told") == time.at


def test_a_breaker_that_wants_no_metrics_has_none(registry):
    config = PostgreSQLCircuitBreakerConfig(metrics_collection_enabled=False)
    breaker = PostgreSQLCircuitBreaker("private", config)

    assert (
        value(registry, "pgbreaker_calls_total", breaker.name, outcome="slow") is None
    )


def test_of_two_breakers_with_one_name_a_scrape_shows_the_last(registry):
    first, second = (PostgreSQLCircuitBreaker("twice") for _ in range(2))
    with second:
        pass

    text = generate_latest(registry).decode()
    assert text.count('pgbreaker_calls_in_flight{breaker="twice"}') == 1
    assert value(registry, "pgbreaker_calls_total", "twice", outcome="success") == 1
    assert first.name == second.name


def test_reading_moves_nothing(registry):
    time = ManualClock()
    breaker = PostgreSQLCircuitBreaker("still", clock=time.clock)
    for _ in range(5):
        breaker.record(breaker.acquire(), ConnectionResetError())
    time.advance(1000)
    before = repr(breaker.core), breaker.totals

    for _ in range(3):
        generate_latest(registry)

    assert (repr(breaker.core), breaker.totals) == before


def test_promtool_finds_nothing_wrong_with_it(registry):
    promtool = need("promtool", "prometheus")
    breaker = PostgreSQLCircuitBreaker("checked")
    with breaker:
        pass
    text = generate_latest(registry)

    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(text_string_to_metric_families(text.decode()))
