"""The breaker as an application holds it, claim by claim."""

import asyncio
import pickle
import threading
from contextlib import ExitStack
from contextvars import Context, copy_context

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgbreaker import (
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    PostgreSQLCircuitBreaker,
    State,
)
from pgbreaker.core.states import Cause, Evidence, Outcome
from pgbreaker.guard.events import Trial
from pgbreaker.guard.gate import BOUNDS
from unit.guard.driving import (
    EPOCH,
    Time,
    cooled,
    duplicate,
    fail,
    lost,
    make,
    opened,
    refused,
    starved,
    succeed,
    timed_out,
)

ENDED = ("success", "failure", "cut", "ignored", "unreached", "released", "late")


def by_pair(breaker, error=None):
    ticket = breaker.acquire()
    breaker.record(ticket, error)
    if error is not None:
        raise error


def by_with(breaker, error=None):
    with breaker:
        if error is not None:
            raise error


def by_async_with(breaker, error=None):
    async def run():
        async with breaker:
            if error is not None:
                raise error

    asyncio.run(run())


def by_call(breaker, error=None):
    async def work(error):
        if error is not None:
            raise error

    asyncio.run(breaker.call(work, error))


def by_coroutine(breaker, error=None):
    @breaker
    async def work():
        if error is not None:
            raise error

    asyncio.run(work())


def by_function(breaker, error=None):
    @breaker
    def work():
        if error is not None:
            raise error

    work()


def by_generator(breaker, error=None):
    @breaker
    def work():
        yield 1
        if error is not None:
            raise error

    list(work())


def by_async_generator(breaker, error=None):
    @breaker
    async def work():
        yield 1
        if error is not None:
            raise error

    async def run():
        assert [item async for item in work()] == [1]

    asyncio.run(run())


WAYS = [
    by_pair,
    by_with,
    by_async_with,
    by_call,
    by_coroutine,
    by_function,
    by_generator,
    by_async_generator,
]


# Every way of guarding a call.


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_ends_well_is_a_success_and_out_no_more(way, time):
    breaker = make(time)

    way(breaker)

    assert breaker.core.totals["success"] == 1
    assert breaker.core.flights.out == 0


@pytest.mark.parametrize("way", WAYS)
def test_what_a_call_raises_it_raises_on_unchanged(way, time):
    """Also the call that opens: its own error says what may have been done."""
    breaker, error = make(time, failure_threshold=1), refused()

    with pytest.raises(ConnectionRefusedError) as caught:
        way(breaker, error)

    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert breaker.state is State.OPEN
    assert breaker.core.flights.out == 0


@pytest.mark.parametrize("way", WAYS)
def test_an_open_breaker_refuses_without_calling(way, time):
    breaker = opened(time)

    with pytest.raises(CircuitOpenError):
        way(breaker, AssertionError("called"))

    assert breaker.core.totals["rejected"] == 1
    assert breaker.core.flights.out == 0


@pytest.mark.parametrize("way", WAYS)
def test_trials_close_in_every_way_of_guarding(way, time):
    breaker = cooled(time)

    way(breaker)
    way(breaker)

    assert breaker.state is State.CLOSED
    assert breaker.core.cause is Cause.RECOVERED


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("x"), duplicate()], ids=repr
)
def test_errors_of_the_caller_count_for_nothing(way, error, time):
    breaker = make(time, failure_threshold=1, minimum_calls=1)

    for _ in range(10):
        with pytest.raises(type(error)):
            way(breaker, error)

    assert breaker.state is State.CLOSED
    assert breaker.core.counts().total == 0
    assert breaker.core.totals["ignored"] == 10


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit()])
def test_a_stopped_program_is_released_whatever_its_age(way, error, time):
    """Ctrl-C after a minute says nothing of the server."""
    breaker = make(time, failure_threshold=1)
    ticket = breaker.acquire()
    time.passes(60.0)

    breaker.record(ticket, error)

    assert breaker.core.totals["released"] == 1
    assert breaker.state is State.CLOSED
    if way in (by_pair, by_with, by_function):
        with pytest.raises(type(error)):
            way(breaker, error)
        assert breaker.core.totals["released"] == 2


