"""What wears out unless somebody looks after it: dead rows, sequences, old snapshots."""

from typing import Any, Final

from pgbreaker.core.metric import gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Seen
from pgbreaker.probes.probe import Place, Probe, Rows

# The functions behind pg_stat_user_tables take no lock; pg_class is read once.
_TABLES: Final = """
SELECT nspname || '.' || relname AS "table",
       dead::float8 / (live + dead) AS dead_ratio,
       dead AS dead_tuples,
       extract(epoch FROM clock_timestamp() - pg_stat_get_last_autovacuum_time(id))
         ::float8 AS last_autovacuum_age_seconds
  FROM (SELECT nspname, relname, c.oid AS id,
               pg_stat_get_live_tuples(c.oid) AS live,
               pg_stat_get_dead_tuples(c.oid) AS dead
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
         WHERE relkind IN ('r', 'm') AND relpersistence <> 't'
           AND nspname NOT IN ('pg_catalog', 'information_schema')
        OFFSET 0) AS counted
 WHERE dead > 1000
 ORDER BY dead DESC, 1
 LIMIT 10
"""

# By number the columns are the same from 14 to 18, by name they are not. The name of a
# table in another database is not to be had from here.
_VACUUMS: Final = """
SELECT nspname || '.' || relname AS "table",
       least(param3::float8 / nullif(param2, 0), 1) AS progress_ratio
  FROM pg_stat_get_progress_info('VACUUM') AS v
  JOIN pg_class AS c ON c.oid = v.relid
  JOIN pg_namespace AS n ON n.oid = relnamespace
 WHERE v.datid = (SELECT datid FROM pg_stat_get_activity(pg_backend_pid()))
 ORDER BY param2 DESC, 1
 LIMIT 5
"""

# pg_sequence_last_value opens the sequence, and there is no way to open it without a
# lock. So those are left out that somebody has locked, or waits to lock: one of them
# would cost us all the rest. And no more than 200 are opened, because each takes a
# place in the lock table until the statement ends, and a full lock table fails
# everybody's statements. First those whose tables say that they are used most; the
# rows of a table do not outnumber its ids. What was left out is counted.
#
# To open a sequence that is dropped meanwhile is an error (XX000). So those of the last
# hundred transactions are passed over: where tables come and go, as in tests, they are
# the ones that go. And the privilege is asked for once more right before, for it is
# unknown of one that is gone. (An xmin of long ago may seem to be one to come.)
#
# A bigint sequence under an integer column ends where the column does.
_SEQUENCES: Final = """
SELECT count(*) FILTER (WHERE ratio IS NULL) AS sequences_hidden,
       json_agg(json_build_object('sequence', name, 'ratio', ratio)
                ORDER BY ratio DESC, name)
         FILTER (WHERE ratio IS NOT NULL AND rank <= 5) AS sequences
  FROM (SELECT name, ratio,
               row_number() OVER (ORDER BY ratio DESC NULLS LAST, name) AS rank
          FROM (SELECT name,
                       CASE WHEN may_read AND place <= 200
                                 AND has_sequence_privilege(id, 'SELECT,USAGE')
                            THEN coalesce(pg_sequence_last_value(id::regclass), 0)
                                 ::float8 / ends END AS ratio
                  FROM (SELECT *, row_number() OVER (
                                    ORDER BY may_read DESC, used DESC, id) AS place
                          FROM (SELECT nspname || '.' || relname AS name,
                                       s.seqrelid AS id,
                                       least(s.seqmax, owner.ends) AS ends,
                                       coalesce(owner.rows, 0) / s.seqmax AS used,
                                       has_sequence_privilege(s.seqrelid,
                                                              'SELECT,USAGE')
                                         AND s.seqrelid NOT IN (
                                           SELECT relation FROM pg_lock_status()
                                            WHERE relation IS NOT NULL
                                              AND mode IN ('ShareLock',
                                                           'ShareRowExclusiveLock',
                                                           'ExclusiveLock',
                                                           'AccessExclusiveLock'))
                                         AS may_read
                                  FROM pg_sequence AS s
                                  JOIN pg_class AS c ON c.oid = s.seqrelid
                                  JOIN pg_namespace AS n ON n.oid = relnamespace
                                  LEFT JOIN LATERAL
                                       (SELECT CASE a.atttypid
                                               WHEN 'int2'::regtype THEN 32767
                                               WHEN 'int4'::regtype THEN 2147483647
                                               ELSE s.seqmax END AS ends,
                                               t.reltuples::float8 AS rows
                                          FROM pg_depend AS d
                                          JOIN pg_attribute AS a
                                            ON a.attrelid = d.refobjid
                                           AND a.attnum = d.refobjsubid
                                          JOIN pg_class AS t ON t.oid = d.refobjid
                                         WHERE d.classid = 'pg_class'::regclass
                                           AND d.objid = s.seqrelid
                                           AND d.refclassid = 'pg_class'::regclass
                                           AND d.refobjsubid > 0
                                           AND d.deptype IN ('a', 'i')
                                         LIMIT 1) AS owner ON true
                                 WHERE s.seqincrement > 0
                                   AND age(c.xmin) NOT BETWEEN 0 AND 100
                                   AND (NOT s.seqcycle OR owner.ends < s.seqmax)
                                   AND (relpersistence = 'p'
                                        OR relpersistence = 'u'
                                           AND NOT pg_is_in_recovery())
                                OFFSET 0) AS known
                        OFFSET 0) AS placed
                OFFSET 0) AS read) AS ranked
"""

