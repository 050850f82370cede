"""One server, and the breakers of the work on it."""

import asyncio
import gc
from contextvars import Context

import asyncpg
import pytest

from pgbreaker import CircuitOpenError, State, Target, operation
from pgbreaker.core.states import Cause
from pgbreaker.guard.outcomes import judge
from pgbreaker.guard.retry import Retrying
from pgbreaker.guard.target import Wave
from unit.guard.driving import (
    CONFIG,
    duplicate,
    fail,
    lost,
    refused,
    starved,
    succeed,
    timed_out,
)


def target(time, **rules):
    """One whose operations open late, so that what its whole does is seen."""
    return Target("main", CONFIG.replace(**rules), clock=time.clock)


def patient(time):
    return target(time, failure_threshold=100, minimum_calls=1000)


def down(time, found, times=10):
    """No connection can be made, whatever for."""
    kinds = [found.breaker(kind) for kind in ("read", "write", "report")]
    for n in range(times):
        fail(kinds[n % 3])
    assert found.connect.state is State.OPEN
    return kinds


def cool(time, found):
    """Have the next call be the trial of the whole."""
    time.passes(found.connect.retry_after())


# Opening.


@pytest.mark.parametrize("error", [refused, lost], ids=["refused", "lost"])
def test_ten_failed_connections_open_the_whole_whatever_they_were_for(error, time):
    found = patient(time)
    kinds = [found.breaker(kind) for kind in ("read", "write", "report")]
    for n in range(9):
        fail(kinds[n % 3], error=error())
    before = found.connect.state

    fail(kinds[0], error=error())

    assert (before, found.connect.state) == (State.CLOSED, State.OPEN)
    assert found.connect.core.cause is Cause.FAILURE_RUN
    assert {breaker.state for breaker in kinds} == {State.CLOSED}


def test_all_are_refused_while_the_whole_is_open(time):
    found = patient(time)
    kinds = [*down(time, found), found.breaker("new"), found.breaker()]

    for breaker in kinds:
        with pytest.raises(CircuitOpenError) as caught:
            breaker.acquire()
        assert caught.value.breaker == "main/connect"
        assert caught.value.reason.startswith("10 failures in a row")
        assert breaker.core.totals["rejected"] == 1
        assert 1.0 <= breaker.retry_after() <= 1.2
        assert not breaker.passes
        assert breaker.explain().startswith("breaker 'main/connect' is open")


@pytest.mark.parametrize("error", [timed_out, duplicate, starved, TimeoutError])
def test_the_business_of_one_operation_is_not_the_wholes(error, time):
    """A statement that times out says that connections work."""
    found = patient(time)

    for _ in range(50):
        fail(found.breaker("report"), error=error())

    assert found.connect.state is State.CLOSED


def test_an_operation_opens_alone(time):
    found = target(time, failure_threshold=5)
    fail(found.breaker("report"), 5, timed_out())

    succeed(found.breaker("read"))

    assert found.breaker("report").state is State.OPEN
    assert found.connect.state is State.CLOSED


@pytest.mark.parametrize("kind", ["read", "report"])
def test_a_success_in_between_breaks_the_run(kind, time):
    """Of the same operation, or of another."""
    found = patient(time)

    for _ in range(10):
        fail(found.breaker("read"), 9)
        succeed(found.breaker(kind))

    assert found.connect.state is State.CLOSED


def test_a_login_that_is_refused_is_the_wholes_business_alone(time):
    """Sessions that are there already go on working."""
    found = target(time, failure_threshold=5)
    read = found.breaker("read")
    error = asyncpg.InvalidPasswordError("password authentication failed")

    fail(read, 9, error)
    before = found.connect.state
    fail(read, 1, error)

    assert (before, found.connect.state) == (State.CLOSED, State.OPEN)
    assert read.state is State.CLOSED
    assert read.core.totals["unreached"] == 10


# Closing.


def test_a_trial_of_the_whole_is_a_call_of_any_operation(time):
    found = patient(time)
    read, write, _ = down(time, found)
    cool(time, found)
    trial = Context().run(read.acquire)
    with pytest.raises(CircuitOpenError) as caught:
        Context().run(write.acquire)
    during = found.connect.state

    read.record(trial)

    assert caught.value.breaker == "main/connect"
    assert during is State.HALF_OPEN
    assert found.connect.state is State.CLOSED
    succeed(write)
    assert read.core.totals["success"] == 1


