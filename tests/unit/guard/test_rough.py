"""What applications do to a breaker that nobody would think of."""

import asyncio
import gc
import logging

import psycopg
import pytest

from pgbreaker import (
    CircuitOpenError,
    PostgreSQLCircuitBreaker,
    PostgreSQLCircuitBreakerConfig,
    State,
    Target,
    circuit_breaker,
    stale,
    subscribe,
)
from pgbreaker.guard.outcomes import _JUDGED, _MANY, judge
from pgbreaker.guard.registry import REGISTRY
from pgbreaker.guard.unit import Unit
from pgbreaker.testing import ManualClock, isolated


class Unspeakable(ConnectionError):
    def __str__(self):
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    "error", [ConnectionError("cannot reach", "db1"), Unspeakable()]
)
def test_an_error_that_cannot_be_told_of_counts_and_is_raised_as_it_is(error):
    breaker = PostgreSQLCircuitBreaker("orders")
    for _ in range(5):
        with pytest.raises(type(error)) as caught, breaker:
            raise error
        assert caught.value is error

    assert breaker.state is State.OPEN
    assert breaker.core.flights.out == 0


def test_garbage_that_is_collected_under_the_lock_reports_its_call():
    """A generator that nobody holds any more is closed wherever memory is asked for."""
    breaker = PostgreSQLCircuitBreaker("orders")

    @breaker
    def rows():
        yield 1

    class Holder:
        pass

    holder = Holder()
    holder.itself, holder.rows = holder, rows()
    next(holder.rows)
    del holder
    with breaker._lock:
        gc.collect()

    assert breaker.totals["released"] == 1


def test_a_listener_may_ask_for_breakers_while_one_is_made(monkeypatch):
    monkeypatch.setenv("PGBREAKER_DISABLED", "1")
    heard = []
    with isolated():
        end = subscribe(lambda event: heard.append(REGISTRY.breaker(event.breaker)))
        REGISTRY.breaker("orders")
        end()

    assert heard


def test_a_filter_that_raises_does_no_harm():
    class Filter(logging.Filter):
        def filter(self, record):
            raise RuntimeError("a filter")

    log = logging.getLogger("pgbreaker")
    cursed = Filter()
    log.addFilter(cursed)
    try:
        breaker = PostgreSQLCircuitBreaker("orders")
        for _ in range(5):
            breaker.record(breaker.acquire(), ConnectionResetError())
    finally:
        log.removeFilter(cursed)

    assert breaker.state is State.OPEN


def test_details_and_context_of_the_server_are_nobodys_business():
    error = psycopg.errors.QueryCanceled(
        "canceling statement due to statement timeout\n"
        "DETAIL:  card 4111-1111\nCONTEXT:  SQL statement \"SELECT '4111-1111'\""
    )
    evidence = judge(error, 0.0, None).evidence

    assert "statement timeout" in evidence.text
    assert "4111" not in evidence.text


def test_an_address_that_could_not_be_read_is_not_shown():
    error = psycopg.OperationalError("failed to resolve host 'et@db.internal': no")

    assert "et@" not in judge(error, 0.0, None).evidence.text


def test_large_errors_are_not_kept():
    before = len(_JUDGED)
    for n in range(50):
        judge(ConnectionError("x" * 1000 + str(n)), 0.0, None)
    for n in range(2 * _MANY):
        judge(ConnectionResetError(n), 0.0, None)

    assert len(_JUDGED) <= _MANY
    assert not any(len(str(key[1])) > 500 for key in _JUDGED)
    assert before <= _MANY


async def test_an_argument_that_is_equal_to_itself_alone_makes_no_key():
    class Session:
        pass

    with isolated():

        @circuit_breaker("players", cache=stale("5m"))
        async def player(session, number):
            return number

        with pytest.raises(TypeError, match="say what tells its calls apart"):
            await player(Session(), 1)


def test_what_can_be_awaited_and_entered_is_refused():
    class Both:
        def __await__(self):
            yield

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            return None

    breaker = PostgreSQLCircuitBreaker("orders")

    with pytest.raises(TypeError, match="guard the block instead"):
        breaker(Both)() if not isinstance(Both, type) else breaker(lambda: Both())()

    assert breaker.core.flights.out == 0


