"""Finds the daemon, and asks it.

By the standard library alone: what is asked is small, and asking is to begin at once.
"""

import base64
import http.client
import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from pgbreaker import __version__
from pgbreaker.cli.ending import (
    FAILED,
    TEMPORARY,
    UNAUTHORISED,
    UNREACHABLE,
    EndError,
)
from pgbreaker.core.secret import Secret
from pgbreaker.core.text import tidy
from pgbreaker.core.units import Seconds
from pgbreaker.errors import ConfigError

USUAL: Final = "http://127.0.0.1:9432"
_SOCKET: Final = "pgbreaker.sock"
_RUN: Final = "/run/pgbreaker"

ANSWERS_WITHIN: Final[Seconds] = 5.0
_ASKING_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
_MOST: Final = (
    64 * 1024 * 1024
)  # bytes of an answer; a snapshot of thousands is some MB
_LATER: Final = (429, 503)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a daemon is to be.

    Attributes:
        url: ``http://``, ``https://``, or ``unix:`` and a path.
        said_by: Who says that it is there.
        tried: What was looked at before, and why it was not that.
    """

    url: str
    said_by: str
    tried: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.url} ({self.said_by})"


def find(
    url: str | None, config: Path | None, env: Mapping[str, str] = os.environ
) -> Place:
    """Find out where the daemon is: ``--url``, ``PGBREAKER_URL``, its Unix socket, the
    configuration, the usual address, in this order.

    Raises:
        EndError: What was said is no address.
    """
    if url is not None:
        return Place(_checked(url, "--url"), "--url")
    if env.get("PGBREAKER_URL"):
        said_by = "PGBREAKER_URL"
        return Place(_checked(env[said_by], said_by), said_by)
    tried: list[str] = []
    folders = [f for f in (env.get("RUNTIME_DIRECTORY"), _RUN) if f]
    for folder in dict.fromkeys(folders):
        path = Path(folder) / _SOCKET
        reason = _not_listening(path)
        if reason is None:
            return Place(f"unix:{path}", "its socket", tuple(tried))
        if reason:
            tried.append(f"{path}: {reason}")
    if config is not None:
        try:
            there, key = _configured(config)
        except ConfigError as error:
            # An operator need not be able to read what the daemon reads.
            tried.append(error.problems[0])
        else:
            return Place(there, f"{key} in {config}", tuple(tried))
    return Place(USUAL, "the usual address", tuple(tried))


def _checked(url: str, said_by: str) -> str:
    if url.startswith("unix:") and len(url) > len("unix:"):
        return "unix:" + url.removeprefix("unix:").removeprefix("//")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_address = is_address and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise EndError(f"{said_by} is no address; write http://127.0.0.1:9432", 2)
    if parts.username is not None or parts.password is not None:
        raise EndError(
            f"credentials do not belong into {said_by}, where others see them; set"
            " PGBREAKER_USER and PGBREAKER_PASSWORD_FILE",
            2,
        )
    return url.rstrip("/")


def _not_listening(path: Path) -> str | None:
    """Why nobody can be asked at a socket; None when somebody can, empty when there is
    none."""
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(1.0)
        try:
            knocking.connect(str(path))
        except FileNotFoundError:
            return ""
        except OSError as error:
            return _reason(error)
    return None


def _configured(path: Path) -> tuple[str, str]:
    """The address that a configuration names, and by which key."""
    from pgbreaker import config

    plan = config.listening(path)
    if plan.socket is not None and _not_listening(plan.socket) is None:
        return f"unix:{plan.socket}", "http.socket"
    host, port = plan.listen
    host = _ASKING_EVERYWHERE.get(host, host)
    host = f"[{host}]" if ":" in host else host
    is_safe = plan.web_config is not None and _has_certificate(plan.web_config)
    return f"{'https' if is_safe else 'http'}://{host}:{port}", "http.listen"


def _has_certificate(path: Path) -> bool:
    """Whether a web configuration has one, for which a look is enough."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return False
    return any(line.startswith("tls_server_config:") for line in text.splitlines())


# https://docs.openssl.org/master/man1/openssl-verification-options/ and x509_vfy.h
_EXPIRED: Final = (9, 10)  # not valid yet, or no more
_OTHER_NAME: Final = (62, 64)  # of a host, of an address
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")  # as it is called


