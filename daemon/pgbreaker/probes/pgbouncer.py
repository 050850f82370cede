"""Whether clients wait at pgbouncer, asked of its own console.

The server can be as well as it likes: what an application feels is the time that it
waits for one of the pooler's connections, and nobody but the pooler knows that.

The console speaks the simple protocol alone, one command at a time, and takes hardly any
settings. Its columns differ by version (here: 1.8 to 1.24), so they are read by name, and
what a version does not have is a value that was not seen.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from pgbreaker.core.metric import counter, gauge
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import Finding, Row, Seen, Value
from pgbreaker.core.text import tidy
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.postgres.dsn import password_in
from pgbreaker.postgres.wire import Rows, ServerError, Wire
from pgbreaker.probes.probe import Place, Probe

_NAME: Final = "pgbouncer"
_CONSOLE: Final = "pgbouncer"  # its own pool and database, of which we are the client
_MOST_POOLS: Final = 20
_MOST_NAMES: Final = 3
_SETTINGS: Final = {"application_name": f"pgbreaker/{_NAME}"}

# An older one takes it for an error, and logs that each time.
_SHOWS_STATE: Final = (1, 19)
_QUESTIONS: Final = ("POOLS", "DATABASES", "CONFIG", "LISTS", "STATS")

# Before 1.19 and for some of it after, it has one SQLSTATE for all, and words. What the
# words mean, as a server would have said it:
_SQLSTATES: Final = (
    ("no more connections allowed", "53300"),
    ("authentication failed", "28P01"),
    ("no such user", "28000"),
    ("not allowed", "28000"),
    ("access denied", "28000"),
    ("pgbouncer is shutting down", "57P01"),
    ("shutting down", "57P01"),
)

# Column of SHOW POOLS -> name of ours.
_COLUMNS: Final = {
    "cl_waiting": "waiting",
    "cl_active": "active",
    "sv_active": "server_active",
    "sv_idle": "server_idle",
    "sv_used": "server_used",
    "sv_tested": "server_tested",
    "sv_login": "server_login",
}
_SERVING: Final = ("active", "idle", "used", "tested")
_STATES: Final = (*_SERVING, "login")

_Answers: TypeAlias = Mapping[str, Rows]


async def _go(plan: TargetPlan, within: Seconds) -> Seen:
    asked = plan.probes[_NAME]
    if asked.address is None:
        raise ValueError("pgbouncer needs an address: that of its console")
    password = password_in(asked.password_file)
    try:
        async with asyncio.timeout(within):
            return read(await _ask(asked.address.reveal(), password))
    except ServerError as error:
        raise _translated(error) from None
    except TimeoutError as error:
        if error.errno is not None:
            raise  # the kernel's word, not ours
        raise TimeoutError(
            f"pgbouncer's console gave no answer within {lasting(within)}"
        ) from None


async def _ask(dsn: str, password: str | None) -> _Answers:
    wire = await Wire.connect(dsn, password=password, settings=_SETTINGS)
    try:
        answers = {name: await wire.query(f"SHOW {name}") for name in _QUESTIONS}
        if _version(wire.parameters.get("server_version", "")) >= _SHOWS_STATE:
            answers["STATE"] = await wire.query("SHOW STATE")
    finally:
        await wire.close()
    return answers


def _version(text: str) -> tuple[int, ...]:
    """Read ``1.18.0/bouncer``; the lowest there is where nothing can be read."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (0, 0) if found is None else (int(found[1]), int(found[2]))


def _translated(error: ServerError) -> ServerError:
    words = error.message.lower()
    means = (code for needle, code in _SQLSTATES if needle in words)
    if error.sqlstate != "08P01":
        return error
    sqlstate = next(means, error.sqlstate)
    return ServerError(sqlstate, error.severity, error.message, error.detail)


# -- Reading the answers -----------------------------------------------------------


