"""SLO: how much of what users may bear is left?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from . import board as boards
from . import links, panels
from .board import Line, Section
from .limits import BURN_DAY, BURN_DAYS, BURN_HOUR, BURN_SHIFT, Limit
from .panels import Column, Panel
from .queries import CALLED, CHOSEN, IN_RULES, by, grown, pick, rate, worst

# The one number of the objective, from the rules: 0.001 is 99.9 %.
_BUDGET: Final = "scalar(pgbreaker:error_budget:ratio)"
_MONTH: Final = "30d"
_KEY: Final = "breaker, job"
_LEGEND: Final = "{{breaker}} ({{job}})"
_BAD: Final = 'outcome=~"failure|cut|rejected"'


def board() -> Dashboard:
    return boards.page(
        links.SLO,
        "SLO",
        "How much of what users may bear is left, and what uses it up?",
        [
            Section("Last 30 days", [Line(4, _month())]),
            Section("How fast the budget burns", [Line(8, _fast()), Line(8, _slow())]),
            Section("What callers got", [Line(8, [_good(), _bad()])]),
            Section("Which breakers", [Line(10, [_each()])]),
            Section("How to read this", [Line(6, [_help()])], is_open=False),
        ],
        [boards.jobs(), boards.targets(), boards.breakers()],
        since="now-24h",
    )


def _failed(window: str) -> str:
    return pick(f"breaker:pgbreaker_calls:error_ratio_rate{window}", CHOSEN)


def _burn(window: str) -> str:
    """How many times faster than it may the budget is used up, over *window*."""
    return f"{_failed(window)} / {_BUDGET}"


def _share(labels: str) -> str:
    """Bad calls of all, in the time shown: exact, and not a mean of means."""
    bad = by(labels, grown("pgbreaker_calls_total", CHOSEN, _BAD))
    called = by(labels, grown("pgbreaker_calls_total", CHOSEN, CALLED))
    return f"{bad} / ({called} > 0)"


def _month() -> list[Panel]:
    left = f"1 - ({_share(_KEY)}) / {_BUDGET}"
    bad = by(_KEY, grown("pgbreaker_calls_total", CHOSEN, _BAD))
    return [
        panels.number(
            "Least budget left",
            "Of the breaker that has least left of what it may fail in 30 days. Below 0"
            " the objective is missed: nothing risky until it is well above again.",
            f"min({left})",
            none="no calls",
            unit="percentunit",
            decimals=0,
            steps=((None, "red"), (0, "orange"), (0.25, "yellow"), (0.5, "green")),
        ).time_from(_MONTH),
        panels.number(
            "Worst success",
            "Share of calls that got their answer from the server, of the breaker where it"
            " is lowest. The objective is in the rules: 99.9 % unless you change it.",
            f"min(1 - ({_share(_KEY)}))",
            none="no calls",
            unit="percentunit",
            decimals=3,
            steps=((None, "blue"),),
        ).time_from(_MONTH),
        panels.number(
            "Calls without an answer",
            "Calls that failed, were cut or refused, of all breakers together.",
            f"sum({bad})",
            none="no calls",
            unit="short",
            decimals=0,
            steps=((None, "blue"),),
        ).time_from(_MONTH),
        panels.number(
            "Burning now",
            "Fastest burn over the last hour: 1 uses up the budget in exactly 30 days,"
            f" {BURN_HOUR.value:g} in two; {BURN_HOUR.alert} fires there.",
            f"max({_burn('1h')})",
            none="no calls",
            decimals=1,
            steps=panels.above(BURN_DAYS, BURN_SHIFT),
        ),
    ]


def _fast() -> list[Panel]:
    return [
        _burning("1h", "5m", BURN_HOUR, "Two days would use up the whole budget."),
        _burning("6h", "30m", BURN_SHIFT, "Five days would use up the whole budget."),
    ]


def _slow() -> list[Panel]:
    return [
        _burning("1d", "2h", BURN_DAY, "Ten days would use up the whole budget."),
        _burning("3d", "6h", BURN_DAYS, "The budget will be gone before its time."),
    ]


def _burning(long: str, short: str, limit: Limit, means: str) -> Panel:
    return panels.graph(
        f"Burn over {long} and {short}",
        f"{means} {limit.alert} fires when both are above {limit.value:g}: the long one"
        " says that it matters, the short one that it goes on. The three fastest.",
        (f"({worst(3, _failed(long))}) / {_BUDGET}", f"{long} {_LEGEND}"),
        (f"({worst(3, _failed(short))}) / {_BUDGET}", f"{short} {_LEGEND}"),
        none=IN_RULES,
        unit="none",
        limits=(limit,),
    )


def _good() -> Panel:
    return panels.graph(
        "Success over the last hour",
        "Share of calls that got their answer from the server, by breaker, the five worst,"
        " and the objective (dashed).",
        (f"1 - ({worst(5, _failed('1h'))})", _LEGEND),
        (f"vector(1 - {_BUDGET})", "objective"),
        none=IN_RULES,
        unit="percentunit",
        least=None,
        dashed="/^objective$/",
    )


def _bad() -> Panel:
    bad = rate("pgbreaker_calls_total", CHOSEN, _BAD)
    return panels.graph(
        "Bad calls by outcome",
        "Failed: the server, or the way to it. Cut: the caller gave up. Rejected: a"
        " breaker was open, which costs the budget as well.",
        (by("outcome", bad), "{{outcome}}"),
        none="no calls",
        unit="reqps",
        stacked=True,
        colors={"failure": "red", "cut": "dark-red", "rejected": "orange"},
    )


def _each() -> Panel:
    fastest = panels.above(BURN_DAYS, BURN_SHIFT)
    return panels.table_of(
        "Breakers by budget",
        "One line a breaker, the least budget left first; budget and success are of the"
        " last 30 days.",
        [
            Column(
                "Budget left",
                f"1 - ({_share(_KEY)}) / {_BUDGET}",
                unit="percentunit",
                decimals=0,
                steps=((None, "red"), (0.25, "yellow"), (0.5, "green")),
            ),
            Column("Success", f"1 - ({_share(_KEY)})", unit="percentunit", decimals=3),
            Column(
                "Bad calls",
                by(_KEY, grown("pgbreaker_calls_total", CHOSEN, _BAD)),
                unit="short",
                decimals=0,
            ),
            *(
                Column(
                    f"Burn, {window}",
                    by(_KEY, _burn(window), "max"),
                    decimals=1,
                    steps=fastest,
                )
                for window in ("1h", "6h", "1d", "3d")
            ),
        ],
        none="no calls",
        labels={"breaker": "Breaker", "job": "Job"},
        first="Budget left",
        descending=False,
        paths={"Breaker": links.to_breaker(links.CELL)},
    ).time_from(_MONTH)


def _help() -> Panel:
    return panels.note(
        "How to read this",
        "The objective is that 99.9 % of calls get their answer from the server, over 30"
        " days; the rule `pgbreaker:error_budget:ratio` is the one place where it is said."
        " Bad is what failed, was cut, or was refused by an open breaker.\n\n"
        "*Burn* is how many times faster than it may the budget is used up: at 1 it lasts"
        " exactly 30 days. Fast burns fire at once, slow ones after hours.\n\n"
        "Windows need their time: for the first three days after the installation the long"
        " ones go by what there is.\n\n"
        "The daemon's breakers count probes, applications' breakers what users felt: choose"
        " by **Job** which of them is meant.",
    )
