"""From a graph to the trace behind it: a real daemon, a real Prometheus that scrapes it,
and a collector that gets its spans."""

import asyncio
import contextlib
import os
import time

import pytest

from pgbreaker.app import running
from pgbreaker.config.load import parse
from support.otlp import collector
from support.prometheus import prometheus
from support.servers import running_server

CONFIG = """
version: 1
targets:
  - name: main
    dsn: {dsn}
    probes:
      login: {{interval: 1s}}
      commit: {{interval: 1s}}
      latency: {{query: SELECT 1, interval: 1s}}
http: {{listen: 127.0.0.1:0}}
otlp: {{endpoint: "{collector}", sample: {sample}}}
"""

TIMED = {
    "pgbreaker_probe_duration_seconds_bucket": "probe ping",
    "pgbreaker_login_duration_seconds_bucket": "probe login",
    "pgbreaker_commit_duration_seconds_bucket": "probe commit",
    "pgbreaker_canary_duration_seconds_bucket": "probe latency",
}
MOVED = {
    "pgbreaker_breaker_transitions_total": "transition",
    "pgbreaker_detection_seconds_bucket": "transition",
}


@pytest.fixture(scope="module")
def breakable():
    with running_server(15) as server:
        yield server


@contextlib.asynccontextmanager
async def traced(server, *, sample: str):
    """What gets the spans of a daemon that watches *server*, and where that serves."""
    async with collector() as collecting:
        # Not as the role of ours, which may have the connections of one daemon.
        text = CONFIG.format(dsn=server.dsn(), collector=collecting.url, sample=sample)
        config = parse(text.encode(), "pgbreaker.yaml", env=os.environ)
        async with running(config) as daemon:
            yield collecting, "{}:{}".format(*daemon.address)


def since_ever(query: str) -> dict[str, str]:
    """*query* over all the time that a test takes."""
    now = time.time()
    return {"query": query, "start": str(now - 300), "end": str(now + 60)}


async def led_to(scraping, collecting, metric: str, within: float = 12.0) -> set[str]:
    """Names of the spans that the exemplars of *metric* lead to, once there are some.

    A span is sent a second after it was made, so its exemplar may be there first.
    """
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = await scraping.ask("query_exemplars", **since_ever(metric))
        ids = {
            (one["labels"]["trace_id"], one["labels"]["span_id"])
            for series in found
            for one in series["exemplars"]
        }
        spans = {(s.trace_id.hex(), s.span_id.hex()): s for s in collecting.spans}
        if ids and ids <= spans.keys():
            return {spans[each].name for each in ids}
        await asyncio.sleep(0.1)
    raise AssertionError(f"{metric} leads nowhere: {ids}")


async def test_a_graph_leads_to_the_spans_behind_it(breakable):
    async with (
        traced(breakable, sample="100%") as (every, talker),
        traced(breakable, sample="0%") as (bad, quiet),
        prometheus({"talker": talker, "quiet": quiet}, interval="500ms") as scraping,
    ):
        timed = {
            metric: await led_to(scraping, every, f'{metric}{{job="talker"}}')
            for metric in TIMED
        }
        well = await scraping.ask("query_exemplars", **since_ever('{job="quiet"}'))
        spans_of_good = list(bad.spans)

        breakable.kill()
        try:
            moved = {
                metric: await led_to(scraping, bad, f'{metric}{{job="quiet"}}')
                for metric in MOVED
            }
        finally:
            breakable.start()
        sent = await scraping.until(
            'pgbreaker_spans_sent_total{job="quiet"} > 0', within=5.0
        )

    assert timed == {metric: {span} for metric, span in TIMED.items()}
    # Only spans that are sent are led to, and of good readings none was.
    assert (well, spans_of_good) == ([], [])
    assert moved == {metric: {span} for metric, span in MOVED.items()}
    assert 0 < float(sent[0]["value"][1]) <= len(bad.spans)
