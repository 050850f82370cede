"""Following a daemon: its advice comes by server-sent events, or by a file beside it.

In the background, by a thread of its own, for a loop may be held up exactly when advice
matters. No call ever waits for it: breakers read what it has left in memory. A daemon
that dies, hangs, lies or comes back opens nothing for good and closes nothing: what it
said ends with its lease, and every breaker goes on by itself.
"""

import base64
import json
import logging
import random
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pgbreaker.clock import Clock, boot_id
from pgbreaker.core.advised import EVERY
from pgbreaker.core.units import Seconds, lasting, seconds_of
from pgbreaker.guard.advisor import Advisor
from pgbreaker.guard.living import join, living

log = logging.getLogger("pgbreaker")

STREAM: Final = "/api/v1/advice/stream"

_CONNECTS_WITHIN: Final[Seconds] = 2.0
_FIRST_WAIT: Final[Seconds] = 0.25  # before coming back; doubled each time
_LONGEST_WAIT: Final[Seconds] = 15.0
_SPEAKS_WITHIN: Final[Seconds] = 10.0  # all of it, once it is connected
_LONGEST_LINE: Final = 8 * 1024 * 1024
_AT_ONCE: Final = 64 * 1024  # bytes that are read
_LOOKS_EVERY: Final[Seconds] = 0.1  # at a file, whether it is another


class LostError(Exception):
    """The daemon is not heard any more; the text says why."""


def follow(
    url: str,
    *,
    token: str | None = None,
    breakers: Mapping[str, str] | None = None,
    every: Seconds | str = EVERY,
    spread: Seconds | str | None = None,
) -> "Follower":
    """Take the advice of a daemon from now on, in the background.

    It does not wait for the daemon, and does not fail without it.

    Args:
        url: ``http://HOST:PORT`` or ``https://...``; ``unix:///PATH`` of its socket;
            ``file:///PATH`` of the file that it writes (``advice.file`` in its
            configuration). A name and a password in it are those of its logins.
        token: One of the daemon's tokens, where it wants one.
        breakers: Name of a breaker here -> that of the daemon's whose advice it takes,
            where they differ: ``{"orders": "primary/write"}``. A breaker has the advice
            of the one that has its name; ``TARGET/ANYTHING`` that of ``TARGET/read``.
        every: Seconds, or a text like ``500ms``, between two calls that find out how the
            server is while advice alone refuses them.
        spread: Seconds over which the breakers of all processes come back when the
            server does. None: as the daemon says, who knows how many follow.

    Raises:
        ValueError: The address is none.
    """
    follower = Follower(
        url,
        token=token,
        breakers=breakers or {},
        every=seconds_of(every, "every"),
        spread=None if spread is None else seconds_of(spread, "spread"),
    )
    follower.start()
    return follower


