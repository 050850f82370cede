"""What speaks as a daemon does to those who follow, at the word of a test: it advises,
freezes in the middle of a word, refuses, lies, and takes reports."""

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, Self

STREAM = "/api/v1/advice/stream"
REPORTS = "/api/v1/reports"


def advice(
    opinion: str = "open", epoch: int = 1, seq: int = 1, **more: Any
) -> dict[str, Any]:
    """What is said of one breaker."""
    return {
        "breaker": "main/read",
        "opinion": opinion,
        "reason": "connection refused",
        "sqlstate": None,
        "authoritative": False,
        "version": {"epoch": str(epoch), "seq": seq},
        "lease_seconds": 6.0,
        "override": None,
    } | more


class Speaker:
    """A daemon's stand-in, which speaks HTTP on a port of its own.

    Attributes:
        lease: Seconds for which what it says holds; it beats three times in it.
        spread: Seconds over which it has those come who follow.
        freezes: Where it says nothing more, though nobody hangs up: ``headers`` (before
            them), ``event`` (in the middle of one), ``chunk`` (between two), ``now``;
            ``report``: it never answers one. None: nowhere.
        frozen: Connections on which it does so ``now``.
        status: What it answers to who wants to follow.
        kind: The content type of that.
        heard: The headers of those who came to follow.
        reports: What was reported: path, headers, and what it held.
        answers: What it answers to reports: status, headers, body; the last for ever.
    """

    def __init__(
        self,
        opinion: str = "open",
        *,
        epoch: int = 1,
        lease: float = 0.9,
        path: Path | None = None,
    ) -> None:
        """
        Args:
            path: Of a Unix socket that it listens on. None: on a port.
        """
        self.epoch, self.seq, self.lease = epoch, 1, lease
        self.said: list[dict[str, Any]] = [advice(opinion, epoch)]
        self.spread = 1.0
        self.freezes: str | None = None
        self.frozen = 0
        self.status, self.kind = 200, "text/event-stream; charset=utf-8"
        self.heard: list[dict[str, str]] = []
        self.reports: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = [
            (200, {}, b'{"every_seconds": 5.0}')
        ]
        self.is_over = threading.Event()
        self._lines: set[socket.socket] = set()
        self._path = path
        self._serve(0)

    @property
    def url(self) -> str:
        """Where it listens."""
        if self._path is not None:
            return f"unix://{self._path}"
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def followers(self) -> int:
        """Who is connected."""
        return len(self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def say(self, opinion: str, **more: Any) -> None:
        """Be of another mind from now on; it is told with the next beat."""
        self.seq += 1
        self.said = [advice(opinion, self.epoch, self.seq, **more)]

    def kill(self) -> None:
        """Be gone: whoever is connected is hung up on, and nobody gets in."""
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()
        for line in tuple(self._lines):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)

    def come_back(self, *, epoch: int) -> None:
        """Be there again, as another run."""
        port = self._server.server_address[1]
        self.epoch, self.seq = epoch, 1
        self.said = [one | {"version": self._version} for one in self.said]
        self.is_over = threading.Event()
        self._serve(port)

    def _serve(self, port: int) -> None:
        speaker = self

        class Handler(_Handler):
            by = speaker

        if self._path is None:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        else:
            self._server = _Unix(str(self._path), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    # What is said.

    @property
    def _version(self) -> dict[str, Any]:
        return {"epoch": str(self.epoch), "seq": self.seq}

    def message(self, kind: str) -> bytes:
        """An event, as it is sent."""
        data: dict[str, Any] = {
            "version": self._version,
            "lease_seconds": self.lease,
            "spread_seconds": self.spread,
        }
        if kind == "advice":
            data |= {"complete": True, "advice": self.said}
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()

    def stream(self, handler: "_Handler") -> None:
        """Speak to who follows, until it is over."""
        over, line = self.is_over, handler.connection
        self._lines.add(line)
        try:
            if self.freezes == "headers":
                over.wait()
                return
            handler.send_response(self.status)
            handler.send_header("Content-Type", self.kind)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            told = 0
            while not over.is_set():
                kind = "heartbeat" if told == self.seq else "advice"
                told = self.seq
                self._send(handler, self.message(kind))
                over.wait(self.lease / 3)
        finally:
            self._lines.discard(line)

    def _send(self, handler: "_Handler", text: bytes) -> None:
        over, freezes = self.is_over, self.freezes
        if freezes == "now":
            self.frozen += 1
            over.wait()
        elif freezes == "event":
            half = text[: len(text) // 2]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))
            over.wait()
        elif freezes == "chunk":
            handler.wfile.write(b"%x\r\n" % len(text))
            over.wait()
        else:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))


class _Unix(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    by: Speaker

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.by.heard.append(dict(self.headers))
        self.close_connection = True
        with suppress(OSError):
            self.by.stream(self)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        report = json.loads(self.rfile.read(length))
        self.by.reports.append((self.path, dict(self.headers), report))
        if self.by.freezes == "report":
            self.by.is_over.wait()
            return
        answers = self.by.answers
        status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
