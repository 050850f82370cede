"""Where the engine is, out of its URL."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pgbreaker.core.plan import EnginePlan

_PORT: Final = 6379
_HELP: Final = (
    "write redis://HOST:PORT/DB, rediss://HOST:PORT/DB for TLS, or unix:///PATH?db=0"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the engine is, and as whom we come.

    Attributes:
        host: Name or address. Empty: it is reached by *path*.
        port: Of *host*.
        path: Of its Unix socket.
        db: Number of the database.
        user: Name to log in as. None: that is not needed.
        password: Of that user.
        is_encrypted: Whether it speaks TLS.
    """

    host: str = ""
    port: int = _PORT
    path: str = ""
    db: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    is_encrypted: bool = False

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def address_of(plan: EnginePlan) -> Address:
    """Read the URL of *plan*, and look whether its files go with it.

    Raises:
        ValueError: It is none; the message does not show it, as it may hold a password.
    """
    try:
        parts = urlsplit(plan.url.reveal())
        address = _read(parts)
    except ValueError as error:
        known = str(error) if isinstance(error, _UrlError) else "the URL cannot be read"
        raise ValueError(f"{known}; {_HELP}") from None
    if not address.is_encrypted and (plan.ca_file or plan.cert_file or plan.key_file):
        raise ValueError(
            "certificates are given for an engine that is not asked for TLS;"
            " write rediss://, or leave them out"
        )
    if plan.key_file and not plan.cert_file:
        raise ValueError("a key is given, and no certificate that it belongs to")
    return address


class _UrlError(ValueError):
    """What is wrong with it, in words that hold nothing of it."""


def _read(parts: SplitResult) -> Address:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.fragment:
        raise _UrlError("the URL has a '#'; in a password it is written %23")
    if set(options) - {"db"}:
        raise _UrlError("the URL has options that are not known; there is db alone")
    user, password = (
        unquote(t) if t else None for t in (parts.username, parts.password)
    )
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise _UrlError(
                "the URL of a Unix socket has three slashes before its path"
            )
        return Address(
            path=unquote(parts.path),
            db=_database(options.get("db", "")),
            user=user,
            password=password,
        )
    if parts.scheme not in ("redis", "rediss"):
        raise _UrlError("the URL is of no kind that is known")
    if not parts.hostname:
        raise _UrlError("the URL names no host")
    return Address(
        host=parts.hostname,
        port=_PORT if parts.port is None else parts.port,
        db=_database(options.get("db", "") or parts.path.strip("/")),
        user=user,
        password=password,
        is_encrypted=parts.scheme == "rediss",
    )


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise _UrlError("the database in the URL is no number")
    return int(text or 0)


def password_of(plan: EnginePlan, address: Address) -> str | None:
    """Read the password anew: the file may have changed.

    Raises:
        OSError: The file cannot be read.
    """
    if plan.password_file is None:
        return address.password
    return plan.password_file.read_text("utf-8").rstrip("\r\n")


def context_of(plan: EnginePlan) -> ssl.SSLContext:
    """Make what `ssl` needs, or take one that was made of the same files.

    Raises:
        OSError: A file cannot be used.
    """
    return _made(_seen(plan.ca_file), _seen(plan.cert_file), _seen(plan.key_file))


@dataclass(frozen=True, slots=True)
class _File:
    """A file, and when it was written: another time is another file."""

    path: Path
    written: int


def _seen(path: Path | None) -> _File | None:
    return None if path is None else _File(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _made(
    authorities: _File | None, cert: _File | None, key: _File | None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities is None:
        context.load_default_certs()
    else:
        with _naming(authorities.path):
            context.load_verify_locations(authorities.path)
    if cert is not None:
        with _naming(cert.path):
            # Nobody is there to type a password: an encrypted key fails, and asks nobody.
            context.load_cert_chain(
                cert.path, None if key is None else key.path, password=lambda: ""
            )
    return context


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have what goes wrong say with which file."""
    try:
        yield
    except ssl.SSLError as error:
        why = error.reason or error
        raise ssl.SSLError(f"'{path}' cannot be used: {why}") from None
