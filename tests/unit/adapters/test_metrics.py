"""`pgbreaker.metrics`: what Prometheus is told of an application's breakers."""

import gc
import subprocess

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pgbreaker import (
    PostgreSQLCircuitBreaker,
    PostgreSQLCircuitBreakerConfig,
    State,
    Target,
)
from pgbreaker.core.states import MOVES
from pgbreaker.guard.outcomes import CATEGORIES
from pgbreaker.guard.pools import Use, watch
from pgbreaker.metrics import LIBRARY, collector
from pgbreaker.testing import ManualClock
from support.tools import need


@pytest.fixture
def registry():
    gc.collect()  # the breakers of other tests
    registry = CollectorRegistry()
    registry.register(collector())
    return registry


class Pool:
    """A pool of a target's that is as its test says."""

    def __init__(self, name, use, config=None):
        self.target = Target(name, config)
        self.use = use
        watch(self, name, lambda pool: pool.use)


@pytest.fixture
def pooled():
    """Makes a pool that is there until the test ends."""
    pools = []

    def make(*args):
        pools.append(Pool(*args))
        return pools[-1].target

    return make


def value(registry, name, breaker, **labels):
    return registry.get_sample_value(name, {"breaker": breaker} | labels)


def names_of(registry, breaker):
    """The families that have a series of the breaker."""
    names = {
        sample.name
        for family in registry.collect()
        for sample in family.samples
        if sample.labels.get("breaker") == breaker
    }
    return {name.removesuffix("_bucket").removesuffix("_count") for name in names}


def fail(breaker, times=5):
    for _ in range(times):
        breaker.record(breaker.acquire(), ConnectionResetError())


def test_every_series_is_there_at_zero_from_the_start(registry, pooled):
    breaker = pooled("fresh", Use(0, 0, 10, 0)).breaker()

    of_breakers = {name for name, f in LIBRARY.items() if "breaker" in f.labels}
    assert names_of(registry, "fresh") == of_breakers
    counts = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if family.type == "counter" and sample.labels["breaker"] == "fresh"
    }
    assert set(counts.values()) == {0}
    assert value(registry, "pgbreaker_calls_total", "fresh", outcome="failure") == 0
    for category in CATEGORIES:
        errors = "pgbreaker_errors_total"
        assert value(registry, errors, "fresh", category=category.value) == 0
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


def test_no_counter_appears_by_what_happens_to_a_breaker(registry):
    """One that appeared with its first step would lose it to `increase`."""
    time = ManualClock(100)
    breaker = PostgreSQLCircuitBreaker("storm", clock=time.clock)
    before = {
        (sample.name, *sorted(sample.labels.items()))
        for family in registry.collect()
        for sample in family.samples
    }

    for error in (ValueError(), ConnectionResetError(), TimeoutError(), OSError(28)):
        for _ in range(6):
            if breaker.passes:
                breaker.record(breaker.acquire(), error)
    time.advance(1000)
    fail(breaker, 1)

    after = {
        (sample.name, *sorted(sample.labels.items()))
        for family in registry.collect()
        for sample in family.samples
    }
    assert breaker.transitions
    assert after == before


def test_it_tells_since_when_the_breaker_has_not_been_closed(registry):
    time = ManualClock(100)
    config = PostgreSQLCircuitBreakerConfig(jitter=0.0, success_threshold=1)
    breaker = PostgreSQLCircuitBreaker("left", config, clock=time.clock)
    left = "pgbreaker_breaker_left_closed_timestamp_seconds"
    assert value(registry, left, "left") == 0

    fail(breaker)
    opened = time.at
    assert value(registry, left, "left") == opened
    for _ in range(2):  # trials that fail
        time.advance(breaker.retry_after())
        fail(breaker, 1)
    assert breaker.state is State.OPEN
    assert value(registry, left, "left") == opened

    time.advance(breaker.retry_after())
    breaker.record(breaker.acquire())
    assert breaker.state is State.CLOSED
    assert value(registry, left, "left") == opened
    fail(breaker)
    assert value(registry, left, "left") == time.at > opened


