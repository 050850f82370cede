"""What other programs ask: JSON, from memory."""

from collections.abc import Callable
from typing import Any, Final

from aiohttp import hdrs, web

from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.recent import KEPT
from pgbreaker.web.api.asked import LAST_ID, Query
from pgbreaker.web.api.changes import FullError
from pgbreaker.web.api.civil import civil
from pgbreaker.web.api.document import document
from pgbreaker.web.api.history import Told
from pgbreaker.web.api.orders import Orders
from pgbreaker.web.api.past import Kept
from pgbreaker.web.api.reporting import Reporting
from pgbreaker.web.inside import Inside
from pgbreaker.web.plain import Plain
from pgbreaker.web.problems import problem
from pgbreaker.web.route import Role, Route

INDEX: Final = "X-Pgbreaker-Index"
"""The header with the index of what is shown; `pgbreaker.web.api.changes` says of what."""

WAITS: Final[Seconds] = 30.0
"""Seconds that a question waits for another index, unless it says how long."""

LONGEST: Final[Seconds] = 300.0
"""Seconds that it waits at most."""

RETRY_AFTER: Final = "5"
"""Seconds after which who found too many waiting may come back."""


class Api:
    """The addresses below ``/api/v1``, and what describes them."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._views = inside.views
        self._changes = inside.stream.changes
        self._rooms = (Orders(inside), Told(inside), Kept(inside), Reporting(inside))

    def routes(self) -> list[Route]:
        """Every address there is."""
        viewer, admin = Role.VIEWER, Role.ADMIN
        target = "/api/v1/targets/{target}"
        breaker = "/api/v1/breakers/{target}/{operation}"
        mine = [
            Route("GET", "/openapi.json", viewer, self.openapi),
            Route("GET", "/api/v1/status", viewer, self.status),
            Route("GET", "/api/v1/targets", viewer, self.targets),
            Route("GET", target, viewer, self.target),
            Route("GET", f"{target}/probes", viewer, self.probes),
            Route("GET", "/api/v1/breakers", viewer, self.breakers),
            Route("GET", breaker, viewer, self.breaker),
            Route("GET", "/api/v1/stream", viewer, self._inside.stream.answer),
            Route("GET", "/api/v1/advice", viewer, self.advice),
            Route("GET", "/api/v1/advice/stream", viewer, self._inside.advising.answer),
            Route("GET", "/api/v1/config", admin, self.config),
        ]
        theirs = [route for room in self._rooms for route in room.routes()]
        return [civil(route) for route in (*mine, *theirs)]

    async def openapi(self, request: web.Request) -> web.Response:
        """What there is to be asked, by OpenAPI 3.1."""
        Query(request).check()
        described = (*Plain(self._inside, {}).routes(), *self.routes())
        return web.json_response(document(self._inside.version, described))

    async def status(self, request: web.Request) -> web.Response:
        """Everything."""
        return await self._shown(
            request, lambda: self._views.status() | {"index": self._changes.index}
        )

    async def targets(self, request: web.Request) -> web.Response:
        """Every target."""
        return await self._shown(request, self._views.targets)

    async def target(self, request: web.Request) -> web.Response:
        """One target."""
        target = self._inside.target_of(request)

        def show() -> dict[str, Any]:
            # Looked up anew: while it was waited for there may have come another.
            return self._views.target(self._inside.target_of(request))

        return await self._shown(request, show, target)

    async def breakers(self, request: web.Request) -> web.Response:
        """Every breaker."""
        return await self._shown(request, self._views.breakers)

    async def breaker(self, request: web.Request) -> web.Response:
        """One breaker."""
        target, _operation = self._inside.breaker_of(request)

        def show() -> dict[str, Any]:
            return self._views.breaker(*self._inside.breaker_of(request))

        return await self._shown(request, show, target)

    async def _shown(
        self, request: web.Request, show: Callable[[], Any], *of: TargetBoard
    ) -> web.Response:
        """Show what is true: at once, when anything has moved, or not at all, where
        nothing has since it was asked for.

        Args:
            of: The target that it is of. None: of all.
        """
        query = Query(request, "index", "wait")
        index = query.number("index", 0, LAST_ID)
        wait = query.lasting("wait", LONGEST)
        if wait is not None and "index" not in request.query:
            query.wrong("wait", "for what? give the index that you have, too")
        query.check()
        if index is not None:
            try:
                await self._changes.beyond(index, WAITS if wait is None else wait)
            except FullError:
                after = {"Retry-After": RETRY_AFTER}
                return problem(503, "too many wait", "ask without index", **after)
        # Before it is shown: what moves meanwhile is news to whoever asks again.
        etag = f'W/"{self._changes.index}-{self._views.mark(*of)}"'
        headers = {hdrs.ETAG: etag, INDEX: str(self._changes.index)}
        if _has(request, etag):
            return web.Response(status=304, headers=headers)
        return web.json_response(show(), headers=headers)

    async def probes(self, request: web.Request) -> web.Response:
        """The last runs of a target's probes, the newest first."""
        target = self._inside.target_of(request)
        query = Query(request, "probe", "limit", lists=("probe",))
        wanted = query.words("probe", list(target.plan.probes))
        limit = query.number("limit", 1, KEPT)
        query.check()
        seen = self._inside.recent.targets.get(target.plan.name)
        runs = [] if seen is None else seen.runs(*wanted, limit=limit or KEPT)
        return web.json_response({"probes": [self._views.run(run) for run in runs]})

    async def advice(self, request: web.Request) -> web.Response:
        """What applications are told now."""
        Query(request).check()
        return web.json_response(self._inside.advising.said())

    async def config(self, request: web.Request) -> web.Response:
        """The configuration that is true now, without its secrets."""
        Query(request).check()
        if self._inside.config is None:
            return problem(404, "not found", "this daemon does not show its own")
        return web.json_response(dict(self._inside.config()))


def _has(request: web.Request, etag: str) -> bool:
    given = request.headers.get(hdrs.IF_NONE_MATCH, "")
    tags = [tag.strip() for tag in given.split(",")]
    return "*" in tags or etag in tags or etag.removeprefix("W/") in tags
