"""Advice: what a breaker makes of it, by the table and by long random lives."""

import itertools
import random

import pytest

from pgbreaker.core.advice import Advice, Opinion, Version, Word, read
from pgbreaker.core.advised import AdvisedBreaker
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.merge import MERGE, Effect, Local, merge
from pgbreaker.core.policy import Policy
from pgbreaker.core.states import (
    MOVES,
    POOL,
    Cause,
    Evidence,
    Outcome,
    Override,
    Permit,
    Refusal,
    State,
)

POLICY = Policy(minimum_calls=4, failure_threshold=3, success_threshold=2, timeout=30.0)
OK, BAD = Outcome.SUCCESS, Outcome.FAILURE
LEASE = 6.0


def advice(opinion=Opinion.OPEN, seq=1, *, epoch=1, definite=False, word=None):
    return Advice(
        breaker="main/read",
        opinion=opinion,
        version=Version(epoch, seq),
        lease=LEASE,
        reason="connection refused",
        is_definite=definite,
        word=word,
    )


def made(policy=POLICY, draw=0.5):
    return AdvisedBreaker(
        "app", policy, 0.0, draw=lambda: draw, eras=itertools.count(1)
    )


def call(breaker, outcome, now):
    """Make a call, if it is let in; gives what was answered."""
    answer = breaker.admit(now)
    if isinstance(answer, Permit):
        breaker.settle(answer.token, outcome, now)
    return answer


def refused(breaker, now):
    return isinstance(call(breaker, OK, now), Refusal)


# The table.


def test_the_table_says_something_of_everything():
    assert set(MERGE) == set(itertools.product(Opinion, Local))


@pytest.mark.parametrize(("opinion", "local"), MERGE)
def test_advice_shuts_only_who_knows_no_better_and_never_closes(opinion, local):
    effect = merge(advice(opinion), local)

    if effect is Effect.SHUT:
        assert (opinion, local) == (Opinion.OPEN, Local.UNSURE)
    if local in (Local.OPEN, Local.TRYING):
        assert effect in (Effect.NONE, Effect.HASTEN)
    if opinion is Opinion.UNKNOWN:
        assert effect is Effect.NONE


def test_what_the_server_said_itself_beats_calls_that_went_well_before():
    definite = advice(definite=True)

    assert merge(definite, Local.SURE) is Effect.SHUT
    assert merge(definite, Local.PROVEN) is Effect.DISAGREE


# One row after the other, as callers feel it.


def test_open_advice_shuts_a_breaker_that_has_seen_little():
    breaker = made()

    (move,) = breaker.advise(advice(), 1.0)

    assert (move.before, move.after) == (State.CLOSED, State.OPEN)
    assert move.cause is Cause.ADVISED
    assert move.reason == "advised: main/read is open (connection refused)"
    assert move.leaves_closed
    assert (breaker.state, breaker.computed_state) == (State.OPEN, State.CLOSED)
    assert not breaker.passes
    answer = breaker.admit(1.1)
    assert isinstance(answer, Refusal)
    assert answer.reason == move.reason
    assert answer.opened_at == 1.0
    assert 0 < answer.retry_after <= 1.0


def test_one_call_a_second_finds_out_while_advice_alone_refuses_them():
    """What a health check takes away must still be able to come back."""
    breaker = made()
    breaker.advise(advice(), 0.0)

    let_in = [
        tick / 10
        for tick in range(50)
        if not isinstance(breaker.admit(tick / 10), Refusal)
    ]

    assert let_in == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5])


def test_own_calls_that_went_well_of_late_go_first():
    breaker = made()
    for tick in range(4):
        call(breaker, OK, tick / 10)

    assert breaker.advise(advice(), 1.0) == ()
    assert breaker.state is State.CLOSED
    assert breaker.disagrees(1.0)
    assert breaker.gate > 0  # and nobody has to ask


