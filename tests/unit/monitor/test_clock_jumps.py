"""Whatever wall time does, breakers and overrides go by time that passes (promise 11)."""

import random
from datetime import UTC, datetime, timedelta

from pgbreaker.clock import Clock
from pgbreaker.core.reading import Finding
from pgbreaker.core.states import OVERRIDES, Cause, Evidence, Transition
from pgbreaker.monitor.desk import Desk
from pgbreaker.monitor.feed import Feed
from pgbreaker.monitor.schedule import Grid
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.history import History
from support.boards import Scene

JUMPS = 1_000
SEEN = Evidence("timeout", "no answer within 500 ms", probe="ping")


class Watch:
    """A target that is watched by clocks of its own."""

    def __init__(self, *, jumps: bool) -> None:
        self.scene, self.offset, self.jumps = Scene(), 0.0, jumps
        time = self.scene.time
        self.clock = Clock(lambda: time.now, lambda: 1.8e9 + time.now + self.offset)
        old = self.scene.board.targets["main"]
        target = TargetBoard(old.plan, old.breakers, self.clock)
        self.scene.board = Board([target], self.clock)
        history = History(self.scene.board, self.clock)
        self.moves: list[Transition] = []
        self.scene.also(history, self._note)
        self.feed = Feed(target, self.scene.hub, self.clock)
        self.desk = Desk(self.scene.board, self.scene.hub, history, self.clock)
        self.breakers = list(old.breakers.values())

    def _note(self, event) -> None:
        if isinstance(event, Transition):
            self.moves.append(event)

    def jump(self, by: float) -> None:
        """Set the wall clock; a machine that was suspended wakes to this, too."""
        if self.jumps:
            self.offset += by

    def read(self, *, good: bool) -> None:
        finding = Finding.OK if good else Finding.TIMEOUT
        reading = self.scene.reading(finding=finding, evidence=None if good else SEEN)
        self.feed.judge(reading)


async def test_a_thousand_jumps_move_nothing_that_would_not_have_moved():
    draw = random.Random(7)
    still, jumping = both = Watch(jumps=False), Watch(jumps=True)
    is_good, ends = True, {}
    for jump in range(JUMPS):
        by = draw.choice([3600.0, -3600.0, 1.0, -1.0, draw.uniform(-3600, 3600)])
        waits, which = draw.uniform(0.05, 5.0), draw.randrange(3)
        if draw.random() < 0.1:
            is_good = not is_good
        overrides = draw.random() < 0.1
        state, lasting = draw.choice(OVERRIDES), draw.uniform(1.0, 60.0)
        for watch in both:
            watch.jump(by)
            watch.scene.time.now += waits
            await watch.desk.look()
            watch.read(good=is_good)
            if overrides:
                await watch.desk.override(
                    watch.breakers[which],
                    state,
                    reason=f"number {jump}",
                    author="mia",
                    lasting=lasting,
                )
                ends[watch.breakers[which].name] = watch.scene.time.now + lasting

    assert jumping.moves == still.moves
    causes = {move.cause for move in jumping.moves}
    assert causes >= {Cause.FAILURE_RUN, Cause.RECOVERED, Cause.RESUMED}
    assert len(jumping.moves) > JUMPS / 10
    for name, override in jumping.desk.overrides.items():
        assert override.until == ends[name]


async def test_while_all_is_well_no_jump_opens_anything():
    draw = random.Random(11)
    watch = Watch(jumps=True)
    for _ in range(JUMPS):
        watch.jump(draw.uniform(-3600, 3600))
        watch.scene.time.now += draw.uniform(0.0, 2.0)
        await watch.desk.look()
        watch.read(good=True)

    assert watch.moves == []


async def test_a_machine_that_sleeps_for_an_hour_prolongs_no_trouble():
    """Monotonic time stands still meanwhile: what was open stays so, and what is held by
    hand is held for as long as it was to be, of the time that the machine is awake."""
    watch = Watch(jumps=True)
    for _ in range(3):
        watch.read(good=False)
    opened = len(watch.moves)
    await watch.desk.override(
        watch.breakers[0], OVERRIDES[0], reason="a test", author="mia", lasting=60.0
    )

    watch.jump(3600.0)
    await watch.desk.look()

    assert opened > 0
    assert len(watch.moves) == opened + 1
    assert watch.desk.next == watch.scene.time.now + 60.0
    watch.scene.time.now += 60.0
    await watch.desk.look()
    assert watch.moves[-1].cause is Cause.RESUMED


def test_the_next_run_is_within_an_interval_wherever_the_clock_lands():
    draw = random.Random(13)
    grid, now = Grid(5.0, 1.25), datetime(2026, 11, 26, tzinfo=UTC)
    for _ in range(JUMPS):
        now += timedelta(seconds=draw.uniform(-3600, 3600))
        comes = grid.get_next_fire_time(None, now)

        assert comes is not None
        assert timedelta(0) < comes - now <= timedelta(seconds=5)