def read(answers: _Answers) -> Seen:
    """Turn the console's tables, by name, into what was seen."""
    pools = sorted(
        (_pool(row) for row in answers["POOLS"] if row.get("database") != _CONSOLE),
        key=_badness,
        reverse=True,
    )
    settings = {row.get("key"): row.get("value") for row in answers["CONFIG"]}
    sizes = {row.get("list"): _number(row.get("items")) for row in answers["LISTS"]}
    limit, clients = _number(settings.get("max_client_conn")), sizes.get("used_clients")
    if clients is not None:
        clients -= 1  # ourselves: the console is open to us beyond the limit, too
    return {
        "pools": _capped(pools),
        "pooler_waiting": _sum(pools, "waiting"),
        "pooler_maxwait_seconds": _longest(pools),
        "pooler_names": _name_of(pools[0]) if pools else None,
        "pooler_clients": clients,
        "pooler_client_limit": limit,
        "pooler_client_ratio": clients / limit
        if clients is not None and limit
        else None,
        "pooler_pool_size": _number(settings.get("default_pool_size")),
        **_stopped(answers),
        **_totals(answers["STATS"]),
    }


def _pool(row: Mapping[str, str | None]) -> Row:
    seconds = _number(row.get("maxwait"))
    micros = _number(row.get("maxwait_us")) or 0.0
    return {
        "database": row.get("database"),
        "user": row.get("user"),
        "maxwait_seconds": None if seconds is None else seconds + micros / 1e6,
        **{ours: _number(row.get(its)) for its, ours in _COLUMNS.items() if its in row},
    }


def _badness(pool: Row) -> tuple[float, float]:
    return _float(pool.get("waiting")), _float(pool.get("active"))


def _capped(pools: Sequence[Row]) -> tuple[Row, ...]:
    """Keep the worst; the others together are one more."""
    worst, others = pools[:_MOST_POOLS], pools[_MOST_POOLS:]
    if not others:
        return tuple(worst)
    names = [name for name in _COLUMNS.values() if name in others[0]]
    rest: Row = {
        "database": "other",
        "user": "other",
        "maxwait_seconds": _longest(others),
        **{name: _sum(others, name) for name in names},
    }
    return (*worst, rest)


def _stopped(answers: _Answers) -> Seen:
    """Databases that take nobody, or serve nobody who has been taken."""
    databases = [row for row in answers["DATABASES"] if row.get("name") != _CONSOLE]
    paused = [row.get("name") for row in databases if row.get("paused") == "1"]
    disabled = [row.get("name") for row in databases if row.get("disabled") == "1"]
    # PAUSE without a name stops all at once, and marks none of them.
    state = {row.get("key"): row.get("value") for row in answers.get("STATE", ())}
    is_paused = "yes" in (state.get("paused"), state.get("suspended"))
    return {
        "pooler_paused": len(databases) if is_paused else len(paused),
        "pooler_paused_names": "all databases" if is_paused else _listed(paused),
        "pooler_disabled": len(disabled),
        "pooler_disabled_names": _listed(disabled),
    }


def _totals(rows: Rows) -> Seen:
    rows = [row for row in rows if row.get("database") != _CONSOLE]
    waited = _total(rows, "total_wait_time")
    return {
        "pooler_queries": _total(rows, "total_query_count"),
        "pooler_transactions": _total(rows, "total_xact_count"),
        "pooler_wait_seconds": None if waited is None else waited / 1e6,
    }


def _total(rows: Rows, column: str) -> float | None:
    numbers = [_number(row.get(column)) for row in rows]
    found = [number for number in numbers if number is not None]
    # No database yet is nothing yet; databases without the column are another matter.
    return sum(found) if found or not rows else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _float(value: Value) -> float:
    return value if isinstance(value, int | float) else 0.0


def _sum(pools: Iterable[Row], name: str) -> float:
    return sum(_float(pool.get(name)) for pool in pools)


def _longest(pools: Iterable[Row]) -> float:
    return max((_float(pool.get("maxwait_seconds")) for pool in pools), default=0.0)


def _name_of(pool: Row) -> str:
    return tidy(f"{pool['database']}/{pool['user']}")


def _listed(names: Sequence[str | None]) -> str | None:
    if not names:
        return None
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return tidy(", ".join(map(str, names[:_MOST_NAMES]))) + more


# -- Judging -----------------------------------------------------------------------