def test_when_they_are_long_past_advice_goes_first_again():
    breaker = made()
    for tick in range(4):
        call(breaker, OK, tick / 10)
    breaker.advise(advice(), 1.0)

    moves = [breaker.advise(advice(), float(second)) for second in range(2, 12)]

    assert [move.cause for (move,) in filter(None, moves)] == [Cause.ADVISED]


def test_definite_advice_goes_before_them():
    breaker = made()
    for tick in range(4):
        call(breaker, OK, tick / 10)

    breaker.advise(advice(definite=True), 1.0)

    assert breaker.state is State.OPEN


def test_calls_that_find_it_well_close_it_against_advice():
    breaker = made()
    breaker.advise(advice(definite=True), 0.0)
    assert not refused(breaker, 0.5)
    assert refused(breaker, 0.6)
    assert not refused(breaker, 1.5)

    move = breaker.turn(1.6)

    assert move is not None
    assert (move.before, move.after) == (State.OPEN, State.CLOSED)
    assert move.cause is Cause.WITHDRAWN
    assert move.reason == "own calls went well, against what main/read says"
    assert breaker.disagrees(1.6)
    assert not refused(breaker, 1.7)


def test_calls_that_find_it_ill_open_it_by_itself():
    breaker = made()
    breaker.advise(advice(), 0.0)
    left = breaker.left_closed
    for now in (0.5, 1.5, 2.5):
        breaker.advise(advice(), now)
        call(breaker, BAD, now)

    assert breaker.computed_state is State.OPEN
    assert breaker.cause is Cause.FAILURE_RUN
    assert not breaker.is_advised
    assert breaker.left_closed == left  # callers have felt it since then


def test_a_lease_that_ends_leaves_nothing():
    breaker = made()
    breaker.advise(advice(), 0.0)

    assert breaker.lapse(LEASE - 0.01) is None
    move = breaker.lapse(LEASE)

    assert move is not None
    assert move.cause is Cause.WITHDRAWN
    assert move.reason.startswith("nobody says so any more")
    assert breaker.state is State.CLOSED
    assert not refused(breaker, LEASE)


def test_whoever_says_it_again_has_it_last():
    breaker = made()
    for second in range(20):
        breaker.advise(advice(), float(second))

    assert breaker.lapse(24.9) is None
    assert breaker.lapse(25.0) is not None


def test_older_advice_is_let_be():
    breaker = made()
    breaker.advise(advice(seq=5), 0.0)

    assert breaker.advise(advice(Opinion.HEALTHY, seq=4), 0.1) == ()
    assert breaker.state is State.OPEN
    breaker.advise(advice(Opinion.HEALTHY, seq=0, epoch=2), 0.2)  # it was restarted
    assert breaker.lapse(5.0) is not None
    assert breaker.state is State.CLOSED


def test_a_fleet_comes_back_one_after_the_other():
    breaker = made(draw=0.5)
    breaker.advise(advice(), 0.0, spread=4.0)

    assert breaker.advise(advice(Opinion.HEALTHY, seq=2), 1.0, spread=4.0) == ()
    assert breaker.lapse(2.9) is None
    assert breaker.lapse(3.0) is not None


def test_healthy_has_an_open_breaker_try_sooner_and_closes_nothing():
    breaker = made()
    for tick in range(3):
        call(breaker, BAD, tick / 10)
    assert breaker.until > 30.0

    breaker.advise(advice(Opinion.HEALTHY), 1.0)

    assert breaker.state is State.OPEN
    assert breaker.until == 1.5
    # Once: that it is said again does not undo what the trial finds.
    call(breaker, BAD, 1.5)
    breaker.advise(advice(Opinion.HEALTHY), 2.0)
    assert breaker.until > 30.0


def test_want_of_a_pooled_connection_is_no_business_of_the_daemons():
    breaker = made()
    starved = Evidence(POOL)
    while breaker.state is State.CLOSED:
        permit = breaker.admit(0.0)
        breaker.settle(permit.token, Outcome.UNREACHED, 0.0, evidence=starved)
    until = breaker.until

    breaker.advise(advice(Opinion.HEALTHY), 0.01)

    assert breaker.until == until


