"""Connections: how many, how large a header, how slow a reader."""

import asyncio
import logging
import resource
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ssl import SSLContext, SSLError
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from pgbreaker.core.units import Seconds
from pgbreaker.postgres.wire import take_little
from pgbreaker.web.doors.limits import Flow, Limits, neighbourhood
from pgbreaker.web.problems import problem

LINE: Final = 8192
FIELD: Final = LINE - 1  # a byte less: aiohttp does not tell which of them was too long
_HEADER: Final = 16 * 1024  # bytes of a whole header
_HEADERS: Final = 64  # of one request
_SPARE: Final = 2  # of the files that we may open, one in two is for others
_SWEEP_EVERY: Final[Seconds] = 1.0

_NO_LINGER: Final = struct.pack("ii", 1, 0)
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)


def speaking(limits: Limits, logger: logging.Logger) -> dict[str, Any]:
    """How aiohttp is to speak on a connection, and which words are too long."""
    return {
        "access_log": None,
        "logger": logger,
        "keepalive_timeout": limits.header,
        "lingering_time": limits.linger,
        "max_line_size": LINE,
        "max_field_size": FIELD,
        "max_headers": _HEADERS,
        # A body that unpacks into gigabytes is not unpacked.
        "auto_decompress": False,
    }


class Line(web.RequestHandler):
    """One connection. aiohttp speaks on it; this counts.

    Attributes:
        flow: How what is sent is taken.
        place: What counts as its address.
        since: When it began, or was done with its last request, in the loop's time.
    """

    __slots__ = ("_lines", "_unread", "flow", "place", "since")

    def __init__(
        self, lines: "Lines", server: web.Server, speech: dict[str, Any]
    ) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **speech)
        self._lines = lines
        self._unread = 0
        self.flow = Flow()
        self.place = ""
        self.since: Seconds = self._loop.time()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, or for the rest of a header."""
        return self._current_request is None and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak."""
        super().connection_made(transport)
        if not self._lines.is_welcome(transport):
            transport.close()

    def follow(self) -> bool:
        """Stay for good, with others that do, and be counted with them alone. Returns
        whether there is room for one more of its address."""
        return self._lines.set_apart(self)

    def rest(self) -> None:
        """Wait for a request again: from now on it is the client's turn."""
        self.since = self._loop.time()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._lines.let_go(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; hang up on a header without an end."""
        super().data_received(data)
        waiter = self._waiter
        if waiter is None or waiter.done():
            self._unread = 0
            return
        self._unread += len(data)
        if self._unread > _HEADER and self.transport is not None:
            self.transport.write(_TOO_LARGE)
            self.force_close()

    def resume_writing(self) -> None:
        """Go on: the reader has taken nearly all there was."""
        self.flow.flows()
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what was no request, or what went wrong, as a problem."""
        super().handle_error(request, status, exc, message)
        answer = _problem_of(status, exc)
        self._lines.dress(answer)
        answer.force_close()
        return answer


class Threshold(asyncio.Protocol):
    """A connection that has just come: counted before anything is said on it.

    Encrypting it is ours, too: the event loop would tell of it only when that is done,
    and whoever never gets so far would not count.
    """

    def __init__(self, lines: "Lines", line: Line, context: SSLContext | None) -> None:
        self._lines = lines
        self._line = line
        self._context = context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, if there is room."""
        assert isinstance(transport, asyncio.Transport)
        take_little(transport)
        if not self._lines.let_in(self._line, transport):
            _drop(transport)
        elif self._context is None or is_unix(transport):
            transport.set_protocol(self._line)
            self._line.connection_made(transport)
        else:
            transport.pause_reading()  # what comes first is not for us
            self._lines.encrypt(self._line, transport, self._context)


class Lines:
    """Every connection there is.

    When there are too many, the one goes that has waited longest to say something: who
    opens a thousand and says nothing loses those, and nobody else notices. Only when
    all of them are at work is a new one hung up on.
    """

    def __init__(
        self,
        limits: Limits,
        dress: Callable[[web.StreamResponse], None],
        is_welcome: Callable[[asyncio.BaseTransport], bool],
    ) -> None:
        """Begin with none.

        Args:
            dress: Sets the headers that every answer carries.
            is_welcome: Whether a client may come in, by the certificate it has shown.
        """
        self.dress = dress
        self.is_welcome = is_welcome
        self._limits = limits
        self._all: dict[Line, asyncio.Transport] = {}
        self._from: Counter[str] = Counter()
        self._apart: dict[Line, asyncio.Transport] = {}  # those who follow
        self._apart_from: Counter[str] = Counter()
        self._encrypting: set[asyncio.Task[None]] = set()
        files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = max(2, files // _SPARE)
        self._most = min(limits.connections, spare // 2)
        self._most_apart = min(limits.followers, spare - self._most)

    def __len__(self) -> int:
        return len(self._all)

    def let_in(self, line: Line, transport: asyncio.Transport) -> bool:
        """Take one more, at the cost of an idle one if need be."""
        line.place = neighbourhood(
            None if is_unix(transport) else transport.get_extra_info("peername")[0]
        )
        if self._from[line.place] >= self._most_from(line.place):
            if not self._make_room(line.place):
                return False
        elif len(self._all) >= self._most and not self._make_room(None):
            return False
        self._all[line] = transport
        self._from[line.place] += 1
        return True

    def let_go(self, line: Line) -> None:
        """One less."""
        for lines, places in (
            (self._all, self._from),
            (self._apart, self._apart_from),
        ):
            if lines.pop(line, None) is not None:
                places[line.place] -= 1
                if not places[line.place]:
                    del places[line.place]

    def set_apart(self, line: Line) -> bool:
        """Count one that stays for good with others that do: thousands of them take
        nobody else's place. An address has half of it at most, or who opens them all
        would have every application go by itself."""
        transport = self._all.get(line)
        most = self._most_apart
        if transport is None or len(self._apart) >= most:
            return False
        if self._apart_from[line.place] >= (most + 1) // 2 and line.place != "unix":
            return False
        self.let_go(line)
        self._apart[line] = transport
        self._apart_from[line.place] += 1
        return True

    def encrypt(
        self, line: Line, transport: asyncio.Transport, context: SSLContext
    ) -> None:
        """Have a connection encrypted, and *line* speak on it then."""
        task = asyncio.create_task(self._encrypt(line, transport, context))
        self._encrypting.add(task)
        task.add_done_callback(self._encrypting.discard)

    async def _encrypt(
        self, line: Line, transport: asyncio.Transport, context: SSLContext
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            encrypted = await loop.start_tls(
                transport,
                line,
                context,
                server_side=True,
                ssl_handshake_timeout=self._limits.header,
                ssl_shutdown_timeout=self._limits.stalled,
            )
        except (OSError, SSLError):
            encrypted = None
        if encrypted is None:
            self.let_go(line)
            _drop(transport)
        else:
            line.connection_made(encrypted)

    def _most_from(self, place: str) -> int:
        if place == "unix":
            return self._most
        if place.startswith("127.") or place == "::1":
            return min(self._limits.from_here, max(1, self._most // 2))
        return self._limits.from_one

    def _make_room(self, place: str | None) -> bool:
        idle = (
            line for line in self._all if line.is_idle and place in (None, line.place)
        )
        line = min(idle, key=lambda one: one.since, default=None)
        if line is None:
            return False
        transport = self._all[line]
        self.let_go(line)
        _drop(transport)
        return True

    @asynccontextmanager
    async def swept(self) -> AsyncIterator[None]:
        """Drop slow readers, for the time of the block."""
        sweeping = asyncio.create_task(self._keep_sweeping())
        try:
            yield
        finally:
            ending = {sweeping, *self._encrypting}
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)

    async def _keep_sweeping(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            now = loop.time()
            for line, transport in [*self._all.items(), *self._apart.items()]:
                # A closing connection is here until its last byte is taken.
                size = transport.get_write_buffer_size()
                if line.flow.stands_for(size, now) > self._limits.stalled:
                    _drop(transport)


def is_unix(transport: asyncio.BaseTransport | None) -> bool:
    """Whether it is a connection to the Unix socket."""
    connection = transport.get_extra_info("socket") if transport else None
    return connection is not None and connection.family == socket.AF_UNIX


def _drop(transport: asyncio.Transport) -> None:
    """Hang up so that nothing is left of it, in the kernel neither."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def _problem_of(status: int, error: BaseException | None) -> web.Response:
    if status == web.HTTPBadRequest.status_code:
        if isinstance(error, LineTooLong):
            is_line = error.args[1] == LINE
            if is_line:
                return problem(414, "address too long", f"more than {LINE} bytes")
            return problem(431, "header too large", f"more than {FIELD} bytes in one")
        # What it was is said to nobody: it would be an echo of what they sent.
        return problem(400, "bad request", "that is not HTTP as RFC 9112 has it")
    if status == web.HTTPGatewayTimeout.status_code:
        return problem(503, "too slow", "it took too long")
    return problem(500, "internal error", "the log says more")
