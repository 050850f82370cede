"""A breaker over which several daemons rule: without a ruling it is a breaker; with one,
what is told of it is what callers feel, at each moment."""

import itertools
import random
from dataclasses import dataclass, field

import pytest

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.states import (
    OVERRIDES,
    SHUT,
    Cause,
    Evidence,
    Outcome,
    Override,
    State,
    Transition,
)

FULL = Evidence("full", "sorry, too many clients already", "53300", "login")
RULINGS = (State.OPEN, State.CLOSED, None)


def made(kind: type[Breaker] = RuledBreaker) -> Breaker:
    return kind("main/read", DAEMON, 100.0, draw=lambda: 0.5, eras=itertools.count(1))


def ruled() -> RuledBreaker:
    breaker = made()
    assert isinstance(breaker, RuledBreaker)
    return breaker


def fail(breaker: Breaker, now: float) -> tuple[Transition, ...]:
    return breaker.observe(Outcome.FAILURE, now, confirmed=True, evidence=FULL)


def recover(breaker: Breaker, now: float) -> tuple[Transition, ...]:
    moves = [breaker.advance(now)]
    for _ in range(DAEMON.success_threshold):
        moves += breaker.observe(Outcome.SUCCESS, now)
    return tuple(move for move in moves if move is not None)


def step(breaker: Breaker, chance: random.Random, now: float) -> list[Transition]:
    """Do something that moves a breaker, or may; *chance* says what."""
    what, outcome = chance.randrange(11), chance.choice((*Outcome, Outcome.SUCCESS))
    confirmed, slow = chance.random() < 0.2, chance.random() < 0.2
    moves: list[Transition | None] = []
    if what < 7:
        failed = outcome is Outcome.FAILURE
        moves += breaker.observe(
            outcome,
            now,
            slow=slow,
            confirmed=confirmed and failed,
            evidence=FULL if failed else None,
        )
    elif what < 9:
        moves.append(breaker.advance(now))
    elif what == 9:
        until = chance.choice((None, now + 3))
        word = Override(chance.choice(OVERRIDES), "as agreed", "mia", until)
        moves.append(breaker.force(word, now))
    else:
        moves.append(breaker.resume(now))
    return [move for move in moves if move is not None]


def remember(breaker: Breaker, chance: random.Random, now: float) -> None:
    """Have a breaker be as it was a while ago, elsewhere."""
    away = chance.choice((0.0, 0.5, 100.0))
    breaker.recall(breaker.memory(now), now, away)


@pytest.mark.parametrize("seed", range(10))
def test_without_a_ruling_it_is_a_breaker(seed):
    ours, theirs, now = ruled(), made(Breaker), 100.0
    one, other, waits = (random.Random(seed) for _ in range(3))
    for _ in range(400):
        now += waits.choice((0.0, 0.25, 1.0, 5.0))

        if waits.random() < 0.05:
            remember(ours, one, now)
            remember(theirs, other, now)
        assert step(ours, one, now) == step(theirs, other, now)
        assert ours.memory(now) == theirs.memory(now)
        snapshot = ours.snapshot(now)
        assert snapshot.pop("ruling") is None
        assert snapshot == theirs.snapshot(now)
        assert ours.explain(now) == theirs.explain(now)
        assert ours.left_closed == theirs.left_closed
        assert (ours.gate, ours.edge) == (theirs.gate, theirs.edge)


@dataclass
class Caller:
    """Who hears only what is told.

    Attributes:
        felt: What the breaker is, by that.
        left_closed: When it last ceased to let calls pass, by that.
    """

    felt: State
    left_closed: float | None = None
    heard: list[Transition] = field(default_factory=list)

    def hear(self, *moves: Transition) -> None:
        for move in moves:
            self.heard.append(move)
            if move.override is not None:
                continue
            assert move.before is self.felt, move
            self.felt = move.after
            if move.after in SHUT and move.before not in SHUT:
                self.left_closed = move.at


@pytest.mark.parametrize("seed", range(20))
def test_what_is_told_is_what_callers_feel(seed):
    """Replayed, the moves that callers feel lead to the state at each moment: with rulings
    and operators' words that come and go, and memories of elsewhere in between."""
    chance, now, breaker = random.Random(seed), 100.0, ruled()
    same, machine, caller = random.Random(), made(Breaker), Caller(State.CLOSED)
    for _ in range(500):
        now += chance.choice((0.0, 0.25, 1.0, 5.0))
        what = chance.random()
        same.setstate(chance.getstate())
        if what < 0.3:
            move = breaker.rule(chance.choice(RULINGS), f"at {now}", now)
            caller.hear(*([] if move is None else [move]))
        elif what < 0.35:  # of which nobody is told
            remember(breaker, chance, now)
            remember(machine, same, now)
            caller.felt, caller.left_closed = breaker.state, breaker.left_closed
        else:
            caller.hear(*step(breaker, chance, now))
            step(machine, same, now)

        assert caller.felt is breaker.state
        assert caller.left_closed == breaker.left_closed
        assert breaker.computed_state is machine.computed_state
        assert breaker.passes == (breaker.state not in SHUT)
        if breaker.override is None and breaker.ruling is not None:
            assert breaker.state is breaker.ruling.state
            assert breaker.refusing_because(now) == breaker.ruling.because
            assert breaker.refusing_since == breaker.ruling.since
    assert {Cause.AGREED, Cause.OUTVOTED} < {move.cause for move in caller.heard}


