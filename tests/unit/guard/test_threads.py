"""Threads that share a breaker."""

import asyncio
import threading
import time as clocks
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import pytest

from pgbreaker import (
    CircuitOpenError,
    PostgreSQLCircuitBreaker,
    State,
    Target,
    Transition,
)
from pgbreaker.guard.monitor import Monitor
from unit.guard.driving import CONFIG, Time, make, refused

THREADS, CALLS = 8, 20_000


def in_threads(work):
    """Run it in all of them, begun together."""
    barrier = threading.Barrier(THREADS)

    def run(number):
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(run, range(THREADS)))


def by_pair(breaker):
    breaker.record(breaker.acquire())


def by_with(breaker):
    with breaker:
        pass


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("way", [by_pair, by_with])
def test_no_count_is_lost_between_threads(way):
    """Their own clock, so that slices of time end meanwhile: one each millisecond."""
    breaker = PostgreSQLCircuitBreaker("orders", CONFIG.replace(slow_call=0.005))

    in_threads(lambda _: [way(breaker) for _ in range(CALLS)] and None)

    assert breaker.core.totals["success"] == THREADS * CALLS
    assert breaker.core.flights.out == 0
    assert sum(breaker.durations()) == THREADS * CALLS


@pytest.mark.usefixtures("hasty")
def test_every_call_is_counted_once_through_every_state(heard):
    """An outage of its own every 50 calls; openings end as soon as they began."""
    rules = CONFIG.replace(failure_threshold=3, timeout=1e-6, max_timeout=1e-6)
    breaker = PostgreSQLCircuitBreaker("orders", rules)
    rounds = CALLS // 10

    def work(number):
        refusals = 0
        for n in range(rounds):
            try:
                ticket = breaker.acquire()
            except CircuitOpenError:
                refusals += 1
                continue
            breaker.record(ticket, refused() if n % 50 < 10 else None)
        return refusals

    refusals = sum(in_threads(work))

    totals = breaker.core.totals
    ended = sum(totals[name] for name in ("success", "failure", "late"))
    assert totals["rejected"] == refusals
    assert ended == THREADS * rounds - refusals
    assert breaker.snapshot()["in_flight"] == 0
    moves = [event for event in heard if isinstance(event, Transition)]
    assert len(moves) > 10
    assert sum(breaker.transitions.values()) == len(moves)
    assert [move.era for move in moves] == sorted({move.era for move in moves})
    assert all(a.after is b.before for a, b in pairwise(moves))


@pytest.mark.usefixtures("hasty")
def test_operations_may_be_made_while_others_fail():
    """Nobody's own error is replaced by one of ours."""
    rules = CONFIG.replace(failure_threshold=None, minimum_calls=1_000_000)
    target = Target("main", rules, clock=Time().clock)
    odd = []

    def work(number):
        try:
            for n in range(200):
                breaker = target.breaker(f"{number}-{n}")
                with suppress(CircuitOpenError):
                    breaker.record(breaker.acquire(), refused())
                    breaker.record(breaker.acquire())
        except Exception as error:
            odd.append(error)

    in_threads(work)

    assert odd == []
    assert len(target.breakers) == 1 + THREADS * 200


def test_four_blocking_calls_run_at_once():
    """No lock is held while they run: else three would wait for the first forever."""
    breaker = make(Time())
    barrier = threading.Barrier(4)

    @breaker
    def work():
        barrier.wait(timeout=5.0)

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(work) for _ in range(4)]:
            future.result()

    assert breaker.core.totals["success"] == 4


def test_four_trials_run_at_once_where_four_may(time):
    breaker = make(time, trials=4, success_threshold=4, failure_threshold=1)
    breaker.record(breaker.acquire(), refused())
    time.passes(30.0)
    barrier = threading.Barrier(4)

    @breaker
    def work():
        barrier.wait(timeout=5.0)

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(work) for _ in range(4)]:
            future.result()

    assert breaker.state is State.CLOSED


def test_threads_of_one_loop_and_of_another_share_a_breaker():
    breaker = make(Time())

    @breaker
    async def work():
        await asyncio.sleep(0)

    def run(_):
        async def many():
            await asyncio.gather(*(work() for _ in range(100)))

        asyncio.run(many())

    in_threads(run)

    assert breaker.core.totals["success"] == THREADS * 100
    assert breaker.core.flights.out == 0


def test_a_listener_may_use_the_breaker_that_it_hears_of(heard):
    """In the middle of a move, from the thread that made it and from another."""
    from pgbreaker import subscribe

    breaker = make(Time(), failure_threshold=1)

    def listen(event):
        breaker.explain()
        thread = threading.Thread(target=breaker.snapshot)
        thread.start()
        thread.join(timeout=5.0)
        assert not thread.is_alive()

    unsubscribe = subscribe(listen)
    begun = clocks.monotonic()
    breaker.record(breaker.acquire(), refused())
    unsubscribe()

    assert clocks.monotonic() - begun < 5.0
    assert len(heard) == 1


@pytest.mark.usefixtures("littered")
def test_events_may_be_asked_for_while_more_come():
    target = Target("orders", CONFIG)
    monitor, read = Monitor(target), target.breaker("read")

    def work(number):
        for turn in range(200):
            read.force((State.FORCED_OPEN, State.CLOSED)[turn % 2], "a try")
            assert monitor.events()

    in_threads(work)
