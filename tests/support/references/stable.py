"""What is promised to stay as it is within a major version, as data.

`tests/stable.json` holds what was promised so far. It only grows: what is new is added by
`make docs`; what went or is another than it was has to be taken out of it by hand, which
is the moment to think of those who use it.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

from pgbreaker.config.reference import reference as reference_of_keys
from pgbreaker.core.metric import Family
from pgbreaker.web.api.schemas import SCHEMAS
from support.references import commands, library, routes

Promise: TypeAlias = dict[str, dict[str, Any]]
"""Kind -> name -> what is promised of it: a word, or a list that may grow."""

ROOT: Final = Path(__file__).parents[3]
FILE: Final = ROOT / "tests/stable.json"

WORDS: Final[Mapping[str, str]] = {
    "library": "the public name",
    "metrics": "the metric",
    "configuration": "the key",
    "commands": "the command",
    "exit codes": "the exit code",
    "addresses": "the address",
    "documents": "the document",
    "alerts": "the alert",
}
"""Kind -> what one of them is called in a complaint."""


def promise(metrics: Mapping[str, Family]) -> Promise:
    """All that is stable, as the code has it now.

    Args:
        metrics: Those of the daemon and of the library.
    """
    return {
        "library": dict(_library()),
        "metrics": {
            name: " ".join((family.kind, *family.labels))
            for name, family in metrics.items()
        },
        "configuration": dict(_keys()),
        "commands": dict(_commands()),
        "exit codes": commands.codes(),
        "addresses": {
            f"{r.method} {r.path}": routes.ROLES[r.role]
            for r in routes.routes()
            if not routes.is_for_people(r)
        },
        "documents": {
            name: sorted(s.get("properties", {})) for name, s in SCHEMAS.items()
        },
        "alerts": dict(_alerts()),
    }


def _library() -> Iterator[tuple[str, list[str]]]:
    for name in library.names():
        match name.node:
            case ast.ClassDef() as kind:
                yield name.name, [*library.takes_of(kind), *library.has_of(kind)]
            case None:
                yield name.name, library.has_of(name.kind) if name.kind else []
            case function:
                yield name.name, library.parameters(function)


def _keys() -> Iterator[tuple[str, str]]:
    for line in reference_of_keys().splitlines()[2:]:
        key, default, _ = line.removeprefix("| ").split(" | ", 2)
        yield key.strip("`"), default.strip("`")


def _commands() -> Iterator[tuple[str, list[str]]]:
    for name, command in commands.verbs():
        taken = [option for p in commands.options(command) for option in p.opts]
        yield name, sorted(taken)


def _alerts() -> Iterator[tuple[str, list[str]]]:
    rules = yaml.safe_load((ROOT / "alerts/pgbreaker.rules.yml").read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            if name := rule.get("alert"):
                yield name, sorted(rule.get("labels", {}))


def broken(promised: Promise, now: Promise) -> list[str]:
    """What of *promised* holds no more, in sentences."""
    told = []
    for kind, names in promised.items():
        word = WORDS[kind]
        for name, parts in names.items():
            if name not in now.get(kind, {}):
                told.append(f"{word} {name} is gone")
                continue
            there = now[kind][name]
            if isinstance(parts, list):
                told += [f"{word} {name} has lost {p}" for p in parts if p not in there]
            elif parts != there:
                told.append(f"{word} {name} was {parts!r}, and is {there!r}")
    return told


def grown(promised: Promise, now: Promise) -> Promise:
    """*promised*, with what has come since; nothing of it is changed."""
    kept: Promise = {}
    for kind, names in now.items():
        before = promised.get(kind, {})
        kept[kind] = dict(before)
        for name, there in names.items():
            had = before.get(name)
            if isinstance(had, list):
                kept[kind][name] = [*had, *(p for p in there if p not in had)]
            elif had is None:
                kept[kind][name] = there
    return {kind: dict(sorted(names.items())) for kind, names in kept.items()}


def read() -> Promise:
    """What was promised so far."""
    told: Promise = json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}
    return told


def written(promised: Promise) -> str:
    """A line for each name, so that a change is a line of a diff."""
    kinds = []
    for kind, names in promised.items():
        lines = [
            f"    {json.dumps(n)}: {json.dumps(parts)}" for n, parts in names.items()
        ]
        kinds.append(f"  {json.dumps(kind)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(kinds) + "\n}\n"
