"""How close the server is to running out of connection slots, and what holds them."""

from typing import Final

from pgbreaker.core.metric import gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.probes.probe import Probe

# Reserved slots are not ours to count on: with 97 of 100 taken and 3 reserved, every
# application's login already fails with 53300. (reserved_connections: since 16.)
# The function behind pg_stat_activity answers while pg_database is locked, the view
# does not.
# Others' states need pg_monitor; without it even their kind of process is hidden. Then
# whoever has a user and a database counts as a client (so do parallel workers), and
# what is hidden is NULL: a zero would be a lie.
# Others may have begun later than we (now() is our beginning): greatest() has no
# negative ages, and none for nobody.
_SQL: Final = """
SELECT max_connections,
       superuser_reserved_connections,
       reserved_connections,
       max_connections - superuser_reserved_connections - reserved_connections
         AS slots_usable,
       slots_used,
       slots_used::float8
         / (max_connections - superuser_reserved_connections - reserved_connections)
         AS slots_ratio,
       states.*
  FROM (SELECT current_setting('max_connections')::int AS max_connections,
               current_setting('superuser_reserved_connections')::int
                 AS superuser_reserved_connections,
               coalesce(current_setting('reserved_connections', true), '0')::int
                 AS reserved_connections) AS limits,
       (SELECT count(*)::int AS slots_used,
               count(*) = count(backend_type) AS is_told,
               count(*) FILTER (WHERE state = 'active')::int AS active,
               count(*) FILTER (WHERE state = 'idle')::int AS idle,
               count(*) FILTER (WHERE state LIKE 'idle in transaction%')::int
                 AS idle_in_transaction,
               max(now() - xact_start) AS oldest_transaction,
               max(now() - query_start) FILTER (WHERE state = 'active')
                 AS oldest_query,
               max(now() - state_change)
                 FILTER (WHERE state LIKE 'idle in transaction%')
                 AS oldest_idle_in_transaction,
               count(*) FILTER (WHERE wait = 'Lock')::int AS waiting_lock,
               count(*) FILTER (WHERE wait = 'LWLock')::int AS waiting_lwlock,
               count(*) FILTER (WHERE wait = 'IO')::int AS waiting_io,
               count(*) FILTER (WHERE wait = 'IPC')::int AS waiting_ipc,
               count(*) FILTER (WHERE wait NOT IN ('Lock', 'LWLock', 'IO', 'IPC'))::int
                 AS waiting_other
          FROM (SELECT *, CASE state WHEN 'active' THEN wait_event_type END AS wait
                  FROM pg_stat_get_activity(NULL)
                 WHERE backend_type = 'client backend'
                    OR backend_type IS NULL
                       AND datid IS NOT NULL AND usesysid IS NOT NULL) AS client
       ) AS seen
       LEFT JOIN LATERAL (
        SELECT active, idle, idle_in_transaction,
               greatest(extract(epoch FROM oldest_transaction), 0)::float8
                 AS oldest_transaction_seconds,
               greatest(extract(epoch FROM oldest_query), 0)::float8
                 AS oldest_query_seconds,
               greatest(extract(epoch FROM oldest_idle_in_transaction), 0)::float8
                 AS oldest_idle_in_transaction_seconds,
               waiting_lock, waiting_lwlock, waiting_io, waiting_ipc, waiting_other
       ) AS states ON is_told
"""

_CONNECTIONS: Final = "Client connections at the server, by what they do."
LIMIT: Final = "Connection slots: max, usable; where they are set, those of the role and of the database."
_WAITING: Final = "Client backends that wait in the middle of a statement, by for what."

SATURATION: Final = Probe(
    name="saturation",
    says="connection slots taken and left, and what those who have them do",
    needs="pg_monitor, to see what others do",
    plan=ProbePlan(interval=2.0, timeout=0.5),
    asks=lambda _server: _SQL,
    shows=(
        *(
            gauge("pgbreaker_connections", _CONNECTIONS, value, labels={"state": state})
            for value, state in (
                ("active", "active"),
                ("idle", "idle"),
                ("idle_in_transaction", "idle_in_transaction"),
                ("slots_used", "all"),
            )
        ),
        *(
            gauge("pgbreaker_connection_limit", LIMIT, value, labels={"kind": kind})
            for value, kind in (
                ("max_connections", "max"),
                ("slots_usable", "usable"),
            )
        ),
        gauge(
            "pgbreaker_connection_saturation_ratio",
            "Share of the slots that applications can use which is taken; above 1 when reserved ones are.",
            "slots_ratio",
            labels={"kind": "server"},
        ),
        gauge(
            "pgbreaker_transaction_oldest_seconds",
            "Age of the oldest open transaction, in seconds.",
            "oldest_transaction_seconds",
        ),
        gauge(
            "pgbreaker_query_oldest_seconds",
            "Age of the oldest statement that runs, in seconds.",
            "oldest_query_seconds",
        ),
        gauge(
            "pgbreaker_idle_in_transaction_oldest_seconds",
            "Age of the longest idleness within a transaction, in seconds.",
            "oldest_idle_in_transaction_seconds",
        ),
        gauge(
            "pgbreaker_idle_in_transaction_connections",
            "Client connections that are idle within a transaction.",
            "idle_in_transaction",
        ),
        *(
            gauge(
                "pgbreaker_waiting_backends",
                _WAITING,
                value,
                labels={"wait_event_type": kind},
            )
            for value, kind in (
                ("waiting_lock", "Lock"),
                ("waiting_lwlock", "LWLock"),
                ("waiting_io", "IO"),
                ("waiting_ipc", "IPC"),
                ("waiting_other", "other"),
            )
        ),
    ),
)
