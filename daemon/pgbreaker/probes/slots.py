"""What replication slots keep the server from throwing away."""

from typing import Any, Final

from pgbreaker.core.metric import gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Seen
from pgbreaker.probes.probe import Probe, Rows, Server

# Temporary slots carry the pid of their backup, a label without end: they count as
# one. A slot's own name cannot hold a parenthesis.
#
# A lost slot retains nothing any more. A negative safe_wal_size is one that is past
# max_slot_wal_keep_size already and goes with the next checkpoint.
_SQL: Final = """
SELECT count(*) AS replication_slots_used,
       current_setting('max_replication_slots')::int AS replication_slots_limit,
       count(*) FILTER (WHERE wal_status = 'lost') AS replication_slots_lost,
       (SELECT json_agg(top) FROM
         (SELECT slot, bool_or(active) AS active,
                 greatest(max(pg_wal_lsn_diff(head, restart_lsn)), 0)
                   AS retained_bytes,
                 min(safe_wal_size) AS safe_bytes,
                 max(wal_status) AS wal_status,
                 max(reason) AS reason
            FROM (SELECT CASE WHEN temporary THEN '(temporary)'
                              ELSE slot_name::text END AS slot,
                         active, restart_lsn, safe_wal_size, wal_status,
                         {reason} AS reason
                    FROM pg_get_replication_slots()) AS named
           CROSS JOIN
                 (SELECT CASE WHEN pg_is_in_recovery()
                              THEN greatest(pg_last_wal_receive_lsn(),
                                            pg_last_wal_replay_lsn())
                              ELSE pg_current_wal_lsn() END AS head) AS here
           GROUP BY slot
           ORDER BY retained_bytes DESC NULLS LAST, slot
           LIMIT 20) AS top) AS slots
  FROM pg_get_replication_slots()
"""


def _asks(server: Server) -> str:
    reason = "invalidation_reason"
    if server.major == 16:
        reason = "CASE WHEN conflicting THEN 'conflicting' END"
    elif server.major < 16:
        reason = "NULL::text"
    return _SQL.format(reason=reason)


def reads(rows: Rows) -> Seen:
    """Name what was seen."""
    if not rows:
        return NOTHING
    seen: dict[str, Any] = dict(rows[0])
    seen["slots"] = tuple(seen["slots"] or ())
    return seen


SLOTS: Final = Probe(
    name="slots",
    says="how much WAL replication slots hold back, and how much more they may",
    plan=ProbePlan(interval=30.0, timeout=1.0),
    asks=_asks,
    reads=reads,
    shows=(
        gauge(
            "pgbreaker_slot_retained_bytes",
            "WAL that is kept for a slot; of the twenty that keep most.",
            "retained_bytes",
            rows="slots",
            by=("slot",),
        ),
        gauge(
            "pgbreaker_slot_active",
            "Whether anybody reads from a slot.",
            "active",
            rows="slots",
            by=("slot",),
        ),
        gauge(
            "pgbreaker_slot_safe_bytes",
            "WAL that may still be written before a slot can be lost; absent without"
            " max_slot_wal_keep_size.",
            "safe_bytes",
            rows="slots",
            by=("slot",),
        ),
        gauge(
            "pgbreaker_replication_slots",
            "Replication slots that there are, and that there can be.",
            "replication_slots_used",
            labels={"kind": "used"},
        ),
        gauge(
            "pgbreaker_replication_slots",
            "Replication slots that there are, and that there can be.",
            "replication_slots_limit",
            labels={"kind": "limit"},
        ),
    ),
)
