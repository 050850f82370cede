"""`pgbreaker.testing`, as an application's tests would use it."""

import asyncio

import pytest

from pgbreaker import CircuitOpenError, PostgreSQLCircuitBreaker, State, circuit_breaker
from pgbreaker.testing import ManualClock, Recorder, ScriptedServer, force, isolated


async def test_a_script_plays_an_outage_and_a_clock_its_end():
    time = ManualClock()
    breaker = PostgreSQLCircuitBreaker("orders", clock=time.clock)
    server = ScriptedServer([1] + [ConnectionRefusedError(111, "no")] * 5 + [2])
    guarded = breaker(server)

    with Recorder() as recorder:
        assert await guarded("a") == 1
        for _ in range(5):
            with pytest.raises(ConnectionRefusedError):
                await guarded("b")
        with pytest.raises(CircuitOpenError):
            await guarded("c")
        time.advance(100)
        for _ in range(3):
            assert await guarded("d") == 2

    assert server.calls == [("a",)] + [("b",)] * 5 + [("d",)] * 3
    assert recorder.moves == [
        ("orders", State.CLOSED, State.OPEN),
        ("orders", State.OPEN, State.HALF_OPEN),
        ("orders", State.HALF_OPEN, State.CLOSED),
    ]


async def test_a_script_can_hang():
    server = ScriptedServer([ScriptedServer.HANG])

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await server()


async def test_a_breaker_can_be_forced_for_the_time_of_a_block():
    with isolated():

        @circuit_breaker("shop", default="closed for today")
        async def ask():
            return "open"

        with force("shop"):
            assert await ask() == "closed for today"
        assert await ask() == "open"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: ScriptedServer([]), "a script has at least one line"),
        (lambda: ManualClock().advance(-1), "a clock goes forward, got -1"),
    ],
)
def test_wrong_uses_are_told_so(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
