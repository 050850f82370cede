"""What Prometheus gets: well formed, complete from the start, and cheap."""

import asyncio
import tracemalloc
import zlib
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.condition import Condition
from pgbreaker.core.maintenance import Window
from pgbreaker.core.metric import Family, Shown, counter, gauge
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.report import report_of
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence, Outcome, Override, State
from pgbreaker.sinks.board import Board, Elsewhere, TargetBoard
from pgbreaker.sinks.exposition import (
    OPENMETRICS,
    TEXT,
    Histogram,
    SpanIds,
    escape,
    head,
    opened,
    reference,
    shown_families,
)
from pgbreaker.sinks.hub import NOTICES, Hub, Notice
from pgbreaker.sinks.metrics import (
    _WRITTEN,
    CLOCK_STEPS,
    FAMILIES,
    OWN,
    SHARED,
    Metrics,
)
from pgbreaker.sinks.tally import Tally
from support.boards import Scene, Stopped
from support.tools import need

USUAL = (
    *("ping", "login", "commit", "identity", "saturation", "blocking", "replication"),
    *("slots", "database", "statements", "wal_ckpt", "maintenance", "size"),
)
NASTY = ['a"b', "a\\b", "a\nb", "a,b={}", "ä → ü", 'all "of\\n\nit']
STALE = Evidence("timeout", "no answer within 500 ms", probe="ping")
WINDOW = Window(
    id=1,
    targets=("env=prod", "main"),
    reason="a new disk",
    author="mia",
    starts=1_800_000_000.0,
    ends=1_800_000_200.0,
)
REPORT = report_of(
    {
        "instance": 'web-1"} 1',
        "application": 'shop"} 1',
        "breakers": [{"name": 'a"} 1', "follows": "main/read", "state": "open"}],
    }
)
CANARY = ProbePlan(interval=5.0, timeout=2.0, limit=0.25, query="SELECT 1")


def watched(*names: str, shown=(), **more) -> tuple[Scene, Metrics]:
    scene = Scene(names or ("main",), **more)
    metrics = Metrics(scene.board, "1.2.3", shown)
    scene.also(metrics)
    return scene, metrics


def usual_target(
    labels: Mapping[str, str] = MappingProxyType({}), **more: ProbePlan
) -> tuple[TargetBoard, Metrics, Hub]:
    """A target with all that one has who says nothing but its address, and *more*."""
    clock = Stopped().clock()
    plan = TargetPlan(
        name="main",
        dsn=Secret("postgresql://db/postgres"),
        labels=labels,
        operations=("connect", "read", "write"),
        probes={probe: ProbePlan(interval=5.0, timeout=1.0) for probe in USUAL} | more,
    )
    breakers = {
        operation: RuledBreaker(f"main/{operation}", DAEMON, clock.now())
        for operation in plan.operations
    }
    board = Board([TargetBoard(plan, breakers, clock)], clock)
    metrics = Metrics(board, "1.2.3")
    return board.targets["main"], metrics, Hub([board, metrics])


