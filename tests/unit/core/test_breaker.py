"""The breaker, claim by claim; test_model.py walks everything in between."""

import itertools

import pytest

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.policy import Policy
from pgbreaker.core.states import (
    MOVES,
    PASS,
    Cause,
    Evidence,
    Outcome,
    Override,
    Permit,
    Refusal,
    State,
)

OK, FAILED, CUT = Outcome.SUCCESS, Outcome.FAILURE, Outcome.CUT
POLICY = Policy(
    minimum_calls=4,
    failure_threshold=None,
    success_threshold=2,
    timeout=30.0,
    jitter=0.0,
    slow_call=0.5,
)


def make(policy: Policy = POLICY, *, draw=lambda: 0.0) -> Breaker:
    return Breaker("orders", policy, 0.0, draw=draw, eras=itertools.count(1))


def with_(**rules) -> Policy:
    return Policy(**{name: getattr(POLICY, name) for name in POLICY.__slots__} | rules)


def call(breaker: Breaker, outcome: Outcome, now: float, *, slow: bool = False):
    permit = breaker.admit(now)
    assert isinstance(permit, Permit)
    return breaker.settle(permit.token, outcome, now, slow=slow)


def opened(policy: Policy = POLICY, *, now: float = 1.0, **more) -> Breaker:
    breaker = make(policy, **more)
    for _ in range(policy.minimum_calls):
        call(breaker, FAILED, now)
    assert breaker.state is State.OPEN
    return breaker


# Opening.


def test_it_opens_at_the_failure_rate_and_says_with_which_numbers():
    breaker = make()
    call(breaker, OK, 1)
    call(breaker, OK, 1)
    call(breaker, FAILED, 1)

    move = call(breaker, FAILED, 1)

    assert (move.before, move.after, move.cause) == (
        State.CLOSED,
        State.OPEN,
        Cause.FAILURE_RATE,
    )
    assert move.reason == "2 of 4 calls failed in the last 10.0 s (50 %, limit 50 %)"


def test_below_the_minimum_of_calls_no_rate_opens():
    breaker = make()

    assert [call(breaker, FAILED, 1) for _ in range(3)] == [None] * 3


def test_a_success_never_opens():
    """Good news arriving while the rate stands above the limit changes nothing."""
    breaker = make(with_(minimum_calls=3))
    call(breaker, FAILED, 1)
    call(breaker, FAILED, 1)

    assert call(breaker, OK, 1) is None
    assert breaker.state is State.CLOSED


def test_failures_in_a_row_open_where_calls_are_few():
    breaker = make(with_(failure_threshold=3, minimum_calls=100))
    for outcome in (FAILED, FAILED, OK, FAILED, FAILED):
        assert call(breaker, outcome, 1) is None

    move = call(breaker, FAILED, 1)

    assert move.cause is Cause.FAILURE_RUN
    assert move.reason == "3 failures in a row"


def test_slow_calls_open_though_they_succeed():
    breaker = make(with_(slow_rate=0.75))
    call(breaker, OK, 1)
    call(breaker, OK, 1, slow=True)
    call(breaker, OK, 1, slow=True)

    move = call(breaker, OK, 1, slow=True)

    assert move.cause is Cause.SLOW_RATE
    assert move.reason == "3 of 4 calls were slow in the last 10.0 s (75 %, limit 75 %)"


@pytest.mark.parametrize(
    "outcome", [Outcome.IGNORED, Outcome.UNREACHED, Outcome.RELEASED]
)
def test_what_says_nothing_of_the_server_is_not_in_the_denominator(outcome):
    breaker = make()
    for _ in range(100):
        call(breaker, outcome, 1)
    for _ in range(3):
        call(breaker, FAILED, 1)

    assert breaker.window.counts().total == 3
    assert call(breaker, FAILED, 1).after is State.OPEN


def test_a_call_cut_off_after_it_was_slow_is_a_failure():
    """Else a hang that callers walk away from never opens anything."""
    breaker = make()
    for _ in range(3):
        call(breaker, CUT, 1)

    assert call(breaker, CUT, 1).after is State.OPEN
    assert breaker.totals["cut"] == 4


def test_what_the_window_forgot_does_not_open():
    breaker = make()
    for _ in range(3):
        call(breaker, FAILED, 1)

    assert call(breaker, FAILED, 12) is None
    assert breaker.window.counts().total == 1


def test_the_last_failure_is_kept_as_words_not_as_an_object():
    breaker = make(with_(minimum_calls=1))
    evidence = Evidence("transient", "the database system is starting up", "57P03")

    move = breaker.settle(breaker.gate, FAILED, 1, evidence=evidence)

    assert move.evidence == evidence
    assert move.reason.endswith(", last 57P03 the database system is starting up")


# Staying open.


def test_while_open_calls_are_refused_with_the_reason_and_the_time_left():
    breaker = opened()

    refusal = breaker.admit(11.0)

    assert isinstance(refusal, Refusal)
    assert refusal.retry_after == 20.0
    assert refusal.reason == breaker.admit(12.0).reason
    assert breaker.totals["rejected"] == 2