class Follower:
    """Follows one daemon; `follow` makes it.

    Attributes:
        where: The daemon's address, without secrets.
        is_connected: Whether the daemon is heard right now.
        why: Why it is not, in one line; empty while it is.
        reconnects: Times that it was heard anew, since the beginning.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        breakers: Mapping[str, str] = {},
        every: Seconds = EVERY,
        spread: Seconds | None = None,
        clock: Clock | None = None,
    ) -> None:
        """
        Raises:
            ValueError: The address is none.
        """
        self._open, self.where = _way_to(url, token)
        self._clock = clock or Clock()
        self._advisor = Advisor(self._clock, breakers, every, spread)
        self.is_connected = False
        self.why = "it has not been heard yet"
        self.reconnects = 0
        self._said: str | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        join(self)

    def __repr__(self) -> str:
        how = "connected" if self.is_connected else self.why
        return f"<Follower {self.where} {how}>"

    @property
    def advisor(self) -> Advisor:
        """What was said."""
        return self._advisor

    @property
    def lease(self) -> Seconds:
        """Seconds for which what was said still holds; 0: every breaker goes by itself."""
        return max(0.0, self._advisor.until - self._clock.now())

    def now(self) -> Seconds:
        """The moment, by its clock."""
        return self._clock.now()

    def start(self) -> None:
        """Begin to follow."""
        self._thread = threading.Thread(
            target=self._run, name=f"pgbreaker-follow {self.where}", daemon=True
        )
        self._thread.start()

    def stop(self, within: Seconds = 1.0) -> None:
        """Follow no longer; what was said ends with its lease.

        Args:
            within: Seconds that the thread is waited for.
        """
        self._stopped.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(within)

    def disown(self) -> None:
        """Begin anew in a forked process: the thread is the parent's."""
        is_running = self._thread is not None and not self._stopped.is_set()
        self._stopped = threading.Event()
        self.is_connected = False
        self._advisor.seen = ""  # it may have been in the middle of taking what came
        if is_running:
            self.start()

    def _run(self) -> None:
        stopped, tries = self._stopped, 0
        while not stopped.is_set():
            begun = self._clock.now()
            try:
                self._open(self, stopped)
            except LostError as error:
                self._lose(str(error))
            except (OSError, HTTPException, ValueError, RecursionError) as error:
                self._lose(str(error) or type(error).__name__)
            # One that hangs up on whom it has just greeted is left alone for longer.
            if self.is_connected and self._clock.now() - begun >= _LONGEST_WAIT:
                tries = 0
            self.is_connected = False
            tries = min(tries + 1, 16)
            self._rest(stopped, random.random() * _wait_after(tries))
        self.is_connected, self.why = False, "it was stopped"

    def _rest(self, stopped: threading.Event, wait: Seconds) -> None:
        """Wait to come back; a lease that ends meanwhile ends in time."""
        self.lapse()
        until = self._clock.now() + wait
        while not stopped.is_set() and (left := until - self._clock.now()) > 0:
            ends_in = self._advisor.left
            stopped.wait(min(left, ends_in) if ends_in else left)
            self.lapse()

    def _lose(self, why: str) -> None:
        self.why = why
        if why != self._said:  # once, not every few seconds for a whole night
            log.warning("advice of %s is not heard: %s", self.where, why)
            self._said = why

    def lapse(self) -> None:
        """Have breakers go by themselves once the lease is over."""
        if self._advisor.lapse():
            log.warning(
                "advice of %s has ended; every breaker goes by itself", self.where
            )

    def hear(self, kind: str, text: str) -> None:
        """Take a message of the daemon.

        Raises:
            LostError: Something was missed.
        """
        if self._advisor.take(kind, text):
            self._advisor.seen = ""
            raise LostError("something was missed; all is asked for anew")
        if not self.is_connected and self.lease:
            self.is_connected, self.why = True, ""
            self.reconnects += 1
            if self._said is not None:
                log.warning("advice of %s is heard again", self.where)
                self._said = None


def _wait_after(tries: int) -> Seconds:
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**tries)


def followers() -> list[Follower]:
    """Every follower of the process, by where it listens."""
    there = [one for one in living() if isinstance(one, Follower)]
    return sorted(there, key=lambda follower: follower.where)


# The ways to a daemon.

_Way = Callable[[Follower, threading.Event], None]


def _way_to(url: str, token: str | None) -> tuple[_Way, str]:
    """How to listen at an address, and the address without secrets."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        shown = _without_secrets(url)
        raise ValueError(f"{shown!r} is no address of a daemon") from None
    if parts.scheme == "file" and parts.path and not parts.netloc:
        path = Path(unquote(parts.path))
        return lambda follower, stopped: _watch(
            follower, stopped, path
        ), f"file://{path}"
    headers = _headers(parts.username, parts.password, token)
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        path = Path(unquote(parts.path))
        return _listening(lambda: _Unix(path), STREAM, headers), f"unix://{path}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{_without_secrets(url)!r} is no address of a daemon; write"
            " http://HOST:PORT, unix:///PATH or file:///PATH"
        )
    host, base = parts.hostname, parts.path.rstrip("/")
    shown = f"[{host}]" if ":" in host else host
    where = f"{parts.scheme}://{shown}" + (f":{port}" if port else "") + base

    def connect() -> HTTPConnection:
        if parts.scheme == "http":
            return HTTPConnection(host, port, timeout=_CONNECTS_WITHIN)
        context = ssl.create_default_context()
        return HTTPSConnection(host, port, timeout=_CONNECTS_WITHIN, context=context)

    return _listening(connect, base + STREAM, headers), where


def _without_secrets(url: str) -> str:
    head, at, rest = url.rpartition("@")
    return f"{head.split('//')[0]}//{rest}" if at else url


def _headers(
    user: str | None, password: str | None, token: str | None
) -> dict[str, str]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if token is not None:
        if not (token.isascii() and token.isprintable()):
            # Of a file that it was read from, a line break is easily taken with it.
            raise ValueError("the token has a line break in it, or what is no ASCII")
        headers["Authorization"] = f"Bearer {token}"
    elif user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    return headers


class _Unix(HTTPConnection):
    """HTTP by a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_CONNECTS_WITHIN)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _listening(
    connect: Callable[[], HTTPConnection], path: str, headers: Mapping[str, str]
) -> _Way:
    def listen(follower: Follower, stopped: threading.Event) -> None:
        connection = connect()
        seen = follower.advisor.seen
        also = {"Last-Event-ID": seen} if seen else {}
        try:
            connection.connect()
            sock = connection.sock  # which is not the connection's own for long
            connection.request("GET", path, headers={**headers, **also})
            response = connection.getresponse()
            if response.status != 200:
                raise LostError(f"it answers {response.status} {response.reason}")
            _hear_all(follower, stopped, response, sock)
        finally:
            connection.close()

    return listen


