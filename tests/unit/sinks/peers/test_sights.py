"""What is seen here, as others hear it; what others see, as it stands here. By hand:
there is neither an engine nor a server."""

import json
from dataclasses import replace

import pytest

from pgbreaker.core import view as views
from pgbreaker.core.advice import Opinion
from pgbreaker.core.circle import Circle
from pgbreaker.core.condition import Condition
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.sharding import chosen
from pgbreaker.core.states import Cause, Evidence, Outcome, Override, State, Transition
from pgbreaker.core.view import View
from pgbreaker.sinks.board import Elsewhere, TargetBoard
from pgbreaker.sinks.peers.sights import Sights
from support.boards import FULL, Scene
from support.peering import view

HERE, SECOND, THIRD = chosen("main", "abc", 3)
MAIN = frozenset(("main",))
OPEN, HEALTHY, UNKNOWN = Opinion.OPEN, Opinion.HEALTHY, Opinion.UNKNOWN
SHUT_DOWN = Evidence("shutting_down", "the database system is shutting down", "57P03")


class Post:
    """One daemon: its board, its circle, and its sights.

    Attributes:
        moves: What was told of breakers.
        changed: Targets of which something new holds, as it was told.
    """

    def __init__(self, name: str = HERE, watchers: int = 1, **more) -> None:
        self.scene = Scene(operations=("read", "write"), **more)
        self.time, self.target = self.scene.time, self.scene.board.targets["main"]
        self.moves: list[Transition] = []
        self.changed: list[str] = []
        self.scene.also(self._note)
        self.circle = Circle(name, self.time.now, watchers=watchers)
        self.circle.can_watch(self.scene.board.targets)
        self.scene.board.share(self.circle)
        self.sights = Sights(
            self.circle, self.scene.board, self.scene.hub, self.scene.clock
        )
        self.sights.follow(self.changed.append)

    def _note(self, event) -> None:
        if isinstance(event, Transition):
            self.moves.append(event)

    @property
    def breaker(self) -> RuledBreaker:
        found = self.target.breakers["read"]
        assert isinstance(found, RuledBreaker)
        return found

    @property
    def thought(self):
        return self.sights.thought_of(self.target, self.breaker)

    def meet(self, *names: str, token: int = 1) -> None:
        """Hear that these are there, and do what follows."""
        peers = dict.fromkeys(names, (1, MAIN))
        peers[self.circle.name] = (token, MAIN)
        self.sights.token = token
        self.circle.meet(peers, self.time.now)
        duties = self.circle.decide(self.time.now)
        for name in duties.take:
            self.sights.take(name)
        for name in duties.leave:
            self.sights.leave(name)
            self.target.rest()
        self.sights.reckon("main")

    def ping(self, finding: Finding = Finding.OK) -> None:
        """See how the server is, and find out what is thought of it."""
        self.scene.read("ping", finding)
        self.sights.look_at("main")

    def fail(self, evidence: Evidence = FULL) -> None:
        """See it fail, twice over."""
        self.scene.read()
        for move in self.breaker.observe(
            Outcome.FAILURE, self.time.now, confirmed=True, evidence=evidence
        ):
            self.scene.hub.publish(move)
        self.sights.look_at("main")

    def hear(self, opinion: Opinion, daemon: str = SECOND, **more) -> None:
        """Hear what another thinks of the breaker for reads."""
        more.setdefault("at", self.sights.wall())
        self.sights.hear(daemon, view("main/read", opinion, **more))

    def told(self) -> dict[str, View | None]:
        """What is to be told, read as others read it; it is told with that."""
        told = dict(self.sights.untold)
        self.sights.are_told(told.items())
        return {
            name: None if text is None else views.read(json.loads(text))
            for name, text in told.items()
        }

    def opinions(self) -> dict[str, Opinion | None]:
        return {n: None if v is None else v.opinion for n, v in self.told().items()}


