"""Serves it all, from memory."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError
from pgbreaker.web.api import Api
from pgbreaker.web.inside import Inside
from pgbreaker.web.pages import Pages
from pgbreaker.web.plain import Plain
from pgbreaker.web.problems import UnknownError, problem
from pgbreaker.web.route import WHO, Handler, Role, Who

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


@web.middleware
async def _civil(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error as a problem, and set the headers that all share."""
    request[WHO] = Who(None, Role.ADMIN)
    try:
        response = await handler(request)
    except UnknownError as error:
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
async def serve(plan: HttpPlan, inside: Inside) -> AsyncIterator[tuple[str, int]]:
    """Serve for the time of the block.

    Yields:
        Host and port that were really taken; port 0 takes a free one.

    Raises:
        PgbreakerError: They cannot be listened on.
    """
    host, port = plan.listen
    app = web.Application(middlewares=[_civil], client_max_size=_BODY)
    rooms = (Plain(inside, _HEADERS), Api(inside), Pages(inside))
    for route in (route for room in rooms for route in room.routes()):
        if route.method == "GET":
            app.router.add_get(route.path, route.handler)
        else:
            app.router.add_route(route.method, route.path, route.handler)
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
