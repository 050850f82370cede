"""PostgreSQL's protocol, version 3, as far as one-shot sessions need it. No I/O.

A reader is fed what came and says what goes back; whoever has the socket carries it.
Nothing that a peer sends makes a reader wait for more than it will take: lengths are
checked before anything is kept, since whoever answers may be no PostgreSQL at all.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pgbreaker.core.secret import Secret
from pgbreaker.postgres.scram import Scram, ScramError, md5_answer

Rows: TypeAlias = list[dict[str, str | None]]
"""Rows as texts; None is NULL."""

# Bytes that are taken: of one message and of all, before there is a session; then of
# one answer.
_MOST_AT_ONCE: Final = 1 << 16
_MOST_AT_LOGIN: Final = 1 << 20
_MOST_OF_AN_ANSWER: Final = 64 << 20
# Messages that the server may send a session such as ours, in any of its states.
_KINDS: Final = frozenset(bytes([kind]) for kind in b"ACDEGHIKNRSTWZcdv")

_VERSION: Final = 3 << 16
_HEADER: Final = struct.Struct("!ci")
_INT: Final = struct.Struct("!i")
_SHORT: Final = struct.Struct("!h")
# After the name of a column: table, column, type, size, modifier, format.
_COLUMN_REST: Final = 18

SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
TERMINATE: Final = b"X\x00\x00\x00\x04"

_SASL: Final = "SCRAM-SHA-256"
_UNKNOWN_METHODS: Final = {
    1: "Kerberos 4",
    2: "Kerberos 5",
    4: "crypt",
    6: "SCM credentials",
    7: "GSSAPI",
    8: "GSSAPI",
    9: "SSPI",
}
# The process that could not be made cannot answer properly: the postmaster itself says
# so, in the form of version 2, without a length.
_OLD_ERROR: Final = b"Ecould not fork"
_MOST_OF_AN_OLD_ERROR: Final = 8192


class ProtocolError(ConnectionError):
    """What came is not PostgreSQL's protocol, or not all of it."""


class AuthError(ConnectionError):
    """We and the server do not agree on how to log in.

    Attributes:
        sqlstate: That of a server which refuses a login.
    """

    sqlstate: Final = "28000"


class ServerError(Exception):
    """An error in the server's own words.

    Attributes:
        sqlstate: Its code.
        severity: ``ERROR``, ``FATAL`` or ``PANIC``.
        message: What happened.
        detail: More of it; can hold values of the user's.
    """

    def __init__(
        self, sqlstate: str, severity: str, message: str, detail: str | None = None
    ) -> None:
        super().__init__(sqlstate, severity, message, detail)
        self.sqlstate = sqlstate
        self.severity = severity
        self.message = message
        self.detail = detail

    def __str__(self) -> str:
        return self.message

    @property
    def is_fatal(self) -> bool:
        """Whether the session has ended with it."""
        return self.severity != "ERROR"


@dataclass(slots=True)
class Told:
    """What a server says unasked.

    Attributes:
        pid: Process that serves the session; 0: it has not said.
        parameters: Settings that it reports, such as ``server_version``.
        notice: SQLSTATE and text of the last warning.
    """

    pid: int = 0
    parameters: dict[str, str] = field(default_factory=dict)
    notice: tuple[str, str] | None = None


# -- What we say -------------------------------------------------------------------


def startup(user: str, database: str, settings: Mapping[str, str]) -> bytes:
    """Say who logs in where.

    Raises:
        ValueError: Something in it cannot be sent.
    """
    said = {"user": user, "database": database, "client_encoding": "UTF8", **settings}
    words = b"".join(_text(word) for pair in said.items() for word in pair)
    return struct.pack("!ii", len(words) + 9, _VERSION) + words + b"\0"


def query(sql: str) -> bytes:
    """Ask by the simple protocol."""
    return _message(b"Q", _text(sql))


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + _INT.pack(len(body) + 4) + body