def watching(*others: str, watchers: int = 1) -> Post:
    """One that watches main, has looked at it, and has told."""
    post = Post(watchers=watchers)
    post.meet(*others)
    post.ping()
    post.told()
    return post


# -- What is seen here -------------------------------------------------------------


def test_what_it_has_got_it_tells_of_before_and_after_it_has_looked():
    post = Post()
    post.meet(SECOND)
    assert post.opinions() == {"main/read": UNKNOWN, "main/write": UNKNOWN}

    post.ping()

    assert post.opinions() == {"main/read": HEALTHY, "main/write": HEALTHY}
    assert post.thought.opinion is HEALTHY


def test_what_it_thinks_already_it_does_not_tell_again():
    post = watching(SECOND)

    for _ in range(5):
        post.time.now += 1
        post.ping()

    assert post.told() == {}


def test_a_move_is_told_with_all_that_whoever_takes_over_needs():
    post = watching(SECOND)

    post.fail(SHUT_DOWN)

    told = post.told()["main/read"]
    assert told is not None
    assert (told.breaker, told.opinion, told.state) == ("main/read", OPEN, State.OPEN)
    assert (told.sqlstate, told.is_definite) == ("57P03", True)
    assert told.reason == post.breaker.reason
    assert told.memory == post.breaker.memory(post.time.now)
    assert "main" in post.changed


async def test_that_nobody_looks_any_more_is_told_though_nothing_happens():
    post = watching(SECOND)

    post.time.now += 60
    await post.sights.look()

    assert post.opinions() == {"main/read": UNKNOWN, "main/write": UNKNOWN}


async def test_under_a_new_lease_all_is_told_anew():
    post = watching(SECOND)
    post.meet(SECOND, token=7)

    await post.sights.tell_all(7, ["main/read", "gone/read"])

    told = {"main/read": HEALTHY, "main/write": HEALTHY, "gone/read": None}
    assert post.opinions() == told
    assert post.circle.ballot("main/read", post.time.now).opinion is HEALTHY


def test_what_it_leaves_and_never_told_it_need_not_take_back():
    post = Post(SECOND)
    post.meet()
    post.ping()
    post.meet(HERE)
    post.hear(HEALTHY, HERE)

    post.meet(HERE)

    assert post.circle.watching == set()
    assert post.told() == {}


def test_what_it_leaves_it_takes_back():
    post = Post(SECOND)
    post.meet()
    post.ping()
    post.told()
    post.meet(HERE)
    post.hear(HEALTHY, HERE)

    post.meet(HERE)

    assert post.opinions() == {"main/read": None, "main/write": None}
    assert post.circle.watching == set()


def test_of_what_is_not_watched_here_nothing_is_told():
    post = Post(SECOND)
    post.meet(HERE)

    post.ping()

    assert post.told() == {}


# -- What others see ---------------------------------------------------------------


def test_what_another_watches_is_as_it_has_it():
    post = Post(SECOND)
    post.meet(HERE)
    post.time.now += 2
    at = post.sights.wall() - 1.5

    post.hear(OPEN, HERE, at=at)

    assert post.breaker.state is State.OPEN
    assert post.breaker.since == pytest.approx(post.time.now - 1.5)
    assert post.target.elsewhere == Elsewhere((HERE,), Condition.DOWN)
    assert post.target.condition is Condition.DOWN
    assert post.target.moved["read"] == pytest.approx(
        post.scene.clock.wall() - 1.5, abs=1e-3
    )
    assert post.thought.opinion is OPEN
    assert post.thought.reason == "connection refused"


def test_of_what_nobody_watches_the_page_says_so():
    post = Post(SECOND)
    post.meet(HERE)

    assert post.target.elsewhere == Elsewhere((HERE,), Condition.UNKNOWN)
    assert post.target.condition is Condition.UNKNOWN
    assert post.target.reason == f"watched by {HERE}"