def _trusting(error: ssl.SSLCertVerificationError) -> str:
    """What helps where a certificate is not trusted."""
    if error.verify_code in _EXPIRED:
        return "look at the clocks; the daemon takes a new one as soon as it is there"
    if error.verify_code in _OTHER_NAME:
        return "say --url with a name that the certificate has"
    return "--ca FILE, or PGBREAKER_CA, says by which authority to trust it"


def _reason(error: BaseException) -> str:
    """What went wrong, in the system's words and without its numbers."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}".lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return tidy(str(error)) or type(error).__name__


def credentials(env: Mapping[str, str] = os.environ) -> Secret | None:
    """The header that says who we are, None when nobody said. Never from the command
    line: every user of the machine sees that.

    Raises:
        EndError: The file with the password cannot be read.
    """
    if token := env.get("PGBREAKER_TOKEN"):
        return Secret(f"Bearer {token}")
    user, password = env.get("PGBREAKER_USER"), env.get("PGBREAKER_PASSWORD")
    if path := env.get("PGBREAKER_PASSWORD_FILE"):
        try:
            password = Path(path).read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise EndError(
                f"PGBREAKER_PASSWORD_FILE cannot be read: {_reason(error)}",
                UNAUTHORISED,
            ) from None
    if user is None:
        return None
    pair = f"{user}:{password or ''}".encode()
    return Secret("Basic " + base64.b64encode(pair).decode())


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: Seconds) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon answered.

    Attributes:
        status: HTTP's.
        headers: By lower-case name.
        raw: The body.
    """

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def is_good(self) -> bool:
        """Whether it did what was asked."""
        return 200 <= self.status < 300

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The body, read.

        Raises:
            ValueError: It is no JSON: who answers is no daemon of ours.
        """
        return json.loads(self.raw)

    @property
    def problem(self) -> str:
        """What the daemon says is wrong, in one line, or a line a field."""
        try:
            told = self.json()
            errors = told.get("errors") or ()
            named = [f"{e['field']}: {e['detail']}" for e in errors]
            return "\n".join(named) or str(told["detail"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return http.client.responses.get(self.status, "no reason given").lower()


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a stream.

    Attributes:
        kind: Its name.
        id: What to resume after. None: it has none.
        data: The text of its data; a JSON document, if it has any.
    """

    kind: str
    id: str | None
    data: str

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The data, read."""
        return json.loads(self.data)


@dataclass(frozen=True, slots=True)
class Asked:
    """The daemon that is asked.

    Attributes:
        place: Where it is.
        who: The header that says who asks. None: nobody in particular.
        ca: File of certificates to trust it by. None: the system's.
        config: The configuration that was named, for commands that look at it, too.
    """

    place: Place
    who: Secret | None = None
    ca: Path | None = None
    config: Path | None = None
    _timeout: Seconds = field(default=ANSWERS_WITHIN)

    @classmethod
    def found(
        cls,
        url: str | None,
        config: Path | None,
        env: Mapping[str, str] = os.environ,
        *,
        ca: Path | None = None,
    ) -> Self:
        """The daemon that is to be asked, as options and environment say.

        Raises:
            EndError: What they say cannot be used.
        """
        return cls(find(url, config, env), credentials(env), ca, config)

    # Asking.

    def get(self, path: str, *has: str) -> Any:  # noqa: ANN401 - JSON
        """Get *path*, as JSON.

        Args:
            has: Keys without which it is none of ours.

        Raises:
            EndError: It was not to be had, and why.
        """
        return self.read(self.good("GET", path), *has)

    def read(self, answer: Answer, *has: str) -> Any:  # noqa: ANN401 - JSON
        """Read an answer's JSON.

        Raises:
            EndError: It has none, so that who answers is no daemon.
        """
        told: Any = None
        with suppress(ValueError):
            told = answer.json()
        if told is None or (
            has and not (isinstance(told, dict) and told.keys() >= {*has})
        ):
            raise EndError(f"what answers at {self.place} is no pgbreaker", UNREACHABLE)
        return told

    def good(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout: Seconds | None = None,
    ) -> Answer:
        """Ask for what has to go well.

        Raises:
            EndError: It did not, and why.
        """
        answer = self.ask(method, path, body, timeout=timeout)
        if not answer.is_good:
            raise self.refused(answer)
        return answer

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout: Seconds | None = None,
    ) -> Answer:
        """Ask, whatever the answer.

        Raises:
            EndError: There was none.
        """
        with self._asking(method, path, body, timeout or self._timeout) as response:
            raw = response.read(_MOST + 1)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, raw)

    def follow(
        self, path: str, after: str | None = None, *, silence: Seconds
    ) -> Iterator[Told]:
        """Follow a stream until the daemon ends it.

        Args:
            after: Id of the last event that was seen.
            silence: Seconds without a word after which it counts as lost.

        Raises:
            EndError: It was not to be had, or was lost.
        """
        more = {"Accept": "text/event-stream"}
        if after is not None:
            more["Last-Event-ID"] = after
        with self._asking("GET", path, None, silence, **more) as response:
            if response.status != 200:
                raw = response.read(_MOST)
                raise self.refused(Answer(response.status, {}, raw))
            yield from _events(response)

    @contextmanager
    def _asking(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout: Seconds,
        **headers: str,
    ) -> Iterator[http.client.HTTPResponse]:
        sent = {
            "Accept": "application/json",
            "User-Agent": f"pgbreaker/{__version__}",
            **headers,
        }
        raw = None if body is None else json.dumps(body).encode()
        if raw is not None:
            sent["Content-Type"] = "application/json"
        if self.who is not None:
            sent["Authorization"] = self.who.reveal()
        connection = self._connection(timeout)
        try:
            connection.request(method, path, raw, sent)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        finally:
            connection.close()

    def _connection(self, timeout: Seconds) -> http.client.HTTPConnection:
        url = self.place.url
        if url.startswith("unix:"):
            return _UnixConnection(url.removeprefix("unix:"), timeout)
        parts = urlsplit(url)
        assert parts.hostname is not None
        if parts.scheme == "http":
            return http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=timeout
            )
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:
            raise EndError(f"--ca cannot be used: {_reason(error)}", 2) from None
        return http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=timeout, context=context
        )

    # What goes wrong.

    def _lost(self, error: Exception) -> EndError:
        before = "".join(f"; {tried}" for tried in self.place.tried)
        if isinstance(error, ssl.SSLCertVerificationError):
            return EndError(
                f"the certificate of {self.place} is not trusted:"
                f" {tidy(error.verify_message).rstrip('.')} ({_trusting(error)}){before}",
                UNREACHABLE,
            )
        if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
            return EndError(
                f"what answers at {self.place} does not speak TLS"
                f" (a daemon without a certificate is asked by http://){before}",
                UNREACHABLE,
            )
        return EndError(
            f"no daemon answers at {self.place}: {_reason(error)}{before}"
            " (is it running? --url or PGBREAKER_URL say where)",
            UNREACHABLE,
        )

    def refused(self, answer: Answer) -> EndError:
        """What the daemon did not do, as the end of the command."""
        said = answer.problem
        if answer.status == 401:
            helps = (
                "who you are is not known there"
                if self.who is not None
                else "set PGBREAKER_USER and PGBREAKER_PASSWORD_FILE, or PGBREAKER_TOKEN"
            )
            return EndError(f"not logged in: {helps}", UNAUTHORISED)
        if answer.status == 403:
            return EndError(f"not allowed: {said}", UNAUTHORISED)
        if answer.status in _LATER:
            wait = answer.headers.get("retry-after")
            again = f" (try again in {wait} s)" if wait else ""
            return EndError(f"not now: {said}{again}", TEMPORARY)
        return EndError(said, FAILED)


def _events(response: http.client.HTTPResponse) -> Iterator[Told]:
    """The events of a stream, as https://html.spec.whatwg.org has them."""
    kind, last = "message", None
    data: list[str] = []
    while raw := response.readline():
        line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        if not line:
            if data or kind != "message":
                yield Told(kind, last, "\n".join(data))
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                yield Told("comment", last, "")
            case "event":
                kind = value
            case "id":
                last = value
            case "data":
                data.append(value)
