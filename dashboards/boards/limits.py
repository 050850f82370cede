"""At which number each alert fires, so that a panel draws the line where the alert is.

A test holds every one of them against alerts/pgbreaker.rules.yml.
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
SERVER_PREDICTED: Final = Limit("ConnectionExhaustionPredicted", 1800, below=True)

STATEMENTS: Final = Limit("QuerySlow", 4)
LOCKS: Final = Limit("LocksPiledUp", 5)
REPLAY: Final = Limit("ReplicaStale", 300)
TRANSACTION: Final = Limit("TransactionOld", 3600)
RUNWAY_IDS: Final = Limit("RunwayShort", 7 * DAY, below=True)
RUNWAY_BYTES: Final = Limit("RunwayShort", DAY, below=True)

BURN_HOUR: Final = Limit("ErrorBudgetBurnFast", 14.4, CRITICAL)
BURN_SHIFT: Final = Limit("ErrorBudgetBurnFast", 6, CRITICAL)
BURN_DAY: Final = Limit("ErrorBudgetBurnSlow", 3)
BURN_DAYS: Final = Limit("ErrorBudgetBurnSlow", 1)

LATENESS: Final = Limit("DaemonLate", 0.5)
LOOP_LATE: Final = Limit("DaemonLate", 0.1)
