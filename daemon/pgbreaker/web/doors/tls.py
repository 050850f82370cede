"""Encrypted connections: contexts made of a plan, and whose certificates are shown."""

import os
import ssl
from asyncio import BaseTransport
from collections.abc import Iterator
from contextlib import contextmanager

from pgbreaker.errors import PgbreakerError
from pgbreaker.web.doors.plan import TlsPlan


def context_of(plan: TlsPlan) -> ssl.SSLContext:
    """Make a context for new connections.

    Raises:
        PgbreakerError: The certificate, its key or the authorities cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = plan.least, plan.most
    if plan.prefers_ours:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if plan.ciphers is not None:
        context.set_ciphers(plan.ciphers)
    if plan.curve is not None:
        context.set_ecdh_curve(plan.curve)
    try:
        _load(context, plan)
    except ssl.SSLError as error:
        raise PgbreakerError(
            f"the certificate and its key cannot be used: {_said(error)}"
        ) from None
    if plan.authorities is not None:
        try:
            context.load_verify_locations(cadata=plan.authorities)
        except (ssl.SSLError, ValueError) as error:
            raise PgbreakerError(
                f"the authorities of clients cannot be used: {_said(error)}"
            ) from None
        required, optional = ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL
        context.verify_mode = required if plan.is_required else optional
    return context


def _load(context: ssl.SSLContext, plan: TlsPlan) -> None:
    key = plan.key.reveal().encode("latin-1")
    with _in_memory(plan.certificate) as chain, _in_memory(key) as private:
        # Without a word on it, OpenSSL would ask on the terminal for a key's password.
        context.load_cert_chain(chain, private, password=lambda: b"")


@contextmanager
def _in_memory(raw: bytes) -> Iterator[str]:
    """Have *raw* in a file for the block: OpenSSL takes files alone.

    The file is in memory and belongs to nobody else, so that a key that was given in
    the configuration, or is read a second time, never comes to a disk.
    """
    number = os.memfd_create("pgbreaker", os.MFD_CLOEXEC)
    try:
        os.write(number, raw)
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def _said(error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error)
    return str(reason).lower().replace("_", " ")


def is_welcome(transport: BaseTransport, plan: TlsPlan | None) -> bool:
    """Whether the client's certificate has one of the names that the plan asks for."""
    is_encrypted = transport.get_extra_info("sslcontext") is not None
    if plan is None or plan.names is None or not is_encrypted:
        return True  # that of the Unix socket, if any are asked for
    shown = transport.get_extra_info("peercert") or {}
    return any(name in plan.names for _kind, name in shown.get("subjectAltName", ()))


def certified_name(transport: BaseTransport | None) -> str | None:
    """The common name in the client's certificate; None: it has shown none."""
    shown = transport.get_extra_info("peercert") if transport else None
    for part in (shown or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return None
