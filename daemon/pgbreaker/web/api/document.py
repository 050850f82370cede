"""The API described, by OpenAPI 3.1: an operation for each route, and no other.

`OPERATIONS` is a literal beside the routes; a test shows that each route of the API has
its operation here, and each operation its route, and another that what is answered is
what is described.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgbreaker.core.entry import Kind
from pgbreaker.core.incident import MOST as INCIDENTS
from pgbreaker.web.api.history import MOST, USUAL
from pgbreaker.web.api.past import FORMS, WIDTHS
from pgbreaker.web.api.reporting import MOST as PROCESSES
from pgbreaker.web.api.reporting import USUAL as PROCESSES_USUAL
from pgbreaker.web.api.schemas import (
    DURATION_TEXT,
    ID,
    SCHEMAS,
    TEXT,
    Schema,
    one_of,
    ref,
    some,
)
from pgbreaker.web.route import Role, Route

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

_SINCE: Final[Schema] = {
    "description": "A time, an age, or the id of an event: what came after it.",
    "anyOf": [
        {"type": "string", "format": "date-time"},
        DURATION_TEXT,
        {"type": "string", "pattern": "^[0-9]{1,14}$"},
    ],
}
_FORMAT: Final[Schema] = {**one_of(("json", "csv", "md")), "default": "json"}
_LIMIT: Final[Schema] = {**ID, "minimum": 1, "maximum": MOST, "default": USUAL}
_SOUGHT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 200}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one route does, as programs are told.

    Attributes:
        name: For programs that are generated.
        says: One sentence.
        gives: Kind of document -> its shape.
        status: Of HTTP, when all goes well.
        query: Name -> shape, of what can be asked for.
        takes: The body's shape. None: there is none.
        needs_body: Whether it has to be there.
        else_: Further statuses -> what they mean.
        header: Headers of the question that mean something -> what.
    """

    name: str
    says: str
    gives: Mapping[str, Schema]
    status: int = 200
    query: Mapping[str, Schema] | None = None
    takes: Schema | None = None
    needs_body: bool = True
    else_: Mapping[int, str] | None = None
    header: Mapping[str, str] | None = None


def _json(name: str) -> dict[str, Schema]:
    return {JSON: ref(name)}


_SHOWN: Final[dict[str, Any]] = {
    "query": {"index": ID, "wait": DURATION_TEXT},
    "header": {"If-None-Match": "An ETag: whether anything is another than then."},
    "else_": {304: "Nothing is another than the ETag says."},
}
_TABLES: Final[dict[str, Schema]] = {"text/csv": TEXT, "text/markdown": TEXT}
_NOT_READ: Final = {503: "The store cannot be read."}
_NOT_KEPT: Final = {507: "It could not be written down, and so is not done."}

_TARGET: Final = "/api/v1/targets/{target}"
_BREAKER: Final = "/api/v1/breakers/{target}/{operation}"

OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("GET", "/api/v1/status"): Operation(
        name="status", says="Everything.", gives=_json("Status"), **_SHOWN
    ),
    ("GET", "/api/v1/targets"): Operation(
        name="targets",
        says="Every target.",
        gives={JSON: some(ref("Target"))},
        **_SHOWN,
    ),
    ("GET", "/api/v1/targets/{target}"): Operation(
        name="target", says="One target.", gives=_json("Target"), **_SHOWN
    ),
    ("GET", "/api/v1/targets/{target}/probes"): Operation(
        name="probes",
        says="The last runs of a target's probes, with the time of each step.",
        gives=_json("Runs"),
        query={"probe": some(TEXT), "limit": {**ID, "minimum": 1, "maximum": 50}},
    ),
    ("GET", f"{_TARGET}/rollup"): Operation(
        name="rollup",
        says="A target by the minute, of the last 14 days, or by the hour, of the last"
        " 400: its pings, and the seconds in which each breaker let no calls pass. Times"
        " in which it was not asked are missing. 404 where there is no store.",
        gives=_json("Rollup") | {"text/csv": TEXT},
        query={
            "since": _SINCE,
            "until": _SINCE | {"description": "A time, an age, or the id of an event."},
            "by": {**one_of(WIDTHS), "default": "minute"},
            "format": {**one_of(FORMS), "default": "json"},
        },
        else_=_NOT_READ,
    ),
    ("GET", f"{_TARGET}/summary"): Operation(
        name="summary",
        says="A target in sum, reckoned once a minute: its pings, and what part of the"
        " time in which it was asked each breaker let calls pass. 404 where there is no"
        " store.",
        gives=_json("Summary"),
        query={},
        else_=_NOT_READ,
    ),
    ("GET", f"{_TARGET}/failures"): Operation(
        name="failures",
        says="The last 50 readings of a target with bad news, over restarts. 404 where"
        " there is no store.",
        gives=_json("Failures") | {"text/csv": TEXT},
        query={"format": {**one_of(FORMS), "default": "json"}},
        else_=_NOT_READ,
    ),
    ("GET", "/api/v1/breakers"): Operation(
        name="breakers",
        says="Every breaker.",
        gives={JSON: some(ref("Breaker"))},
        **_SHOWN,
    ),
    ("GET", _BREAKER): Operation(
        name="breaker", says="One breaker.", gives=_json("Breaker"), **_SHOWN
    ),
    ("GET", f"{_BREAKER}/timeline"): Operation(
        name="timeline",
        says="Which state a breaker was in, and when.",
        gives=_json("Timeline"),
        query={"since": _SINCE},
    ),
    ("PUT", f"{_BREAKER}/override"): Operation(
        name="override",
        says="Put a word before a breaker's own; it is on disk before it is answered.",
        gives=_json("Breaker"),
        takes=ref("OverrideOrder"),
        else_=_NOT_KEPT,
    ),
    ("DELETE", f"{_BREAKER}/override"): Operation(
        name="hand_back",
        says="Let a breaker decide by itself again.",
        gives=_json("Breaker"),
        takes=ref("HandBackOrder"),
        needs_body=False,
        else_=_NOT_KEPT,
    ),
    ("GET", "/api/v1/events"): Operation(
        name="events",
        says="What happened, the oldest first: from since or after on, else the last.",
        gives=_json("Events") | _TABLES,
        query={
            "since": _SINCE,
            "before": ID,
            "after": ID,
            "limit": _LIMIT,
            "kind": some(one_of(Kind)),
            "target": _SOUGHT,
            "breaker": _SOUGHT,
            "q": _SOUGHT,
            "format": _FORMAT,
        },
    ),
    ("POST", "/api/v1/events/{id}/notes"): Operation(
        name="note",
        says="Write something to an event.",
        gives=_json("Event"),
        status=201,
        takes=ref("NoteOrder"),
        else_=_NOT_KEPT,
    ),
    ("GET", "/api/v1/incidents"): Operation(
        name="incidents",
        says="Times in which breakers did not let calls pass, the oldest first; of 31"
        " days, unless it is said since when, and of those the last `limit`.",
        gives=_json("Incidents") | _TABLES,
        query={
            "since": _SINCE,
            "before": ID,
            "limit": {**ID, "minimum": 1, "maximum": INCIDENTS, "default": INCIDENTS},
            "format": _FORMAT,
        },
    ),
    ("GET", "/api/v1/audit"): Operation(
        name="audit",
        says="What people did, the oldest first: the last of it. With `verify`, whether"
        " all of it is as it was written.",
        gives=_json("Audit"),
        query={
            "before": {**ID, "minimum": 1},
            "limit": _LIMIT,
            "verify": {**one_of(("false", "true")), "default": "false"},
        },
        else_={404: "There is no store, and so nothing to verify.", **_NOT_READ},
    ),
    ("GET", "/api/v1/maintenance"): Operation(
        name="windows",
        says="Windows of maintenance that are not over.",
        gives=_json("Windows"),
    ),
    ("POST", "/api/v1/maintenance"): Operation(
        name="begin_maintenance",
        says="Plan maintenance.",
        gives=_json("Window"),
        status=201,
        takes=ref("WindowOrder"),
        else_=_NOT_KEPT,
    ),
    ("DELETE", "/api/v1/maintenance/{id}"): Operation(
        name="end_maintenance",
        says="End a window, or call it off.",
        gives=_json("Window"),
        takes=ref("EndOrder"),
        needs_body=False,
        else_=_NOT_KEPT,
    ),
    ("GET", "/api/v1/stream"): Operation(
        name="stream",
        says="What happens, as it happens: `snapshot` (a Status), then each event by its"
        " kind (an Event, with its breaker as `breaker_status`), `heartbeat` with the"
        " age of the data, `bye`.",
        gives={"text/event-stream": TEXT},
        query={"after": ID},
        header={"Last-Event-ID": "Id of the last event seen; goes before `after`."},
        else_={503: "There are as many streams as there may be."},
    ),
    ("GET", "/api/v1/advice"): Operation(
        name="advice",
        says="What applications that follow are told now.",
        gives=_json("Advices"),
    ),
    ("GET", "/api/v1/advice/stream"): Operation(
        name="follow",
        says="The same, as minds are changed: `advice` (Advices: all of it at first, then"
        " what is news), `heartbeat` every two seconds, which has all that was said hold"
        " for another `lease_seconds`, `bye`.",
        gives={"text/event-stream": TEXT},
        header={"Last-Event-ID": "Id of the last event seen."},
        else_={503: "There are as many who follow as there may be."},
    ),
    ("POST", "/api/v1/reports"): Operation(
        name="report",
        says="Tell how the breakers of a process are, and be told when to do so again;"
        " who does not for three times as long is forgotten. It is shown, and decides"
        " nothing. What is not listed is left out, and what is too long is cut.",
        gives=_json("Reported"),
        takes=ref("Report"),
        else_={503: "As many processes report as there may be."},
    ),
    ("GET", "/api/v1/reports"): Operation(
        name="reports",
        says="What applications report now: of each breaker that they follow, and of each"
        " process, those first that hold calls back.",
        gives=_json("Reports"),
        query={
            "breaker": _SOUGHT,
            "limit": {
                **ID,
                "minimum": 1,
                "maximum": PROCESSES,
                "default": PROCESSES_USUAL,
            },
        },
        else_={404: "There is no breaker of this name."},
    ),
    ("GET", "/api/v1/config"): Operation(
        name="config",
        says="The configuration that is true now, without its secrets.",
        gives=_json("Config"),
        else_={404: "This daemon does not show it."},
    ),
    ("GET", "/openapi.json"): Operation(
        name="openapi", says="This.", gives={JSON: {"type": "object"}}
    ),
    ("GET", "/metrics"): Operation(
        name="metrics",
        says="Metrics, in the form that is asked for.",
        gives={"text/plain": TEXT, "application/openmetrics-text": TEXT},
    ),
    ("GET", "/-/healthy"): Operation(
        name="healthy",
        says="Whether the daemon itself is well.",
        gives=_json("Well"),
        else_={503: "It is not."},
    ),
    ("GET", "/-/ready"): Operation(
        name="ready",
        says="Whether every target has been asked once.",
        gives=_json("Well"),
        else_={503: "Not yet."},
    ),
    ("POST", "/-/reload"): Operation(
        name="reload",
        says="Read the configuration anew.",
        gives=_json("Reloaded"),
        takes=ref("ReloadOrder"),
        needs_body=False,
        else_={409: "There is nothing to read.", **_NOT_KEPT},
    ),
    ("GET", "/health/{target}/{operation}"): Operation(
        name="may_send",
        says="Whether work of this kind may be sent; for load balancers.",
        gives={"text/plain": one_of(("closed", "disabled", "metrics_only"))},
        else_={503: "It may not; Retry-After says for how long."},
    ),
}

