"""Takes messages as Slack's incoming webhooks do, and shows them as Slack would.

For docker-compose.yml, where nobody has a Slack: Alertmanager posts to it, and
http://127.0.0.1:9095 shows what would be in the channels. It refuses what Slack refuses,
keeps the last 200 messages, in memory alone, and needs nothing but Python.

    python3 slack.py [HOST [PORT]]
"""

import base64
import hashlib
import html
import ipaddress
import json
import re
import signal
import socket
import socketserver
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

KEPT: Final = 200  # messages
MOST_BYTES: Final = 1 << 20
MOST_ATTACHMENTS: Final = 100
MOST_TEXT: Final = 40_000  # characters
PACE: Final = 1.0  # messages a second, with a few at once
AT_ONCE: Final = 10
# By these names and by addresses: a web site cannot have a browser read the messages.
NAMES: Final = ("localhost", "slack")

COLOURS: Final = {"good": "#2eb67d", "warning": "#ecb22e", "danger": "#e01e5a"}
EMOJI: Final = {
    "red_circle": "🔴",
    "rotating_light": "🚨",
    "warning": "⚠️",
    "white_check_mark": "✅",
}


# -- What is taken -----------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One that was taken.

    Attributes:
        number: Counted from 1.
        arrived: Unix time.
        payload: What was posted.
    """

    number: int
    arrived: float
    payload: Mapping[str, Any]

    @property
    def channel(self) -> str:
        """Where it went, without the mark before it."""
        return text_of(self.payload, "channel").lstrip("#") or "general"


@dataclass(frozen=True)
class Refusal:
    """What Slack answers in place of ``ok``."""

    status: int
    word: str


class Channels:
    """The messages, oldest first; threads may share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: deque[Message] = deque(maxlen=KEPT)
        self._taken = 0
        self._room, self._looked = float(AT_ONCE), time.monotonic()

    def take(self, raw: bytes, kind: str) -> Refusal | None:
        """Keep a message. Returns why not, when it is none that Slack takes."""
        payload = parsed(raw, kind)
        if isinstance(payload, Refusal):
            return payload
        with self._lock:
            now = time.monotonic()
            self._room = min(AT_ONCE, self._room + (now - self._looked) * PACE)
            self._looked = now
            if self._room < 1:
                return Refusal(429, "rate_limited")
            self._room -= 1
            self._taken += 1
            self._messages.append(Message(self._taken, time.time(), payload))
        return None

    def all(self) -> list[Message]:
        """Those that are kept."""
        with self._lock:
            return list(self._messages)


def parsed(raw: bytes, kind: str) -> dict[str, Any] | Refusal:
    """What was posted, or why Slack would not take it."""
    try:
        text = raw.decode("utf-8")
        if kind == "application/x-www-form-urlencoded":
            (text,) = parse_qs(text, strict_parsing=True)["payload"]
        payload = json.loads(text)
    except (ValueError, KeyError, RecursionError):
        payload = None
    if not isinstance(payload, dict):
        return Refusal(400, "invalid_payload")
    word = wrong_with(payload)
    return payload if word is None else Refusal(400, word)


def wrong_with(payload: Mapping[str, Any]) -> str | None:
    """Slack's word for what is wrong with a message; None when nothing is."""
    attachments = payload.get("attachments") or []
    if not isinstance(attachments, list) or len(attachments) > MOST_ATTACHMENTS:
        return "too_many_attachments"
    if not all(isinstance(one, dict) for one in attachments):
        return "invalid_attachments"
    texts = [text_of(payload, "text"), *map(_texts, attachments)]
    if not any(texts):
        return "no_text"
    return "msg_too_long" if max(map(len, texts)) > MOST_TEXT else None


def _texts(attachment: Mapping[str, Any]) -> str:
    names = ("pretext", "title", "text", "fallback")
    return "".join(text_of(attachment, name) for name in names)


def text_of(thing: Mapping[str, Any], name: str) -> str:
    """The text at *name*; empty when there is none, or something else."""
    found = thing.get(name)
    return found if isinstance(found, str) else ""