def give_up(breaker, time, after):
    """A call that is cancelled."""
    ticket = breaker.acquire()
    time.passes(after)
    breaker.record(ticket, asyncio.CancelledError())


def test_being_called_with_what_cannot_be_awaited_is_the_callers_fault(time):
    breaker = make(time)

    with pytest.raises(TypeError):
        asyncio.run(breaker.call(lambda: 1))

    assert breaker.core.totals["ignored"] == 1
    assert breaker.core.flights.out == 0


# What a refusal says.


def test_a_refusal_carries_why_since_when_and_for_how_long(time):
    breaker = make(time)
    fail(breaker, 5, timed_out())
    time.passes(10.0)

    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()

    refusal = caught.value
    assert refusal.breaker == "orders"
    assert refusal.state is State.OPEN
    assert refusal.reason == f"5 failures in a row, last {refusal.last_error}"
    assert refusal.retry_after == 20.0
    assert refusal.opened_at == EPOCH + 1000.0
    assert isinstance(refusal.last_error, Evidence)
    assert refusal.last_error.code == "transient"
    assert refusal.last_error.sqlstate == "57014"
    assert "statement timeout" in refusal.last_error.text
    assert str(refusal).endswith("try again in 20.0 s")


@pytest.mark.parametrize("after", [10.0, 30.0], ids=["open", "half-open"])
def test_a_refusal_survives_pickling(after, time):
    breaker = opened(time)
    time.passes(after)
    if after == 30.0:
        Context().run(breaker.acquire)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()

    copy = pickle.loads(pickle.dumps(caught.value))

    assert vars(copy) == vars(caught.value)
    assert str(copy) == str(caught.value)
    assert copy.state is (State.OPEN if after == 10.0 else State.HALF_OPEN)


@pytest.mark.parametrize(
    "error",
    [CallTimeoutError("orders", 0.8), BulkheadFullError("orders", 3, 0.1)],
    ids=repr,
)
def test_the_other_errors_survive_pickling_too(error):
    copy = pickle.loads(pickle.dumps(error))

    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_each_refusal_is_made_anew(time):
    """One that is stored grows by a traceback entry each time it is raised."""
    breaker, refusals = opened(time), []
    for _ in range(2):
        with pytest.raises(CircuitOpenError) as caught:
            breaker.acquire()
        refusals.append(caught.value)

    assert refusals[0] is not refusals[1]


def test_a_refusal_of_a_nested_breaker_blames_nobody_around_it(time):
    outer, inner = make(time, "outer", failure_threshold=1), opened(time, "inner")

    with pytest.raises(CircuitOpenError), outer, inner:
        pass

    assert outer.state is State.CLOSED
    assert outer.core.totals["unreached"] == 1


# Time: slow, late, given up on.


def test_slow_successes_never_open_without_a_slow_rate(time):
    breaker = make(time, minimum_calls=1)

    for _ in range(100):
        with breaker:
            time.passes(5.0)

    assert breaker.state is State.CLOSED
    assert breaker.core.totals["slow"] == 100


def test_slow_successes_open_with_one(time):
    breaker = make(time, minimum_calls=3, slow_rate=1.0)

    for _ in range(3):
        with breaker:
            time.passes(0.5)

    assert breaker.core.cause is Cause.SLOW_RATE


def test_slow_is_what_the_rules_say_also_below_a_millisecond(time):
    breaker = make(time, slow_call=0.0005)

    with breaker:
        time.passes(0.0007)

    assert breaker.core.totals["slow"] == 1


def test_late_failures_do_not_open_what_has_closed_since(time):
    breaker = make(time)
    early = [breaker.acquire() for _ in range(10)]
    fail(breaker, 5)
    time.passes(30.0)
    succeed(breaker, 2)
    assert breaker.state is State.CLOSED

    for ticket in early:
        breaker.record(ticket, refused())

    assert breaker.state is State.CLOSED
    assert breaker.core.counts().total == 0
    assert breaker.core.totals["late"] == 10
    assert breaker.core.flights.out == 0


