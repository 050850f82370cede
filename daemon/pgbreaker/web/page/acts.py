"""The addresses by which people do something: forms, and what becomes of them.

The script shows the same forms in a dialog and sends them to the same addresses; it
says so by ``part`` in the query, and gets back a piece instead of a page.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from aiohttp import web

from pgbreaker.core.entry import Entry
from pgbreaker.core.units import duration
from pgbreaker.monitor.desk import RefusedError
from pgbreaker.sinks.history import NotKeptError
from pgbreaker.web.api.asked import SOMEONE
from pgbreaker.web.doors import csrf_token
from pgbreaker.web.page import press
from pgbreaker.web.page.breakers import path_of, sight_of
from pgbreaker.web.page.frame import Frame
from pgbreaker.web.page.orders import (
    TIMES,
    VERBS,
    Order,
    carry_out,
    command,
    effect,
    is_risky,
    order_of,
)
from pgbreaker.web.problems import UnknownError
from pgbreaker.web.route import WHO, Role, Route


class Acts:
    """Forms, and what becomes of them."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._inside = frame.inside

    def routes(self) -> list[Route]:
        """Every address there is."""
        operator, act = Role.OPERATOR, "/breakers/{target}/{operation}/act"
        note, end = "/events/{id}/note", "/maintenance/{id}/end"
        return [
            Route("GET", act, operator, self.ask),
            Route("POST", act, operator, self.act, changes=True),
            Route("GET", "/maintenance", Role.VIEWER, self.windows),
            Route("POST", "/maintenance", operator, self.plan, changes=True),
            Route("GET", end, operator, self.ask_end),
            Route("POST", end, operator, self.end, changes=True),
            Route("GET", note, operator, self.ask_note),
            Route("POST", note, operator, self.note, changes=True),
        ]

    # A breaker is taken over, or handed back.

    async def ask(self, request: web.Request) -> web.Response:
        """The form for one of the verbs."""
        verb = request.query.get("do", "")
        if verb not in VERBS:
            raise UnknownError("verb", verb, VERBS)
        return self._form(request, Order(verb))

    async def act(self, request: web.Request) -> web.Response:
        """Do what the form says."""
        target, operation = self._inside.breaker_of(request)
        order = order_of(_texts(await request.post()), request[WHO].name)
        path = f"{path_of(target.plan.name, operation)}/act"
        try:
            breaker = target.breakers[operation]
            done = await carry_out(self._inside, breaker, order, path)
        except RefusedError as error:
            refused = replace(order, errors={error.field: error.text})
            return self._form(request, refused, status=422)
        except NotKeptError as error:
            refused = replace(order, errors={"store": str(error)})
            return self._form(request, refused, status=507)
        if _is_part(request):
            return self._frame.part(self._frame.toast(request, done))
        word = self._frame.lately.keep(done, self._inside.clock.now())
        return _see(f"../{quote(operation, safe='')}?done={word}")

    def _form(
        self, request: web.Request, order: Order, *, status: int = 200
    ) -> web.Response:
        target, operation = self._inside.breaker_of(request)
        breaker = target.breakers[operation]
        sight = sight_of(target, operation, self._inside.clock)
        facts = {
            "sight": sight,
            "order": order,
            "effect": effect(breaker, order.verb),
            "command": command(breaker, order),
            "risky": is_risky(breaker, order.verb),
            "times": TIMES,
            "forgets": self._frame.forgets and order.verb != "auto",
        }
        title = f"{order.word}: {sight.name}"
        return self._asked(
            request, "_act.html", "act.html", title, status, facts, sight=sight
        )

    # Maintenance.

    async def windows(self, request: web.Request) -> web.Response:
        """What is planned, and the form for more."""
        chosen = request.query.getall("target", [])
        return self._windows(request, targets=chosen)

    async def plan(self, request: web.Request) -> web.Response:
        """Plan a window."""
        form = await request.post()
        said = _texts(form)
        targets = [str(target) for target in form.getall("targets", [])]
        now = self._inside.clock.wall()
        try:
            starts = now + _seconds("ends", said.get("starts", "") or "0s")
            window = await self._inside.desk.begin(
                targets,
                reason=said.get("reason", ""),
                author=self._author(request, said),
                starts=None if starts == now else starts,
                ends=starts + _seconds("ends", said.get("for", "")),
            )
        except RefusedError as error:
            errors = {error.field: error.text}
            return self._windows(request, targets, said, errors, status=422)
        except NotKeptError as error:
            errors = {"id": str(error)}
            return self._windows(request, targets, said, errors, status=507)
        return _see(f"maintenance#window-{window.id}")

    def _windows(
        self,
        request: web.Request,
        targets: list[str],
        said: Mapping[str, str] | None = None,
        errors: Mapping[str, str] | None = None,
        *,
        status: int = 200,
    ) -> web.Response:
        said = said or {}
        names = list(self._inside.board.targets)
        windows = sorted(self._inside.desk.windows.values(), key=lambda w: w.starts)
        given = self._given(request)
        table = press.write("_windows.html", **given, windows=windows)
        return self._frame.page(
            request,
            "maintenance.html",
            title="Maintenance",
            here="maintenance",
            status=status,
            pieces={"windows": table},
            targets=names,
            times=TIMES,
            csrf=given["csrf"],
            nobody=SOMEONE,
            errors={
                "id": "",
                "targets": "",
                "reason": "",
                "ends": "",
                **(errors or {}),
            },
            said={
                "targets": targets,
                "reason": said.get("reason", ""),
                "starts": said.get("starts", ""),
                "lasting": said.get("for", "1h"),
                "author": said.get("author", ""),
            },
        )

    async def ask_end(self, request: web.Request) -> web.Response:
        """Ask whether a window is to be ended."""
        windows = self._inside.desk.windows
        window = windows.get(_number(request))
        if window is None:
            raise UnknownError("window", request.match_info["id"], map(str, windows))
        facts = {"window": window}
        return self._asked(
            request, "_end.html", "ask.html", "End maintenance", 200, facts
        )

    async def end(self, request: web.Request) -> web.Response:
        """End a window."""
        said = _texts(await request.post())
        try:
            await self._inside.desk.end(
                _number(request), author=self._author(request, said)
            )
        except (RefusedError, NotKeptError) as error:
            return self._refused(request, error)
        return _see("../../maintenance")

    # Notes.

    async def ask_note(self, request: web.Request) -> web.Response:
        """The form for a note."""
        return await self._note_form(request)

    async def note(self, request: web.Request) -> web.Response:
        """Write a note to an event."""
        said = _texts(await request.post())
        text, author = said.get("text", ""), self._author(request, said)
        try:
            await self._inside.desk.note(_number(request), text, author=author)
        except RefusedError as error:
            if error.field == "id":
                return self._refused(request, error)
            return await self._note_form(request, text, error.text, status=422)
        except NotKeptError as error:
            return await self._note_form(request, text, str(error), status=507)
        return _see("../../events")

    async def _note_form(
        self, request: web.Request, said: str = "", *errors: str, status: int = 200
    ) -> web.Response:
        facts = {"entry": await self._entry(request), "said": said, "errors": errors}
        return self._asked(request, "_note.html", "ask.html", "A note", status, facts)

    async def _entry(self, request: web.Request) -> Entry:
        number = _number(request)
        found = await self._inside.history.page(before=number + 1, limit=1)
        if found and found[0].id == number:
            return found[0]
        raise UnknownError("event", request.match_info["id"], ("those of /events",))

    # What they share.

    def _asked(
        self,
        request: web.Request,
        form: str,
        page: str,
        title: str,
        status: int,
        facts: Mapping[str, Any],
        **more: Any,  # noqa: ANN401 - whatever the page shows
    ) -> web.Response:
        """A form: by itself for a dialog, on a page of its own without the script."""
        is_part = _is_part(request)
        given = self._given(request) | {"level": 2 if is_part else 1} | dict(facts)
        written = press.write(form, **given)
        if is_part:
            return self._frame.part(written, status=status)
        return self._frame.page(
            request, page, title=title, status=status, form=written, **more
        )

    def _given(self, request: web.Request) -> dict[str, Any]:
        return self._frame.common(request) | {
            "csrf": csrf_token(request),
            "nobody": SOMEONE,
        }

    def _refused(
        self, request: web.Request, error: RefusedError | NotKeptError
    ) -> web.Response:
        status = 507 if isinstance(error, NotKeptError) else 422
        return self._frame.page(
            request,
            "refused.html",
            title="That is not done",
            status=status,
            says=str(error),
        )

    def _author(self, request: web.Request, said: Mapping[str, str]) -> str:
        return request[WHO].name or said.get("author", "").strip() or SOMEONE


def _see(where: str) -> web.Response:
    """Send the browser to where what was done is to be seen."""
    return web.Response(status=303, headers={"Location": where})


def _texts(form: Mapping[str, object]) -> dict[str, str]:
    """The fields of a form that are text; of those given twice, the last."""
    return {name: value for name, value in form.items() if isinstance(value, str)}


def _is_part(request: web.Request) -> bool:
    return "part" in request.query


def _number(request: web.Request) -> int:
    text = request.match_info["id"]
    return int(text) if text.isdecimal() and len(text) < 18 else -1


def _seconds(field: str, text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise RefusedError(field, str(error)) from None