def parsed(text: str, parse=parse_text) -> dict[str, dict[tuple, float]]:
    found: dict[str, dict[tuple, float]] = {}
    for family in parse(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


async def samples(metrics: Metrics) -> dict[str, dict[tuple, float]]:
    return parsed(await metrics.render())


def at(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(({"target": "main"} | labels).items()))


def of(operation: str, **labels: str) -> tuple[tuple[str, str], ...]:
    return at(operation=operation, breaker=f"main/{operation}", **labels)


# Complete, and no more than that.


async def test_everything_promised_is_there_before_anything_has_happened():
    _, metrics = watched("a", "b")

    found = await samples(metrics)

    assert {dict(k)["target"]: v for k, v in found["pgbreaker_target_up"].items()} == {
        "a": 0,
        "b": 0,
    }
    assert len(found["pgbreaker_breaker_state"]) == 2 * 3 * len(State)
    assert set(found["pgbreaker_probes_total"].values()) == {0}
    assert {dict(k)["code"] for k in found["pgbreaker_notices_total"]} == set(NOTICES)
    unknown = (("state", "unknown"), ("target", "a"))
    assert found["pgbreaker_target_state"][unknown] == 1


async def test_a_usual_target_costs_so_many_series():
    """Of the 250 that a target may have, 68 are left for what its probes see."""
    target, metrics, hub = usual_target()
    for probe in USUAL:
        values = {"version": 170010, "system_id": "77"} if probe == "identity" else {}
        hub.publish(Reading("main", probe, 100.0, 0.002, Finding.OK, values))

    found = await samples(metrics)

    ours = [k for series in found.values() for k in series if dict(k).get("target")]
    assert hub.dropped == 0
    assert set(target.readings) == set(USUAL)
    assert len(ours) == 182


async def test_what_applications_report_is_of_our_own_breakers_alone():
    """Nobody who reports makes a series by a name of theirs."""
    scene, metrics = watched()
    reports = scene.board.reports
    before = await samples(metrics)
    assert "pgbreaker_application_processes" not in before

    assert reports.take(REPORT, None, scene.time.now)
    unknown = report_of(
        {
            "instance": "web-2",
            "breakers": [
                {"name": f"b{n}", "follows": f"other/{n}", "state": "open"}
                for n in range(200)
            ],
        }
    )
    assert reports.take(unknown, None, scene.time.now)
    found = await samples(metrics)

    assert found["pgbreaker_reporters"] == {(): 2}
    assert found["pgbreaker_application_processes"] == {of("read"): 1}
    assert found["pgbreaker_application_processes_open"] == {
        of("read", by="calls"): 1,
        of("read", by="advice"): 0,
        of("read", by="operator"): 0,
    }
    assert "web-1" not in await metrics.render()

    scene.time.now += 15.0
    assert (await samples(metrics)).keys() == before.keys()


async def test_every_family_is_written_when_everything_has_happened():
    target, metrics, hub = usual_target({"env": "prod"}, latency=CANARY)
    told = {"version": 170010, "system_id": "77"}
    hub.publish(Reading("main", "identity", 100.0, 0.002, Finding.OK, told))
    gone = Reading(
        *("main", "ping", 100.0, 0.5, Finding.TIMEOUT), evidence=STALE, confirmed=True
    )
    opening(target, hub, "read", gone)
    override = Override(State.FORCED_OPEN, "failover", "ana")
    target.breakers["write"].force(override, 100.0)
    target.breakers["connect"].rule(State.CLOSED, "0 of 2 daemons see it open", 100.0)
    target.windows = {1: WINDOW}
    for family in SHARED:
        metrics.own(family, lambda: 1.0)
    target.reports.take(REPORT, None, 100.0)

    text = await metrics.render()

    for name in {**FAMILIES, **OWN}:
        assert f"# TYPE {name} " in text, name


async def test_a_server_is_called_by_the_name_of_its_release():
    _target, metrics, hub = usual_target()
    values = {"version": 170010, "system_id": "77"}
    hub.publish(Reading("main", "identity", 100.0, 0.002, Finding.OK, values))

    (series,) = (await samples(metrics))["pgbreaker_server_info"]

    assert dict(series)["version"] == "17.10"


async def test_maintenance_is_told_while_it_lasts():
    scene, metrics = watched("main", "other")
    scene.board.windows[1] = WINDOW
    seen = []
    for now in (100.0, 199.9, 200.0):
        scene.time.now = now
        seen.append((await samples(metrics)).get("pgbreaker_maintenance", {}))

    assert seen == [{at(): 1.0}, {at(): 1.0}, {}]


async def test_overrides_are_counted():
    scene, metrics = watched()
    breaker = scene.board.targets["main"].breakers["read"]
    breaker.force(Override(State.DISABLED, "failover", "ana"), 100.0)

    assert (await samples(metrics))["pgbreaker_overrides"][()] == 1


# Targets that come and go.


def configured_anew(scene: Scene, **changes) -> TargetBoard:
    """The target main of another plan, in the place of the one that is there."""
    old = scene.board.targets["main"]
    breakers = {
        operation: Breaker(f"main/{operation}", DAEMON, scene.time.now)
        for operation in changes.get("operations", old.plan.operations)
    }
    new = TargetBoard(replace(old.plan, **changes), breakers, scene.clock)
    new.inherit(old)
    scene.board.add(new)
    return new


async def test_a_target_that_is_removed_vanishes_and_one_that_comes_is_there():
    scene, metrics = watched("main", "other")
    gone = scene.board.targets["main"]
    scene.board.remove("main")
    scene.read()  # was under way
    for move in gone.breakers["read"].observe(Outcome.FAILURE, 100.0, confirmed=True):
        scene.hub.publish(move)
    scene.hub.publish(Notice("main", "restarted", "it was", 100.0))

    without = await samples(metrics)
    scene.board.add(gone)
    scene.read()
    again = await samples(metrics)

    assert scene.hub.dropped == 0
    named = {
        k for series in without.values() for k in series if ("target", "main") in k
    }
    assert named == set()
    assert (without["pgbreaker_targets"], again["pgbreaker_targets"]) == (
        {(): 1.0},
        {(): 2.0},
    )
    assert again["pgbreaker_probes_total"][at(probe="ping", outcome="ok")] == 1


async def test_a_target_that_is_configured_anew_goes_on_counting():
    scene, metrics = watched()
    scene.read()
    scene.open("read")
    scene.hub.publish(Notice("main", "restarted", "it was", 100.0))
    before = await samples(metrics)
    configured_anew(scene, labels={"env": "prod"}, operations=("read", "write"))

    after = await samples(metrics)

    def kept(found: dict) -> dict:
        return {
            name: {
                labels: value
                for labels, value in series.items()
                if ("operation", "connect") not in labels
            }
            for name, series in found.items()
            if name.startswith("pgbreaker_")
        }

    gained = {"pgbreaker_target_info"}
    changing = {"pgbreaker_series", "pgbreaker_scrape_duration_seconds"}
    before, after = kept(before), kept(after)
    assert set(after) - set(before) == gained
    for name in set(before) - changing:
        assert after[name] == before[name], name
    scene.read()
    found = await samples(metrics)
    assert found["pgbreaker_probes_total"][at(probe="ping", outcome="ok")] == 2


async def test_a_probe_that_is_configured_away_vanishes():
    scene, metrics = watched()
    scene.read()
    configured_anew(
        scene, probes={"ping": scene.board.targets["main"].plan.probes["ping"]}
    )
    scene.read("login")  # was under way

    found = await samples(metrics)

    assert scene.hub.dropped == 0
    assert not [
        key for key in found["pgbreaker_probes_total"] if ("probe", "login") in key
    ]


async def test_what_probes_show_is_replaced_or_stays():
    scene, metrics = watched(shown=[gauge("pgbreaker_cats", "Cats.", "cats")])
    scene.read(values={"cats": 3, "dogs": 2})
    with pytest.raises(ValueError, match="pgbreaker_targets is shown by a probe"):
        metrics.show([gauge("pgbreaker_targets", "Ours.", "cats")])
    before = await samples(metrics)

    metrics.show([gauge("pgbreaker_dogs", "Dogs.", "dogs")])
    after = await samples(metrics)

    assert before["pgbreaker_cats"] == {at(): 3.0}
    assert "pgbreaker_dogs" not in before
    assert after["pgbreaker_dogs"] == {at(): 2.0}
    assert "pgbreaker_cats" not in after


async def test_what_has_not_happened_yet_is_counted_as_0():
    """Or `increase` would not see it happen for the first time."""
    _, metrics, _ = usual_target(latency=CANARY)

    found = await samples(metrics)

    shared = {family.name for family in SHARED}
    known = {**FAMILIES, **OWN}.values()
    counters = {f.name for f in known if f.kind == "counter"} - shared
    for name in counters:
        assert set(found[name].values()) == {0}, name
    runs = found["pgbreaker_probes_total"]
    assert {dict(key)["probe"] for key in runs} == {*USUAL, "latency"}
    assert at(probe="ping", outcome="auth") in runs
    calls = found["pgbreaker_calls_total"]
    for operation in ("connect", "read", "write"):
        for outcome in ("success", "failure"):
            assert of(operation, outcome=outcome) in calls
    moves = found["pgbreaker_breaker_transitions_total"]
    assert {(dict(k)["from"], dict(k)["to"]) for k in moves} == {
        *(("closed", "open"), ("open", "half_open")),
        *(("half_open", "open"), ("half_open", "closed")),
    }


async def test_moves_that_nobody_makes_who_observes_are_not_told():
    _, metrics = watched()

    found = await samples(metrics)

    def causes(operation: str) -> set[str]:
        moves = found["pgbreaker_breaker_transitions_total"]
        return {
            c
            for k in moves
            if (d := dict(k))["operation"] == operation and (c := d["cause"])
        }

    ever = {
        "failure_rate",
        "failure_run",
        "confirmed",
        "cooled",
        "recovered",
        "relapsed",
    }
    assert causes("connect") == ever
    assert causes("read") == ever | {"slow_rate"}  # only a ping is ever slow


async def test_an_override_is_told_while_there_is_one():
    scene, metrics = watched()
    breaker = scene.board.targets["main"].breakers["read"]
    before = await samples(metrics)
    breaker.force(Override(State.FORCED_OPEN, "failover", "ana"), 100.0)

    found = await samples(metrics)

    assert "pgbreaker_breaker_override" not in before
    assert "pgbreaker_breaker_computed_state" not in before
    forced = of("read", state="forced_open")
    assert found["pgbreaker_breaker_override"] == {forced: 1}
    assert found["pgbreaker_breaker_state"][forced] == 1
    assert found["pgbreaker_breaker_state"][of("read", state="closed")] == 0
    assert found["pgbreaker_breaker_computed_state"][of("read", state="closed")] == 1


async def test_a_move_of_an_operator_is_counted():
    scene, metrics = watched()
    breaker = scene.board.targets["main"].breakers["read"]

    override = Override(State.FORCED_OPEN, "failover", "ana")
    scene.hub.publish(breaker.force(override, 100.0))
    found = await samples(metrics)

    move = {"from": "closed", "to": "forced_open", "cause": "overridden"}
    assert found["pgbreaker_breaker_transitions_total"][of("read", **move)] == 1
    assert scene.hub.dropped == 0


# Since when, and why.

LEFT = "pgbreaker_breaker_left_closed_timestamp_seconds"


def observe(scene: Scene, operation: str, outcome: Outcome, **more) -> None:
    breaker = scene.board.targets["main"].breakers[operation]
    for move in breaker.observe(outcome, scene.time.now, **more):
        scene.hub.publish(move)


async def test_when_it_left_closed_stays_the_same_until_it_does_so_again():
    scene, metrics = watched()
    before = (await samples(metrics))[LEFT]
    scene.open("connect")
    for _ in range(2):  # it relapses, and its state is of another moment
        scene.time.now += 100
        observe(scene, "connect", Outcome.SUCCESS)
        observe(scene, "connect", Outcome.FAILURE)
    relapsed = await samples(metrics)
    for _ in range(2):
        scene.time.now += 100
        observe(scene, "connect", Outcome.SUCCESS)
    recovered = (await samples(metrics))[LEFT]
    scene.open("connect")
    again = (await samples(metrics))[LEFT]

    assert before[of("connect")] == 0
    assert relapsed[LEFT][of("connect")] == 1_800_000_100
    since = relapsed["pgbreaker_breaker_state_since_timestamp_seconds"]
    assert since[of("connect")] == 1_800_000_300
    assert recovered[of("connect")] == 1_800_000_100
    assert again[of("connect")] == 1_800_000_500
    assert again[of("read")] == 0


async def test_it_leaves_closed_when_callers_feel_it():
    scene, metrics = watched()
    breaker = scene.board.targets["main"].breakers["connect"]

    async def left() -> float:
        return (await samples(metrics))[LEFT][of("connect")]

    quiet = Override(State.METRICS_ONLY, "to see what it would do", "ana")
    scene.hub.publish(breaker.force(quiet, 100.0))
    scene.open("connect")
    hidden = await left()
    back = breaker.resume(150.0)
    assert back is not None
    scene.hub.publish(back)
    felt = await left()
    shut = Override(State.FORCED_OPEN, "failover", "ana")
    scene.hub.publish(breaker.force(shut, 200.0))
    still = await left()

    assert (hidden, felt, still) == (0, 1_800_000_150, 1_800_000_150)


async def test_what_was_seen_against_it_is_told_until_it_is_closed():
    scene, metrics = watched()
    name = "pgbreaker_breaker_evidence"
    observe(scene, "connect", Outcome.FAILURE, evidence=STALE)
    closed = await metrics.render()

    scene.open("connect")
    found = await samples(metrics)
    for _ in range(2):
        scene.time.now += 100
        observe(scene, "connect", Outcome.SUCCESS)
    recovered = await metrics.render()

    assert name not in closed
    seen = of("connect", code="full", sqlstate="53300", probe="login")
    assert found[name] == {seen: 1}
    assert name not in recovered


@pytest.mark.parametrize(
    ("evidence", "labels"),
    [
        (STALE, {"code": "timeout", "sqlstate": "", "probe": "ping"}),
        (Evidence("full", sqlstate="lower"), {"code": "full", "sqlstate": ""}),
        (Evidence("a tale of words"), {"code": "other"}),
    ],
)
async def test_what_was_seen_is_told_in_words_of_closed_lists(evidence, labels):
    scene, metrics = watched()
    observe(scene, "read", Outcome.FAILURE, confirmed=True, evidence=evidence)

    found = await samples(metrics)

    usual = {"code": "", "sqlstate": "", "probe": ""}
    assert found["pgbreaker_breaker_evidence"] == {of("read", **usual | labels): 1}


# Counting.


async def test_it_counts_what_happens():
    scene, metrics = watched()
    scene.read()
    scene.open("connect")

    found = await samples(metrics)

    assert found["pgbreaker_probes_total"][at(probe="login", outcome="full")] == 1
    move = {"from": "closed", "to": "open", "cause": "confirmed"}
    moves = found["pgbreaker_breaker_transitions_total"]
    assert moves[of("connect", **move)] == 1
    assert sum(moves.values()) == 1
    state = found["pgbreaker_breaker_state"]
    assert state[of("connect", state="open")] == 1
    assert state[of("connect", state="closed")] == 0
    assert found["pgbreaker_target_up"][at()] == 1
    name = "pgbreaker_probe_last_success_timestamp_seconds"
    assert found[name][at(probe="ping")] == 1_800_000_100.002
    name = "pgbreaker_calls_total"
    assert found[name][of("connect", outcome="failure")] == 1


async def test_what_was_not_counted_on_is_counted_all_the_same():
    scene, metrics = watched()
    scene.read("ping", Finding.WRONG_ROLE)
    scene.hub.publish(Notice("main", 'new"kind', "something new", 100.0))

    found = await samples(metrics)

    name = "pgbreaker_probes_total"
    assert found[name][at(probe="ping", outcome="wrong_role")] == 1
    assert found["pgbreaker_notices_total"][at(code='new"kind')] == 1


async def test_logins_and_commits_are_timed_when_they_are_made():
    _, metrics, hub = usual_target()
    for probe, took, finding in (
        ("login", 0.030, Finding.OK),
        ("login", 1.000, Finding.TIMEOUT),
        ("commit", 0.031, Finding.OK),
        ("commit", 2.000, Finding.TIMEOUT),
        ("size", 4.0, Finding.OK),
    ):
        hub.publish(
            Reading("main", probe, 100.0, took, finding, connecting=0.02, late=0.3)
        )

    found = await samples(metrics)

    assert found["pgbreaker_login_duration_seconds_count"] == {at(): 1}
    assert found["pgbreaker_login_duration_seconds_sum"] == {at(): 0.02}
    assert found["pgbreaker_commit_duration_seconds_count"] == {at(): 1}
    assert found["pgbreaker_commit_duration_seconds_sum"][at()] == pytest.approx(0.011)
    assert found["pgbreaker_probe_seconds_total"][at(probe="size")] == 4.0
    late = found["pgbreaker_schedule_lateness_seconds_bucket"]
    assert (late[(("le", "0.1"),)], late[(("le", "0.5"),)]) == (0, 5)
    assert found["pgbreaker_probe_lateness_seconds_count"] == {at(probe="ping"): 0}


async def test_a_canary_is_timed_when_it_is_answered():
    _, metrics, hub = usual_target(latency=CANARY)
    _, without, _ = usual_target()
    for took, finding in (
        (0.030, Finding.OK),
        (1.620, Finding.SLOW),  # the server gave it up
        (0.0, Finding.TIMEOUT),  # not asked: the server is gone
    ):
        reading = Reading("main", "latency", 100.0, took, finding, connecting=0.02)
        hub.publish(reading)

    found = await samples(metrics)

    name = "pgbreaker_canary_duration_seconds"
    assert found[f"{name}_count"] == {at(): 2}
    assert found[f"{name}_sum"][at()] == pytest.approx(1.61)
    assert at(probe="latency") not in found["pgbreaker_probe_seconds_total"]
    assert name not in await without.render()


async def test_a_limit_is_told_where_there_is_one():
    replica = ProbePlan(interval=5.0, timeout=1.0, limit=30.0)
    _, metrics, _ = usual_target(latency=CANARY, replication=replica)
    _, without, _ = usual_target()

    found = await samples(metrics)

    name = "pgbreaker_probe_limit_seconds"
    assert found[name] == {at(probe="latency"): 0.25, at(probe="replication"): 30}
    assert name not in await without.render()


async def test_the_time_between_runs_is_that_of_the_moment():
    target, metrics, _ = usual_target()
    target.intervals["size"] = 3600.0

    found = await samples(metrics)

    intervals = found["pgbreaker_probe_interval_seconds"]
    assert intervals[at(probe="size")] == 3600
    assert intervals[at(probe="ping")] == 5


async def test_detection_is_from_the_first_bad_reading_to_the_opening():
    scene, metrics = watched()
    breaker = scene.board.targets["main"].breakers["read"]
    before = await samples(metrics)

    def fail(**more) -> None:
        scene.read("ping", Finding.TIMEOUT, evidence=STALE, **more)
        for move in breaker.observe(
            Outcome.FAILURE, scene.time.now, **more, evidence=STALE
        ):
            scene.hub.publish(move)

    fail()
    scene.time.now = 101.0
    scene.read("ping")  # that was another trouble
    scene.time.now = 102.0
    scene.read("ping", Finding.TIMEOUT, evidence=STALE)
    scene.time.now = 102.75
    fail(confirmed=True)
    found = await samples(metrics)

    assert "pgbreaker_detection_seconds_count" not in before
    name = "pgbreaker_detection_seconds"
    assert found[f"{name}_count"] == {at(fault_class="timeout"): 1}
    assert found[f"{name}_sum"] == {at(fault_class="timeout"): 0.75}


def opening(target: TargetBoard, hub: Hub, operation: str, *bad: Reading) -> None:
    """Tell of readings that fail, and of the move that they bring about."""
    for reading in bad:
        hub.publish(reading)
        moves = target.breakers[operation].observe(
            Outcome.FAILURE,
            reading.at + reading.took,
            confirmed=reading.confirmed,
            evidence=reading.evidence,
        )
        for move in moves:
            hub.publish(move)


async def test_good_pings_between_failing_commits_are_no_end_of_the_trouble():
    target, metrics, hub = usual_target()

    for n in range(3):
        late = Evidence("timeout", "no answer within 2 s", probe="commit")
        begun = 100.0 + 5 * n
        bad = Reading("main", "commit", begun, 2.0, Finding.TIMEOUT, evidence=late)
        opening(target, hub, "write", bad)
        hub.publish(Reading("main", "ping", begun + 3.0, 0.001, Finding.OK))
    found = await samples(metrics)

    name = "pgbreaker_detection_seconds"
    assert target.breakers["write"].state is State.OPEN
    assert found[f"{name}_sum"] == {at(fault_class="timeout"): 12.0}


async def test_a_ping_that_proves_the_server_dead_is_the_first_sign_for_every_work():
    """``write`` is decided by commits, none of which has come back yet."""
    target, metrics, hub = usual_target()
    hub.publish(
        Reading("main", "ping", 100.0, 0.5, Finding.TIMEOUT, evidence=STALE),
    )
    sure = Reading(
        *("main", "ping", 101.0, 0.5, Finding.TIMEOUT), evidence=STALE, confirmed=True
    )

    opening(target, hub, "write", sure)

    found = await samples(metrics)
    assert found["pgbreaker_detection_seconds_sum"] == {at(fault_class="timeout"): 1.5}


async def test_what_speaks_for_nothing_is_no_first_sign():
    target, metrics, hub = usual_target()
    wrong = Evidence("auth", "password authentication failed", "28P01", "login")
    hub.publish(Reading("main", "login", 10.0, 0.1, Finding.AUTH, evidence=wrong))
    full = Evidence("full", "sorry, too many clients already", "53300", "login")
    sure = Reading(
        *("main", "login", 100.0, 0.25, Finding.FULL), evidence=full, confirmed=True
    )

    opening(target, hub, "connect", sure)

    found = await samples(metrics)
    assert found["pgbreaker_detection_seconds_sum"] == {at(fault_class="full"): 0.25}


async def test_opening_again_is_no_detection():
    scene, metrics = watched()
    scene.open("connect")
    breaker = scene.board.targets["main"].breakers["connect"]
    scene.time.now += 100
    scene.read("login")
    for outcome in (Outcome.SUCCESS, Outcome.FAILURE):
        if outcome is Outcome.FAILURE:
            scene.read("login", Finding.TIMEOUT, evidence=STALE)
        for move in breaker.observe(outcome, scene.time.now, evidence=STALE):
            scene.hub.publish(move)

    found = await samples(metrics)

    assert breaker.state is State.OPEN
    assert sum(found["pgbreaker_detection_seconds_count"].values()) == 1


# What probes show.

STANDBYS = gauge(
    "pgbreaker_lag_bytes", "How far behind.", "lag", rows="standbys", by=("standby",)
)


async def test_a_value_becomes_a_series_when_it_is_a_number():
    shown = [
        gauge("pgbreaker_a", "A.", "a"),
        gauge("pgbreaker_state", "B.", "is_b", labels={"kind": 'b"'}),
        gauge("pgbreaker_state", "Other words.", "is_c", labels={"kind": "c"}),
        gauge("pgbreaker_state", "B.", "none", labels={"kind": "none"}),
        gauge("pgbreaker_text", "Text.", "text"),
        gauge("pgbreaker_missing", "Missing.", "missing"),
        counter("pgbreaker_d_total", "D.", "d"),
    ]
    scene, metrics = watched("main", "other", shown=shown)
    values = {"a": 1.5, "is_b": True, "is_c": False, "none": None, "text": "x", "d": 7}
    scene.read(values=values)

    text = await metrics.render()

    found = parsed(text)
    assert found["pgbreaker_a"] == {at(): 1.5}
    assert found["pgbreaker_state"] == {at(kind='b"'): 1, at(kind="c"): 0}
    assert found["pgbreaker_d_total"] == {at(): 7}
    assert "pgbreaker_text" not in text
    assert "pgbreaker_missing" not in text
    assert "Other words" not in text


@pytest.mark.parametrize("name", NASTY)
async def test_a_row_becomes_a_series(name):
    scene, metrics = watched(shown=[STANDBYS])
    rows = (
        {"standby": name, "lag": 5},
        {"standby": "b", "lag": None},
        {"standby": None, "lag": 1},
        {"standby": 12, "lag": 2},
        {"standby": name, "lag": 9},  # of the same name as the first
    )
    scene.read(values={"standbys": rows})

    found = await samples(metrics)

    assert found["pgbreaker_lag_bytes"] == {
        at(standby=name): 5,
        at(standby=""): 1,
        at(standby="12"): 2,
    }


async def test_rows_that_are_none_make_no_series():
    scene, metrics = watched(shown=[STANDBYS])
    scene.read(values={"standbys": None})

    assert "pgbreaker_lag_bytes" not in await metrics.render()


def test_metrics_that_share_a_name_have_all_of_their_labels_in_the_reference():
    shown = [
        gauge("pgbreaker_a", "A.", "a"),
        gauge("pgbreaker_a", "Not A.", "b", labels={"kind": "b"}),
        gauge("pgbreaker_a", "Nor.", "c", rows="r", by=("database",)),
    ]

    families = shown_families(shown)

    assert families == {
        "pgbreaker_a": Family(
            "pgbreaker_a", "gauge", "A.", ("target", "kind", "database")
        )
    }
    assert "`target`, `kind`, `database`" in reference(families)


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (
            [
                gauge("pgbreaker_a", "A.", "a"),
                Shown(family=Family("pgbreaker_a", "counter", "A."), value="a"),
            ],
            "pgbreaker_a is shown as a gauge and as a counter",
        ),
        (
            [counter("pgbreaker_a", "A.", "a")],
            "pgbreaker_a is a counter: counters, and they alone, end _total",
        ),
        (
            [gauge("pgbreaker_target_up", "Up.", "a")],
            "pgbreaker_target_up is shown by a probe, and is ours already",
        ),
        (
            [gauge("pgbreaker_a", "A.", "a"), counter("pgbreaker_a_total", "A.", "b")],
            "pgbreaker_a_total and pgbreaker_a are one name in OpenMetrics",
        ),
        (
            [gauge("pgbreaker_calls", "Calls.", "a")],
            "pgbreaker_calls_total and pgbreaker_calls are one name in OpenMetrics",
        ),
        (
            [counter("pgbreaker_targets_total", "Targets.", "a")],
            "pgbreaker_targets_total and pgbreaker_targets are one name in OpenMetrics",
        ),
    ],
    ids=["kinds", "suffix", "ours", "stem", "stem of targets", "stem of our own"],
)
def test_metrics_that_cannot_be_are_refused(shown, says):
    with pytest.raises(ValueError, match=says):
        watched(shown=shown)


