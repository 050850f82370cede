"""The addresses for people: the live page, and the runbooks."""

from functools import cache

from aiohttp import web

from pgbreaker.shipped import shipped
from pgbreaker.web.inside import Inside
from pgbreaker.web.page import CSP, contents, page
from pgbreaker.web.problems import UnknownError
from pgbreaker.web.route import Role, Route


class Pages:
    """Pages for people."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def routes(self) -> list[Route]:
        """Every address there is."""
        return [
            Route("GET", "/", Role.VIEWER, self.page),
            Route("GET", "/runbooks/", Role.VIEWER, self.runbooks),
            Route("GET", "/runbooks/{name}", Role.VIEWER, self.runbook),
        ]

    async def page(self, _request: web.Request) -> web.Response:
        """What is true now."""
        inside = self._inside
        return _html(page(inside.views.status(), inside.version))

    async def runbooks(self, _request: web.Request) -> web.Response:
        """The runbooks there are."""
        return _html(contents(_runbooks()))

    async def runbook(self, request: web.Request) -> web.Response:
        """What to do about an alert: for whoever has put the runbooks nowhere else."""
        runbooks = _runbooks()
        name = request.match_info["name"]
        if name not in runbooks:
            raise UnknownError("runbook", name, runbooks)
        return web.Response(text=runbooks[name])


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
