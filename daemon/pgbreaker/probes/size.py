"""How large it all is on disk. Reads directories, so it is asked seldom.

Templates are left out: they are as large today as they were on the first day.
"""

from typing import Any, Final

from pgbreaker.core.metric import gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Seen
from pgbreaker.probes.probe import Place, Probe, Rows

# A database that is dropped meanwhile has no size. All of this fails with 55P03 while
# pg_database is locked: without it there are no databases to ask about. Locks on
# tables do not matter, the files of a database are counted from outside.
#
# The directory of temporary files of pg_global is that of pg_default.
_SQL: Final = """
SELECT (SELECT json_agg(s) FROM
         (SELECT CASE WHEN rank <= 20 THEN datname ELSE 'other' END AS database,
                 sum(bytes) AS bytes
            FROM (SELECT datname::text, bytes,
                         row_number() OVER (ORDER BY bytes DESC NULLS LAST, datname)
                           AS rank
                    FROM (SELECT datname, pg_database_size(oid) AS bytes
                            FROM pg_database
                           WHERE NOT datistemplate) AS measured) AS ranked
           GROUP BY 1 ORDER BY bytes DESC NULLS LAST) AS s) AS sizes,
       (SELECT coalesce(sum(size), 0) FROM pg_ls_waldir()) AS wal_directory_bytes,
       (SELECT coalesce(sum(file.size), 0)
          FROM pg_tablespace AS space, pg_ls_tmpdir(space.oid) AS file
         WHERE space.spcname <> 'pg_global') AS temp_directory_bytes
"""


def reads(rows: Rows) -> Seen:
    """Name what was seen."""
    if not rows:
        return NOTHING
    seen: dict[str, Any] = dict(rows[0])
    seen["sizes"] = tuple(seen["sizes"] or ())
    sizes = sum(row["bytes"] or 0 for row in seen["sizes"])
    seen["disk_used_bytes"] = (
        sizes + seen["wal_directory_bytes"] + seen["temp_directory_bytes"]
    )
    return seen


SIZE: Final = Probe(
    name="size",
    says="how large databases, the WAL and temporary files are on disk",
    needs="pg_monitor",
    plan=ProbePlan(interval=900.0, timeout=10.0),
    asks=lambda _server: _SQL,
    reads=reads,
    shows=(
        gauge(
            "pgbreaker_database_size_bytes",
            "Size of a database; of the twenty largest, and of all others together.",
            "bytes",
            rows="sizes",
            by=("database",),
        ),
        gauge(
            "pgbreaker_wal_directory_bytes",
            "Size of the WAL that is kept.",
            "wal_directory_bytes",
        ),
        gauge(
            "pgbreaker_temp_directory_bytes",
            "Size of the temporary files that queries have spilled.",
            "temp_directory_bytes",
        ),
    ),
    place=Place.FRESH,
    is_dear=True,
)
