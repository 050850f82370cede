"""One server, by its address: knocking at it, and connecting to it."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg

from pgbreaker.core.plan import PATIENCE, TargetPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.postgres.dsn import Address, password_in, resolve
from pgbreaker.postgres.messages import SSL_REQUEST
from pgbreaker.postgres.tls import context_of
from pgbreaker.postgres.wire import Step, Wire, take_little

# A net below our own deadlines: a peer that is silent at the TCP level is given up
# by the kernel even if nothing asks it (a frozen process still answers there).
_USER_TIMEOUT_MS: Final = 10_000
_KEEPALIVE_S: Final = 5

PING: Final = "SELECT 1"

OLDEST: Final = 140_000
"""The oldest version that is asked anything: 14, as ``server_version_num``."""

_T = TypeVar("_T")


class TooOldError(Exception):
    """The server is of a version that is not asked anything.

    Attributes:
        finding: How a probe of it ends.
    """

    finding = Finding.ABSENT

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version

    def __str__(self) -> str:
        major = self.version // 10_000 or self.version
        return (
            f"PostgreSQL {major} is not watched: {OLDEST // 10_000} is the oldest;"
            " https://www.postgresql.org/support/versioning/ says until when"
        )


Late: TypeAlias = Callable[[Seconds], Seconds]
"""Says for how many seconds since a moment of the loop's clock nobody listened here."""


class Session:
    """A connection that is held to a target, and the deadline on each question."""

    def __init__(self, connection: "asyncpg.Connection[Any]", late: Late) -> None:
        self._raw = connection
        self._late = late
        self._expired = False
        self._prepared: dict[str, Any] = {}

    @property
    def is_open(self) -> bool:
        """Whether it is there, as far as anybody has told us."""
        return not self._raw.is_closed()

    @property
    def pid(self) -> int:
        """The server's process behind it, as whoever answered at the door said."""
        pid: int = self._raw.get_server_pid()
        return pid

    @property
    def version(self) -> int:
        """The server's version, as ``server_version_num``: 150018 is 15.18."""
        return version_num(getattr(self._raw.get_settings(), "server_version", ""))

    @property
    def in_recovery(self) -> bool:
        """Whether it is a replica; the server tells us when that changes (since 14)."""
        return getattr(self._raw.get_settings(), "in_hot_standby", "off") == "on"

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Have *tell* called, from the loop, when the connection ends."""
        self._raw.add_termination_listener(lambda _connection: tell())

    async def ping(self, within: Seconds) -> None:
        """Ask for nothing, by the simple protocol.

        Raises:
            TimeoutError: No answer within *within* seconds.
            Exception: Whatever asyncpg raises.
        """
        await self._ask(self._raw.execute(PING), within)

    async def fetch(
        self, sql: str, within: Seconds, *, keep: bool = False
    ) -> Mapping[str, Any] | None:
        """Ask for one row.

        Args:
            keep: Whether to have the server keep the statement's plan for the next
                time; only where no pooler stands between.

        Raises:
            TimeoutError: No answer within *within* seconds.
            Exception: Whatever asyncpg raises.
        """
        # Not fetchrow: to have no more than one row it asks for the end of the portal
        # besides, which is another round trip.
        asking = self._fetch_kept(sql) if keep else self._raw.fetch(sql)
        rows: list[Mapping[str, Any]] = await self._ask(asking, within)
        return rows[0] if rows else None

    async def _fetch_kept(self, sql: str) -> Any:  # noqa: ANN401 - asyncpg has no types
        prepared = self._prepared.get(sql)
        if prepared is None:
            # Without a name, and without asyncpg's cache, it would be the unnamed
            # statement, which is parsed and planned anew each time.
            name = f"pgbreaker_{len(self._prepared)}"
            prepared = self._prepared[sql] = await self._raw.prepare(sql, name=name)
        return await prepared.fetch()

    async def _ask(self, answer: Awaitable[_T], within: Seconds) -> _T:
        # A cancelled or timed-out question makes asyncpg send its cancel request
        # over a NEW connection, which hangs on a dead peer, without a timeout. So
        # nothing is cancelled here: time ends the connection, and that the question.
        self._expired = False
        deadline = _Deadline(within, self._expire, self._late)
        try:
            return await answer
        except BaseException as error:
            if self._expired:
                raise TimeoutError(f"no answer within {lasting(within)}") from error
            if isinstance(error, asyncio.CancelledError):
                self.hang_up()
            raise
        finally:
            deadline.cancel()

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


class _Deadline:
    """Calls *expire* after *within* seconds, and later by the time that nobody listened
    meanwhile: the answer may have been there all along."""

    def __init__(self, within: Seconds, expire: Callable[[], None], late: Late) -> None:
        self._expire = expire
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        self._timer = self._loop.call_later(within, self._end)

    def _end(self) -> None:
        lost = self._late(self._begun)
        if lost > 0:
            # Once: whoever is always late has to come to an end, too.
            self._timer = self._loop.call_later(lost, self._expire)
        else:
            self._expire()

    def cancel(self) -> None:
        """The answer came."""
        self._timer.cancel()


class Visit:
    """A short session: comes in, asks, leaves.

    Args:
        limits: Settings for each question, where the session could not be given any.
    """

    def __init__(self, wire: Wire, late: Late, limits: Mapping[str, str]) -> None:
        self._wire = wire
        self._late = late
        self._limits = "".join(f"SET LOCAL {k} = '{v}'; " for k, v in limits.items())

    @property
    def is_open(self) -> bool:
        """Whether it is there, as far as anybody has told us."""
        return self._wire.is_open

    @property
    def pid(self) -> int:
        """The server's process behind it, as whoever answered at the door said."""
        return self._wire.pid

    @property
    def version(self) -> int:
        """The server's version, as ``server_version_num``: 150018 is 15.18."""
        return version_num(self._wire.parameters.get("server_version", ""))

    @property
    def in_recovery(self) -> bool:
        """Whether it is a replica (told since 14)."""
        return self._wire.parameters.get("in_hot_standby") == "on"

    @property
    def steps(self) -> tuple[Step, ...]:
        """What coming in consisted of, with the seconds of each."""
        return self._wire.steps

    async def fetch(self, sql: str, within: Seconds) -> Mapping[str, str | None] | None:
        """Ask for one row, of texts.

        Raises:
            TimeoutError: No answer within *within* seconds.
            ServerError: The server said no.
            OSError: The connection was lost.
        """
        if self._limits:
            # Each in a transaction of its own: behind a pooler what is set otherwise
            # would stay with a session that is somebody else's next.
            sql = f"BEGIN; {self._limits}{sql}\n; COMMIT"
        asking = self._wire.query(sql)
        rows = await within_time(asking, within, "no answer within", self._late)
        return rows[0] if rows else None

    def hang_up(self) -> None:
        """End it at once."""
        self._wire.abort()

    async def close(self) -> None:
        """End it politely, so that the server logs no complaint."""
        await self._wire.close()


