"""What other programs ask: JSON, from memory."""

from aiohttp import web

from pgbreaker.web.inside import Inside
from pgbreaker.web.route import Role, Route


class Api:
    """The addresses below ``/api/v1``."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._views = inside.views

    def routes(self) -> list[Route]:
        """Every address there is."""
        viewer = Role.VIEWER
        breaker = "/api/v1/breakers/{target}/{operation}"
        return [
            Route("GET", "/api/v1/status", viewer, self.status),
            Route("GET", "/api/v1/targets", viewer, self.targets),
            Route("GET", "/api/v1/targets/{target}", viewer, self.target),
            Route("GET", "/api/v1/breakers", viewer, self.breakers),
            Route("GET", breaker, viewer, self.breaker),
        ]

    async def status(self, _request: web.Request) -> web.Response:
        """Everything."""
        return web.json_response(self._views.status())

    async def targets(self, _request: web.Request) -> web.Response:
        """Every target."""
        return web.json_response(self._views.status()["targets"])

    async def target(self, request: web.Request) -> web.Response:
        """One target."""
        return web.json_response(self._views.target(self._inside.target_of(request)))

    async def breakers(self, _request: web.Request) -> web.Response:
        """Every breaker."""
        return web.json_response(self._views.breakers())

    async def breaker(self, request: web.Request) -> web.Response:
        """One breaker."""
        target, operation = self._inside.breaker_of(request)
        return web.json_response(self._views.breaker(target, operation))
