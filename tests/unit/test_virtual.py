"""The loop in which time leaps: what a soak goes by is itself to be relied on."""

import asyncio
import threading
import time

import pytest

from support.virtual import BEGIN, VirtualLoop


def run(coroutine):
    """Run it on a virtual loop; returns what came, and the loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        return runner.run(coroutine), loop


def test_a_day_passes_in_a_moment_and_the_wall_clock_with_it():
    begun = time.monotonic()
    _, loop = run(asyncio.sleep(86_400.0))

    assert loop.time() == pytest.approx(86_400.0, abs=0.01)
    assert loop.clock.wall() == pytest.approx(BEGIN + 86_400.0, abs=0.01)
    assert time.monotonic() - begun < 5.0


def test_what_is_due_comes_in_its_order():
    async def both() -> list[str]:
        told: list[str] = []

        async def one(name: str, after: float) -> None:
            await asyncio.sleep(after)
            told.append(name)

        await asyncio.gather(one("late", 3600.0), one("soon", 60.0), one("now", 0.0))
        return told

    assert run(both())[0] == ["now", "soon", "late"]


def test_the_clock_stands_still_while_a_thread_is_at_work():
    """Or a disk would seem slow by virtual hours."""

    async def wait_for_it() -> float:
        free = threading.Event()
        ticking = asyncio.create_task(asyncio.sleep(3600.0))
        working = asyncio.get_running_loop().run_in_executor(None, free.wait)
        threading.Timer(0.05, free.set).start()
        await working
        assert not ticking.done()
        ticking.cancel()
        return asyncio.get_running_loop().time()

    assert run(wait_for_it())[0] < 1.0


def test_what_nobody_catches_is_noted():
    async def leave_it() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1.0)

    _, loop = run(leave_it())

    assert [type(fault["exception"]) for fault in loop.faults] == [ZeroDivisionError]
