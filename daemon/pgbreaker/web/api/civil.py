"""What programs are told when something is not done: a problem, whatever it was."""

from dataclasses import replace
from typing import Final

from aiohttp import web

from pgbreaker.errors import ConfigError
from pgbreaker.monitor.desk import RefusedError
from pgbreaker.sinks.history import NotKeptError, NotReadError
from pgbreaker.web.problems import WrongError, problem
from pgbreaker.web.route import Route

WRONG: Final = "not as it has to be"

_NAMES: Final = ("id", "breaker")  # fields that are of the address


class NoStoreError(Exception):
    """What is asked for outlives the process, and nothing here does."""

    def __init__(self) -> None:
        super().__init__(
            "this daemon keeps nothing beyond its process: its configuration names no"
            " store (store: {path: ...})"
        )


_TOLD: Final = (
    *(WrongError, RefusedError, ConfigError),
    *(NoStoreError, NotReadError, NotKeptError),
)


def civil(route: Route) -> Route:
    """Have what the handler of *route* raises answered as a problem."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await route.handler(request)
        except _TOLD as error:
            return _problem(error)

    return replace(route, handler=answered)


def _problem(error: Exception) -> web.Response:
    match error:
        case WrongError():
            title = "bad request" if error.status == 400 else WRONG
            return problem(error.status, title, str(error), error.errors)
        case RefusedError():
            return _refused(error)
        case ConfigError():
            places = [_place(line) for line in error.problems]
            return problem(422, "configuration refused", str(error), places)
        case NoStoreError():
            return problem(404, "no store", str(error))
        case NotReadError():
            return problem(503, "not read", f"the store cannot be read: {error}")
    return problem(507, "not written down", f"{error}; nothing was done")


def _refused(error: RefusedError) -> web.Response:
    if error.field in _NAMES:
        return problem(404, "not found", error.text)
    return problem(422, WRONG, str(error), [(error.field, error.text)])


def _place(line: str) -> tuple[str, str]:
    """Where in the file it is, and what."""
    place, _, what = line.partition(": ")
    return (place, what) if what else ("configuration", line)
