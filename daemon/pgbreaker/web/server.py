"""Serves it all, from memory."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.metrics import FOLLOWERS, FOLLOWERS_DROPPED, REFUSED
from pgbreaker.web.api.routes import Api
from pgbreaker.web.doors.doorman import BODY, HEADERS, Doorman
from pgbreaker.web.doors.limits import DEFAULT, Limits
from pgbreaker.web.doors.lines import Line, Lines, Threshold, speaking
from pgbreaker.web.doors.listening import listening_on
from pgbreaker.web.doors.present import Present
from pgbreaker.web.doors.refusal import TurnedAwayError
from pgbreaker.web.doors.strict import be_strict
from pgbreaker.web.doors.tls import is_welcome
from pgbreaker.web.doors.tokens import SEAL
from pgbreaker.web.inside import Inside
from pgbreaker.web.pages import Pages
from pgbreaker.web.plain import Plain
from pgbreaker.web.problems import UnknownError, problem
from pgbreaker.web.route import Handler, Route

_STOP_WITHIN: Final[Seconds] = 1.0


def routes_of(inside: Inside) -> list[Route]:
    """Every address there is."""
    rooms = (Plain(inside, HEADERS), Api(inside), Pages(inside))
    return [route for room in rooms for route in room.routes()]


@asynccontextmanager
async def serve(
    plan: HttpPlan, inside: Inside, limits: Limits = DEFAULT
) -> AsyncIterator[tuple[str, int]]:
    """Serve for the time of the block.

    Yields:
        Host and port that were really taken; port 0 takes a free one.

    Raises:
        PgbreakerError: They cannot be listened on, or the web configuration cannot be
            used.
    """
    present = Present(plan.web_config)
    routes = routes_of(inside)
    doorman = Doorman(plan, present, limits, inside.clock.now)
    advising = inside.advising
    inside.metrics.own(REFUSED, lambda: doorman.turned_away)
    inside.metrics.own(FOLLOWERS, lambda: advising.followers)
    inside.metrics.own(FOLLOWERS_DROPPED, lambda: advising.dropped)
    lines = Lines(limits, doorman.dress, lambda one: is_welcome(one, present.plan.tls))
    speech = speaking(limits, _log_of_aiohttp())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(doorman.open())
        runner = web.AppRunner(
            app_of(doorman, routes),
            handler_cancellation=True,
            shutdown_timeout=_STOP_WITHIN,
            access_log=None,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        server = runner.server
        assert server is not None
        be_strict(server, doorman.dress)
        await stack.enter_async_context(lines.swept())

        def threshold() -> Threshold:
            return Threshold(lines, Line(lines, server, speech), present.context)

        port = await stack.enter_async_context(listening_on(plan, threshold))
        yield plan.listen[0], port


def app_of(doorman: Doorman, routes: list[Route]) -> web.Application:
    """Make the application of which *doorman* guards every address."""

    @web.middleware
    async def civil(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer every error as a problem."""
        try:
            return await doorman.admit(request, handler)
        except TurnedAwayError as error:
            doorman.turned_away += 1
            return error.answer()
        except UnknownError as error:
            return problem(404, "not found", str(error))
        except web.HTTPRedirection:
            raise
        except web.HTTPException as error:
            return _problem_of(error)
        finally:
            if isinstance(request.protocol, Line):
                request.protocol.rest()

    async def dress(_request: web.Request, response: web.StreamResponse) -> None:
        # Not in the middleware: what is streamed is on its way by then.
        doorman.dress(response)

    app = web.Application(middlewares=[civil], client_max_size=BODY)
    app[SEAL] = doorman.seal
    app.on_response_prepare.append(dress)
    for route in routes:
        add = (
            app.router.add_get
            if route.method == "GET"
            else partial(app.router.add_route, route.method)
        )
        added = add(route.path, route.handler, expect_handler=_wait)
        doorman.guard(added.resource, route)
    return app


async def _wait(_request: web.Request) -> None:
    """Have nobody send a body yet: the doorman says when to go on."""


def _problem_of(error: web.HTTPException) -> web.Response:
    said = error.reason.lower()
    answer = problem(error.status, said, said)
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    if error.status == web.HTTPRequestEntityTooLarge.status_code:
        # What is still to come is not waited for.
        answer.force_close()
    return answer


class _NoTracebacks(logging.Filter):
    """Keeps what a client did wrong from being logged as a fault of ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | ConnectionError)


def _log_of_aiohttp() -> logging.Logger:
    logger = logging.getLogger("pgbreaker.web.aiohttp")
    if not logger.filters:
        logger.addFilter(_NoTracebacks())
    return logger
