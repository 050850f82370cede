"""Writes the pages that show: each in pieces, of which those are renewed that changed."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from typing import Any, Final

from aiohttp import web
from markupsafe import Markup

from pgbreaker.core.entry import Kind
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.recent import STEPS
from pgbreaker.web.api.civil import NoStoreError
from pgbreaker.web.api.past import Summaries
from pgbreaker.web.page import press
from pgbreaker.web.page.asked import Asked
from pgbreaker.web.page.breakers import bars_of, sight_of, target_path
from pgbreaker.web.page.evidence import after, lines_of, probes_of, rules_of
from pgbreaker.web.page.feed import PAGE, Filter, entries, exports, span_of, told
from pgbreaker.web.page.forecast import WITHIN, forecast, warned
from pgbreaker.web.page.frame import Frame
from pgbreaker.web.page.overview import CARDS, Overview, Trouble
from pgbreaker.web.page.past import PastSight, past_of
from pgbreaker.web.page.sheet import Sheet, Sheets
from pgbreaker.web.page.targets import Row, row_of, stamp_of
from pgbreaker.web.page.timeline import MOVES, SPANS, timeline
from pgbreaker.web.page.words import KINDS

_AT_ONCE: Final = 25
"""Rows that are written without letting anybody else have a turn: each takes a fifth of
a millisecond, and pings have to be answered meanwhile."""

_ROWS_A_SECOND: Final = 50
"""Rows that are renewed in a second only because they are old; what changes a state is
shown at once, however many there are."""

_LATELY: Final = 12  # lines of the feed on a page that is about something else
_TICK: Final[Seconds] = 0.25  # nobody sees more than that of numbers which move
_READ_WITHIN: Final[Seconds] = 0.3  # then the page is shown without it
_DRAWN: Final[Seconds] = 15.0  # between two drawings of a timeline nothing happened on


class Writer:
    """The pages that show."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._inside = frame.inside
        self._sheets = Sheets()
        self._summaries = Summaries(frame.inside)
        self._rows: dict[str, tuple[object, Row, Markup]] = {}
        self._names: tuple[str, ...] = ()
        self._generation = 0
        self._watched = frame.inside.clock.wall()

    # Addresses.

    async def overview(self, request: web.Request) -> web.Response:
        """Everything, the worst first."""
        span = span_of(request.query)
        sheet = self._sheet(request, "overview", span)
        async with sheet.lock:
            await self._write_overview(request, sheet, span)
        if (answer := self._changes(request, sheet)) is not None:
            return answer
        asked = Asked.of(request.query)
        names = self._inside.board.targets
        rows = [self._rows[name][1] for name in names if name in self._rows]
        groups = [
            (heading, [self._rows[row.name][2] for row in found])
            for heading, found in asked.arrange(rows)
        ]
        verdict = Overview(self._inside).verdict()
        return self._frame.page(
            request,
            "overview.html",
            title=verdict.says,
            here="",
            tone=verdict.tone,
            sheet=sheet,
            asked=asked,
            groups=groups,
            total=len(rows),
            shown=sum(len(found) for _, found in groups),
        )

    async def target(self, request: web.Request) -> web.Response:
        """One target."""
        target = self._inside.target_of(request)
        span = span_of(request.query)
        sheet = self._sheet(request, "target", target.plan.name, span)
        async with sheet.lock:
            await self._write_target(request, sheet, target, span)
        if (answer := self._changes(request, sheet)) is not None:
            return answer
        row = row_of(self._inside, target)
        tone = row.look.tone if row.look.tone != "dim" else "warn"
        return self._frame.page(
            request,
            "target.html",
            title=f"{row.name}: {row.look.word}",
            here="targets",
            tone=tone,
            sheet=sheet,
            name=row.name,
        )

    async def breaker(self, request: web.Request) -> web.Response:
        """One breaker, with a word on what was done to it just now."""
        target, operation = self._inside.breaker_of(request)
        span = span_of(request.query)
        sheet = self._sheet(request, "breaker", target.plan.name, operation, span)
        async with sheet.lock:
            await self._write_breaker(request, sheet, target, operation, span)
        if (answer := self._changes(request, sheet)) is not None:
            return answer
        clock, word = self._inside.clock, request.query.get("done", "")
        sight = sight_of(target, operation, clock)
        tone = sight.look.tone
        done = self._frame.lately.find(word, clock.now())
        return self._frame.page(
            request,
            "breaker.html",
            title=f"{sight.name}: {sight.look.word}",
            here="breakers",
            tone=tone if tone in ("good", "bad") else "warn",
            sheet=sheet,
            sight=sight,
            target_path=target_path(target.plan.name),
            commands=_commands(sight.name),
            queries=_queries(sight.name),
            grafana=self._grafana(sight.name),
            done=self._frame.toast(request, done) if done else "",
        )

    async def events(self, request: web.Request) -> web.Response:
        """What happened."""
        chosen = Filter.of(request.query, request.query.getall("kind", []))
        sheet = self._sheet(request, "events", chosen)
        async with sheet.lock:
            stamp = self._frame.last_entry
            if sheet.is_due("lines", stamp):
                found = await entries(self._inside.history, chosen, limit=PAGE + 1)
                older = found[1].id if len(found) > PAGE else None
                lines = told(found[-PAGE:], self._inside.board)
                facts = {"told": lines, "chosen": chosen, "older": older}
                self._put(request, sheet, "lines", stamp, "_lines.html", **facts)
        if (answer := self._changes(request, sheet)) is not None:
            return answer
        return self._frame.page(
            request,
            "events.html",
            title="Events",
            here="events",
            sheet=sheet,
            chosen=chosen,
            kinds=KINDS,
            targets=list(self._inside.board.targets),
            exports=exports(chosen),
        )

    # Sheets.

    def _sheet(self, request: web.Request, *key: object) -> Sheet:
        names = tuple(self._inside.board.targets)
        if names != self._names:
            self._names = names
            self._generation += 1
            self._rows = {n: row for n, row in self._rows.items() if n in names}
        epoch = f"{self._inside.views.epoch}-{self._generation}"
        root, can = self._frame.root(request), self._frame.may_act(request)
        return self._sheets.of((*key, root, can), epoch)

    def _changes(self, request: web.Request, sheet: Sheet) -> web.Response | None:
        """What changed since the version that a browser has; None: send it all."""
        mark = request.query.get("since")
        since = None if mark is None else sheet.known(mark)
        return None if since is None else self._frame.changes(request, sheet, since)

    def _put(
        self,
        request: web.Request,
        sheet: Sheet,
        name: str,
        stamp: object,
        template: str,
        /,
        **facts: Any,  # noqa: ANN401 - whatever the template shows
    ) -> None:
        given = self._frame.common(request) | facts
        sheet.put(name, stamp, press.write(template, **given))

    @property
    def _tick(self) -> tuple[object, ...]:
        """What is another when anything may have to be written anew."""
        return int(self._inside.clock.now() / _TICK), self._frame.last_entry

    # The overview.

    async def _write_overview(
        self, request: web.Request, sheet: Sheet, span: str
    ) -> None:
        tick = self._tick
        if sheet.is_whole(tick):
            return
        await self._write_rows(request, sheet)
        overview = Overview(self._inside)
        cards = overview.cards()
        verdict, banners = overview.verdict(), list(overview.banners())
        more = max(0, len(cards) - CARDS)
        put = self._put
        put(request, sheet, "verdict", tick, "_verdict.html", verdict=verdict)
        put(request, sheet, "banners", tick, "_banners.html", banners=banners)
        facts = {"cards": cards[:CARDS], "more": more}
        put(request, sheet, "attention", tick, "_attention.html", **facts)
        await self._write_timeline(request, sheet, span)
        await self._write_feed(request, sheet, Filter(), "Latest events")
        sheet.finish(tick)

    async def _write_rows(self, request: web.Request, sheet: Sheet) -> None:
        targets = list(self._inside.board.targets.values())
        now = self._inside.clock.now()
        period = max(1.0, len(targets) / _ROWS_A_SECOND)
        for place, target in enumerate(targets):
            offset = place * period / len(targets)
            stamp = (stamp_of(self._inside, target), int((now + offset) / period))
            name = target.plan.name
            known = self._rows.get(name)
            if known is None or known[0] != stamp:
                row = row_of(self._inside, target)
                given = self._frame.common(request) | {"row": row}
                known = self._rows[name] = stamp, row, press.write("_row.html", **given)
            sheet.put(f"t:{name}", stamp, known[2])
            if place % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)

    # What several pages have.

    async def _write_timeline(
        self, request: web.Request, sheet: Sheet, span: str, *only: str
    ) -> None:
        clock = self._inside.clock
        stamp = (self._frame.last_entry, int(clock.now() / _DRAWN))
        if not sheet.is_due("timeline", stamp):
            return
        now = clock.wall()
        breaker = only[0] if len(only) == 1 else None
        chosen = (Filter(kinds=MOVES, breaker=breaker), Filter(kinds=(Kind.DAEMON,)))
        since = now - SPANS[span]
        found = await asyncio.gather(
            *(
                entries(self._inside.history, one, limit=5000, since=since)
                for one in chosen
            )
        )
        drawn = timeline(
            self._inside.board,
            chain.from_iterable(found),
            span=span,
            now=now,
            watched=self._watched,
            only=only,
        )
        facts = {"timeline": drawn, "spans": tuple(SPANS)}
        self._put(request, sheet, "timeline", stamp, "_timeline.html", **facts)

    async def _write_feed(
        self, request: web.Request, sheet: Sheet, chosen: Filter, title: str
    ) -> None:
        stamp = self._frame.last_entry
        if not sheet.is_due("feed", stamp):
            return
        found = await entries(self._inside.history, chosen, limit=_LATELY)
        lines = told(found, self._inside.board)
        facts = {"told": lines, "chosen": chosen, "feed_title": title}
        self._put(request, sheet, "feed", stamp, "_feed.html", **facts)

    def _write_lately(
        self,
        request: web.Request,
        sheet: Sheet,
        target: TargetBoard,
        probes: Iterable[str],
    ) -> None:
        """The last runs of *probes*, and the errors of their target."""
        clock, tick = self._inside.clock, int(self._inside.clock.now())
        wall = clock.wall() - clock.now()
        recent = self._inside.recent.targets.get(target.plan.name)
        if sheet.is_due("runs", tick):
            runs = lines_of(recent.runs(*probes) if recent else (), wall)
            facts: dict[str, Any] = {"runs": runs, "steps": STEPS}
            self._put(request, sheet, "runs", tick, "_runs.html", **facts)
            errors = reversed(recent.errors.values()) if recent else ()
            facts = {"errors": list(errors), "name": target.plan.name}
            self._put(request, sheet, "errors", tick, "_errors.html", **facts)

    def _write_forecast(
        self, request: web.Request, sheet: Sheet, target: TargetBoard
    ) -> None:
        stamp = (int(self._inside.clock.now() / 5), *target.forewarnings)
        if sheet.is_due("forecast", stamp):
            facts = {"seen": forecast(target), "within": WITHIN}
            self._put(request, sheet, "forecast", stamp, "_forecast.html", **facts)

    # A target, a breaker.

    async def _write_target(
        self, request: web.Request, sheet: Sheet, target: TargetBoard, span: str
    ) -> None:
        tick = self._tick
        if sheet.is_whole(tick):
            return
        clock, name = self._inside.clock, target.plan.name
        row = row_of(self._inside, target)
        window = self._inside.desk.window_of(name)
        told = warned(target)
        facts: dict[str, Any] = {"row": row, "window": window, "warned": told}
        self._put(request, sheet, "head", tick, "_target_head.html", **facts)
        troubles = [
            Trouble(sight, tuple(bars_of(target, sight.operation, clock)))
            for sight in row.breakers
        ]
        self._put(
            request, sheet, "breakers", tick, "_target_breakers.html", troubles=troubles
        )
        probes = [
            (
                probe,
                target.intervals.get(probe, plan.interval),
                target.readings.get(probe),
            )
            for probe, plan in target.plan.probes.items()
        ]
        facts = {"row": row, "probes": probes, "connections": target.connections}
        self._put(request, sheet, "facts", tick, "_target_facts.html", **facts)
        names = [breaker.name for breaker in target.breakers.values()]
        await self._write_timeline(request, sheet, span, *names)
        await self._write_past(request, sheet, target)
        self._write_lately(request, sheet, target, ())
        self._write_forecast(request, sheet, target)
        await self._write_feed(request, sheet, Filter(target=name), "Its latest events")
        sheet.finish(tick)

    async def _write_past(
        self, request: web.Request, sheet: Sheet, target: TargetBoard
    ) -> None:
        seen: PastSight | None = None
        with suppress(NoStoreError):
            seen = past_of(target, await self._summaries.of(target, _READ_WITHIN))
        if sheet.is_due("past", seen):
            facts = {"seen": seen, "path": target_path(target.plan.name)}
            self._put(request, sheet, "past", seen, "_past.html", **facts)

    async def _write_breaker(
        self,
        request: web.Request,
        sheet: Sheet,
        target: TargetBoard,
        operation: str,
        span: str,
    ) -> None:
        tick = self._tick
        if sheet.is_whole(tick):
            return
        clock, breaker = self._inside.clock, target.breakers[operation]
        now = clock.now()
        sight = sight_of(target, operation, clock)
        self._put(request, sheet, "head", tick, "_breaker_head.html", sight=sight)
        recent = self._inside.recent.targets.get(target.plan.name)
        rules = rules_of(target, operation, recent, now)
        facts: dict[str, Any] = {"rules": rules, "after": after(breaker)}
        self._put(request, sheet, "explanation", tick, "_explanation.html", **facts)
        facts = {"crowd": sight.crowd, "name": breaker.name}
        self._put(request, sheet, "applications", tick, "_applications.html", **facts)
        await self._write_timeline(request, sheet, span, breaker.name)
        self._write_lately(request, sheet, target, probes_of(target, operation))
        self._write_forecast(request, sheet, target)
        chosen = Filter(breaker=breaker.name)
        await self._write_feed(
            request, sheet, chosen, "Its latest events, and who did what"
        )
        sheet.finish(tick)

    def _grafana(self, breaker: str) -> str | None:
        url = self._inside.grafana_url
        return (
            None if url is None else f"{url}/d/pgbreaker-breakers?var-breaker={breaker}"
        )


def _commands(breaker: str) -> list[str]:
    return [
        f"pgbreaker explain {breaker}",
        f"pgbreaker open {breaker} --reason … --for 1h",
        f"pgbreaker auto {breaker} --reason …",
    ]


def _queries(breaker: str) -> list[str]:
    chosen = f'{{breaker="{breaker}"}}'
    return [
        f"pgbreaker_breaker_state{chosen} == 1",
        f"pgbreaker_breaker_failure_ratio{chosen}",
        f"increase(pgbreaker_breaker_transitions_total{chosen}[1h])",
    ]
