"""Connections: how many, how large a header, how slow a reader."""

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from pgbreaker.core.units import Seconds
from pgbreaker.web.doors.limits import Limits, neighbourhood
from pgbreaker.web.problems import problem

LINE: Final = 8192
FIELD: Final = LINE - 1  # a byte less: aiohttp does not tell which of them was too long
_HEADER: Final = 16 * 1024  # bytes of a whole header
_HEADERS: Final = 64  # of one request
_LINGER: Final[Seconds] = 1.0  # what still comes after an answer is thrown away
_SPARE: Final = 2  # of the files that we may open, one in two is for others
_LEAST: Final = 20 * 1024  # bytes that a reader takes in time, or is too slow
_SWEEP_EVERY: Final[Seconds] = 1.0

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
        "lingering_time": _LINGER,
        "max_line_size": LINE,
        "max_field_size": FIELD,
        "max_headers": _HEADERS,
        # A body that unpacks into gigabytes is not unpacked.
        "auto_decompress": False,
    }


class Line(web.RequestHandler):
    """One connection. aiohttp speaks on it; this counts.

    Attributes:
        place: What counts as its address.
        since: When it was last heard of or done with a request, in the loop's time.
    """

    __slots__ = ("_lines", "_peak", "_unread", "_waits_since", "place", "since")

    def __init__(
        self, lines: "Lines", server: web.Server, speech: dict[str, Any]
    ) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **speech)
        self._lines = lines
        self._unread = 0
        self._peak = 0
        self._waits_since: Seconds | None = None
        self.place = ""
        self.since: Seconds = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, or for the rest of a header."""
        return self._current_request is None and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if there is room."""
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("peername")
        self.place = neighbourhood(peer[0] if peer else None)
        self.since = self._loop.time()
        super().connection_made(transport)
        if not self._lines.let_in(self, transport):
            transport.abort()

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
        self._waits_since = None
        super().resume_writing()

    def is_stalled(
        self, transport: asyncio.Transport, now: Seconds, patience: Seconds
    ) -> bool:
        """Whether the reader has been too slow for longer than *patience*.

        Asked about once a second. Small answers to a reader who takes nothing end in a
        buffer, and so does a closing connection; nothing else would ever drop them.
        """
        size = transport.get_write_buffer_size()
        if not size:
            self._waits_since = None
        elif self._waits_since is None or size <= self._peak - _LEAST:
            self._waits_since, self._peak = now, size
        else:
            self._peak = max(self._peak, size)
        return self._waits_since is not None and now - self._waits_since > patience

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
        self._limits = limits
        self._is_welcome = is_welcome
        self._all: dict[Line, asyncio.Transport] = {}
        self._from: Counter[str] = Counter()
        files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(limits.connections, max(1, files // _SPARE))

    def __len__(self) -> int:
        return len(self._all)

    def let_in(self, line: Line, transport: asyncio.Transport) -> bool:
        """Take one more, at the cost of an idle one if need be."""
        if not self._is_welcome(transport):
            return False
        if self._from[line.place] >= self._most_from(line.place):
            if not self._drop(line.place):
                return False
        elif len(self._all) >= self._most and not self._drop(None):
            return False
        self._all[line] = transport
        self._from[line.place] += 1
        return True

    def let_go(self, line: Line) -> None:
        """One less."""
        if self._all.pop(line, None) is not None:
            self._from[line.place] -= 1
            if not self._from[line.place]:
                del self._from[line.place]

    def _most_from(self, place: str) -> int:
        if place == "unix":
            return self._most
        if place.startswith("127.") or place == "::1":
            return min(self._limits.from_here, max(1, self._most // 2))
        return self._limits.from_one

    def _drop(self, place: str | None) -> bool:
        idle = (
            line for line in self._all if line.is_idle and place in (None, line.place)
        )
        # They stand in the order in which they came.
        line = min(idle, key=lambda one: one.since, default=None)
        if line is None:
            return False
        transport = self._all[line]
        self.let_go(line)
        transport.abort()
        return True

    @asynccontextmanager
    async def swept(self) -> AsyncIterator[None]:
        """Drop slow readers, for the time of the block."""
        sweeping = asyncio.create_task(self._keep_sweeping())
        try:
            yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping

    async def _keep_sweeping(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            now = loop.time()
            for line, transport in list(self._all.items()):
                if line.is_stalled(transport, now, self._limits.stalled):
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
