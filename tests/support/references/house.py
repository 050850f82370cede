"""The floors of the house, and who knows whom, drawn from the imports."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[3]

# What an application imports by name; each knows the same of us.
_DOORS: Final = frozenset(
    (
        *("asyncpg", "fastapi", "metrics", "opentelemetry"),
        *("psycopg", "sqlalchemy", "testing"),
    )
)
_SAYS: Final = {
    5: "the daemon put together, its commands",
    4: "files, HTTP, what is handed out",
    3: "watching; the library's doors",
    2: "questions, guards, sinks",
    1: "PostgreSQL",
    0: "decisions: no I/O",
}


def floors() -> str:
    """A Mermaid diagram: rooms by floor, and each import that follows from no other."""
    rules = runpy.run_path(str(ROOT / "tests/unit/test_floors.py"))
    knows = _knows(rules)
    lines = ["```mermaid", "flowchart TB"]
    for floor, says in _SAYS.items():
        rooms = sorted(
            {_named(room) for room, n in rules["FLOORS"].items() if n == floor}
        )
        lines.append(f'    subgraph floor{floor}["{floor}: {says}"]')
        lines += [f"        {_id(room)}[{room}]" for room in rooms]
        lines.append("    end")
    for room in sorted(knows):
        others = {far for near in knows[room] for far in _below(near, knows)}
        lines += [f"    {_id(room)} --> {_id(n)}" for n in sorted(knows[room] - others)]
    return "\n".join([*lines, "```"]) + "\n"


def _knows(rules: Mapping[str, Any]) -> dict[str, set[str]]:
    knows: dict[str, set[str]] = {}
    for relative in rules["FILES"]:
        source = (rules["PACKAGE"] / relative).read_text("utf-8")
        here = _named(rules["room"](relative))
        for module in rules["imports"](source):
            top, _, rest = module.partition(".")
            there = rest.split(".")[0]
            if top == "pgbreaker" and there in rules["FLOORS"]:
                knows.setdefault(here, set()).add(_named(there))
    return {here: there - {here} for here, there in knows.items()}


def _below(room: str, knows: Mapping[str, set[str]]) -> set[str]:
    """All that *room* knows, by however many steps."""
    found: set[str] = set()
    left = set(knows.get(room, ()))
    while left:
        near = left.pop()
        found.add(near)
        left |= knows.get(near, set()) - found
    return found


def _named(room: str) -> str:
    return "doors" if room in _DOORS else room


def _id(room: str) -> str:
    return f"room_{room.strip('_')}"  # `end` and the like are Mermaid's own words
