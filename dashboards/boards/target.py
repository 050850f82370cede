"""Target: what is wrong with this server?"""

from typing import Final

from grafana_foundation_sdk.models.dashboard import Dashboard

from . import board as boards
from . import links, panels, shared
from .board import Line, Section
from .limits import (
    DAY,
    FAILURE_RATE,
    HOUR,
    LAG_PREDICTED,
    LIKELY,
    LOCKS,
    MODEL_STALE,
    POOLER_PREDICTED,
    REPLAY,
    RUNWAY,
    SERVER_FULL,
    SERVER_HIGH,
    SERVER_PREDICTED,
    STATEMENTS,
    TRANSACTION,
)
from .panels import Column, Panel
from .queries import (
    APPLICATION,
    BREAKER,
    TARGET,
    by,
    condition,
    lately,
    pick,
    quantile,
    rate,
    state,
    top,
)

_NOT_ASKED: Final = "no such probe, or it has told nothing yet"


def board() -> Dashboard:
    return boards.page(
        links.TARGET,
        "Target",
        "What is wrong with this server?",
        [
            Section("$target now", [Line(4, _now())]),
            Section("Why", [Line(8, _why(), spans=(14, 10))]),
            Section("Calls", [Line(8, _calls())]),
            Section("Time", [Line(8, _time())]),
            Section("Connections", [Line(8, _connections())]),
            Section(
                "Forecast",
                [
                    Line(8, _ahead(), spans=(10, 7, 7)),
                    Line(7, _warnings(), spans=(8, 5, 4, 4, 3)),
                ],
            ),
            Section("Probes", [Line(8, _probes())], is_open=False),
            Section("Locks and transactions", [Line(8, _locks())], is_open=False),
            Section(
                "Replication and WAL",
                [Line(8, _replication()), Line(8, _wal())],
                is_open=False,
            ),
            Section("Load", [Line(8, _load())], is_open=False),
            Section("Where to go from here", [Line(7, [_help()])], is_open=False),
        ],
        [boards.jobs(), boards.target()],
    )


def _now() -> list[Panel]:
    return [
        panels.number(
            "Server",
            "UP: it serves. DEGRADED: some of it. DOWN: neither the held connection nor a"
            " new one answers. UNKNOWN: the daemon is not let in, and cannot tell.",
            f"max({condition(TARGET, 'target')})",
            none="no daemon reports",
            steps=((None, "text"),),
            words=panels.CONDITION_WORDS,
        ),
        panels.number(
            "Worst breaker",
            "State of the worst of its breakers, the daemon's and applications'.",
            f"max({state(BREAKER)})",
            none="no breaker reports",
            steps=((None, "text"),),
            words=panels.STATE_WORDS,
            path=links.to(links.BREAKERS),
        ),
        shared.longest_out(BREAKER),
        panels.number(
            "Failed of calls",
            "Highest share of failed calls over 2 minutes, of any of its breakers."
            f" {FAILURE_RATE.alert} fires above {FAILURE_RATE.value:.0%}.",
            f"max({pick('breaker:pgbreaker_calls:failure_ratio_rate2m', BREAKER)})",
            none="no calls",
            unit="percentunit",
            decimals=0,
            steps=((None, "green"), (0.2, "yellow"), *panels.above(FAILURE_RATE)[1:]),
            spark=True,
        ),
        panels.number(
            "Slots taken",
            "Share of the connection slots for applications which is taken."
            f" {SERVER_HIGH.alert} fires above {SERVER_HIGH.value:.0%}.",
            f"max({pick('pgbreaker_connection_saturation_ratio', TARGET)})",
            none="not told yet",
            unit="percentunit",
            decimals=0,
            steps=panels.above(SERVER_HIGH, SERVER_FULL),
            path=links.to(links.POOLS),
            spark=True,
        ),
        panels.number(
            "By hand",
            "Breakers that an operator's word stands before; of one that stands there for a"
            " day, OverrideLong fires.",
            f"count({pick('pgbreaker_breaker_override', BREAKER)} == 1) or vector(0)",
            none="no daemon reports",
            steps=((None, "green"), (1, "blue")),
            path=links.to(links.BREAKERS),
        ),
        panels.number(
            "Maintenance",
            "ON: somebody works on it, and Maintenance mutes what else would be told, until"
            " 5 minutes after the end.",
            f"max({pick('pgbreaker_maintenance', TARGET)}) or vector(0)",
            none="no daemon reports",
            steps=((None, "text"),),
            words=panels.words({0: ("NONE", "green"), 1: ("ON", "blue")}),
        ),
        panels.fact(
            "Version",
            "What the server says of itself; applications' errors differ by it.",
            by("version, role", pick("pgbreaker_server_info", TARGET), "max"),
            "{{version}} {{role}}",
            none="not told yet",
        ),
    ]


