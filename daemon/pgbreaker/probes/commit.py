"""Whether a commit reaches the disk, and the standbys that it has to wait for.

Cheap reads go on for hours when the disk is wedged: only a commit tells. The message
is one record of write-ahead log (about 104 bytes) and one transaction id, no table,
no row.
"""

from collections.abc import Mapping

from pgbreaker.core.reading import NOTHING, Value
from pgbreaker.postgres.target import Connection

# A server whose sessions are read-only by default still takes the message (seen on 15
# and 17), though no application's INSERT: so its word on that is asked for, too. In
# recovery it is "on" as well. CASE keeps the message from being emitted then.
SQL = """
SELECT current_setting('transaction_read_only')::bool AS read_only,
       pg_is_in_recovery() AS in_recovery,
       CASE WHEN current_setting('transaction_read_only')::bool THEN NULL
            ELSE pg_logical_emit_message(true, 'pgbreaker', '')
       END AS written
"""


class ReadOnlyError(Exception):
    """The server would refuse to write, as with 25006 it does."""

    sqlstate = "25006"  # read_only_sql_transaction


async def commit(connection: Connection) -> Mapping[str, Value]:
    """Commit one transaction that changes nothing but the log.

    Raises:
        ReadOnlyError: Sessions of this server cannot write.
    """
    row = await connection.fetchrow(SQL)
    if row is not None and row["in_recovery"]:
        raise ReadOnlyError("the server is in recovery: it takes no writes")
    if row is not None and row["read_only"]:
        raise ReadOnlyError("sessions are read-only (default_transaction_read_only)")
    return NOTHING