def test_late_successes_do_not_close_what_is_open(time):
    breaker = make(time)
    early = [breaker.acquire() for _ in range(10)]
    fail(breaker, 5)
    time.passes(30.0)
    trial = breaker.acquire()

    for ticket in early:
        breaker.record(ticket)

    assert breaker.state is State.HALF_OPEN
    breaker.record(trial, refused())
    assert breaker.core.cause is Cause.RELAPSED


@pytest.mark.parametrize(
    ("took", "outcome"), [(0.49, "released"), (0.5, "cut"), (60.0, "cut")]
)
def test_a_cancelled_call_counts_only_if_it_was_overdue(took, outcome, time):
    """A caller who walks away says nothing of the server, unless it should have
    answered by then."""
    breaker = make(time)

    for _ in range(5):
        give_up(breaker, time, took)

    assert breaker.core.totals[outcome] == 5
    assert breaker.state is (State.OPEN if outcome == "cut" else State.CLOSED)


def test_without_slow_call_no_cancelled_call_counts(time):
    breaker = make(time, slow_call=None, failure_threshold=1)

    give_up(breaker, time, 3600.0)

    assert breaker.core.totals["released"] == 1


@pytest.mark.parametrize(
    ("members", "outcome"),
    [
        ([ValueError(), refused()], "failure"),
        ([refused(), ValueError()], "failure"),
        ([starved(), ValueError()], "unreached"),
        ([starved(), timed_out()], "failure"),
        ([ValueError(), KeyError()], "ignored"),
        ([ValueError(), ExceptionGroup("deep", [KeyError(), lost()])], "failure"),
    ],
    ids=repr,
)
def test_of_a_group_of_errors_the_worst_decides(members, outcome, time):
    breaker = make(time)

    with pytest.raises(ExceptionGroup), breaker:
        raise ExceptionGroup("several", members)

    assert breaker.core.totals[outcome] == 1


# Trials.


def test_one_of_a_hundred_concurrent_callers_is_the_trial(time):
    breaker, calls = cooled(time), 0

    @breaker
    async def work():
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)

    async def run():
        return await asyncio.gather(
            *(work() for _ in range(100)), return_exceptions=True
        )

    answers = asyncio.run(run())

    assert calls == 1
    assert sum(isinstance(answer, CircuitOpenError) for answer in answers) == 99
    assert breaker.core.totals["rejected"] == 99


def test_a_refusal_while_a_trial_is_out_says_half_open(time):
    breaker = cooled(time)
    Context().run(breaker.acquire)

    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()

    assert caught.value.state is State.HALF_OPEN
    assert caught.value.retry_after == 10.0  # when the trial must be back


def test_calls_within_a_trial_are_part_of_it(time):
    """Else a guarded function that calls another would refuse itself."""
    breaker = cooled(time, success_threshold=1)

    @breaker
    async def inner():
        return 1

    @breaker
    async def outer():
        here = await inner()
        with breaker:
            there = await asyncio.create_task(inner())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(inner()) for _ in range(3)]
        return here + there + sum(task.result() for task in tasks)

    answer = asyncio.run(outer())

    assert answer == 5
    assert breaker.state is State.CLOSED
    assert breaker.core.totals["rejected"] == 0


def test_what_was_part_of_a_trial_is_refused_once_the_trial_is_back(time):
    breaker = cooled(time)

    @breaker
    async def inner():
        pass

    async def later(gone):
        await gone.wait()
        await inner()

    async def run():
        gone = asyncio.Event()
        async with breaker:
            child = asyncio.create_task(later(gone))
        fail(breaker)  # another trial, that opens
        gone.set()
        with pytest.raises(CircuitOpenError):
            await child

    asyncio.run(run())
    assert breaker.state is State.OPEN


def test_failures_within_a_trial_are_for_the_trial_to_tell(time):
    """It may have had an answer from elsewhere for them."""
    breaker = cooled(time)

    with breaker:
        with pytest.raises(ConnectionRefusedError), breaker:
            raise refused()
        within = breaker.state

    assert within is State.HALF_OPEN
    assert breaker.state is State.HALF_OPEN
    assert breaker.core.flights.out == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(), starved()])