def test_what_it_takes_over_goes_on_from_where_the_other_was():
    post = Post(SECOND)
    post.meet(HERE)
    post.hear(OPEN, HERE)
    until = post.breaker.until

    post.meet()  # the other is gone

    assert post.target.condition is Condition.DOWN, (
        "as the other saw it, until it looks"
    )
    assert post.breaker.state is State.OPEN
    assert post.breaker.until == until
    assert post.moves == []
    assert post.thought.opinion is OPEN


def test_of_a_target_that_nobody_knows_here_nothing_is_heard():
    post = watching(SECOND)

    post.sights.hear(SECOND, view("other/read", OPEN))
    post.sights.forget(SECOND, "other/read")
    post.sights.take("other")
    post.sights.leave("other")
    post.sights.reckon("other")

    assert post.told() == {}
    assert post.moves == []


def test_an_operators_word_stays_while_others_watch():
    post = Post(SECOND)
    post.meet(HERE)
    post.breaker.force(Override(State.DISABLED, "as agreed", "mia"), post.time.now)

    post.hear(OPEN, HERE)

    assert post.breaker.state is State.DISABLED
    assert post.breaker.computed_state is State.OPEN


# -- What holds --------------------------------------------------------------------


def test_one_that_alone_sees_it_open_opens_nothing_and_says_why():
    post = watching(SECOND, THIRD, watchers=3)
    post.hear(HEALTHY, SECOND)
    post.hear(HEALTHY, THIRD)

    post.fail()

    assert post.breaker.computed_state is State.OPEN
    assert post.breaker.state is State.CLOSED
    assert [move.override for move in post.moves] == [State.CLOSED]
    assert post.thought.opinion is HEALTHY
    assert post.thought.reason == ""
    assert post.opinions() == {"main/read": OPEN}
    assert "1 of 3 daemons see it open (2 needed)" in post.breaker.explain(
        post.time.now
    )


def test_once_enough_see_it_open_it_is_though_not_here():
    post = watching(SECOND, THIRD, watchers=3)
    post.hear(HEALTHY, SECOND)
    post.hear(OPEN, THIRD)
    assert post.moves == []

    post.hear(OPEN, SECOND)

    (opened,) = post.moves
    assert (opened.before, opened.after) == (State.CLOSED, State.OPEN)
    assert opened.cause is Cause.AGREED
    assert post.breaker.computed_state is State.CLOSED
    assert post.thought.opinion is OPEN
    assert post.thought.reason == (
        "2 of 3 daemons see it open (2 needed): connection refused"
    )
    assert post.target.left_closed["read"] == post.scene.clock.wall()


def test_where_too_few_have_looked_it_stays_as_it_was():
    post = watching(SECOND, watchers=2)
    post.hear(OPEN)
    post.fail()
    assert post.breaker.state is State.OPEN

    post.hear(UNKNOWN)

    assert post.breaker.state is State.OPEN
    felt = [move for move in post.moves if move.override is None]
    assert [move.cause for move in felt] == [Cause.AGREED]


async def test_who_cannot_look_is_not_waited_for_for_ever():
    post = watching(SECOND, watchers=2)
    post.hear(UNKNOWN)
    post.fail()
    assert post.breaker.state is State.CLOSED

    post.time.now += 6
    post.scene.read()
    await post.sights.look()

    assert post.breaker.state is State.OPEN


def test_a_lost_engine_leaves_it_to_what_is_seen_here():
    post = watching(SECOND, THIRD, watchers=3)
    post.hear(HEALTHY, SECOND)
    post.hear(HEALTHY, THIRD)
    post.fail()

    post.circle.lose(post.time.now)
    post.sights.reckon("main")

    (hidden, felt) = post.moves
    assert hidden.override is State.CLOSED
    assert (felt.before, felt.after) == (State.CLOSED, State.OPEN)
    assert post.thought.opinion is OPEN


