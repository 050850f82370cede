"""What is another in one configuration than in another, a line each."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from pgbreaker.config.show import Shown, shown, shown_target, to_yaml
from pgbreaker.core.judge import PGBOUNCER
from pgbreaker.core.plan import Config, TargetPlan

LATER: Final = ("http", "haproxy", "advice", "peers", "store", "record", "otlp")
"""What only the next start takes over: sockets and files that are open already."""

_LONGEST: Final = 60
_FEW: Final = 3


def diff(old: Config, new: Config) -> tuple[str, ...]:
    """Say what is another in *new*, such as ``targets.primary.interval: 1s -> 2s``.

    Empty when nothing is. A secret, and whatever is too long for a line, is only said to
    have changed; what is the same in more than a few targets is said once, of
    ``targets.*``.
    """
    lines = [*_of_targets(old, new), *_of_the_rest(old, new)]
    if not lines and old.targets != new.targets:
        lines.append("targets: in another order")
    return tuple(lines)


def later(changes: tuple[str, ...], keys: tuple[str, ...] = LATER) -> tuple[str, ...]:
    """Those of *changes* that only take effect with the next start.

    Args:
        keys: What does, with everything below it: ``http``, ``log.format``.
    """
    beginnings = tuple(f"{key}{end}" for key in keys for end in ".:")
    return tuple(line for line in changes if line.startswith(beginnings))


def _of_targets(old: Config, new: Config) -> Iterator[str]:
    before = {plan.name: plan for plan in old.targets}
    after = {plan.name: plan for plan in new.targets}
    changes = {
        name: list(_of_target(before[name], plan))
        for name, plan in after.items()
        if name in before
    }
    counts = Counter(line for lines in changes.values() for line in lines)
    said: set[str] = set()
    for name in dict.fromkeys((*before, *after)):
        if name not in after:
            yield f"targets.{name}: removed"
        elif name not in before:
            yield f"targets.{name}: added"
        for line in changes.get(name, ()):
            if counts[line] <= _FEW:
                yield f"targets.{name}.{line}"
            elif line not in said:
                said.add(line)
                yield f"targets.*.{line} ({counts[line]} targets)"


def _of_target(old: TargetPlan, new: TargetPlan) -> Iterator[str]:
    if old == new:
        return
    before, after = shown_target(old), shown_target(new)
    yield from _between(_by_name(before), _by_name(after), "")
    if old.dsn != new.dsn and before["dsn"] == after["dsn"]:
        yield "dsn: changed"
    poolers = old.probes.get(PGBOUNCER), new.probes.get(PGBOUNCER)
    if None in poolers or before[PGBOUNCER] != after[PGBOUNCER]:
        return
    for where, one, other in (
        ("pgbouncer.dsn", *poolers),
        ("pgbouncer.pause.dsn", old.pause, new.pause),
    ):
        if one is not None and other is not None and one.address != other.address:
            yield f"{where}: changed"


def _by_name(target: dict[str, Shown]) -> Shown:
    """*target* with its queries as keys and values, by their names."""
    queries = target.get("custom")
    if not isinstance(queries, list):
        return target
    by_name: dict[str, Shown] = {
        str(query["name"]): {k: v for k, v in query.items() if k != "name"}
        for query in queries
        if isinstance(query, dict)
    }
    return {**target, "custom": by_name}


def _of_the_rest(old: Config, new: Config) -> Iterator[str]:
    before, after = shown(old), shown(new)
    for one in (before, after):
        del one["targets"]
    yield from _between(before, after, "")


def _between(old: Shown, new: Shown, path: str) -> Iterator[str]:
    if old == new:
        return
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield f"{path}: {_change(old, new)}"
        return
    for key in dict.fromkeys((*old, *new)):
        where = f"{path}.{key}" if path else key
        if key not in new:
            yield f"{where}: removed"
        elif key not in old:
            yield f"{where}: added"
        else:
            yield from _between(old[key], new[key], where)


def _change(old: Shown, new: Shown) -> str:
    before, after = to_yaml(old, flow=True), to_yaml(new, flow=True)
    is_long = max(len(before), len(after)) > _LONGEST
    return "changed" if is_long or "\n" in before + after else f"{before} -> {after}"