def _hear_all(
    follower: Follower,
    stopped: threading.Event,
    response: HTTPResponse,
    sock: socket.socket,
) -> None:
    """Read events until there are no more, or a lease ends with none."""
    kind, data = "message", ""
    for line in _lines(follower, stopped, response, sock):
        name, _, value = line.decode("utf-8").rstrip("\r").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data = value
        elif not name and not value:
            if data:
                follower.hear(kind, data)
            kind, data = "message", ""


def _lines(
    follower: Follower,
    stopped: threading.Event,
    response: HTTPResponse,
    sock: socket.socket,
) -> Iterator[bytes]:
    """The lines that come, until what was said with them has ended.

    A daemon that is frozen says nothing, and hangs up no more; and what stands between
    may say something for it, or let through a byte now and then.
    """
    coming = bytearray()
    patient_until = follower.now() + _SPEAKS_WITHIN
    while not stopped.is_set():
        left = max(follower.lease, patient_until - follower.now())
        if left <= 0:
            raise LostError("it says nothing any more")
        # A lease that ends meanwhile ends in time.
        sock.settimeout(max(0.01, min(left, follower.lease or left)))
        try:
            came = response.read1(_AT_ONCE)
        except TimeoutError:
            raise LostError("it says nothing any more") from None
        except IncompleteRead:
            raise LostError("it has hung up") from None
        if not came:
            raise LostError("it has hung up")
        follower.lapse()
        *lines, rest = came.split(b"\n")
        for line in lines:
            yield bytes(coming) + line
            coming.clear()
        coming += rest
        if len(coming) > _LONGEST_LINE:
            raise LostError("it does not come to an end")


def _watch(follower: Follower, stopped: threading.Event, path: Path) -> None:
    """Look at a file on this machine until it says nothing new for a lease."""
    last: tuple[int, int] | None = None
    while not stopped.is_set():
        seen = path.stat()
        if (seen.st_ino, seen.st_mtime_ns) != last:
            last = seen.st_ino, seen.st_mtime_ns
            if not stat.S_ISREG(seen.st_mode):  # a pipe would be waited for for ever
                raise LostError("it is no file")
            if seen.st_size > _LONGEST_LINE:
                raise LostError(f"it is {seen.st_size} bytes long")
            _take_file(follower, path.read_text("utf-8"))
        elif follower.lease <= 0:
            raise LostError("nobody writes it any more")
        stopped.wait(_LOOKS_EVERY)


def _take_file(follower: Follower, text: str) -> None:
    said = json.loads(text)
    if not isinstance(said, dict):
        raise LostError("it is none of a daemon's")
    if said.get("boot") != boot_id():
        raise LostError("it was written before the machine started, or on another")
    # Of one machine, all processes have the same monotonic clock.
    try:
        age = time.monotonic() - float(said["written_monotonic"])
        lease = float(said["lease_seconds"]) - age
    except (KeyError, TypeError, OverflowError):
        raise LostError("it is none of a daemon's") from None
    if not (age > -1.0 and lease > 0):
        raise LostError(f"it was written {lasting(max(0.0, age))} ago")
    follower.hear("advice", json.dumps({**said, "lease_seconds": lease}))
