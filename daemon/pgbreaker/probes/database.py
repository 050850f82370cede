"""What each database does, who is connected to it, and how old its ids are."""

from typing import Final

from pgbreaker.core.metric import Shown, counter, gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Seen
from pgbreaker.probes.probe import Probe, Rows, Server
from pgbreaker.probes.saturation import LIMIT

# The names of databases are in pg_database alone, so this one waits while that is
# locked. What is beyond the first few goes into one row, "other": so many databases and
# users there may be, so few series.
# 2^31 ids back is as far as PostgreSQL can look; three million before that it refuses
# to hand out new ones (SetTransactionIdLimit in varsup.c).
# On a primary nothing conflicts with recovery: no series then.
_SQL: Final = """
WITH known AS MATERIALIZED (
  SELECT oid, datname::text AS name, datistemplate, datconnlimit,
         datname = current_database() AS is_ours,
         age(datfrozenxid) AS xid_age,
         mxid_age(datminmxid) AS multixact_age
    FROM pg_database
), ranked AS (
  SELECT *, row_number() OVER (ORDER BY NOT is_ours, commits + rollbacks DESC, oid) > 20
              AS is_other
    FROM (SELECT *, pg_stat_get_db_xact_commit(oid) AS commits,
                 pg_stat_get_db_xact_rollback(oid) AS rollbacks
            FROM known WHERE is_ours OR NOT datistemplate) AS counted
), databases AS (
  SELECT CASE WHEN is_other THEN 'other' ELSE name END AS database,
         sum(commits)::int8 AS commits,
         sum(rollbacks)::int8 AS rollbacks,
         sum(pg_stat_get_db_deadlocks(oid))::int8 AS deadlocks,
         {conflicts} AS conflicts,
         sum(pg_stat_get_db_temp_bytes(oid))::int8 AS temp_bytes,
         sum(pg_stat_get_db_sessions(oid))::int8 AS sessions
    FROM ranked GROUP BY 1
), ages AS (
  SELECT name AS database,
         xid_age / 2147483648.0 AS xid_age_ratio,
         multixact_age / 2147483648.0 AS multixact_age_ratio
    FROM known ORDER BY greatest(xid_age, multixact_age) DESC, oid LIMIT 5
), clients AS MATERIALIZED (
  SELECT datid, usesysid,
         CASE WHEN state LIKE 'idle in transaction%' THEN 'idle_in_transaction'
              WHEN state = 'idle' THEN 'idle'
              WHEN backend_type IS NULL THEN 'unknown'
              ELSE 'active'
          END AS state,
         count(*) AS connections
    FROM pg_stat_get_activity(NULL)
   WHERE backend_type = 'client backend'
      OR backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL
   GROUP BY 1, 2, 3
), by_database AS (
  SELECT CASE WHEN place > 10 THEN 'other' ELSE name END AS database, state,
         sum(connections)::int AS connections
    FROM (SELECT datid, row_number() OVER (ORDER BY sum(connections) DESC, datid)
                   AS place
            FROM clients GROUP BY datid) AS places
    JOIN clients USING (datid)
    JOIN known ON known.oid = datid
   GROUP BY 1, 2
), by_user AS (
  SELECT CASE WHEN place > 20 THEN 'other' ELSE pg_get_userbyid(usesysid)::text END
           AS "user",
         sum(connections)::int AS connections
    FROM (SELECT usesysid, sum(connections) AS connections,
                 row_number() OVER (ORDER BY sum(connections) DESC, usesysid) AS place
            FROM clients GROUP BY usesysid) AS places
   GROUP BY 1
)
SELECT (SELECT json_agg(databases) FROM databases) AS databases,
       (SELECT json_agg(ages) FROM ages) AS ages,
       (SELECT json_agg(by_database) FROM by_database) AS connections_by_database,
       (SELECT json_agg(by_user) FROM by_user) AS connections_by_user,
       sessions_abandoned, sessions_fatal, sessions_killed, xid_age_max, mxid_age_max,
       2147483648 - 3000000 AS xid_limit,
       (SELECT nullif(greatest(datconnlimit, -1), -1) FROM known WHERE is_ours)
         AS database_limit,
       (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)
         AS role_limit
  FROM (SELECT sum(pg_stat_get_db_sessions_abandoned(oid))::int8 AS sessions_abandoned,
               sum(pg_stat_get_db_sessions_fatal(oid))::int8 AS sessions_fatal,
               sum(pg_stat_get_db_sessions_killed(oid))::int8 AS sessions_killed,
               max(xid_age) AS xid_age_max, max(multixact_age) AS mxid_age_max
          FROM known) AS server
"""
_ROWS: Final = ("databases", "ages", "connections_by_database", "connections_by_user")


def _asks(server: Server) -> str:
    conflicts = "sum(pg_stat_get_db_conflict_all(oid))::int8"
    return _SQL.format(conflicts=conflicts if server.in_recovery else "NULL")


def _reads(rows: Rows) -> Seen:
    row = dict(rows[0])
    return {**row, **{name: tuple(row[name] or ()) for name in _ROWS}}


def _of_database(
    name: str, says: str, value: str, labels: dict[str, str] | None = None
) -> Shown:
    return counter(name, says, value, rows="databases", by=("database",), labels=labels)


DATABASE: Final = Probe(
    name="database",
    says="transactions, sessions and connections by database and user; ages of ids",
    needs="pg_monitor, to see what others do",
    plan=ProbePlan(interval=15.0, timeout=1.0),
    asks=_asks,
    reads=_reads,
    shows=(
        *(
            _of_database(
                "pgbreaker_transactions_total",
                "Transactions that ended in the database, by how.",
                value,
                {"result": result},
            )
            for value, result in (("commits", "commit"), ("rollbacks", "rollback"))
        ),
        _of_database(
            "pgbreaker_deadlocks_total",
            "Deadlocks that the server has found in the database.",
            "deadlocks",
        ),
        _of_database(
            "pgbreaker_conflicts_total",
            "Queries that a replica cancelled because recovery needed what they saw.",
            "conflicts",
        ),
        _of_database(
            "pgbreaker_temp_bytes_total",
            "Bytes that queries have written to temporary files.",
            "temp_bytes",
        ),
        _of_database(
            "pgbreaker_sessions_total",
            "Sessions that have begun in the database.",
            "sessions",
        ),
        *(
            gauge(
                f"pgbreaker_{what}_age_ratio",
                f"Age of the oldest {whose} of the database as a share of the 2^31 that there can be; near 1 the server refuses to write.",
                f"{what}_age_ratio",
                rows="ages",
                by=("database",),
            )
            for what, whose in (
                ("xid", "transaction id"),
                ("multixact", "multixact id"),
            )
        ),
        gauge(
            "pgbreaker_database_connections",
            "Client connections to the database, by what they do.",
            "connections",
            rows="connections_by_database",
            by=("database", "state"),
        ),
        gauge(
            "pgbreaker_connections_by_user",
            "Client connections of the user.",
            "connections",
            rows="connections_by_user",
            by=("user",),
        ),
        *(
            gauge(
                "pgbreaker_connection_limit",
                LIMIT,
                f"{kind}_limit",
                labels={"kind": kind},
            )
            for kind in ("database", "role")
        ),
    ),
)
