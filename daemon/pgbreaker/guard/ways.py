"""The ways to a daemon: HTTP, HTTP by its Unix socket, the file that it writes.

Whatever is asked of it ends at a moment, however slowly something comes: a timeout of a
socket begins anew with each byte.
"""

import base64
import io
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final, Self, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from pgbreaker.core.units import Seconds

CONNECTS_WITHIN: Final[Seconds] = 2.0

_AT_LEAST: Final[Seconds] = 0.01  # 0 would be for a socket not to wait at all
_BUFFER: Final = 1024  # bytes; nearly all that comes is a beat
_NOTHING: Final = "it says nothing"
_SAFE: Final = "/%:@!$&'()*+,;=~-._"  # of a path, by RFC 3986

_Places: TypeAlias = list[tuple[Any, Any, int, str, Any]]
"""What `socket.getaddrinfo` finds."""

LookUp: TypeAlias = Callable[[str, int], _Places]


class Address:
    """Where a daemon is, and how it is asked.

    Attributes:
        where: Without secrets.
        file: The file that it writes. None: it is asked by HTTP.
    """

    def __init__(
        self, url: str, token: str | None, look_up: LookUp | None = None
    ) -> None:
        """
        Args:
            look_up: Finds where a host is: host, port. None: as the system does.

        Raises:
            ValueError: It is none.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except (ValueError, AttributeError):
            shown = _without_secrets(url) if isinstance(url, str) else url
            raise ValueError(f"{shown!r} is no address of a daemon") from None
        self.file: Path | None = None
        self._socket: Path | None = None
        self._base = self._host = ""
        self._port = 0
        self._look_up = look_up or _look_up
        self._lookup: _Lookup | None = None
        self._last_found: _Places = []
        self._is_tls = parts.scheme == "https"
        self._tls: ssl.SSLContext | None = None
        self._headers = _headers(parts.username, parts.password, token)
        if parts.scheme in ("file", "unix") and parts.path and not parts.netloc:
            path = Path(unquote(parts.path))
            self.where = f"{parts.scheme}://{path}"
            if parts.scheme == "file":
                self.file = path
            else:
                self._socket = path
            self._headers["Host"] = "localhost"
            return
        is_http = parts.scheme in ("http", "https")
        if not (is_http and parts.hostname and port != 0):
            raise ValueError(
                f"{_without_secrets(url)!r} is no address of a daemon; write"
                " http://HOST:PORT, unix:///PATH or file:///PATH"
            )
        host = _host(parts.hostname)
        shown = f"[{host}]" if ":" in host else host
        self._host, self._port = host, port or (443 if self._is_tls else 80)
        self._base = quote(parts.path.rstrip("/"), safe=_SAFE)
        self._headers["Host"] = shown + (f":{port}" if port else "")
        self.where = f"{parts.scheme}://{self._headers['Host']}{self._base}"

    def __repr__(self) -> str:
        return f"<Address {self.where}>"

    # Reaching it.

    def places(self, within: Seconds) -> _Places:
        """Where its host is.

        Whoever looks a name up may be kept for half a minute when nobody answers that; so
        somebody else does it, and what was last known is still good then.

        Raises:
            OSError: Nobody knows.
        """
        if self._socket is not None:
            unix = socket.AF_UNIX, socket.SOCK_STREAM, 0, "", str(self._socket)
            return [unix]
        with suppress(OSError):
            return _look_up(self._host, self._port, socket.AI_NUMERICHOST)
        if self._lookup is None or not self._lookup.is_alive():
            self._lookup = _Lookup(self._look_up, self._host, self._port)
            self._lookup.start()
        lookup = self._lookup
        lookup.join(within)
        if lookup.found:
            self._last_found = lookup.found
        elif not self._last_found:
            raise lookup.error or TimeoutError("nobody says where its host is")
        return self._last_found

    def secured(self, sock: socket.socket) -> socket.socket:
        """The same, with TLS to come where it is asked for."""
        if not self._is_tls:
            return sock
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls.wrap_socket(
            sock, server_hostname=self._host, do_handshake_on_connect=False
        )

    def written(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> bytes:
        """A request, as it is sent."""
        all_ = {**self._headers, "Accept-Encoding": "identity", **headers}
        if body:
            all_["Content-Length"] = str(len(body))
        lines = [f"{method} {self._base}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in all_.items()]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body

    def forget_trust(self) -> None:
        """Read anew, the next time, whose certificates are good."""
        self._tls = None


class Connection(io.RawIOBase):
    """A connection to a daemon, which is used until a moment and no longer.

    Attributes:
        until: The moment; it may be put off.
    """

    def __init__(
        self,
        address: Address,
        now: Callable[[], Seconds],
        within: Seconds,
        *,
        meanwhile: Callable[[], Seconds] = lambda: 0.0,
    ) -> None:
        """
        Args:
            within: Seconds for all that is done with it.
            meanwhile: Is called while it is waited; returns after how many seconds it
                wants to be called again, 0: not at all.
        """
        super().__init__()
        self.until = now() + within
        self._address = address
        self._now = now
        self._meanwhile = meanwhile
        # Noted before it is connected: a fork may come any time, and the child must not
        # keep it open.
        self._sock: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _left(self) -> Seconds:
        left = self.until - self._now()
        if left <= 0:
            raise TimeoutError(_NOTHING)
        return left

    # Asking.

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> HTTPResponse:
        """Connect, and ask for *path*.

        Raises:
            OSError: It cannot be reached, or is not there in time.
            HTTPException: What it answers is no HTTP.
        """
        sock = self._connect()
        request = memoryview(self._address.written(method, path, headers, body))
        while request:
            sock.settimeout(max(_AT_LEAST, self._left()))
            request = request[sock.send(request) :]
        response = HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        return response

    def _connect(self) -> socket.socket:
        # Where there is a lease it ends in time, whatever does not answer.
        by = self._now() + min(CONNECTS_WITHIN, self._meanwhile() or CONNECTS_WITHIN)
        by = min(by, self.until)
        places = self._address.places(max(_AT_LEAST, by - self._now()))
        for number, (family, kind, protocol, _, place) in enumerate(places):
            left = (by - self._now()) / (len(places) - number)
            self._sock = socket.socket(family, kind, protocol)
            try:
                self._sock.settimeout(max(_AT_LEAST, left))
                self._sock.connect(place)
                break
            except OSError:
                self._sock.close()
                if number == len(places) - 1:
                    raise
        assert self._sock is not None
        self._sock = sock = self._address.secured(self._sock)
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(max(_AT_LEAST, by - self._now()))
            sock.do_handshake()
        return sock

    # What `HTTPResponse` reads from.

    def makefile(self, *_args: object, **_more: object) -> io.BufferedReader:
        """Itself, as one that is read from."""
        return io.BufferedReader(self, _BUFFER)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Take what comes next.

        Raises:
            TimeoutError: Nothing has, until the moment.
        """
        assert self._sock is not None
        while True:
            again = self._meanwhile()
            left = self._left()
            self._sock.settimeout(max(_AT_LEAST, min(left, again or left)))
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                continue

    # Ending it.

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
        super().close()

    def hang_up(self) -> None:
        """End it from another thread: who waits for it is told at once."""
        sock = self._sock
        if sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def drop(self) -> None:
        """Let it be, in a forked process: it is the parent's, and goes on there."""
        if self._sock is not None:
            self._sock.close()