def test_repeated_openings_double_up_to_the_longest():
    breaker = opened(with_(timeout=1.0, max_timeout=3.0))
    waits, now = [breaker.retry_after(1.0)], 1.0
    for _ in range(3):
        now += 100.0
        call(breaker, FAILED, now)  # the trial
        waits.append(breaker.retry_after(now))

    assert waits == [1.0, 2.0, 3.0, 3.0]


def test_jitter_is_drawn_once_and_only_upward():
    draws = iter([0.5])
    breaker = opened(with_(jitter=0.4), draw=lambda: next(draws))

    assert breaker.retry_after(1.0) == pytest.approx(36.0)
    assert breaker.retry_after(2.0) == pytest.approx(35.0)


def test_the_servers_own_hint_lengthens_an_opening():
    breaker = make(with_(minimum_calls=1))

    move = breaker.settle(
        breaker.gate, FAILED, 1, evidence=Evidence("transient", hint=90.0)
    )

    assert move.retry_after == 90.0


def test_flapping_is_remembered_past_a_close_and_forgotten_by_the_window():
    breaker = opened(with_(success_threshold=1))
    call(breaker, OK, 100.0)  # closed again
    for _ in range(4):
        call(breaker, FAILED, 101.0)
    flapped = breaker.retry_after(101.0)
    call(breaker, OK, 200.0)
    for _ in range(4):
        call(breaker, FAILED, 221.0)  # after two healthy windows

    assert flapped == 60.0
    assert breaker.retry_after(221.0) == 30.0


# Half-open.


def test_the_first_call_after_the_wait_is_a_trial_without_any_timer():
    breaker = opened()
    assert breaker.is_due(31.0)
    assert breaker.state is State.OPEN

    permit = breaker.admit(31.0)

    assert isinstance(permit, Permit)
    assert permit.trial
    assert permit.move.cause is Cause.COOLED
    assert breaker.state is State.HALF_OPEN


def test_of_a_thousand_waiting_callers_one_gets_the_trial():
    breaker = opened()

    answers = [breaker.admit(31.0) for _ in range(1000)]

    assert sum(isinstance(answer, Permit) for answer in answers) == 1


def test_enough_trials_in_a_row_close():
    breaker = opened()

    assert call(breaker, OK, 31.0) is None
    move = call(breaker, OK, 32.0)

    assert (move.after, move.cause) == (State.CLOSED, Cause.RECOVERED)
    assert breaker.window.counts().total == 0


@pytest.mark.parametrize(
    ("outcome", "slow"), [(FAILED, False), (CUT, False), (OK, True)]
)
def test_one_bad_trial_opens_again(outcome, slow):
    breaker = opened()

    move = call(breaker, outcome, 31.0, slow=slow)

    assert (move.after, move.cause) == (State.OPEN, Cause.RELAPSED)


@pytest.mark.parametrize(
    "outcome", [Outcome.RELEASED, Outcome.IGNORED, Outcome.UNREACHED]
)
def test_a_trial_that_tells_nothing_gives_its_place_back(outcome):
    breaker = opened()
    call(breaker, outcome, 31.0)

    assert isinstance(breaker.admit(31.0), Permit)


def test_trials_that_never_reach_the_server_open_again_in_the_end():
    breaker = opened()
    call(breaker, Outcome.UNREACHED, 31.0)
    call(breaker, Outcome.UNREACHED, 31.0)

    move = call(breaker, Outcome.RELEASED, 31.0)

    assert (move.after, move.cause) == (State.OPEN, Cause.BARREN)


def test_a_trial_that_never_comes_back_counts_as_failed():
    breaker = opened()
    breaker.admit(31.0)

    refusal = breaker.admit(31.0 + POLICY.lease)

    assert isinstance(refusal, Refusal)
    assert refusal.move.cause is Cause.EXPIRED


def test_only_the_holder_of_a_trial_gives_its_place_back():
    breaker = opened()
    trial = breaker.admit(31.0)

    breaker.settle(trial.token + 1000, Outcome.RELEASED, 31.0)

    assert isinstance(breaker.admit(31.0), Refusal)


def test_after_closing_calls_are_let_in_bit_by_bit():
    shares = iter([0.99, 0.05, 0.6, 0.5])
    breaker = opened(
        with_(ramp=10.0, success_threshold=1, jitter=0.0), draw=lambda: 0.0
    )
    breaker._draw = lambda: next(shares)
    call(breaker, OK, 31.0)

    answers = [
        isinstance(breaker.admit(now), Permit) for now in (31.0, 31.0, 36.0, 36.0)
    ]

    assert answers == [False, True, False, True]
    assert isinstance(breaker.admit(41.0), Permit)
    assert breaker.gate > 0


# Results of another time.


def test_late_success_from_before_opening_does_not_close():
    """
    A slow query that began while closed and ends well after we opened is no
    evidence about the server now.
    """
    breaker = make()
    slow = breaker.admit(0.0)
    for _ in range(4):
        call(breaker, FAILED, 1.0)
    breaker.advance(31.0)

    assert breaker.settle(slow.token, OK, 32.0) is None
    assert breaker.state is State.HALF_OPEN
    assert breaker.totals["late"] == 1


