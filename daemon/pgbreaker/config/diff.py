"""What is another in one configuration than in another, a line each."""

from collections.abc import Iterator, Mapping
from typing import Final

from pgbreaker.config.show import Shown, shown, to_yaml
from pgbreaker.core.plan import Config, TargetPlan

LATER: Final = ("http", "store", "record", "otlp")
"""What only the next start takes over: sockets and files that are open already."""

_LONGEST: Final = 60
_LISTS: Final = frozenset(("targets", "custom"))


def diff(old: Config, new: Config) -> tuple[str, ...]:
    """Say what is another in *new*, such as ``targets.primary.interval: 1s -> 2s``.

    Empty when nothing is. A secret, and whatever is too long for a line, is only said to
    have changed.
    """
    lines = list(_between(_by_name(shown(old)), _by_name(shown(new)), ""))
    lines += _secrets(old, new)
    if not lines and old.targets != new.targets:
        lines.append("targets: in another order")
    return tuple(lines)


def later(changes: tuple[str, ...], keys: tuple[str, ...] = LATER) -> tuple[str, ...]:
    """Those of *changes* that only take effect with the next start.

    Args:
        keys: What does, with everything below it: ``http``, ``log.format``.
    """
    return tuple(
        line
        for line in changes
        if any(line.startswith((f"{key}.", f"{key}:")) for key in keys)
    )


def _by_name(data: Shown) -> Shown:
    """*data* with lists of what has a name as keys and values by that name."""
    if not isinstance(data, dict):
        return data
    return {
        key: {
            str(one["name"]): _without_name(one)
            for one in value
            if isinstance(one, dict)
        }
        if key in _LISTS and isinstance(value, list)
        else _by_name(value)
        for key, value in data.items()
    }


def _without_name(one: dict[str, Shown]) -> Shown:
    return _by_name({key: value for key, value in one.items() if key != "name"})


def _between(old: Shown, new: Shown, path: str) -> Iterator[str]:
    if old == new:
        return
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield f"{path}: {_change(old, new)}"
        return
    for key in (*old, *(key for key in new if key not in old)):
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


def _secrets(old: Config, new: Config) -> Iterator[str]:
    """What changed of that which is not shown."""
    targets = {plan.name: plan for plan in old.targets}
    for plan in new.targets:
        before = targets.get(plan.name)
        if before is not None:
            yield from _secrets_of(before, plan)


def _secrets_of(old: TargetPlan, new: TargetPlan) -> Iterator[str]:
    where = f"targets.{new.name}"
    addresses: list[tuple[str, object, object]] = [("dsn", old.dsn, new.dsn)]
    pooler = (old.probes.get("pgbouncer"), new.probes.get("pgbouncer"))
    if pooler[0] is not None and pooler[1] is not None:
        addresses.append(("pgbouncer.dsn", pooler[0].address, pooler[1].address))
    for key, before, after in addresses:
        if before != after and _shown_at(old, key) == _shown_at(new, key):
            yield f"{where}.{key}: changed"


def _shown_at(plan: TargetPlan, key: str) -> Shown:
    found: Shown = shown(Config(targets=(plan,)))["targets"]
    assert isinstance(found, list)
    inside = found[0]
    for part in key.split("."):
        assert isinstance(inside, Mapping)
        inside = inside[part]
    return inside
