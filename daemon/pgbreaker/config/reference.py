"""Every key of the file in a table, made from the shape itself."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic.fields import FieldInfo

from pgbreaker.config import shape
from pgbreaker.config.target import USUAL
from pgbreaker.config.units import written_size
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.units import percent, shortly
from pgbreaker.probes import PROBES

_LISTS: Final = {"targets": "targets[]", "custom": "custom[]"}


# What every probe of a kind has, and is told where the probes are.
_TOLD: Final = (shape.ProbeShape, shape.HeldShape)

# Parent -> key -> field of the plan of the probe that the parent is called after.
_TIMES: Final = {"interval": "interval", "timeout": "timeout"}
_PLANS: Final[dict[str, dict[str, str]]] = {
    "replication": _TIMES,
    "size": _TIMES,
    "latency": {**_TIMES, "slow": "limit"},
    "custom[]": _TIMES,
    "pgbouncer": {**_TIMES, "max_wait": "limit"},
    "patroni": _TIMES,
}


def reference() -> str:
    """A Markdown table: key, default, meaning."""
    rows = [f"| `{k}` | {d} | {m} |" for k, d, m in _rows(shape.FileShape, "")]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _rows(model: type[shape.Model], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + _LISTS.get(name, name)
        default = default_of(prefix + name, field)
        is_required = field.is_required() or key == "targets[]"
        without = "required" if is_required else "-"
        yield (
            key,
            without if default is None else f"`{default}`",
            field.description or "",
        )
        inner = shape.inner(model, name)
        # A breaker's and a probe's keys are the same wherever they stand.
        is_told = name == "breaker" and prefix == "targets[]."
        if inner is not None and inner not in _TOLD and not is_told:
            yield from _rows(inner, key + ".")


def default_of(key: str, field: FieldInfo) -> str | None:
    """The default of *key*, as a file would have it; None when there is none."""
    *_, parent, name = ("", *key.split("."))
    if field.is_required():
        return None
    if parent == "breaker":
        return _written(name, getattr(DAEMON, name))
    if parent == "probes" and name in USUAL:
        plan = USUAL[name]
        times = f"interval: {shortly(plan.interval)}, timeout: {shortly(plan.timeout)}"
        return f"{{{times}}}"
    if parent in _PLANS and name in _PLANS[parent]:
        plan = PROBES[parent.removesuffix("[]")].plan
        return shortly(getattr(plan, _PLANS[parent][name]))
    if parent == "defaults" and name != "breaker":
        return shortly(getattr(USUAL["ping"], name))
    return _plain(name, field.default)


def _plain(name: str, value: Any) -> str | None:  # noqa: ANN401 - any default
    match value:
        case (str() as host, int() as port):
            return f"{host}:{port}"
        case tuple() if name != "targets":
            return f"[{', '.join(value)}]"
        case str():
            return value
        case int() | float():
            return _written(name, value)
    return None


def _written(name: str, value: float) -> str:
    if name == "max_size":
        return written_size(value)
    if isinstance(value, int):
        return f"{value}"
    is_share = name.endswith("_rate") or name in ("jitter", "sample")
    return percent(value).replace(" ", "") if is_share else shortly(value)
