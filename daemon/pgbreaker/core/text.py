"""Other people's words, made fit to be shown."""

import os
import socket
import ssl
from typing import Final

_LONGEST: Final = 200


def tidy(text: str, longest: int = _LONGEST) -> str:
    """Make others' words fit for one line: they are only half trusted."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def words_of(error: BaseException) -> str:
    """What an error says, on one line; not the address, nor ``[Errno 111]``.

    Only its first line: the others are details, which can hold values of the user's.
    """
    if isinstance(error, socket.gaierror):
        return f"the host's name has no address: {error.strerror}".lower()
    # Its errno is a number of OpenSSL's own, which would be somebody else's words.
    if isinstance(error, ssl.SSLError) and (reason := getattr(error, "reason", None)):
        why = getattr(error, "verify_message", None)
        said = str(reason).replace("_", " ").lower()
        return tidy(f"{said}: {why}" if why else said)
    # Whoever raises an OSError with two arguments has said what its errno is.
    if isinstance(error, OSError) and isinstance(error.errno, int):
        return os.strerror(error.errno).lower()
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its own text must not stand in its way
        text = ""
    return tidy(text.partition("\n")[0]) or type(error).__name__
