"""Errors as answers: RFC 9457 has their shape."""

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Final

from aiohttp import web

_NAMED: Final = 20  # names that a message lists; who has a thousand targets knows them
_SHOWN: Final = 60  # characters of somebody's word that are repeated to them


def problem(
    status: int,
    title: str,
    detail: str,
    errors: Sequence[tuple[str, str]] = (),
    /,
    **headers: str,
) -> web.Response:
    """An error as RFC 9457 has it.

    Args:
        errors: What is wrong with which field of the question, where that is known.
    """
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = [{"field": f, "detail": d} for f, d in errors]
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/problem+json",
        headers=headers,
    )


def meant(word: str, there_are: Iterable[str]) -> str:
    """Ask whether another word was meant; nothing, where none is near."""
    near = get_close_matches(word[:_SHOWN], there_are, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def quoted(word: str) -> str:
    """Repeat somebody's word, as far as it is needed to know it again."""
    return repr(word if len(word) <= _SHOWN else word[: _SHOWN - 1] + "…")


class UnknownError(Exception):
    """A name in the address that there is not."""

    def __init__(self, what: str, name: str, there_are: Iterable[str]) -> None:
        names = list(there_are)
        told = ", ".join(names[:_NAMED])
        if len(names) > _NAMED:
            told += f" and {len(names) - _NAMED} more"
        super().__init__(
            f"no {what} is called {quoted(name)}{meant(name, names)}; there are {told}"
        )


class WrongError(Exception):
    """A question that cannot be answered as it was put.

    Attributes:
        errors: Field, and what is wrong with it.
        status: Of HTTP.
    """

    def __init__(self, errors: Sequence[tuple[str, str]], status: int = 422) -> None:
        super().__init__("; ".join(f"{field}: {said}" for field, said in errors))
        self.errors = errors
        self.status = status
