"""A unit of work: one connection, one outcome."""

import asyncio

import pytest

from pgbreaker import PostgreSQLCircuitBreakerConfig, Target
from pgbreaker.core.states import Outcome, State
from pgbreaker.guard.unit import SessionLostError, Unit
from pgbreaker.postgres.classify import Phase
from pgbreaker.testing import ManualClock

CONFIG = PostgreSQLCircuitBreakerConfig(slow_call=0.5, jitter=0.0)


class ServerError(Exception):
    """What a driver raises; the server's own five characters are what counts."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("told by the server")
        self.sqlstate = sqlstate


@pytest.fixture
def time():
    return ManualClock(100.0)


@pytest.fixture
def target(time):
    return Target("shop", CONFIG, clock=time.clock)


def totals(target, kind=None):
    return {name: n for name, n in target.breaker(kind).core.totals.items() if n}


def test_it_succeeds_when_the_connection_is_back_and_not_before(target):
    unit = Unit(target)
    unit.ask()
    unit.rest()
    before = totals(target)
    unit.end()
    unit.end()

    assert before == {}
    assert totals(target) == {"success": 1}


def test_a_failure_counts_at_once_and_once(target):
    unit = Unit(target)
    unit.ask()
    unit.fail(SessionLostError())
    at_once = totals(target)
    unit.fail(SessionLostError())
    unit.end()

    assert at_once == totals(target) == {"failure": 1}


@pytest.mark.parametrize("sqlstate", ["23505", "40001", "42P01", "22012", "25P02"])
def test_what_the_server_answers_to_mistakes_ends_nothing(target, sqlstate):
    unit = Unit(target)
    unit.ask()
    unit.fail(ServerError(sqlstate))
    assert not unit.is_over
    unit.ask()
    unit.rest()
    unit.end()

    assert totals(target) == {"success": 1}


def test_what_is_given_up_before_it_was_slow_counts_for_nothing(target):
    unit = Unit(target)
    unit.ask()
    unit.fail(asyncio.CancelledError())
    unit.end()

    assert totals(target) == {"released": 1}


def test_the_applications_own_time_is_not_the_servers(target, time):
    unit = Unit(target)
    time.advance(10)  # waiting for the pool
    unit.ask()
    time.advance(0.01)
    unit.rest()
    time.advance(60)  # an HTTP call within the session
    unit.end()

    assert totals(target) == {"success": 1}
    assert target.breaker().durations()[3] == 1  # up to 10 ms


def test_a_cancellation_is_judged_by_the_servers_time_alone(target, time):
    unit = Unit(target)
    time.advance(10)
    unit.ask()
    time.advance(0.1)
    unit.fail(asyncio.CancelledError())

    assert totals(target) == {"released": 1}


def test_only_while_the_server_is_asked_is_it_expected_back(target):
    flights = target.breaker().core.flights
    unit = Unit(target)
    waiting = flights.out
    unit.ask()
    asked = flights.out
    unit.rest()
    resting = flights.out
    unit.end()

    assert (waiting, asked, resting, flights.out) == (0, 1, 0, 0)


def test_sessions_that_ended_together_count_once(target, time):
    units = [Unit(target) for _ in range(20)]
    for unit in units:
        unit.made_at = time.at
        unit.phase = Phase.STATEMENT
    time.advance(5)
    for unit in units:
        unit.fail(SessionLostError())

    assert totals(target) == {"failure": 1, "released": 19}
    assert target.connect.core.totals["failure"] == 1
    assert target.breaker().state is State.CLOSED


def test_a_connection_that_cannot_be_made_is_never_one_of_many(target, time):
    for _ in range(5):
        unit = Unit(target)
        unit.made_at = 0.0
        unit.ask(Phase.CONNECT)
        unit.fail(ServerError("57P03"))
        time.advance(0.01)

    assert target.breaker().state is State.OPEN


def test_the_answer_to_a_commit_that_is_missing_is_never_repeated(target):
    unit = Unit(target)
    unit.ask(Phase.COMMIT)
    judgement = unit.fail(SessionLostError())

    assert judgement.classification.retry == "never"
    assert judgement.classification.outcome == "unknown"


def test_what_came_to_nothing_gives_its_trial_back(target, time):
    breaker = target.breaker()
    for _ in range(5):
        breaker.record(breaker.acquire(), ConnectionResetError())
    time.advance(1000)
    Unit(target).drop()

    assert breaker.state is State.HALF_OPEN
    Unit(target).end()
    assert breaker.core.totals["success"] == 1


def test_an_unclear_timeout_in_a_block_of_the_users_is_not_the_servers(target):
    unit = Unit(target)
    unit.ask()
    judgement = unit.fail(TimeoutError())
    unit.end()

    assert judgement.outcome is Outcome.IGNORED
    assert totals(target) == {"success": 1}
