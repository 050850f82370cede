"""The board, as targets come, change and go."""

from dataclasses import replace

import pytest

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Outcome, Override, State
from pgbreaker.sinks.board import Condition, Elsewhere, TargetBoard
from pgbreaker.sinks.hub import Notice
from support.boards import PROBES, Scene


def anew(scene: Scene, **changes) -> TargetBoard:
    """The target main of another plan, which has not taken its place yet."""
    old = scene.board.targets["main"]
    plan = replace(old.plan, **changes)
    breakers = {
        operation: Breaker(f"main/{operation}", plan.policy, scene.time.now)
        for operation in plan.operations
    }
    return TargetBoard(plan, breakers, scene.clock)


def test_a_target_that_is_configured_anew_goes_on_where_it_was():
    scene = Scene()
    scene.read(values={"version": 170010})
    scene.open("read")
    scene.hub.publish(Notice("main", "restarted", "it was", scene.time.now))
    old = scene.board.targets["main"]
    old.breakers["write"].force(Override(State.DISABLED, "why", "mia"), 100.0)
    scene.time.now += 5
    new = anew(scene, policy=replace(DAEMON, window=20.0), operations=("read", "write"))

    new.inherit(old)

    read, write = new.breakers["read"], new.breakers["write"]
    assert (read.state, read.since) == (State.OPEN, 100.0)
    assert read.totals == old.breakers["read"].totals
    assert write.override == old.breakers["write"].override
    assert write.refusing_since == old.breakers["write"].refusing_since
    assert (new.moved["read"], new.left_closed) == (old.moved["read"], old.left_closed)
    assert (new.condition, new.facts) == (Condition.DEGRADED, {"version": 170010})
    assert (new.answered, new.notices) == (old.answered, old.notices)


def test_of_another_server_nothing_that_was_seen_holds_but_breakers_do():
    scene = Scene()
    scene.read(values={"version": 170010})
    scene.open("read")
    new = anew(scene, dsn=Secret("postgresql://elsewhere/app"))

    new.inherit(scene.board.targets["main"])

    assert (new.readings, new.answered, new.facts) == ({}, {}, {})
    assert new.breakers["read"].state is State.OPEN


def test_one_that_takes_the_place_of_another_is_found_by_its_breakers():
    scene = Scene(("main", "other"))
    new = anew(scene, operations=("read",))

    scene.board.add(new)

    assert list(scene.board.targets) == ["main", "other"]
    assert scene.board.targets["main"] is new
    assert scene.board.breaker("main/read") is new.breakers["read"]
    assert scene.board.breaker("main/write") is None


def test_they_stand_in_the_order_of_the_file():
    scene = Scene(("a", "b", "c"))

    scene.board.arrange(["c", "a", "b"])

    assert list(scene.board.targets) == ["c", "a", "b"]
    with pytest.raises(ValueError, match="are not"):
        scene.board.arrange(["c", "a"])
    assert list(scene.board.targets) == ["c", "a", "b"]


def test_what_is_told_of_a_target_that_is_gone_is_no_news():
    scene = Scene(("main", "other"))
    breaker = scene.board.targets["main"].breakers["read"]
    scene.board.remove("main")

    scene.read(finding=Finding.TIMEOUT)
    scene.hub.publish(Notice("main", "moved", "it was", scene.time.now))
    for move in breaker.observe(Outcome.FAILURE, scene.time.now, confirmed=True):
        scene.hub.publish(move)

    assert scene.hub.dropped == 0
    assert list(scene.board.targets) == ["other"]
    with pytest.raises(KeyError):
        scene.board.home("main/read")


def test_a_move_that_an_operators_word_hides_is_none_that_it_shows():
    scene = Scene()
    target = scene.board.targets["main"]
    word = Override(State.DISABLED, "why", "mia")
    scene.hub.publish(target.breakers["read"].force(word, scene.time.now))
    forced = scene.clock.wall()
    scene.time.now += 60

    scene.open("read")

    assert target.breakers["read"].computed_state is State.OPEN
    assert target.moved["read"] == forced


def test_a_breaker_that_was_recalled_shows_when_it_moved_and_left_closed():
    scene = Scene()
    scene.open("read")
    opened = scene.clock.wall()
    memory = scene.board.targets["main"].breakers["read"].memory(scene.time.now)
    scene.time.now += 600
    fresh = anew(scene)
    fresh.breakers["read"].recall(memory, scene.time.now, away=600.0)

    target = TargetBoard(fresh.plan, fresh.breakers, scene.clock)

    assert target.moved["read"] == opened
    assert target.left_closed == {"read": opened}


def test_of_a_target_that_others_watch_the_condition_is_theirs():
    scene = Scene()
    target = scene.board.targets["main"]
    scene.read("ping", Finding.REFUSED, confirmed=True)
    assert target.condition is Condition.DOWN

    target.elsewhere = Elsewhere(("b", "c"), Condition.UP)

    assert target.condition is Condition.UP
    assert target.is_up
    assert target.reason == "watched by b, c"


def test_a_breaker_that_is_shut_goes_before_who_watches():
    scene = Scene()
    scene.open("read")
    target = scene.board.targets["main"]

    target.elsewhere = Elsewhere(("b",), Condition.DEGRADED)

    assert target.reason == target.breakers["read"].explain(scene.time.now)


def test_a_target_that_nobody_watches_for_the_moment_says_so():
    scene = Scene()
    target = scene.board.targets["main"]

    target.elsewhere = Elsewhere((), Condition.UNKNOWN)

    assert target.reason == "nobody watches it at the moment"
    assert not target.is_up


def test_what_was_seen_of_a_target_that_is_left_is_known_no_more_but_breakers_are():
    scene = Scene()
    scene.read(values={"version": 170010, "started": 7.0})
    scene.open("read")
    scene.hub.publish(Notice("main", "restarted", "it was", scene.time.now))
    target = scene.board.targets["main"]
    target.connections = 1

    target.rest()
    scene.read(values={"version": 180001})

    assert (target.notices, target.connections) == ({}, 0)
    assert target.facts == {"version": 180001}
    assert target.breakers["read"].state is State.OPEN
    assert target.moved["read"] == target.left_closed["read"]


def test_a_breaker_that_is_as_another_daemon_has_it_moved_when_it_did_there():
    scene, there = Scene(), Breaker("main/read", DAEMON, 90.0)
    there.observe(Outcome.FAILURE, 95.0, confirmed=True)
    target = scene.board.targets["main"]

    target.breakers["read"].recall(there.memory(97.0), scene.time.now, away=1.0)
    target.mirror("read")

    at = scene.clock.wall_of(scene.time.now - 3.0)
    assert (target.moved["read"], target.left_closed["read"]) == (at, at)
    assert "write" not in target.left_closed


def test_whether_somebody_looked_of_late_goes_by_how_often_it_is_asked():
    scene = Scene()
    target = scene.board.targets["main"]
    assert not target.is_fresh(scene.time.now)
    scene.read()
    read_at = scene.time.now

    longest = 3 * PROBES["ping"].interval + PROBES["ping"].timeout
    assert target.is_fresh(read_at + longest)
    assert not target.is_fresh(read_at + longest + 0.01)
    target.intervals["ping"] = 10.0
    assert target.is_fresh(read_at + 30.0)


def test_who_watches_a_target_stays_known_when_it_is_configured_anew():
    scene = Scene()
    old = scene.board.targets["main"]
    old.elsewhere = Elsewhere(("b",), Condition.UP)
    new = anew(scene, policy=replace(DAEMON, window=20.0))

    new.inherit(old)

    assert new.elsewhere == old.elsewhere