def _why() -> list[Panel]:
    evidence = pick("pgbreaker_breaker_evidence", BREAKER)
    about = "breaker, code, sqlstate, probe"
    return [
        panels.timeline(
            "Breakers of $target",
            "State of each breaker over time: connect, read and write are the daemon's,"
            " the others applications'. Click a row for what it did.",
            (state(BREAKER), "{{breaker}} ({{job}})"),
            none="no breaker reports",
            words=panels.STATE_WORDS,
            path=links.to_breaker(links.SERIES_BREAKER),
        ),
        panels.table_of(
            "What speaks against it",
            "The last bad sign of each breaker that is not closed: what it was, PostgreSQL's"
            " code for it, and the probe that saw it. Empty is good.",
            [
                Column(
                    "Out for",
                    by(
                        about,
                        f"(time() - {_left()}) * on (job, instance, breaker)"
                        f" group_right() {evidence}",
                        "max",
                    ),
                    unit="s",
                    decimals=0,
                )
            ],
            none=shared.EVERY_CLOSED,
            labels={
                "breaker": "Breaker",
                "code": "Sign",
                "sqlstate": "SQLSTATE",
                "probe": "Probe",
            },
            first="Out for",
            paths={"Breaker": links.to_breaker(links.CELL)},
        ),
    ]


def _left() -> str:
    return pick("pgbreaker_breaker_left_closed_timestamp_seconds", BREAKER)


def _calls() -> list[Panel]:
    errors = rate("pgbreaker_errors_total", APPLICATION)
    return [
        shared.calls_by_outcome(APPLICATION),
        shared.failure_ratio(BREAKER),
        panels.graph(
            "Errors by kind",
            "Errors that applications met. Transient ones pass by themselves, persistent"
            " ones need somebody, query and application are not the server's fault,"
            " system is the server's or its machine's.",
            (by("category", errors), "{{category}}"),
            none=shared.NO_APPLICATION,
            unit="ops",
            stacked=True,
            colors={
                "transient": "yellow",
                "persistent": "orange",
                "query": "blue",
                "system": "red",
                "application": "purple",
            },
        ),
    ]


def _time() -> list[Panel]:
    calls = "pgbreaker_call_duration_seconds"
    limit = pick("pgbreaker_slow_call_threshold_seconds", BREAKER)
    buckets = by("le", rate(f"{calls}_bucket", APPLICATION))
    return [
        panels.spread(
            "Time of calls",
            "How many of applications' calls took how long; brighter is more. A second"
            " band above the first is one kind of work that got slow.",
            buckets,
            none=shared.NO_APPLICATION,
        ),
        panels.graph(
            "Time of calls, quantiles",
            "Half, 95 % and 99 % of applications' calls end within these times. QuerySlow"
            " fires when p95 is above the dashed threshold, or four times what it was"
            " yesterday.",
            (quantile(0.5, calls, APPLICATION, "job"), "{{job}} p50"),
            (quantile(0.95, calls, APPLICATION, "job"), "{{job}} p95"),
            (quantile(0.99, calls, APPLICATION, "job"), "{{job}} p99"),
            (by("job", limit, "min"), "{{job}} threshold"),
            none=shared.NO_APPLICATION,
            unit="s",
            dashed="/threshold$/",
        ),
        _probe_time(),
    ]


