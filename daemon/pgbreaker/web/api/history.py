"""What other programs ask of the past: events, incidents, who did what, when it was so."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from pgbreaker.core.audit import Audited
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.incident import MOST as INCIDENTS
from pgbreaker.core.incident import Incident
from pgbreaker.core.units import Seconds
from pgbreaker.core.wall import moment
from pgbreaker.web.api import tables as tables
from pgbreaker.web.api.asked import LAST_ID, Query
from pgbreaker.web.api.civil import NoStoreError
from pgbreaker.web.api.timeline import Span, from_then, timeline, unwatched
from pgbreaker.web.inside import Inside
from pgbreaker.web.route import Role, Route

FORMS: Final = ("json", "csv", "md")
KINDS: Final = tuple(kind.value for kind in Kind)

MOST: Final = 1000
"""Events of one answer."""

USUAL: Final = 200
"""Events of one answer, unless it is said how many."""

_AT_ONCE: Final = 100  # incidents that are written before others have their turn
_MONTH: Final[Seconds] = 31 * 86400.0
_DAY: Final[Seconds] = 86400.0


class Told:
    """Tells of the past."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._history = inside.history
        self._views = inside.views
        self._verifying: asyncio.Task[str | None] | None = None

    def routes(self) -> list[Route]:
        """Every address there is."""
        viewer = Role.VIEWER
        timeline = "/api/v1/breakers/{target}/{operation}/timeline"
        return [
            Route("GET", "/api/v1/events", viewer, self.events),
            Route("GET", "/api/v1/incidents", viewer, self.incidents),
            Route("GET", "/api/v1/audit", viewer, self.audit),
            Route("GET", timeline, viewer, self.timeline),
        ]

    async def events(self, request: web.Request) -> web.Response:
        """What happened, the oldest first."""
        names = ("since", "before", "after", "limit", "kind", "target", "breaker", "q")
        query = Query(request, *names, "format", lists=("kind",))
        since, seen = query.since("since", self._inside.clock.wall())
        before = query.number("before", 0, LAST_ID)
        after = query.number("after", 0, LAST_ID)
        limit = query.number("limit", 1, MOST) or USUAL
        kinds = query.words("kind", KINDS)
        chosen = {name: query.text(name) for name in ("target", "breaker", "q")}
        form = query.word("format", FORMS)
        query.check()
        if seen is not None:
            after = max(seen, after or 0)
        elif since is not None and before is None:
            # From there on, and not the last ones: who reads on reads all of it.
            after = max(from_then(since), after or 0)
        entries = await self._history.page(
            since=since,
            before=before,
            after=after,
            limit=limit,
            kinds=[Kind(kind) for kind in kinds] or None,
            target=chosen["target"],
            breaker=chosen["breaker"],
            text=chosen["q"],
        )
        if form != "json":
            return as_file("events", form, tables.of_events(entries))
        more = {name: said for name, said in chosen.items() if said is not None}
        if kinds:
            more["kind"] = ",".join(kinds)
        more["limit"] = str(limit)
        return self._paged("events", entries, more, is_full=len(entries) == limit)

    def _paged(
        self,
        name: str,
        entries: Sequence[Entry],
        more: dict[str, str],
        *,
        is_full: bool,
    ) -> web.Response:
        """A page, and the addresses of those before and after it."""
        links: dict[str, str | None] = {"previous": None, "next": None}
        if entries:
            links["next"] = f"{name}?" + urlencode({"after": entries[-1].id, **more})
            if is_full:
                first = {"before": entries[0].id, **more}
                links["previous"] = f"{name}?" + urlencode(first)
        told = [f'<{to}>; rel="{rel}"' for rel, to in links.items() if to is not None]
        headers = {"Link": ", ".join(told)} if told else {}
        shown = {name: [self._views.entry(entry) for entry in entries], **links}
        return web.json_response(shown, headers=headers)

    async def incidents(self, request: web.Request) -> web.Response:
        """What happened to breakers from leaving closed until they were closed again."""
        query = Query(request, "since", "before", "limit", "format")
        now = self._inside.clock.wall()
        since = query.moment("since", now)
        before = query.number("before", 0, LAST_ID)
        limit = query.number("limit", 1, INCIDENTS) or INCIDENTS
        form = query.word("format", FORMS)
        query.check()
        begins = now - _MONTH if since is None else since
        page = await self._history.incidents(begins, before=before, limit=limit)
        found, previous, headers = page.told, None, {}
        if page.before is not None:
            first = {"since": moment(begins), "before": page.before, "limit": limit}
            previous = "incidents?" + urlencode(first)
            headers["Link"] = f'<{previous}>; rel="previous"'
        if form != "json":
            table = tables.of_incidents(found, begins, now)
            answer = as_file("incidents", form, table)
            answer.headers.update(headers)
            return answer
        # One at a time: thousands of them as objects, and then as pieces of text, would be
        # tens of megabytes that the heap keeps.
        shown = []
        for number, one in enumerate(found):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # pings do not wait for all of them
            shown.append(json.dumps(self._incident(one, now)))
        since_then, to = json.dumps(moment(begins)), json.dumps(previous)
        told = ", ".join(shown)
        text = f'{{"since": {since_then}, "incidents": [{told}], "previous": {to}}}'
        return web.json_response(text=text, headers=headers)

    def _incident(self, one: Incident, now: float) -> dict[str, Any]:
        return {
            "id": one.id,
            "breaker": one.breaker,
            "target": one.target,
            "began": moment(one.began),
            "ended": None if one.ended is None else moment(one.ended),
            "seconds": round(one.seconds(now), 3),
            "cause": one.cause,
            "sqlstate": one.sqlstate,
            "reason": one.reason,
            "notes": [self._views.entry(note) for note in one.notes],
        }

    async def audit(self, request: web.Request) -> web.Response:
        """What people did, the oldest first, each line sealed with the one before; where
        it is asked for, with whether all of them are as they were written."""
        query = Query(request, "limit", "before", "verify")
        limit = query.number("limit", 1, MOST) or USUAL
        before = query.number("before", 1, LAST_ID)
        verifies = query.word("verify", ("false", "true")) == "true"
        query.check()
        fault = await self._audit_fault() if verifies else None
        lines = await self._history.audit(limit, before)
        shown: dict[str, Any] = {
            "audit": [self._line(line) for line in lines],
            "previous": None,
            "verified": verifies,
            "fault": fault,
        }
        if len(lines) == limit and lines[0].number is not None:
            first = {"before": lines[0].number, "limit": limit}
            shown["previous"] = "audit?" + urlencode(first)
        return web.json_response(shown)

    async def _audit_fault(self) -> str | None:
        """Where the audit log is not as it was written. One look at a time: it is at all
        of it, and whoever asks meanwhile is told what that comes to."""
        if self._inside.store is None:
            raise NoStoreError
        if self._verifying is None or self._verifying.done():
            verify = self._inside.store.verify_audit()
            self._verifying = asyncio.create_task(verify)
        # Not cancelled with one of those who wait.
        return await asyncio.shield(self._verifying)

    def _line(self, line: Audited) -> dict[str, Any]:
        return self._views.entry(line.entry) | {
            "number": line.number,
            "before": line.before,
            "seal": line.seal,
        }

    async def timeline(self, request: web.Request) -> web.Response:
        """Which state a breaker was in, and when."""
        target, operation = self._inside.breaker_of(request)
        query = Query(request, "since")
        now = self._inside.clock.wall()
        since = query.moment("since", now)
        query.check()
        begins = now - _DAY if since is None else min(since, now)
        breaker = target.breakers[operation]
        spans = await timeline(self._history, breaker, begins, target.moved[operation])
        runs = await self._history.page(since=begins, limit=MOST, kinds=(Kind.DAEMON,))
        return web.json_response(
            {
                "breaker": breaker.name,
                "since": moment(begins),
                "until": moment(now),
                "spans": [_span(span, now) for span in spans],
                "unwatched": [
                    {"began": moment(max(began, begins)), "ended": moment(ended)}
                    for began, ended in unwatched(runs)
                ],
            }
        )


def _span(span: Span, now: float) -> dict[str, Any]:
    ended = now if span.ended is None else span.ended
    return {
        "state": span.state.value,
        "computed_state": span.computed_state.value,
        "began": moment(span.began),
        "ended": None if span.ended is None else moment(span.ended),
        "seconds": round(max(0.0, ended - span.began), 3),
        "cause": span.cause,
        "reason": span.reason,
        "event": span.entry,
    }


def as_file(name: str, form: str, table: tables.Table) -> web.Response:
    """The answer with *table* as a file of *name*; *form* is ``csv`` or ``md``."""
    text, kind = (
        (tables.as_csv(table), "text/csv")
        if form == "csv"
        else (tables.as_markdown(table), "text/markdown")
    )
    return web.Response(
        text=text,
        content_type=kind,
        charset="utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="pgbreaker-{name}.{form}"'
        },
    )
