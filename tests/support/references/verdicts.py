"""What opens what, by asking the rules themselves."""

from typing import Final

from pgbreaker.core import rules
from pgbreaker.core.judge import (
    COMMIT,
    GONE,
    IDENTITY,
    LATENCY,
    LOGIN,
    OPERATIONS,
    PGBOUNCER,
    PING,
    REPLICATION,
    deciding,
    judge,
)
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Finding, Reading, Value
from pgbreaker.core.states import BY_CALLS, MOVES, Cause, Outcome, State

# A target that has everything, with every limit that there can be.
_ALL: Final = (PING, LOGIN, COMMIT, IDENTITY, LATENCY, REPLICATION, PGBOUNCER)
_PLANS: Final = {name: ProbePlan(interval=1.0, timeout=1.0, limit=1.0) for name in _ALL}

# What only one of them ever finds.
_TOLD_BY: Final = {
    Finding.SYNC_REP: COMMIT,
    Finding.LAGGING: REPLICATION,
    Finding.WAITING: PGBOUNCER,
}

_BY_MACHINE: Final = {
    Cause.CONFIRMED: "Two signals agree: the held connection and a new one."
}


def verdicts() -> str:
    """A Markdown table: finding, and which operations fail when a probe has it."""
    replica = {"in_recovery": True}
    rows = {f"`{found}`": [_cell(_failed(found, n)) for n in _ALL] for found in Finding}
    rows["`ok`, in recovery"] = [
        _cell(_failed(Finding.OK, name, **replica)) for name in _ALL
    ]
    idle = [title for title, cells in rows.items() if set(cells) == {"-"}]
    lines = [
        *(" | ".join((t, *c)) for t, c in rows.items() if t not in idle),
        " | ".join((", ".join(idle), *("-" for _ in _ALL))),
    ]
    head = " | ".join(("finding", *(f"`{name}`" for name in _ALL)))
    table = [f"| {head} |", f"|---|{'---|' * len(_ALL)}"]
    return "\n".join([*table, *(f"| {line} |" for line in lines)]) + "\n"


def _failed(finding: Finding, probe: str, **values: Value) -> list[str]:
    if _TOLD_BY.get(finding, probe) != probe:
        return []
    # Whether the server is in recovery decides where there is no commit to try.
    there = {n: p for n, p in _PLANS.items() if probe != IDENTITY or n != COMMIT}
    # The sentinel asks again, on a new connection, before it says these of a ping.
    is_sure = probe == PING and finding in GONE | {Finding.FULL}
    reading = Reading("main", probe, 0.0, 0.0, finding, values, confirmed=is_sure)
    verdict = judge(reading, deciding(there))
    failed = [o for o, came in verdict.outcomes.items() if came is Outcome.FAILURE]
    mark = "**" if verdict.confirmed else ""
    return [
        f"{mark}{operation}{mark}" for operation in OPERATIONS if operation in failed
    ]


def _cell(failed: list[str]) -> str:
    return ", ".join(failed) or "-"


def causes() -> str:
    """A Markdown table: what opens a closed breaker, whose, and when."""
    opening = [c for (before, c), _ in MOVES.items() if before is State.CLOSED]
    rows = [
        f"| `{cause}` | {'library' if cause in BY_CALLS else _whose(cause)} |"
        f" {_says(cause)} |"
        for cause in opening
    ]
    return "\n".join(["| cause | whose | opens on |", "|---|---|---|", *rows]) + "\n"


def _whose(cause: Cause) -> str:
    return "daemon" if cause in _BY_MACHINE else "both"


def _says(cause: Cause) -> str:
    if cause in _BY_MACHINE:
        return _BY_MACHINE[cause]
    told = getattr(rules, cause.value).__doc__ or ""
    return " ".join(told.partition("\n\n")[0].split())
