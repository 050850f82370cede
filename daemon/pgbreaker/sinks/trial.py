"""A test alert: whether what is told to Alertmanager arrives where people see it."""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp

from pgbreaker.clock import Clock
from pgbreaker.core.plan import AlertmanagerPlan
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.alertmanager import (
    ANSWERED_WITHIN,
    Answer,
    date_of,
    lead,
    moment,
    offer,
    posting,
    session,
    written,
)

TEST: Final = "PgbreakerTest"
TEST_LASTS: Final[Seconds] = 60.0

_LOOK: Final[Seconds] = 0.2  # between two looks at whether a message went out
_RETRIES: Final[Seconds] = 3.0  # after a refusal; Alertmanager tries again in less


@dataclass(frozen=True, slots=True)
class Sent:
    """What an Alertmanager sent by one integration since a test.

    Attributes:
        messages: Those that went out; it does not say of which alerts.
        failures: Tries that failed.
    """

    messages: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a test alert at one Alertmanager.

    Attributes:
        url: Where it is.
        answer: What it said to the alert.
        receivers: Where its routes send the alert; empty when it does not say.
        is_muted: Whether a silence, or another alert, keeps it from being sent.
        sent: Integration of these receivers, such as ``slack`` -> what was sent by it
            since; empty when they have none. None: nobody waited, or it is not known.
        doubt: Why it is not known of all of them; empty when it is.
    """

    url: str
    answer: Answer
    receivers: tuple[str, ...] = ()
    is_muted: bool = False
    sent: Mapping[str, Sent] | None = None
    doubt: str = ""

    @property
    def is_sent(self) -> bool:
        """Whether messages went out by all integrations, and nothing failed."""
        if not self.sent or self.doubt:
            return False
        return all(one.messages and not one.failures for one in self.sent.values())


async def send_test(
    plan: AlertmanagerPlan,
    severity: str,
    *,
    sender: str,
    clock: Clock,
    mark: str,
    patience: Seconds = 0.0,
) -> list[Tried]:
    """Send one alert through each Alertmanager of *plan*; it ends by itself.

    Args:
        sender: Who sends it, and from where, for people.
        mark: Tells this test from others, which would be the same alert.
        patience: Seconds to wait until a message went out. 0: that is not looked at.
    """
    trial = _Test(plan, severity, sender, mark)
    async with session() as http:
        trials = (_Trial(http, url, clock, patience) for url in plan.urls)
        return list(await asyncio.gather(*(t.send(trial) for t in trials)))


@dataclass(frozen=True, slots=True)
class _Test:
    """What is sent, to whomever."""

    plan: AlertmanagerPlan
    severity: str
    sender: str
    mark: str

    def written(self, at: float, ahead: Seconds) -> dict[str, Any]:
        """Write it, as of *at*, for a clock that is ahead of ours by so much."""
        return written(
            self.plan,
            {"alertname": TEST, "severity": self.severity, "test": self.mark},
            {
                "summary": "This is a test of pgbreaker's alerts",
                "description": f"Sent by {self.sender} at {moment(at)}. Nothing is"
                f" wrong, and nothing is to be done; it ends by itself.",
            },
            starts=at + ahead,
            ends=at + ahead + TEST_LASTS,
        )


class _Trial:
    """A test of one Alertmanager."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, clock: Clock, patience: Seconds
    ) -> None:
        self._session = session
        self._url = url
        self._clock = clock
        self._patience = patience

    async def send(self, test: _Test) -> Tried:
        """Send it, and see where it goes."""
        status = await self._get("/api/v2/status")
        before = (await self._get("/metrics")).text if self._patience else ""
        wall = self._clock.wall()
        alert = test.written(wall, lead(status, wall))
        post = posting(self._session)
        answer = await offer(post, self._url, [alert], ANSWERED_WITHIN)
        tried = Tried(self._url, answer)
        if not answer.took:
            return tried
        tried = await self._routed(tried, test.mark)
        if not self._patience or tried.is_muted:
            return tried
        return await self._sent(tried, _Outlets.read(status.text), before)

    async def _routed(self, tried: Tried, mark: str) -> Tried:
        said = await self._get("/api/v2/alerts", filter=f'test="{mark}"')
        try:
            (known,) = json.loads(said.text)
            receivers = tuple(str(receiver["name"]) for receiver in known["receivers"])
            is_muted = known["status"]["state"] == "suppressed"
        except (ValueError, LookupError, TypeError):
            return tried  # it took the alert, and need not say more
        return replace(tried, receivers=receivers, is_muted=is_muted)

    async def _sent(self, tried: Tried, outlets: "_Outlets", before: str) -> Tried:
        """Wait until messages went out, or it seems to have given up trying."""
        if not before:
            return replace(tried, doubt="it serves no /metrics")
        used = outlets.of(tried.receivers)
        if used is None:
            return replace(tried, doubt="it does not say by what its receivers send")
        if doubt := outlets.doubt(tried.receivers, before):
            tried, used = replace(tried, doubt=doubt), used - {_WEBHOOK}
            if not used:
                return tried
        old = _counts(before, tried.receivers)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        sent = dict.fromkeys(sorted(used), Sent())
        were_out = hurries = False
        while used and loop.time() < until:
            await asyncio.sleep(_LOOK)
            if now := (await self._get("/metrics")).text:
                new = _counts(now, tried.receivers)
                sent = {name: _between(old.get(name), new.get(name)) for name in sent}
            if not hurries and any(one.failures for one in sent.values()):
                hurries, until = True, min(until, loop.time() + _RETRIES)
            are_out = all(one.messages for one in sent.values())
            if are_out and were_out:  # twice: a try is counted before its failure is
                break
            were_out = are_out
        return replace(tried, sent=sent)

    async def _get(self, path: str, **parameters: str) -> Answer:
        """What it says there, whole; nothing when it does not."""
        try:
            async with (
                asyncio.timeout(ANSWERED_WITHIN),
                self._session.get(self._url + path, params=parameters) as answer,
            ):
                said = await answer.text() if answer.status == 200 else ""
                return Answer(answer.status, said, date_of(answer))
        except (aiohttp.ClientError, OSError, ValueError):
            return Answer(None)


