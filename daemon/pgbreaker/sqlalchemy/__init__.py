"""SQLAlchemy: engines, sessions, synchronous or not, whatever the driver.

An application that is not to be changed names the plugin in its URL,
``postgresql+asyncpg://...?plugin=pgbreaker&breaker=main``; one that may be, calls
`protect(engine)`, or uses `CircuitBreakerIntegratedSessionManager`.
"""

from pgbreaker.sqlalchemy.engine import Plugin, protect
from pgbreaker.sqlalchemy.sessions import CircuitBreakerIntegratedSessionManager

__all__ = ["CircuitBreakerIntegratedSessionManager", "Plugin", "protect"]
