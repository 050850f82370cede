"""Traces, as a collector gets them; and collectors that do not behave."""

import asyncio
import gc
import logging
import time
import tracemalloc
from dataclasses import replace

import pytest

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence, Outcome, Override, State
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Hub, Notice
from pgbreaker.sinks.traces import Traces, open_traces
from support.boards import FULL, PROBES, Scene
from support.otlp import Collector, attributes, collector

GONE = Evidence("timeout", "no answer within 500 ms", probe="ping")


def traced(url: str, *, sample: float = 1.0) -> tuple[Scene, Traces]:
    scene = Scene()
    traces = open_traces(url, sample, scene.board, scene.clock, "1.2.3")
    scene.also(traces)
    return scene, traces


def observe(scene: Scene, operation: str, outcome: Outcome) -> None:
    """Have a breaker of the target main take an outcome, and tell of its moves."""
    breaker = scene.board.targets["main"].breakers[operation]
    for move in breaker.observe(outcome, scene.time.now):
        scene.hub.publish(move)


def named(collecting: Collector, name: str) -> list[dict]:
    """Attributes of the spans of one name."""
    return [attributes(span) for span in collecting.spans if span.name == name]


# What a span says.


async def test_a_probe_cycle_is_a_span_with_the_conventions_of_databases():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.read("login", Finding.FULL, evidence=FULL)
        await traces.close()

        (span,) = collecting.spans
        assert span.name == "probe login"
        assert span.kind == span.SPAN_KIND_CLIENT
        assert span.status.code == span.status.STATUS_CODE_ERROR
        assert span.status.message == "53300 sorry, too many clients already"
        assert span.end_time_unix_nano - span.start_time_unix_nano == 2_000_000
        assert attributes(span) == {
            "db.system.name": "postgresql",
            "db.namespace": "main",
            "db.operation.name": "SELECT",
            "db.query.summary": "probe login",
            "db.response.status_code": "53300",
            "error.type": "53300",
            "server.address": "db",
            "server.port": 5432,
            "pgbreaker.target": "main",
            "pgbreaker.probe": "login",
            "pgbreaker.finding": "full",
            "pgbreaker.late_seconds": 0.0,
        }
        assert collecting.resources[0]["service.name"] == "pgbreaker"


async def test_a_good_reading_has_no_error_in_it():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.read()
        await traces.close()

        (span,) = collecting.spans
        assert span.status.code == span.status.STATUS_CODE_UNSET
        assert "error.type" not in attributes(span)


async def test_a_failure_without_a_sqlstate_is_told_by_its_finding():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.read("ping", Finding.TIMEOUT, evidence=GONE)
        await traces.close()

        (told,) = named(collecting, "probe ping")
        assert told["error.type"] == "timeout"
        assert "db.response.status_code" not in told


def standing(dsn: str, **probes: ProbePlan) -> tuple[Board, Scene]:
    """A board with a target at *dsn*, which has these probes besides."""
    scene = Scene()
    main = scene.board.targets["main"]
    plan = replace(main.plan, dsn=Secret(dsn), probes={**PROBES, **probes})
    target = TargetBoard(plan, main.breakers, scene.clock)
    return Board([target], scene.clock), scene


HIDDEN = "hunter2"
ELSEWHERE = {
    "latency": ProbePlan(
        interval=5, timeout=2, limit=0.25, query=f"SELECT '{HIDDEN}' FROM orders"
    ),
    "pgbouncer": ProbePlan(
        interval=5,
        timeout=1,
        address=Secret(f"postgresql://stats:{HIDDEN}@pool:6432/pgbouncer"),
    ),
    "patroni": ProbePlan(
        interval=5, timeout=1, address=Secret(f"http://me:{HIDDEN}@node:8008")
    ),
}