# The daemon's own.


async def test_the_daemon_tells_numbers_of_its_own():
    _, metrics = watched()
    before = await samples(metrics)
    metrics.own(CLOCK_STEPS, lambda: 3)
    metrics.own(Family("pgbreaker_naps", "gauge", "Naps."), lambda: 0.5)

    found = await samples(metrics)

    assert before["pgbreaker_clock_steps_total"] == {(): 0}
    assert found["pgbreaker_clock_steps_total"] == {(): 3}
    assert found["pgbreaker_naps"] == {(): 0.5}
    assert found["pgbreaker_targets"] == {(): 1}
    with pytest.raises(
        ValueError, match="pgbreaker_target_up is not for others to tell"
    ):
        metrics.own(FAMILIES["pgbreaker_target_up"], lambda: 0)
    with pytest.raises(ValueError, match="one name in OpenMetrics"):
        metrics.own(Family("pgbreaker_naps_total", "counter", "Naps."), lambda: 0)


@pytest.mark.parametrize("openmetrics", [False, True])
async def test_a_scrape_counts_its_series(openmetrics):
    _, metrics = watched()
    text = await metrics.render(openmetrics=openmetrics)

    found = await samples(metrics)

    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert found["pgbreaker_series"] == {(): len(lines)}
    assert 0 < found["pgbreaker_scrape_duration_seconds"][()] < 5


