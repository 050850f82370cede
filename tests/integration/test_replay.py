"""A real outage, recorded and replayed: by the same rules it comes to the same."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from pgbreaker import app
from pgbreaker.clock import Clock
from pgbreaker.core.forecast.warning import CONNECTIONS, FAILURE
from pgbreaker.core.plan import Config, HttpPlan, RecordPlan, TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import State, Transition
from pgbreaker.monitor.backtest import Came, backtest
from pgbreaker.monitor.replay import Replayed, replay
from pgbreaker.sinks.record import read, read_all, recording
from support.servers import one_breakable_server
from support.watching import QUICK

A_TICK = 0.02


class Moves:
    """A sink that keeps the moves."""

    def __init__(self) -> None:
        self.told: list[Transition] = []
        self._news = asyncio.Event()

    def __call__(self, event) -> None:
        if isinstance(event, Transition):
            self.told.append(event)
            self._news.set()

    async def until(self, state: State, breakers: int) -> None:
        """Wait until so many breakers are in *state*."""
        async with asyncio.timeout(15):
            while True:
                last = {move.breaker: move.after for move in self.told}
                if list(last.values()).count(state) == breakers:
                    return
                self._news.clear()
                await self._news.wait()


async def recorded_outage(server, path) -> TargetPlan:
    """Record how a server stops and comes back; returns by which plan."""
    dsn = Secret(server.dsn(user="pgbreaker"))
    plan = TargetPlan(name="main", dsn=dsn, probes=QUICK, policy=DAEMON)
    config = Config(targets=(plan,), http=HttpPlan(listen=("127.0.0.1", 0)))
    clock, moves = Clock(), Moves()
    async with recording(RecordPlan(path=path), [plan], clock, "1.2.3") as recorder:
        also = [recorder, moves]
        async with app.running(config, clock=clock, also=also) as daemon:
            async with asyncio.timeout(10):
                while daemon.unready:  # noqa: ASYNC110 - nobody tells us
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(server.kill)
            await moves.until(State.OPEN, 3)
            await asyncio.to_thread(server.start)
            await moves.until(State.CLOSED, 3)
    assert recorder.dropped == 0
    return plan


def told(done: Replayed, which: str) -> list[tuple]:
    return [
        (breaker, move.before, move.after, move.cause)
        for breaker, course in sorted(getattr(done, which).items())
        for move in course.moves
    ]


@one_breakable_server
async def test_the_same_rules_come_to_the_same_and_others_to_something_else(
    fresh_server, tmp_path
):
    path = tmp_path / "readings.jsonl"
    plan = await recorded_outage(fresh_server, path)
    slow = replace(plan, policy=replace(DAEMON, timeout=30.0))
    calm = replace(plan, operations=("connect",))

    same, slower, fewer = (
        replay(partial(read, path), [other]) for other in (plan, slow, calm)
    )

    assert told(same, "simulated") == told(same, "really")
    assert {state for _, _, state, _ in told(same, "really")} >= {
        State.OPEN,
        State.CLOSED,
    }
    for breaker, course in same.really.items():
        for really, again in zip(
            course.moves, same.simulated[breaker].moves, strict=True
        ):
            assert again.at == pytest.approx(really.at, abs=A_TICK)
            assert again.reason == really.reason
            assert again.retry_after == pytest.approx(really.retry_after, abs=1e-3)
    # Half a minute of waiting outlasts what was recorded.
    assert {state for _, _, state, _ in told(slower, "simulated")} == {State.OPEN}
    assert told(slower, "really") == told(same, "really")
    assert set(fewer.simulated) == {"main/connect"}


@one_breakable_server
async def test_an_outage_without_warning_is_one_failure_that_nobody_foresaw(
    fresh_server, tmp_path
):
    """Three breakers open, one after the other: that is one thing that happened."""
    path = tmp_path / "readings.jsonl"
    await recorded_outage(fresh_server, path)

    done = backtest(read_all(tmp_path))

    target = done.targets["main"]
    failure, connections = (
        next(found for found in target.results if found.of == of)
        for of in (FAILURE, CONNECTIONS)
    )
    assert (failure.score.missed, failure.failures, failure.warnings) == (1, 1, 0)
    assert connections.failures == 0
    assert [told.came for told in done.told] == [Came.MISSED]
    assert target.readings > 10
    assert 0 < target.seen <= done.ended - done.began
