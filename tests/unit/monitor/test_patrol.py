"""What goes round a target notices when it no longer does."""

import asyncio

from pgbreaker.monitor.patrol import Patrol
from pgbreaker.monitor.schedule import Schedule
from support.boards import Scene


async def patrolling() -> tuple[Scene, Patrol]:
    scene = Scene()
    target = scene.board.targets["main"]
    return scene, Patrol(target, scene.hub, Schedule(scene.clock), scene.clock)


async def test_a_sentinel_that_fell_is_trouble_and_told_at_once(caplog):
    _, patrol = await patrolling()

    async def fall(_within: float) -> None:
        raise RuntimeError("a fault of ours")

    patrol._sentinel.run = fall
    patrol.start()
    assert patrol.trouble is None
    await asyncio.wait([patrol._beating])
    await asyncio.sleep(0)

    assert patrol.trouble == "the sentinel of main has ended"
    assert "the sentinel main fell, which is a fault of ours" in caplog.text


async def test_silence_is_trouble():
    scene, patrol = await patrolling()
    assert patrol.trouble is None

    scene.time.now += 3600

    assert patrol.trouble == "the sentinel of main has been silent for 1 h 0 min"


async def test_a_probe_that_no_longer_runs_is_trouble():
    scene, patrol = await patrolling()
    scene.time.now += 45

    patrol._sentinel.beaten_at = scene.time.now

    assert patrol.trouble == "login of main has not run for 45.0 s"


async def test_a_patrol_that_was_halted_tells_nothing_and_is_off_the_schedule():
    scene = Scene()
    schedule = Schedule(scene.clock)
    target = scene.board.targets["main"]
    patrol = Patrol(target, scene.hub, schedule, scene.clock)
    schedule.start()
    patrol.start()

    await patrol.halt()
    again = Patrol(target, scene.hub, schedule, scene.clock)
    again.start()  # under the same names
    await again.halt()
    await schedule.close()

    assert patrol._beating.cancelled()
    assert schedule._entries == {}
    assert target.readings == {}


async def test_one_that_has_not_begun_can_be_halted():
    _, patrol = await patrolling()

    await patrol.halt()
    await patrol.close()