# What leads to a trace.


class Noted:
    """Makes a span of every event, of which a test says whether it is sent.

    Attributes:
        current: The span of the last event. None: it is not sent.
        sent: Spans sent; failed: those that were not.
    """

    def __init__(self) -> None:
        self.current: SpanIds | None = None
        self.sent, self.failed = 7, 3


def span(number: int) -> SpanIds:
    return f"{number:032x}", f"{number:016x}"


async def exemplars(metrics: Metrics) -> dict[str, dict[tuple, tuple]]:
    """Trace, value and moment of every exemplar, by series."""
    found: dict[str, dict[tuple, tuple]] = {}
    for family in parse_openmetrics(await metrics.render(openmetrics=True)):
        for sample in family.samples:
            if sample.exemplar is not None:
                one, key = sample.exemplar, tuple(sorted(sample.labels.items()))
                assert one.labels.keys() == {"trace_id", "span_id"}
                trace_id, at_ = one.labels["trace_id"], float(one.timestamp)
                told = (int(trace_id, 16), one.value, at_)
                found.setdefault(sample.name, {})[key] = told
    return found


async def test_a_bucket_leads_to_the_last_trace_that_fell_into_it():
    _, metrics, hub = usual_target(latency=CANARY)
    noted = Noted()
    metrics.lead_to(noted)
    for number, (probe, took) in enumerate(
        [
            *(("ping", 0.002), ("ping", 0.02), ("ping", 0.0021)),
            *(("login", 0.04), ("commit", 0.03), ("latency", 0.2)),
        ],
        start=1,
    ):
        noted.current = span(number)
        hub.publish(
            Reading("main", probe, 100.0, took, Finding.OK, connecting=took / 2)
        )
    noted.current = None
    hub.publish(Reading("main", "ping", 200.0, 0.0022, Finding.OK))

    found = await exemplars(metrics)

    assert found == {
        "pgbreaker_probe_duration_seconds_bucket": {
            at(probe="ping", le="0.0025"): (3, 0.0021, 1_800_000_100.002),
            at(probe="ping", le="0.025"): (2, 0.02, 1_800_000_100.02),
        },
        "pgbreaker_login_duration_seconds_bucket": {
            at(le="0.025"): (4, 0.02, 1_800_000_100.04)
        },
        "pgbreaker_commit_duration_seconds_bucket": {
            at(le="0.05"): (5, 0.015, 1_800_000_100.03)
        },
        "pgbreaker_canary_duration_seconds_bucket": {
            at(le="0.1"): (6, 0.1, 1_800_000_100.2)
        },
    }


