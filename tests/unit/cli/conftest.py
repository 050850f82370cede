"""Commands run in this process, and somebody for them to ask."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from pgbreaker.cli import cli


@pytest.fixture(autouse=True)
def _nobody_said(monkeypatch):
    """The environment of whoever runs the tests says nothing of a daemon."""
    for name in ("URL", "CONFIG", "DSN", "USER", "PASSWORD", "PASSWORD_FILE", "TOKEN"):
        monkeypatch.delenv(f"PGBREAKER_{name}", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)


@pytest.fixture
def command():
    """Runs a command, and returns what came of it."""

    def run(*words: str, typed: str | None = None, **env: str):
        return CliRunner(env=env).invoke(cli, words, input=typed)

    return run


class Asked:
    """What somebody was asked, to be looked at afterwards.

    Attributes:
        url: Where.
        headers: Of the last question.
        body: Of the last question, as JSON.
        line: Method and path of the last question.
    """

    def __init__(self) -> None:
        self.url = ""
        self.headers: dict[str, str] = {}
        self.body = None
        self.line = ""


@contextmanager
def answering(
    status: int = 200, body: object = None, *, raw: bytes | None = None, **headers: str
):
    """Somebody who answers every question by the same."""
    asked = Asked()
    told = json.dumps(body).encode() if raw is None else raw

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            asked.headers = dict(self.headers)
            asked.line = f"{self.command} {self.path}"
            length = int(self.headers.get("Content-Length") or 0)
            asked.body = json.loads(self.rfile.read(length)) if length else None
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        asked.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield asked
        finally:
            server.shutdown()
            serving.join()