def test_a_trial_that_tells_nothing_gives_its_place_back(error, time):
    breaker = cooled(time)
    fail(breaker, error=error)

    assert breaker.state is State.HALF_OPEN
    succeed(breaker, 2)

    assert breaker.state is State.CLOSED


def test_trials_that_tell_nothing_again_and_again_open(time):
    breaker = cooled(time, success_threshold=3)

    fail(breaker, 3, asyncio.CancelledError())

    assert breaker.core.cause is Cause.BARREN


def test_a_trial_cut_when_it_was_overdue_opens(time):
    breaker = cooled(time)

    give_up(breaker, time, 0.5)

    assert breaker.core.cause is Cause.RELAPSED


def test_a_lost_trial_expires_for_the_next_caller(time):
    breaker = cooled(time)
    trial = Context().run(breaker.acquire)
    time.passes(10.0)

    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    assert breaker.core.cause is Cause.EXPIRED
    breaker.record(trial)  # back after all: too late to matter

    assert breaker.state is State.OPEN
    assert breaker.core.totals["late"] == 1


def test_a_trial_is_told_to_listeners(time, heard):
    breaker = cooled(time)

    with breaker:
        time.passes(0.25)

    assert [event for event in heard if isinstance(event, Trial)] == [
        Trial("orders", Outcome.SUCCESS, 0.25, time())
    ]


# Calls that do not come back.


def run_steadily(breaker, time, seconds, *, per_second=25):
    """Calls of 2 ms, one after the other."""
    for _ in range(int(seconds * per_second)):
        with breaker:
            time.passes(0.002)
        time.passes(1 / per_second - 0.002)


def hang(breaker, time, tickets, *, per_second=25):
    """Calls that never come back, for five seconds."""
    for _ in range(5 * per_second):
        tickets.append(breaker.acquire())
        time.passes(1 / per_second)


def test_hanging_calls_open_before_any_has_come_back(time, heard):
    breaker = make(time, slow_call=0.5)
    run_steadily(breaker, time, 5.0)
    began = time()

    tickets = []
    with pytest.raises(CircuitOpenError):
        hang(breaker, time, tickets)

    assert breaker.core.cause is Cause.HANGING
    assert time() - began < 2.0
    assert "none came back" in heard[0].reason
    for ticket in tickets:  # when they come back in the end, it is old news
        breaker.record(ticket, lost())
    assert breaker.core.totals["late"] == len(tickets)
    assert breaker.core.flights.out == 0


def test_hanging_calls_open_in_every_rhythm(time):
    """However the calls fall on the slices of time."""
    for offset in range(20):
        breaker = make(time, slow_call=0.5)
        time.passes(offset * 0.0137)
        run_steadily(breaker, time, 3.0)
        with pytest.raises(CircuitOpenError):
            hang(breaker, time, [])

        assert breaker.core.cause is Cause.HANGING


def test_a_slow_operation_that_answers_steadily_never_hangs(time):
    """Five at once, 2 s each, over and over, each begun as another ends."""
    breaker = make(time, slow_call=0.5)
    out = [(time() + 0.4 * n, breaker.acquire()) for n in range(1, 6)]

    for _ in range(500):
        ends, ticket = out.pop(0)
        time.at = ends
        breaker.record(ticket)
        out.append((ends + 2.0, breaker.acquire()))

    assert breaker.state is State.CLOSED
    assert breaker.core.flights.out == 5


def test_a_slow_operation_that_answers_in_step_never_hangs(time):
    """Five begin together and end together."""
    breaker = make(time, slow_call=0.5)

    for _ in range(100):
        tickets = [breaker.acquire() for _ in range(5)]
        for _ in range(20):
            time.passes(0.1)
            breaker.snapshot()
        for ticket in tickets:
            breaker.record(ticket)

    assert breaker.state is State.CLOSED


def test_calls_that_hang_where_none_ever_came_back_tell_nothing(time):
    """A report of a minute is no news, if that is all there ever was."""
    breaker = make(time, slow_call=0.5)

    for _ in range(100):
        breaker.acquire()
        time.passes(0.1)

    assert breaker.state is State.CLOSED


