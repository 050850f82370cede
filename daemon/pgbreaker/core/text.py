"""Other people's words, made fit to be shown."""

import os
import socket
from typing import Final

_LONGEST: Final = 200


def tidy(text: str) -> str:
    """Make a server's words fit for one line: it is only half trusted."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def words_of(error: BaseException) -> str:
    """What an error says, on one line; not the address, nor ``[Errno 111]``."""
    if isinstance(error, socket.gaierror):
        return f"the host's name has no address: {error.strerror}".lower()
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return tidy(str(error)) or type(error).__name__
