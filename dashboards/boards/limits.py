"""At which number each alert fires, so that a panel draws the line where the alert is.

A test holds every one of them against alerts/pgbreaker.rules.yml, or, where the daemon and
not a rule decides, against what it goes by.
"""

from dataclasses import dataclass
from typing import Final

CRITICAL: Final = "red"
WARNING: Final = "orange"

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR


@dataclass(frozen=True)
class Limit:
    """Where an alert begins.

    Attributes:
        alert: Its name, without Pgbreaker before it.
        value: The number that its expression compares with, in the metric's unit.
        color: That of its severity.
        below: Whether it fires below the number, and not from it on.
    """

    alert: str
    value: float
    color: str = WARNING
    below: bool = False


PROBE_STALE: Final = Limit("ProbeStale", 75, CRITICAL)
FAILURE_RATE: Final = Limit("FailureRateHigh", 0.7, CRITICAL)
RECOVERY: Final = Limit("RecoverySlow", 300, CRITICAL)
FLAPPING: Final = Limit("BreakerFlapping", 2.5)
DISAGREE: Final = Limit("ApplicationsDisagree", 0.25)

POOL_FULL: Final = Limit("PoolExhausted", 1, CRITICAL)
POOL_SATURATED: Final = Limit("PoolSaturated", 0.9)
POOL_PREDICTED: Final = Limit("PoolExhaustionPredicted", 1)
POOLER_FULL: Final = Limit("PoolerExhausted", 1, CRITICAL)
SERVER_FULL: Final = Limit("ConnectionsExhausted", 1, CRITICAL)
SERVER_HIGH: Final = Limit("ConnectionsHigh", 0.85)

STATEMENTS: Final = Limit("QuerySlow", 4)
LOCKS: Final = Limit("LocksPiledUp", 5)
REPLAY: Final = Limit("ReplicaStale", 300)
TRANSACTION: Final = Limit("TransactionOld", 3600)

SERVER_PREDICTED: Final = Limit("ConnectionExhaustionPredicted", HOUR, below=True)
POOLER_PREDICTED: Final = Limit("PoolerExhaustionPredicted", 1800, below=True)
LAG_PREDICTED: Final = Limit("ReplicaLagPredicted", 1800, below=True)
RUNWAY: Final = Limit("RunwayShort", 10 * DAY, below=True)
LIKELY: Final = Limit("FailurePredicted", 0.8)
MODEL_STALE: Final = Limit("ModelStale", 6 * HOUR)

BURN_HOUR: Final = Limit("ErrorBudgetBurnFast", 14.4, CRITICAL)
BURN_SHIFT: Final = Limit("ErrorBudgetBurnFast", 6, CRITICAL)
BURN_DAY: Final = Limit("ErrorBudgetBurnSlow", 3)
BURN_DAYS: Final = Limit("ErrorBudgetBurnSlow", 1)

LATENESS: Final = Limit("DaemonLate", 0.5)
LOOP_LATE: Final = Limit("DaemonLate", 0.1)