@pytest.mark.parametrize(
    ("probe", "dsn", "where"),
    [
        ("ping", "postgresql://me@db:6543/app", ("db", 6543, "app", "SELECT")),
        ("ping", "postgresql://me@db", ("db", 5432, "me", "SELECT")),
        ("ping", "postgresql://me@[::1]:99/a", ("::1", 99, "a", "SELECT")),
        (
            "ping",
            "postgresql://me@/app?host=/run/pg",
            ("/run/pg/.s.PGSQL.5432", None, "app", "SELECT"),
        ),
        ("latency", "postgresql://me@db/app", ("db", 5432, "app", None)),
        ("pgbouncer", "postgresql://me@db/app", ("pool", 6432, "pgbouncer", "SHOW")),
        ("patroni", "postgresql://me@db/app", ("node", 8008, None, None)),
    ],
)
async def test_a_span_says_where_its_probe_asked(probe, dsn, where):
    board, scene = standing(dsn, **ELSEWHERE)
    async with collector() as collecting:
        traces = open_traces(collecting.url, 1.0, board, scene.clock, "1")
        scene.hub = Hub([board, traces])

        scene.read(probe)
        await traces.close()

        (told,) = named(collecting, f"probe {probe}")
        assert where == tuple(
            told.get(key)
            for key in (
                *("server.address", "server.port"),
                *("db.namespace", "db.operation.name"),
            )
        )
        assert ("db.system.name" in told) is (probe != "patroni")
        assert HIDDEN not in str(collecting.spans)


async def test_an_address_that_leads_nowhere_keeps_nothing_from_starting():
    board, scene = standing("postgresql://me@a,b/app")
    async with collector() as collecting:
        traces = open_traces(collecting.url, 1.0, board, scene.clock, "1")
        scene.hub = Hub([board, traces])

        scene.read()
        await traces.close()

        (told,) = named(collecting, "probe ping")
        assert told["db.system.name"] == "postgresql"
        assert "server.address" not in told


# Transitions, trials, overrides.


async def test_a_transition_is_a_span_below_that_of_what_caused_it():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.open("connect")
        await traces.close()

        spans = {span.name: span for span in collecting.spans}
        move, reading = spans["transition"], spans["probe login"]
        assert move.parent_span_id == reading.span_id
        assert move.trace_id == reading.trace_id
        assert attributes(move) == {
            "pgbreaker.target": "main",
            "pgbreaker.breaker": "main/connect",
            "pgbreaker.from": "closed",
            "pgbreaker.to": "open",
            "pgbreaker.cause": "confirmed",
            "pgbreaker.reason": "53300 sorry, too many clients already",
        }


async def test_a_move_whose_reading_was_not_sampled_is_sent_all_the_same():
    async with collector() as collecting:
        scene, traces = traced(collecting.url, sample=0.0)
        scene.open("read")
        await asyncio.sleep(0)
        scene.time.now += 60

        # Nobody told of the reading before.
        for _ in range(2):
            observe(scene, "read", Outcome.SUCCESS)
        await traces.close()

        moves = named(collecting, "transition")
        assert [told["pgbreaker.to"] for told in moves] == [
            *("open", "half_open", "closed")
        ]
        roots = [s for s in collecting.spans if not s.parent_span_id]
        assert [s.name for s in roots] == ["probe login", "transition", "transition"]


async def test_a_move_is_not_put_below_a_reading_that_is_over():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)
        scene.read()
        await asyncio.sleep(0)

        breaker = scene.board.targets["main"].breakers["read"]
        override = Override(State.DISABLED, "a failover drill", "ana")
        scene.hub.publish(breaker.force(override, 100.0))
        await traces.close()

        (span,) = [s for s in collecting.spans if s.name == "override"]
        assert not span.parent_span_id


