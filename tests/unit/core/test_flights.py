"""The calls that are out, beside a list of them; and what a breaker makes of them."""

import itertools
import random

import pytest

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.flights import Flights
from pgbreaker.core.policy import Policy
from pgbreaker.core.states import POOL, Cause, Evidence, Outcome, State

WIDTH = 0.125


@pytest.mark.parametrize("seed", range(20))
def test_it_counts_as_a_list_of_calls_does_to_a_slices_precision(seed):
    draw, now = random.Random(seed), 0.0
    flights, out = Flights(WIDTH, 1, now), []

    for _ in range(2000):
        now += draw.choice((0.0, 1 / 64, 1 / 8, 1.0)) * draw.random()
        if now >= flights.edge:
            flights.turn(1, now)
        if draw.random() < 0.5 or not out:
            flights.slice.started += 1
            out.append((now, flights.slice))
        else:
            _, slice_ = out.pop(draw.randrange(len(out)))
            slice_.gone += 1

        age = draw.choice((0.25, 1.0, 3.0))
        ages = [now - begun for begun, _ in out]
        assert flights.out == len(out)
        # A slice is overdue when the youngest call that it can hold is; it lasts until
        # somebody looks, which is here every second at the latest.
        assert flights.overdue(age, now) <= sum(a >= age for a in ages)
        assert flights.overdue(age, now) >= sum(a >= age + WIDTH + 1.0 for a in ages)


def test_what_is_older_than_a_slice_and_the_age_is_overdue():
    flights = Flights(WIDTH, 1, 0.0)
    flights.slice.started += 3
    flights.turn(1, 0.125)
    flights.slice.started += 2
    flights.turn(1, 0.25)

    counts = [flights.overdue(0.5, now) for now in (0.6, 0.625, 0.7, 0.75)]

    assert counts == [0, 3, 3, 5]


def breaker_that_answered(times: int, **rules) -> Breaker:
    """A breaker whose calls came back so many times, evenly over eight seconds."""
    policy = Policy(slow_call=0.5, slow_rate=None, jitter=0.0, **rules)
    breaker = Breaker("orders", policy, 0.0, eras=itertools.count(1))
    for n in range(times):
        at = 8 * n / times
        if at >= breaker.edge:
            breaker.turn(at)
        breaker.flights.slice.started += 1
        breaker.flights.slice.ok += 1
    breaker.turn(8.0)
    return breaker


def hang(breaker: Breaker, calls: int) -> Cause | None:
    """Send calls that never come back, one each 40 ms; gives why it opened."""
    for n in range(calls):
        breaker.flights.slice.started += 1
        now = 8.0 + n * 0.04
        if now >= breaker.edge:
            move = breaker.turn(now)
            if move is not None:
                return move.cause
    for n in range(200):
        move = breaker.turn(now + n * 0.1)
        if move is not None:
            return move.cause
    return None


def test_calls_that_hang_open_it_and_say_how_many_and_for_how_long():
    breaker = breaker_that_answered(200)

    assert hang(breaker, 30) is Cause.HANGING
    assert breaker.reason.startswith(("5 calls have", "6 calls have", "7 calls have"))
    assert "for over 500 ms, and none came back in the last" in breaker.reason


def test_fewer_than_five_that_hang_do_not():
    assert hang(breaker_that_answered(200), 4) is None


def test_before_anything_ever_came_back_nothing_is_missed():
    assert hang(breaker_that_answered(0), 30) is None


def test_an_operation_whose_answers_are_far_apart_is_given_longer():
    """Five answers in ten seconds: ten more gaps are twenty seconds of silence."""
    assert hang(breaker_that_answered(5), 10) is None


def test_with_a_slow_rate_what_is_overdue_counts_as_slow():
    breaker = Breaker(
        "orders",
        Policy(slow_call=0.5, slow_rate=0.5, minimum_calls=10),
        0.0,
    )
    breaker.flights.slice.started += 14
    breaker.flights.slice.ok += 4
    moves = [breaker.turn(now) for now in (0.11, 0.3, 0.7)]

    assert moves[:2] == [None, None]
    assert moves[2].cause is Cause.SLOW_RATE
    assert "10 of 14 calls were slow or are overdue" in moves[2].reason


def test_without_slow_call_nothing_is_ever_overdue():
    breaker = Breaker("orders", Policy(slow_call=None), 0.0)
    breaker.flights.slice.started += 100

    assert [breaker.turn(now) for now in (2.0, 9.0, 100.0)] == [None] * 3


# The caller's own pool.


def starve(breaker: Breaker, times: int, now: float):
    move = None
    for _ in range(times):
        move = breaker.settle(
            breaker.era, Outcome.UNREACHED, now, evidence=Evidence(POOL)
        )
    return move


def test_a_pool_without_connections_opens_for_a_moment_and_blames_no_server():
    breaker = Breaker("orders", Policy(timeout=60.0, jitter=0.0), 0.0)

    assert starve(breaker, 4, 1.0) is None
    move = starve(breaker, 1, 1.0)

    assert (move.after, move.cause) == (State.OPEN, Cause.POOL_EXHAUSTED)
    assert move.retry_after == 0.25
    assert "the server was not asked" in move.reason
    assert breaker.totals["failure"] == 0


def test_trials_that_find_no_connection_either_wait_no_longer_for_that():
    breaker = Breaker("orders", Policy(timeout=60.0, jitter=0.0), 0.0)
    starve(breaker, 5, 1.0)
    for _ in range(3):
        permit = breaker.admit(2.0)
        move = breaker.settle(
            permit.token, Outcome.UNREACHED, 2.0, evidence=Evidence(POOL)
        )

    assert (move.cause, move.retry_after) == (Cause.BARREN, 0.5)


def test_the_first_trial_that_finds_one_closes_it():
    breaker = Breaker("orders", Policy(success_threshold=3, ramp=5.0), 0.0)
    starve(breaker, 5, 1.0)
    move = breaker.settle(breaker.admit(2.0).token, Outcome.SUCCESS, 2.0)

    assert (move.after, move.cause) == (State.CLOSED, Cause.RECOVERED)
    assert breaker.edge > 2.0


def test_one_connection_in_between_ends_the_want():
    breaker = Breaker("orders", Policy(), 0.0)
    starve(breaker, 4, 1.0)
    breaker.settle(breaker.era, Outcome.SUCCESS, 1.0)

    assert starve(breaker, 4, 1.0) is None


def test_other_calls_that_never_left_do_not_count_towards_it():
    breaker = Breaker("orders", Policy(), 0.0)

    moves = [
        breaker.settle(
            breaker.era, Outcome.UNREACHED, 1.0, evidence=Evidence("transient")
        )
        for _ in range(50)
    ]

    assert moves == [None] * 50


def test_held_it_asks_for_each_call_and_lets_it_pass():
    breaker = Breaker("orders", Policy(), 0.0)
    breaker.hold(True)

    assert breaker.edge < 0
    assert breaker.admit(1.0).token == breaker.era
    breaker.hold(False)
    assert breaker.edge > 0
