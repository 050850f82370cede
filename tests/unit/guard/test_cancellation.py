"""Calls that are cancelled anywhere leave nothing behind."""

import asyncio
import random

import pytest

from pgbreaker import Bulkhead, CircuitOpenError, PostgreSQLCircuitBreaker, State
from pgbreaker.guard.decorator import Layers
from unit.guard.driving import CONFIG, Time, cooled, make, succeed

CALLS = 1000
# Trials that tell nothing must not open, or most calls here would only be refused.
PATIENT = {"success_threshold": 1_000_000}


async def steps(number):
    for _ in range(number):
        await asyncio.sleep(0)


def by_decorator(breaker):
    return breaker(steps)


def by_call(breaker):
    async def run(number):
        await breaker.call(steps, number)

    return run


def by_with(breaker):
    async def run(number):
        with breaker:
            await steps(number)

    return run


def by_async_with(breaker):
    async def run(number):
        async with breaker:
            await steps(number)

    return run


def by_pair(breaker):
    async def run(number):
        ticket = breaker.acquire()
        try:
            await steps(number)
        except BaseException as error:
            breaker.record(ticket, error)
            raise
        breaker.record(ticket)

    return run


def by_async_generator(breaker):
    @breaker
    async def items(number):
        for item in range(number):
            await asyncio.sleep(0)
            yield item

    async def run(number):
        async for _ in items(number):
            pass

    return run


def by_layers(breaker):
    return Layers(breaker=breaker, timeout=60.0, bulkhead=Bulkhead(1000)).around(steps)


def by_awaitable(breaker):
    class Steps:
        def __init__(self, number):
            self.number = number

        def __await__(self):
            return steps(self.number).__await__()

    return breaker(lambda number: Steps(number))


WAYS = [
    by_decorator,
    by_call,
    by_with,
    by_async_with,
    by_pair,
    by_async_generator,
    by_layers,
]


async def cancel_at_random(run, seed, *, at_once):
    """Begin calls, cancel each after a random number of steps; gives how they ended."""
    draw = random.Random(seed)
    ended = []
    for _ in range(0, CALLS, at_once):
        # About half of them are to end before their turn to be cancelled comes.
        longest = 4 + 2 * at_once
        tasks = [
            asyncio.create_task(run(draw.randrange(longest))) for _ in range(at_once)
        ]
        draw.shuffle(tasks)
        for task in tasks:
            await steps(draw.randrange(4))
            task.cancel()
        ended += await asyncio.gather(*tasks, return_exceptions=True)
    await steps(10)
    return ended


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at_once", [1, 50])
def test_cancelled_calls_leave_none_out_while_closed(way, at_once, time):
    breaker = make(time)

    ended = asyncio.run(cancel_at_random(way(breaker), 1, at_once=at_once))

    assert sum(isinstance(end, asyncio.CancelledError) for end in ended) > CALLS / 4
    assert breaker.core.flights.out == 0
    assert breaker.snapshot()["in_flight"] == 0
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at_once", [1, 50])
def test_cancelled_trials_give_their_places_back(way, at_once, time):
    breaker = cooled(time, **PATIENT, trials=3)

    ended = asyncio.run(cancel_at_random(way(breaker), 2, at_once=at_once))

    assert sum(isinstance(end, asyncio.CancelledError) for end in ended) > CALLS / 50
    assert breaker.state is State.HALF_OPEN
    assert breaker.core.flights.out == 0
    assert breaker.snapshot()["in_flight"] == 0
    succeed(breaker)  # a trial is possible


@pytest.mark.parametrize("state", [State.CLOSED, State.HALF_OPEN])
def test_a_call_cancelled_before_its_awaitable_began_is_out_no_more(state, time):
    breaker = make(time) if state is State.CLOSED else cooled(time, **PATIENT)

    ended = asyncio.run(cancel_at_random(by_awaitable(breaker), 3, at_once=1))

    assert CircuitOpenError not in {type(end) for end in ended}
    assert breaker.snapshot()["in_flight"] == 0


def test_calls_cancelled_below_another_breaker_leave_none_out(time):
    above = PostgreSQLCircuitBreaker("main/connect", CONFIG, clock=time.clock)
    below = PostgreSQLCircuitBreaker("main/read", CONFIG, above=above, clock=time.clock)

    asyncio.run(cancel_at_random(by_decorator(below), 4, at_once=50))

    assert (below.core.flights.out, above.core.flights.out) == (0, 0)


def test_a_place_in_a_bulkhead_comes_back_from_a_cancelled_call():
    """Whether it had it, waited for it, or was just being given it."""
    time = Time()
    bulkhead = Bulkhead(3, wait=60.0)
    run = Layers(breaker=make(time), bulkhead=bulkhead).around(steps)

    ended = asyncio.run(cancel_at_random(run, 5, at_once=50))

    assert sum(isinstance(end, asyncio.CancelledError) for end in ended) > CALLS / 4
    assert bulkhead.taken == 0
