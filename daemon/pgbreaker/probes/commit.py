"""Whether a commit reaches the disk, and the standbys that it has to wait for.

Cheap reads go on for hours when the disk is wedged: only a commit tells. The message
is one record of write-ahead log (about 104 bytes) and one transaction id, no table,
no row. A server in recovery or in read-only mode refuses with 25006, which is news of
its role.
"""

from collections.abc import Mapping

from pgbreaker.core.reading import NOTHING, Value
from pgbreaker.postgres.target import Connection

# pg_catalog by hand: this runs with the right to write.
SQL = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgbreaker', '')"


async def commit(connection: Connection) -> Mapping[str, Value]:
    """Commit one transaction that changes nothing but the log."""
    await connection.execute(SQL)
    return NOTHING
