"""Traces, as a collector gets them; and collectors that do not behave."""

import asyncio
import logging
import time

import pytest

from pgbreaker.core.reading import Finding
from pgbreaker.sinks.traces import Traces, open_traces
from support.boards import FULL, Scene
from support.otlp import attributes, collector


def traced(url: str, *, sample: float = 1.0) -> tuple[Scene, Traces]:
    scene = Scene()
    traces = open_traces(url, sample, scene.board, scene.clock, "1.2.3")
    scene.also(traces)
    return scene, traces


async def test_a_probe_cycle_is_a_span_with_the_conventions_of_databases():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.read("login", Finding.FULL, evidence=FULL)
        await traces.close()

        (span,) = collecting.spans
        assert span.name == "probe login"
        assert span.end_time_unix_nano - span.start_time_unix_nano == 2_000_000
        assert attributes(span) == {
            "db.system.name": "postgresql",
            "db.namespace": "main",
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


async def test_a_transition_is_an_event_on_the_span_of_what_caused_it():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.open("connect")
        await traces.close()

        (span,) = collecting.spans
        (event,) = span.events
        assert event.name == "pgbreaker.transition"
        told = attributes(event)
        assert told["pgbreaker.breaker"] == "main/connect"
        assert (told["pgbreaker.from"], told["pgbreaker.to"]) == ("closed", "open")


async def test_good_readings_are_sampled_and_bad_ones_always_sent():
    async with collector() as collecting:
        scene, traces = traced(collecting.url, sample=0.0)

        for _ in range(20):
            scene.read()
        scene.read("ping", Finding.TIMEOUT)
        await traces.close()

        assert [span.name for span in collecting.spans] == ["probe ping"]


async def test_a_move_whose_reading_was_not_sampled_is_sent_all_the_same():
    async with collector() as collecting:
        scene, traces = traced(collecting.url, sample=0.0)
        breaker = scene.board.targets["main"].breakers["read"]
        scene.open("read")
        scene.time.now += 60

        for _ in range(2):
            scene.read()
            from pgbreaker.core.states import Outcome

            for move in breaker.observe(Outcome.SUCCESS, scene.time.now):
                scene.hub.publish(move)
        await traces.close()

        moves = [
            attributes(e)["pgbreaker.to"] for s in collecting.spans for e in s.events
        ]
        assert moves == ["open", "half_open", "closed"]


async def test_spans_end_by_themselves_when_nothing_follows():
    async with collector() as collecting:
        scene, traces = traced(collecting.url)

        scene.read()

        await collecting.until(lambda spans: len(spans) == 1)
        await traces.close()


@pytest.mark.parametrize("how", ["down", "hangs", "refuses"])
async def test_a_bad_collector_costs_neither_time_nor_a_flood_of_lines(how, caplog):
    caplog.set_level(logging.DEBUG)
    async with collector() as collecting:
        collecting.hangs = how == "hangs"
        collecting.status = 503 if how == "refuses" else 200
        url = "http://127.0.0.1:9" if how == "down" else collecting.url
        scene, traces = traced(url)

        begun = time.monotonic()
        for _ in range(5000):  # more than the queue holds
            scene.read("ping", Finding.TIMEOUT)
            await asyncio.sleep(0)
        longest = time.monotonic() - begun
        begun = time.monotonic()
        await traces.close()
        closing = time.monotonic() - begun

    assert longest < 20.0
    assert closing < 3.5
    complaints = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(complaints) <= 2
    assert not any(r.exc_info for r in complaints)