def _probe_time() -> Panel:
    ping = pick("target:pgbreaker_ping_duration_seconds:p95_rate5m", TARGET)
    canary = pick("target:pgbreaker_canary_duration_seconds:p95_rate5m", TARGET)
    slow = pick("pgbreaker_slow_call_threshold_seconds", TARGET)
    most = pick("pgbreaker_probe_limit_seconds", TARGET, 'probe="latency"')
    return panels.graph(
        "Time of probes, p95",
        "Time within which 95 % of the daemon's own questions are answered. QuerySlow"
        " fires when ping or canary is above its dashed limit for 5 minutes.",
        (by("target", ping, "max"), "ping"),
        (by("target", canary, "max"), "canary"),
        (quantile(0.95, "pgbreaker_login_duration_seconds", TARGET, "target"), "login"),
        (
            quantile(0.95, "pgbreaker_commit_duration_seconds", TARGET, "target"),
            "commit",
        ),
        (by("target", slow, "max"), "limit of ping"),
        (by("target", most, "max"), "limit of canary"),
        none="no daemon reports, or alerts/pgbreaker.rules.yml is not loaded",
        unit="s",
        dashed="/^limit/",
    )


def _connections() -> list[Panel]:
    pools = pick("pgbreaker_pool_connections", BREAKER)
    most = pick("pgbreaker_pool_max_connections", BREAKER)
    server = pick("pgbreaker_connections", TARGET)
    usable = pick("pgbreaker_connection_limit", TARGET, 'kind="usable"')
    return [
        panels.graph(
            "Applications' pools",
            "Connections of applications' pools to this server, against the most that they"
            " may have. All used and calls waiting is exhaustion: see Pools.",
            (by("state", pools), "{{state}}"),
            (f"sum({most})", "most"),
            none="no pool reports",
            unit="none",
            stacked=True,
            colors=shared.CONNECTION_COLORS,
            dashed="/^most$/",
        ),
        panels.graph(
            "Waiting for a pooled connection",
            "Calls that wait for a connection of their own application's pool. Above 0 for"
            " a minute while the pool is full, PoolExhausted fires.",
            (
                by("job, breaker", pick("pgbreaker_pool_waiters", BREAKER)),
                "{{breaker}} ({{job}})",
            ),
            none="no pool reports",
            unit="none",
        ),
        panels.graph(
            "Connections at the server",
            "All clients of the server by what they do, against the slots that they can"
            " have. Many idle in a transaction hold locks and slots for nothing.",
            (by("state", server), "{{state}}"),
            (f"max({usable})", "usable slots"),
            none=_NOT_ASKED,
            unit="none",
            stacked=True,
            colors=shared.CONNECTION_COLORS,
            dashed="/^usable slots$/",
        ),
    ]


def _probes() -> list[Panel]:
    bad = rate("pgbreaker_probes_total", TARGET, 'outcome!="ok"')
    answered = pick("pgbreaker_probe_last_success_timestamp_seconds", TARGET)
    return [
        panels.graph(
            "Probes that ended badly",
            "Runs of probes by how they ended, good ones left out. Denied and absent are"
            " states: the reading says which grant or extension would help.",
            (f"{by('probe, outcome', bad)} > 0", "{{probe}} {{outcome}}"),
            none="every probe ended well",
            unit="ops",
            stacked=True,
        ),
        panels.table_of(
            "Last answers",
            "How old what is shown is, by probe. Older than a few intervals is a server"
            " that does not answer, or a daemon that does not ask.",
            [
                Column(
                    "Age",
                    by("probe", f"time() - ({answered} > 0)", "max"),
                    unit="s",
                    decimals=0,
                ),
                Column(
                    "Interval",
                    by(
                        "probe", pick("pgbreaker_probe_interval_seconds", TARGET), "max"
                    ),
                    unit="s",
                ),
            ],
            none="no probe has been answered yet",
            labels={"probe": "Probe"},
            first="Age",
        ),
        panels.graph(
            "Notices",
            "What happened to the server without moving a breaker: restarts, crashes,"
            " changes of role, being locked out. LockedOut and ServerCrashed fire on"
            " theirs.",
            (
                f"{by('code', lately('pgbreaker_notices_total', TARGET))} > 0",
                "{{code}}",
            ),
            none="nothing happened",
            unit="none",
            bars=True,
        ),
    ]


