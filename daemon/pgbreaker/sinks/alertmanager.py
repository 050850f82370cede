"""Alertmanager's API: posting alerts, and trying whether they arrive."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import aiohttp

from pgbreaker import __version__
from pgbreaker.core.plan import AlertmanagerPlan
from pgbreaker.core.text import tidy, words_of
from pgbreaker.core.units import Seconds, lasting

ANSWERED_WITHIN: Final[Seconds] = 2.0
"""Time for an answer, connecting included."""

TEST: Final = "PgbreakerTest"
TEST_LASTS: Final[Seconds] = 60.0

_CONNECT_WITHIN: Final[Seconds] = 0.5
_KEEP_ALIVE: Final[Seconds] = 75.0  # past the next renewal
_MOST_READ: Final = 1024  # bytes of an answer
_LOOK: Final[Seconds] = 0.2  # between two looks at whether it was told on
_RETRIES: Final[Seconds] = 5.0  # after a refusal; Alertmanager tries again in less


def written(
    plan: AlertmanagerPlan,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    *,
    starts: float,
    ends: float,
) -> dict[str, Any]:
    """Write an alert as the API wants it.

    Args:
        labels: What it has besides those of the plan.
        starts: Wall time since which it is on.
        ends: Wall time from which it is not, unless it is posted again.
    """
    alert: dict[str, Any] = {
        "labels": {**plan.labels, "job": plan.job, **labels},
        "annotations": dict(annotations),
        "startsAt": _moment(starts),
        "endsAt": _moment(ends),
    }
    if plan.page_url:
        alert["generatorURL"] = plan.page_url
    return alert


def _moment(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a post.

    Attributes:
        status: The HTTP status. None: there was no answer.
        text: What was said, or why there was no answer, in one line.
    """

    status: int | None
    text: str = ""

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


async def ask(
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
                return Answer(answer.status, _first_line(answer.reason, said))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, _why(error))

    return post


def _first_line(reason: str | None, said: bytes) -> str:
    line = said.decode("utf-8", "replace").strip().partition("\n")[0]
    return tidy(f"{reason or ''}: {line}" if line else reason or "")


def _why(error: BaseException) -> str:
    # aiohttp's own errors have the system's inside, and as their errno any number.
    for inner in ("os_error", "certificate_error"):
        error = getattr(error, inner, None) or error
    return words_of(error)


# To see whether alerts arrive.


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a test alert at one Alertmanager.

    Attributes:
        url: Where it is.
        answer: What it said to the alert.
        receivers: Where its routes send the alert; empty when it does not say.
        is_muted: Whether a silence, or another alert, keeps it from being told.
        told: Messages that it got rid of since. None: nobody waited for that.
        refused: Tries that failed since.
    """

    url: str
    answer: Answer
    receivers: tuple[str, ...] = ()
    is_muted: bool = False
    told: int | None = None
    refused: int = 0


async def send_test(
    plan: AlertmanagerPlan,
    severity: str,
    *,
    sender: str,
    at: float,
    mark: str,
    patience: Seconds = 0.0,
) -> list[Tried]:
    """Send one alert through each Alertmanager of *plan*; it ends by itself.

    Args:
        sender: Who sends it, and from where, for people.
        at: Wall time at which.
        mark: Tells this test from others, which would be the same alert.
        patience: Seconds to wait until it is told on. 0: that is not looked at.
    """
    alert = written(
        plan,
        {"alertname": TEST, "severity": severity, "test": mark},
        {
            "summary": "This is a test of pgbreaker's alerts",
            "description": f"Sent by {sender} at {_moment(at)}. Nothing is wrong, and"
            f" nothing is to be done; it ends by itself.",
        },
        starts=at,
        ends=at + TEST_LASTS,
    )
    async with session() as http:
        trials = (_Trial(http, url, patience) for url in plan.urls)
        return list(await asyncio.gather(*(t.send(alert, mark) for t in trials)))


class _Trial:
    """A test of one Alertmanager."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, patience: Seconds
    ) -> None:
        self._session = session
        self._url = url
        self._patience = patience

    async def send(self, alert: dict[str, Any], mark: str) -> Tried:
        """Send *alert*, and see where it goes."""
        before = await self._messages() if self._patience else None
        post = posting(self._session)
        tried = Tried(self._url, await ask(post, self._url, [alert], ANSWERED_WITHIN))
        if not tried.answer.took:
            return tried
        tried = await self._routed(tried, mark)
        if before is None or tried.is_muted:
            return tried
        return await self._told(tried, before)

    async def _routed(self, tried: Tried, mark: str) -> Tried:
        said = await self._get("/api/v2/alerts", filter=f'test="{mark}"')
        try:
            (known,) = json.loads(said)
            receivers = tuple(str(receiver["name"]) for receiver in known["receivers"])
            is_muted = known["status"]["state"] == "suppressed"
        except (ValueError, LookupError, TypeError):
            return tried  # it took the alert, and need not say more
        return replace(tried, receivers=receivers, is_muted=is_muted)

    async def _told(self, tried: Tried, before: tuple[int, int]) -> Tried:
        """Wait until it has told somebody, or seems to have given up trying."""
        loop = asyncio.get_running_loop()
        told = refused = 0
        until = loop.time() + self._patience
        while not told and loop.time() < until:
            await asyncio.sleep(_LOOK)
            sent, failed = await self._messages() or before
            now_refused = max(0, failed - before[1])  # less: it was restarted
            told = max(0, sent - before[0] - now_refused)
            if now_refused and not refused:
                until = min(until, loop.time() + _RETRIES)
            refused = now_refused
        return replace(tried, told=told, refused=refused)

    async def _messages(self) -> tuple[int, int] | None:
        """How many messages it has tried to send, and how many of the tries failed."""
        said = await self._get("/metrics")
        if not said:
            return None
        sent = failed = 0.0
        for line in said.splitlines():
            if line.startswith("alertmanager_notification_requests_total"):
                sent += float(line.rpartition(" ")[2])
            elif line.startswith("alertmanager_notification_requests_failed_total"):
                failed += float(line.rpartition(" ")[2])
        return int(sent), int(failed)

    async def _get(self, path: str, **parameters: str) -> str:
        """What it says there; nothing when it does not."""
        try:
            async with (
                asyncio.timeout(ANSWERED_WITHIN),
                self._session.get(self._url + path, params=parameters) as answer,
            ):
                return await answer.text() if answer.status == 200 else ""
        except (aiohttp.ClientError, OSError, ValueError):
            return ""
