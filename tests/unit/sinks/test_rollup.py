"""What is counted by the minute."""

import pytest

from pgbreaker.core.reading import Finding
from pgbreaker.core.states import Evidence, Override, State
from pgbreaker.sinks.store import Counts, Rollup
from support.boards import Scene

# The scene's wall clock stands 100 s after a full minute.
MINUTE = 1_800_000_060


@pytest.fixture
def scene():
    return Scene()


@pytest.fixture
def told(scene) -> list[Counts]:
    return []


@pytest.fixture
def rollup(scene, told):
    rollup = Rollup(scene.board, scene.clock, told.append)
    scene.also(rollup)
    return rollup


def test_pings_are_counted_in_the_minute_that_they_began_in(scene, rollup, told):
    scene.read()
    scene.read("login", Finding.OK)  # no ping
    scene.read(finding=Finding.TIMEOUT)
    scene.time.now += 20
    scene.read()
    scene.read()

    rollup.flush()

    [counts] = told
    first = counts.pings["main", MINUTE]
    second = counts.pings["main", MINUTE + 60]
    assert (first.count, first.bad, second.count, second.bad) == (1, 1, 2, 0)
    assert first.most == 0.002
    assert second.total == pytest.approx(0.004)


def test_nothing_is_told_twice_and_nothing_of_nothing(scene, rollup, told):
    scene.read()

    rollup.flush()
    rollup.flush()

    assert len(told) == 1


def test_time_in_which_no_calls_passed_is_counted_by_the_minute(scene, rollup, told):
    scene.open()
    scene.time.now += 30
    rollup.flush()
    scene.time.now += 60
    breaker = scene.board.targets["main"].breakers["connect"]
    word = Override(State.CLOSED, "enough", "mia")
    scene.hub.publish(breaker.force(word, scene.time.now))
    scene.time.now += 60

    rollup.flush()

    shut: dict[int, float] = {}
    for counts in told:
        for (name, start), seconds in counts.shut.items():
            assert name == "main/connect"
            shut[start] = shut.get(start, 0.0) + seconds
    assert shut == pytest.approx({MINUTE: 20, MINUTE + 60: 60, MINUTE + 120: 10})


def test_bad_readings_are_kept_and_those_that_say_nothing_are_not(scene, rollup, told):
    bad = Evidence("refused", "nobody \ud800 listens", None, "ping")
    scene.read(finding=Finding.REFUSED, evidence=bad)
    for finding in (Finding.OK, Finding.SLOW, Finding.SKIPPED, Finding.ABSENT):
        scene.read("login", finding)

    rollup.flush()

    [failure] = told[0].failures
    assert (failure.target, failure.probe, failure.finding) == (
        *("main", "ping", "refused"),
    )
    assert failure.text == "nobody ? listens"


def test_of_very_many_bad_readings_the_last_fifty_are_held(scene, rollup, told):
    for _ in range(80):
        scene.read(finding=Finding.REFUSED)

    rollup.flush()

    assert len(told[0].failures) == 50
    assert told[0].pings["main", MINUTE].bad == 80
