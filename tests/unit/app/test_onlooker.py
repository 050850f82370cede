"""A thread that sees when the loop hangs."""

import asyncio
import threading
import time

from pgbreaker.app.onlooker import Onlooker, stacks
from pgbreaker.clock import Clock
from pgbreaker.monitor.pulse import Pulse

PATIENCE = 0.2


def hang_here(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_loop_that_hangs_is_told_with_the_place_once(caplog):
    clock = Clock()
    pulse = Pulse(clock)
    pulse.start()
    onlooker = Onlooker(pulse, clock, PATIENCE, looks=0.02)
    onlooker.start()

    await asyncio.sleep(0.3)  # beats
    well = caplog.text
    hang_here(3 * PATIENCE)
    onlooker.stop()
    pulse.stop()

    assert well == ""
    assert caplog.text.count("the loop has hung for ") == 1
    assert "hang_here" in caplog.text
    assert "thread MainThread:" in caplog.text


async def test_one_that_ended_is_no_hanging_one(caplog):
    clock = Clock()
    pulse = Pulse(clock)
    onlooker = Onlooker(pulse, clock, PATIENCE, looks=0.02)
    onlooker.start()

    hang_here(2 * PATIENCE)
    onlooker.stop()

    assert caplog.text == ""


def test_every_thread_is_there_with_its_name():
    over = threading.Event()
    other = threading.Thread(target=over.wait, name="somebody else")
    other.start()

    seen = "\n".join(stacks())
    over.set()
    other.join()

    assert "thread somebody else:" in seen
    assert "test_every_thread_is_there_with_its_name" in seen