async def test_a_move_and_its_detection_lead_to_the_trace_of_the_move():
    target, metrics, hub = usual_target()
    noted = Noted()
    metrics.lead_to(noted)
    noted.current = span(9)
    sure = Reading(
        *("main", "ping", 100.0, 0.5, Finding.TIMEOUT), evidence=STALE, confirmed=True
    )

    opening(target, hub, "read", sure)
    found = await exemplars(metrics)

    move = {"from": "closed", "to": "open", "cause": "confirmed"}
    assert found["pgbreaker_breaker_transitions_total"] == {
        of("read", **move): (9, 1, 1_800_000_100.5)
    }
    assert found["pgbreaker_detection_seconds_bucket"] == {
        at(fault_class="timeout", le="1.0"): (9, 0.5, 1_800_000_100.5)
    }


async def test_the_older_format_knows_no_exemplars():
    target, metrics, hub = usual_target()
    noted = Noted()
    metrics.lead_to(noted)
    noted.current = span(9)
    sure = Reading(
        *("main", "ping", 100.0, 0.5, Finding.TIMEOUT), evidence=STALE, confirmed=True
    )
    opening(target, hub, "read", sure)

    plain, led = await metrics.render(), await metrics.render(openmetrics=True)

    assert "trace_id" not in plain
    assert "trace_id" in led
    volatile = ("process_", "python_", "pgbreaker_s")
    of_both = (
        {n: v for n, v in parsed(text, parse).items() if not n.startswith(volatile)}
        for text, parse in ((plain, parse_text), (led, parse_openmetrics))
    )
    assert next(of_both) == next(of_both)