def test_a_trial_that_the_server_answers_closes_the_whole(time):
    """It timed out on a statement: bad for the operation, but connections work."""
    found = patient(time)
    read, *_ = down(time, found)
    cool(time, found)

    fail(read, 1, timed_out())

    assert found.connect.state is State.CLOSED


def test_a_trial_that_fails_opens_the_whole_for_longer(time):
    found = patient(time)
    read, *_ = down(time, found)
    cool(time, found)

    fail(read)

    assert found.connect.core.cause is Cause.RELAPSED
    assert 2.0 <= found.connect.retry_after() <= 2.4


def test_fast_calls_go_unasked_again_once_the_whole_has_closed(time):
    found = patient(time)
    kinds = down(time, found)
    during = [breaker.core.gate > 0 for breaker in kinds]
    cool(time, found)

    succeed(kinds[0])

    assert during == [False] * 3
    assert all(breaker.core.gate > 0 for breaker in kinds)


def test_calls_of_the_whole_are_out_no_more_when_they_are_back(time):
    """Those that had to ask because a slice of time was over, too."""
    found = patient(time)
    read = found.breaker("read")

    for _ in range(100):
        with read:
            time.passes(0.3)
        time.passes(0.8)

    assert read.snapshot()["in_flight"] == 0
    assert found.connect.snapshot()["in_flight"] == 0


def test_a_trial_that_the_operation_itself_refuses_is_handed_back_unharmed(time):
    """Nobody has tried: the next caller is to."""
    found = target(time, failure_threshold=5, timeout=0.5)
    kinds = read, *_ = [found.breaker(kind) for kind in ("read", "write", "report")]
    fail(read, 5, timed_out())
    time.passes(0.5)
    out = Context().run(read.acquire)  # the one trial of reads
    for n in range(10):
        fail(kinds[1 + n % 2], 1)
        if n == 7:
            time.passes(0.5)
    cool(time, found)

    for _ in range(5):
        with pytest.raises(CircuitOpenError) as caught:
            Context().run(read.acquire)
        assert caught.value.breaker == "main/read"

    assert found.connect.state is State.HALF_OPEN
    read.record(out)


def test_calls_within_a_trial_of_the_whole_are_part_of_it(time):
    found = patient(time)
    read, write, _ = down(time, found)
    cool(time, found)

    with read:
        with read:
            pass
        with write:
            pass

    assert found.connect.state is State.CLOSED
    assert read.core.totals["rejected"] == write.core.totals["rejected"] == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError(), starved(), ValueError()])
def test_a_trial_that_tells_nothing_of_the_whole_gives_its_place_back(error, time):
    found = patient(time)
    read, write, _ = down(time, found)
    cool(time, found)

    fail(read, error=error)
    succeed(write)

    assert found.connect.state is State.CLOSED


def test_a_lost_trial_of_the_whole_expires(time):
    found = patient(time)
    read, write, _ = down(time, found)
    cool(time, found)
    Context().run(read.acquire)
    time.passes(10.0)

    with pytest.raises(CircuitOpenError):
        write.acquire()

    assert found.connect.core.cause is Cause.EXPIRED


def test_late_failures_do_not_open_the_whole_again(time):
    """Connections that were begun in the outage, and time out after it."""
    found = patient(time)
    read, write, _ = (found.breaker(kind) for kind in ("read", "write", "report"))
    early = [write.acquire() for _ in range(50)]
    down(time, found)
    cool(time, found)
    succeed(read)
    assert found.connect.state is State.CLOSED

    for ticket in early:
        write.record(ticket, refused())

    assert found.connect.state is State.CLOSED


# Operators.


