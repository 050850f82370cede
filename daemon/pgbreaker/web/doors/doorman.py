"""Stands before every address: who asks, by what name, from where, how often."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from aiohttp import hdrs, web

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.units import Seconds
from pgbreaker.web.doors.hosts import Hosts, is_form, is_loopback
from pgbreaker.web.doors.limits import Limits, Pace, neighbourhood, retry_after
from pgbreaker.web.doors.lines import is_unix
from pgbreaker.web.doors.logins import ANYBODY, Logins, unknown
from pgbreaker.web.doors.plan import WebPlan
from pgbreaker.web.doors.present import Present
from pgbreaker.web.doors.refusal import TurnedAwayError
from pgbreaker.web.doors.tokens import CSRF_FIELD, is_csrf_token, new_seal
from pgbreaker.web.route import WHO, Handler, Role, Route, Who

log = logging.getLogger(__name__)

T = TypeVar("T")

BODY: Final = 64 * 1024  # bytes
_CHANGES: Final = "more changes than anybody makes by hand"
_REPORTS: Final = "more reports at once than anybody reads"
_GO_ON: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_FORWARDED: Final = ("x-real-ip", "forwarded", "via")  # and all that is x-forwarded-

# Anything more would have the page load from elsewhere, or be shown there. There is no
# Strict-Transport-Security of ours: it holds for a host with all its ports, and would cut
# browsers off from exporters beside us that are not encrypted; the file may ask for it.
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_SERVER: Final = "pgbreaker"
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",  # for browsers that do not know frame-ancestors
    # Not no-referrer: with that, forms of our own pages have an origin of null.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""What every answer carries, unless it has its own word on it."""


