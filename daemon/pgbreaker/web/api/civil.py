"""What programs are told when something is not done: a problem, whatever it was."""

from typing import Final

from aiohttp import web

from pgbreaker.errors import ConfigError
from pgbreaker.monitor.desk import RefusedError
from pgbreaker.sinks.history import NotKeptError
from pgbreaker.web.problems import WrongError, problem
from pgbreaker.web.route import Route

WRONG: Final = "not as it has to be"

_NAMES: Final = ("id", "breaker")  # fields that are of the address


def civil(route: Route) -> Route:
    """Have what the handler of *route* raises answered as a problem."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await route.handler(request)
        except WrongError as error:
            title = "bad request" if error.status == 400 else WRONG
            return problem(error.status, title, str(error), error.errors)
        except RefusedError as error:
            if error.field in _NAMES:
                return problem(404, "not found", error.text)
            return problem(422, WRONG, str(error), [(error.field, error.text)])
        except ConfigError as error:
            places = [_place(line) for line in error.problems]
            return problem(422, "configuration refused", str(error), places)
        except NotKeptError as error:
            return problem(507, "not written down", f"{error}; nothing was done")

    return Route(route.method, route.path, route.role, answered, route.changes)


def _place(line: str) -> tuple[str, str]:
    """Where in the file it is, and what."""
    place, _, what = line.partition(": ")
    return (place, what) if what else ("configuration", line)
