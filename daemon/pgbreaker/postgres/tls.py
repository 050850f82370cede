"""TLS to a server, from the words of a DSN: libpq's rules, as asyncpg reads them.

A context costs milliseconds and some 100 kB to make, so that those of the same words
and the same files share one; a file that was replaced makes a new one.
"""

import os
import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
"""From careless to careful."""

_HOME: Final = "~/.postgresql"
_ALPN: Final = "postgresql"
_MOST_KEPT: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What a DSN says of TLS. A file that is None is looked for in ~/.postgresql.

    Attributes:
        mode: One of `MODES`.
        is_direct: Whether TLS begins without asking for it first (since 17).
        root: File of the authorities that we trust.
        cert: File of our own certificate; key: of its key; password: for that key.
        crl: File of the certificates that were revoked.
        minimum: Lowest version such as ``TLSv1.2``; maximum: highest. None: whatever
            is common.
    """

    mode: str
    is_direct: bool = False
    root: str | None = None
    cert: str | None = None
    key: str | None = None
    password: str | None = field(default=None, repr=False)
    crl: str | None = None
    minimum: str | None = None
    maximum: str | None = None

    def is_at_least(self, mode: str) -> bool:
        """Whether this is as careful as *mode*, or more so."""
        return MODES.index(self.mode) >= MODES.index(mode)


def context_of(tls: Tls) -> ssl.SSLContext:
    """Make what `ssl` needs, or take one that was made of the same words and files.

    Raises:
        ssl.SSLError: A file cannot be used; the message names it.
        ValueError: There is no such version of TLS.
    """
    files = _Files(
        _found(tls.root, "root.crt"),
        _found(tls.cert, "postgresql.crt"),
        _found(tls.key, "postgresql.key"),
        _found(tls.crl, "root.crl"),
    )
    return _made(tls, files)


@dataclass(frozen=True, slots=True)
class _File:
    """A file, and when it was written: another time is another file."""

    path: str
    written: int


@dataclass(frozen=True, slots=True)
class _Files:
    root: _File | None
    cert: _File | None
    key: _File | None
    crl: _File | None


def _found(path: str | None, default: str) -> _File | None:
    """Look a file up; None where there is none of the usual name."""
    name = path or os.path.expanduser(f"{_HOME}/{default}")
    try:
        return _File(name, os.stat(name).st_mtime_ns)
    except OSError as error:
        if path is None:
            return None
        # Not an OSError with an errno: "no such file" of a socket means that nobody
        # listens there.
        raise _unusable(name, error) from None


def _unusable(path: str, error: OSError) -> ssl.SSLError:
    why = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return ssl.SSLError(f"{path!r} cannot be used for TLS: {why}")


@lru_cache(maxsize=_MOST_KEPT)
def _made(tls: Tls, files: _Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls.is_at_least("require"):
        _trust(context, tls, files)
    if files.cert is not None:
        key = None if files.key is None else files.key.path
        try:
            context.load_cert_chain(files.cert.path, key, lambda: tls.password or "")
        except OSError as error:
            raise _unusable(files.cert.path, error) from None
    context.minimum_version = _version(tls.minimum or "TLSv1.2")
    if tls.maximum:
        context.maximum_version = _version(tls.maximum)
    context.set_alpn_protocols([_ALPN])
    return context


def _trust(context: ssl.SSLContext, tls: Tls, files: _Files) -> None:
    if files.root is not None:
        # That a file of authorities makes "require" check them is libpq's rule.
        _load(context, files.root.path)
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = tls.mode == "verify-full"
    elif tls.is_at_least("verify-ca"):
        raise ssl.SSLError(
            f"sslmode={tls.mode} needs a file of authorities to trust: there is no"
            f" {_HOME}/root.crt, and no sslrootcert"
        )
    if files.crl is not None:
        _load(context, files.crl.path)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _load(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:
        raise _unusable(path, error) from None


def _version(name: str) -> ssl.TLSVersion:
    try:
        return ssl.TLSVersion[name.replace(".", "_")]
    except KeyError:
        raise ValueError(
            f"no version of TLS is called {name!r}; there are TLSv1.2 and TLSv1.3"
        ) from None


def speaks_postgres(peer: object) -> bool:
    """Whether the TLS peer (`ssl.SSLObject`) agreed that PostgreSQL follows."""
    return isinstance(peer, ssl.SSLObject) and peer.selected_alpn_protocol() == _ALPN
