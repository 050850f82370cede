"""How close the server is to running out of connection slots."""

from collections.abc import Mapping

from pgbreaker.core.reading import Value
from pgbreaker.postgres.target import Connection

# Reserved slots are not ours to count on: with 97 of 100 taken and 3 reserved, every
# application's login already fails with 53300. (reserved_connections: since 16.)
# The function behind pg_stat_activity answers while pg_database is locked, the view
# does not. Others' states need pg_monitor; without it they are NULL and not counted.
SQL = """
SELECT limits.*,
       seen.*,
       max_connections - superuser_reserved_connections - reserved_connections
         AS slots_usable,
       slots_used::float8
         / (max_connections - superuser_reserved_connections - reserved_connections)
         AS slots_ratio
  FROM (SELECT current_setting('max_connections')::int AS max_connections,
               current_setting('superuser_reserved_connections')::int
                 AS superuser_reserved_connections,
               coalesce(current_setting('reserved_connections', true), '0')::int
                 AS reserved_connections) AS limits,
       (SELECT count(*)::int AS slots_used,
               count(*) FILTER (WHERE state = 'active')::int AS active,
               count(*) FILTER (WHERE state = 'idle')::int AS idle,
               count(*) FILTER (WHERE state LIKE 'idle in transaction%')::int
                 AS idle_in_transaction,
               coalesce(extract(epoch FROM max(now() - xact_start)), 0)::float8
                 AS oldest_transaction_seconds,
               coalesce(extract(epoch FROM max(now() - state_change)
                 FILTER (WHERE state LIKE 'idle in transaction%')), 0)::float8
                 AS oldest_idle_in_transaction_seconds
          FROM pg_stat_get_activity(NULL)
         WHERE backend_type = 'client backend') AS seen
"""


async def saturation(connection: Connection) -> Mapping[str, Value]:
    """Slots used and usable, and what their owners do; ages in seconds."""
    row = await connection.fetchrow(SQL)
    return {} if row is None else dict(row)