def _locks() -> list[Panel]:
    return [
        panels.graph(
            "Waiting for locks",
            "Sessions that wait for a lock, and those that they wait for."
            f" {LOCKS.alert} fires from {LOCKS.value:g} on: end the session at the front,"
            " `pgbreaker probe TARGET --config FILE --debug` names it.",
            (by("target", pick("pgbreaker_lock_waiters", TARGET), "max"), "waiting"),
            (by("target", pick("pgbreaker_lock_blockers", TARGET), "max"), "blocking"),
            (
                by("target", pick("pgbreaker_lock_chain_depth", TARGET), "max"),
                "longest chain",
            ),
            none=_NOT_ASKED,
            unit="none",
            limits=(LOCKS,),
        ),
        panels.graph(
            "Oldest",
            "Age of the oldest of each. A transaction that stays open keeps vacuum from"
            f" cleaning up: {TRANSACTION.alert} fires above {TRANSACTION.value / 60:g} min.",
            *(
                (
                    by(
                        "target",
                        pick(f"pgbreaker_{what}_oldest_seconds", TARGET),
                        "max",
                    ),
                    name,
                )
                for what, name in (
                    ("transaction", "transaction"),
                    ("query", "statement"),
                    ("idle_in_transaction", "idle in transaction"),
                    ("lock_wait", "wait for a lock"),
                    ("prepared_transaction", "prepared transaction"),
                )
            ),
            none=_NOT_ASKED,
            unit="s",
            limits=(TRANSACTION,),
        ),
        panels.graph(
            "What statements wait for",
            "Sessions that wait in the middle of a statement, by for what. Lock: each"
            " other. IO: the disk. Client: the application itself.",
            (
                by("wait_event_type", pick("pgbreaker_waiting_backends", TARGET)),
                "{{wait_event_type}}",
            ),
            none=_NOT_ASKED,
            unit="none",
            stacked=True,
        ),
    ]


def _replication() -> list[Panel]:
    lag = pick("pgbreaker_replication_lag_seconds", TARGET, 'stage="replay"')
    behind = pick("pgbreaker_replication_lag_bytes", TARGET)
    age = pick("pgbreaker_replay_age_seconds", TARGET)
    return [
        panels.graph(
            "Age of a replica's data",
            "Seconds that this server, a replica, or its standbys are behind."
            f" {REPLAY.alert} fires above {REPLAY.value:g} s: replay is paused, held up by"
            " a query, or WAL does not arrive.",
            (by("target", age, "max"), "this server"),
            (by("standby", lag, "max"), "standby {{standby}}"),
            none="no replica, no standby",
            unit="s",
            limits=(REPLAY,),
        ),
        panels.graph(
            "Standbys behind by",
            "WAL that standbys have not been sent, written, flushed and replayed yet. The"
            " first stage that is large is where it hangs.",
            (by("standby, stage", behind, "max"), "{{standby}} {{stage}}"),
            none="no standby",
            unit="bytes",
        ),
        panels.graph(
            "Standbys to wait for",
            "Synchronous standbys that a commit waits for, and those that are there. Fewer"
            " there than wanted, and every commit hangs.",
            (
                by("kind", pick("pgbreaker_sync_standbys", TARGET), "max"),
                "{{kind}}",
            ),
            none="commits wait for no standby",
            unit="none",
        ),
    ]


def _wal() -> list[Panel]:
    failed = lately("pgbreaker_archiver_failed_total", TARGET)
    return [
        panels.graph(
            "WAL written",
            "WAL that is written in a second. What is far from usual is a batch, or full"
            " pages after a checkpoint.",
            (by("target", rate("pgbreaker_wal_bytes_total", TARGET)), "WAL"),
            none=_NOT_ASKED,
            unit="Bps",
        ),
        panels.graph(
            "Kept for slots",
            "WAL that is kept for replication slots, and how much more may be written"
            " before one is lost. A slot that nobody reads fills the disk: drop it.",
            (
                by("slot", pick("pgbreaker_slot_retained_bytes", TARGET), "max"),
                "{{slot}}",
            ),
            (
                by("slot", pick("pgbreaker_slot_safe_bytes", TARGET), "max"),
                "{{slot}} may take",
            ),
            none="no replication slot",
            unit="bytes",
        ),
        panels.graph(
            "Archiver",
            "Attempts to archive that failed, and segments that wait. ArchiverFailing"
            " fires when one has failed within 10 minutes: the disk fills from then on.",
            (by("target", failed), "failed"),
            (
                by(
                    "target", pick("pgbreaker_archiver_pending_segments", TARGET), "max"
                ),
                "waiting",
            ),
            none="nothing is archived here",
            unit="none",
        ),
    ]


