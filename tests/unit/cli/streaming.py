"""Somebody who streams what a test says, and shows a status."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOMENT = "2026-11-26T03:12:00.000Z"


def breaker(state: str = "closed", reason: str = "all is well") -> dict:
    return {
        "name": "main/read",
        "target": "main",
        "operation": "read",
        "state": state,
        "computed_state": state,
        "since": MOMENT,
        "reason": reason,
        "override": None,
    }


def status(state: str = "closed", reason: str = "all is well") -> dict:
    return {
        "time": "2026-11-26T03:12:30.000Z",
        "targets": [
            {
                "name": "main",
                "state": "up" if state == "closed" else "degraded",
                "reason": reason,
                "breakers": [breaker(state, reason)],
                "probes": [],
                "facts": {},
            }
        ],
    }


def event(kind: str, data: object, id_: int | None = None) -> str:
    """An event as it goes over the wire."""
    head = "" if id_ is None else f"id: {id_}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"


class Streamer:
    """Streams one text to each who comes, then hangs up; the last stays.

    Attributes:
        url: Where.
        texts: What is still to be streamed.
        after: What each who came had seen last.
        seen: What a status shows.
        ended: Set when the last is to be let go.
    """

    def __init__(self, port: int, texts: list[str]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.texts = texts
        self.after: list[str | None] = []
        self.seen = status()
        self.ended = threading.Event()


@contextmanager
def streaming(*texts: str):
    """Stream *texts*, one to each who comes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "stream" not in self.path:
                return self._send(json.dumps(streamer.seen), "application/json")
            streamer.after.append(self.headers["Last-Event-ID"])
            if not streamer.texts:
                return self.send_error(404)
            text = streamer.texts.pop(0)
            self._send(text, "text/event-stream", stays=True)
            if not streamer.texts:
                streamer.ended.wait(10)
            return None

        def _send(self, text: str, kind: str, *, stays: bool = False) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if not stays:
                self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
            self.wfile.flush()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        streamer = Streamer(server.server_port, list(texts))
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield streamer
        finally:
            streamer.ended.set()
            server.shutdown()
            serving.join()
