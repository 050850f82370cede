"""Which server answers here: its role, its start, its version, its cluster."""

from collections.abc import Mapping

from pgbreaker.core.reading import Value
from pgbreaker.postgres.target import Connection

# Functions, not views: they answer while pg_database is locked.
SQL = """
SELECT pg_is_in_recovery() AS in_recovery,
       extract(epoch FROM pg_postmaster_start_time())::float8 AS started,
       current_setting('server_version_num')::int AS version,
       (pg_control_system()).system_identifier::text AS system_id,
       (pg_control_checkpoint()).timeline_id AS timeline
"""


async def identity(connection: Connection) -> Mapping[str, Value]:
    """Role, start (seconds since the epoch), version number, cluster, timeline."""
    row = await connection.fetchrow(SQL)
    return {} if row is None else dict(row)
