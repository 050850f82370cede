"""One server as an application knows it: a breaker of its own, above those of each kind
of work on it.

The breaker of the whole hears of nothing but connections. When ten of them fail in a row,
whatever they were for, there is no point in each operation finding out for itself; while
a statement that times out, or a table that is locked, is the business of its operation
alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.states import State
from pgbreaker.core.units import Seconds
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.config import CONNECT, PostgreSQLCircuitBreakerConfig

_OPERATION: Final[ContextVar[str | None]] = ContextVar(
    "pgbreaker_operation", default=None
)


@contextmanager
def operation(name: str) -> Iterator[None]:
    """Say which kind of work the calls within the block are.

    For guards that cannot know it themselves, such as those in a connection pool.
    """
    before = set_operation(name)
    try:
        yield
    finally:
        set_operation(before)


def set_operation(name: str | None) -> str | None:
    """Say it from now on; gives what was said before.

    Not undone by a token of the context variable: a web framework may leave a block in
    another context than it entered it.
    """
    before = _OPERATION.get()
    _OPERATION.set(name)
    return before


def current_operation() -> str | None:
    """The kind of work that `operation` has said, None outside of any."""
    return _OPERATION.get()


class Wave:
    """Sessions that ended together, which is one event and not many.

    A restart ends every pooled session at once. Each is found dead when it is next
    used, perhaps minutes later, when the server has long been back: that is no news of
    it. So of sessions that are lost only the first counts, until one is lost that was
    made since.
    """

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began: Seconds | None = None

    def is_stale(self, made_at: Seconds, now: Seconds) -> bool:
        """Take note of a session that was lost; says whether it was one of many.

        Args:
            made_at: Moment at which it was connected.
        """
        if self._began is not None and made_at <= self._began:
            return True
        self._began = now
        return False


class Target:
    """A server, and the breakers of the work on it.

    Attributes:
        name: Its name; ``NAME`` is also the breaker of work that is of no named kind,
            ``NAME/OPERATION`` of work that is, ``NAME/connect`` the one above them.
        config: Rules of the breakers of its operations.
        connect: The breaker of the whole server.
        wave: Its sessions that ended together.
    """

    def __init__(
        self,
        name: str,
        config: PostgreSQLCircuitBreakerConfig | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.config = config or PostgreSQLCircuitBreakerConfig()
        self.wave = Wave()
        self._clock = clock
        above = CONNECT.replace(
            enable_detailed_logging=self.config.enable_detailed_logging,
            metrics_collection_enabled=self.config.metrics_collection_enabled,
            retry_ratio=self.config.retry_ratio,
        )
        self.connect = PostgreSQLCircuitBreaker(f"{name}/connect", above, clock=clock)
        self.connect.target, self.connect.operation = name, "connect"
        self._breakers: dict[str | None, PostgreSQLCircuitBreaker] = {}
        self._why_disabled: str | None = None

    def __repr__(self) -> str:
        return f"<Target {self.name!r} {', '.join(b.name for b in self.breakers)}>"

    @property
    def is_enabled(self) -> bool:
        """Whether its breakers refuse calls, or only measure."""
        return self._why_disabled is None

    def disable(self, reason: str) -> None:
        """Have its breakers measure and show, but refuse nothing."""
        self._why_disabled = reason
        for breaker in self.breakers:
            breaker.force(State.METRICS_ONLY, reason)

    @property
    def breakers(self) -> tuple[PostgreSQLCircuitBreaker, ...]:
        """The one above, and those that were asked for so far."""
        return (self.connect, *self._breakers.values())

    def breaker(self, operation: str | None = None) -> PostgreSQLCircuitBreaker:
        """The breaker of one kind of work; the same one each time.

        Args:
            operation: The kind of work, such as ``read``: a word from a short list,
                for each makes a breaker. None: what `operation` says, or no named
                kind.

        Raises:
            ValueError: ``connect`` is the one above.
        """
        operation = operation or current_operation()
        found = self._breakers.get(operation)
        if found is not None:
            return found
        if operation == "connect":
            raise ValueError(
                f"{self.name}/connect is the breaker of the whole server;"
                " call the operation something else"
            )
        name = self.name if operation is None else f"{self.name}/{operation}"
        made = PostgreSQLCircuitBreaker(
            name, self.config, above=self.connect, clock=self._clock
        )
        made.target, made.operation = self.name, operation
        # Of two threads that come here at once, the first one's is everybody's.
        made = self._breakers.setdefault(operation, made)
        if self._why_disabled is not None:
            made.force(State.METRICS_ONLY, self._why_disabled)
        return made