def _ahead() -> list[Panel]:
    slots = pick("pgbreaker_connection_exhaustion_seconds", TARGET)
    bounds = pick("pgbreaker_connection_exhaustion_bound_seconds", TARGET)
    others = pick("pgbreaker_runway_seconds", TARGET, _FAST)
    slow = pick("pgbreaker_runway_seconds", TARGET, _SLOW)
    slow_bounds = pick("pgbreaker_runway_bound_seconds", TARGET, _SLOW)
    probability = pick("pgbreaker_failure_probability", TARGET)
    return [
        panels.graph(
            "Time until it is full",
            "At the present rate: the server's slots with the soonest and the latest, nine"
            " times of ten, PgBouncer's pools, the lag that a replica may have. The daemon warns"
            f" of slots below {SERVER_PREDICTED.value / 60:g} min, where it is sure, of the"
            f" others below {POOLER_PREDICTED.value / 60:g}: {SERVER_PREDICTED.alert},"
            f" {POOLER_PREDICTED.alert}, {LAG_PREDICTED.alert}. No line is good; what is"
            " beyond two hours is not drawn.",
            (by("of", f"{_named(slots, 'connections')} or {others}", "min"), "{{of}}"),
            (by("bound", bounds, "min"), "{{bound}}"),
            none="nothing fills at the present rate",
            unit="s",
            most=2 * HOUR,
            limits=(SERVER_PREDICTED, POOLER_PREDICTED, LAG_PREDICTED),
            band=("soonest", "latest"),
        ),
        panels.graph(
            "Probability of a failure",
            "That a breaker opens within a quarter of an hour, by what its openings have"
            f" taught. Above {LIKELY.value:.0%} the daemon warns, and {LIKELY.alert} fires:"
            " see what is not as usual. It opens no breaker.",
            (by("target", probability, "max"), "probability"),
            none="the model is silent: too few openings to learn from, or no better than chance",
            unit="percentunit",
            most=1,
            limits=(LIKELY,),
        ),
        panels.table_of(
            "Runways",
            "Time until ids, a sequence, what a slot may hold back or the disk is used up at"
            " the present rate, with the soonest and the latest, nine times of ten; without"
            f" a latest it may be never. {RUNWAY.alert} fires below"
            f" {RUNWAY.value / DAY:g} days.",
            [
                Column(
                    "Left",
                    by("of", slow, "min"),
                    unit="s",
                    steps=panels.below(RUNWAY),
                    decimals=1,
                ),
                *(
                    Column(
                        bound.capitalize(),
                        by("of", _of_bound(slow_bounds, bound), "min"),
                        unit="s",
                        decimals=1,
                    )
                    for bound in ("soonest", "latest")
                ),
            ],
            none="nothing runs out at the present rate",
            labels={"of": "Of"},
            first="Left",
            descending=False,
        ),
    ]


# What is warned of half an hour before, and what days before.
_FAST: Final = 'of=~"pool|lag"'
_SLOW: Final = 'of!~"pool|lag"'


def _of_bound(series: str, bound: str) -> str:
    return series.replace("}", f',bound="{bound}"}}')


def _named(series: str, of: str) -> str:
    return f'label_replace({series}, "of", "{of}", "", "")'