def test_a_pause_is_no_silence(time):
    """Nobody asked, so nobody could come back. Then come some at once that take a
    second each, as they well may: `slow_rate` is None."""
    breaker = make(time, slow_call=0.5)
    run_steadily(breaker, time, 5.0, per_second=8)
    fail(breaker, error=duplicate())  # the last one, which says nothing
    time.passes(4.0)

    tickets = [breaker.acquire() for _ in range(5)]
    for elapsed in (0.2, 0.5, 0.3):
        time.passes(elapsed)
        tickets.append(breaker.acquire())
    for ticket in tickets:
        breaker.record(ticket)

    assert breaker.state is State.CLOSED


# The application's own pool.


def test_an_exhausted_pool_opens_for_a_short_time_and_blames_nobody(time, heard):
    breaker = make(time, pool_timeout=1.0)

    fail(breaker, 5, starved())

    (move,) = heard
    assert move.cause is Cause.POOL_EXHAUSTED
    assert move.retry_after == 1.0
    assert move.reason == (
        "5 calls in a row got no connection from the caller's own pool;"
        " the server was not asked"
    )
    assert breaker.core.counts().failed == 0
    assert breaker.core.totals["unreached"] == 5


def test_a_pool_that_gives_a_connection_in_between_is_not_exhausted(time):
    breaker = make(time)

    for _ in range(10):
        fail(breaker, 4, starved())
        succeed(breaker)

    assert breaker.state is State.CLOSED


def test_an_exhausted_pool_says_nothing_to_the_breaker_above(time):
    above = make(time, "main/connect", failure_threshold=1)
    breaker = PostgreSQLCircuitBreaker("main/read", above=above, clock=time.clock)

    fail(breaker, 5, starved())

    assert breaker.state is State.OPEN
    assert above.state is State.CLOSED
    assert above.core.counts().total == 0


# Blocks that end elsewhere than they began.


def blocks(breaker):
    with breaker:
        yield


def test_generators_closed_in_any_order_leave_no_call_out(time):
    one, other = make(time, "one"), make(time, "other")
    running = [blocks(one), blocks(other), blocks(one), blocks(other)]
    for block in running:
        next(block)

    for at in (1, 0, 3, 2):
        running[at].close()

    assert (one.core.flights.out, other.core.flights.out) == (0, 0)
    assert one.core.totals["released"] == other.core.totals["released"] == 2


def test_a_generator_closed_in_another_context_leaves_no_call_out(time):
    """As a web framework does with its dependencies."""
    breaker = make(time)
    running = [blocks(breaker) for _ in range(3)]
    for block in running:
        copy_context().run(next, block)

    for block in running:
        copy_context().run(next, block, None)

    assert breaker.core.flights.out == 0
    assert breaker.core.totals["success"] == 3


def test_an_exit_stack_unwound_in_another_order_leaves_no_call_out(time):
    one, other = make(time, "one"), make(time, "other")
    first, second = ExitStack(), ExitStack()
    first.enter_context(one)
    second.enter_context(other)
    first.enter_context(other)
    second.enter_context(one)

    first.close()
    second.close()

    assert (one.core.flights.out, other.core.flights.out) == (0, 0)
    assert one.core.totals["success"] == other.core.totals["success"] == 2


def test_a_block_that_ends_in_a_thread_leaves_no_call_out(time):
    breaker = make(time)
    breaker.__enter__()
    thread = threading.Thread(target=breaker.__exit__, args=(None, None, None))

    thread.start()
    thread.join()

    assert breaker.core.flights.out == 0
    assert breaker.core.totals["success"] == 1


def test_blocks_that_end_elsewhere_are_not_ended_twice(time):
    """One begins here and ends there; then another begins there and ends here."""
    breaker, elsewhere = make(time), copy_context()
    one, other = blocks(breaker), blocks(breaker)
    next(one)
    elsewhere.run(one.close)
    time.passes(0.2)
    succeed(breaker)  # another slice of time

    elsewhere.run(next, other)
    other.close()

    assert breaker.core.flights.out == 0


def test_a_call_that_nobody_reports_is_forgotten_after_an_hour(time):
    """A ticket that was lost does not count as hanging for ever."""
    breaker = make(time)
    breaker.acquire()
    time.passes(0.2)
    succeed(breaker)
    before = breaker.core.flights.out

    time.passes(3600.0)
    succeed(breaker)

    assert (before, breaker.core.flights.out) == (1, 0)