def test_a_breaker_that_nobody_calls_forgets_its_failures():
    time = ManualClock()
    breaker = PostgreSQLCircuitBreaker("orders", clock=time.clock)
    for _ in range(4):
        breaker.record(breaker.acquire(), ConnectionResetError())
    time.advance(5 * 3600)

    assert breaker.snapshot()["window"]["total"] == 0
    assert "0 of 0 calls failed" in breaker.explain()


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0, 3.7, 8.9, 9.0, 9.1, 10.0, 50.0])
def test_reading_later_is_as_good_as_turning_first(gap):
    time = ManualClock()
    breaker = PostgreSQLCircuitBreaker(
        "orders",
        PostgreSQLCircuitBreakerConfig(failure_threshold=None),
        clock=time.clock,
    )
    for n in range(15):
        breaker.record(
            breaker.acquire(), ConnectionResetError() if n % 3 == 0 else None
        )
        time.advance(0.37)
    time.advance(gap)
    read = breaker.core.counts(time.at)
    breaker.core.turn(time.at)

    assert read == breaker.core.counts()


def test_where_only_metrics_are_wanted_every_call_is_counted():
    breaker = PostgreSQLCircuitBreaker("orders")
    breaker.force(State.METRICS_ONLY, "a test")
    for _ in range(5):
        breaker.record(breaker.acquire(), ConnectionResetError())
    for _ in range(100):
        with breaker:
            pass

    assert breaker.core.computed_state is State.OPEN
    assert breaker.totals["success"] == 100


def test_failures_of_a_disabled_breaker_are_not_told_above():
    target = Target("shop")
    breaker = target.breaker("read")
    breaker.force(State.DISABLED, "a test")
    for _ in range(20):
        breaker.record(breaker.acquire(), ConnectionRefusedError(111, "no"))

    assert target.connect.state is State.CLOSED


def test_the_trial_of_the_whole_ends_with_the_first_answer():
    """And not with the session, which the application may keep."""
    time = ManualClock()
    target = Target("shop", clock=time.clock)
    reads, writes = target.breaker("read"), target.breaker("write")
    for _ in range(5):
        reads.record(reads.acquire(), ConnectionRefusedError(111, "no"))
        writes.record(writes.acquire(), ConnectionRefusedError(111, "no"))
    assert target.connect.state is State.OPEN
    time.advance(1000)

    unit = Unit(target, "read")
    unit.ask()
    unit.rest()

    assert target.connect.state is State.CLOSED
    unit.end()


def test_failed_calls_leave_no_cycle():
    class Refused(ConnectionRefusedError):
        """One of this test's own."""

    async def main():
        with isolated():

            @circuit_breaker(
                "players",
                config=PostgreSQLCircuitBreakerConfig(
                    base_backoff_delay=0.0, failure_threshold=None
                ),
                cache=stale("5m"),
                timeout="1s",
            )
            async def player(number):
                raise Refused(111, "no")

            for n in range(20):
                try:
                    await player(n)
                except (ConnectionRefusedError, CircuitOpenError):
                    continue

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
        alive = [o for o in gc.get_objects() if type(o) is Refused]
    finally:
        gc.enable()

    # The last one is still held by whoever raised it.
    assert len(alive) <= 2


def test_a_breaker_that_begins_to_try_says_so_at_once():
    time, heard = ManualClock(), []
    end = subscribe(heard.append)
    breaker = PostgreSQLCircuitBreaker("orders", clock=time.clock)
    for _ in range(5):
        breaker.record(breaker.acquire(), ConnectionResetError())
    time.advance(1000)
    breaker.acquire()
    end()

    assert [event.after for event in heard] == [State.OPEN, State.HALF_OPEN]


def test_below_a_breaker_that_has_ramped_up_calls_pass_unasked_again():
    time = ManualClock()
    config = PostgreSQLCircuitBreakerConfig(
        failure_threshold=1, success_threshold=1, ramp=1.0, jitter=0.0
    )
    above = PostgreSQLCircuitBreaker("above", config, clock=time.clock)
    below = PostgreSQLCircuitBreaker("below", above=above, clock=time.clock)
    below.record(below.acquire(), ConnectionRefusedError(111, "no"))
    time.advance(1000)
    with below:
        pass
    assert above.state is State.CLOSED
    time.advance(10)
    with below:
        pass

    assert time.at < below.core.edge


async def test_nobody_joins_a_call_that_hangs_once_the_breaker_is_open():
    with isolated():
        hang = asyncio.Event()

        @circuit_breaker("players", retry=False, cache=stale("5m"))
        async def player(number):
            if hang.is_set():
                await asyncio.get_running_loop().create_future()
            return number

        assert await player(1) == 1
        hang.set()
        leader = asyncio.create_task(player(1))
        await asyncio.sleep(0)
        REGISTRY.breaker("players").force(State.FORCED_OPEN, "a test")

        async with asyncio.timeout(1):
            assert await player(1) == 1
        leader.cancel()
