"""Every address that the daemon serves, from its routes and what describes them."""

import inspect
from typing import Final

from pgbreaker.web.api.document import OPERATIONS
from pgbreaker.web.api.schemas import SCHEMAS
from pgbreaker.web.route import Role, Route
from pgbreaker.web.server import routes_of
from support.site import Served

ROLES: Final = {
    Role.NOBODY: "anybody",
    Role.VIEWER: "viewer",
    Role.OPERATOR: "operator",
    Role.ADMIN: "admin",
}


def routes() -> list[Route]:
    """The routes of a daemon, in the order in which they are found."""
    return routes_of(Served("main").inside)


def addresses(*, people: bool) -> str:
    """A Markdown table: method, address, who may, what it gives, what can be asked.

    Args:
        people: The pages for people, or what is for programs.
    """
    found = [r for r in routes() if is_for_people(r) is people]
    rows = [
        f"| `{r.method}` | `{r.path}` | {ROLES[r.role]} | {_says(r)} | {_asked(r)} |"
        for r in found
    ]
    head = "| method | address | who | what | query, or body |"
    return "\n".join([head, "|---|---|---|---|---|", *rows]) + "\n"


def is_for_people(route: Route) -> bool:
    """Whether it is a page, and not described for programs."""
    return (route.method, route.path) not in OPERATIONS


def _says(route: Route) -> str:
    operation = OPERATIONS.get((route.method, route.path))
    told = operation.says if operation else inspect.getdoc(route.handler) or ""
    return " ".join(told.partition("\n\n")[0].split()).replace("|", "\\|")


def _asked(route: Route) -> str:
    operation = OPERATIONS.get((route.method, route.path))
    if operation is None:
        return "-"
    asked = [f"`{name}`" for name in operation.query or {}]
    if operation.takes is not None:
        shape = str(operation.takes.get("$ref", "")).rpartition("/")[2] or "JSON"
        asked.append(f"body `{shape}`")
    return ", ".join(asked) or "-"


def documents() -> str:
    """A Markdown table: what is answered and taken, and the fields of it."""
    rows = []
    for name, shape in SCHEMAS.items():
        needed = shape.get("required", ())
        fields = [
            f"`{field}`" if field in needed else f"`{field}`?"
            for field in shape.get("properties", {})
        ]
        rows.append(
            f"| `{name}` | {shape.get('description', '')} | {' '.join(fields)} |"
        )
    return (
        "\n".join(["| document | what it is | fields |", "|---|---|---|", *rows]) + "\n"
    )
