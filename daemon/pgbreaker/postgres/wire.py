"""A small client for one-shot sessions: log in, ask, leave.

A login through asyncpg costs milliseconds of our own CPU, which is the price of what
only long sessions need: codecs, prepared statements, and SCRAM's rounds of hashing each
time. Thousands of servers cannot be tried for that. And pgbouncer's console speaks the
simple protocol alone, which this is: questions without parameters, answers as texts.

It keeps no deadline: whoever waits does that, and may stop waiting at any moment.
Whatever goes wrong ends the connection at once, without asking anybody.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from ipaddress import ip_address
from typing import Any, Final, Self, TypeAlias, cast

from pgbreaker.core.units import Seconds
from pgbreaker.postgres.dsn import Address, resolve
from pgbreaker.postgres.messages import (
    SSL_REQUEST,
    TERMINATE,
    Answer,
    AuthError,
    Idle,
    Login,
    Offer,
    ProtocolError,
    Reader,
    Rows,
    ServerError,
    Told,
    query,
    startup,
)
from pgbreaker.postgres.tls import context_of, speaks_postgres

__all__ = [
    "AuthError",
    "ProtocolError",
    "Rows",
    "ServerError",
    "Wire",
    "take_little",
]

_AT_ONCE: Final = 16 * 1024

Step: TypeAlias = tuple[str, Seconds]
"""Something that coming in consists of, and the seconds that it took."""


def take_little(transport: asyncio.BaseTransport | None) -> None:
    """Have *transport* ask the kernel for no more than an answer takes.

    asyncio makes room for 256 kB each time, and gives back all but the few bytes that
    came. What others keep meanwhile comes to lie in between, so that the heap of a daemon
    with fifty targets grew by 90 MB within an hour; so does what clients send. Where somebody else carries the bytes
    (TLS, another loop) there is no such number.
    """
    if hasattr(transport, "max_size"):
        cast("Any", transport).max_size = _AT_ONCE


class _Cipher(Enum):
    """Whether a connection is encrypted."""

    NONE = auto()
    WANTED = auto()  # being agreed upon
    TLS = auto()


class _Try(Enum):
    """One way to connect."""

    PLAIN = auto()
    OFFER = auto()  # TLS if the server has it
    TLS = auto()


_TRIES: Final = {
    "disable": (_Try.PLAIN,),
    "allow": (_Try.PLAIN, _Try.TLS),
    "prefer": (_Try.OFFER, _Try.PLAIN),
    "require": (_Try.TLS,),
    "verify-ca": (_Try.TLS,),
    "verify-full": (_Try.TLS,),
}


class _Line(asyncio.Protocol):
    """One connection: what comes goes to the reader of the moment.

    Attributes:
        told: What the server said unasked.
        cipher: Whether it is encrypted.
        error: Why it ended. None: it has not.
        steps: What coming in consisted of, with the seconds of each.
    """

    def __init__(self, steps: list[Step]) -> None:
        self.told = Told()
        self.cipher = _Cipher.NONE
        self.steps = steps
        self.error: Exception | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._idle = Idle(self.told)
        self._reader: Reader = self._idle
        self._waiter: asyncio.Future[None] | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of the block, whatever it ends with."""
        now = asyncio.get_running_loop().time
        begun = now()
        try:
            yield
        finally:
            self.steps.append((name, now() - begun))

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio itself has set TCP_NODELAY.
        self._transport = cast("asyncio.Transport", transport)
        take_little(transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._read()
        except (ConnectionError, ServerError) as error:
            self.end(error)

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self._buffer:
            error = ProtocolError("the server hung up in the middle of a message")
        self.end(error or EOFError("the server hung up without a word"))

    # What the session calls.

    async def ask(self, request: bytes, reader: Reader) -> None:
        """Send *request*, and wait until *reader* has all that it waits for.

        Raises:
            Exception: Why the connection ended instead, now or before.
        """
        if self.error is not None:
            raise self.error
        if self._waiter is not None or self._transport is None:
            raise RuntimeError("one question at a time")
        self._reader = reader
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            await self._waiter
        except BaseException:
            # Above all cancellation: what would come now is an answer to nobody.
            self.abort()
            raise
        finally:
            self._waiter = None

    async def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        """Go on under TLS.

        Raises:
            OSError: It could not be agreed upon.
        """
        plain = self._transport
        # No word of TLS may have come before we begin it.
        if plain is None or self.error is not None or self._buffer:
            raise self.error or ProtocolError("the server began TLS too early")
        try:
            begun = await asyncio.get_running_loop().start_tls(
                plain, self, context, server_hostname=host
            )
        except BaseException:
            plain.abort()
            raise
        if begun is None:
            raise ConnectionResetError("the server hung up while TLS was agreed upon")
        self._transport = begun
        self.cipher = _Cipher.TLS

    @property
    def speaks_postgres(self) -> bool:
        peer = self._transport and self._transport.get_extra_info("ssl_object")
        return speaks_postgres(peer)

    def say_goodbye(self) -> None:
        """Tell the server that we leave, and leave."""
        if self._transport is not None and self.error is None:
            self._transport.write(TERMINATE)
        # Not `close`, which waits for the peer: for its end of TLS, and for its taking
        # what was written. What the kernel has taken by now is sent all the same.
        self.abort()

    def abort(self) -> None:
        self.end(ConnectionAbortedError("the session was ended from here"))

    def end(self, error: Exception) -> None:
        """End the connection because of *error*, unless it has ended before."""
        if self.error is None:
            self.error = error
        if self._transport is not None:
            self._transport.abort()
        self._buffer.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self.error)

    def _read(self) -> None:
        while self._transport is not None and self._buffer:
            reader = self._reader
            reply = reader.read(self._buffer)
            if reply:
                self._transport.write(reply)
            if not reader.is_done:
                return
            self._reader = self._idle  # what follows was not asked for
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)


