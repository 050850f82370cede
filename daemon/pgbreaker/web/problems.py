"""Errors as answers: RFC 9457 has their shape."""

import json
from collections.abc import Iterable

from aiohttp import web


def problem(status: int, title: str, detail: str, **headers: str) -> web.Response:
    """An error as RFC 9457 has it."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/problem+json",
        headers=headers,
    )


class UnknownError(Exception):
    """A name in the address that there is not."""

    def __init__(self, what: str, name: str, there_are: Iterable[str]) -> None:
        super().__init__(
            f"no {what} is called {name!r}; there are {', '.join(there_are)}"
        )