def test_where_all_agree_neither_the_loss_of_the_engine_nor_its_return_is_felt():
    post = watching(SECOND, THIRD, watchers=3)
    for daemon in (SECOND, THIRD):
        post.hear(OPEN, daemon)
    post.fail()
    before = len(post.moves)

    post.circle.lose(post.time.now)
    post.sights.reckon("main")
    post.time.now += 0.5
    post.meet(SECOND, THIRD)

    assert len(post.moves) == before
    assert post.breaker.state is State.OPEN
    assert post.thought.opinion is OPEN


def test_callers_hear_of_every_move_that_they_feel():
    """Replayed, what was told leads to what the breaker is."""
    post = watching(SECOND, THIRD, watchers=3)
    felt = [State.CLOSED]
    for opinions in ((OPEN, OPEN), (HEALTHY, OPEN), (UNKNOWN, OPEN), (OPEN, OPEN)) * 3:
        post.time.now += 0.25
        post.ping()
        for daemon, opinion in zip((SECOND, THIRD), opinions, strict=True):
            post.hear(opinion, daemon)
        if opinions[0] is UNKNOWN:
            post.fail()
        for move in post.moves:
            if move.override is None:
                assert move.before is felt[-1]
                felt.append(move.after)
        post.moves.clear()

        assert felt[-1] is post.breaker.state
    assert len(felt) > 3


# Found by trying: none of these may come back.


@pytest.mark.parametrize(
    ("word", "seen", "after"),
    [
        (State.FORCED_OPEN, HEALTHY, State.CLOSED),
        (State.DISABLED, OPEN, State.OPEN),
    ],
)
def test_an_operators_word_does_not_become_what_is_ruled(word, seen, after):
    post = watching(SECOND, watchers=2)
    post.hear(seen)
    post.fail()
    post.breaker.force(Override(word, "a drill", "mia"), post.time.now)

    post.hear(UNKNOWN)
    post.breaker.resume(post.time.now)

    assert post.breaker.state is after


def test_a_minority_opens_nothing_where_it_is_only_heard():
    post = Post(THIRD, watchers=2)
    post.meet(HERE, SECOND)
    post.hear(HEALTHY, HERE)
    post.hear(UNKNOWN, SECOND)

    post.hear(OPEN, HERE)

    assert post.breaker.state is State.CLOSED


def test_what_was_advised_stays_when_one_of_two_dies():
    post = watching(SECOND, watchers=2)
    post.hear(OPEN)
    post.fail()

    post.meet(THIRD)  # who has not looked yet

    assert post.breaker.state is State.OPEN
    assert post.thought.opinion is OPEN


def test_a_reload_is_not_felt():
    post = watching(SECOND, THIRD, watchers=3)
    post.hear(HEALTHY, SECOND)
    post.hear(HEALTHY, THIRD)
    post.fail()
    post.moves.clear()
    old = post.target
    plan = replace(old.plan, policy=replace(DAEMON, window=20.0))
    breakers = {
        operation: RuledBreaker(breaker.name, plan.policy, post.time.now)
        for operation, breaker in old.breakers.items()
    }
    new = TargetBoard(plan, breakers, post.scene.clock)

    new.inherit(old)
    post.scene.board.add(new)
    post.target = new
    post.sights.look_at("main")

    assert post.breaker.state is State.CLOSED
    assert [move for move in post.moves if move.override is None] == []


def test_what_is_configured_no_more_is_thought_of_no_more():
    post = watching(SECOND)
    post.told()
    post.scene.board.remove("main")
    post.circle.can_watch(())

    post.sights.turn()

    assert post.told() == {"main/read": None, "main/write": None}
    assert post.thought.opinion is UNKNOWN


def test_what_it_takes_over_is_as_it_was_until_it_has_looked():
    post = Post(SECOND)
    post.meet(HERE)
    post.hear(HEALTHY, HERE)

    post.meet()  # the other is gone

    assert post.target.condition is Condition.UP
    post.ping()
    assert post.target.elsewhere is None
