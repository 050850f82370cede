"""What became of a target, as far as the store knows: by the minute, by the hour, in sum."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from pgbreaker.core.judge import PING
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.core.wall import moment
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.history import NotReadError
from pgbreaker.sinks.store import Bucket, Failure, Past, Store
from pgbreaker.web.api.asked import Query
from pgbreaker.web.api.civil import NoStoreError
from pgbreaker.web.api.history import as_file
from pgbreaker.web.api.tables import Table
from pgbreaker.web.inside import Inside
from pgbreaker.web.route import Role, Route

SPANS: Final[Mapping[str, Seconds]] = {
    "24h": 86_400.0,
    "7d": 7 * 86_400.0,
    "90d": 90 * 86_400.0,
}
"""What is summed up, until now."""

WIDTHS: Final[Mapping[str, int]] = {"minute": 60, "hour": 3600}
"""Of what there are rows, and its seconds."""

MOST: Final = 2500
"""Rows of one answer: nearly two days by the minute, a hundred by the hour."""

FORMS: Final = ("json", "csv")

_ANSWERS_WITHIN: Final[Seconds] = 2.0  # less than who asks waits for an answer
_DAY: Final[Seconds] = 86_400.0


@dataclass(slots=True)
class _Reckoned:
    """What was reckoned of a target, and what is being reckoned.

    Attributes:
        target: Of which it is: after a reload there may be another of its name.
        minute: In which it was begun.
        before: What came of it the time before. None: nothing yet.
    """

    target: TargetBoard
    minute: int
    under_way: "asyncio.Task[Summary]"
    before: "Summary | None"

    @property
    def last(self) -> "Summary | None":
        """The newest that is there."""
        if self.under_way.done() and not self.under_way.cancelled():
            return self.under_way.result()
        return self.before


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a target in each of `SPANS`.

    Attributes:
        pasts: Span -> that. Empty where it could not be read.
        trouble: Why it could not be. None: it was.
    """

    pasts: Mapping[str, Past]
    trouble: str | None = None


class Summaries:
    """Reckons what became of targets: of each that is asked for, once a minute, and off
    the loop. Nobody waits for a disk that does not answer."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._known: dict[str, _Reckoned] = {}

    async def of(self, target: TargetBoard, within: Seconds) -> Summary | None:
        """Sum up *target*: of this minute, or else of the last that there is.

        Args:
            within: Seconds that it is waited for where there is none at all.

        Returns:
            None: none is there yet.

        Raises:
            NoStoreError: There is nothing to reckon by.
        """
        store = self._inside.store
        if store is None:
            raise NoStoreError
        known = self._turned(store, target)
        if known.last is None:
            await asyncio.wait([known.under_way], timeout=within)
        return known.last

    def _turned(self, store: Store, target: TargetBoard) -> _Reckoned:
        name, minute = target.plan.name, int(self._inside.clock.now() // 60)
        known = self._known.get(name)
        if known is not None and known.target is target:
            if known.minute == minute or not known.under_way.done():
                return known
            before = known.last
        else:
            before = None
            self._forget()
        task = asyncio.create_task(_reckon(store, target))
        self._known[name] = known = _Reckoned(target, minute, task, before)
        return known

    def _forget(self) -> None:
        for gone in self._known.keys() - self._inside.board.targets.keys():
            del self._known[gone]


async def _reckon(store: Store, target: TargetBoard) -> Summary:
    names = [breaker.name for breaker in target.breakers.values()]
    every = min(p.interval for p in target.plan.probes.values())
    if PING in target.plan.probes:
        every = target.plan.probes[PING].interval
    try:
        pasts = await store.past(target.plan.name, names, SPANS.values(), every)
    except NotReadError as error:
        return Summary({}, str(error))
    return Summary(dict(zip(SPANS, pasts, strict=True)))


class Kept:
    """Tells what the store keeps of a target."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._summaries = Summaries(inside)

    def routes(self) -> list[Route]:
        """Every address there is."""
        viewer, target = Role.VIEWER, "/api/v1/targets/{target}"
        return [
            Route("GET", f"{target}/rollup", viewer, self.rollup),
            Route("GET", f"{target}/summary", viewer, self.summary),
            Route("GET", f"{target}/failures", viewer, self.failures),
        ]

    @property
    def _store(self) -> Store:
        if self._inside.store is None:
            raise NoStoreError
        return self._inside.store

    async def rollup(self, request: web.Request) -> web.Response:
        """A target by the minute or by the hour, the oldest first."""
        target = self._inside.target_of(request)
        query = Query(request, "since", "until", "by", "format")
        now = self._inside.clock.wall()
        until = min(query.moment("until", now) or now, now)
        since = query.moment("since", now)
        since = until - _DAY if since is None else min(since, until)
        by = query.word("by", tuple(WIDTHS))
        form = query.word("format", FORMS)
        rows = (until - since) / WIDTHS.get(by, 1)
        if by in WIDTHS and rows > MOST:
            query.wrong(
                "since",
                f"{lasting(until - since)} by the {by} are {rows:.0f} rows, and"
                f" {MOST} are told at once; ask by=hour, or for less by since and until",
            )
        query.check()
        name, hours = target.plan.name, by == "hour"
        pings = await self._store.buckets(name, since, until, hours=hours)
        shut = {
            operation: dict(
                await self._store.shut(breaker.name, since, until, hours=hours)
            )
            for operation, breaker in target.breakers.items()
        }
        lines = _lines(pings, shut)
        if form != "json":
            table = _table(name, by, list(target.breakers), lines)
            return as_file("rollup", form, table)
        return web.json_response(
            {
                "target": name,
                "by": by,
                "since": moment(since),
                "until": moment(until),
                "rollup": [_line(*line) for line in lines],
            }
        )

    async def summary(self, request: web.Request) -> web.Response:
        """A target in sum: the last day, week, and 90 days."""
        target = self._inside.target_of(request)
        Query(request).check()
        summary = await self._summaries.of(target, _ANSWERS_WITHIN)
        if summary is None or summary.trouble is not None:
            why = None if summary is None else summary.trouble
            raise NotReadError(why or "the disk does not answer")
        return web.json_response(
            {
                "target": target.plan.name,
                "spans": [
                    _span(target, span, past) for span, past in summary.pasts.items()
                ],
            }
        )

    async def failures(self, request: web.Request) -> web.Response:
        """The last readings of a target with bad news, the newest first; those of
        processes before this one, too."""
        target = self._inside.target_of(request)
        query = Query(request, "format")
        form = query.word("format", FORMS)
        query.check()
        found = (await self._store.failures(target.plan.name))[::-1]
        if form != "json":
            return as_file("failures", form, _table_of_failures(found))
        return web.json_response({"failures": [_failure(one) for one in found]})


