"""One server, by its address: knocking at it, and connecting to it."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.units import Seconds, lasting

# https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest
_SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)

# A net below our own deadlines: a peer that is silent at the TCP level is given up
# by the kernel even if nothing asks it (a frozen process still answers there).
_USER_TIMEOUT_MS: Final = 10_000
_KEEPALIVE_S: Final = 5


_T = TypeVar("_T")


class Connection(Protocol):
    """The two questions that probes ask; asyncpg's connection fits as it is."""

    async def fetchrow(self, query: str) -> Mapping[str, Any] | None: ...
    async def execute(self, query: str) -> str: ...


class Session:
    """One connection to a target, and the deadline on each question.

    Attributes:
        connection: What probes ask.
    """

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.connection: Connection = connection
        self._raw = connection

    @property
    def is_open(self) -> bool:
        return not self._raw.is_closed()

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have *tell* called, from the loop, when the connection ends."""
        self._raw.add_termination_listener(lambda _connection: tell())

    async def ask(
        self,
        question: Callable[[Connection], Any],
        within: Seconds,
    ) -> Mapping[str, Any]:
        """Ask, and hang up when no answer comes in time.

        Raises:
            TimeoutError: No answer within *within* seconds.
            Exception: Whatever asyncpg raises.
        """
        # A cancelled or timed-out question makes asyncpg send its cancel request
        # over a NEW connection, which hangs on a dead peer, without a timeout. So
        # nothing is cancelled here: time ends the connection, and that the question.
        overdue = asyncio.get_running_loop().call_later(within, self._expire)
        self._expired = False
        try:
            answer: Mapping[str, Any] = await question(self.connection)
            return answer
        except BaseException as error:
            if self._expired:
                raise TimeoutError(
                    f"no answer within {within * 1000:.0f} ms"
                ) from error
            if isinstance(error, asyncio.CancelledError):
                self.hang_up()
            raise
        finally:
            overdue.cancel()

    def _expire(self) -> None:
        self._expired = True
        self.hang_up()

    def hang_up(self) -> None:
        """End the connection at once, without waiting for anybody."""
        self._raw.terminate()

    async def close(self, within: Seconds = 1.0) -> None:
        """End the connection politely, so that the server logs no complaint."""
        try:
            await self._raw.close(timeout=within)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.hang_up()  # it is ending anyway


class Target:
    """A server as the monitor reaches it.

    Attributes:
        plan: What was configured for it.
    """

    def __init__(self, plan: TargetPlan) -> None:
        self.plan = plan

    def __repr__(self) -> str:
        return f"<Target {self.plan.name!r}>"

    async def knock(self, within: Seconds, patience: Seconds | None = None) -> None:
        """Find out whether somebody would open the door, without walking in.

        The server's process for a new connection answers the first packet of the
        protocol before it looks at who is there. That costs no session: neither a
        slot nor a line in the server's log, and a frozen server wakes up to nothing
        but a closed socket.

        Args:
            within: Seconds for the network to connect.
            patience: Seconds for the server to answer then. None: *within* is
                for both together.

        Raises:
            TimeoutError: Nobody answered in time.
            OSError: The network says no.
            EOFError: The server hung up without a word.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        reader, writer = await _within(
            self._dial(), within, "the network did not connect within"
        )
        try:
            left = within - (loop.time() - begun) if patience is None else patience
            writer.write(_SSL_REQUEST)
            # S, N, or E for an error: all are signs of life.
            await _within(
                reader.readexactly(1), left, "connected, but the server is silent for"
            )
        finally:
            writer.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = address(self.plan.dsn.reveal())
        if host.startswith("/"):
            path = str(Path(host) / f".s.PGSQL.{port}")
            return await asyncio.open_unix_connection(path)
        return await asyncio.open_connection(host, port)

    async def connect(
        self,
        probe: str,
        within: Seconds,
        *,
        limit: Seconds | None = None,
        read_only: bool = True,
    ) -> Session:
        """Log in as the monitor's role, with limits on whatever is asked then.

        Args:
            limit: Seconds that a question may take. None: *within*.

        Raises:
            TimeoutError: Not let in within *within* seconds.
            Exception: Whatever asyncpg raises.
        """
        dialling = asyncpg.connect(
            self.plan.dsn.reveal(),
            password=self._password(),
            timeout=None,
            statement_cache_size=0,
            server_settings=_settings(probe, limit or within, read_only=read_only),
        )
        raw = await _within(dialling, within, "not let in within")
        _keep_alive(raw)
        return Session(raw)

    def _password(self) -> str | None:
        # Read anew each time: secrets are rotated under a running daemon.
        path = self.plan.password_file
        return None if path is None else path.read_text(encoding="utf-8").strip("\r\n")


async def _within(coming: Awaitable[_T], seconds: Seconds, what: str) -> _T:
    try:
        async with asyncio.timeout(seconds):
            return await coming
    except TimeoutError as error:
        if error.errno is not None:
            raise  # the kernel's word, not ours
        raise TimeoutError(f"{what} {lasting(seconds)}") from None


def address(dsn: str) -> tuple[str, int]:
    """Read host and port from a DSN; a host that begins with / is a directory of
    Unix sockets. Never fails on a DSN that the configuration accepted."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    host = query.get("host", [unquote(parts.hostname or "localhost")])[0]
    port = parts.port or int(query.get("port", ["5432"])[0])
    return host, port


def _settings(probe: str, limit: Seconds, *, read_only: bool) -> dict[str, str]:
    """Limits that the server keeps for us: a monitor must not hurt."""
    # The server gives up a little before we do: then it says so, and the session
    # survives. A lock is never worth waiting for.
    statement_timeout = max(1, int(limit * 1000 * 0.8))
    settings = {
        "application_name": f"pgbreaker/{probe}",
        "statement_timeout": str(statement_timeout),
        "lock_timeout": str(min(200, statement_timeout)),
        "idle_in_transaction_session_timeout": "5000",
        "search_path": "pg_catalog",
        "jit": "off",
        "client_min_messages": "error",
    }
    if read_only:
        settings["default_transaction_read_only"] = "on"
    return settings


def _keep_alive(connection: "asyncpg.Connection[Any]") -> None:
    # asyncpg has no public way to its socket; without one there is no net, and the
    # deadlines above still hold.
    transport = getattr(connection, "_transport", None)
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