async def test_trials_are_always_sent_and_named_for_what_they_are():
    async with collector() as collecting:
        scene, traces = traced(collecting.url, sample=0.0)
        scene.open("read")
        scene.time.now += 60

        scene.read("login")  # tells nothing of reads
        for _ in range(2):  # the first makes it half-open, the second closes it
            scene.read("ping")
            observe(scene, "read", Outcome.SUCCESS)
        scene.read("ping")  # one like any other
        await traces.close()

        trials = [told["pgbreaker.trial"] for told in named(collecting, "probe ping")]
        assert trials == [["main/read"], ["main/read"]]
        assert len(named(collecting, "probe login")) == 1  # which failed, and opened it


async def test_no_reading_is_a_trial_before_its_time():
    async with collector() as collecting:
        scene, traces = traced(collecting.url, sample=0.0)
        scene.open("read")

        scene.read("ping")
        await traces.close()

        assert named(collecting, "probe ping") == []


async def test_an_override_is_a_span_that_says_who_and_why():
    async with collector() as collecting:
        scene, traces = traced(collecting.url, sample=0.0)
        breaker = scene.board.targets["main"].breakers["read"]

        override = Override(State.FORCED_OPEN, "failover drill", "ana")
        scene.hub.publish(breaker.force(override, scene.time.now))
        resumed = breaker.resume(scene.time.now, "the drill is over")
        assert resumed is not None
        scene.hub.publish(resumed)
        await traces.close()

        taken, back = named(collecting, "override")
        assert taken["pgbreaker.author"] == "ana"
        assert taken["pgbreaker.cause"] == "overridden"
        assert taken["pgbreaker.to"] == "forced_open"
        assert "failover drill" in taken["pgbreaker.reason"]
        assert back["pgbreaker.cause"] == "resumed"
        assert back["pgbreaker.to"] == "closed"


async def test_a_reload_is_a_span_of_its_time_with_what_came_of_it():
    async with collector() as collecting:
        _, traces = traced(collecting.url, sample=0.0)
        taken = {"ok": True, "changes": ["log.level: INFO -> DEBUG"], "later": []}
        refused = {"ok": False, "problems": ["a.yaml:1:1: nothing in it"]}
        says = "configuration refused: a.yaml:1:1: nothing in it"

        traces.heed(reload(1, "read anew", "ana", taken))
        traces.heed(reload(2, says, None, refused))
        traces.heed(replace(reload(3, "of another kind", None, {}), kind=Kind.NOTE))
        await traces.close()

        good, bad = collecting.spans
        assert (good.name, bad.name) == ("reload", "reload")
        assert attributes(good) == {
            "pgbreaker.changes": ["log.level: INFO -> DEBUG"],
            "pgbreaker.author": "ana",
        }
        assert good.end_time_unix_nano == 1_800_000_000 * 10**9
        assert good.end_time_unix_nano - good.start_time_unix_nano == 250_000_000
        assert good.status.code != good.status.STATUS_CODE_ERROR
        assert bad.status.code == bad.status.STATUS_CODE_ERROR
        assert bad.status.message == says


def reload(id_: int, text: str, author: str | None, details: dict) -> Entry:
    return Entry(
        id=id_,
        at=1_800_000_000.0,
        kind=Kind.RELOAD,
        text=text,
        author=author,
        details={**details, "took_seconds": 0.25},
    )


async def test_a_move_that_an_override_hides_says_so():
    async with collector() as collecting:
        scene, traces = traced(collecting.url, sample=0.0)
        breaker = scene.board.targets["main"].breakers["connect"]
        override = Override(State.METRICS_ONLY, "to see what it would do", "ana")
        scene.hub.publish(breaker.force(override, scene.time.now))

        scene.open("connect")
        await traces.close()

        (told,) = named(collecting, "transition")
        assert told["pgbreaker.override"] == "metrics_only"


# What is sent.


