"""The fleet, where other daemons may watch targets instead."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from pgbreaker.app.fleet import Fleet
from pgbreaker.core.condition import Condition
from pgbreaker.core.policy import DAEMON
from pgbreaker.monitor.pulse import Pulse
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.sinks.board import Elsewhere
from support.boards import Scene


@asynccontextmanager
async def fleet_of(*names: str, rests: bool = True):
    """A fleet that has begun; its servers are nowhere."""
    scene = Scene(names)
    schedule = Schedule(scene.clock)
    fleet = Fleet(
        *(scene.board, scene.hub, schedule, Pulse(scene.clock), scene.clock),
        rests=rests,
    )
    schedule.start()
    fleet.start()
    try:
        yield scene, fleet
    finally:
        for patrol in fleet.patrols.values():
            await patrol.halt()
        await schedule.close()
        await fleet.close()


async def test_what_others_may_watch_is_watched_once_it_is_said():
    async with fleet_of("a", "b", "c") as (_, fleet):
        assert fleet.patrols == {}

        await fleet.watch(("a", "c", "nowhere"), ())

        assert sorted(fleet.patrols) == ["a", "c"]
        assert all(not p._beating.done() for p in fleet.patrols.values())


async def test_what_is_left_is_gone_round_no_more_and_nothing_is_known_of_it():
    async with fleet_of("a", "b") as (scene, fleet):
        await fleet.watch(("a", "b"), ())
        left = fleet.patrols["a"]
        target = scene.board.targets["a"]
        target.take(replace(scene.reading(), target="a"))
        assert target.readings

        await fleet.watch((), ("a", "nowhere"))

        assert list(fleet.patrols) == ["b"]
        assert left._beating.cancelled()
        assert target.readings == {}
        assert scene.board.targets["a"] is target


async def test_what_is_watched_already_goes_on_as_if_nobody_had_asked():
    async with fleet_of("a") as (_, fleet):
        await fleet.watch(("a",), ())
        patrol = fleet.patrols["a"]

        await fleet.watch(("a",), ())

        assert fleet.patrols["a"] is patrol


async def test_what_comes_back_is_gone_round_by_another():
    async with fleet_of("a") as (_, fleet):
        await fleet.watch(("a",), ())
        before = fleet.patrols["a"]

        await asyncio.gather(fleet.watch((), ("a",)), fleet.watch(("a",), ()))

        assert fleet.patrols["a"] is not before
        assert not fleet.patrols["a"]._beating.done()


async def test_of_what_is_configured_anew_only_what_was_watched_is_watched():
    async with fleet_of("a", "b") as (scene, fleet):
        await fleet.watch(("a",), ())
        policy = replace(DAEMON, window=20.0)
        plans = [replace(t.plan, policy=policy) for t in scene.board.targets.values()]
        new = replace(plans[0], name="c")

        await fleet.take([*plans, new])

        assert list(scene.board.targets) == ["a", "b", "c"]
        assert list(fleet.patrols) == ["a"]
        assert fleet.patrols["a"].board is scene.board.targets["a"]


async def test_one_alone_watches_what_is_new_at_once():
    async with fleet_of("a", rests=False) as (scene, fleet):
        plan = scene.board.targets["a"].plan

        await fleet.take([plan, replace(plan, name="b")])

        assert sorted(fleet.patrols) == ["a", "b"]


@pytest.mark.parametrize("is_known", [True, False])
async def test_of_what_others_watch_no_probe_is_waited_for(is_known):
    async with fleet_of("a") as (scene, fleet):
        if is_known:
            scene.board.targets["a"].elsewhere = Elsewhere(("b",), Condition.UP)

        expected = None if is_known else "no probe of a has come back yet"
        assert fleet.unready == expected
