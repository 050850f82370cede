"""What breakers remember, and what forecasts have learned, from one process to the next."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

from pgbreaker.app.memories import ForecastKeeper, Keeper, recall
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.states import Outcome, State
from pgbreaker.sinks.hub import Notice
from pgbreaker.sinks.store import Learned
from support.boards import Scene
from support.storing import until


class Paper:
    """A store that keeps what breakers remember, and counts how often it is asked to."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.memories: dict = {}
        self.kept = 0
        self.learned: list[str] = []

    def keep(self, memories) -> None:
        self.kept += 1
        wall = self._scene.clock.wall()
        self.memories |= {name: (wall, memory) for name, memory in memories.items()}

    def learn(self, learned) -> None:
        self.learned += learned

    def flush(self, now: float) -> None:
        """As the roll-up does."""


def keeping(scene: Scene) -> tuple[Keeper, Paper]:
    paper = Paper(scene)
    return Keeper(scene.board, paper, paper, scene.clock, every=0.1), paper


def another(scene: Scene, paper: Paper) -> Breaker:
    """The breaker main/read, of a process that begins when the scene's is no more."""
    breaker = Breaker("main/read", DAEMON, scene.time.now)
    recall(breaker, paper.memories, scene.clock)
    return breaker


def test_a_breaker_that_moved_is_remembered_at_once():
    scene = Scene()
    keeper, paper = keeping(scene)
    scene.also(keeper)

    scene.open("read")

    assert paper.memories.keys() == {"main/read"}
    assert another(scene, paper).state is State.OPEN


def test_another_process_goes_on_as_many_seconds_later_as_it_was_away():
    scene = Scene()
    breaker = scene.board.targets["main"].breakers["read"]
    breaker.observe(Outcome.FAILURE, scene.time.now)
    keeper, paper = keeping(scene)
    keeper.keep()

    scene.time.now += 4.0
    soon = another(scene, paper)
    scene.time.now += DAEMON.window
    late = another(scene, paper)

    assert soon.since == breaker.since
    assert soon.counts(soon.since + 4.0).failed == 1
    assert late.since == breaker.since
    assert late.counts(scene.time.now).total == 0


def test_wall_time_that_went_back_is_no_time():
    scene = Scene()
    scene.open("read")
    keeper, paper = keeping(scene)
    keeper.keep()
    scene.time.now -= 50.0

    breaker = another(scene, paper)

    assert (breaker.state, breaker.since) == (State.OPEN, scene.time.now)


def test_what_cannot_be_read_is_said_and_the_breaker_begins_anew(caplog):
    scene = Scene()
    paper = Paper(scene)
    paper.keep({"main/read": {"version": 99}})

    breaker = another(scene, paper)

    assert breaker.state is State.CLOSED
    assert "breaker main/read begins anew: " in caplog.text


def test_a_breaker_whose_target_was_removed_is_not_remembered():
    scene = Scene()
    keeper, paper = keeping(scene)
    breaker = scene.board.targets["main"].breakers["read"]
    (move,) = breaker.observe(Outcome.FAILURE, scene.time.now, confirmed=True)
    scene.board.remove("main")

    keeper(move)
    keeper.keep()

    assert paper.memories == {}


@asynccontextmanager
async def running(keeper: Keeper | ForecastKeeper):
    task = asyncio.create_task(keeper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_all_is_kept_from_the_first_moment_on():
    scene = Scene()
    keeper, paper = keeping(scene)

    async with running(keeper):
        await until(lambda: paper.memories)

    assert paper.memories.keys() == {"main/connect", "main/read", "main/write"}


async def test_of_many_only_some_are_kept_at_a_time_and_of_none_nothing():
    """A thousand targets' would hold the loop up for a third of a second."""
    scene = Scene(f"t{number}" for number in range(40))
    keeper, paper = keeping(scene)

    async with running(keeper):
        await until(lambda: paper.memories)
        at_once = len(paper.memories)
        for number in range(40):
            scene.board.remove(f"t{number}")
        await until(lambda: paper.kept > 10)  # more than once round

    assert at_once == 20
    assert len(paper.memories) == 20


# What forecasts have learned.


def nothing_of(*unknown: str):
    """Something was learned of every target, but of these."""
    return lambda name: None if name in unknown else Learned.of({}, 0.0)


async def test_each_target_is_kept_once_in_a_while_and_never_all_at_once():
    """So long a while is what a kill -9 costs at most. One that comes has its place in it
    at once."""
    paper = Paper(Scene())
    names = [f"t{number}" for number in range(100)]
    keeper = ForecastKeeper(names, nothing_of("t7"), paper, every=0.1)

    async with running(keeper):
        await until(lambda: paper.learned)
        at_once = len(paper.learned)
        names.append("late")
        del paper.learned[:]
        await until(lambda: paper.learned.count("late") == 2)
        kept = Counter(paper.learned)

    assert at_once < 30
    assert set(names) - kept.keys() == {"t7"}
    assert max(kept.values()) <= 3


async def test_at_the_end_all_of_it_is_kept():
    paper = Paper(Scene())
    keeper = ForecastKeeper(("a", "b", "c"), nothing_of("b"), paper)

    await keeper.keep()

    assert paper.learned == ["a", "c"]


async def test_news_of_the_record_is_kept_at_once():
    """A kill -9 a minute after the failure that was foretold would have lost the proof."""
    paper = Paper(Scene())
    keeper = ForecastKeeper(("main", "other"), nothing_of(""), paper, every=1e9)

    async with running(keeper):
        keeper(Notice("main", "warned", "full in 21 min", 1.0))
        await until(lambda: "main" in paper.learned)
