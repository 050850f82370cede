"""Whether a new connection is let in: what an application does that has none yet.

A held connection cannot tell: it goes on answering while the postmaster lets in
nobody (https://github.com/patroni/patroni/issues/1371).
"""

from collections.abc import Mapping

from pgbreaker.core.reading import NOTHING, Value
from pgbreaker.postgres.target import Connection


async def login(connection: Connection) -> Mapping[str, Value]:
    """Ask for nothing on a connection that was just made."""
    await connection.execute("SELECT 1")
    return NOTHING


# Every login reads these catalogs, which all databases share; whoever holds one of
# them ACCESS EXCLUSIVE (VACUUM FULL, LOCK TABLE) keeps new sessions waiting, while
# the ones that are in go on.
WAITING = """
SELECT l.relation::regclass::text AS relation,
       (pg_blocking_pids(l.pid))[1] AS blocker
  FROM pg_locks AS l
 WHERE NOT l.granted
   AND l.locktype = 'relation'
   AND l.relation IN ('pg_database'::regclass, 'pg_authid'::regclass,
                      'pg_auth_members'::regclass, 'pg_db_role_setting'::regclass)
 ORDER BY l.pid
 LIMIT 1
"""


async def locked_out(connection: Connection) -> Mapping[str, Value]:
    """The lock that logins wait for: its relation and the pid that holds it.
    Empty when they wait for none."""
    row = await connection.fetchrow(WAITING)
    return NOTHING if row is None else dict(row)
