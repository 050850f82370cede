"""Whether the server answers at all.

By the simple protocol: one round trip, and no prepared statement for a pooler to
stumble over.
"""

from typing import Final

from pgbreaker.core.plan import ProbePlan
from pgbreaker.probes.probe import Probe

SQL: Final = "SELECT 1"

PING: Final = Probe(
    name="ping",
    says="`SELECT 1` on the held connection; cannot be switched off",
    plan=ProbePlan(interval=1.0, timeout=0.5),
    asks=lambda _server: SQL,
)
