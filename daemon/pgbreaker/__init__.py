"""A circuit breaker for PostgreSQL.

The daemon watches servers from outside and drives breakers; the library guards
an application's calls with the same state machine. Importing `pgbreaker` needs
no third-party package.
"""

from pgbreaker.core.states import State
from pgbreaker.errors import PgbreakerError

__version__ = "0.1.0"

__all__ = ["PgbreakerError", "State", "__version__"]