def _weigh(seen: Seen, _took: Seconds, limit: Seconds) -> str | None:
    if seen.get("pooler_paused"):
        return f"pgbouncer has paused {seen['pooler_paused_names']}"
    if seen.get("pooler_disabled"):
        return f"pgbouncer has disabled {seen['pooler_disabled_names']}"
    return _weigh_waiting(seen, limit) or _weigh_stranded(seen) or _weigh_clients(seen)


def _weigh_waiting(seen: Seen, limit: Seconds) -> str | None:
    pools = seen.get("pools")
    if not isinstance(pools, tuple) or not pools:
        return None
    slowest = max(pools, key=lambda pool: _float(pool.get("maxwait_seconds")))
    waited = _float(slowest.get("maxwait_seconds"))
    if waited <= limit:
        return None
    return (
        f"clients of {_name_of(slowest)} wait for {lasting(waited)} for a server"
        f" connection (limit {lasting(limit)}), {_float(slowest.get('waiting')):.0f} wait"
    )


def _weigh_stranded(seen: Seen) -> str | None:
    """Find clients that wait at the door: a pooler that has had no server yet has no
    greeting for them, and does not count how long they wait for one. For a moment that
    is so at each beginning."""
    pools = seen.get("pools")
    if not isinstance(pools, tuple):
        return None
    for pool in pools:
        has_server = any(pool.get(f"server_{state}") for state in _SERVING)
        if pool.get("waiting") and not pool.get("maxwait_seconds") and not has_server:
            return (
                f"{_float(pool['waiting']):.0f} clients of {_name_of(pool)} wait, and"
                " the pooler has no connection to the server"
            )
    return None


def _weigh_clients(seen: Seen) -> str | None:
    clients, most = seen.get("pooler_clients"), seen.get("pooler_client_limit")
    if not isinstance(clients, float) or not isinstance(most, float) or clients < most:
        return None
    return f"pgbouncer takes no more clients: it has {clients:.0f} of {most:.0f}"


_BY: Final = ("database", "user")

PGBOUNCER: Final = Probe(
    name=_NAME,
    says="how long clients wait at pgbouncer for a connection, and how many there are",
    needs="the console's address, of a user in stats_users",
    plan=ProbePlan(interval=5.0, timeout=1.0, limit=1.0),
    goes=_go,
    place=Place.APART,
    weighs=_weigh,
    beyond=Finding.WAITING,
    is_usual=False,
    shows=(
        gauge(
            "pgbreaker_pgbouncer_pool_waiting",
            "Clients that wait for a server connection; the worst 20 pools.",
            "waiting",
            rows="pools",
            by=_BY,
        ),
        gauge(
            "pgbreaker_pgbouncer_pool_maxwait_seconds",
            "Seconds that the first client in the queue has waited.",
            "maxwait_seconds",
            rows="pools",
            by=_BY,
        ),
        *(
            gauge(
                "pgbreaker_pgbouncer_pool_server_connections",
                "Connections to the server, by what they do.",
                f"server_{state}",
                rows="pools",
                by=_BY,
                labels={"state": state},
            )
            for state in _STATES
        ),
        gauge(
            "pgbreaker_pgbouncer_clients",
            "Clients that are connected, ourselves not among them.",
            "pooler_clients",
        ),
        gauge(
            "pgbreaker_pgbouncer_client_limit",
            "Clients that may be connected (max_client_conn).",
            "pooler_client_limit",
        ),
        gauge(
            "pgbreaker_pgbouncer_paused_databases",
            "Databases that are paused.",
            "pooler_paused",
        ),
        gauge(
            "pgbreaker_pgbouncer_disabled_databases",
            "Databases that are disabled.",
            "pooler_disabled",
        ),
        counter(
            "pgbreaker_pgbouncer_queries_total",
            "Queries that were pooled.",
            "pooler_queries",
        ),
        counter(
            "pgbreaker_pgbouncer_transactions_total",
            "Transactions that were pooled.",
            "pooler_transactions",
        ),
        counter(
            "pgbreaker_pgbouncer_wait_seconds_total",
            "Seconds that clients have waited for a server connection, all in all.",
            "pooler_wait_seconds",
        ),
    ),
)