async def test_good_readings_are_sampled_and_bad_ones_always_sent():
    board, scene = standing("postgresql://me@db/app", **ELSEWHERE)
    async with collector() as collecting:
        traces = open_traces(collecting.url, 0.0, board, scene.clock, "1")
        scene.hub = Hub([board, traces])

        for _ in range(20):
            scene.read()
        scene.read("ping", Finding.SLOW)  # which is for the window to weigh
        scene.read("login", Finding.ABSENT)
        scene.read("login", Finding.SKIPPED)
        scene.read("ping", Finding.TIMEOUT)
        scene.read("latency", Finding.SLOW)  # which opens a breaker
        await traces.close()

        names = [span.name for span in collecting.spans]
        assert names == ["probe ping", "probe latency"]


async def test_it_is_known_which_span_an_event_became():
    async with collector() as collecting:
        scene, traces = traced(collecting.url, sample=0.0)
        seen = []
        scene.also(traces, lambda _event: seen.append(traces.current))

        scene.read()  # not sampled
        scene.open("connect")
        scene.hub.publish(Notice("main", "restarted", "it was restarted", 100.0))
        await traces.close()

        ids = {s.name: (s.trace_id.hex(), s.span_id.hex()) for s in collecting.spans}
        assert seen == [None, ids["probe login"], ids["transition"], None]


async def test_what_is_sampled_is_for_the_configuration_alone_to_say(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.read()
        await traces.close()

        assert len(named(collecting, "probe ping")) == 1


async def test_where_no_spans_are_made_nothing_leads_to_one(monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    async with collector() as collecting:
        scene, traces = traced(collecting.url)
        seen = []
        scene.also(traces, lambda _event: seen.append(traces.current))

        scene.open("connect")
        await traces.close()

        assert seen == [None, None]
        assert collecting.spans == []


async def test_spans_end_by_themselves_when_nothing_follows():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.read()

        await collecting.until(lambda spans: len(spans) == 1)
        await traces.close()


# Collectors.


async def test_what_is_sent_is_counted_and_nothing_is_said(caplog):
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        for _ in range(300):
            scene.read()
        await traces.close()

        assert (traces.sent, traces.failed) == (300, 0)
        assert len(collecting.spans) == 300
        assert caplog.records == []


@pytest.mark.parametrize("status", [400, 503])
async def test_what_is_refused_is_counted(status):
    async with collector() as collecting:
        collecting.status = status
        scene, traces = traced(collecting.url)

        for _ in range(5):
            scene.read()
        await traces.close()

        assert (traces.sent, traces.failed) == (0, 5)


async def test_it_goes_on_when_the_collector_is_back():
    async with collector() as collecting:
        collecting.status = 400
        scene, traces = traced(collecting.url)
        scene.read()
        await collecting.asked(1)

        collecting.status = 200
        scene.read()
        await collecting.until(lambda spans: len(spans) == 1)
        await traces.close()

        assert (traces.sent, traces.failed) == (1, 1)


@pytest.mark.parametrize("how", ["down", "hangs", "refuses"])
async def test_a_bad_collector_costs_neither_time_nor_memory_nor_lines(how, caplog):
    caplog.set_level(logging.DEBUG)
    steps = []
    async with collector() as collecting:
        collecting.hangs = how == "hangs"
        collecting.status = 503 if how == "refuses" else 200
        url = "http://127.0.0.1:9" if how == "down" else collecting.url
        scene, traces = traced(url)
        gc.collect()
        gc.freeze()  # what other tests have left is not ours to look through
        tracemalloc.start()

        for _ in range(8_000):
            begun = time.thread_time()
            scene.read("ping", Finding.TIMEOUT, evidence=GONE)
            await asyncio.sleep(0)
            steps.append(time.thread_time() - begun)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # as it was: the tests themselves
        waiting = 8_000 - traces.sent - traces.failed
        begun = time.monotonic()
        await traces.close()
        closing = time.monotonic() - begun

    assert max(steps) < 0.020
    assert peak < 24e6
    assert 0 < waiting <= 2048
    assert traces.sent == 0
    assert closing < 3.5
    complaints = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(complaints) == 1
    assert "traces are not being sent" in complaints[0].getMessage()
    assert complaints[0].exc_info is None