def test_a_block_that_ends_elsewhere_speaks_for_nobodys_trial(time):
    """Whose it was nobody knows there: it expires, and the next one is tried."""
    breaker = cooled(time)
    breaker.__enter__()
    thread = threading.Thread(target=breaker.__exit__, args=(None, None, None))

    thread.start()
    thread.join()

    assert breaker.state is State.HALF_OPEN
    time.passes(10)
    with pytest.raises(CircuitOpenError):
        Context().run(breaker.acquire)
    assert breaker.core.cause is Cause.EXPIRED


# Reading changes nothing.


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    script=st.lists(st.sampled_from("ofcis.!+-"), max_size=40),
    reads=st.integers(1, 4),
)
def test_reading_changes_nothing(script, reads):
    """Two breakers live the same life; one is looked at all the time."""
    time = Time()
    seen, unseen = make(time, "orders"), make(time, "orders")

    for step in script:
        for breaker in (seen, unseen):
            Context().run(live, breaker, step)
        time.passes({".": 0.3, "!": 40.0}.get(step, 0.0))
        for _ in range(reads):
            before = repr(seen), repr(seen.core), seen.core.totals
            seen.explain()
            seen.snapshot()
            seen.durations()
            seen.retry_after()
            assert (repr(seen), repr(seen.core), seen.core.totals) == before

    assert seen.explain() == unseen.explain()
    assert seen.snapshot() == unseen.snapshot()
    assert seen.durations() == unseen.durations()


def live(breaker, step):
    errors = {"f": refused(), "c": asyncio.CancelledError(), "i": ValueError()}
    match step:
        case "+":
            breaker.force(State.FORCED_OPEN, "test")
        case "-":
            breaker.resume()
        case "o" | "s" | "f" | "c" | "i":
            try:
                ticket = breaker.acquire()
            except CircuitOpenError:
                return
            if step == "s":
                return  # lost
            breaker.record(ticket, errors.get(step))


def test_explain_says_what_it_does_and_why(time):
    breaker = make(time)
    succeed(breaker, 3)
    fail(breaker)
    time.passes(2.0)

    assert breaker.explain() == (
        "breaker 'orders' is closed for 2.0 s: 1 of 4 calls failed in the last 10.0 s"
        " (opens at 50 % of at least 20)"
    )


def test_a_snapshot_has_the_keys_of_the_daemons_breakers(time):
    breaker = opened(time)
    time.passes(10.0)

    seen = breaker.snapshot()

    assert seen["since"] == "2023-11-14T22:30:00.000Z"
    assert seen["state"] == seen["computed_state"] == "open"
    assert seen["cause"]["code"] == "failure_run"
    assert seen["retry_after_seconds"] == 20.0
    assert seen["override"] is None
    assert seen["totals"]["failure"] == 5


# Operators.


def test_forced_open_refuses_until_it_is_handed_back(time, heard):
    breaker = make(time)
    breaker.force(State.FORCED_OPEN, "maintenance", author="ann")
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    breaker.resume()

    succeed(breaker)

    assert caught.value.state is State.FORCED_OPEN
    assert [event.cause for event in heard] == [Cause.OVERRIDDEN, Cause.RESUMED]
    assert breaker.core.totals["success"] == 1


def test_a_refusal_of_an_operator_says_so(time):
    breaker = make(time)
    breaker.force(State.FORCED_OPEN, "maintenance", author="ann")

    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()

    assert caught.value.reason == "forced_open by ann (maintenance)"


def test_a_refusal_of_an_operator_tells_since_when(time):
    breaker = make(time)
    time.passes(100.0)
    breaker.force(State.FORCED_OPEN, "maintenance")

    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()

    assert caught.value.opened_at == EPOCH + 1100.0


