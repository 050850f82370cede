"""Every probe in a table, made from the probes themselves."""

from pgbreaker.core.judge import DECIDES_BESIDES, DECIDING
from pgbreaker.core.units import shortly
from pgbreaker.probes import PROBES
from pgbreaker.probes.probe import Probe

_WHERE = {
    "held": "the held connection",
    "fresh": "a connection of its own",
    "apart": "elsewhere",
}


def reference() -> str:
    """A Markdown table: probe, what it asks, how often, needs, what it decides."""
    rows = [_row(probe) for probe in PROBES.values()]
    head = "| probe | asks | interval / timeout | on | needs | decides |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows]) + "\n"


def _row(probe: Probe) -> str:
    plan = probe.plan
    is_asked = plan.interval > 0
    times = f"{shortly(plan.interval)} / {shortly(plan.timeout)}"
    cells = (
        f"`{probe.name}`",
        probe.says,
        times if is_asked else "event",
        _WHERE[probe.place],
        probe.needs,
        _decides(probe.name),
    )
    return f"| {' | '.join(cells)} |"


def _decides(name: str) -> str:
    first = [o for o, probes in DECIDING.items() if name in probes]
    besides = [o for o, probes in DECIDES_BESIDES.items() if name in probes]
    return ", ".join(f"`{operation}`" for operation in (*first, *besides)) or "-"
