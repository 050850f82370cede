"""Replays of what was recorded by hand; one of a real outage is in the integration tests."""

from dataclasses import replace

import pytest

from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON, Policy
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Cause, Evidence, Override, State, Transition
from pgbreaker.monitor.replay import Course, replay, weighed
from pgbreaker.sinks.record import Begun, Heard, Rules

PROBES = {
    "ping": ProbePlan(interval=1.0, timeout=0.5),
    "latency": ProbePlan(interval=1.0, timeout=2.0, limit=1.0, query="SELECT 1"),
    "replication": ProbePlan(interval=5.0, timeout=1.0, limit=30.0),
}
LOST = Evidence("timeout", "no answer", None, "ping")


def plan_of(policy: Policy = DAEMON, **more) -> TargetPlan:
    dsn = Secret("postgresql://me@db/app")
    return TargetPlan(
        name="main", dsn=dsn, probes=PROBES, policy=policy, operations=("read",), **more
    )


def ping(at: float, *, good: bool = True, took: float = 0.001, **more) -> Heard:
    finding = Finding.OK if good else Finding.TIMEOUT
    evidence = None if good else LOST
    more = {"judged": True, **more}
    return Heard(
        Reading("main", "ping", at, took, finding, evidence=evidence, **more), at + took
    )


def begun(policy: Policy = DAEMON, **more) -> Begun:
    rules = {"main": Rules(("read",), policy)}
    return Begun(**{"at": 0.0, "goes_on": False, "targets": rules, **more})


def opened_at(at: float, retry_after: float = 1.0) -> Transition:
    return Transition(
        *("main/read", State.CLOSED, State.OPEN, Cause.FAILURE_RUN, "it failed"),
        *(at, 1, retry_after, LOST),
    )


def states(course: Course) -> list[State]:
    return [move.after for move in course.moves]


def test_a_lower_threshold_would_have_opened_where_really_nothing_did():
    recorded = [begun(), ping(1), ping(2, good=False), ping(3, good=False), ping(4)]
    patient = replay(lambda: recorded, [plan_of(replace(DAEMON, failure_threshold=3))])
    strict = replay(lambda: recorded, [plan_of(replace(DAEMON, failure_threshold=1))])

    assert states(patient.simulated["main/read"]) == []
    assert states(strict.simulated["main/read"])[0] is State.OPEN
    assert strict.simulated["main/read"].moves[0].at == pytest.approx(2.001)
    assert states(strict.really["main/read"]) == []


def test_what_was_only_shown_tells_no_breaker():
    shown = [ping(n, good=False, judged=False) for n in range(1, 9)]

    done = replay(lambda: [begun(), *shown], [plan_of()])

    assert done.readings == 8
    assert states(done.simulated["main/read"]) == []


def test_what_was_confirmed_opens_at_once():
    done = replay(lambda: [begun(), ping(1, good=False, confirmed=True)], [plan_of()])

    (move,) = done.simulated["main/read"].moves
    assert move.cause is Cause.CONFIRMED


@pytest.mark.parametrize("lot", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("wait", [1.0, 2.0, 4.0, 60.0])
def test_a_wait_is_as_long_as_it_really_was(lot, wait):
    """By the lot that was drawn then, whichever opening in a row it was."""
    really = wait * (1 + DAEMON.jitter * lot)
    recorded = [
        begun(),
        ping(1, good=False, confirmed=True),
        opened_at(1.001, retry_after=really),
    ]

    done = replay(lambda: recorded, [plan_of()])

    (move,) = done.simulated["main/read"].moves
    assert move.retry_after == pytest.approx(1 + DAEMON.jitter * lot)


def test_somebodys_word_is_counted_and_not_replayed():
    override = Override(State.FORCED_OPEN, "a test", "me", None)
    taken = Transition(
        *("main/read", State.CLOSED, State.FORCED_OPEN, Cause.OVERRIDDEN, "forced"),
        *(2.0, 1),
        override=override.state,
    )

    done = replay(lambda: [begun(), ping(1), taken, ping(3)], [plan_of()])

    assert done.overridden == 1
    assert states(done.really["main/read"]) == []


def test_another_target_is_named_and_left_out():
    other = Heard(Reading("other", "ping", 1.0, 0.1, Finding.OK, judged=True), 1.1)

    done = replay(lambda: [begun(), other, ping(2)], [plan_of()])

    assert done.unknown == {"other"}
    assert done.readings == 1


def test_only_one_target_is_looked_at_when_that_is_wanted():
    plans = [plan_of(), replace(plan_of(), name="other")]
    other = Heard(Reading("other", "ping", 1.0, 0.1, Finding.OK, judged=True), 1.1)

    done = replay(lambda: [begun(), other, ping(2)], plans, only="main")

    assert set(done.simulated) == {"main/read"}
    assert done.readings == 1


# -- Limits that are others now ----------------------------------------------------


@pytest.mark.parametrize(
    ("took", "slow_call", "finding"),
    [
        (0.3, 0.25, Finding.SLOW),
        (0.3, 0.5, Finding.OK),
        (0.3, None, Finding.OK),
    ],
)
def test_a_ping_is_slow_by_the_rules_that_are_tried(took, slow_call, finding):
    reading = ping(1, took=took).reading
    plan = plan_of(replace(DAEMON, slow_call=slow_call))

    assert weighed(reading, plan).finding is finding
    assert weighed(replace(reading, finding=Finding.SLOW), plan).finding is finding


def test_a_canary_and_a_lag_are_weighed_anew():
    canary = Reading("main", "latency", 1.0, 0.5, Finding.OK)
    lag = {
        "replay_age_seconds": 20.0,
        "wal_receiver_up": 1,
        "wal_receiver_wanted": True,
    }
    replica = Reading("main", "replication", 1.0, 0.1, Finding.OK, values=lag)

    def plan(limit: float | None) -> TargetPlan:
        probes = {n: replace(p, limit=limit) for n, p in PROBES.items()}
        return replace(plan_of(), probes=probes)

    assert weighed(canary, plan(0.1)).finding is Finding.SLOW
    assert weighed(canary, plan(1.0)).finding is Finding.OK
    assert weighed(replica, plan(10.0)).finding is Finding.LAGGING
    assert weighed(replica, plan(30.0)).finding is Finding.OK
    bad = weighed(replica, plan(10.0))
    assert weighed(bad, plan(None)).finding is Finding.OK
    assert weighed(bad, plan(None)).evidence is None


@pytest.mark.parametrize("finding", [Finding.LOST, Finding.TIMEOUT, Finding.AUTH])
def test_what_was_not_answered_is_as_bad_by_any_rules(finding):
    reading = Reading("main", "ping", 1.0, 0.5, finding, evidence=LOST)

    assert weighed(reading, plan_of()) is reading


# -- Time ---------------------------------------------------------------------------


def test_the_time_not_closed_is_added_up_to_the_end():
    def move(before: State, after: State, at: float) -> Transition:
        return Transition("b", before, after, Cause.COOLED, "", at, 1)

    course = Course(
        [
            move(State.CLOSED, State.OPEN, 10),
            move(State.OPEN, State.HALF_OPEN, 12),
            move(State.HALF_OPEN, State.CLOSED, 13),
            move(State.CLOSED, State.OPEN, 20),
        ]
    )

    assert course.openings == 2
    assert course.shut_for(25) == 3 + 5