def test_an_override_ends_when_its_time_has_come(time):
    breaker = make(time)
    breaker.force(State.FORCED_OPEN, "maintenance", lasting="30m")
    time.passes(1799.0)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire()
    time.passes(1.0)

    succeed(breaker)

    assert caught.value.retry_after == 1.0
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize(
    "state", [State.CLOSED, State.DISABLED, State.METRICS_ONLY], ids=str
)
def test_an_operator_has_calls_pass_though_the_breaker_is_open(state, time):
    breaker = opened(time)
    breaker.force(state, "we know better")

    succeed(breaker, 10)

    assert breaker.state is state
    assert breaker.core.totals["rejected"] == 0
    breaker.resume()
    assert breaker.state is State.OPEN


def test_what_would_have_opened_is_shown_where_only_metrics_are_wanted(time, heard):
    breaker = make(time)
    breaker.force(State.METRICS_ONLY, "trying it out")

    fail(breaker, 6)

    assert [(event.cause, event.override) for event in heard[1:]] == [
        (Cause.FAILURE_RUN, State.METRICS_ONLY)
    ]
    assert breaker.core.computed_state is State.OPEN


def test_a_disabled_breaker_counts_nothing(time):
    breaker = make(time)
    breaker.force(State.DISABLED, "not today")

    fail(breaker, 100)

    assert breaker.core.counts().total == 0
    assert breaker.core.computed_state is State.CLOSED


def test_calls_from_before_an_override_still_count(time):
    """The machine has not moved."""
    breaker = make(time)
    tickets = [breaker.acquire() for _ in range(5)]
    breaker.force(State.DISABLED, "not today")

    for ticket in tickets:
        breaker.record(ticket, refused())

    assert breaker.core.computed_state is State.OPEN
    assert breaker.core.flights.out == 0


def test_calls_that_passed_uncounted_stay_so_after_it(time):
    breaker = make(time)
    breaker.force(State.DISABLED, "not today")
    tickets = [breaker.acquire() for _ in range(5)]
    breaker.resume()

    for ticket in tickets:
        breaker.record(ticket, refused())

    assert breaker.state is State.CLOSED
    assert breaker.core.counts().total == 0


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN])
def test_nobody_can_ask_for_a_state_of_the_machine(state, time):
    breaker = make(time)

    with pytest.raises(ValueError, match="a breaker cannot be forced"):
        breaker.force(state, "why not")


# Durations.


def test_durations_are_counted_up_to_each_bound(time):
    breaker = make(time)

    for took in (*(0.99 * bound for bound in BOUNDS), 11.0):
        with breaker:
            time.passes(took)

    assert breaker.durations() == (1,) * (len(BOUNDS) + 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 20),
            st.sampled_from([None, refused(), ValueError(), SystemExit()]),
        ),
        max_size=60,
    )
)
def test_durations_add_up_to_the_calls_that_ended(calls):
    time = Time()
    breaker = make(time)

    for took, error in calls:
        try:
            ticket = Context().run(breaker.acquire)
        except CircuitOpenError:
            time.passes(took)
            continue
        time.passes(took)
        breaker.record(ticket, error)

    totals = breaker.core.totals
    assert sum(breaker.durations()) == sum(totals[outcome] for outcome in ENDED)


@pytest.mark.parametrize("uncounted", ["disabled", "within a trial"])
def test_calls_that_nobody_counts_have_no_duration(uncounted, time):
    breaker = cooled(time) if uncounted == "within a trial" else make(time)
    if uncounted == "disabled":
        breaker.force(State.DISABLED, "not today")

    with breaker, breaker:
        time.passes(0.25)

    counted = 1 if uncounted == "within a trial" else 0
    assert sum(breaker.durations()[1:]) == counted


# Counting.


def test_a_count_is_not_lost_to_a_slice_that_ends_meanwhile(time):
    """Another thread may begin a new slice of time between two lines of ours."""
    turns = []

    class Turning(Time):
        """Shows the time, and lets another thread have its turn meanwhile."""

        def __call__(self):
            read = super().__call__()
            if turns:
                turns.pop()()
            return read

    time = Turning()
    breaker = make(time)

    def another():
        time.passes(0.2)
        thread = threading.Thread(target=succeed, args=(breaker,))
        thread.start()
        thread.join()

    ticket = breaker.acquire()
    turns.append(another)
    breaker.record(ticket)

    assert breaker.core.totals["success"] == 2