def version_num(said: str) -> int:
    """Read ``server_version``, such as ``15.18 (Debian ...)``, 18beta1 or 13.4, as a
    number like 150018; 0 when it is none."""
    match = re.match(r"(\d+)(?:\.(\d+))?", said)
    return 0 if match is None else int(match[1]) * 10_000 + int(match[2] or 0)


class Target:
    """A server as the monitor reaches it.

    Attributes:
        plan: What was configured for it.
        late: How late the daemon is itself, which no deadline is to count.
    """

    def __init__(self, plan: TargetPlan, late: Late = lambda _since: 0.0) -> None:
        self.plan = plan
        self.late = late
        self._takes_settings = True  # a pooler may not

    def __repr__(self) -> str:
        return f"<Target {self.plan.name!r}>"

    @property
    def address(self) -> Address:
        """Where it is, as its DSN and the environment say."""
        return resolve(self.plan.dsn.reveal())

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
        reader, writer = await within_time(
            self._dial(), within, "the network did not connect within", self.late
        )
        try:
            left = within - (loop.time() - begun) if patience is None else patience
            writer.write(SSL_REQUEST)
            # S, N, or E for an error: all are signs of life.
            await within_time(
                reader.readexactly(1),
                max(left, 0.001),  # none, where connecting took all of it
                "connected, but the server is silent for",
                self.late,
            )
        finally:
            writer.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        there = self.address
        if there.socket is not None:
            return await asyncio.open_unix_connection(there.socket)
        return await asyncio.open_connection(there.host, there.port)

    async def connect(self, within: Seconds, *, limit: Seconds) -> Session:
        """Log in as the monitor's role, for a connection to be held.

        Args:
            limit: Seconds that a question may take.

        Raises:
            TimeoutError: Not let in within *within* seconds.
            TooOldError: The server is of a version that is not asked anything.
            ssl.SSLError: A file that TLS needs cannot be used.
            Exception: Whatever asyncpg raises.
        """

        def dial(settings: dict[str, str]) -> Awaitable[Any]:
            # Of a file of ours that is missing asyncpg says what it says of a server
            # that is gone.
            if self.address.socket is None and self.address.tls.is_at_least("require"):
                context_of(self.address.tls)
            dialling: Awaitable[Any] = asyncpg.connect(
                self.plan.dsn.reveal(),
                password=password_in(self.plan.password_file),
                timeout=None,
                statement_cache_size=0,
                server_settings=settings,
            )
            return dialling

        settings = _settings("ping", limit, read_only=True)
        self._takes_settings = True  # another may stand there by now
        coming = self._in(dial, settings)
        raw = await within_time(coming, within, "not let in within", self.late)
        _tune(raw)
        return _of_age(Session(raw, self.late))

    async def visit(
        self,
        probe: str,
        within: Seconds,
        *,
        limit: Seconds,
        read_only: bool = True,
        steps: list[Step] | None = None,
    ) -> "Visit":
        """Log in as the monitor's role, for a few questions.

        By our own client of the protocol: a login of asyncpg's takes the processor
        three times as long, and logins are most of what a probe costs.

        Args:
            limit: Seconds that a question may take.
            read_only: Whether transactions begin read-only.
            steps: Is given what coming in consists of, also where it fails.

        Raises:
            TimeoutError: Not let in within *within* seconds.
            TooOldError: The server is of a version that is not asked anything.
            ServerError: The server said no.
            OSError: The network did.
        """

        def dial(settings: dict[str, str]) -> Awaitable[Wire]:
            if steps is not None:
                steps.clear()
            return Wire.connect(
                self.plan.dsn.reveal(),
                password=password_in(self.plan.password_file),
                settings=settings,
                steps=steps,
            )

        settings = _settings(probe, limit, read_only=read_only)
        coming = self._in(dial, settings)
        wire = await within_time(coming, within, "not let in within", self.late)
        limits = {} if self._takes_settings else _limits(limit, read_only=read_only)
        return _of_age(Visit(wire, self.late, limits))

    async def _in(
        self, dial: Callable[[dict[str, str]], Awaitable[_T]], settings: dict[str, str]
    ) -> _T:
        """Dial with *settings*, and without them where a pooler takes none.

        PgBouncer refuses what it does not track. Setting it later would be worse: in
        transaction mode it would stay with a session that is somebody else's next.
        """
        name = {"application_name": settings["application_name"]}
        if not self._takes_settings:
            return await dial(name)
        try:
            return await dial(settings)
        except Exception as error:
            if "unsupported startup parameter" not in str(error):
                raise
            self._takes_settings = False
            return await dial(name)


