"""The pictures of what forecasts are worth, for the README."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
from forecasters import HORIZONS, Ours
from incidents import (
    HOUR,
    TICK,
    Course,
    Incident,
    Kind,
    healthy,
    moment,
    readings,
    strike,
)
from trial import OURS, SWEEP, Lived, Met, episodes

from pgbreaker.core.forecast.warning import CONNECTIONS, Forewarning
from pgbreaker.core.units import Seconds

PICTURES: Final = Path(__file__).parents[3] / "daemon/pictures"
MINUTE: Final = 60.0
WARM: Final[Seconds] = 6 * HOUR

BLUE, GREY, RED, GREEN = "#1f6feb", "#8b949e", "#cf222e", "#1a7f37"

# The same figures make the same bytes, and text stays text.
mpl.rcParams.update(
    {
        "svg.hashsalt": "pgbreaker",
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def draw(lived: Sequence[Lived], first: int) -> None:
    """Draw all of them.

    Args:
        first: Seed from which on a leak to show is looked for.
    """
    draw_leads(lived)
    draw_recall(lived)
    draw_leak(first)


def _save(figure: Any, name: str, *, below: float = 0.0) -> None:
    figure.tight_layout(rect=(0, below, 1, 1))
    path = PICTURES / f"forecast-{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def draw_leads(lived: Sequence[Lived]) -> None:
    """Draw how many incidents are told of so long before, ours and two thresholds'."""
    met = [one for each in lived for one in each.met]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
    for axis, kind, title, most in (
        (axes[0], Kind.LEAK, "leaks, full in 10 min to 3 h", 120),
        (axes[1], Kind.QUEUE, "queues, full in 1.5 to 8 min", 6),
    ):
        for name, colour in (
            (OURS, BLUE),
            ("80 % of the slots", RED),
            ("90 % of the slots", GREY),
        ):
            found = sorted(_leads(met, kind, name), reverse=True)
            shares = [(n + 1) / len(found) for n in range(len(found))]
            axis.step(
                [lead / MINUTE for lead in found], shares, color=colour, label=name
            )
        axis.set(
            title=title,
            xlabel="minutes before it was full",
            xlim=(0, most),
            ylim=(0, 1.02),
        )
    axes[0].set_ylabel("share told of by then")
    axes[0].legend(frameon=False)
    _save(figure, "leads")


def draw_recall(lived: Sequence[Lived]) -> None:
    """Draw what is told of against what that costs in false alarms: ours, thresholds and
    lines of every strictness."""
    days = sum(one.days for one in lived)
    met = [one for each in lived for one in each.met]
    false = {
        name: sum(episodes(one.alarms[name]) for one in lived) / days
        for name in lived[0].alarms
    }
    swept = {p: sum(one.sweep[p] for one in lived) / days for p in SWEEP}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), sharey=True)
    for axis, kind, least, title in (
        (axes[0], Kind.LEAK, 10 * MINUTE, "leaks, 10 min before"),
        (axes[1], Kind.QUEUE, MINUTE, "queues, 60 s before"),
    ):
        of_kind = [one for one in met if one.incident.kind == kind]
        axis.plot(
            [swept[p] for p in SWEEP],
            [_share([one.sweep.get(p, 0.0) for one in of_kind], least) for p in SWEEP],
            color=RED,
            label="a threshold, 50 to 99 %",
        )
        for line, colour in (
            ("line of 5 min", GREY),
            ("line of 15 min, r² ≥ 0.7, 4 in a row", GREEN),
        ):
            names = [f"{line}/{minutes}" for minutes in HORIZONS]
            axis.plot(
                [false[name] for name in names],
                [_share(_leads(met, kind, name), least) for name in names],
                color=colour,
                marker=".",
                label=f"{line}, full within {HORIZONS[0]} to {HORIZONS[-1]} min",
            )
        ours = (false[OURS], _share(_leads(met, kind, OURS), least))
        axis.plot(*ours, "o", color=BLUE, markersize=9, label=OURS)
        axis.set(title=title, xlabel="false alarms a day", xlim=(0, 6), ylim=(0, 1.02))
    axes[0].set_ylabel("share told of")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower center", ncol=2, frameon=False, fontsize=8
    )
    _save(figure, "recall", below=0.14)


