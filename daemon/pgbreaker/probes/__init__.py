"""The probes, one a file. To add one: write the file, add the line.

Floor 2. A probe is a question and what is known of it beforehand; it does not judge,
time, log or retry.
"""

from collections.abc import Mapping
from typing import Final

from pgbreaker.probes.blocking import BLOCKING
from pgbreaker.probes.commit import COMMIT
from pgbreaker.probes.conn_watch import CONN_WATCH
from pgbreaker.probes.custom import CUSTOM, custom
from pgbreaker.probes.database import DATABASE
from pgbreaker.probes.identity import IDENTITY
from pgbreaker.probes.latency import LATENCY
from pgbreaker.probes.login import LOGIN
from pgbreaker.probes.maintenance import MAINTENANCE
from pgbreaker.probes.patroni import PATRONI
from pgbreaker.probes.pgbouncer import PGBOUNCER
from pgbreaker.probes.ping import PING
from pgbreaker.probes.probe import Probe
from pgbreaker.probes.replication import REPLICATION
from pgbreaker.probes.saturation import SATURATION
from pgbreaker.probes.size import SIZE
from pgbreaker.probes.slots import SLOTS
from pgbreaker.probes.statements import STATEMENTS
from pgbreaker.probes.wal import WAL

PROBES: Final[Mapping[str, Probe]] = {
    "conn_watch": CONN_WATCH,
    "ping": PING,
    "login": LOGIN,
    "commit": COMMIT,
    "identity": IDENTITY,
    "saturation": SATURATION,
    "blocking": BLOCKING,
    "latency": LATENCY,
    "replication": REPLICATION,
    "slots": SLOTS,
    "database": DATABASE,
    "statements": STATEMENTS,
    "wal_ckpt": WAL,
    "maintenance": MAINTENANCE,
    "size": SIZE,
    "pgbouncer": PGBOUNCER,
    "patroni": PATRONI,
    "custom": CUSTOM,
}


def probe_called(name: str) -> Probe:
    """The probe of this name; ``custom.<query>`` is one of the user's own."""
    return PROBES[name] if name in PROBES else custom(name)
