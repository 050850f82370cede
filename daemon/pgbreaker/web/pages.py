"""The addresses for people: the live page, what to do there, and the runbooks."""

import gzip
from functools import cache
from typing import Final

from aiohttp import web

from pgbreaker.shipped import shipped
from pgbreaker.web.inside import Inside
from pgbreaker.web.page import press
from pgbreaker.web.page.acts import Acts
from pgbreaker.web.page.frame import Frame
from pgbreaker.web.page.writer import Writer
from pgbreaker.web.problems import UnknownError
from pgbreaker.web.route import Role, Route

_FOR_EVER: Final = "public, max-age=31536000, immutable"


class Pages:
    """Pages for people."""

    def __init__(self, inside: Inside) -> None:
        self._frame = Frame(inside)
        self._writer = Writer(self._frame)
        self._acts = Acts(self._frame)

    def routes(self) -> list[Route]:
        """Every address there is."""
        viewer, writer = Role.VIEWER, self._writer
        return [
            Route("GET", "/", viewer, writer.overview),
            Route("GET", "/targets/{target}", viewer, writer.target),
            Route("GET", "/breakers/{target}/{operation}", viewer, writer.breaker),
            Route("GET", "/events", viewer, writer.events),
            *self._acts.routes(),
            Route("GET", "/runbooks/", viewer, self.runbooks),
            Route("GET", "/runbooks/{name}", viewer, self.runbook),
            # How a page looks is no secret, and a page of errors needs it, too.
            Route("GET", "/static/{edition}/{name}", Role.NOBODY, static),
        ]

    async def runbooks(self, request: web.Request) -> web.Response:
        """The runbooks there are."""
        names = list(_runbooks())
        return self._frame.page(
            request, "runbooks.html", title="Runbooks", here="runbooks/", names=names
        )

    async def runbook(self, request: web.Request) -> web.Response:
        """What to do about an alert: for whoever has put the runbooks nowhere else."""
        runbooks = _runbooks()
        name = request.match_info["name"]
        if name not in runbooks:
            raise UnknownError("runbook", name, runbooks)
        return web.Response(text=runbooks[name])


async def static(request: web.Request) -> web.Response:
    """A file that pages load. Its address changes with what is in it."""
    name = request.match_info["name"]
    known = press.statics()
    if name not in known:
        raise UnknownError("file", name, known)
    content, kind = known[name]
    is_current = request.match_info["edition"] == press.edition()
    etag = f'"{press.edition()}"'
    headers = {
        "Cache-Control": _FOR_EVER if is_current else "no-cache",
        "ETag": etag,
        "Vary": "Accept-Encoding",
    }
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        content = _packed(name)
        headers["Content-Encoding"] = "gzip"
    return web.Response(
        body=content, headers=headers | {"Content-Type": f"{kind}; charset=utf-8"}
    )


@cache
def _packed(name: str) -> bytes:
    return gzip.compress(press.statics()[name][0], mtime=0)


@cache
def _runbooks() -> dict[str, str]:
    return {
        path.removeprefix("runbooks/"): text
        for path, text in shipped("alerts")
        if path.startswith("runbooks/")
    }