async def test_a_label_that_looks_like_an_exemplar_is_a_label():
    odd = 'x # {trace_id="1"} 2'
    shown = [counter("pgbreaker_b_total", "B.", "b", rows="rows", by=("database",))]
    scene, metrics = watched(shown=shown)
    metrics.lead_to(Noted())
    scene.read(values={"rows": ({"database": odd, "b": 5},)})

    found = await samples(metrics)

    assert found["pgbreaker_b_total"] == {at(database=odd): 5}


async def test_spans_are_counted_where_there_are_traces():
    _, metrics = watched()
    before = await samples(metrics)

    metrics.lead_to(Noted())
    found = await samples(metrics)

    assert before["pgbreaker_spans_sent_total"] == {(): 0}
    assert found["pgbreaker_spans_sent_total"] == {(): 7}
    assert found["pgbreaker_spans_failed_total"] == {(): 3}


# The format.


@pytest.mark.parametrize("value", NASTY)
async def test_labels_of_any_text_come_back_as_they_were(value):
    _, metrics = watched(labels={"note": value})

    for text, parse in (
        (await metrics.render(), parse_text),
        (await metrics.render(openmetrics=True), parse_openmetrics),
    ):
        (labels,) = parsed(text, parse)["pgbreaker_target_info"]
        assert dict(labels)["label_note"] == value


