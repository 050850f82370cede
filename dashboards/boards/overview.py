"""Overview: is anything wrong, and where?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from . import board as boards
from . import links, panels, shared
from .board import Line, Section
from .limits import (
    FAILURE_RATE,
    POOL_FULL,
    POOL_SATURATED,
    PROBE_STALE,
    SERVER_FULL,
    SERVER_HIGH,
)
from .panels import Column, Panel
from .queries import (
    ANY,
    APPLICATION,
    BREAKER,
    CALLED,
    EACH,
    IN_RULES,
    TARGET,
    WATCHED,
    by,
    condition,
    or_zero,
    overdue,
    pick,
    rate,
    state,
    top,
    worst,
)

_POOLS = pick("breaker:pgbreaker_pool_connections:used_ratio", BREAKER)
_SERVERS = by(
    "job, target",
    pick("pgbreaker_connection_saturation_ratio", TARGET, 'kind="server"'),
    "max",
)
_FAILED = pick("breaker:pgbreaker_calls:failure_ratio_rate2m", BREAKER)
_OURS = "Pgbreaker"  # how the names of all alerts begin
_FULLNESS = panels.above(POOL_SATURATED, POOL_FULL)


def board() -> Dashboard:
    return boards.page(
        links.OVERVIEW,
        "Overview",
        "Is anything wrong, and where?",
        [
            Section("Is anything wrong now?", [Line(4, _now())]),
            Section("Breakers and pools", [Line(9, _states(), spans=(16, 8))]),
            Section("Calls of applications", [Line(8, _calls())]),
            Section("Servers and alerts", [Line(9, _tables(), spans=(14, 10))]),
            Section("What the colours mean", [Line(6, [_help()])], is_open=False),
        ],
        [boards.jobs(), boards.targets()],
    )


def _now() -> list[Panel]:
    return [
        _down(),
        shared.not_closed(BREAKER, links.to(links.BREAKERS)),
        _worst_ratio(),
        _fullest(),
        _overdue(),
        _guarded(),
    ]


def _down() -> Panel:
    up = by("job, target", pick("pgbreaker_target_up", TARGET), "max")
    return panels.number(
        "Targets down",
        "Servers that answer neither on the held connection nor on a new one."
        " 0 is good; else click for the server's own page.",
        or_zero(f"count({up} == 0)"),
        none="no daemon reports",
        steps=panels.from_one("red"),
        path=links.to(links.TARGET),
    )


def _worst_ratio() -> Panel:
    return panels.number(
        "Worst failure ratio",
        "Highest share of failed calls over 2 minutes, of any breaker."
        f" {FAILURE_RATE.alert} fires above {FAILURE_RATE.value:.0%}.",
        f"max({_FAILED})",
        none="no calls",
        unit="percentunit",
        decimals=0,
        steps=((None, "green"), (0.2, "yellow"), *panels.above(FAILURE_RATE)[1:]),
        path=links.to(links.BREAKERS),
    )


def _fullest() -> Panel:
    return panels.number(
        "Connections used",
        "Largest share of connections in use, of any application's pool and any server."
        f" {POOL_SATURATED.alert} fires above {POOL_SATURATED.value:.0%}.",
        f"max({_POOLS} or {_SERVERS})",
        none="none reports",
        unit="percentunit",
        decimals=0,
        steps=_FULLNESS,
        path=links.to(links.POOLS),
    )


def _overdue() -> Panel:
    return panels.number(
        "Probe overdue",
        "Time beyond three intervals that some probe has not run; 0 is good."
        f" {PROBE_STALE.alert} fires at {PROBE_STALE.value:g} s: the daemon is stuck, and"
        " what is shown is old. See Daemon.",
        f"clamp_min(max({overdue(TARGET)}), 0)",
        none="no daemon reports",
        unit="s",
        decimals=0,
        steps=((None, "green"), (15, "yellow"), *panels.above(PROBE_STALE)[1:]),
        path=links.to(links.DAEMON),
    )


def _guarded() -> Panel:
    return panels.number(
        "Guarded calls",
        "Calls of applications through their breakers, refused ones with them. A sudden"
        " fall to nothing is an application that no longer gets work.",
        f"sum({rate('pgbreaker_calls_total', APPLICATION, CALLED)})",
        none=shared.NO_APPLICATION,
        unit="reqps",
        steps=((None, "blue"),),
        path=links.to(links.SLO),
        spark=True,
    )


def _states() -> list[Panel]:
    moved = pick("pgbreaker_breaker_state", BREAKER, 'state="closed"')
    left = by(EACH, f"min_over_time({moved}[$__range] @ end())", "min")
    return [
        panels.timeline(
            "Breakers that left closed",
            "State of each breaker that was not closed all the time; those that were are"
            " left out. Click a row for what it did and why.",
            (
                f"{state(BREAKER)} and on ({EACH}) ({left} == 0)",
                "{{breaker}} ({{job}})",
            ),
            none="every breaker was closed all the time",
            words=panels.STATE_WORDS,
            path=links.to_breaker(links.SERIES_BREAKER),
        ),
        panels.bars(
            "Fullest pools and servers",
            "Connections in use as a share of the most there can be."
            f" {POOL_SATURATED.alert} fires above {POOL_SATURATED.value:.0%},"
            f" {SERVER_HIGH.alert} above {SERVER_HIGH.value:.0%}.",
            (top(5, _POOLS), "pool {{breaker}}"),
            (top(5, _SERVERS), "server {{target}}"),
            none="none reports",
            unit="percentunit",
            most=1,
            steps=_FULLNESS,
            path=links.to(links.POOLS),
        ),
    ]


def _calls() -> list[Panel]:
    p95 = pick("breaker:pgbreaker_call_duration_seconds:p95_rate5m", BREAKER)
    return [
        shared.calls_by_outcome(APPLICATION),
        shared.failure_ratio(BREAKER),
        panels.graph(
            "Time of calls, p95",
            "Time within which 95 % of applications' calls end, over 5 minutes, the"
            " five slowest. What is slow is up to each: QuerySlow knows their thresholds.",
            (worst(5, p95), "{{breaker}} ({{job}})"),
            none=IN_RULES,
            unit="s",
            path=links.to_breaker(links.SERIES_BREAKER),
        ),
    ]


def _tables() -> list[Panel]:
    return [_servers(), _alerts()]


def _servers() -> Panel:
    ping = pick("target:pgbreaker_ping_duration_seconds:p95_rate5m", TARGET)
    info = pick("pgbreaker_server_info", TARGET)
    columns = [
        Column("State", condition(TARGET, "target"), words=panels.CONDITION_WORDS),
        Column("Breaker", state(WATCHED, "target"), words=panels.STATE_WORDS),
        Column(
            "Failed",
            by(
                "target",
                pick("breaker:pgbreaker_calls:failure_ratio_rate2m", WATCHED),
                "max",
            ),
            unit="percentunit",
            decimals=0,
            steps=panels.above(FAILURE_RATE),
        ),
        Column(
            "Slots taken",
            by("target", _SERVERS, "max"),
            unit="percentunit",
            decimals=0,
            steps=panels.above(SERVER_HIGH, SERVER_FULL),
        ),
        Column("Ping, p95", by("target", ping, "max"), unit="s"),
        Column(None, by("target, version, role", info, "max")),
    ]
    return panels.table_of(
        "Servers",
        "One line a server, the worst first; click its name for its page.",
        columns,
        none="no daemon reports",
        labels={"target": "Target", "role": "Role", "version": "Version"},
        first="State",
        paths={"Target": links.to_target(links.CELL)},
    )


def _alerts() -> Panel:
    # Not the watchdog, which fires all the time: its severity is none.
    told = (f'alertname=~"{_OURS}.+"', 'severity=~"critical|warning"')
    labels = "alertname, severity, target, breaker"
    firing = by(labels, pick("ALERTS", ANY, *told, 'alertstate="firing"'), "max")
    age = by(labels, f"time() - {pick('ALERTS_FOR_STATE', ANY, *told)}", "max")
    told_for = f"{age} and on ({labels}) {firing}"
    return panels.table_of(
        "Firing alerts",
        "What was told to somebody, the newest first; click the alert for what to do.",
        [Column("For", told_for, unit="s", decimals=0)],
        none="no alert is firing",
        labels={
            "alertname": "Alert",
            "severity": "Severity",
            "target": "Target",
            "breaker": "Breaker",
        },
        first="For",
        descending=False,
        paths={
            "Alert": f"{links.RUNBOOKS}/{links.CELL_AS_IS}.md",
            "Target": links.to_target(links.CELL),
            "Breaker": links.to_breaker(links.CELL),
        },
        rewritten={"Alert": (f"{_OURS}(.+)", "$1")},
        widths={"Severity": 80, "Target": 85, "For": 75},
    )


def _help() -> Panel:
    return panels.note(
        "What the colours mean",
        "**CLOSED** calls pass. **OPEN** calls are refused at once, so that nobody waits"
        " for a server that does not answer. **HALF_OPEN** a few calls try whether it"
        " does again. An operator can put **FORCED_OPEN**, **DISABLED** (calls pass,"
        " uncounted) or **METRICS_ONLY** (calls pass, counted) before that.\n\n"
        "A breaker whose name is `server/operation` is the daemon's, by its own probes; the"
        " others are applications', by their calls. A server and an application's breaker"
        " of one name are shown together.\n\n"
        "From here: a server's name leads to **Target**, a breaker to **Breakers**, a"
        " bar to **Pools**, an alert to its runbook.",
    )
