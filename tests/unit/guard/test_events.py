"""What guards tell, and to whom."""

import logging
import threading

import pytest

from pgbreaker import State, Transition, subscribe
from pgbreaker.core.states import Cause
from pgbreaker.guard import events
from pgbreaker.guard.events import Retry, Trial
from unit.guard.driving import cooled, fail, make, opened, succeed


@pytest.fixture
def listening():
    """Subscribe until the test is over."""
    ends = []

    def listen(listener):
        ends.append(subscribe(listener))
        return ends[-1]

    yield listen
    for end in ends:
        end()


def test_a_listener_hears_each_move_and_each_trial_in_order(time, heard):
    breaker = cooled(time)

    succeed(breaker, 2)

    assert [
        event.cause if isinstance(event, Transition) else event.outcome.value
        for event in heard
    ] == [Cause.FAILURE_RUN, Cause.COOLED, "success", "success", Cause.RECOVERED]


def test_a_move_tells_what_happened_when_and_why(time, heard):
    breaker = opened(time)

    (move,) = heard
    assert (move.breaker, move.before, move.after) == (
        "orders",
        State.CLOSED,
        State.OPEN,
    )
    assert (move.at, move.retry_after) == (time(), 30.0)
    assert move.reason.startswith("5 failures in a row, last ")
    assert breaker.transitions == {(State.CLOSED, State.OPEN, "failure_run"): 1}


def test_a_listener_that_raises_harms_nobody(time, heard, listening, caplog):
    def broken(event):
        raise RuntimeError("no room left")

    listening(broken)
    after = []
    listening(after.append)

    with caplog.at_level(logging.ERROR, logger="pgbreaker"):
        breaker = opened(time)

    assert breaker.state is State.OPEN
    assert len(heard) == len(after) == 1
    (record,) = (record for record in caplog.records if record.exc_info)
    assert "broken" in record.getMessage()
    assert "no room left" in str(record.exc_info[1])


def test_what_a_listener_brings_about_is_told_after_what_it_was_told(time, listening):
    """To everybody in the same order, the listener itself not being called within."""
    breaker, depth = make(time), 0
    first, second = [], []

    def meddling(event):
        nonlocal depth
        depth += 1
        assert depth == 1
        first.append(event.cause)
        if event.cause is Cause.FAILURE_RUN:
            breaker.force(State.DISABLED, "by a listener")
            breaker.resume()
        depth -= 1

    listening(meddling)
    listening(lambda event: second.append(event.cause))

    fail(breaker, 5)

    assert first == [Cause.FAILURE_RUN, Cause.OVERRIDDEN, Cause.RESUMED]
    assert second == first


def test_a_listener_may_end_its_own_listening(time, listening):
    told = []

    def once(event):
        told.append(event)
        end()

    end = listening(once)
    opened(time, "one")
    opened(time, "other")

    assert len(told) == 1


def test_ending_twice_ends_nobody_elses(time, heard, listening):
    end = listening(lambda event: None)
    end()
    end()

    opened(time)

    assert len(heard) == 1


def test_no_lock_is_held_while_listeners_are_told(time, listening):
    breaker, free = make(time), []

    def listen(event):
        # From another thread: ours might be let in though it holds the lock.
        thread = threading.Thread(target=lambda: free.append(breaker.explain()))
        thread.start()
        thread.join(timeout=5.0)

    listening(listen)
    fail(breaker, 5)

    assert len(free) == 1


def test_a_slow_listener_holds_up_no_other_thread(time, listening):
    """They leave what they have to tell to the thread that is telling."""
    told, tells, done = [], threading.Event(), threading.Event()

    def slow(event):
        told.append(event.breaker)
        if len(told) == 1:
            tells.set()
            done.wait(timeout=5.0)

    listening(slow)
    thread = threading.Thread(target=opened, args=(time, "one"))
    thread.start()
    tells.wait(timeout=5.0)

    opened(time, "other")  # comes back at once
    during = list(told)
    done.set()
    thread.join()

    assert during == ["one"]
    assert told == ["one", "other"]


def test_the_last_events_are_kept(time, heard):
    for n in range(300):
        opened(time, f"orders-{n}")

    assert len(events.recent) == 256
    assert list(events.recent) == heard[-256:]


# The log.


def test_moves_are_logged_with_what_an_operator_asks(time, caplog):
    with caplog.at_level(logging.INFO, logger="pgbreaker"):
        breaker = cooled(time)
        succeed(breaker, 2)

    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [
        (
            "WARNING",
            (
                "breaker 'orders': closed -> open: 5 failures in a row, last"
                f" {breaker.core.evidence}; next trial in 30.0 s"
            ),
        ),
        ("INFO", "breaker 'orders': open -> half_open: open for 30.0 s"),
        ("INFO", "breaker 'orders': a trial call came to success after 0.0 ms"),
        ("INFO", "breaker 'orders': a trial call came to success after 0.0 ms"),
        (
            "INFO",
            "breaker 'orders': half_open -> closed: 2 trial calls in a row succeeded",
        ),
    ]
    assert caplog.records[0].breaker == "orders"
    assert caplog.records[0].cause == "failure_run"


def test_without_details_only_moves_are_logged(time, heard, caplog):
    with caplog.at_level(logging.INFO, logger="pgbreaker"):
        breaker = cooled(time, enable_detailed_logging=False)
        succeed(breaker, 2)

    assert len(caplog.records) == 3
    assert sum(isinstance(event, Trial) for event in heard) == 2


def test_a_retry_is_told(time, heard, caplog):
    with caplog.at_level(logging.INFO, logger="pgbreaker"):
        events.note(
            Retry("orders", 1, 0.25, "the connection broke", 1.0), detailed=True
        )
        events.flush()

    assert heard == [Retry("orders", 1, 0.25, "the connection broke", 1.0)]
    assert caplog.messages == [
        "breaker 'orders': retry 1 in 250 ms: the connection broke"
    ]
