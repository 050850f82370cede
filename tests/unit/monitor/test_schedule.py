"""The schedule: a grid without drift or herd, and clocks that jump."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from pgbreaker.clock import Clock
from pgbreaker.core.units import Seconds
from pgbreaker.monitor.schedule import Grid, Schedule


class Counted:
    """A task that counts its runs."""

    def __init__(self, name: str = "main/login", interval: Seconds = 0.05) -> None:
        self.name = name
        self.interval = interval
        self.hurry: Seconds | None = None
        self.runs = 0
        self.ran = asyncio.Event()

    async def tick(self, late: Seconds = 0.0) -> None:
        assert late >= 0
        self.runs += 1
        self.ran.set()

    async def next_run(self, within: Seconds = 2.0) -> None:
        self.ran.clear()
        async with asyncio.timeout(within):
            await self.ran.wait()


class Walls:
    """A wall clock that can be set, over the real monotonic one."""

    def __init__(self) -> None:
        self.offset = 0.0

    def clock(self) -> Clock:
        import time

        return Clock(now=time.monotonic, wall=lambda: time.time() + self.offset)


@pytest.mark.parametrize("gap", [0.0, 0.3, 3600.0, 86400 * 3650])
def test_a_gap_of_any_length_leaves_exactly_one_next_run(gap):
    grid = Grid(5.0, phase=1.25)
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=gap)

    following = grid.get_next_fire_time(datetime(2026, 1, 1, tzinfo=UTC), now)

    assert following is not None
    assert timedelta(0) < following - now <= timedelta(seconds=5)
    assert (following.timestamp() - 1.25) % 5 == pytest.approx(0, abs=1e-6)


def test_runs_keep_to_the_grid_however_late_the_one_before_was():
    grid = Grid(10.0, phase=0.0)
    late = datetime.fromtimestamp(1013.7, UTC)

    assert grid.late(late.timestamp()) == pytest.approx(3.7)
    assert grid.get_next_fire_time(late, late) == datetime.fromtimestamp(1020, UTC)


async def test_a_task_runs_again_and_again_until_closed():
    schedule = Schedule(Clock())
    task = Counted()
    schedule.add(task)
    schedule.start()

    await task.next_run()
    await task.next_run()
    await schedule.close()

    ended_with = task.runs
    await asyncio.sleep(3 * task.interval)  # time in which it must not run
    assert task.runs == ended_with


async def test_a_task_in_a_hurry_is_asked_before_its_interval_is_over():
    schedule = Schedule(Clock())
    task = Counted(interval=3600.0)
    task.hurry = 0.01
    schedule.add(task)
    schedule.start()

    await task.next_run()
    await task.next_run()
    await task.next_run()

    await schedule.close()


async def test_soon_runs_at_once_whatever_the_grid_says():
    schedule = Schedule(Clock())
    task = Counted(interval=3600.0)
    schedule.add(task)
    schedule.start()
    await task.next_run()

    schedule.soon(task.name)

    await task.next_run(within=1.0)
    await schedule.close()


@pytest.mark.parametrize("step", [-3600.0, 3600.0, 86400.0 * 3650])
async def test_a_step_of_the_wall_clock_is_counted_and_jobs_are_placed_anew(step):
    walls = Walls()
    schedule = Schedule(walls.clock())
    task = Counted(interval=0.5)
    schedule.add(task)
    schedule.start()
    await task.next_run()

    walls.offset = step
    schedule._watch_clocks()  # what its own timer does once a second

    assert schedule.clock_steps == 1
    placed = schedule._scheduler.get_job(task.name).next_run_time.timestamp()
    assert 0 < placed - walls.clock().wall() <= 0.5
    await schedule.close()


async def test_a_task_that_raises_is_told_and_goes_on(caplog):
    class Broken(Counted):
        async def tick(self, late: Seconds = 0.0) -> None:
            await super().tick(late)
            raise RuntimeError("a fault of ours")

    schedule = Schedule(Clock())
    task = Broken()
    schedule.add(task)
    schedule.start()

    await task.next_run()
    await task.next_run()

    await schedule.close()
    assert "main/login raised" in caplog.text


async def test_closing_lets_the_run_under_way_end():
    class Slow(Counted):
        ended = False

        async def tick(self, late: Seconds = 0.0) -> None:
            await super().tick(late)
            await asyncio.sleep(0.05)
            self.ended = True

    schedule = Schedule(Clock())
    task = Slow(interval=3600.0)
    schedule.add(task)
    schedule.start()
    await task.next_run()

    await schedule.close()

    assert task.ended


async def test_a_task_that_was_removed_runs_no_more_and_its_run_is_cut_short():
    schedule = Schedule(Clock())
    begun, ended = asyncio.Event(), []

    class Slow(Counted):
        async def tick(self, late: Seconds = 0.0) -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(self.name)

    schedule.add(Slow())
    schedule.start()
    await asyncio.wait_for(begun.wait(), 2.0)

    await schedule.remove("main/login")
    schedule.soon("main/login")
    again = Counted()
    schedule.add(again)
    await again.next_run()
    await schedule.close()

    assert ended == ["main/login"]


async def test_a_run_that_was_due_as_its_task_was_removed_does_not_begin():
    schedule = Schedule(Clock())
    old, new = Counted(), Counted()
    schedule.add(old)
    entry = schedule._entries["main/login"]
    await schedule.remove("main/login")
    schedule.add(new)

    await schedule._run(entry)

    assert (old.runs, new.runs) == (0, 0)