def _text(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("a text for PostgreSQL cannot hold the character NUL")
    return text.encode("utf-8", "surrogateescape") + b"\0"


# -- What the server says ----------------------------------------------------------


class Reader:
    """Takes what the server sends, and says what goes back.

    Attributes:
        told: What it was told unasked.
        is_done: Whether it has what it was to wait for.
    """

    def __init__(self, told: Told, most: int, most_at_once: int) -> None:
        """Be ready.

        Args:
            most: Bytes to take, all in all.
            most_at_once: Bytes of one message.
        """
        self.told = told
        self.is_done = False
        self._left = most
        self._most = most_at_once

    def read(self, buffer: bytearray) -> bytes:
        """Take the whole messages at the head of *buffer*; returns what goes back.

        Raises:
            ProtocolError: They make no sense.
            AuthError: There is no way to log in.
            ServerError: The session is over, and this is why.
        """
        at, replies = 0, b""
        try:
            while len(buffer) - at >= _HEADER.size and not self.is_done:
                kind, length = _HEADER.unpack_from(buffer, at)
                if kind not in _KINDS or not 4 <= length <= self._most:
                    raise _no_postgres(kind, length)
                end = at + 1 + length
                if len(buffer) < end:
                    break
                self._left -= end - at
                if self._left < 0:
                    raise ProtocolError("the server does not stop answering")
                body = bytes(buffer[at + _HEADER.size : end])
                at = end
                replies += self._read_one(kind, body)
        finally:
            del buffer[:at]
        return replies

    def _read_one(self, kind: bytes, body: bytes) -> bytes:
        try:
            match kind:
                case b"E":
                    self.fail(_error(body))
                case b"N":
                    self._note(_error(body))
                case b"S":
                    name, value, _ = body.split(b"\0")
                    self.told.parameters[_read(name)] = _read(value)
                case b"A":
                    pass  # NOTIFY: nobody listens
                case _:
                    return self.take(kind, body)
        except (struct.error, ValueError, IndexError) as error:
            raise ProtocolError("a message of the server's makes no sense") from error
        return b""

    def _note(self, notice: ServerError) -> None:
        if notice.severity == "WARNING":
            self.told.notice = notice.sqlstate, notice.message

    def fail(self, error: ServerError) -> None:
        """Take an error; raise it when the session ends with it."""
        raise error

    def take(self, kind: bytes, _body: bytes) -> bytes:
        """Take one message; returns what goes back."""
        raise ProtocolError(
            f"the server sent {kind.decode()!r}, which has no place here"
        )


class Idle(Reader):
    """Between two questions."""

    def __init__(self, told: Told) -> None:
        super().__init__(told, _MOST_AT_LOGIN, _MOST_AT_ONCE)


class Offer(Reader):
    """Whether the server would speak TLS: one byte, not a message.

    Attributes:
        is_taken: Whether it will.
    """

    def __init__(self, told: Told) -> None:
        super().__init__(told, 1, 1)
        self.is_taken = False

    def read(self, buffer: bytearray) -> bytes:
        answer = bytes(buffer)
        buffer.clear()
        # Whatever else is there came in the clear, and must not be taken for what was
        # said under TLS (CVE-2021-23222); nor must the words of an error (2024-10977).
        if answer not in (b"S", b"N"):
            raise ProtocolError(
                "the server answered with an error before TLS; its log may say which"
                if answer.startswith(b"E")
                else "what answered there does not speak PostgreSQL"
            )
        self.is_taken = answer == b"S"
        self.is_done = True
        return b""


class Login(Reader):
    """Everything up to the first question."""

    def __init__(self, told: Told, user: str, password: Secret | None) -> None:
        super().__init__(told, _MOST_AT_LOGIN, _MOST_AT_ONCE)
        self._user = user
        self._password = password
        self._scram: Scram | None = None
        self._is_in = False

    def read(self, buffer: bytearray) -> bytes:
        if buffer.startswith(_OLD_ERROR):
            return _read_old_error(buffer)
        return super().read(buffer)

    def take(self, kind: bytes, body: bytes) -> bytes:
        match kind:
            case b"R":
                return self._authenticate(_INT.unpack_from(body)[0], body[4:])
            case b"K" if self._is_in:
                self.told.pid = _INT.unpack_from(body)[0]
            case b"Z" if self._is_in:
                self.is_done = True
            case b"v":
                pass  # an older minor version, which is all that we speak
            case _:
                return super().take(kind, body)
        return b""

    def _authenticate(self, method: int, body: bytes) -> bytes:
        try:
            match method:
                case 0:
                    self._enter()
                case 3:
                    return _message(b"p", _text(self._secret()))
                case 5:
                    return self._answer_md5(body)
                case 10:
                    return self._begin_scram(body)
                case 11 if self._scram:
                    return _message(b"p", self._scram.answer(body))
                case 12 if self._scram:
                    self._scram.verify(body)
                case _:
                    name = _UNKNOWN_METHODS.get(method, f"number {method}")
                    raise AuthError(
                        f"the server wants a login by a method that we lack: {name}"
                    )
        except ScramError as error:
            raise AuthError(f"no login by {_SASL}: {error}") from None
        return b""

    def _enter(self) -> None:
        if self._scram and not self._scram.is_proven:
            raise AuthError("the server let us in without proving who it is")
        self._is_in = True

    def _answer_md5(self, salt: bytes) -> bytes:
        answer = md5_answer(self._user, self._secret(), salt)
        return _message(b"p", answer + b"\0")

    def _begin_scram(self, body: bytes) -> bytes:
        methods = [_read(name) for name in body.split(b"\0") if name]
        if _SASL not in methods:
            raise AuthError(
                f"the server wants a login by {' or '.join(methods)}; we know {_SASL}"
            )
        self._scram = Scram(self._secret())
        first = self._scram.first()
        return _message(b"p", _text(_SASL) + _INT.pack(len(first)) + first)

    def _secret(self) -> str:
        if self._password is None:
            raise AuthError("the server wants a password, and there is none")
        return self._password.reveal()


class Answer(Reader):
    """The answer to one question, which may be of several statements.

    Attributes:
        rows: Rows of the last statement that had any to give.
        error: What was wrong with the question; the session goes on.
    """

    def __init__(self, told: Told) -> None:
        super().__init__(told, _MOST_OF_AN_ANSWER, _MOST_OF_AN_ANSWER)
        self.rows: Rows = []
        self.error: ServerError | None = None
        self._columns: list[str] = []

    def take(self, kind: bytes, body: bytes) -> bytes:
        match kind:
            case b"D":
                self.rows.append(dict(zip(self._columns, _values(body), strict=True)))
            case b"T":
                self._columns, self.rows = _columns(body), []
            case b"Z":
                self.is_done = True
            case b"G":
                return _message(b"f", _text("nothing to copy"))
            case b"C" | b"I" | b"H" | b"d" | b"c":
                pass  # the end of a statement; what COPY TO STDOUT gives
            case _:
                return super().take(kind, body)
        return b""

    def fail(self, error: ServerError) -> None:
        if error.is_fatal:
            raise error
        self.error = error


def _no_postgres(kind: bytes, length: int) -> ProtocolError:
    if kind in _KINDS and length > _MOST_AT_ONCE:
        return ProtocolError(
            f"a message of {length} bytes is not taken; perhaps what answered there"
            " does not speak PostgreSQL"
        )
    return ProtocolError("what answered there does not speak PostgreSQL")


def _read(text: bytes) -> str:
    # Before the encoding is agreed upon, and in databases of encoding SQL_ASCII, the
    # server sends whatever bytes it has.
    return text.decode("utf-8", "replace")


def _columns(body: bytes) -> list[str]:
    (count,) = _SHORT.unpack_from(body)
    at, names = 2, []
    for _ in range(count):
        end = body.index(0, at)
        names.append(_read(body[at:end]))
        at = end + 1 + _COLUMN_REST
    _check_end(at, body)
    return names


def _values(body: bytes) -> list[str | None]:
    (count,) = _SHORT.unpack_from(body)
    at = 2
    values: list[str | None] = []
    for _ in range(count):
        (length,) = _INT.unpack_from(body, at)
        at += 4
        if length < 0:
            values.append(None)
            continue
        values.append(_read(body[at : at + length]))
        at += length
    _check_end(at, body)
    return values


def _check_end(at: int, body: bytes) -> None:
    if at != len(body):
        raise ValueError("a message is shorter or longer than it says")


def _error(body: bytes) -> ServerError:
    said = {part[:1]: _read(part[1:]) for part in body.split(b"\0") if part}
    # V is S without the translation, since 9.6; pgbouncer has only S.
    return ServerError(
        said.get(b"C", ""),
        said.get(b"V") or said.get(b"S", "ERROR"),
        said.get(b"M", "the server does not say what is wrong"),
        said.get(b"D"),
    )


def _read_old_error(buffer: bytearray) -> bytes:
    end = buffer.find(0)
    if end < 0 and len(buffer) < _MOST_OF_AN_OLD_ERROR:
        return b""
    text = _read(bytes(buffer[1:end])).strip()
    buffer.clear()
    raise ServerError("53000", "FATAL", text)  # the class: insufficient resources