def draw_leak(first: int) -> None:
    """Draw one leak as an operator sees it: what was seen, and what was foretold when."""
    struck, leak, told, used = _one_leak(first)
    start = leak.begins - 1800.0
    ticks = range(int(start / TICK), int(leak.fails_at / TICK) + 150, 15)
    figure, axis = plt.subplots(figsize=(8, 3.6))
    axis.plot(
        [(tick * TICK - leak.begins) / MINUTE for tick in ticks],
        [struck.used[tick] for tick in ticks],
        color=GREY,
        linewidth=1,
    )
    axis.axhline(struck.usable, color=RED, linewidth=1)
    since = (told.since - leak.begins) / MINUTE
    ends = [
        since + left / MINUTE
        for left in (told.left.soonest, told.left.seconds, told.left.latest)
    ]
    last = (leak.fails_at - leak.begins) / MINUTE + 25
    axis.fill_between(
        [since, ends[0], min(ends[2], last)],
        [used, struck.usable, struck.usable],
        [
            used,
            used + (struck.usable - used) * (ends[0] - since) / (ends[2] - since),
            struck.usable,
        ],
        color=BLUE,
        alpha=0.15,
        linewidth=0,
    )
    axis.plot([since, ends[1]], [used, struck.usable], "--", color=BLUE, linewidth=1)
    axis.plot([since], [used], "o", color=BLUE)
    axis.annotate(
        f"warned {(leak.fails_at - told.since) / MINUTE:.0f} min before",
        (since, used),
        xytext=(-8, 14),
        textcoords="offset points",
        ha="right",
        color=BLUE,
    )
    eighty = next(t for t in ticks if struck.used[t] >= 0.8 * struck.usable)
    axis.plot(
        [(eighty * TICK - leak.begins) / MINUTE], [0.8 * struck.usable], "x", color=RED
    )
    axis.annotate(
        "80 %",
        ((eighty * TICK - leak.begins) / MINUTE, 0.8 * struck.usable),
        xytext=(6, -12),
        textcoords="offset points",
        color=RED,
    )
    axis.set_title(_folded(told.reason), fontsize=8, loc="left")
    axis.set(
        xlabel="minutes since the leak began",
        ylabel="slots taken",
        ylim=(0, struck.usable * 1.08),
        xlim=(-30, last),
    )
    _save(figure, "leak")


def _one_leak(first: int) -> tuple[Course, Incident, Forewarning, float]:
    """Find a leak of an hour or so that was told of, as most are."""
    for seed in range(first, first + 100):
        course = healthy(seed, usable=97)
        struck, leak = strike(course, Kind.LEAK, moment(course, Kind.LEAK, seed), seed)
        if leak.state != "idle in transaction" or not 3000.0 < leak.lasts < 5400.0:
            continue
        ours = Ours(course.wall_of)
        for reading in readings(struck, since=leak.begins - WARM, until=leak.fails_at):
            ours.take(reading)
            told = ours.outlook.warnings.get(CONNECTIONS)
            if told is not None and told.left is not None and told.since >= leak.begins:
                return struck, leak, told, struck.used[int(told.since / TICK)]
    raise ValueError(f"no leak that was told of, from seed {first} on")


def _leads(met: Sequence[Met], kind: str, name: str) -> list[float]:
    return [one.leads.get(name, 0.0) for one in met if one.incident.kind == kind]


def _share(leads: Sequence[float], least: float) -> float:
    return sum(lead >= least for lead in leads) / len(leads)


def _folded(text: str) -> str:
    head, _, tail = text.partition("; ")
    return f"{head};\n{tail}" if tail else head