_ABOUT: Final = (
    "What pgbreaker's daemon knows and does. Errors are RFC 9457 problems; what is not"
    " listed here, in a query or a body, is refused (but in a report). Answers may say more than is listed."
)


def document(version: str, routes: Iterable[Route]) -> dict[str, Any]:
    """The whole document, of those *routes* that have an operation."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = OPERATIONS.get((route.method, route.path))
        if operation is not None:
            path = paths.setdefault(route.path, {})
            path[route.method.lower()] = _written(route, operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pgbreaker",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _written(route: Route, operation: Operation) -> dict[str, Any]:
    written: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.says,
        # Where nobody has said who there is, nobody need say who they are.
        "security": [{}, {"basic": []}, {"token": []}] if route.role else [],
        "x-pgbreaker-role": route.role.name.lower(),
        "parameters": list(_parameters(route.path, operation)),
        "responses": dict(_answers(route, operation)),
    }
    if operation.takes is not None:
        written["requestBody"] = {
            "required": operation.needs_body,
            "content": {JSON: {"schema": operation.takes}},
        }
    return written


def _parameters(path: str, operation: Operation) -> Iterable[dict[str, Any]]:
    for part in path.split("/"):
        if part.startswith("{"):
            name = part.strip("{}")
            schema = ID if name == "id" else TEXT
            yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name, schema in (operation.query or {}).items():
        asked: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
        if schema.get("type") == "array":
            asked["explode"] = False
        yield asked
    for name, says in (operation.header or {}).items():
        yield {"name": name, "in": "header", "description": says, "schema": TEXT}


def _answers(route: Route, operation: Operation) -> Iterable[tuple[str, Any]]:
    content = {kind: {"schema": schema} for kind, schema in operation.gives.items()}
    good: dict[str, Any] = {"description": operation.says, "content": content}
    if operation.query is not None and "index" in operation.query:
        good["headers"] = {
            "ETag": {"schema": TEXT},
            "X-Pgbreaker-Index": {"schema": ID},
        }
        yield "503", _problem("Too many wait; Retry-After says when to come back.")
    yield str(operation.status), good
    for status, says in (operation.else_ or {}).items():
        yield str(status), _problem(says) if status >= 400 else {"description": says}
    if "{" in route.path:
        yield "404", _problem("There is nothing of this name.")
    if operation.takes is not None or operation.query is not None:
        yield "422", _problem("It is not as it has to be; `errors` says what.")
    if operation.takes is not None:
        yield "400", _problem("The body is no JSON.")
        yield "415", _problem("The body is of another type.")
    if route.role > Role.NOBODY:
        yield "401", _problem("Nobody has logged in, and somebody has to.")
        yield "403", _problem("Whoever it is may not do this.")
    if route.changes or route.tells:
        yield "429", _problem("Too many of these; Retry-After says when to come back.")
    yield "default", _problem("Anything else that goes wrong.")


def _problem(says: str) -> dict[str, Any]:
    return {"description": says, "content": {PROBLEM: {"schema": ref("Problem")}}}
