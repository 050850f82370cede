"""What breakers remember, from one process to the next."""

import asyncio

from pgbreaker.app.memories import Keeper, recall
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.states import Outcome, State
from support.boards import Scene
from support.storing import until


class Paper:
    """A store that keeps what breakers remember, and counts how often it is asked to."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.memories: dict = {}
        self.flushed = 0

    def keep(self, memories) -> None:
        wall = self._scene.clock.wall()
        self.memories |= {name: (wall, memory) for name, memory in memories.items()}

    def flush(self, now: float) -> None:
        self.flushed += 1


def keeping(scene: Scene) -> tuple[Keeper, Paper]:
    paper = Paper(scene)
    return Keeper(scene.board, paper, paper, scene.clock), paper


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


async def test_all_is_kept_from_the_first_moment_on():
    scene = Scene()
    keeper, paper = keeping(scene)

    task = asyncio.create_task(keeper.run())
    await until(lambda: paper.flushed)
    task.cancel()
    await asyncio.wait([task])

    assert paper.memories.keys() == {"main/connect", "main/read", "main/write"}
