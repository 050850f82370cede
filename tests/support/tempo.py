#!/opt/pgbreaker/bin/python3
"""Stands in for Tempo in docker-compose.yml: takes traces, and tells the names of spans.

Runs in a container that has pgbreaker's Python. What it is started with is of Tempo's
own: `-config.file=...` serves, `-health` asks whether it does.
"""

import gzip
import sys
import urllib.request
from collections import Counter

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

QUESTIONS, TRACES = 3200, 4318
names: Counter[str] = Counter()


async def take(request: web.Request) -> web.Response:
    """Take spans as OTLP has them over HTTP."""
    body = await request.read()
    if body[:2] == b"\x1f\x8b":
        body = gzip.decompress(body)
    message = ExportTraceServiceRequest.FromString(body)
    for resource in message.resource_spans:
        for scope in resource.scope_spans:
            names.update(span.name for span in scope.spans)
    answer = ExportTraceServiceResponse().SerializeToString()
    return web.Response(body=answer, content_type="application/x-protobuf")


async def ready(_request: web.Request) -> web.Response:
    """Whether it is."""
    return web.Response(text="ready\n")


async def tell(_request: web.Request) -> web.Response:
    """How often a span of which name came."""
    return web.json_response(names)


async def serve() -> web.Application:
    """Begin to take traces beside the questions."""
    traces = web.Application()
    traces.router.add_post("/v1/traces", take)
    runner = web.AppRunner(traces)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", TRACES).start()
    questions = web.Application()
    questions.router.add_get("/ready", ready)
    questions.router.add_get("/spans", tell)
    return questions


if __name__ == "__main__":
    if "-health" in sys.argv:
        urllib.request.urlopen(f"http://127.0.0.1:{QUESTIONS}/ready", timeout=5).close()
    else:
        web.run_app(serve(), host="0.0.0.0", port=QUESTIONS, access_log=None)