# What it counts, and by what.

_WEBHOOK: Final = "webhook"
_COUNT: Final = re.compile(
    r"^alertmanager_notification_requests(?P<failed>_failed)?_total"
    r"\{(?P<labels>.*)\} (?P<value>[0-9.e+]+)$",
    re.MULTILINE,
)
# Its configuration, as it writes it out itself: a receiver's name comes first, and all else
# of it is further in, but for blank lines within a text.
_RECEIVERS: Final = re.compile(r"^receivers:\n((?:[ -].*\n|\n)*)", re.MULTILINE)
_RECEIVER: Final = re.compile(
    r"^(?P<at> *)- name: (?P<name>.+)\n(?P<rest>(?:(?:(?P=at)  .*)?\n)*)", re.MULTILINE
)
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def _counts(metrics: str, receivers: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Integration -> tries to send by it, and how many of them failed.

    Of *receivers* alone, if receivers are told apart: that is a feature of newer ones,
    which has to be switched on.
    """
    counts: dict[str, tuple[int, int]] = {}
    for found in _COUNT.finditer(metrics):
        labels = dict(_LABEL.findall(found["labels"]))
        if labels.get("receiver_name") not in (None, *receivers):
            continue
        name = labels.get("integration", "")
        tries, failures = counts.get(name, (0, 0))
        value = int(float(found["value"]))
        if found["failed"]:
            counts[name] = tries, failures + value
        else:
            counts[name] = tries + value, failures
    return counts


def _between(old: tuple[int, int] | None, new: tuple[int, int] | None) -> Sent:
    tries, failures = (
        max(0, after - before)  # less: it was restarted
        for before, after in zip(old or (0, 0), new or (0, 0), strict=True)
    )
    return Sent(max(0, tries - failures), failures)


def _integrations(receiver: re.Match[str]) -> frozenset[str]:
    keys = rf"(?m)^{receiver['at']}  (\w+)_configs:"
    return frozenset(re.findall(keys, receiver["rest"]))


@dataclass(frozen=True, slots=True)
class _Outlets:
    """By which integrations each receiver sends; empty when that is not known."""

    known: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, status: str) -> "_Outlets":
        """Read them from what an Alertmanager says of itself."""
        try:
            config = str(json.loads(status)["config"]["original"]) + "\n"
        except (ValueError, LookupError, TypeError):
            return cls()
        block = _RECEIVERS.search(config)
        found = _RECEIVER.finditer(block[1] if block else "")
        return cls({one["name"].strip("'\""): _integrations(one) for one in found})

    def of(self, receivers: Iterable[str]) -> frozenset[str] | None:
        """The integrations of *receivers*. None: it does not say of all, or of any."""
        found = [self.known.get(name) for name in receivers]
        if not found or None in found:
            return None
        return frozenset().union(*(used for used in found if used))

    def doubt(self, receivers: Iterable[str], metrics: str) -> str:
        """Why *metrics* do not tell what *receivers* sent; empty when they do.

        Webhooks of others are the dead man's switch, for one, which goes out each
        minute. Other integrations are taken at their word.
        """
        receivers = set(receivers)
        users = {name for name, used in self.known.items() if _WEBHOOK in used}
        is_shared = bool(users & receivers and users - receivers)
        if is_shared and "receiver_name=" not in metrics:
            return "its /metrics count the webhooks of all receivers together"
        return ""