def test_own_recovery_stands_against_advice():
    breaker = made(Policy(success_threshold=1, failure_threshold=1, timeout=1.0))
    call(breaker, BAD, 0.0)
    breaker.advise(advice(), 0.5)
    call(breaker, OK, 2.0)

    assert breaker.state is State.CLOSED
    breaker.advise(advice(), 2.1)
    assert breaker.state is State.CLOSED
    assert breaker.disagrees(2.1)


# Operators of the fleet.


def word(state=State.FORCED_OPEN, left=60.0):
    return Word(state, "disk is being replaced", "mia", left)


def test_the_word_of_the_fleet_goes_before_the_machine_and_behind_the_word_here():
    breaker = made()

    breaker.advise(advice(Opinion.HEALTHY, word=word()), 0.0)
    assert breaker.state is State.FORCED_OPEN
    breaker.force(Override(State.CLOSED, "not here", "app"), 1.0)
    assert breaker.state is State.CLOSED
    move = breaker.resume(2.0)

    assert move is not None
    assert move.after is State.FORCED_OPEN
    assert breaker.resume(3.0) is None  # which is not ended here
    assert breaker.state is State.FORCED_OPEN


def test_who_is_shut_by_whomever_does_not_disagree():
    """The metric says that it stays closed though others think otherwise."""
    breaker = made(draw=0.9)
    for tick in range(4):
        call(breaker, OK, tick / 10)
    breaker.advise(advice(), 1.0)
    stays_closed = breaker.disagrees(1.0)
    breaker.force(Override(State.FORCED_OPEN, "drill", "mia"), 1.1)

    assert stays_closed
    assert not breaker.disagrees(1.1)
    breaker.resume(1.2)
    assert breaker.disagrees(1.2)


@pytest.mark.parametrize(
    "order", list(itertools.permutations(("here", "fleet", "advice")))
)
def test_in_whatever_order_they_come_the_nearest_goes_first(order):
    """And each is there when what stood before it has ended."""
    breaker = made()
    said = {"opinion": Opinion.HEALTHY, "word": None}
    for step, one in enumerate(order):
        now = step / 10
        if one == "here":
            breaker.force(Override(State.CLOSED, "not here", "app", 5.0), now)
            continue
        said |= {"word": word(left=8.0)} if one == "fleet" else {"opinion": "open"}
        breaker.advise(advice(Opinion(said["opinion"]), step, word=said["word"]), now)
    states = []
    for now in (1.0, 5.0, 5.9):
        breaker.lapse(now)
        states.append(breaker.state)
    said = advice(Opinion.OPEN, 9)
    breaker.advise(said, 6.0)
    states.append(breaker.state)

    assert states == [State.CLOSED, State.FORCED_OPEN, State.FORCED_OPEN, State.OPEN]


def test_it_outlives_who_passed_it_on_but_not_its_own_end():
    breaker = made()
    breaker.advise(advice(Opinion.HEALTHY, word=word(left=20.0)), 0.0)

    assert breaker.lapse(LEASE + 1) is None
    assert breaker.state is State.FORCED_OPEN
    assert breaker.lapse(20.0) is not None
    assert breaker.state is State.CLOSED


def test_it_ends_when_it_is_handed_back_elsewhere_and_is_told_once():
    breaker = made()
    (first,) = breaker.advise(advice(Opinion.HEALTHY, word=word()), 0.0)
    again = breaker.advise(advice(Opinion.HEALTHY, word=word(left=59.0)), 1.0)
    (last,) = breaker.advise(advice(Opinion.HEALTHY, seq=2), 2.0)

    assert first.cause is Cause.OVERRIDDEN
    assert again == ()
    assert last.cause is Cause.RESUMED
    assert breaker.override is None


