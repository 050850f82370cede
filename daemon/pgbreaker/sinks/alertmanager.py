"""Alertmanager's API: posting alerts."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Final, TypeAlias

import aiohttp

from pgbreaker import __version__
from pgbreaker.core.plan import AlertmanagerPlan
from pgbreaker.core.text import tidy, words_of
from pgbreaker.core.units import Seconds, lasting

ANSWERED_WITHIN: Final[Seconds] = 2.0
"""Time for an answer, connecting included."""

_CONNECT_WITHIN: Final[Seconds] = 0.5
_KEEP_ALIVE: Final[Seconds] = 75.0  # past the next renewal
_MOST_READ: Final = 1024  # bytes of an answer
_DATED_WITHIN: Final[Seconds] = 2.0  # a date has whole seconds, and was on its way


def written(
    plan: AlertmanagerPlan,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    *,
    starts: float | None,
    ends: float | None,
) -> dict[str, Any]:
    """Write an alert as the API wants it.

    Args:
        labels: What it has besides those of the plan.
        starts: Wall time since which it is on. None: since Alertmanager gets it.
        ends: Wall time from which it is not, unless it is posted again. None: that is
            for Alertmanager to say, by its own clock and ``resolve_timeout``.
    """
    alert: dict[str, Any] = {
        "labels": {**plan.labels, "job": plan.job, **labels},
        "annotations": dict(annotations),
    }
    if starts is not None:
        alert["startsAt"] = moment(starts)
    if ends is not None:
        alert["endsAt"] = moment(ends)
    if plan.page_url:
        alert["generatorURL"] = plan.page_url
    return alert


def moment(wall: float) -> str:
    """Write a wall time as the API has it."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a post.

    Attributes:
        status: The HTTP status. None: there was no answer.
        text: What was said, or why there was no answer, in one line.
        date: Wall time of the answer by the clock of whoever gave it. None: unknown.
    """

    status: int | None
    text: str = ""
    date: float | None = None

    @property
    def took(self) -> bool:
        """Whether the alerts were taken."""
        return self.status is not None and 200 <= self.status < 300

    def __str__(self) -> str:
        if self.status is None:
            return self.text
        return f"it answered {self.status} {self.text}".rstrip()


Post: TypeAlias = Callable[[str, bytes], Awaitable[Answer]]
"""Posts alerts, in JSON, to the Alertmanager at a base URL."""


def lead(answer: Answer, wall: float, *, known: Seconds = 0.0) -> Seconds:
    """By how much the clock of whoever gave *answer* is ahead of ours.

    Args:
        wall: Wall time by ours.
        known: What this was before. It stays unless the answer's date speaks against
            it, so that it does not change with each answer.
    """
    if answer.date is None:
        return known
    ahead = answer.date - wall
    return known if abs(ahead - known) <= _DATED_WITHIN else ahead


async def offer(
    post: Post, url: str, alerts: list[dict[str, Any]], within: Seconds
) -> Answer:
    """Post *alerts*, and give the answer up after *within* seconds."""
    body = json.dumps(alerts, separators=(",", ":")).encode()
    try:
        async with asyncio.timeout(within):
            return await post(url, body)
    except TimeoutError:
        return Answer(None, f"no answer within {lasting(within)}")


def session() -> aiohttp.ClientSession:
    """Make what `posting` posts by; needs a running loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"pgbreaker/{__version__}"},
        # The whole has its limit where it is asked.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_WITHIN),
    )


def posting(session: aiohttp.ClientSession) -> Post:
    """Post by *session*."""

    async def post(url: str, body: bytes) -> Answer:
        try:
            async with session.post(
                f"{url}/api/v2/alerts",
                data=body,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,  # which would make a GET of it
            ) as answer:
                said = await answer.content.read(_MOST_READ)
                return Answer(
                    answer.status,
                    _first_line(answer.reason, said),
                    date_of(answer),
                )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, _why(error))

    return post


def date_of(answer: aiohttp.ClientResponse) -> float | None:
    """Wall time of *answer* by the clock of whoever gave it. None: it does not say."""
    try:
        read = parsedate_tz(answer.headers.get("Date", ""))
        return None if read is None else mktime_tz(read)
    except (ValueError, OverflowError):  # the 31st of February
        return None


def _first_line(reason: str | None, said: bytes) -> str:
    line = said.decode("utf-8", "replace").strip().partition("\n")[0]
    return tidy(f"{reason or ''}: {line}" if line else reason or "")


def _why(error: BaseException) -> str:
    # aiohttp's own errors have the system's inside, and as their errno any number.
    for inner in ("os_error", "certificate_error"):
        error = getattr(error, inner, None) or error
    return words_of(error)