def test_late_failure_from_before_does_not_reopen():
    breaker = make(with_(success_threshold=1, minimum_calls=1))
    slow = breaker.admit(0.0)
    call(breaker, FAILED, 1.0)
    call(breaker, OK, 31.0)

    assert breaker.settle(slow.token, FAILED, 32.0) is None
    assert breaker.state is State.CLOSED


# Operators.


def test_forced_open_refuses_with_the_operators_words():
    breaker = make()

    move = breaker.force(Override(State.FORCED_OPEN, "failover", "ana", 600.0), 0.0)
    refusal = breaker.admit(60.0)

    assert (move.before, move.after) == (State.CLOSED, State.FORCED_OPEN)
    assert refusal.state is State.FORCED_OPEN
    assert refusal.reason == "forced_open by ana (failover), for another 9 min 0 s"
    assert breaker.computed_state is State.CLOSED


def test_an_override_ends_by_itself():
    breaker = make()
    breaker.force(Override(State.FORCED_OPEN, "failover", "ana", 600.0), 0.0)

    permit = breaker.admit(600.0)

    assert isinstance(permit, Permit)
    assert permit.move.cause is Cause.RESUMED
    assert permit.move.reason == "the override by ana ran out"


def test_disabled_passes_and_records_nothing():
    breaker = make()
    breaker.force(Override(State.DISABLED, "noise", "ana"), 0.0)

    for _ in range(10):
        permit = breaker.admit(1.0)
        assert permit.token == PASS
        breaker.settle(permit.token, FAILED, 1.0)

    assert breaker.window.counts().total == 0


def test_metrics_only_passes_and_says_what_it_would_have_done():
    breaker = make()
    breaker.force(Override(State.METRICS_ONLY, "trying out", "ana"), 0.0)

    moves = [call(breaker, FAILED, 1.0) for _ in range(4)]

    assert moves[-1].after is State.OPEN
    assert moves[-1].override is State.METRICS_ONLY
    assert breaker.state is State.METRICS_ONLY
    assert isinstance(breaker.admit(2.0), Permit)


def test_a_breaker_cannot_be_forced_half_open():
    with pytest.raises(
        ValueError, match="cannot be forced half_open; it can be closed"
    ):
        make().force(Override(State.HALF_OPEN, "x", "ana"), 0.0)


# Driven by probes.


def test_a_confirmed_failure_opens_at_once():
    breaker = make()

    (move,) = breaker.observe(
        FAILED, 1.0, confirmed=True, evidence=Evidence("refused", "connection refused")
    )

    assert move.cause is Cause.CONFIRMED
    assert move.reason == "connection refused"


def test_an_opening_lasts_until_some_time_after_the_last_bad_sign():
    breaker = make(with_(timeout=1.0))
    breaker.observe(FAILED, 0.0, confirmed=True)
    for second in range(1, 60):
        assert breaker.observe(FAILED, float(second)) == ()

    assert breaker.observe(OK, 59.5) == ()
    moves = breaker.observe(OK, 60.0)

    assert [move.after for move in moves] == [State.HALF_OPEN]
    assert [m.after for m in breaker.observe(OK, 60.25)] == [State.CLOSED]


def test_a_server_that_is_down_for_long_makes_two_transitions_not_hundreds():
    breaker = make(with_(timeout=1.0, success_threshold=1))
    moves = list(breaker.observe(FAILED, 0.0, confirmed=True))
    for second in range(1, 3600):
        moves += breaker.observe(FAILED, float(second))
    moves += breaker.observe(OK, 3601.0)

    assert [m.after for m in moves] == [State.OPEN, State.HALF_OPEN, State.CLOSED]


# The whole.


def test_every_script_of_eight_outcomes_walks_the_table():
    for script in itertools.product((OK, FAILED), repeat=8):
        breaker = make(with_(minimum_calls=2, timeout=1.0))
        state = State.CLOSED
        for now, outcome in enumerate(script):
            for move in breaker.observe(outcome, now * 2.0):
                assert move.before is state
                assert MOVES[move.before, move.cause] is move.after
                state = move.after
        assert breaker.state is state


def test_it_explains_itself_in_one_sentence():
    breaker = opened()

    assert make().explain(5.0) == (
        "breaker 'orders' is closed for 5.0 s: 0 of 0 calls failed in the last"
        " 10.0 s (opens at 50 % of at least 4)"
    )
    assert breaker.explain(3.0) == (
        "breaker 'orders' is open for 2.0 s: 4 of 4 calls failed in the last 10.0 s"
        " (100 %, limit 50 %); next trial in 28.0 s"
    )
    call(breaker, OK, 31.0)
    assert breaker.explain(32.0) == (
        "breaker 'orders' is half-open for 1.0 s: 1 of 2 trials succeeded"
    )


def test_its_repr_serves_logs_and_debuggers():
    assert repr(opened()) == "<Breaker 'orders' open 4/4 failed, round 1>"
