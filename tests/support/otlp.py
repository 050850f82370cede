"""A collector that takes OTLP over HTTP, and can behave badly."""

import asyncio
import gzip
from contextlib import asynccontextmanager

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Collector:
    """Takes traces.

    Attributes:
        url: Where it listens.
        requests: How often it was asked to take something.
        spans: What came, in order.
        status: What it answers.
        hangs: Whether it never answers.
    """

    def __init__(self) -> None:
        self.url = ""
        self.requests = 0
        self.spans: list = []
        self.resources: list = []
        self.status = 200
        self.hangs = False
        self._came = asyncio.Event()

    async def _take(self, request: web.Request) -> web.Response:
        self.requests += 1
        self._came.set()
        if self.hangs:
            await asyncio.sleep(60)
        if self.status != 200:
            return web.Response(status=self.status)
        body = await request.read()
        if (
            request.headers.get("Content-Encoding") == "gzip"
            and body[:2] == b"\x1f\x8b"
        ):
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.spans += scope.spans
        self._came.set()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    async def until(self, what, within: float = 5.0) -> None:
        """Wait until *what* holds of the spans that came."""
        async with asyncio.timeout(within):
            while not what(self.spans):
                self._came.clear()
                await self._came.wait()

    async def asked(self, times: int, within: float = 5.0) -> None:
        """Wait until it was asked so often, whatever it answered."""
        await self.until(lambda _spans: self.requests >= times, within)


def attributes(of) -> dict:
    """Attributes of a span or a resource, as plain values."""
    return {entry.key: _plain(entry.value) for entry in of.attributes}


def _plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(one) for one in value.array_value.values]
    return getattr(value, kind)


@asynccontextmanager
async def collector():
    """A collector on loopback, for the time of the block."""
    taking = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", taking._take)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    taking.url = f"http://127.0.0.1:{port}"
    try:
        yield taking
    finally:
        await runner.cleanup()
