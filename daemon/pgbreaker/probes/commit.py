"""Whether a commit reaches the disk, and the standbys that it has to wait for.

Cheap reads go on for hours when the disk is wedged: only a commit tells. The message
is one record of write-ahead log (about 104 bytes) and one transaction id, no table,
no row: at the usual 5 s 17,280 ids and 1.8 MB a day. With ``archive_timeout`` set, an
idle server archives every segment for it; logical consumers that take messages see it.
"""

from typing import Final

from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Finding, Seen
from pgbreaker.core.units import Seconds
from pgbreaker.probes.probe import Place, Probe, Rows

# A server whose sessions are read-only by default still takes the message (seen on 15
# and 17), though no application's INSERT: so its word on that is asked for, too. In
# recovery it is "on" as well. CASE keeps the message from being emitted then.
SQL: Final = """
SELECT current_setting('transaction_read_only')::bool AS read_only,
       pg_is_in_recovery() AS in_recovery,
       CASE WHEN current_setting('transaction_read_only')::bool THEN NULL
            ELSE pg_logical_emit_message(true, 'pgbreaker', '')::text
       END AS written
"""


class ReadOnlyError(Exception):
    """The server would refuse to write, as with 25006 it does."""

    finding = Finding.WRONG_ROLE
    sqlstate = "25006"  # read_only_sql_transaction


def _written(rows: Rows) -> Seen:
    """Raises `ReadOnlyError` when sessions of this server cannot write."""
    row = rows[0]
    if row["in_recovery"]:
        raise ReadOnlyError("the server is in recovery: it takes no writes")
    if row["read_only"]:
        raise ReadOnlyError("sessions are read-only (default_transaction_read_only)")
    return NOTHING


COMMIT: Final = Probe(
    name="commit",
    says="one empty transaction, to the disk and the synchronous standbys",
    plan=ProbePlan(interval=5.0, timeout=2.0),
    asks=lambda _server: SQL,
    reads=_written,
    place=Place.FRESH,
)

_STALLED: Final = """
SELECT pid, coalesce(wait_event_type, '') AS kind, coalesce(wait_event, '') AS event,
       count(*) OVER ()::int AS sessions
  FROM pg_stat_get_activity(NULL)
 WHERE application_name = 'pgbreaker/commit'
   AND usesysid = current_user::regrole::oid
   AND state = 'active'
   AND query_start < clock_timestamp() - make_interval(secs => {waited})
 ORDER BY query_start
 LIMIT 1
"""


def stalled(waited: Seconds) -> str:
    """Ask for the commit of ours that has been under way for the longest, of those that
    have been for *waited* seconds: what it waits for, and how many there are.

    By name and not by pid: a pooler tells its clients a pid of its own making.
    """
    return _STALLED.format(waited=waited)
