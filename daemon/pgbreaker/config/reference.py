"""Every key of the file in a table, made from the shape itself."""

from collections.abc import Iterator
from typing import Any, Final

from pgbreaker.config import shape
from pgbreaker.config.load import PROBES
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.units import percent

_LISTS: Final = {"targets": "targets[]"}


def reference() -> str:
    """A Markdown table: key, default, meaning."""
    rows = [f"| `{k}` | {d} | {m} |" for k, d, m in _rows(shape.FileShape, "")]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"


def _rows(model: type[shape.Model], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + _LISTS.get(name, name)
        yield (
            key,
            _default(prefix + name, field.default, required=field.is_required()),
            field.description or "",
        )
        inner = _INNER.get(name)
        # A breaker's and a probe's keys are the same wherever they stand.
        if inner is not None and not (name == "breaker" and prefix == "targets[]."):
            yield from _rows(inner, key + ".")


_INNER: Final[dict[str, type[shape.Model]]] = {
    "defaults": shape.DefaultsShape,
    "targets": shape.TargetShape,
    "breaker": shape.BreakerShape,
    "probes": shape.ProbesShape,
    "http": shape.HttpShape,
    "log": shape.LogShape,
    "otlp": shape.OtlpShape,
}


def _default(key: str, value: Any, *, required: bool) -> str:  # noqa: ANN401 - any default
    *_, parent, name = ("", *key.split("."))
    if required:
        return "required"
    if parent == "breaker":
        return _written(name, getattr(DAEMON, name))
    if parent == "probes":
        plan = PROBES[name]
        times = f"interval: {_short(plan.interval)}, timeout: {_short(plan.timeout)}"
        return f"`{{{times}}}`"
    if parent == "defaults" and name != "breaker":
        return f"`{_short(getattr(PROBES['ping'], name))}`"
    return _plain(name, value)


def _plain(name: str, value: Any) -> str:  # noqa: ANN401 - any default
    match value:
        case (str() as host, int() as port):
            return f"`{host}:{port}`"
        case tuple():
            return f"`[{', '.join(value)}]`"
        case str():
            return f"`{value}`"
        case float():
            return _written(name, value)
    return "-"


def _written(name: str, value: float) -> str:
    if isinstance(value, int):
        return f"`{value}`"
    is_share = name.endswith("_rate") or name in ("jitter", "sample")
    return f"`{percent(value).replace(' ', '')}`" if is_share else f"`{_short(value)}`"


def _short(seconds: float) -> str:
    return f"{seconds * 1000:g}ms" if seconds < 1 else f"{seconds:g}s"