def _warnings() -> list[Panel]:
    warned = pick("pgbreaker_forecast_warning", TARGET)
    seen = (
        pick("pgbreaker_runway_seconds", TARGET),
        _named(pick("pgbreaker_connection_exhaustion_seconds", TARGET), "connections"),
        _named(pick("pgbreaker_failure_probability", TARGET), "failure"),
    )
    in_sight = " or ".join(f"0 * {one}" for one in seen)
    learned = pick("pgbreaker_forecast_model_learned_timestamp_seconds", TARGET)
    return [
        panels.timeline(
            "Warnings",
            "What is foretold, and when the daemon warned of it. In sight: an end or a"
            " probability is told, and people have no reason to act.",
            (by("of", f"{warned} or {in_sight}", "max"), "{{of}}"),
            none="nothing is foretold",
            words=panels.words({0: ("in sight", "blue"), 1: ("WARNED", "orange")}),
        ),
        _used_up(),
        panels.shares(
            "Came true",
            "Precision so far: share of the warnings that something came of. What somebody"
            " averted counts as false. Without one that is over, there is none.",
            by("of", pick("pgbreaker_forecast_precision_ratio", TARGET), "min"),
            "{{of}}",
            none="no warning is over yet",
            steps=_RECORD,
        ),
        panels.shares(
            "Foreseen",
            "Recall so far: share of the failures that were warned of a minute before or"
            " more. Sudden ones cannot be foreseen.",
            by("of", pick("pgbreaker_forecast_recall_ratio", TARGET), "min"),
            "{{of}}",
            none="no failure so far",
            steps=_RECORD,
        ),
        panels.number(
            "Last learnt",
            "Time since the model last learnt; a quarter of an hour is usual. Above"
            f" {MODEL_STALE.value / HOUR:g} h {MODEL_STALE.alert} fires.",
            f"max(time() - {learned})",
            none="not yet",
            unit="s",
            decimals=0,
            steps=panels.above(MODEL_STALE),
        ),
    ]


_RECORD: Final = ((None, "orange"), (0.5, "yellow"), (0.8, "green"))


def _used_up() -> Panel:
    xid = pick("pgbreaker_xid_age_ratio", TARGET)
    multixact = pick("pgbreaker_multixact_age_ratio", TARGET)
    return panels.bars(
        "Used up",
        "Share of what there can be that is used up: ids, sequences, the disk. Near"
        " 100 % the server refuses to write.",
        (f"max({xid})", "transaction ids"),
        (f"max({multixact})", "multixact ids"),
        (top(5, pick("pgbreaker_sequence_used_ratio", TARGET)), "{{sequence}}"),
        (f"max({pick('pgbreaker_disk_used_ratio', TARGET)})", "disk"),
        none=_NOT_ASKED,
        unit="percentunit",
        most=1,
        steps=((None, "green"), (0.5, "yellow"), (0.8, "red")),
    )


def _load() -> list[Panel]:
    ended = rate("pgbreaker_transactions_total", TARGET)
    mean = pick("pgbreaker_statement_mean_seconds_ratio", TARGET)
    return [
        panels.graph(
            "Transactions",
            "Transactions that ended in a second, by how. Many rolled back are an"
            " application's errors.",
            (by("result", ended), "{{result}}"),
            none=_NOT_ASKED,
            unit="ops",
            stacked=True,
        ),
        panels.graph(
            "Mean time of statements",
            "Mean time of a statement lately, as a multiple of what is usual here."
            f" {STATEMENTS.alert} fires above {STATEMENTS.value:g}.",
            (by("target", mean, "max"), "times the usual"),
            none="pg_stat_statements is not there, or it has not been watched for long",
            unit="none",
            limits=(STATEMENTS,),
        ),
        panels.graph(
            "Deadlocks, conflicts, bad ends",
            "In a second: deadlocks found, queries that recovery cancelled, sessions that"
            " ended badly. Deadlocks are for the application to order its locks.",
            *(
                (by("target", rate(f"pgbreaker_{what}_total", TARGET)), name)
                for what, name in (
                    ("deadlocks", "deadlocks"),
                    ("conflicts", "conflicts"),
                    ("session_ends", "bad ends"),
                )
            ),
            none=_NOT_ASKED,
            unit="ops",
        ),
    ]


def _help() -> Panel:
    return panels.note(
        "Where to go from here",
        "`pgbreaker status` says in one sentence why a breaker is where"
        " it is; `pgbreaker probe TARGET --config FILE --debug` asks the server now, step by step.\n\n"
        "- *connect* alone is open: out of slots, or logins are slow. See **Pools**.\n"
        "- *write* alone is open: read-only, in recovery, or commits hang. See"
        " *Replication and WAL* above.\n"
        "- *read* alone is open: the canary is slow, or a replica is behind. See *Locks"
        " and transactions*.\n"
        "- all are open: it does not answer. On its machine look at its log.\n\n"
        f"Runbooks, one an alert: [{links.RUNBOOKS}]({links.RUNBOOKS}/).",
    )