async def test_both_formats_say_the_same_and_parse():
    shown = [
        gauge("pgbreaker_a", 'With "quotes", a \\ and\na new line.', "a"),
        counter("pgbreaker_b_total", "B.", "b", rows="rows", by=("database",)),
    ]
    scene, metrics = watched("main", "other", shown=shown)
    scene.read(values={"a": 1e-9, "rows": ({"database": "x", "b": 10**20},)})
    scene.open()
    volatile = ("process_", "python_", "pgbreaker_s")  # the latter of the last scrape

    plain = {f.name.removesuffix("_total") for f in parse_text(await metrics.render())}
    open_text = await metrics.render(openmetrics=True)

    assert plain == {f.name for f in parse_openmetrics(open_text)}
    assert open_text.endswith("# EOF\n")
    both = (
        {
            name: series
            for name, series in found.items()
            if not name.startswith(volatile)
        }
        for found in (await samples(metrics), parsed(open_text, parse_openmetrics))
    )
    assert next(both) == next(both)


@pytest.mark.parametrize(
    ("openmetrics", "generate", "parse"),
    [
        (False, generate_latest, parse_text),
        (True, generate_openmetrics, parse_openmetrics),
    ],
    ids=["text", "openmetrics"],
)
async def test_it_is_what_the_usual_writer_makes_of_an_equal_registry(
    openmetrics, generate, parse
):
    scene, metrics = watched(labels={"note": NASTY[-1]})
    scene.read()
    scene.open("connect")
    registry = CollectorRegistry()

    def labelled(kind, name, says, labels, **more):
        made = kind(name, says, labels.keys(), registry=registry, **more)
        return made.labels(**labels)

    target = scene.board.targets["main"]
    info = {"target": "main", "label_note": NASTY[-1]}
    for name, kind, labels in (
        ("pgbreaker_target_info", Gauge, info),
        ("pgbreaker_probe_connections", Gauge, {"target": "main"}),
    ):
        labelled(kind, name, FAMILIES[name].help, labels).set(name.endswith("info"))
    name = "pgbreaker_notices_total"
    counts = Counter(name, FAMILIES[name].help, ("target", "code"), registry=registry)
    for code in NOTICES:
        counts.labels("main", code)
    bounds = metrics._tallies["main"].pings.bounds
    name = "pgbreaker_probe_duration_seconds"
    labels = {"target": "main", "probe": "ping"}
    theirs = labelled(TheirHistogram, name, FAMILIES[name].help, labels, buckets=bounds)
    theirs.observe(target.readings["ping"].took)

    def told(text: str) -> dict[str, tuple]:
        return {
            family.name: (
                family.type,
                family.documentation,
                {
                    (s.name, tuple(sorted(s.labels.items())), s.value)
                    for s in family.samples
                    if not s.name.endswith("_created")
                },
            )
            for family in parse(text)
            if not family.name.endswith("_created")
        }

    equal = told(generate(registry).decode())
    ours = told(await metrics.render(openmetrics=openmetrics))
    assert len(equal) == 4
    assert {name: ours[name] for name in equal} == equal


