"""Whether the held connection is still there: no question, but an event.

The kernel says within milliseconds that a peer has gone, and nothing at all of one that
is frozen; so this is the first sign of a crash or a stop, and the ping that of a freeze.
The sentinel follows it at once by a knock and a login.
"""

from typing import Final

from pgbreaker.core.plan import ProbePlan
from pgbreaker.probes.probe import Probe

CONN_WATCH: Final = Probe(
    name="conn_watch",
    says="the end of the held connection, told by the kernel; always on",
    plan=ProbePlan(interval=0.0, timeout=0.0),  # it is not asked
    is_usual=False,
)
