"""How far replicas are behind: the primary's view of them, and a replica's of itself."""

import re
from collections.abc import Mapping
from typing import Any, Final

from pgbreaker.core.metric import Shown, gauge
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Finding, Seen
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.probes.probe import Probe, Rows

# One question for both roles, and the server says which it has: a replica that was
# promoted a moment ago must not be told that its WAL receiver is missing.
#
# What was received is read before what was replayed: the other way round, a record
# that arrives in between makes an idle replica look as far behind as its last commit.
#
# *_lag keeps its last value when a standby freezes, and is NULL when it is idle. So a
# standby that has all there is has no lag, and one that has not and says nothing for
# two of its status intervals has at least its silence. (reply_time is by its clock.)
#
# A replica that has replayed no commit since it began has none to tell its age by: then
# its data are as old as that at least.
#
# A backup is a WAL sender too, but has no position. Without pg_monitor the rows of
# others hold the pid alone.
_SQL: Final = """
SELECT here.is_replica,
       here.sync_names,
       peers.*,
       receiver.pid IS NOT NULL AS has_receiver,
       receiver.status AS receiver_status,
       extract(epoch FROM clock_timestamp() - receiver.last_msg_receipt_time)::float8
         AS receiver_silence,
       extract(epoch FROM here.receiver_timeout)::float8 AS receiver_timeout,
       here.receiver_wanted,
       CASE WHEN here.is_replica
            THEN pg_wal_lsn_diff(here.head, pg_last_wal_replay_lsn()) END AS behind,
       extract(epoch FROM clock_timestamp()
               - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time())
              )::float8 AS commit_age,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END AS is_paused
  FROM (SELECT pg_is_in_recovery() AS is_replica,
               CASE WHEN pg_is_in_recovery()
                    THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                    ELSE pg_current_wal_lsn() END AS head,
               current_setting('synchronous_standby_names') AS sync_names,
               current_setting('wal_receiver_timeout')::interval AS receiver_timeout,
               CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
                    THEN current_setting('primary_conninfo') <> '' END
                 AS receiver_wanted
        OFFSET 0) AS here
 CROSS JOIN pg_stat_get_wal_receiver() AS receiver
 CROSS JOIN LATERAL
       (SELECT count(*) FILTER (WHERE state IS NULL) AS hidden,
               count(*) FILTER (WHERE state = 'streaming'
                                  AND sync_state IN ('sync', 'quorum')) AS sync_present,
               json_agg(json_build_object(
                 'standby', standby, 'state', state, 'sync_state', sync_state,
                 'sent_bytes', sent_bytes, 'write_bytes', write_bytes,
                 'flush_bytes', flush_bytes, 'replay_bytes', replay_bytes,
                 'write_seconds', CASE WHEN write_bytes = 0 THEN 0
                                  ELSE greatest(write_lag, silence) END,
                 'flush_seconds', CASE WHEN flush_bytes = 0 THEN 0
                                  ELSE greatest(flush_lag, silence) END,
                 'replay_seconds', CASE WHEN replay_bytes = 0 THEN 0
                                   ELSE greatest(replay_lag, silence) END)
                 ORDER BY rank) FILTER (WHERE state IS NOT NULL AND rank <= 10)
                 AS standbys
          FROM (SELECT *,
                       row_number() OVER (ORDER BY replay_bytes DESC NULLS LAST,
                                                   standby) AS rank
                  FROM (SELECT CASE
                          WHEN count(*) OVER (PARTITION BY application_name) = 1
                          THEN application_name
                          WHEN count(*) OVER (PARTITION BY application_name,
                                                           client_addr) = 1
                          THEN application_name || ' '
                               || coalesce(host(client_addr), 'local')
                          ELSE application_name || ' ' || sender.pid END AS standby,
                               sender.state, sync_state,
                               greatest(pg_wal_lsn_diff(head, sent_lsn), 0)
                                 AS sent_bytes,
                               greatest(pg_wal_lsn_diff(head, write_lsn), 0)
                                 AS write_bytes,
                               greatest(pg_wal_lsn_diff(head, flush_lsn), 0)
                                 AS flush_bytes,
                               greatest(pg_wal_lsn_diff(head, replay_lsn), 0)
                                 AS replay_bytes,
                               extract(epoch FROM write_lag)::float8 AS write_lag,
                               extract(epoch FROM flush_lag)::float8 AS flush_lag,
                               extract(epoch FROM replay_lag)::float8 AS replay_lag,
                               CASE WHEN clock_timestamp() - reply_time > '20 s'
                                    THEN extract(epoch FROM
                                         clock_timestamp() - reply_time)::float8 END
                                 AS silence
                          FROM pg_stat_get_wal_senders() AS sender
                          JOIN pg_stat_get_activity(NULL) AS activity
                            ON activity.pid = sender.pid
                         WHERE sender.state IS DISTINCT FROM 'backup') AS named
               ) AS ranked) AS peers
"""