async def test_families_are_in_one_piece_and_nothing_comes_twice():
    shown = [STANDBYS, gauge("pgbreaker_a", "A.", "a")]
    scene, metrics = watched(*(f"t{n}" for n in range(50)), "main", shown=shown)
    scene.read(values={"a": 1, "standbys": ({"standby": "x", "lag": 1},)})

    lines = (await metrics.render()).splitlines()

    heads = [line for line in lines if line.startswith("# TYPE ")]
    series = [line.rpartition(" ")[0] for line in lines if line[0] != "#"]
    assert len(set(heads)) == len(heads)
    assert len(set(series)) == len(series)
    name = ""
    for line in lines:
        if line.startswith("# TYPE "):
            name = line.split()[2]
        elif line[0] != "#":
            assert line.startswith(name), line


@pytest.mark.parametrize("openmetrics", [False, True])
async def test_a_message_of_many_parts_is_still_one(openmetrics):
    _, metrics = watched(*(f"t{n}" for n in range(40)))
    async with aclosing(metrics.chunks(openmetrics=openmetrics)) as chunks:
        parts = [chunk async for chunk in chunks]

    assert len(parts) > 5
    assert all(part.endswith("\n") for part in parts)
    parse = parse_openmetrics if openmetrics else parse_text
    assert len(parsed("".join(parts), parse)["pgbreaker_target_up"]) == 40


async def test_what_a_scraper_asks_for_is_what_it_gets():
    _, metrics = watched(*(f"t{n}" for n in range(50)))

    headers, parts = metrics.scrape("*/*", "")
    plain = b"".join([part async for part in parts])
    zipped_headers, zipped_parts = metrics.scrape(
        "application/openmetrics-text;version=1.0.0,*/*;q=0.1", "gzip, deflate"
    )
    zipped = b"".join([part async for part in zipped_parts])

    assert headers["Content-Type"] == TEXT
    assert "Content-Encoding" not in headers
    assert zipped_headers["Content-Type"] == OPENMETRICS
    assert zipped_headers["Content-Encoding"] == "gzip"
    assert zlib.decompress(zipped, 31).endswith(b"# EOF\n")
    assert len(zipped) < len(plain) / 5


async def test_promtool_has_nothing_to_say_against_it():
    program = need("promtool", "prometheus")
    shown = [STANDBYS, counter("pgbreaker_deadlocks_total", "Deadlocks.", "d")]
    scene, metrics = watched("main", "b", labels={"note": NASTY[-1]}, shown=shown)
    scene.read(values={"d": 1, "standbys": ({"standby": NASTY[-1], "lag": 1},)})
    scene.open()

    promtool = await asyncio.create_subprocess_exec(
        *(program, "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await promtool.communicate((await metrics.render()).encode())

    assert (promtool.returncode, said) == (0, b"")


def test_a_histogram_adds_up():
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 5.0):
        histogram.observe(seconds)

    assert histogram.lines("x", opened(a="b")) == [
        'x_bucket{a="b",le="0.1"} 2\n',
        'x_bucket{a="b",le="1.0"} 3\n',
        'x_bucket{a="b",le="+Inf"} 4\n',
        'x_sum{a="b"} 5.65\n',
        'x_count{a="b"} 4\n',
    ]
    assert histogram.bare_lines("x") == [
        'x_bucket{le="0.1"} 2\n',
        'x_bucket{le="1.0"} 3\n',
        'x_bucket{le="+Inf"} 4\n',
        "x_sum 5.65\n",
        "x_count 4\n",
    ]


def test_escaping_is_the_formats_own():
    family = Family("x_total", "counter", 'one "\\"\nof two')

    assert escape('\\ " \n') == r"\\ \" \n"
    assert head(family, openmetrics=False) == (
        '# HELP x_total one "\\\\"\\nof two\n# TYPE x_total counter\n'
    )
    assert head(family, openmetrics=True) == (
        '# HELP x one \\"\\\\\\"\\nof two\n# TYPE x counter\n'
    )


# Cheap, and out of everybody's way.


async def test_a_scrape_of_many_targets_lets_the_loop_go_on():
    shown = [gauge(f"pgbreaker_{n}", "Never seen.", f"never_{n}") for n in range(50)]
    _, metrics = watched(*(f"t{n}" for n in range(200)), shown=shown)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    text = await metrics.render()
    other.cancel()

    # Neither lines, nor finding that there are none, keep others waiting.
    assert (text.count("\n") + 200 * len(shown)) / turns < 1000


async def test_whoever_stops_reading_ends_the_writing():
    _, metrics = watched(*(f"t{n}" for n in range(100)))
    _, parts = metrics.scrape("", "gzip")

    async with aclosing(parts):
        async for _ in parts:
            break

    assert metrics.series == 0  # it never came to its end
    assert [task for task in asyncio.all_tasks() if not task.done()] == [
        asyncio.current_task()
    ]


async def test_nothing_that_was_written_is_kept():
    _, metrics = watched(*(f"t{n}" for n in range(100)))
    size = len(await metrics.render())

    tracemalloc.start()
    async with aclosing(metrics.chunks()) as chunks:
        async for _ in chunks:
            pass
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size > 900_000
    assert kept < 50_000
    assert peak < 500_000


def test_a_row_of_the_table_for_each_metric():
    assert len(FAMILIES) == len(_WRITTEN)
    written = set(_WRITTEN.values())
    there_are = {f for name, f in vars(Tally).items() if name.endswith("_lines")}
    assert written == there_are


async def test_of_a_target_that_others_watch_no_probe_grows_old():
    target, metrics, hub = usual_target()
    hub.publish(Reading("main", "ping", 100.0, 0.002, Finding.OK))
    name = "pgbreaker_probe_last_run_timestamp_seconds"
    ran = max((await samples(metrics))[name].values())

    target.elsewhere = Elsewhere(("b",), Condition.UP)

    assert ran > 0
    assert set((await samples(metrics))[name].values()) == {0}
    assert set((await samples(metrics))["pgbreaker_target_up"].values()) == {1}