def test_an_operator_takes_a_breaker_out_of_closed_too(registry):
    time = ManualClock(100)
    breaker = PostgreSQLCircuitBreaker("forced", clock=time.clock)
    left = "pgbreaker_breaker_left_closed_timestamp_seconds"

    for passing in (State.CLOSED, State.DISABLED, State.METRICS_ONLY):
        breaker.force(passing, "all pass")
        assert value(registry, left, "forced") == 0
    breaker.force(State.FORCED_OPEN, "maintenance")
    forced = time.at
    time.advance(60)
    breaker.resume()

    assert value(registry, left, "forced") == forced


def test_what_an_operators_word_hides_is_felt_when_it_ends(registry):
    time = ManualClock(100)
    breaker = PostgreSQLCircuitBreaker("shadow", clock=time.clock)
    left = "pgbreaker_breaker_left_closed_timestamp_seconds"
    breaker.force(State.METRICS_ONLY, "only looking")

    fail(breaker)
    hidden = value(registry, left, "shadow")
    time.advance(60)
    breaker.resume()

    assert breaker.core.computed_state is State.OPEN
    assert hidden == 0
    assert value(registry, left, "shadow") == time.at


def test_the_threshold_of_slow_calls_is_there_only_where_one_is_set(registry):
    slow = PostgreSQLCircuitBreakerConfig(slow_call=0.25)
    patient = PostgreSQLCircuitBreaker("patient", slow)
    other = PostgreSQLCircuitBreaker("other", slow.replace(slow_call=None))
    threshold = "pgbreaker_slow_call_threshold_seconds"

    assert value(registry, threshold, patient.name) == 0.25
    assert threshold not in names_of(registry, other.name)


def test_pools_go_by_the_name_of_their_target(registry, pooled):
    pooled("shop", Use(3, 1, 4, 2))
    target = pooled("shop", Use(1, 0, 6, 0))

    connections = "pgbreaker_pool_connections"
    assert value(registry, connections, "shop", state="used") == 4
    assert value(registry, connections, "shop", state="idle") == 1
    assert value(registry, "pgbreaker_pool_max_connections", "shop") == 10
    assert value(registry, "pgbreaker_pool_waiters", "shop") == 2
    assert "pgbreaker_pool_waiters" not in names_of(registry, target.connect.name)


def test_a_pool_without_a_limit_has_no_series_of_one(registry, pooled):
    pooled("wide", Use(7, 0, None, 0))

    names = names_of(registry, "wide")

    assert "pgbreaker_pool_max_connections" not in names
    assert "pgbreaker_pool_connections" in names


def test_a_pool_that_is_gone_has_no_series(registry):
    pool = Pool("over", Use(1, 0, 4, 0))
    breaker = pool.target.breaker()
    assert value(registry, "pgbreaker_pool_waiters", "over") == 0

    del pool
    gc.collect()

    names = names_of(registry, breaker.name)
    assert "pgbreaker_calls_total" in names
    assert not {name for name in names if "pool" in name}


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


def test_a_target_that_wants_no_metrics_has_none_of_its_pools(registry, pooled):
    config = PostgreSQLCircuitBreakerConfig(metrics_collection_enabled=False)
    pooled("hidden", Use(1, 0, 4, 0), config).breaker()

    assert names_of(registry, "hidden") == set()


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


def test_promtool_finds_nothing_wrong_with_it(registry, pooled):
    promtool = need("promtool", "prometheus")
    with pooled("checked", Use(1, 1, 4, 0)).breaker():
        pass
    text = generate_latest(registry)

    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    read = {family.name for family in text_string_to_metric_families(text.decode())}
    assert read == {name.removesuffix("_total") for name in LIBRARY}