# An idle primary says nothing of its own accord. The receiver asks it for a sign of
# life after half its timeout; if none came some seconds later, none will.
_SIGN_WITHIN: Final[Seconds] = 5.0
_SIGN_DEFAULT: Final[Seconds] = 30.0


def reads(rows: Rows) -> Seen:
    """Name what was seen; of a primary and a replica each only what they have."""
    if not rows:
        return NOTHING
    row = rows[0]
    seen: dict[str, Any] = {"standbys": tuple(row["standbys"] or ())}
    if not row["is_replica"]:
        seen["sync_wanted"] = sync_wanted(row["sync_names"])
        # Of a sender whose state is not for us to see, it is not known.
        seen["sync_present"] = None if row["hidden"] else row["sync_present"]
        return seen
    seen["wal_receiver_up"] = int(_streams(row))
    seen["wal_receiver_wanted"] = row["receiver_wanted"]
    seen["replay_age_seconds"] = replay_age(row)
    seen["replay_paused"] = row["is_paused"]
    seen["received_replayed_bytes"] = row["behind"]
    return seen


def sync_wanted(names: str) -> int:
    """Count the standbys that a commit waits for, by ``synchronous_standby_names``."""
    if not names.strip():
        return 0
    several = re.match(r"\s*(?:(?:FIRST|ANY)\s+)?(\d+)\s*\(", names, re.IGNORECASE)
    return int(several[1]) if several else 1


def replay_age(row: Mapping[str, Any]) -> Seconds | None:
    """Say how old the data of a replica are, None when that cannot be known.

    The age of the last commit alone would grow for ever behind an idle primary. That
    all that was received is replayed alone would be 0 for ever when the line is cut.
    """
    if not _streams(row) or row["behind"] is None:
        return None
    if row["behind"] > 0:
        age: Seconds | None = row["commit_age"]
        return age if age is None else max(age, 0.0)
    silence, timeout = row["receiver_silence"], row["receiver_timeout"]
    if silence is None:  # not for us to see
        return 0.0
    allowed = (timeout / 2 if timeout else _SIGN_DEFAULT) + _SIGN_WITHIN
    return silence if silence > allowed else 0.0


def _streams(row: Mapping[str, Any]) -> bool:
    # Without pg_monitor the pid is all there is to see.
    return row["has_receiver"] and row["receiver_status"] in (None, "streaming")


def weighs(seen: Seen, _took: Seconds, limit: Seconds) -> str | None:
    """Find a replica bad that is cut off, or further behind than *limit*."""
    # One that takes its WAL from an archive has no receiver, and needs none.
    if seen.get("wal_receiver_up") == 0 and seen["wal_receiver_wanted"] is not False:
        return "its WAL receiver does not stream from its primary"
    age = seen.get("replay_age_seconds")
    if isinstance(age, int | float) and age > limit:
        return f"replays {lasting(age)} behind its primary (limit {lasting(limit)})"
    return None


def _by_stage(unit: str, says: str, stages: tuple[str, ...]) -> list[Shown]:
    return [
        gauge(
            f"pgbreaker_replication_lag_{unit}",
            says,
            f"{stage}_{unit}",
            rows="standbys",
            by=("standby",),
            labels={"stage": stage},
        )
        for stage in stages
    ]


REPLICATION: Final = Probe(
    name="replication",
    says="how far replicas are behind, and whether this one still hears its primary",
    needs="pg_monitor",
    plan=ProbePlan(interval=5.0, timeout=0.5),
    asks=lambda _server: _SQL,
    reads=reads,
    shows=(
        *_by_stage(
            "bytes",
            "WAL that a standby was not yet sent, has not written, flushed, replayed;"
            " of the ten furthest behind.",
            ("sent", "write", "flush", "replay"),
        ),
        *_by_stage(
            "seconds",
            "Seconds by which a standby writes, flushes, replays later than its"
            " primary; of the ten furthest behind.",
            ("write", "flush", "replay"),
        ),
        gauge(
            "pgbreaker_replay_age_seconds",
            "How old the data of a replica are; absent when it hears no primary.",
            "replay_age_seconds",
        ),
        gauge(
            "pgbreaker_wal_receiver_up",
            "Whether a replica streams from its primary.",
            "wal_receiver_up",
        ),
        gauge(
            "pgbreaker_sync_standbys",
            "Synchronous standbys that a commit waits for, and those that are there.",
            "sync_wanted",
            labels={"kind": "wanted"},
        ),
        gauge(
            "pgbreaker_sync_standbys",
            "Synchronous standbys that a commit waits for, and those that are there.",
            "sync_present",
            labels={"kind": "present"},
        ),
        gauge(
            "pgbreaker_replay_paused",
            "Whether somebody paused the replay of a replica.",
            "replay_paused",
        ),
    ),
    weighs=weighs,
    beyond=Finding.LAGGING,
)
