"""FastAPI: an outage of the database is a 503, and not a 500.

`install` has every request that fails by the database's fault answered with ``503
Service Unavailable``, ``Retry-After`` and a problem of RFC 9457, whether the breaker
refused it or it was among the first to fail. `session` gives a dependency whose commit
is part of the request: with FastAPI's default scope it comes after the answer, so that
a client is told 200 for what was rolled back.
"""

import json
import logging
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Literal, Protocol, TypeAlias

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgbreaker.core.states import State
from pgbreaker.core.units import Seconds
from pgbreaker.errors import BulkheadFullError, CircuitOpenError
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.outcomes import is_outage, words
from pgbreaker.guard.registry import REGISTRY, Registry

__all__ = ["install", "session"]

_log: Final = logging.getLogger(__name__)

_AGAIN_IN: Final[Seconds] = 1.0  # when no breaker has said it
_LONGEST_CHAIN: Final = 32
_TITLES: Final = {
    "urn:pgbreaker:circuit-open": "Database calls are suspended",
    "urn:pgbreaker:bulkhead-full": "Too many database calls at once",
    "urn:pgbreaker:database-unavailable": "Database unavailable",
}


def install(app: FastAPI, *, path: str = "/health/db") -> Registry:
    """Answer outages of the database with 503, and add a page for health checks.

    Exception handlers of the application's own go first.

    Args:
        path: Where the health checks are.

    Returns:
        The breakers, for tests and for operators.

    Raises:
        RuntimeError: The application has started already.
    """
    app.add_middleware(_Outages)  # outermost: for the middleware of the application
    # Innermost, so that its middleware sees an answer, and can put CORS headers on it.
    app.user_middleware.append(Middleware(_Outages))
    app.add_api_route(path, _health, methods=["GET"], include_in_schema=False)
    return REGISTRY


class Sessions(Protocol):
    """What gives sessions: `CircuitBreakerIntegratedSessionManager` does."""

    def get_session(
        self, *, operation: str = ...
    ) -> AbstractAsyncContextManager[Any]: ...

    def transaction(
        self, *, operation: str = ...
    ) -> AbstractAsyncContextManager[Any]: ...


def session(
    manager: Sessions, operation: str = "read", transaction: bool = False
) -> Any:  # noqa: ANN401 - as `Depends` has it
    """A dependency that gives a session for the time of one request.

    It ends before the answer is sent, so that whoever is told that all went well can
    rely on it::

        reading = session(manager)
        writing = session(manager, "write", transaction=True)

        @app.post("/orders")
        async def order(db: Annotated[AsyncSession, writing]) -> None: ...

    Args:
        manager: What gives sessions, such as `CircuitBreakerIntegratedSessionManager`.
        operation: The kind of work, which is the breaker's.
        transaction: Whether it commits at the end.
    """

    async def opened() -> AsyncIterator[Any]:
        give = manager.transaction if transaction else manager.get_session
        async with give(operation=operation) as given:
            yield given

    return Depends(opened, scope="function")


# Answers to requests that failed.


class _Outages:
    """Answers for a request that raised an outage, if nothing has been sent yet."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def sending(message: Message) -> None:
            nonlocal has_started
            has_started = has_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            # A timeout or a broken connection may be another client's: only what a
            # driver is seen to have raised is the database's.
            if has_started or not is_outage(error, strict=True):
                raise
            await _problem(error)(scope, receive, send)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Go through what *error* was made of."""
    for _ in range(_LONGEST_CHAIN):
        yield error
        if error.__cause__ is None:
            return
        error = error.__cause__


def _problem(error: Exception) -> Response:
    """Say that it is the database, and nothing that the database said."""
    kind, breaker, state = "urn:pgbreaker:database-unavailable", None, None
    wait = _AGAIN_IN
    for link in _chain(error):
        if isinstance(link, CircuitOpenError):
            kind, breaker = "urn:pgbreaker:circuit-open", link.breaker
            state, wait = link.state.value, link.retry_after
            break
        if isinstance(link, BulkheadFullError):
            kind, breaker = "urn:pgbreaker:bulkhead-full", link.bulkhead
            break
    else:
        # Nobody else will see it: a refusal has been told of by the breaker.
        _log.warning("a request was answered with 503: %s", words(error))
    seconds = _whole(wait)
    body = {
        "type": kind,
        "title": _TITLES[kind],
        "status": 503,
        "detail": f"The database cannot be asked now; try again in {seconds} s.",
        "breaker": breaker,
        "state": state,
        "retry_after_seconds": seconds,
    }
    return Response(
        json.dumps(body),
        503,
        {"Retry-After": str(seconds), "Cache-Control": "no-store"},
        "application/problem+json",
    )


def _whole(wait: Seconds) -> int:
    """Seconds as HTTP has them: whole, and at least one."""
    return max(1, math.ceil(wait))


# Health.

_Health: TypeAlias = Literal["pass", "warn", "fail"]


async def _health() -> Response:
    """Whether calls pass: 200, or 503 when every breaker refuses them.

    A breaker that waits for a trial call has to be sent one: it counts as passing, or
    a load balancer that looks here would never let it recover.
    """
    breakers = REGISTRY.breakers()
    # The one of a whole server speaks through those below it, if there are any.
    working = [one for one in breakers if one.operation != "connect"] or breakers
    seen = [_health_of(one) for one in working]
    waits = [one.retry_after() for one in working]
    status: _Health = "pass" if set(seen) <= {"pass"} else "warn"
    headers = {"Cache-Control": "no-store"}
    if seen and set(seen) == {"fail"}:
        status = "fail"
        headers["Retry-After"] = str(_whole(min(waits)))
    body = {"status": status, "breakers": {one.name: _shown(one) for one in breakers}}
    return JSONResponse(body, 503 if status == "fail" else 200, headers)


def _health_of(breaker: PostgreSQLCircuitBreaker) -> _Health:
    if _refuses(breaker) or (breaker.above is not None and _refuses(breaker.above)):
        return "fail"
    is_well = breaker.passes and breaker.core.computed_passes
    return "pass" if is_well else "warn"


def _refuses(breaker: PostgreSQLCircuitBreaker) -> bool:
    if breaker.state is State.OPEN:
        return breaker.retry_after() > 0
    return breaker.state is State.FORCED_OPEN


def _shown(breaker: PostgreSQLCircuitBreaker) -> dict[str, Any]:
    """A breaker without the words of anybody: errors may say more than is public."""
    seen = breaker.snapshot()
    return {
        "status": _health_of(breaker),
        "state": seen["state"],
        "since": seen["since"],
        "retry_after_seconds": seen["retry_after_seconds"],
    }