# Long lives.


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_said_no_rule_of_it_breaks(seed):
    """A daemon that lies, dies, comes back, repeats itself, at random."""
    chance = random.Random(seed)
    policy = Policy(
        minimum_calls=3,
        failure_threshold=2,
        success_threshold=2,
        timeout=2.0,
        window=5.0,
    )
    breaker = AdvisedBreaker("app", policy, 0.0, draw=chance.random)
    felt, now, said, last_in, moves = State.CLOSED, 0.0, None, 0.0, []
    versions = itertools.count(1)
    for _ in range(2_000):
        now += chance.choice((0.01, 0.1, 0.5, 2.0))
        match chance.randrange(6):
            case 0:
                opinion = chance.choice(list(Opinion))
                said = advice(opinion, next(versions), definite=chance.random() < 0.2)
                moves += breaker.advise(said, now)
            case 1 if said is not None:
                moves += breaker.advise(said, now)
            case 2:
                moves.append(breaker.lapse(now))
            case _:
                moves.append(breaker.turn(now))
                answer = breaker.admit(now)
                moves.append(answer.move)
                if isinstance(answer, Permit):
                    last_in = now
                    outcome = OK if chance.random() < 0.7 else BAD
                    moves.append(breaker.settle(answer.token, outcome, now))
                elif breaker.is_advised:
                    # There is a way in at least once a second.
                    assert answer.retry_after <= 1.0
        for move in filter(None, moves):
            is_machines = (move.before, move.cause) in MOVES
            was_advised = felt is State.OPEN and move.before is State.CLOSED
            assert move.before is felt or (is_machines and was_advised)
            felt = move.after
        moves.clear()
        assert breaker.state is felt
        assert breaker.is_advised is (felt is not breaker.computed_state)
    assert last_in > 0


@pytest.mark.parametrize("seed", range(20))
def test_without_a_lease_it_is_the_plain_breaker(seed):
    """One that is advised of nothing but what has ended is the twin of one that is not."""
    chance = random.Random(seed)
    advised = AdvisedBreaker("app", POLICY, 0.0, draw=lambda: 0.5)
    plain = Breaker("app", POLICY, 0.0, draw=lambda: 0.5)
    now = 0.0
    for step in range(1_000):
        now += chance.choice((0.01, 0.3, 1.0, 40.0))
        if step % 7 == 0:
            said = advice(chance.choice((Opinion.UNKNOWN, Opinion.OPEN)), step)
            quiet = Advice(
                breaker=said.breaker,
                opinion=said.opinion,
                version=said.version,
                lease=0.0,
            )
            assert advised.advise(quiet, now) == ()
        outcome = chance.choice((OK, OK, BAD, Outcome.IGNORED, Outcome.CUT))
        answers = [call(one, outcome, now) for one in (advised, plain)]
        assert [type(answer) for answer in answers] == [type(answers[1])] * 2
        assert advised.state is plain.state
        assert advised.counts(now) == plain.counts(now)
        assert advised.until == plain.until


# What comes from outside.


def test_what_is_written_is_read():
    said = advice(definite=True, word=word())

    assert read(said.written()) == said


@pytest.mark.parametrize(
    "change",
    [
        {"opinion": "maybe"},
        {"version": {"epoch": "x", "seq": 1}},
        {"version": {"epoch": "1", "seq": True}},
        {"version": {"epoch": "1", "seq": -1}},
        {"version": None},
        {"lease_seconds": "6"},
        {"lease_seconds": float("nan")},
        {"lease_seconds": -1},
        {"breaker": None},
        {"reason": 7},
        {"override": {"state": "open", "reason": "", "author": "", "seconds_left": 1}},
        {"override": {"state": "closed"}},
        {"override": []},
    ],
)
def test_what_is_no_advice_is_refused(change):
    with pytest.raises(ValueError, match=r"no advice|is not a valid"):
        read(advice().written() | change)


def test_nobody_is_believed_for_long():
    said = advice(word=word(left=1e9)).written() | {"lease_seconds": 1e9}

    taken = read(said)

    assert taken.lease == 60.0
    assert taken.word is not None
    assert taken.word.left == 31 * 86400.0
    with pytest.raises(ValueError, match="no advice"):
        read(["advice"])
