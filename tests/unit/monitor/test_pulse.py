"""How late the daemon is itself."""

from pgbreaker.monitor.pulse import Pulse
from support.boards import Stopped


async def beating() -> tuple[Stopped, Pulse]:
    time = Stopped()
    pulse = Pulse(time.clock())
    pulse.start()
    pulse._next.cancel()  # the test beats
    return time, pulse


async def beat(time: Stopped, pulse: Pulse, late: float = 0.002) -> None:
    time.now = pulse._due + late
    pulse._beat()
    pulse._next.cancel()


async def test_a_punctual_loop_has_lost_nothing():
    time, pulse = await beating()
    begun = time.now
    for _ in range(20):
        await beat(time, pulse)

    assert pulse.lost_since(begun) == 0.0
    assert pulse.lost == 0.0


async def test_time_in_which_the_loop_was_held_is_lost():
    time, pulse = await beating()
    begun = time.now
    await beat(time, pulse)
    await beat(time, pulse, late=0.7)
    await beat(time, pulse)

    assert round(pulse.lost_since(begun), 3) == 0.7
    assert round(pulse.lost, 3) == 0.7


async def test_what_was_lost_before_is_not_lost_since():
    time, pulse = await beating()
    await beat(time, pulse, late=1.0)
    begun = time.now
    await beat(time, pulse)

    assert pulse.lost_since(begun) == 0.0
    assert round(pulse.lost_since(begun - 0.3), 3) == 0.3  # of one second, that much


async def test_a_beat_that_is_overdue_just_now_counts():
    """A deadline that ends in the same turn of the loop may be told first."""
    time, pulse = await beating()
    begun = time.now

    time.now = pulse._due + 2.0

    assert round(pulse.lost_since(begun), 3) == 2.0


async def test_who_does_not_beat_is_not_late():
    time, pulse = await beating()
    pulse.stop()
    time.now += 100.0

    assert pulse.lost_since(0.0) == 0.0


async def test_a_loop_that_was_held_for_two_pings_is_trouble_for_a_while():
    time, pulse = await beating()
    well = pulse.trouble

    time.now += 2.5
    while_held = pulse.trouble
    await beat(time, pulse, late=2.5)
    after = pulse.trouble
    await beat(time, pulse, late=9.9)
    await beat(time, pulse)
    time.now += 10.0
    pulse._due = time.now
    later = pulse.trouble

    assert well is None
    assert while_held is not None
    assert after == "the daemon itself was held up for 2.5 s"
    assert later is None
