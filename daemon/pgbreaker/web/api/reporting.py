"""What applications report of their breakers: taken, and shown; it decides nothing."""

import asyncio
from typing import Final

from aiohttp import web

from pgbreaker.core.report import NoReportError, report_of
from pgbreaker.web.api.asked import Query, object_of
from pgbreaker.web.doors.limits import retry_after
from pgbreaker.web.inside import Inside
from pgbreaker.web.problems import UnknownError, WrongError, problem
from pgbreaker.web.route import WHO, Role, Route

MOST: Final = 200
"""Processes of one answer."""

USUAL: Final = 100
"""Processes of one answer, unless it is said how many."""


class Reporting:
    """Takes reports, and shows what came of them."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._board = inside.board
        self._reports = inside.board.reports

    def routes(self) -> list[Route]:
        """Every address there is."""
        path, viewer = "/api/v1/reports", Role.VIEWER
        return [
            Route("POST", path, viewer, self.take, tells=True),
            Route("GET", path, viewer, self.show),
        ]

    async def take(self, request: web.Request) -> web.Response:
        """Take the report of a process."""
        Query(request).check()
        reports = self._reports
        try:
            report = report_of(await object_of(request))
        except WrongError:
            reports.refused += 1
            raise
        except NoReportError as error:
            reports.refused += 1
            raise WrongError(error.errors) from None
        if not reports.take(report, request[WHO].name, self._board.now()):
            why = f"{reports.most} processes report, and no more may"
            after = {"Retry-After": retry_after(reports.every)}
            return problem(503, "too many report", why, **after)
        return web.json_response({"every_seconds": reports.every})

    async def show(self, request: web.Request) -> web.Response:
        """What is reported now."""
        query = Query(request, "breaker", "limit")
        breaker = query.text("breaker")
        limit = query.number("limit", 1, MOST)
        query.check()
        names = [
            b.name for t in self._board.targets.values() for b in t.breakers.values()
        ]
        if breaker is not None and breaker not in names:
            raise UnknownError("breaker", breaker, names)
        now = self._board.now()
        crowds = {
            name: self._reports.crowd(name, now)
            for name in names
            if breaker is None or name == breaker
        }
        shown = []
        for one in self._reports.instances(now, breaker, limit or USUAL):
            shown.append(one)
            # One of two hundred breakers takes half a millisecond.
            await asyncio.sleep(0)
        return web.json_response(
            {
                "processes": self._reports.count(now),
                "every_seconds": self._reports.every,
                "breakers": [
                    {
                        "breaker": name,
                        **crowd.written(),
                        "voices": [voice.written() for voice in crowd.voices],
                    }
                    for name, crowd in crowds.items()
                    if crowd is not None
                ],
                "instances": shown,
            }
        )
