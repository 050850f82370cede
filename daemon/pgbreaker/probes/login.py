"""Whether a new connection is let in: what an application does that has none yet.

A held connection cannot tell: it goes on answering while the postmaster lets in
nobody (https://github.com/patroni/patroni/issues/1371). Nor can it tell that the name
leads to another server since a failover; so the new one is asked who it is.
"""

from typing import Final

from pgbreaker.core.plan import ProbePlan
from pgbreaker.probes.probe import Place, Probe

SQL: Final = """
SELECT pg_is_in_recovery() AS door_in_recovery,
       extract(epoch FROM pg_postmaster_start_time())::float8 AS door_started,
       (pg_control_system()).system_identifier::text AS door_system_id
"""

LOGIN: Final = Probe(
    name="login",
    says="a new connection, and which server it leads to",
    plan=ProbePlan(interval=5.0, timeout=1.0),
    asks=lambda _server: SQL,
    place=Place.FRESH,
)

LOGINS_WAIT: Final = "logins_wait"
"""The code of evidence that logins wait for a lock."""

# Every login reads these catalogs, which all databases share; whoever holds one of
# them ACCESS EXCLUSIVE (VACUUM FULL, LOCK TABLE) keeps new sessions waiting, while
# the ones that are in go on.
LOCKED_OUT: Final = """
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
"""The lock that logins wait for: its relation and the pid that holds it; no row when
they wait for none."""
