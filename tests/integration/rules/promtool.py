"""The table, as files that promtool takes."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from integration.rules.recorded import EVERY_15S, EVERY_30M, EVERY_100S
from integration.rules.row import Row

Rule: TypeAlias = Mapping[str, Any]
Group: TypeAlias = Mapping[str, Any]

_RECORDED = re.compile(r"[a-z]+:[a-z0-9_]+:[a-z0-9_]+")


def write_recorded(rules: Path, directory: Path) -> list[Path]:
    """Write the tests of what the file *rules* records. Returns their paths."""
    groups = yaml.safe_load(rules.read_text("utf-8"))["groups"]
    paths = []
    for step, tests in (("15s", EVERY_15S), ("100s", EVERY_100S), ("30m", EVERY_30M)):
        needed = list(_needed(groups, _RECORDED.findall(str(tests))))
        about = directory / f"recorded-{step}.rules.yml"
        _dump({"groups": needed}, about)
        paths.append(directory / f"recorded-{step}.test.yml")
        _dump(_whole(about, step, needed, tests), paths[-1])
    return paths


def write(rows: Iterable[Row], rules: Path, directory: Path) -> list[Path]:
    """Write *rows* as tests of the file *rules*, a file an alert and an interval.

    Each tests its alert, and what is recorded for that, and no other rule: all of them,
    six days long, would take minutes.

    Returns:
        Their paths, of the tests alone.
    """
    groups = yaml.safe_load(rules.read_text("utf-8"))["groups"]
    tests: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        tests[row.name, row.step].append(row.test())
    paths = []
    for (alert, step), those in tests.items():
        needed = list(_needed(groups, [alert]))
        about = directory / f"{alert}.rules.yml"
        _dump({"groups": needed}, about)
        paths.append(directory / f"{alert}-{step}.test.yml")
        _dump(_whole(about, step, needed, those), paths[-1])
    return paths


def _whole(
    rules: Path, step: str, groups: Iterable[Group], tests: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "rule_files": [rules.name],
        "evaluation_interval": step,
        # Without it their order is anything, and what is recorded is a step late.
        "group_eval_order": [group["name"] for group in groups],
        "tests": tests,
    }


def _dump(whole: Mapping[str, Any], path: Path) -> None:
    path.write_text(yaml.safe_dump(whole, sort_keys=False, width=10_000), "utf-8")


def _needed(groups: Iterable[Group], wanted: Iterable[str]) -> Iterator[Group]:
    """Of *groups* the rules that are wanted, and all that is recorded for them."""
    groups = list(groups)
    names = set(wanted)
    while True:
        kept = [
            {**group, "rules": [r for r in group["rules"] if _name(r) in names]}
            for group in groups
        ]
        used = names | {n for group in kept for r in group["rules"] for n in _uses(r)}
        if used == names:
            break
        names = used
    yield from (group for group in kept if group["rules"])


def _name(rule: Rule) -> str:
    return str(rule.get("alert", rule.get("record")))


def _uses(rule: Rule) -> list[str]:
    texts = (rule["expr"], *rule.get("annotations", {}).values())
    return [name for text in texts for name in _RECORDED.findall(text)]