# A transaction that has written holds the horizon by its xid even while it has no
# snapshot. VACUUM itself does not hold it, though it shows an xmin.
_HORIZON: Final = """
SELECT age AS xmin_age, holder AS xmin_holder
  FROM (SELECT greatest(age(backend_xmin), age(backend_xid)) AS age,
               CASE backend_type WHEN 'walsender' THEN 'standby' ELSE 'pid' END
                 || ' ' || pid || coalesce(', ' || nullif(application_name, ''), '')
                 AS holder
          FROM pg_stat_get_activity(NULL)
         WHERE (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
           AND pid <> pg_backend_pid()
           AND pid NOT IN (SELECT pid FROM pg_stat_get_progress_info('VACUUM')
                            WHERE pid IS NOT NULL)
        UNION ALL
        SELECT greatest(age(xmin), age(catalog_xmin)), 'slot ' || slot_name
          FROM pg_get_replication_slots()
         WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
        UNION ALL
        SELECT age(transaction), 'prepared transaction ' || gid
          FROM pg_prepared_xact()) AS holders
 ORDER BY age DESC
 LIMIT 1
"""

_SQL: Final = f"""
SELECT (SELECT json_agg(t) FROM ({_TABLES}) AS t) AS tables,
       (SELECT count(*) FROM pg_stat_get_progress_info('VACUUM')) AS vacuums_running,
       (SELECT json_agg(v) FROM ({_VACUUMS}) AS v) AS vacuums,
       sequences.*,
       coalesce(horizon.xmin_age, 0) AS xmin_age,
       horizon.xmin_holder,
       prepared.*
  FROM ({_SEQUENCES}) AS sequences
 CROSS JOIN (SELECT count(*) AS prepared_transactions,
                    greatest(extract(epoch FROM clock_timestamp()
                                                - min(prepared)), 0)::float8 AS prepared_oldest_seconds
               FROM pg_prepared_xact()) AS prepared
  LEFT JOIN ({_HORIZON}) AS horizon ON true
"""


def reads(rows: Rows) -> Seen:
    """Name what was seen."""
    if not rows:
        return NOTHING
    seen: dict[str, Any] = dict(rows[0])
    for name in ("tables", "vacuums", "sequences"):
        seen[name] = tuple(seen[name] or ())
    return seen


MAINTENANCE: Final = Probe(
    name="maintenance",
    says="dead rows, running vacuums, sequences near their end, who holds back vacuum",
    needs="pg_monitor; SELECT on sequences (pg_read_all_data) to see how far they are",
    plan=ProbePlan(interval=300.0, timeout=2.0),
    asks=lambda _server: _SQL,
    reads=reads,
    shows=(
        gauge(
            "pgbreaker_dead_tuple_ratio",
            "Share of dead rows; of the ten tables with most of them, from 1,000 up.",
            "dead_ratio",
            rows="tables",
            by=("table",),
        ),
        gauge(
            "pgbreaker_vacuum_running",
            "Vacuums that run, in all databases.",
            "vacuums_running",
        ),
        gauge(
            "pgbreaker_vacuum_progress_ratio",
            "Share of a table that a running vacuum has scanned; of the five largest.",
            "progress_ratio",
            rows="vacuums",
            by=("table",),
        ),
        gauge(
            "pgbreaker_sequence_used_ratio",
            "Share of a sequence that is used up, or of the integer column that it is"
            " for; of the five nearest to their end.",
            "ratio",
            rows="sequences",
            by=("sequence",),
        ),
        gauge(
            "pgbreaker_xmin_age_transactions",
            "Transactions since the oldest one that vacuum must still keep rows for.",
            "xmin_age",
        ),
        gauge(
            "pgbreaker_prepared_transactions",
            "Transactions that were prepared and neither committed nor rolled back.",
            "prepared_transactions",
        ),
        gauge(
            "pgbreaker_prepared_transaction_oldest_seconds",
            "Age of the oldest prepared transaction, 0 without any.",
            "prepared_oldest_seconds",
        ),
    ),
    place=Place.FRESH,
    is_dear=True,
)