class _Lookup(threading.Thread):
    """Looks a host up."""

    def __init__(self, look_up: LookUp, host: str, port: int) -> None:
        super().__init__(name=f"pgbreaker-lookup {host}", daemon=True)
        self._look_up = look_up
        self._asked = host, port
        self.found: _Places = []
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            self.found = self._look_up(*self._asked)
        except OSError as error:
            self.error = error


def _look_up(host: str, port: int, flags: int = 0) -> _Places:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def _host(name: str) -> str:
    """A host as DNS has it.

    Raises:
        ValueError: It can be none.
    """
    try:
        host = name.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError(f"{name!r} is no name of a host") from None
    if not host.isprintable() or " " in host:
        raise ValueError(f"{name!r} is no name of a host")
    return host


def _without_secrets(url: str) -> str:
    head, at, rest = url.rpartition("@")
    return f"{head.split('//')[0]}//{rest}" if at else url


def _headers(
    user: str | None, password: str | None, token: str | None
) -> dict[str, str]:
    headers = {"Host": "", "Cache-Control": "no-store"}
    if token is not None:
        if not (token.isascii() and token.isprintable()):
            # Of a file that it was read from, a line break is easily taken with it.
            raise ValueError("the token has a line break in it, or what is no ASCII")
        headers["Authorization"] = f"Bearer {token}"
    elif user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return headers
