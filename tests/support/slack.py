"""A receiver of messages, shaped like Slack's webhooks, that can behave badly."""

import asyncio
import html
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import web

T = TypeVar("T")

# Of an attachment: https://api.slack.com/reference/messaging/attachments
MOST_BUTTONS = 5
MOST_TEXT = 3000

LINK = re.compile(r"<([^|>]*)\|([^>]*)>")


@dataclass(frozen=True)
class Message:
    """One request that was answered with success.

    Attributes:
        path: What it was sent to, `slack` where Slack messages go.
        payload: Its JSON.
        arrived: When, by `time.time()`.
    """

    path: str
    payload: dict[str, Any]
    arrived: float

    @property
    def attachment(self) -> dict[str, Any]:
        """The one attachment that Alertmanager makes."""
        (attachment,) = self.payload["attachments"]
        return dict(attachment)

    @property
    def channel(self) -> str:
        return str(self.payload["channel"])

    @property
    def title(self) -> str:
        return str(self.attachment["title"])

    @property
    def text(self) -> str:
        return str(self.attachment["text"])

    @property
    def footer(self) -> str:
        return str(self.attachment["footer"])

    @property
    def buttons(self) -> dict[str, str]:
        """Text -> address of the buttons that Slack shows: those with an address."""
        actions = self.attachment.get("actions", [])
        return {a["text"]: a["url"] for a in actions if a.get("url")}


@dataclass
class Refusal:
    """An answer other than success, and for how many requests more."""

    status: int
    left: float


class Slack:
    """Takes messages, until told otherwise.

    Attributes:
        url: Where Slack messages go; other webhooks go to `address(path)`.
        messages: What was taken, in order, of all paths.
        refused: Status and time of each request that was not taken.
    """

    def __init__(self) -> None:
        self.origin = ""
        self.messages: list[Message] = []
        self.refused: list[tuple[int, float]] = []
        self._refusal = Refusal(200, 0)
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return self.address("slack")

    def address(self, path: str) -> str:
        """Where messages go that are found again by *path*."""
        return f"{self.origin}/{path}"

    def refuse(self, status: int, times: float = float("inf")) -> None:
        """Answer the next Slack messages with *status*, for ever unless *times*."""
        self._refusal = Refusal(status, times)

    def to(self, path: str) -> list[Message]:
        """What *path* has taken."""
        return [message for message in self.messages if message.path == path]

    def told(self, *words: str) -> list[Message]:
        """Slack messages that have all *words* in title, text or footer."""
        return [
            message
            for message in self.to("slack")
            if all(
                word in f"{message.title}\n{message.text}\n{message.footer}"
                for word in words
            )
        ]

    async def until(self, what: Callable[[], T], within: float) -> T:
        """Wait until *what* is true, looking after each request; gives what it said.

        Fails after *within* seconds, saying what came until then.
        """
        try:
            async with asyncio.timeout(within), self._changed:
                await self._changed.wait_for(what)
        except TimeoutError:
            came = "\n  ".join(f"{m.path}: {m.payload}" for m in self.messages[-12:])
            raise AssertionError(
                f"did not come true within {within} s; refused {self.refused}; "
                f"last came:\n  {came}"
            ) from None
        return what()

    async def _take(self, request: web.Request) -> web.Response:
        path, arrived = request.match_info["path"], time.time()
        payload = await request.json()
        async with self._changed:
            self._changed.notify_all()
            if path == "slack" and self._refusal.left > 0:
                self._refusal.left -= 1
                self.refused.append((self._refusal.status, arrived))
                return _refuse(self._refusal.status)
            self.messages.append(Message(path, payload, arrived))
        return web.Response(text="ok")


def _refuse(status: int) -> web.Response:
    """What Slack's documentation says that it answers."""
    bodies = {429: "rate_limited", 404: "channel_not_found", 410: "channel_is_archived"}
    headers = {"Retry-After": "1"} if status == 429 else {}
    return web.Response(
        status=status, text=bodies.get(status, "rollup_error"), headers=headers
    )


@asynccontextmanager
async def slack() -> AsyncIterator[Slack]:
    """A receiver on loopback, for the time of the block."""
    receiver = Slack()
    app = web.Application()
    app.router.add_post("/{path}", receiver._take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def lint(message: Message) -> list[str]:
    """What is wrong with a Slack message, in words; nothing when it is good."""
    attachment = message.attachment
    wrong = [
        f"{name} is empty"
        for name in ("title", "title_link", "text", "fallback", "footer", "color")
        if not attachment.get(name, "").strip()
    ]
    wrong += [f"says {odd!r}" for odd in odds(message)]
    if len(message.text) >= MOST_TEXT:
        wrong.append(f"text has {len(message.text)} characters")
    if len(attachment.get("actions", [])) > MOST_BUTTONS:
        wrong.append(f"has {len(attachment['actions'])} buttons")
    links = [html.unescape(address) for address, _ in LINK.findall(message.text)]
    for address in [*links, *message.buttons.values(), attachment.get("title_link")]:
        if not is_web_address(address):
            wrong.append(f"leads to {address!r}")
    if bare := re.findall(r"[<>]|&(?!amp;|lt;|gt;)", LINK.sub("", message.text)):
        wrong.append(f"does not escape {bare}")
    if looks_resolved(message) is None:
        wrong.append("looks neither firing nor resolved")
    return wrong


def odds(message: Message) -> list[str]:
    """Traces of a template that found nothing, or was not rendered."""
    said = str(message.payload)
    return [odd for odd in ("<no value>", "%!", "{{", "}}", "<nil>") if odd in said]


def is_web_address(address: str | None) -> bool:
    """Whether Slack shows a link with *address*."""
    parts = urlsplit(address or "")
    odd = re.search(r"[\s<>|\"{}]", address or "")
    return parts.scheme in {"http", "https"} and bool(parts.netloc) and not odd


def looks_resolved(message: Message) -> bool | None:
    """Whether it looks resolved; None when colour, sign and words disagree."""
    signs = {
        message.attachment.get("color") == "good",
        message.title.startswith(":white_check_mark: RESOLVED "),
        message.attachment.get("fallback", "").startswith("RESOLVED "),
        re.search(r", until \d", message.text) is not None,
    }
    return signs.pop() if len(signs) == 1 else None
