"""The addresses for scrapers, supervisors and load balancers, who ask all day."""

import math
from contextlib import aclosing, suppress

from aiohttp import web

from pgbreaker.web.api.asked import Body, Query, author_of
from pgbreaker.web.api.civil import civil
from pgbreaker.web.inside import Inside
from pgbreaker.web.problems import problem
from pgbreaker.web.route import Role, Route


class Plain:
    """What needs no API: metrics, health, whether work may be sent."""

    def __init__(self, inside: Inside, headers: dict[str, str]) -> None:
        self._inside = inside
        self._headers = headers

    def routes(self) -> list[Route]:
        """Every address there is."""
        may_send = "/health/{target}/{operation}"
        return [
            Route("GET", "/metrics", Role.VIEWER, self.metrics),
            # Who supervises us has no password, and learns nothing of the targets.
            Route("GET", "/-/healthy", Role.NOBODY, self.healthy),
            Route("GET", "/-/ready", Role.NOBODY, self.ready),
            civil(Route("POST", "/-/reload", Role.ADMIN, self.reload, changes=True)),
            Route("GET", may_send, Role.VIEWER, self.may_send),
        ]

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """What Prometheus scrapes, sent while it is being written."""
        accept = request.headers.get("Accept", "")
        encoding = request.headers.get("Accept-Encoding", "")
        headers, body = self._inside.metrics.scrape(accept, encoding)
        # Once prepared, headers are sent: those that all share must be among them.
        response = web.StreamResponse(headers=self._headers | headers)
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
        return _verdict(self._inside.health(), "unhealthy")

    async def ready(self, _request: web.Request) -> web.Response:
        """Whether every target has been asked once."""
        return _verdict(self._inside.ready(), "not ready")

    async def reload(self, request: web.Request) -> web.Response:
        """Read the configuration anew."""
        Query(request).check()
        body = await Body.of(request, "author", may_lack=True)
        author = author_of(request, body)
        body.check()
        if self._inside.reload is None:
            return problem(409, "nothing to reload", "the daemon was given no file")
        done = await self._inside.reload(author)
        return web.json_response({"changes": done.changes, "later": done.later})

    async def may_send(self, request: web.Request) -> web.Response:
        """Whether work of this kind may be sent; for load balancers."""
        target, operation = self._inside.breaker_of(request)
        breaker = target.breakers[operation]
        now = self._inside.clock.now()
        if breaker.passes:
            return web.Response(text=f"{breaker.state.value}\n")
        seconds = max(1, math.ceil(breaker.retry_after(now)))
        return problem(
            503,
            f"{breaker.name} is {breaker.state.value}",
            breaker.explain(now),
            **{"Retry-After": str(seconds)},
        )


def _verdict(wrong: str | None, title: str) -> web.Response:
    if wrong is None:
        return web.json_response({"status": "ok"})
    return problem(503, title, wrong)