_Line = tuple[int, Bucket, Mapping[str, float]]


def _lines(
    pings: Sequence[Bucket], shut: Mapping[str, Mapping[int, float]]
) -> list[_Line]:
    """What is known of each minute, or hour: when it began, its pings, and operation ->
    seconds in which no calls of it passed."""
    by_start = {bucket.start: bucket for bucket in pings}
    starts = set(by_start).union(*(known.keys() for known in shut.values()))
    none = Bucket(0, 0, 0.0, 0.0, 0)
    return [
        (
            start,
            by_start.get(start, none),
            {operation: known.get(start, 0.0) for operation, known in shut.items()},
        )
        for start in sorted(starts)
    ]


def _line(start: int, bucket: Bucket, shut: Mapping[str, float]) -> dict[str, Any]:
    return {
        "start": moment(start),
        "pings": _pings(bucket.count, bucket.total, bucket.most, bucket.bad),
        "shut_seconds": {name: round(seconds, 3) for name, seconds in shut.items()},
    }


def _pings(count: int, total: Seconds, most: Seconds, bad: int) -> dict[str, Any]:
    return {
        "count": count,
        "mean_seconds": round(total / count, 6) if count else None,
        "max_seconds": round(most, 6) if count else None,
        "bad": bad,
    }


def _span(target: TargetBoard, span: str, past: Past) -> dict[str, Any]:
    return {
        "span": span,
        "since": moment(past.since),
        "until": moment(past.until),
        "seen_seconds": round(past.seen, 3),
        "pings": _pings(past.count, past.total, past.most, past.bad),
        "breakers": {
            operation: {
                "shut_seconds": round(past.shut.get(breaker.name, 0.0), 3),
                "passed_ratio": past.passed(breaker.name),
            }
            for operation, breaker in target.breakers.items()
        },
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "probe": failure.probe,
        "at": moment(failure.at),
        "outcome": failure.finding,
        "took_seconds": round(failure.took, 6),
        "sqlstate": failure.sqlstate,
        "text": failure.text,
    }


def _table(
    target: str, by: str, operations: Sequence[str], lines: Sequence[_Line]
) -> Table:
    head = (
        *("start", "pings", "mean_seconds", "max_seconds", "bad"),
        *(f"{operation}_shut_seconds" for operation in operations),
    )
    rows = []
    for line in lines:
        told = _line(*line)
        pings, shut = told["pings"], told["shut_seconds"]
        cells = [told["start"], *pings.values(), *(shut[name] for name in operations)]
        rows.append(["" if cell is None else str(cell) for cell in cells])
    return Table(f"{target} by the {by}", head, rows)


def _table_of_failures(failures: Sequence[Failure]) -> Table:
    head = ("probe", "at", "outcome", "took_seconds", "sqlstate", "text")
    rows = [
        ["" if cell is None else str(cell) for cell in _failure(one).values()]
        for one in failures
    ]
    return Table("Failures", head, rows)