# -- How it looks ------------------------------------------------------------------------

# Slack's own mark-up, of which each alternative is one thing.
_MARKS: Final = re.compile(
    r"```(?P<block>.+?)```|`(?P<code>[^`\n]+)`"
    r"|<(?P<link>[^<>|\s]+)(?:\|(?P<label>[^<>]*))?>"
    r"|(?<!\w)\*(?P<b>\S|\S[^*\n]*\S)\*(?!\w)"
    r"|(?<!\w)_(?P<i>\S|\S[^_\n]*\S)_(?!\w)"
    r"|(?<!\w)~(?P<s>\S|\S[^~\n]*\S)~(?!\w)"
    r"|:(?P<emoji>[a-z0-9_+-]+):",
    re.DOTALL,
)


def mrkdwn(text: str) -> str:
    """HTML of a text in Slack's mark-up, in which only &, < and > are escaped."""
    parts, end = [], 0
    for found in _MARKS.finditer(text):
        parts += [plain(text[end : found.start()]), _marked(found)]
        end = found.end()
    return "".join((*parts, plain(text[end:])))


def _marked(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    if kind in ("link", "label"):
        link = html.unescape(found["link"])
        return linked(link, plain(found["label"] or found["link"]))
    if kind == "emoji":
        return EMOJI.get(found["emoji"], plain(found[0]))
    if kind in ("block", "code"):
        tag = "pre" if kind == "block" else "code"
        return f"<{tag}>{plain(found[kind].strip())}</{tag}>"
    return f"<{kind}>{mrkdwn(found[kind])}</{kind}>"


def plain(text: str) -> str:
    """HTML of a text without marks."""
    return html.escape(html.unescape(text)).replace("\n", "<br>")


def linked(address: str, inner: str, more: str = "") -> str:
    """A link, where the address is one that Slack makes a link of."""
    if not is_web_address(address):
        return inner
    return (
        f'<a href="{html.escape(address)}" rel="noreferrer" target="_blank"{more}>'
        f"{inner}</a>"
    )


def is_web_address(address: str) -> bool:
    """Whether Slack makes a link of it."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    odd = re.search(r"[\s<>|\"{}]", address)
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not odd


def attachment_html(attachment: Mapping[str, Any]) -> str:
    """One attachment, with its bar."""
    colour = text_of(attachment, "color")
    colour = COLOURS.get(colour, colour)
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        colour = "#dddddd"
    title = mrkdwn(text_of(attachment, "title"))
    pieces = [
        ("p", "pretext", mrkdwn(text_of(attachment, "pretext"))),
        ("h3", "title", linked(text_of(attachment, "title_link"), title)),
        ("div", "text", mrkdwn(text_of(attachment, "text"))),
        ("dl", "fields", "".join(_fields(attachment))),
        ("div", "actions", "".join(_buttons(attachment))),
        ("footer", "footer", mrkdwn(text_of(attachment, "footer"))),
    ]
    inner = "".join(
        f'<{tag} class="{kind}">{x}</{tag}>' for tag, kind, x in pieces if x
    )
    return (
        '<div class="attachment">'
        f'<svg class="bar"><rect width="4" height="100%" rx="2" fill="{colour}"/></svg>'
        f"<div>{inner}</div></div>"
    )


def _fields(attachment: Mapping[str, Any]) -> Iterator[str]:
    for field in _dicts(attachment, "fields"):
        kind = "short" if field.get("short") else "long"
        title, value = (mrkdwn(text_of(field, name)) for name in ("title", "value"))
        yield f'<div class="{kind}"><dt>{title}</dt><dd>{value}</dd></div>'


def _buttons(attachment: Mapping[str, Any]) -> Iterator[str]:
    for action in _dicts(attachment, "actions"):
        address = text_of(action, "url")
        # Slack shows none without an address.
        if action.get("type") == "button" and is_web_address(address):
            style = " primary" if action.get("style") == "primary" else ""
            style = " danger" if action.get("style") == "danger" else style
            yield linked(
                address, plain(text_of(action, "text")), f' class="button{style}"'
            )


def _dicts(thing: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = thing.get(name)
    return (
        [one for one in found if isinstance(one, dict)]
        if isinstance(found, list)
        else []
    )


def message_html(message: Message) -> str:
    """One message, with who says it and when."""
    payload = message.payload
    at = datetime.fromtimestamp(message.arrived, UTC)
    name = text_of(payload, "username") or "incoming-webhook"
    inner = mrkdwn(text_of(payload, "text"))
    inner += "".join(map(attachment_html, _dicts(payload, "attachments")))
    return (
        f'<article id="m{message.number}"><div class="face">{plain(name[:1].upper())}</div>'
        f'<div class="body"><b class="name">{plain(name)}</b> <span class="app">APP</span>'
        f' <time datetime="{at.isoformat()}">{at:%H:%M:%S} UTC</time>'
        f' <span class="in">#{plain(message.channel)}</span>{inner}</div></article>'
    )


def page(messages: Iterable[Message], channel: str | None) -> str:
    """All of the page; of one channel, or of all when it is None."""
    messages = list(messages)
    counts = Counter(message.channel for message in messages)
    rows = [
        (None, "all", len(messages)),
        *((c, f"#{c}", n) for c, n in sorted(counts.items())),
    ]
    links = "".join(
        f'<li><a href="/{"" if name is None else "?channel=" + quote(name)}"{mark}>'
        f"{plain(shown)} <span>{count}</span></a></li>"
        for name, shown, count in rows
        for mark in (' aria-current="page"' if name == channel else "",)
    )
    shown = [m for m in messages if channel in (None, m.channel)]
    inner = "".join(map(message_html, shown)) or (
        '<p class="empty">Nothing yet. <code>make break</code> stops the database; the'
        " first message is here a moment later.</p>"
    )
    heading = "All channels" if channel is None else f"#{plain(channel)}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}: what Slack would show</title><style>{STYLE}</style>"
        f"<nav><h1>Stack</h1><ul>{links}</ul></nav>"
        f"<main><header><h2>{heading}</h2><p>What Slack would show</p></header>"
        f'<section aria-live="polite">{inner}</section></main><script>{SCRIPT}</script>'
    )


STYLE: Final = """
*{box-sizing:border-box}
body{margin:0;display:flex;min-height:100vh;background:#fff;color:#1d1c1d;
 font:15px/1.46 Lato,"Helvetica Neue",Helvetica,Arial,sans-serif}
nav{flex:none;width:220px;background:#3f0e40;color:#fff;padding:0 8px}
h1{font-size:18px;margin:0 8px;padding:14px 0}
nav ul{list-style:none;margin:0;padding:0}
nav a{display:flex;justify-content:space-between;padding:4px 8px;border-radius:6px;
 color:#d7c6d8;text-decoration:none}
nav a:hover{background:#350d36}
nav a[aria-current]{background:#1164a3;color:#fff}
main{flex:1;min-width:0}
header{position:sticky;top:0;background:#fff;border-bottom:1px solid #ddd;
 padding:10px 20px;display:flex;gap:12px;align-items:baseline}
h2{font-size:18px;margin:0}
header p{margin:0;color:#616061}
section{padding:12px 0 24px}
article{display:flex;gap:8px;padding:8px 20px}
article:hover{background:#f8f8f8}
.face{flex:none;width:36px;height:36px;border-radius:4px;background:#1164a3;color:#fff;
 font-weight:700;display:grid;place-items:center}
.body{min-width:0;flex:1}
.app{background:#e8e8e8;color:#454447;font-size:10px;font-weight:700;padding:1px 3px;
 border-radius:2px;vertical-align:2px}
time,.in,.empty{color:#616061;font-size:12px}
.empty{padding:0 20px;font-size:15px}
.attachment{display:flex;gap:12px;margin-top:4px;max-width:660px;overflow-wrap:anywhere}
.bar{flex:none;width:4px;height:auto}
h3{font-size:15px;margin:0}
a{color:#1264a3;text-decoration:none}
a:hover{text-decoration:underline}
.text i{color:#616061}
code,pre{font:12px/1.5 Monaco,Menlo,Consolas,monospace;background:#f4f4f4;color:#b8193f;
 border:1px solid #ddd;border-radius:3px;padding:1px 3px}
pre{color:inherit;padding:8px;white-space:pre-wrap;margin:4px 0}
dl{display:flex;flex-wrap:wrap;gap:8px;margin:8px 0 0}
dt{font-weight:700}
dd{margin:0}
.short{width:calc(50% - 4px)}
.long{width:100%}
.actions{display:flex;flex-wrap:wrap;gap:8px;margin-top:8px}
.button{border:1px solid #bbb;border-radius:4px;padding:4px 12px;font-weight:700;
 font-size:13px;color:#1d1c1d;background:#fff}
.button:hover{background:#f4f4f4;text-decoration:none}
.button.primary{background:#007a5a;border-color:#007a5a;color:#fff}
.button.danger{background:#e01e5a;border-color:#e01e5a;color:#fff}
.footer{color:#616061;font-size:12px;margin-top:6px}
@media (max-width:640px){body{display:block}nav{width:auto;padding:0 8px 8px}
 nav ul{display:flex;flex-wrap:wrap}}
"""
# Looks for what is new, and follows it as long as the last one is in sight.
SCRIPT: Final = """
setInterval(async () => {
  try {
    const answer = await fetch(location.href);
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (next.body.innerHTML.length === document.body.innerHTML.length) return;
    const low = innerHeight + scrollY >= document.body.scrollHeight - 80;
    for (const part of ["nav", "section"])
      document.querySelector(part).replaceWith(next.querySelector(part));
    if (low) scrollTo(0, document.body.scrollHeight);
  } catch { /* it is being restarted: the next look will see */ }
}, 1000);
"""


def _digest(text: str) -> str:
    sha = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(sha).decode()}'"


POLICY: Final = (
    f"default-src 'none'; style-src {_digest(STYLE)}; script-src {_digest(SCRIPT)};"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


# -- Over HTTP ---------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """``POST /services/...`` is the webhook; ``/`` the page, ``/messages.json`` for
    programs."""

    protocol_version = "HTTP/1.1"
    timeout = 10  # for a request to come

    def __init__(
        self,
        channels: Channels,
        request: socket.socket,
        client: tuple[str, int],
        server: socketserver.BaseServer,
    ) -> None:
        self._channels = channels
        super().__init__(request, client, server)  # which answers, and returns then

    def do_GET(self) -> None:
        """Show."""
        address = urlsplit(self.path)
        if not self._is_for_us():
            self._answer(421, "misdirected request")
        elif address.path == "/healthy":
            self._answer(200, "ok")
        elif address.path == "/messages.json":
            held = [
                {"number": m.number, "arrived": m.arrived, "payload": m.payload}
                for m in self._channels.all()
            ]
            self._answer(200, json.dumps(held), "application/json")
        elif address.path == "/":
            (channel,) = parse_qs(address.query).get("channel", [None])[:1]
            self._answer(200, page(self._channels.all(), channel), "text/html")
        else:
            self._answer(404, "there is nothing of that name")

    def do_POST(self) -> None:
        """Take a message."""
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > MOST_BYTES:
            self.close_connection = True
            self._answer(413, "invalid_payload")
            return
        raw = self.rfile.read(int(size))
        kind = self.headers.get_content_type()
        if not self._is_for_us() or not self.path.startswith("/services/"):
            self._answer(404, "no_service")
            return
        refusal = self._channels.take(raw, kind)
        if refusal is None:
            self._answer(200, "ok")
        else:
            self._answer(refusal.status, refusal.word)

    def _is_for_us(self) -> bool:
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return host in NAMES
        return True

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        body = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log what was posted, and not each look."""
        if self.command == "POST":
            super().log_request(code, size)


def main(host: str = "127.0.0.1", port: str = "9095") -> None:
    """Listen until told to stop."""
    address = (host, int(port))
    server = ThreadingHTTPServer(address, partial(Handler, Channels()))
    server.daemon_threads = True

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
