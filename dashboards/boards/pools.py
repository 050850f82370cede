"""Pools: is there room for connections, and for how long?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from . import board as boards
from . import links, panels, shared
from .board import Line, Section
from .limits import (
    POOL_FULL,
    POOL_PREDICTED,
    POOL_SATURATED,
    POOLER_FULL,
    SERVER_FULL,
    SERVER_HIGH,
    SERVER_PREDICTED,
)
from .panels import Panel
from .queries import CHOSEN, TARGET, by, or_zero, pick, rate, top, worst

_POOLS = pick("breaker:pgbreaker_pool_connections:used_ratio", CHOSEN)
_SERVERS = by(
    "job, target",
    pick("pgbreaker_connection_saturation_ratio", TARGET, 'kind="server"'),
    "max",
)
_LEFT = pick("pgbreaker_connection_exhaustion_seconds", TARGET)
_WAITED = pick("pgbreaker_pgbouncer_pool_maxwait_seconds", TARGET)
_LEGEND = "{{breaker}} ({{job}})"
_NO_POOLER = "no PgBouncer is watched"


def board() -> Dashboard:
    return boards.page(
        links.POOLS,
        "Pools",
        "Is there room for connections, and for how long?",
        [
            Section("Is there room now?", [Line(4, _now())]),
            Section("Pools of applications", [Line(8, _use()), Line(8, _inside())]),
            Section("Servers", [Line(8, _servers()), Line(8, _clients())]),
            Section(
                "PgBouncer", [Line(8, _pooler()), Line(8, _behind())], is_open=False
            ),
        ],
        [
            boards.jobs(),
            boards.targets(),
            boards.breakers("pgbreaker_pool_connections"),
        ],
    )


def _now() -> list[Panel]:
    waiting = pick("pgbreaker_pool_waiters", CHOSEN)
    return [
        panels.number(
            "Fullest pool",
            "Connections in use of the fullest pool, as a share of its most."
            f" {POOL_SATURATED.alert} fires above {POOL_SATURATED.value:.0%}.",
            f"max({_POOLS})",
            none="no pool reports",
            unit="percentunit",
            decimals=0,
            steps=panels.above(POOL_SATURATED, POOL_FULL),
            spark=True,
        ),
        panels.number(
            "Calls that wait",
            "Calls that wait for a connection of their application's pool. 0 is good;"
            f" {POOL_FULL.alert} fires when they wait for a minute while it is full.",
            or_zero(f"sum({waiting})"),
            none="no pool reports",
            steps=((None, "green"), (1, "yellow")),
            spark=True,
        ),
        panels.number(
            "Fullest server",
            "Share of the slots for applications which is taken, of the fullest server."
            f" {SERVER_HIGH.alert} fires above {SERVER_HIGH.value:.0%}.",
            f"max({_SERVERS})",
            none="none reports",
            unit="percentunit",
            decimals=0,
            steps=panels.above(SERVER_HIGH, SERVER_FULL),
            spark=True,
        ),
        panels.number(
            "Server full in",
            "Time until the first server has no slot left, at the present rate."
            f" Below {SERVER_PREDICTED.value / 60:g} min, where that is sure,"
            f" {SERVER_PREDICTED.alert} fires.",
            f"min({_LEFT})",
            none="not in sight",
            unit="s",
            steps=panels.below(SERVER_PREDICTED),
        ),
        panels.number(
            "PgBouncer wait",
            "Time that the client who waits longest has waited for a server connection."
            f" {POOLER_FULL.alert} fires above {POOLER_FULL.value:g} s for a minute.",
            f"max({_WAITED})",
            none=_NO_POOLER,
            unit="s",
            steps=panels.above(POOLER_FULL),
            spark=True,
        ),
        panels.number(
            "Idle in transaction",
            "Connections that hold a slot, and perhaps locks, while their application does"
            " something else. A few for moments are usual.",
            f"sum({pick('pgbreaker_idle_in_transaction_connections', TARGET)})",
            none="none reports",
            steps=((None, "green"), (10, "yellow")),
            spark=True,
        ),
    ]


def _use() -> list[Panel]:
    ahead = f"predict_linear({_POOLS}[30m], 1800)"
    return [
        shared.pool_use(CHOSEN),
        panels.graph(
            "Use in half an hour",
            "Where the five fullest pools will be in 30 minutes if it goes on as in the last 30."
            f" {POOL_PREDICTED.alert} fires above {POOL_PREDICTED.value:.0%} where a pool"
            " is over 60 % and fills: look for a leak.",
            (f"clamp_min({ahead}, 0) and {worst(5, _POOLS)}", _LEGEND),
            none="no pool reports, or alerts/pgbreaker.rules.yml is not loaded",
            unit="percentunit",
            limits=(POOL_PREDICTED,),
        ),
    ]


def _inside() -> list[Panel]:
    def connections(state: str) -> str:
        series = pick("pgbreaker_pool_connections", CHOSEN, f'state="{state}"')
        return by("job, breaker", series)

    return [
        panels.graph(
            "Used and idle",
            "Connections of each pool, those in use and those that lie idle. Idle and yet"
            " calls that wait is a pool that is split among too many processes.",
            (connections("used"), f"used {_LEGEND}"),
            (connections("idle"), f"idle {_LEGEND}"),
            none="no pool reports",
            unit="none",
        ),
        panels.graph(
            "Calls that wait for a connection",
            "By pool. Moments are usual; whole minutes while the pool is full are"
            f" {POOL_FULL.alert}: find what holds connections, then enlarge the pool.",
            (by("job, breaker", pick("pgbreaker_pool_waiters", CHOSEN)), _LEGEND),
            none="no pool reports",
            unit="none",
        ),
    ]


def _servers() -> list[Panel]:
    return [
        shared.server_use(TARGET),
        panels.graph(
            "Time until a server is full",
            "At the present rate, of servers that fill; a line that is not there is good."
            f" Below {SERVER_PREDICTED.value / 60:g} min, where that is sure,"
            f" {SERVER_PREDICTED.alert} fires.",
            (by("job, target", _LEFT, "min"), "{{target}}"),
            none="no server fills",
            unit="s",
            limits=(SERVER_PREDICTED,),
        ),
    ]


def _clients() -> list[Panel]:
    states = by("state", pick("pgbreaker_connections", TARGET))
    users = pick("pgbreaker_connections_by_user", TARGET)
    sessions = by("target", rate("pgbreaker_sessions_total", TARGET))
    return [
        panels.graph(
            "What connections do",
            "All clients of the servers chosen, by what they do. Idle in a transaction for"
            " long is an application's fault.",
            (states, "{{state}}"),
            none="none reports",
            unit="none",
            stacked=True,
            colors=shared.CONNECTION_COLORS,
        ),
        panels.graph(
            "By user",
            "The six users with most connections. One that grows alone is the leak.",
            (worst(6, users, "target, user"), "{{user}} at {{target}}"),
            none="the database probe has told nothing yet",
            unit="none",
        ),
        panels.graph(
            "New sessions",
            "Sessions that begin in a second. Many are an application without a pool: each"
            " costs a process at the server.",
            (top(5, sessions), "{{target}}"),
            none="the database probe has told nothing yet",
            unit="ops",
        ),
    ]


def _pooler() -> list[Panel]:
    limit = pick("pgbreaker_probe_limit_seconds", TARGET, 'probe="pgbouncer"')
    pool = "target, database, user"
    name = "{{database}} of {{user}} at {{target}}"
    waiting = pick("pgbreaker_pgbouncer_pool_waiting", TARGET)
    return [
        panels.graph(
            "Clients that wait",
            "Clients that wait for a server connection, by pool. Moments are usual; see"
            " beside how long they do.",
            (worst(5, waiting, pool), name),
            none=_NO_POOLER,
            unit="none",
        ),
        panels.graph(
            "Longest wait",
            "Time that the first in the queue has waited, and from where the daemon's"
            f" breaker for the pool fails (orange). {POOLER_FULL.alert} fires when it is"
            f" above {POOLER_FULL.value:g} s for a whole minute (red).",
            (worst(5, _WAITED, pool), name),
            (f"min({limit})", "limit"),
            none=_NO_POOLER,
            unit="s",
            limits=(POOLER_FULL,),
            dashed="/^limit$/",
        ),
    ]


def _behind() -> list[Panel]:
    servers = pick("pgbreaker_pgbouncer_pool_server_connections", TARGET)
    return [
        panels.graph(
            "Server connections",
            "PgBouncer's connections to the servers, by what they do. All active while"
            " clients wait: the pool is too small, or statements take long.",
            (by("state", servers), "{{state}}"),
            none=_NO_POOLER,
            unit="none",
            stacked=True,
            colors=shared.CONNECTION_COLORS,
        ),
        panels.graph(
            "Clients",
            "Clients that are connected to PgBouncer, and how many may be (dashed).",
            (
                by("target", pick("pgbreaker_pgbouncer_clients", TARGET), "max"),
                "{{target}}",
            ),
            (
                by("target", pick("pgbreaker_pgbouncer_client_limit", TARGET), "max"),
                "limit of {{target}}",
            ),
            none=_NO_POOLER,
            unit="none",
            dashed="/^limit/",
        ),
        panels.graph(
            "Wait of all clients",
            "Seconds that clients waited within a second, all in all; 1 is one client that"
            " always waits.",
            (
                by("target", rate("pgbreaker_pgbouncer_wait_seconds_total", TARGET)),
                "{{target}}",
            ),
            none=_NO_POOLER,
            unit="none",
        ),
    ]
