"""Who waits for a lock, and who at the front holds all of them up."""

import json
from typing import Final
from xml.sax.saxutils import unescape

from pgbreaker.core.metric import gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Seen
from pgbreaker.probes.probe import Probe, Rows

# pg_blocking_pids holds up everybody's locking for a moment, so it is asked for the
# oldest waiters alone; whoever waits for the same lock as one of them is counted behind
# the same blockers.
#
# A queue is no tree: each of twenty that want the same lock is blocked by all before
# it, and that makes a million paths. So not paths are walked but steps: (who, how far,
# where), each once, and never farther than there are waiters, which also ends a cycle.
# Those at the front wait for nothing themselves.
_PILE: Final = """
WITH RECURSIVE waiting AS MATERIALIZED (
  SELECT pid,
         min(waitstart) AS since,
         min(concat_ws('/', locktype, database, relation, page, tuple, virtualxid,
                       transactionid, classid, objid, objsubid)) AS lock,
         min(relation) AS relation,
         min(database) AS database
    FROM pg_lock_status()
   WHERE NOT granted
   GROUP BY pid
), asked AS MATERIALIZED (
  SELECT * FROM waiting ORDER BY since LIMIT 20
), edges AS MATERIALIZED (
  SELECT DISTINCT asked.pid, blocker
    FROM asked, unnest(pg_blocking_pids(asked.pid)) AS blocker
), steps AS (
  SELECT pid, 0 AS far, pid AS via FROM asked
   UNION
  SELECT steps.pid, far + 1, edges.blocker
    FROM steps
    JOIN edges ON edges.pid = steps.via
    JOIN asked ON asked.pid = edges.blocker
   WHERE far + 1 < (SELECT count(*) FROM asked)
), behind AS MATERIALIZED (
  SELECT DISTINCT edges.blocker, asked.lock
    FROM steps
    JOIN edges ON edges.pid = steps.via
    JOIN asked ON asked.pid = steps.pid
   WHERE edges.blocker NOT IN (SELECT pid FROM waiting)
), roots AS MATERIALIZED (
  SELECT blocker, sum(waiters)::int AS waits
    FROM behind
    JOIN (SELECT lock, count(*) AS waiters FROM waiting GROUP BY lock) AS queues
         USING (lock)
   GROUP BY blocker
)
SELECT (SELECT count(*)::int FROM roots) AS lock_blockers,
       (SELECT coalesce(max(far) + 1, 0) FROM steps) AS lock_chain_depth,
       root.*
  FROM (VALUES (1)) AS one
  LEFT JOIN LATERAL (
    SELECT roots.blocker AS blocker_pid,
           CASE WHEN roots.blocker = 0 THEN 'prepared transaction'
                WHEN backend_type = 'autovacuum worker' THEN 'autovacuum'
                ELSE coalesce(nullif(application_name, ''), backend_type)
            END AS blocker_application,
           state AS blocker_state,
           CASE WHEN xact_start <= now() THEN extract(epoch FROM now() - xact_start)
                WHEN xact_start > now() THEN 0
            END::float8
             AS blocker_age_seconds,
           waits AS blocker_waits,
           -- A row's lock is the wait for a transaction; who waits for it first has
           -- the tuple. Names are those of our own database and of shared relations.
           (SELECT CASE WHEN database IN (0, ours.datid) THEN relation::regclass::text
                   END
              FROM (SELECT coalesce(relation, tuple_of) AS relation,
                           coalesce(database, database_of) AS database, since
                      FROM asked
                      JOIN edges USING (pid)
                      LEFT JOIN LATERAL (
                        SELECT relation AS tuple_of, database AS database_of
                          FROM pg_lock_status() AS held
                         WHERE held.pid = asked.pid AND locktype = 'tuple' AND granted
                         LIMIT 1) AS tuples ON asked.relation IS NULL
                     WHERE edges.blocker = roots.blocker) AS direct,
                   pg_stat_get_activity(pg_backend_pid()) AS ours
             ORDER BY since LIMIT 1) AS blocker_relation
      FROM roots
      LEFT JOIN LATERAL pg_stat_get_activity(roots.blocker) ON true
     ORDER BY waits DESC, xact_start
     LIMIT 1) AS root ON true
"""

# Nearly always nobody waits. PostgreSQL prepares the whole of a question, run or not, and
# for the one above that takes ten times as long as the look at the locks: so it is asked
# by query_to_xml, and only then.
_SQL: Final = f"""
SELECT lock_waiters, lock_wait_oldest_seconds,
       CASE WHEN lock_waiters > 0 THEN
         substring(query_to_xml($sql$
           SELECT to_json(pile) AS said FROM ({_PILE}) AS pile
         $sql$, false, true, '')::text FROM '<said>(.*)</said>')
       END AS pile
  FROM (SELECT count(DISTINCT pid)::int AS lock_waiters,
               greatest(extract(epoch FROM now() - min(waitstart)), 0)::float8
                 AS lock_wait_oldest_seconds
          FROM pg_lock_status()
         WHERE NOT granted) AS waits
"""

_NO_PILE: Final[Seen] = {
    "lock_blockers": 0,
    "lock_chain_depth": 0,
    "blocker_pid": None,
    "blocker_application": None,
    "blocker_state": None,
    "blocker_age_seconds": None,
    "blocker_waits": None,
    "blocker_relation": None,
}


def _reads(rows: Rows) -> Seen:
    seen = dict(rows[0])
    pile = seen.pop("pile")
    return {**seen, **(json.loads(unescape(pile)) if pile else _NO_PILE)}


BLOCKING: Final = Probe(
    name="blocking",
    says="sessions that wait for locks, and the one at the front that blocks them",
    needs="pg_monitor, to see what the blocker does",
    plan=ProbePlan(interval=5.0, timeout=0.5),
    asks=lambda _server: _SQL,
    reads=_reads,
    shows=(
        gauge(
            "pgbreaker_lock_waiters", "Sessions that wait for a lock.", "lock_waiters"
        ),
        gauge(
            "pgbreaker_lock_wait_oldest_seconds",
            "Time that the longest wait for a lock has taken so far, in seconds.",
            "lock_wait_oldest_seconds",
        ),
        gauge(
            "pgbreaker_lock_chain_depth",
            "Waits in the longest chain of sessions that wait for each other.",
            "lock_chain_depth",
        ),
        gauge(
            "pgbreaker_lock_blockers",
            "Sessions that others wait for and that wait for no lock themselves.",
            "lock_blockers",
        ),
    ),
)
