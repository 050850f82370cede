"""What other programs order: overrides, maintenance, notes."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from pgbreaker.core.states import State
from pgbreaker.monitor.desk import HANDED_BACK, LASTS
from pgbreaker.web.api.asked import Body, Query, author_of
from pgbreaker.web.inside import Inside
from pgbreaker.web.problems import UnknownError
from pgbreaker.web.route import Role, Route

STATES: Final[Mapping[str, State]] = {
    "open": State.FORCED_OPEN,
    "closed": State.CLOSED,
    "disabled": State.DISABLED,
    "metrics_only": State.METRICS_ONLY,
}
"""What an override can be asked to be -> the state that stands before the breaker's."""


class Orders:
    """Carries orders to the desk."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    def routes(self) -> list[Route]:
        """Every address there is."""
        operator = Role.OPERATOR
        override = "/api/v1/breakers/{target}/{operation}/override"
        windows, notes = "/api/v1/maintenance", "/api/v1/events/{id}/notes"
        return [
            Route("PUT", override, operator, self.override, changes=True),
            Route("DELETE", override, operator, self.hand_back, changes=True),
            Route("GET", windows, Role.VIEWER, self.windows),
            Route("POST", windows, operator, self.begin, changes=True),
            Route("DELETE", f"{windows}/{{id}}", operator, self.end, changes=True),
            Route("POST", notes, operator, self.note, changes=True),
        ]

    async def override(self, request: web.Request) -> web.Response:
        """Put a word before a breaker's own."""
        Query(request).check()
        target, operation = self._inside.breaker_of(request)
        body = await Body.of(request, "state", "reason", "for", "author")
        state, reason = body.word("state", list(STATES)), body.text("reason")
        lasting = body.lasting("for", LASTS)
        author = author_of(request, body)
        body.check()
        await self._inside.desk.override(
            target.breakers[operation],
            STATES[state],
            reason=reason,
            author=author,
            lasting=LASTS if lasting is None else lasting,
        )
        return self._breaker(request)

    async def hand_back(self, request: web.Request) -> web.Response:
        """Let a breaker decide by itself again. Where it does, all is well."""
        Query(request).check()
        target, operation = self._inside.breaker_of(request)
        body = await Body.of(request, "reason", "author", may_lack=True)
        reason, author = body.text("reason", HANDED_BACK), author_of(request, body)
        body.check()
        breaker = target.breakers[operation]
        await self._inside.desk.hand_back(breaker, reason=reason, author=author)
        return self._breaker(request)

    def _breaker(self, request: web.Request) -> web.Response:
        # Looked up anew: while it was written down the world went on.
        target, operation = self._inside.breaker_of(request)
        return web.json_response(self._inside.views.breaker(target, operation))

    async def windows(self, request: web.Request) -> web.Response:
        """Windows of maintenance that are not over."""
        Query(request).check()
        windows = sorted(self._inside.desk.windows.values(), key=lambda w: w.starts)
        shown = [self._inside.views.window(window) for window in windows]
        return web.json_response({"windows": shown})

    async def begin(self, request: web.Request) -> web.Response:
        """Plan maintenance."""
        Query(request).check()
        known = ("targets", "reason", "for", "starts", "ends", "author")
        body = await Body.of(request, *known)
        targets, reason = body.texts("targets"), body.text("reason")
        lasting = body.lasting("for")
        starts, ends = body.moment("starts"), body.moment("ends")
        author = author_of(request, body)
        if body.has("for") == body.has("ends"):
            body.wrong("ends", "say how long (for), or until when (ends)")
        body.check()
        if ends is None:
            begins = self._inside.clock.wall()
            if starts is not None:
                begins = max(begins, starts)
            ends = begins + (lasting or 0.0)
        window = await self._inside.desk.begin(
            targets, reason=reason, author=author, ends=ends, starts=starts
        )
        return web.json_response(
            self._inside.views.window(window),
            status=201,
            headers={"Location": f"maintenance/{window.id}"},
        )

    async def end(self, request: web.Request) -> web.Response:
        """End a window, or call it off."""
        Query(request).check()
        window = _id(request, "window")
        body = await Body.of(request, "author", may_lack=True)
        author = author_of(request, body)
        body.check()
        ended = await self._inside.desk.end(window, author=author)
        return web.json_response(self._inside.views.window(ended) | {"active": False})

    async def note(self, request: web.Request) -> web.Response:
        """Write something to an event."""
        Query(request).check()
        entry = _id(request, "event")
        body = await Body.of(request, "text", "author")
        text, author = body.text("text"), author_of(request, body)
        body.check()
        noted = await self._inside.desk.note(entry, text, author=author)
        return web.json_response(self._inside.views.entry(noted), status=201)


def _id(request: web.Request, what: str) -> int:
    text = request.match_info["id"]
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise UnknownError(what, text, ("numbers alone",))
    return int(text)
