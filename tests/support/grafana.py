"""What Grafana makes of a dashboard, as far as files can tell."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import promql_parser
from jsonschema import Draft7Validator

SCHEMA = json.loads(Path(__file__).with_name("grafana.schema.json").read_text("utf-8"))

Json: TypeAlias = dict[str, Any]

# What Grafana puts in before Prometheus sees the query; the values do not matter.
_FILLED = {"$__rate_interval": "1m", "$__range": "3h"}


def panels(board: Json) -> list[Json]:
    """All panels, those of collapsed rows too, without the rows."""
    found = []
    for panel in board["panels"]:
        found += panel["panels"] if panel["type"] == "row" else [panel]
    return found


def faults(board: Json) -> list[str]:
    """What Grafana's own types do not allow, each with its place."""
    rest = {**board, "panels": []}
    found = [_told("dashboard", error) for error in _errors(SCHEMA, rest)]
    for panel in board["panels"]:
        found += _faults_of(panel)
        for inner in panel.get("panels") or []:
            found += _faults_of(inner)
    return found


def _faults_of(panel: Json) -> list[str]:
    # By its type, for with all types to choose from the message names any of them.
    kind = panel.get("type")
    title = panel.get("title", "a panel")
    name = "Row" if kind == "row" else f"panel-{kind}"
    if name not in SCHEMA["definitions"]:
        return [f"{title}: no panel of ours is a {kind!r}"]
    schema = {"$ref": f"#/definitions/{name}", "definitions": SCHEMA["definitions"]}
    shown = {**panel, "panels": []} if kind == "row" else panel
    return [_told(title, error) for error in _errors(schema, shown)]


def _errors(schema: Json, thing: Json) -> Iterator[Any]:
    return Draft7Validator(schema).iter_errors(thing)


def _told(title: str, error: Any) -> str:
    return f"{title}: {'.'.join(map(str, error.path))}: {error.message}"


def expressions(panel: Json) -> list[str]:
    """What the panel asks Prometheus."""
    return [target["expr"] for target in panel.get("targets") or []]


def selectors(expr: str) -> list[tuple[str, Mapping[str, str]]]:
    """Metric and label -> matcher of each series that is asked for.

    Raises:
        ValueError: Prometheus would not parse it.
    """
    for variable, value in _FILLED.items():
        expr = expr.replace(variable, value)
    return list(_selectors(promql_parser.parse(expr)))


def _selectors(node: Any) -> Iterator[tuple[str, Mapping[str, str]]]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, {m.name: m.value for m in node.matchers.matchers}
    parts = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param")]
    parts += [getattr(node, "vector_selector", None), *(getattr(node, "args", ()))]
    for part in parts:
        if hasattr(part, "prettify"):
            yield from _selectors(part)


def drawn(panel: Json) -> set[float]:
    """The numbers at which it changes its colour, or draws a line."""
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    found = [defaults.get("thresholds")]
    for override in panel.get("fieldConfig", {}).get("overrides", []):
        found += [p["value"] for p in override["properties"] if p["id"] == "thresholds"]
    return {
        step["value"]
        for thresholds in found
        if thresholds
        for step in thresholds["steps"]
        if step["value"] is not None
    }
