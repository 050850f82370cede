"""The fleet, where other daemons may watch targets instead."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from pgbreaker.app.fleet import Fleet
from pgbreaker.core.condition import Condition
from pgbreaker.core.forecast.warning import FAILURE
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.secret import Secret
from pgbreaker.monitor.feed import Feed
from pgbreaker.monitor.pulse import Pulse
from pgbreaker.monitor.schedule import Schedule
from pgbreaker.sinks.board import Elsewhere
from pgbreaker.sinks.store import Learned
from support.boards import Scene


@asynccontextmanager
async def fleet_of(*names: str, rests: bool = True, learned=None):
    """A fleet that has begun; its servers are nowhere."""
    scene = Scene(names)
    schedule = Schedule(scene.clock)
    fleet = Fleet(
        *(scene.board, scene.hub, schedule, Pulse(scene.clock), scene.clock),
        rests=rests,
        learned=learned,
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


# What forecasts have learned.


def remembered(missed: int) -> Learned:
    """What is left of so many failures of a target that stands nowhere."""
    scene = Scene(["a"])
    feed = Feed(scene.board.targets["a"], scene.hub, scene.clock)
    feed.show(replace(scene.reading(), target="a"))
    memory = feed.memory()
    memory["outlook"]["record"][FAILURE]["missed"] = missed
    return Learned.of(memory, scene.clock.wall())


def missed(scene: Scene, fleet: Fleet, name: str) -> int:
    """Failures that the forecasts of a target know of, once its patrol has told of a
    reading."""
    fleet.patrols[name]._feed.show(replace(scene.reading(), target=name))
    return scene.board.targets[name].foretold().record[FAILURE].missed


def left(fleet: Fleet, name: str) -> int | None:
    """Failures that are remembered of a target. None: nothing is."""
    learned = fleet.learned(name)
    if learned is None:
        return None
    return learned.memory()["outlook"]["record"][FAILURE]["missed"]


async def test_what_was_learned_before_the_process_began_waits_for_a_patrol():
    known = {"a": remembered(7), "b": remembered(8)}
    async with fleet_of("a", "b", learned=known) as (scene, fleet):
        assert (left(fleet, "a"), left(fleet, "b")) == (7, 8)

        await fleet.watch(("a",), ())

        assert missed(scene, fleet, "a") >= 7
        assert list(known) == ["b"]
        assert (left(fleet, "a") >= 7, left(fleet, "b")) == (True, 8)


async def test_what_comes_back_to_a_daemon_goes_on_from_what_it_knew():
    """Daemons share no learning: each has its own."""
    async with fleet_of("a", learned={"a": remembered(7)}) as (scene, fleet):
        await fleet.watch(("a",), ())
        before = missed(scene, fleet, "a")
        await fleet.watch((), ("a",))
        assert scene.board.targets["a"].foretold is None
        assert left(fleet, "a") >= before

        await fleet.watch(("a",), ())

        assert missed(scene, fleet, "a") >= before >= 7


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_reload_keeps_what_was_learned_of_a_server_and_not_of_another(is_same):
    known = {"a": remembered(7)}
    async with fleet_of("a", rests=False, learned=known) as (scene, fleet):
        assert missed(scene, fleet, "a") >= 7
        dsn = Secret(f"postgresql://me:changed@{'db' if is_same else 'db2'}/a")
        plan = replace(scene.board.targets["a"].plan, dsn=dsn)

        await fleet.take([plan])

        assert (missed(scene, fleet, "a") >= 7) is is_same


async def test_of_a_target_that_is_configured_no_more_nothing_is_known():
    known = {"a": remembered(7), "b": remembered(8)}
    async with fleet_of("a", "b", learned=known) as (scene, fleet):
        plan = scene.board.targets["a"].plan

        await fleet.take([plan])

        assert (left(fleet, "a"), left(fleet, "b")) == (7, None)


async def test_a_reload_before_the_first_reading_loses_nothing():
    known = {"a": remembered(7)}
    async with fleet_of("a", rests=False, learned=known) as (scene, fleet):
        plan = replace(scene.board.targets["a"].plan, labels={"env": "prod"})

        await fleet.take([plan])

        assert missed(scene, fleet, "a") >= 7
