"""Tokens: those of forms, which only our own pages can know, and those of programs."""

import hashlib
import hmac
import secrets
from typing import Final

from aiohttp import web

from pgbreaker.web.route import WHO, Who

SEAL = web.AppKey("seal", bytes)
"""Where the application keeps its key: of this process alone, so that a form of the
page before a restart is refused, and says so."""

CSRF_FIELD: Final = "csrf"
"""Name of the hidden field that carries the token."""


def new_seal() -> bytes:
    """Draw a key for this process."""
    return secrets.token_bytes(32)


def csrf_token(request: web.Request) -> str:
    """Return the token for the forms of the page that answers *request*.

    It is made from this process' key and from who asks: another site can neither read
    a page of ours nor guess it, and nobody can use that of somebody else. There is no
    cookie that could be stolen or set.
    """
    return _token(request.app[SEAL], request[WHO])


def is_csrf_token(request: web.Request, token: str) -> bool:
    """Whether *token* is that of who sends *request*."""
    mine = _token(request.app[SEAL], request[WHO])
    return hmac.compare_digest(mine.encode(), token.encode("utf-8", "replace"))


def _token(seal: bytes, who: Who) -> str:
    said = f"{who.role.name} {who.name!r}".encode()
    return hmac.new(seal, said, hashlib.sha256).hexdigest()


def new_token() -> tuple[str, str]:
    """Draw a token for a program: itself, to be kept by it, and its hash, for the file."""
    token = f"pgb_{secrets.token_urlsafe(32)}"
    return token, hash_token(token)


def hash_token(token: str) -> str:
    """Hash a token as the web configuration has it.

    It is as long as its hash and drawn by lot, so that nobody can try them all: unlike
    a password it needs no slow hash.
    """
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()
