"""What the features of the model are called by people."""

from collections.abc import Mapping
from typing import Final

_SAYS: Final[Mapping[str, str]] = {
    "ping": "how long a ping takes",
    "login": "how long a login takes",
    "commit": "how long a commit takes",
    "latency": "how long the canary takes",
    "statements": "how long statements take",
    "errors": "how much of what is asked fails or is slow",
    "lock_waiters": "how many sessions wait for locks",
    "active": "how many clients are active",
    "used": "how many slots are taken",
    "idle_in_transaction": "how many clients are idle in transaction",
    "waiting": "how many clients wait for I/O or within the server",
    "oldest_transaction": "how old the oldest transaction is",
    "connects": "how many sessions begin",
    "rollbacks": "how many transactions are rolled back",
    "pool_wait": "how long clients wait for the pooler",
    "lag": "how far the replica is behind",
    "change": "how sure a change is",
}


def said_of(feature: str) -> str:
    """Name a feature for people; how much a signal is, and how unlike usual, are one."""
    return _SAYS[feature.removesuffix("_level")]
