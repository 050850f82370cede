"""Serves it all, from memory."""

import asyncio
import json
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import cache
from typing import Any, Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from pgbreaker.clock import Clock
from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError
from pgbreaker.shipped import shipped
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.metrics import Metrics
from pgbreaker.web.page import CSP, contents, page
from pgbreaker.web.views import Views

_HEADER: Final = 8 * 1024  # bytes of one header, and of the request line
_BODY: Final = 64 * 1024
_CONNECTIONS: Final = 1024
_IDLE: Final[Seconds] = 10.0
_STOP_WITHIN: Final[Seconds] = 1.0

_HEADERS: Final = {
    "Server": "pgbreaker",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def problem(status: int, title: str, detail: str, **headers: str) -> web.Response:
    """An error as RFC 9457 has it."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/problem+json",
        headers=headers,
    )


class Site:
    """The routes, each a method.

    Args:
        health: What is wrong with the daemon itself, None when nothing is.
        ready: What it still waits for, None when for nothing.
    """

    def __init__(
        self,
        views: Views,
        board: Board,
        metrics: Metrics,
        clock: Clock,
        version: str,
        health: Callable[[], str | None],
        ready: Callable[[], str | None],
    ) -> None:
        self._views = views
        self._board = board
        self._metrics = metrics
        self._clock = clock
        self._version = version
        self._health = health
        self._ready = ready

    def routes(self) -> list[web.RouteDef]:
        """Every address there is."""
        return [
            web.get("/", self.page),
            web.get("/metrics", self.metrics),
            web.get("/-/healthy", self.healthy),
            web.get("/-/ready", self.ready),
            web.get("/api/v1/status", self.status),
            web.get("/api/v1/targets", self.targets),
            web.get("/api/v1/targets/{target}", self.target),
            web.get("/api/v1/breakers", self.breakers),
            web.get("/api/v1/breakers/{target}/{operation}", self.breaker),
            web.get("/health/{target}/{operation}", self.may_send),
            web.get("/runbooks/", self.runbooks),
            web.get("/runbooks/{name}", self.runbook),
        ]

    async def page(self, _request: web.Request) -> web.Response:
        """The page for people."""
        return _html(page(self._views.status(), self._version))

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """What Prometheus scrapes, sent while it is being written."""
        accept = request.headers.get("Accept", "")
        encoding = request.headers.get("Accept-Encoding", "")
        headers, body = self._metrics.scrape(accept, encoding)
        # Once prepared, headers are sent: those that all share must be among them.
        response = web.StreamResponse(headers=_HEADERS | headers)
        async with aclosing(body):
            # Who hangs up meanwhile is told nothing more, and neither is the log.
            with suppress(ConnectionResetError):
                await response.prepare(request)
                if request.method != "HEAD":
                    async for part in body:
                        await response.write(part)
                await response.write_eof()
        return response

    async def healthy(self, _request: web.Request) -> web.Response:
        """Whether the daemon itself is well, whatever its targets are."""
        return _verdict(self._health(), "unhealthy")

    async def ready(self, _request: web.Request) -> web.Response:
        """Whether every target has been asked once."""
        return _verdict(self._ready(), "not ready")

    async def status(self, _request: web.Request) -> web.Response:
        """Everything."""
        return web.json_response(self._views.status())

    async def targets(self, _request: web.Request) -> web.Response:
        """Every target."""
        return web.json_response(self._views.status()["targets"])

    async def target(self, request: web.Request) -> web.Response:
        """One target."""
        return web.json_response(self._views.target(self._target_of(request)))

    async def breakers(self, _request: web.Request) -> web.Response:
        """Every breaker."""
        return web.json_response(self._views.breakers())

    async def breaker(self, request: web.Request) -> web.Response:
        """One breaker."""
        target, operation = self._breaker_of(request)
        return web.json_response(self._views.breaker(target, operation))

    async def may_send(self, request: web.Request) -> web.Response:
        """Whether work of this kind may be sent; for load balancers."""
        target, operation = self._breaker_of(request)
        breaker = target.breakers[operation]
        now = self._clock.now()
        if breaker.passes:
            return web.Response(text=f"{breaker.state.value}\n")
        seconds = max(1, math.ceil(breaker.retry_after(now)))
        return problem(
            503,
            f"{breaker.name} is {breaker.state.value}",
            breaker.explain(now),
            **{"Retry-After": str(seconds)},
        )

    async def runbooks(self, _request: web.Request) -> web.Response:
        """The runbooks there are."""
        return _html(contents(_runbooks()))

    async def runbook(self, request: web.Request) -> web.Response:
        """What to do about an alert: for whoever has put the runbooks nowhere else."""
        runbooks = _runbooks()
        name = request.match_info["name"]
        if name not in runbooks:
            raise _Unknown("runbook", name, runbooks)
        return web.Response(text=runbooks[name])

    def _target_of(self, request: web.Request) -> TargetBoard:
        name = request.match_info["target"]
        if name not in self._board.targets:
            raise _Unknown("target", name, self._board.targets)
        return self._board.targets[name]

    def _breaker_of(self, request: web.Request) -> tuple[TargetBoard, str]:
        target = self._target_of(request)
        operation = request.match_info["operation"]
        if operation not in target.breakers:
            raise _Unknown("operation", operation, target.breakers)
        return target, operation


def _html(text: str) -> web.Response:
    headers = {"Content-Security-Policy": CSP}
    return web.Response(text=text, content_type="text/html", headers=headers)


@cache
def _runbooks() -> dict[str, str]:
    return {
        path.removeprefix("runbooks/"): text
        for path, text in shipped("alerts")
        if path.startswith("runbooks/")
    }


class _Unknown(Exception):
    """A name in the address that there is not."""

    def __init__(self, what: str, name: str, there_are: Any) -> None:  # noqa: ANN401 - names
        super().__init__(
            f"no {what} is called {name!r}; there are {', '.join(there_are)}"
        )


def _verdict(wrong: str | None, title: str) -> web.Response:
    if wrong is None:
        return web.json_response({"status": "ok"})
    return problem(503, title, wrong)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _civil(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error as a problem, and set the headers that all share."""
    try:
        response = await handler(request)
    except _Unknown as error:
        response = problem(404, "not found", str(error))
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        response = problem(
            error.status, error.reason.lower(), error.reason.lower(), **allow
        )
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


class _NoTracebacks(logging.Filter):
    """Keeps what a client did wrong from being logged as a fault of ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | ConnectionError)


class _Gate:
    """Keeps the number of connections within bounds, by hanging up on more."""

    def __init__(self, server: web.Server) -> None:
        self._server = server

    def __call__(self) -> asyncio.Protocol:
        if len(self._server.connections) >= _CONNECTIONS:
            return _Refused()
        return self._server()


class _Refused(asyncio.Protocol):
    """Hangs up at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


@asynccontextmanager
async def serve(
    host: str,
    port: int,
    *,
    board: Board,
    metrics: Metrics,
    clock: Clock,
    epoch: str,
    version: str,
    health: Callable[[], str | None],
    ready: Callable[[], str | None],
) -> AsyncIterator[tuple[str, int]]:
    """Serve on *host* and *port* for the time of the block.

    Yields:
        Host and port that were really taken; port 0 takes a free one.

    Raises:
        PgbreakerError: They cannot be listened on.
    """
    site = Site(
        Views(board, clock, epoch), board, metrics, clock, version, health, ready
    )
    app = web.Application(middlewares=[_civil], client_max_size=_BODY)
    app.add_routes(site.routes())
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_log_of_aiohttp(),
        handler_cancellation=True,
        keepalive_timeout=_IDLE,
        shutdown_timeout=_STOP_WITHIN,
        max_line_size=_HEADER,
        max_field_size=_HEADER,
    )
    await runner.setup()
    try:
        assert runner.server is not None
        listening = await _listen(_Gate(runner.server), host, port)
        try:
            yield host, listening.sockets[0].getsockname()[1]
        finally:
            listening.close()
    finally:
        await runner.cleanup()


def _log_of_aiohttp() -> logging.Logger:
    logger = logging.getLogger("pgbreaker.web.aiohttp")
    if not logger.filters:
        logger.addFilter(_NoTracebacks())
    return logger


async def _listen(gate: _Gate, host: str, port: int) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(gate, host, port, reuse_address=True)
    except OSError as error:
        # asyncio's own text repeats the address, a name's failure has no errno.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise PgbreakerError(
            f"cannot listen on {host}:{port}: {reason.lower()} (http.listen, or --listen, say where)"
        ) from None