class Wire:
    """One session. It asks one question at a time."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    def __repr__(self) -> str:
        state = "open" if self.is_open else "ended"
        return f"<Wire {state}, pid {self.pid}>"

    @classmethod
    async def connect(
        cls,
        plan_dsn: str,
        *,
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
        steps: list[Step] | None = None,
    ) -> Self:
        """Log in.

        Args:
            plan_dsn: Address of the form ``postgresql://``.
            password: Goes before the DSN's own. None: the DSN's, PGPASSWORD, or the
                password file's.
            settings: Parameters that the session begins with. pgbouncer takes few:
                ``application_name`` is one.
            steps: Is given what coming in consists of, with the seconds of each: also
                where it fails, or is waited for no longer.

        Raises:
            ServerError: The server does not let us in.
            AuthError: It wants a login that we have not got.
            ProtocolError: It is no PostgreSQL.
            OSError: The network, or TLS (`ssl.SSLError`).
            EOFError: The server hung up.
            ValueError: The DSN leads nowhere.
        """
        address = resolve(plan_dsn, password)
        way, *others = _TRIES["disable" if address.socket else address.tls.mode]
        steps = [] if steps is None else steps
        line = _Line(steps)
        try:
            return cls(await _enter(line, address, settings or {}, way))
        except (ServerError, OSError, EOFError) as error:
            if not others or not _may_differ(error, line, others[0]):
                raise
            refused = error
        steps.clear()
        line = _Line(steps)
        try:
            return cls(await _enter(line, address, settings or {}, others[0]))
        except (ServerError, OSError, EOFError) as error:
            # A wrong password says more than that the other way is barred.
            if _sqlstate(refused) == "28P01" and _sqlstate(error) in ("28000", None):
                raise refused from None
            raise error from None

    @property
    def pid(self) -> int:
        """Process that serves the session; 0: it has not said."""
        return self._line.told.pid

    @property
    def parameters(self) -> Mapping[str, str]:
        """Settings that the server reports, such as ``server_version``."""
        return self._line.told.parameters

    @property
    def notice(self) -> tuple[str, str] | None:
        """SQLSTATE and text of the last warning."""
        return self._line.told.notice

    @property
    def is_open(self) -> bool:
        """Whether the connection has not ended yet, as far as we know."""
        return self._line.error is None

    @property
    def steps(self) -> tuple[Step, ...]:
        """What coming in consisted of, with the seconds of each: ``dns`` where there was
        a name to look up, ``tcp``, ``tls`` where it was tried, ``auth``."""
        return tuple(self._line.steps)

    async def query(self, sql: str) -> Rows:
        """Ask, by one statement or several.

        Returns:
            Rows of the last statement that gives any.

        Raises:
            ServerError: The question was wrong, and the session goes on; or the server
                ended it.
            OSError: The connection broke.
            EOFError: The server hung up.
        """
        answer = Answer(self._line.told)
        await self._line.ask(query(sql), answer)
        if answer.error is not None:
            raise answer.error
        return answer.rows

    def abort(self) -> None:
        """End the connection at once; whoever waits for an answer is told so."""
        self._line.abort()

    async def close(self) -> None:
        """Take leave, without waiting for anybody."""
        self._line.say_goodbye()
        await asyncio.sleep(0)  # the loop closes the socket in its next round


async def _enter(
    line: _Line, address: Address, settings: Mapping[str, str], way: _Try
) -> _Line:
    try:
        await _dial(line, address)
        if way is not _Try.PLAIN:
            with line.step("tls"):
                await _secure(line, address, is_needed=way is _Try.TLS)
        begin = startup(
            address.user, address.database, {**address.settings, **settings}
        )
        with line.step("auth"):
            await line.ask(begin, Login(line.told, address.user, address.password))
    except BaseException:
        line.abort()
        raise
    return line


async def _dial(line: _Line, address: Address) -> None:
    loop = asyncio.get_running_loop()
    if address.socket is not None:
        with line.step("tcp"):
            await loop.create_unix_connection(lambda: line, address.socket)
        return
    hosts = await _look_up(line, address)
    with line.step("tcp"):
        await _reach(line, hosts, address.port)


async def _look_up(line: _Line, address: Address) -> list[str]:
    """The addresses of the server, in the order in which they are to be tried."""
    try:
        ip_address(address.host)
    except ValueError:
        loop = asyncio.get_running_loop()
        with line.step("dns"):
            found = await loop.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM
            )
        # A name can have the same address twice, for several kinds of sockets.
        return list(dict.fromkeys(str(place[0]) for *_, place in found))
    return [address.host]


async def _reach(line: _Line, hosts: Sequence[str], port: int) -> None:
    """Connect to the first of *hosts* that lets us.

    Raises:
        OSError: None of them does. What all of them say, is said in the words of
            asyncio, as if it had looked the name up itself.
    """
    loop = asyncio.get_running_loop()
    refusals: list[OSError] = []
    for host in hosts:
        try:
            await loop.create_connection(lambda: line, host, port)
            return
        except OSError as error:
            refusals.append(error)
    if len({str(error) for error in refusals}) == 1:
        raise refusals[0]
    told = ", ".join(map(str, refusals))
    raise OSError(f"Multiple exceptions: {told}")


async def _secure(line: _Line, address: Address, *, is_needed: bool) -> None:
    context = context_of(address.tls)
    line.cipher = _Cipher.WANTED
    if not address.tls.is_direct:
        offer = Offer(line.told)
        await line.ask(SSL_REQUEST, offer)
        if not offer.is_taken:
            line.cipher = _Cipher.NONE
            if is_needed:
                # The word SSL is what `failures` knows it by.
                raise ConnectionError(
                    f"the server has no SSL, and sslmode={address.tls.mode} needs it"
                )
            return
    await line.encrypt(context, address.host)
    # Without asking first, nothing else says that it is PostgreSQL which answers.
    if address.tls.is_direct and not line.speaks_postgres:
        raise ProtocolError("what answered there does not speak PostgreSQL under SSL")


def _may_differ(error: Exception, line: _Line, way: _Try) -> bool:
    """Whether the other *way* may lead in where this one failed with *error*."""
    is_refused = (_sqlstate(error) or "").startswith("28")
    if way is _Try.TLS or line.cipher is _Cipher.NONE:
        return way is _Try.TLS and is_refused
    return (
        is_refused or line.cipher is _Cipher.WANTED or isinstance(error, ssl.SSLError)
    )


def _sqlstate(error: Exception) -> str | None:
    return error.sqlstate if isinstance(error, ServerError | AuthError) else None
