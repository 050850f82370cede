"""What statements have cost in all, as pg_stat_statements counts it."""

import json
from typing import Final

from pgbreaker.core.metric import counter
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Seen
from pgbreaker.probes.absent import AbsentError
from pgbreaker.probes.probe import Probe, Rows

# The extension is in a schema of somebody's choice, and our search_path is pg_catalog:
# so the name is put together in the question, and query_to_xml asks it. What columns
# are called depends on the version of the extension, which is not the server's after an
# upgrade. With `false` the texts of queries are not read from disk. In a database that
# has the extension while the server has not loaded it, the setting is not known.
_SQL: Final = """
SELECT substring(
         query_to_xml(
           format(
             'SELECT json_build_object(
                       ''statement_calls'', coalesce(sum(calls), 0),
                       ''statement_seconds'', coalesce(sum(%s), 0) / 1000,
                       ''statement_rows'', coalesce(sum(rows), 0),
                       ''statement_read_seconds'', coalesce(sum(%s), 0) / 1000,
                       ''statement_evictions'', %s) AS said
                FROM %I.pg_stat_statements(false)',
             CASE WHEN version >= '{1,8}' THEN 'total_exec_time' ELSE 'total_time' END,
             CASE WHEN version >= '{1,11}' THEN 'shared_blk_read_time'
                  ELSE 'blk_read_time' END,
             CASE WHEN version >= '{1,9}' THEN
               format('(SELECT dealloc FROM %I.pg_stat_statements_info())', nspname)
                  ELSE 'NULL' END,
             nspname),
           false, true, '')::text
         FROM '<said>(.*)</said>') AS said
  FROM (SELECT nspname, string_to_array(extversion, '.')::int[] AS version
          FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
         WHERE extname = 'pg_stat_statements'
           AND current_setting('pg_stat_statements.max', true) IS NOT NULL) AS found
"""


def _reads(rows: Rows) -> Seen:
    """Raises `AbsentError` when there is no pg_stat_statements."""
    if not rows:
        raise AbsentError(
            "there is no pg_stat_statements: it takes shared_preload_libraries ="
            " 'pg_stat_statements' in the server's settings, and CREATE EXTENSION"
            " pg_stat_statements in the database that is watched"
        )
    seen: Seen = json.loads(rows[0]["said"])
    return seen


STATEMENTS: Final = Probe(
    name="statements",
    says="calls, time and rows of all statements, in all",
    needs="extension pg_stat_statements in the database connected to, USAGE on its schema",
    plan=ProbePlan(interval=30.0, timeout=1.0),
    asks=lambda _server: _SQL,
    reads=_reads,
    shows=(
        counter(
            "pgbreaker_statement_calls_total",
            "Statements executed; falls when the extension is reset.",
            "statement_calls",
        ),
        counter(
            "pgbreaker_statement_seconds_total",
            "Time that statements took to execute, in seconds.",
            "statement_seconds",
        ),
        counter(
            "pgbreaker_statement_rows_total",
            "Rows that statements gave or changed.",
            "statement_rows",
        ),
        counter(
            "pgbreaker_statement_read_seconds_total",
            "Time that statements took to read blocks, in seconds; 0 without track_io_timing.",
            "statement_read_seconds",
        ),
        counter(
            "pgbreaker_statement_evictions_total",
            "Times that the extension has dropped its least used statements; their calls then go from the totals.",
            "statement_evictions",
        ),
    ),
)