class Doorman:
    """Lets requests in.

    Attributes:
        seal: The key of this process.
        present: What the web configuration says.
        turned_away: Requests that were not let in.
    """

    def __init__(
        self,
        plan: HttpPlan,
        present: Present,
        limits: Limits,
        now: Callable[[], Seconds],
    ) -> None:
        self.seal = new_seal()
        self.present = present
        self.turned_away = 0
        self._logins = Logins(self.seal, now)
        self._hosts = Hosts(plan.listen[0], plan.allowed_hosts)
        self._is_loopback = is_loopback(plan.listen[0])
        self._routes: dict[tuple[web.AbstractResource, str], Route] = {}
        self._writes = Pace(limits.write_every, limits.writes, now)
        self._reports = Pace(limits.report_every, limits.reports, now)
        self._limits = limits
        self._now = now
        self._pace: tuple[WebPlan, Pace] | None = None
        has_words = bool(present.plan.users or present.plan.tokens)
        if has_words and present.plan.tls is None and not self._is_loopback:
            log.warning(
                "passwords come over the network as they are; tls_server_config in %s"
                " has connections encrypted",
                plan.web_config,
            )

    def guard(self, resource: web.AbstractResource | None, route: Route) -> None:
        """Let in by *route* those who ask for *resource* by its method."""
        assert resource is not None
        self._routes[resource, route.method] = route

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Be there for the time of the block."""
        async with self._logins.open(), self.present.kept():
            yield

    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer by *handler*, if it may be asked.

        Raises:
            TurnedAwayError: It may not.
        """
        plan = self.present.plan
        # Nobody has said who may use an address that there is not: to those who are
        # not in, it is like any other.
        route = self._route_of(request)
        needed = Role.VIEWER if route is None else route.role
        request[WHO] = ANYBODY
        if not is_unix(request.transport):
            self._check_host(request)
        if needed > Role.NOBODY:
            self._check_pace(plan)
            request[WHO] = await self._who(request, plan)
            self._check_role(request, plan, needed)
        if (request.content_length or 0) > BODY:
            raise web.HTTPRequestEntityTooLarge(BODY, request.content_length or 0)
        if request.method in (hdrs.METH_GET, hdrs.METH_HEAD) or route is None:
            return await handler(request)
        return await self._change(request, route, handler)

    def _route_of(self, request: web.Request) -> Route | None:
        resource, method = request.match_info.route.resource, request.method
        if resource is None:
            return None
        method = hdrs.METH_GET if method == hdrs.METH_HEAD else method
        return self._routes.get((resource, method))

    async def _change(
        self, request: web.Request, route: Route, handler: Handler
    ) -> web.StreamResponse:
        if not is_unix(request.transport):
            self._check_origin(request)
        self._check_type(request, route)
        pace = self._reports if route.tells else self._writes
        if seconds := pace.wait(_place(request)):
            raise _too_many(_REPORTS if route.tells else _CHANGES, seconds)
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(_GO_ON)
            request.writer.output_size = 0  # not of the answer
        await _within(self._limits.body, request.read(), 408, "the body did not come")
        await self._check_form(request)
        return await _within(
            self._limits.change, handler(request), 503, "it is not done"
        )

    # -- Who ---------------------------------------------------------------------------

    async def _who(self, request: web.Request, plan: WebPlan) -> Who:
        if is_unix(request.transport):
            name, is_ours = await self._logins.peer(request)
            # Its mode lets in the group besides, who needs no more where nobody does.
            if is_ours or not plan.has_logins:
                return Who(name, Role.ADMIN)
        if not plan.has_logins:
            is_here = self._is_loopback and not _is_forwarded(request)
            return Who(None, Role.ADMIN if is_here else Role.VIEWER)
        who = await self._logins.who(request, plan)
        return who if who.role else Who(None, plan.anonymous)

    def _check_role(self, request: web.Request, plan: WebPlan, needed: Role) -> None:
        who = request[WHO]
        if who.role >= needed:
            return
        least = needed.name.lower()
        if who.name is not None:
            raise TurnedAwayError(
                403,
                "not allowed",
                f"{who.name} is {who.role.name.lower()}, and this takes {least};"
                " pgbreaker.roles in the web configuration says who is what",
            )
        if plan.has_logins:
            raise unknown(plan, f"this takes {least}")
        raise TurnedAwayError(
            403,
            "not allowed",
            "whoever comes over the network changes nothing without logging in;"
            " http.web_config says who may (or http.socket, for this machine)",
        )

    # -- From where --------------------------------------------------------------------

    def _check_host(self, request: web.Request) -> None:
        host = request.headers.get(hdrs.HOST)
        if not self._hosts.answers_to(host):
            raise TurnedAwayError(
                421,
                "misdirected request",
                f"nobody of the name {host!r} is here; http.allowed_hosts lists more"
                " names than those of this machine",
            )

    def _check_origin(self, request: web.Request) -> None:
        wrong = self._hosts.wrong_with_origin(
            request.headers.get(hdrs.ORIGIN),
            request.headers.get("Sec-Fetch-Site"),
            request.headers.get(hdrs.HOST),
        )
        if wrong is not None:
            raise TurnedAwayError(403, "not allowed", wrong)

    def _check_type(self, request: web.Request, route: Route) -> None:
        if hdrs.CONTENT_ENCODING in request.headers:
            raise TurnedAwayError(415, "unsupported", "send the body as it is")
        kind = request.content_type if hdrs.CONTENT_TYPE in request.headers else None
        # Nothing is nothing, whatever its type: several clients give it one.
        if not request.can_read_body and not (kind and is_form(kind)):
            return
        if kind == "application/json":
            return
        if kind == "application/x-www-form-urlencoded" and route.takes_forms:
            return
        raise TurnedAwayError(
            415,
            "unsupported",
            f"this takes application/json, and not {kind or 'a body of no type'}",
        )

    async def _check_form(self, request: web.Request) -> None:
        if hdrs.CONTENT_TYPE not in request.headers or not is_form(
            request.content_type
        ):
            return
        try:
            given = (await request.post()).get(CSRF_FIELD)
        except (ValueError, LookupError):  # of no charset that there is, or not in it
            raise TurnedAwayError(
                400, "bad request", "the form cannot be read"
            ) from None
        if not isinstance(given, str) or not is_csrf_token(request, given):
            raise TurnedAwayError(
                403,
                "not allowed",
                "the form is not of a page of this daemon, or of one from before it was"
                " started; load the page anew",
            )

    # -- How often ---------------------------------------------------------------------

    def _check_pace(self, plan: WebPlan) -> None:
        if not plan.interval:
            return
        if self._pace is None or self._pace[0] is not plan:
            self._pace = plan, Pace(plan.interval, plan.burst, self._now)
        if seconds := self._pace[1].wait():
            raise _too_many("more requests than rate_limit takes", seconds)

    # -- The answer --------------------------------------------------------------------

    def dress(self, response: web.StreamResponse) -> None:
        """Set the headers that every answer carries."""
        plan = self.present.plan
        response.headers.update(plan.headers)
        response.headers["Server"] = _SERVER  # aiohttp has set its own by now
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)


def _place(request: web.Request) -> str:
    who = request[WHO]
    return f"{neighbourhood(request.remote)} {who.name}"


def _is_forwarded(request: web.Request) -> bool:
    """Whether a proxy on this machine asks for somebody who may be anywhere.

    Not each says for whom: of a service mesh's there may be ``X-Forwarded-Proto`` alone.
    """
    names = (name.lower() for name in request.headers)
    return any(name in _FORWARDED or name.startswith("x-forwarded-") for name in names)


def _too_many(detail: str, seconds: Seconds) -> TurnedAwayError:
    after = {"Retry-After": retry_after(seconds)}
    return TurnedAwayError(429, "too many requests", detail, **after)


async def _within(seconds: Seconds, doing: Awaitable[T], status: int, what: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await doing
    except TimeoutError:
        raise TurnedAwayError(
            status, "too slow", f"{what} within {seconds:g} s"
        ) from None
