"""Whether and when a failed call is tried again."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbreaker import CircuitOpenError, State
from pgbreaker.guard.budget import Budget
from pgbreaker.guard.decorator import retrying
from pgbreaker.guard.events import Retry
from pgbreaker.guard.outcomes import judge
from pgbreaker.guard.retry import (
    IDEMPOTENT,
    ONLY_UNREACHED,
    WHOLE_TRANSACTION,
    Retrying,
)
from unit.guard.driving import (
    CONFIG,
    Time,
    duplicate,
    lost,
    make,
    opened,
    refused,
    starved,
    succeed,
    timed_out,
)


def judged(error):
    return judge(error, 0.0, None)


def whole(ceiling=1.0):
    """Draw the longest wait."""
    return Retrying(9, 1.0, 8.0, draw=lambda: ceiling)


# Waits.


@given(
    number=st.integers(1, 100),
    base=st.floats(0, 10),
    longest=st.floats(0, 60),
    drawn=st.floats(0, 1),
)
def test_a_wait_is_drawn_from_nothing_to_the_whole(number, base, longest, drawn):
    """Full jitter: doubled for each retry, up to the longest."""
    time = Time()
    rules = Retrying(100, base, longest, draw=lambda: drawn)

    wait = rules.wait(make(time), judged(refused()), number, time())

    assert wait == min(longest, base * 2.0 ** min(number - 1, 60)) * drawn
    assert 0 <= wait <= longest


def test_waits_double_up_to_the_longest(time):
    breaker = make(time)
    waits = []
    for number in range(1, 7):
        time.passes(60.0)  # for the budget
        waits.append(whole().wait(breaker, judged(refused()), number, time()))

    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_those_who_failed_together_do_not_come_back_together(time):
    rules = retrying(CONFIG.replace(max_retry_attempts=3, base_backoff_delay=1.0))

    waits = [rules.wait(make(time), judged(refused()), 1, time()) for _ in range(100)]

    assert len(set(waits)) > 90
    assert min(waits) < 0.1
    assert max(waits) > 0.9


# How often, and how long.


def test_retries_are_as_many_as_the_rules_say(time):
    rules = Retrying(3, 1.0, 8.0)
    breaker = make(time)

    waits = [rules.wait(breaker, judged(refused()), n, time()) for n in (1, 2, 3, 4)]

    assert [wait is None for wait in waits] == [False, False, False, True]


def test_no_retries_are_made_of_rules_that_want_none():
    assert retrying(CONFIG.replace(max_retry_attempts=0)) is None


@pytest.mark.parametrize(
    ("elapsed", "is_tried"), [(0.0, True), (9.0, True), (9.1, False), (60.0, False)]
)
def test_no_retry_would_begin_after_the_deadline(elapsed, is_tried, time):
    rules = Retrying(9, 1.0, 8.0, deadline=10.0, draw=lambda: 1.0)
    begun = time()
    time.passes(elapsed)

    wait = rules.wait(make(time), judged(refused()), 1, begun)

    assert (wait is not None) == is_tried


def test_what_the_deadline_forbids_costs_no_budget(time):
    breaker = make(time)
    rules = Retrying(9, 1.0, 8.0, deadline=0.5, draw=lambda: 1.0)

    assert rules.wait(breaker, judged(refused()), 1, time()) is None
    assert (breaker.budget.spent, breaker.budget.denied) == (0, 0)


# What.


@pytest.mark.parametrize(
    ("error", "unreached", "transaction", "idempotent"),
    [
        (refused, True, True, True),
        (starved, True, True, True),
        (lost, False, False, True),
        (TimeoutError, False, False, True),
        (duplicate, False, False, False),
        (ValueError, False, False, False),
    ],
)
def test_only_what_is_safe_is_tried_again(
    error, unreached, transaction, idempotent, time
):
    asked = []
    for safe in (ONLY_UNREACHED, WHOLE_TRANSACTION, IDEMPOTENT):
        rules = Retrying(3, 1.0, 8.0, safe)
        wait = rules.wait(make(time), judged(error()), 1, time())
        asked.append(wait is not None)

    assert asked == [unreached, transaction, idempotent]


def test_a_statement_that_was_rolled_back_may_be_repeated_as_a_whole(time):
    found = judged(timed_out()).classification

    for safe in (ONLY_UNREACHED, WHOLE_TRANSACTION, IDEMPOTENT):
        wait = Retrying(3, 1.0, 8.0, safe).wait(
            make(time), judged(timed_out()), 1, time()
        )
        assert (wait is not None) == (found.retry in safe)


def test_a_refusal_is_never_tried_again(time):
    breaker = opened(time)
    try:
        breaker.acquire()
    except Exception as refusal:
        judgement = judged(refusal)

    assert Retrying(3, 1.0, 8.0, IDEMPOTENT).wait(breaker, judgement, 1, time()) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()], ids=repr)
def test_a_stopped_program_is_not_tried_again(error, time):
    rules = Retrying(3, 1.0, 8.0, IDEMPOTENT)

    assert rules.wait(make(time), judged(error), 1, time()) is None


def test_a_retry_is_counted_and_told(time, heard):
    breaker = make(time)

    whole().wait(breaker, judged(refused()), 2, time())

    assert breaker.retries == 1
    (event,) = heard
    assert event == Retry("orders", 2, 2.0, event.reason, time())
    assert event.reason == judged(refused()).classification.reason


# The budget.


def test_an_idle_application_may_make_a_few_retries():
    budget = Budget(0.1)

    assert [budget.spend(0, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert (budget.spent, budget.denied) == (5, 1)


def test_ten_calls_earn_one_retry():
    budget = Budget(0.1)
    for _ in range(5):
        budget.spend(0, 0.0)

    earned = [budget.spend(calls, 0.0) for calls in (9, 10, 19, 20, 30)]

    assert earned == [False, True, False, True, True]


def test_what_is_earned_is_not_saved_up_without_end():
    budget = Budget(0.1)
    budget.spend(0, 0.0)

    granted = [budget.spend(1_000_000, 0.0) for _ in range(10)]

    assert sum(granted) == 5


def test_time_earns_a_little():
    """So that an application with few calls is not shut out for good."""
    budget = Budget(0.1)
    for _ in range(6):
        budget.spend(0, 0.0)

    assert not budget.spend(0, 9.0)
    assert budget.spend(0, 10.5)


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=200))
def test_retries_never_exceed_the_reserve_and_a_share_of_the_calls(steps):
    budget, calls = Budget(0.1), 0
    for more, asks in steps:
        calls += more
        if asks:
            budget.spend(calls, 0.0)

    assert budget.spent <= 5 + 0.1 * calls + 1e-6


def test_calls_that_were_refused_earn_too(time):
    """They are calls that the application made."""
    breaker = make(time)
    for _ in range(5):
        whole().wait(breaker, judged(refused()), 1, time())
    assert whole().wait(breaker, judged(refused()), 1, time()) is None

    breaker.force(State.FORCED_OPEN, "a test")
    for _ in range(10):
        with suppress(CircuitOpenError):
            succeed(breaker)
    breaker.resume()

    assert whole().wait(breaker, judged(refused()), 1, time()) is not None
