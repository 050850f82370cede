"""Panels that stand on more than one page."""

from typing import Final

from . import links, panels
from .limits import (
    FAILURE_RATE,
    POOL_FULL,
    POOL_SATURATED,
    RECOVERY,
    SERVER_FULL,
    SERVER_HIGH,
)
from .panels import Panel
from .queries import (
    EACH,
    IN_RULES,
    NOT_CLOSED,
    by,
    or_zero,
    out_of_closed,
    pick,
    rate,
    worst,
)

NO_APPLICATION: Final = "no application reports"
EVERY_CLOSED: Final = "every breaker is closed"

OUTCOME_COLORS: Final = {
    "success": "green",
    "failure": "red",
    "cut": "dark-red",
    "rejected": "orange",
    "ignored": "blue",
    "unreached": "purple",
    "released": "light-blue",
    "fallback": "yellow",
    "stale": "light-yellow",
}

CONNECTION_COLORS: Final = {
    "used": "blue",
    "active": "blue",
    "idle": "green",
    "idle_in_transaction": "orange",
}


def not_closed(where: str, path: str | None) -> Panel:
    """How many breakers refuse calls, all or most of them."""
    is_out = by(EACH, pick("pgbreaker_breaker_state", where, NOT_CLOSED), "max")
    return panels.number(
        "Breakers not closed",
        "Breakers that refuse calls (open) or try a few (half-open), of the daemon and of"
        " applications. 0 is good; else see which, and why, on Breakers.",
        or_zero(f"count({is_out} == 1)"),
        none="no breaker reports",
        steps=panels.from_one("red"),
        path=path,
    )


def longest_out(where: str) -> Panel:
    """How long the breaker that is out longest has been."""
    return panels.number(
        "Out of closed for",
        "Time since the breaker that is out longest left closed; 0 while all are closed."
        f" {RECOVERY.alert} fires at {RECOVERY.value:g} s: it does not recover by itself,"
        " look at the server.",
        or_zero(f"max({out_of_closed(where)})"),
        none="no breaker reports",
        unit="s",
        decimals=0,
        steps=((None, "green"), (1, "yellow"), (RECOVERY.value, RECOVERY.color)),
    )


def failure_ratio(where: str) -> Panel:
    """The ratio that FailureRateHigh goes by."""
    ratio = pick("breaker:pgbreaker_calls:failure_ratio_rate2m", where)
    return panels.graph(
        "Failure ratio",
        "Failed of all calls that were let through, over 2 minutes, the five worst."
        f" {FAILURE_RATE.alert} fires above the line at {FAILURE_RATE.value:.0%}; breakers"
        " open earlier, by their own window.",
        (worst(5, ratio), "{{breaker}} ({{job}})"),
        none=IN_RULES,
        unit="percentunit",
        most=1,
        limits=(FAILURE_RATE,),
        path=links.to_breaker(links.SERIES_BREAKER),
    )


def calls_by_outcome(where: str) -> Panel:
    """What calls of applications came to, each counted once."""
    calls = rate("pgbreaker_calls_total", where, 'outcome!~"slow|fallback|stale"')
    return panels.graph(
        "Calls by outcome",
        "What applications' calls came to. Rejected: a breaker was open, the server was"
        " not asked. Cut: given up by the caller. Ignored: the query's own fault, which"
        " says nothing of the server. Good is green alone.",
        (by("outcome", calls), "{{outcome}}"),
        none=NO_APPLICATION,
        unit="reqps",
        stacked=True,
        colors=OUTCOME_COLORS,
    )


def pool_use(where: str) -> Panel:
    """How full applications' pools are, with the lines of both alerts."""
    return panels.graph(
        "Use of pools",
        "Connections in use as a share of the pool's most, the five fullest."
        f" {POOL_SATURATED.alert} fires above {POOL_SATURATED.value:.0%} for 5 minutes,"
        f" {POOL_FULL.alert} when it is full and calls wait. Find what holds connections,"
        " then enlarge the pool.",
        (
            worst(5, pick("breaker:pgbreaker_pool_connections:used_ratio", where)),
            "{{breaker}} ({{job}})",
        ),
        none="no pool reports, or alerts/pgbreaker.rules.yml is not loaded",
        unit="percentunit",
        most=1.1,
        limits=(POOL_SATURATED, POOL_FULL),
    )


def server_use(where: str) -> Panel:
    """How many of a server's slots are taken, with the lines of both alerts."""
    ratio = pick("pgbreaker_connection_saturation_ratio", where, 'kind="server"')
    return panels.graph(
        "Use of the server's slots",
        "Share of the slots that applications can have which is taken, the five fullest."
        f" {SERVER_HIGH.alert} fires above {SERVER_HIGH.value:.0%},"
        f" {SERVER_FULL.alert} at {SERVER_FULL.value:.0%}: new logins are refused then."
        " Look for idle sessions, by user on Pools.",
        (worst(5, ratio, "job, target"), "{{target}}"),
        none="the saturation probe has told nothing yet",
        unit="percentunit",
        most=1.1,
        limits=(SERVER_HIGH, SERVER_FULL),
    )
