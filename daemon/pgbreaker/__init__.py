"""A circuit breaker for PostgreSQL.

The daemon watches servers from outside and drives breakers; the library guards
an application's calls with the same state machine. Importing `pgbreaker` needs
no third-party package.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from pgbreaker.core.states import State, Transition
from pgbreaker.errors import (
    BulkheadFullError,
    CallTimeoutError,
    CircuitOpenError,
    PgbreakerError,
)
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.bulkhead import Bulkhead
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.decorator import circuit_breaker
from pgbreaker.guard.events import subscribe
from pgbreaker.guard.registry import REGISTRY as registry
from pgbreaker.guard.stale import answered_by, stale, stale_age
from pgbreaker.guard.target import Target, operation
from pgbreaker.postgres.classify import Classification, classify

if TYPE_CHECKING:
    from pgbreaker.guard.follow import Follower as Follower
    from pgbreaker.guard.follow import follow as follow
    from pgbreaker.sqlalchemy.sessions import (
        CircuitBreakerIntegratedSessionManager as CircuitBreakerIntegratedSessionManager,
    )

__version__ = "0.1.0"

# What needs somebody else's package, or takes its time, is imported when it is first
# asked for.
_LATER = {
    "Follower": "pgbreaker.guard.follow",
    "follow": "pgbreaker.guard.follow",
    "CircuitBreakerIntegratedSessionManager": "pgbreaker.sqlalchemy",
}
_ADAPTERS = (
    *("asyncpg", "fastapi", "metrics", "opentelemetry", "psycopg"),
    *("sqlalchemy", "testing"),
)

__all__ = [
    "Bulkhead",
    "BulkheadFullError",
    "CallTimeoutError",
    "CircuitBreakerIntegratedSessionManager",
    "CircuitOpenError",
    "Classification",
    "Follower",
    "PgbreakerError",
    "PostgreSQLCircuitBreaker",
    "PostgreSQLCircuitBreakerConfig",
    "State",
    "Target",
    "Transition",
    "__version__",
    "answered_by",
    "circuit_breaker",
    "classify",
    "follow",
    "operation",
    "registry",
    "stale",
    "stale_age",
    "subscribe",
]


def __getattr__(name: str) -> object:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    if name in _ADAPTERS:
        return import_module(f"pgbreaker.{name}")
    raise AttributeError(f"module 'pgbreaker' has no attribute {name!r}")