def test_an_operator_refuses_all_by_the_whole(time):
    found = patient(time)
    kinds = [found.breaker("read"), found.breaker("write")]
    found.connect.force(State.FORCED_OPEN, "maintenance", lasting="30m")
    for breaker in kinds:
        with pytest.raises(CircuitOpenError) as caught:
            breaker.acquire()
        assert caught.value.state is State.FORCED_OPEN
    time.passes(1800.0)

    for breaker in kinds:
        succeed(breaker)

    assert found.connect.state is State.CLOSED
    assert all(breaker.core.gate > 0 for breaker in kinds)


def test_an_operator_lets_all_pass_by_the_whole(time):
    found = patient(time)
    kinds = down(time, found)
    found.connect.force(State.DISABLED, "we know better")

    for breaker in kinds:
        succeed(breaker)

    assert all(breaker.core.totals["success"] == 1 for breaker in kinds)
    found.connect.resume()
    with pytest.raises(CircuitOpenError):
        kinds[0].acquire()


# Retries.


def test_operations_share_their_retries_and_all_earn_some(time):
    """A bucket for the server: the calls of each operation put into it."""
    found = target(time, failure_threshold=None, retry_ratio=0.1)
    read, write = found.breaker("read"), found.breaker("write")
    rules = Retrying(3, 0.0, 0.0)
    judgement = judge(refused(), 0.0, None)
    succeed(read, 10_000)
    while rules.wait(read, judgement, 1, time()) is not None:
        pass

    succeed(write, 30)

    assert read.budget is write.budget
    assert rules.wait(write, judgement, 1, time()) is not None


# Names.


def test_an_operation_is_the_same_each_time(time):
    found = patient(time)

    assert found.breaker("read") is found.breaker("read")
    assert [breaker.name for breaker in found.breakers] == ["main/connect", "main/read"]


def test_work_of_no_named_kind_has_the_targets_name(time):
    breaker = patient(time).breaker()

    assert (breaker.name, breaker.target, breaker.operation) == ("main", "main", None)


def test_work_within_an_operation_is_its(time):
    found = patient(time)

    with operation("read"):
        inner = found.breaker()
        with operation("report"):
            innermost = found.breaker()
        again = found.breaker()

    assert (inner.name, innermost.name) == ("main/read", "main/report")
    assert again is inner
    assert found.breaker().name == "main"
    assert (inner.target, inner.operation) == ("main", "read")


def test_the_name_of_the_whole_is_taken(time):
    with pytest.raises(ValueError, match="main/connect is the breaker of the whole"):
        patient(time).breaker("connect")


def test_breakers_that_are_gone_hold_nothing_up(time):
    found = patient(time)
    found.breaker("read")
    again = Target("main", clock=time.clock)
    del found
    gc.collect()

    fail(again.breaker("read"))

    assert again.connect.core.counts().failed == 1


# Sessions that ended together.


def test_of_sessions_that_ended_together_the_first_counts():
    wave = Wave()

    assert [wave.is_stale(made_at, 100.0) for made_at in (10.0, 20.0, 99.0)] == [
        False,
        True,
        True,
    ]


def test_a_session_that_was_made_since_and_ends_is_news():
    wave = Wave()
    wave.is_stale(10.0, now=100.0)

    assert not wave.is_stale(101.0, now=200.0)
    assert wave.is_stale(20.0, now=300.0)
    assert wave.is_stale(200.0, now=301.0)


def test_what_was_counted_already_counts_for_nothing(time):
    found = target(time, failure_threshold=1)
    breaker, judgement = found.breaker("read"), judge(lost(), 0.0, None)

    for _ in range(20):
        breaker.count(*breaker.acquire(), judgement, stale=True)

    assert breaker.state is State.CLOSED
    assert breaker.core.totals["released"] == 20
    assert found.connect.core.counts().failed == 0


def test_the_whole_counts_no_call_that_was_counted_below(time):
    """
    It is told of those only when one fails: in its own counters they would all come at
    once, a spike of a million calls on a dashboard.
    """
    found = patient(time)
    for _ in range(1000):
        succeed(found.breaker("read"))

    fail(found.breaker("read"))

    assert found.connect.totals["success"] == 0
    assert found.connect.totals["failure"] == 1
    assert sum(found.connect.durations()) == 1
    assert found.breaker("read").totals["success"] == 1000
    assert found.connect.core.counts().failed == 1
    assert found.connect.core.counts().total > 1000  # what it judges by