_Guest = TypeVar("_Guest", Session, Visit)


def _of_age(guest: _Guest) -> _Guest:
    """Give back *guest*, unless its server is too old to be asked anything."""
    version = guest.version
    if version < OLDEST:
        guest.hang_up()
        raise TooOldError(version)
    return guest


async def within_time(
    coming: Awaitable[_T], seconds: Seconds, what: str, late: Late
) -> _T:
    """Await *coming* for so many seconds in which somebody listened.

    Raises:
        TimeoutError: It did not come; *what* and the time are its words.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            deadline = _Deadline(seconds, lambda: limit.reschedule(loop.time()), late)
            try:
                return await coming
            finally:
                deadline.cancel()
    except TimeoutError as error:
        if error.errno is not None:
            raise  # the kernel's word, not ours
        raise TimeoutError(f"{what} {lasting(seconds)}") from None


def _settings(probe: str, limit: Seconds, *, read_only: bool) -> dict[str, str]:
    """What a session of ours begins with."""
    return {
        "application_name": f"pgbreaker/{probe}",
        "idle_in_transaction_session_timeout": "5000",
        "search_path": "pg_catalog",
        "jit": "off",
        "client_min_messages": "error",
        **_limits(limit, read_only=read_only, each="default_transaction_read_only"),
    }


def _limits(
    limit: Seconds, *, read_only: bool, each: str = "transaction_read_only"
) -> dict[str, str]:
    """Limits that the server keeps for us: a monitor must not hurt.

    Args:
        each: The setting that makes a transaction, or each, read-only.
    """
    # A lock is never worth waiting for.
    statement_timeout = max(1, int(limit * 1000 * PATIENCE))
    limits = {
        "statement_timeout": str(statement_timeout),
        "lock_timeout": str(min(200, statement_timeout)),
    }
    return limits | ({each: "on"} if read_only else {})


def _tune(connection: "asyncpg.Connection[Any]") -> None:
    # asyncpg has no public way to its socket; without one there is no net, and the
    # deadlines above still hold.
    transport = getattr(connection, "_transport", None)
    take_little(transport)
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