def test_the_machine_goes_on_behind_a_ruling_and_callers_feel_nothing():
    breaker = ruled()
    breaker.rule(State.CLOSED, "1 of 3 daemons see it open (2 needed)", 101)

    (opened,) = fail(breaker, 102)

    assert (opened.before, opened.after) == (State.CLOSED, State.OPEN)
    assert opened.override is State.CLOSED
    assert not opened.leaves_closed
    assert breaker.computed_state is State.OPEN
    assert breaker.state is State.CLOSED
    assert breaker.left_closed is None
    assert breaker.retry_after(102) == 0
    assert [m.override for m in recover(breaker, 200)] == [State.CLOSED] * 2


def test_a_ruling_opens_and_closes_it():
    breaker = ruled()

    opened = breaker.rule(State.OPEN, "2 of 3 daemons see it open (2 needed)", 101)
    again = breaker.rule(State.OPEN, "3 of 3 daemons see it open (2 needed)", 102)
    closed = breaker.rule(State.CLOSED, "1 of 3 daemons see it open (2 needed)", 103)

    assert opened is not None
    assert (opened.after, opened.cause) == (State.OPEN, Cause.AGREED)
    assert opened.leaves_closed
    assert again is None
    assert closed is not None
    assert (closed.after, closed.cause) == (State.CLOSED, Cause.OUTVOTED)
    assert breaker.left_closed == 101


def test_that_more_say_so_by_now_is_shown_and_its_beginning_stays():
    breaker = ruled()
    breaker.rule(State.OPEN, "2 of 3 daemons see it open", 101)

    breaker.rule(State.OPEN, "3 of 3 daemons see it open", 105)

    assert breaker.refusing_since == 101
    assert "3 of 3 daemons see it open" in breaker.explain(105)
    assert breaker.snapshot(105)["ruling"] == {
        "state": "open",
        "because": "3 of 3 daemons see it open",
    }


def test_one_that_says_what_the_machine_does_is_no_move():
    breaker = ruled()
    fail(breaker, 101)

    assert breaker.rule(State.OPEN, "2 of 2 daemons see it open", 101) is None
    assert breaker.rule(None, "on its own", 102) is None
    assert breaker.state is State.OPEN


def test_an_operators_word_goes_before_a_ruling():
    breaker = ruled()
    breaker.rule(State.OPEN, "2 of 2 daemons see it open", 101)

    forced = breaker.force(Override(State.DISABLED, "as agreed", "mia"), 102)
    hidden = breaker.rule(State.CLOSED, "0 of 2 daemons see it open", 103)
    back = breaker.rule(State.OPEN, "2 of 2 daemons see it open", 104)
    resumed = breaker.resume(105)

    assert (forced.before, forced.after) == (State.OPEN, State.DISABLED)
    assert hidden is None
    assert back is None
    assert resumed is not None
    assert (resumed.before, resumed.after) == (State.DISABLED, State.OPEN)
    assert breaker.left_closed == 105


def test_a_memory_of_elsewhere_leaves_the_ruling():
    elsewhere, breaker = ruled(), ruled()
    fail(elsewhere, 101)
    breaker.rule(State.CLOSED, "1 of 3 daemons see it open (2 needed)", 101)

    breaker.recall(elsewhere.memory(101), 102, 1.0)

    assert breaker.state is State.CLOSED
    assert breaker.computed_state is State.OPEN


def test_it_says_what_holds_and_what_it_would_do_here():
    breaker = ruled()
    breaker.rule(State.CLOSED, "1 of 3 daemons see it open (2 needed)", 101)
    fail(breaker, 101)

    text = breaker.explain(101.5)

    assert text.startswith(
        "breaker 'main/read' is closed: 1 of 3 daemons see it open (2 needed); here it is"
    )
    assert "open for 500 ms" in text


def test_a_word_before_a_ruling_is_told_with_what_stands_behind_it():
    breaker = ruled()
    breaker.rule(State.OPEN, "2 of 2 daemons see it open", 101)
    breaker.force(Override(State.DISABLED, "as agreed", "mia"), 102)

    assert "disabled by mia (as agreed)" in breaker.explain(103)
    assert breaker.refusing_since == 102
