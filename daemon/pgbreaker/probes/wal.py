"""Where the WAL goes: written, archived, and made good by checkpoints."""

from typing import Final

from pgbreaker.core.metric import counter, gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.probes.probe import Probe, Server

# A replica has its checkpoints from its primary, by whose clock they are dated.
#
# Counting the segments that wait lists a directory; only where something is archived.
_SQL: Final = """
SELECT wal.wal_bytes,
       archiving.is_on AS archiving,
       archiver.archived_count AS archiver_archived,
       archiver.failed_count AS archiver_failed,
       CASE WHEN archiving.is_on
            THEN extract(epoch FROM clock_timestamp() - archiver.last_archived_time)
                 ::float8 END AS last_archived_age_seconds,
       CASE WHEN archiving.is_on
            THEN (SELECT count(*) FROM pg_ls_archive_statusdir()
                   WHERE name LIKE '%.ready') END AS archiver_pending,
       pg_size_bytes(current_setting('wal_segment_size')) AS wal_segment_bytes,
       {timed} AS checkpoints_timed,
       {requested} AS checkpoints_requested,
       {write_time} / 1000 AS checkpoint_write_seconds,
       {sync_time} / 1000 AS checkpoint_sync_seconds,
       greatest(extract(epoch FROM clock_timestamp() - checkpoint.checkpoint_time), 0)
         ::float8 AS checkpoint_age_seconds
  FROM pg_stat_get_wal() AS wal
 CROSS JOIN pg_stat_get_archiver() AS archiver
 CROSS JOIN pg_control_checkpoint() AS checkpoint
 CROSS JOIN (SELECT CASE current_setting('archive_mode')
                    WHEN 'off' THEN false
                    WHEN 'always' THEN true
                    ELSE NOT pg_is_in_recovery() END AS is_on) AS archiving
"""

# Since 17 restartpoints, the checkpoints of a replica, are counted apart.
_SINCE_17: Final = {
    "timed": "pg_stat_get_checkpointer_num_timed()"
    " + pg_stat_get_checkpointer_restartpoints_timed()",
    "requested": "pg_stat_get_checkpointer_num_requested()"
    " + pg_stat_get_checkpointer_restartpoints_requested()",
    "write_time": "pg_stat_get_checkpointer_write_time()",
    "sync_time": "pg_stat_get_checkpointer_sync_time()",
}
_BEFORE: Final = {
    "timed": "pg_stat_get_bgwriter_timed_checkpoints()",
    "requested": "pg_stat_get_bgwriter_requested_checkpoints()",
    "write_time": "pg_stat_get_checkpoint_write_time()",
    "sync_time": "pg_stat_get_checkpoint_sync_time()",
}


def _asks(server: Server) -> str:
    return _SQL.format(**(_SINCE_17 if server.major >= 17 else _BEFORE))


WAL: Final = Probe(
    name="wal_ckpt",
    says="how much WAL is written, whether it is archived, what checkpoints cost",
    needs="pg_monitor",
    plan=ProbePlan(interval=30.0, timeout=1.0),
    asks=_asks,
    shows=(
        counter("pgbreaker_wal_bytes_total", "WAL written.", "wal_bytes"),
        counter(
            "pgbreaker_archiver_failed_total",
            "Attempts to archive a segment that failed.",
            "archiver_failed",
        ),
        gauge(
            "pgbreaker_archiver_last_archived_age_seconds",
            "Time since a segment was archived; absent where none is.",
            "last_archived_age_seconds",
        ),
        gauge(
            "pgbreaker_archiver_pending_segments",
            "Segments that wait to be archived; absent where none is.",
            "archiver_pending",
        ),
        counter(
            "pgbreaker_checkpoints_total",
            "Checkpoints, on a replica restartpoints, by what asked for them.",
            "checkpoints_timed",
            labels={"kind": "timed"},
        ),
        counter(
            "pgbreaker_checkpoints_total",
            "Checkpoints, on a replica restartpoints, by what asked for them.",
            "checkpoints_requested",
            labels={"kind": "requested"},
        ),
        counter(
            "pgbreaker_checkpoint_seconds_total",
            "Time that checkpoints took to write and to sync.",
            "checkpoint_write_seconds",
            labels={"phase": "write"},
        ),
        counter(
            "pgbreaker_checkpoint_seconds_total",
            "Time that checkpoints took to write and to sync.",
            "checkpoint_sync_seconds",
            labels={"phase": "sync"},
        ),
        gauge(
            "pgbreaker_checkpoint_age_seconds",
            "Time since the last checkpoint that is complete was begun.",
            "checkpoint_age_seconds",
        ),
    ),
)
