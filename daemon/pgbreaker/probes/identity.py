"""Which server answers here: its role, its start, its version, its cluster."""

from typing import Final

from pgbreaker.core.metric import gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.probes.probe import Probe, Server

# Functions, not views: they answer while pg_database is locked.
_SQL: Final = """
SELECT pg_is_in_recovery() AS in_recovery,
       extract(epoch FROM pg_postmaster_start_time())::float8 AS started,
       current_setting('server_version_num')::int AS version,
       (pg_control_system()).system_identifier::text AS system_id,
       control.timeline_id AS timeline,
       extract(epoch FROM control.checkpoint_time)::float8 AS checkpoint_at,
       extract(epoch FROM {counters_since})::float8 AS counters_since,
       pg_has_role(current_user, 'pg_monitor', 'USAGE') AS is_monitor,
       pg_backend_pid() AS backend_pid
  FROM pg_control_checkpoint() AS control
"""

# A server that recovers from a crash of one of its processes keeps the time of its
# start, but it discards its statistics.
_RESET: Final = "pg_stat_get_bgwriter_stat_reset_time()"
# Before 15 a look at statistics has the collector write a file, and us read all of it,
# each time. But its processes are others after a crash. (NULL without pg_monitor.)
_RESET_14: Final = """(
         SELECT max(backend_start) FROM pg_stat_get_activity(NULL)
          WHERE backend_type = 'checkpointer')"""


def _asks(server: Server) -> str:
    return _SQL.format(counters_since=_RESET if server.major >= 15 else _RESET_14)


IDENTITY: Final = Probe(
    name="identity",
    says="which server answers: its role, start, version and cluster",
    plan=ProbePlan(interval=2.0, timeout=0.5),
    asks=_asks,
    shows=(
        gauge(
            "pgbreaker_server_start_time_seconds",
            "Unix time at which the server started, in seconds.",
            "started",
        ),
        gauge(
            "pgbreaker_in_recovery",
            "1 while the server is in recovery: a replica.",
            "in_recovery",
        ),
        gauge(
            "pgbreaker_through_pooler",
            "1 where a pooler stands between the daemon and the server.",
            "through_pooler",
        ),
    ),
)
