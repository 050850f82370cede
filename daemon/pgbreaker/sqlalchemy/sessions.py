"""Sessions whose every connection is asked for through a breaker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.deadline import limited
from pgbreaker.guard.monitor import Monitor
from pgbreaker.guard.outcomes import judge
from pgbreaker.guard.retry import WHOLE_TRANSACTION, retrying
from pgbreaker.guard.target import Target, set_operation
from pgbreaker.postgres.classify import Phase
from pgbreaker.sqlalchemy.engine import protect

S = TypeVar("S", bound=AsyncSession)
R = TypeVar("R")


class CircuitBreakerIntegratedSessionManager(Generic[S]):
    """Gives sessions, transactions, and the status of what guards them.

    The engine of the `async_sessionmaker` is protected as `protect` does; one that a
    plugin protects already keeps its target. A session that never needs a connection
    is never refused; one that does is when it first does, by the breaker of its
    operation.

    What kind of work a session is for holds for the task within its block: of two
    sessions of different kinds that one task uses in turn, the inner one decides.

    Attributes:
        target: The server, and its breakers.
        monitor: What can be told of them.
    """

    def __init__(
        self,
        session_manager: async_sessionmaker[S],
        *,
        enable_circuit_breaker: bool = True,
        breaker: str | Target = "main",
        config: PostgreSQLCircuitBreakerConfig | None = None,
    ) -> None:
        """
        Args:
            session_manager: Makes the sessions; it has an asynchronous engine.
            enable_circuit_breaker: False: measure, and refuse nothing.
            breaker: Name of the target, or the target.
            config: Rules of its breakers. None: those it has, or the defaults.

        Raises:
            TypeError: The sessionmaker has no engine.
            ValueError: The target exists, and goes by other rules.
        """
        engine = session_manager.kw.get("bind")
        if not isinstance(engine, AsyncEngine):
            raise TypeError(
                "the sessionmaker has no engine: async_sessionmaker(engine), with one"
                f" made by create_async_engine; its bind is {engine!r}"
            )
        self._sessions = session_manager
        self.target = protect(engine, breaker=breaker, config=config)
        if not enable_circuit_breaker:
            self.target.disable("enable_circuit_breaker=False")
        self.monitor = Monitor(self.target)

    def __repr__(self) -> str:
        return f"<CircuitBreakerIntegratedSessionManager of {self.target!r}>"

    def get_session(self, *, operation: str = "read") -> "Working[S]":
        """A session for the time of an ``async with`` block.

        Args:
            operation: The kind of work, which has a breaker of its own.

        Raises:
            CircuitOpenError: On entering, when the breaker is open; within, when a
                connection is needed and the breaker refuses it.
        """
        return Working(self._sessions, self.target, operation)

    @asynccontextmanager
    async def transaction(self, *, operation: str = "write") -> AsyncIterator[S]:
        """A session in a transaction, which is committed at the end of the block, or
        rolled back by what leaves it.

        Args:
            operation: The kind of work, which has a breaker of its own.

        Raises:
            CircuitOpenError: As `get_session` does.
        """
        async with self.get_session(operation=operation) as session, session.begin():
            yield session

    async def run(
        self,
        fn: Callable[[S], Awaitable[R]],
        *,
        operation: str = "write",
        timeout: Seconds | str | None = None,  # noqa: ASYNC109 - of each attempt
        deadline: Seconds | str | None = None,
    ) -> R:
        """Run *fn* in a transaction, and the whole of it again when that is safe.

        It is when the server has rolled the transaction back (a serialization failure,
        a deadlock), when it never began, and when the connection broke before the
        commit. When the answer to the commit is missing nobody knows, and the error is
        raised. *fn* must leave the commit to us, and whatever else it does may be done
        more than once.

        Args:
            operation: The kind of work, which has a breaker of its own.
            timeout: Seconds, or a text like ``800ms``, for each attempt. None: no
                limit.
            deadline: Seconds, or a text, from the first attempt after which no other
                begins. None: no such limit.

        Raises:
            CircuitOpenError: The breaker refuses.
            CallTimeoutError: An attempt did not come back in time.
        """
        rules = retrying(self.target.config, deadline, idempotent=True)
        breaker = self.target.breaker(operation)
        attempt = Attempt(self, fn, operation)
        call: Callable[[], Awaitable[R]] = attempt.make
        if timeout is not None:
            call = limited(call, seconds_of(timeout, "timeout"), breaker.name)
        begun, number = breaker.clock.now(), 0
        while True:
            try:
                return await call()
            except Exception as error:
                number += 1
                judgement = judge(error, 0.0, None, attempt.phase, strict=True)
                found = judgement.classification
                if attempt.phase is Phase.COMMIT and (
                    found is None or found.retry not in WHOLE_TRANSACTION
                ):
                    raise
                if rules is None:
                    raise
                wait = rules.wait(breaker, judgement, number, begun)
                if wait is None:
                    raise
            await asyncio.sleep(wait)


class Attempt(Generic[S, R]):
    """One way through a transaction, and how far it got.

    Attributes:
        phase: What was being done last.
    """

    def __init__(
        self,
        manager: CircuitBreakerIntegratedSessionManager[S],
        fn: Callable[[S], Awaitable[R]],
        operation: str,
    ) -> None:
        self.phase = Phase.STATEMENT
        self._manager = manager
        self._fn = fn
        self._operation = operation

    async def make(self) -> R:
        """Begin, do the work, commit."""
        self.phase = Phase.STATEMENT
        async with self._manager.transaction(operation=self._operation) as session:
            result = await self._fn(session)
            self.phase = Phase.COMMIT
        return result


class Working(Generic[S]):
    """A session, for the time of a block, that works on one kind of thing."""

    __slots__ = ("_before", "_operation", "_session", "_sessions", "_target")

    def __init__(
        self, sessions: async_sessionmaker[S], target: Target, operation: str
    ) -> None:
        self._sessions = sessions
        self._target = target
        self._operation = operation

    async def __aenter__(self) -> S:
        self._target.breaker(self._operation).peek()
        self._before = set_operation(self._operation)
        self._session = self._sessions()
        return await self._session.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._session.__aexit__(kind, error, trace)
        finally:
            set_operation(self._before)
