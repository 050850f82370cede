"""Pools of psycopg that a breaker guards.

What is guarded is a connection's time outside of the pool, from `getconn` to `putconn`:
one call of the breaker, however many statements it is used for. The breaker is asked
before the pool is, so a refusal costs no connection and no wait. A failure counts when
it is seen, a success when the connection is back.

Between the two the connection is the application's, for as long as that likes. Only
while it waits for an answer is its time the server's; psycopg does all its waiting for
answers in one method, `wait`, so that is where a guard looks.
"""

from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from weakref import WeakKeyDictionary

import psycopg_pool
from psycopg import AsyncConnection, Connection
from psycopg.errors import ConnectionTimeout
from psycopg.pq import TransactionStatus
from psycopg_pool.abc import ACT, CT

from pgbreaker.core.states import Outcome
from pgbreaker.core.units import Seconds
from pgbreaker.guard.outcomes import judge
from pgbreaker.guard.pools import Use, watch
from pgbreaker.guard.registry import REGISTRY
from pgbreaker.guard.target import Target
from pgbreaker.guard.unit import SessionLostError, Unit
from pgbreaker.postgres.classify import Phase

if TYPE_CHECKING:  # since 3.3; before it was a text
    from psycopg_pool.abc import AsyncConninfoParam, ConninfoParam

__all__ = ["AsyncConnectionPool", "ConnectionPool"]


class AsyncConnectionPool(psycopg_pool.AsyncConnectionPool[ACT]):
    """An asynchronous pool of psycopg, guarded.

    `connection` and `getconn` raise `CircuitOpenError` when the breaker refuses;
    everything else is as in `psycopg_pool.AsyncConnectionPool`. Two of its settings
    matter here. *timeout* is how long the first calls of an outage wait, thirty seconds
    by default. And after an outage the pool connects when its own back-off says, which
    doubles for *reconnect_timeout*, five minutes by default; with ten seconds it is
    back soon after the server.
    """

    def __init__(
        self,
        conninfo: "AsyncConninfoParam" = "",
        *,
        breaker: str | Target = "main",
        operation: str | None = None,
        connection_class: type[ACT] = cast(type[ACT], AsyncConnection),  # noqa: B008
        **options: Any,  # noqa: ANN401 - the pool knows which there are
    ) -> None:
        """
        Args:
            breaker: The server that it connects to, or its name.
            operation: The kind of work that its connections are for. None: what
                `pgbreaker.operation` says, or no named kind.
            options: The pool's own.

        Raises:
            ValueError: A breaker cannot be called that.
        """
        self._guard = _Guard(breaker, operation)  # first: the pool may open itself
        super().__init__(conninfo, connection_class=connection_class, **options)
        watch(self, self._guard.target.name, _use)

    @asynccontextmanager
    async def connection(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the pool's
    ) -> AsyncIterator[ACT]:
        """Take a connection for the time of the block.

        Args:
            timeout: Seconds to wait for one. None: as long as the pool says.

        Raises:
            CircuitOpenError: The call is refused.
        """
        async with super().connection(timeout) as connection:
            try:
                yield connection
            except BaseException as error:
                self._guard.note_leaving(connection, error)
                raise

    async def getconn(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the pool's
    ) -> ACT:
        """Take a connection; it has to be put back by `putconn`.

        Raises:
            CircuitOpenError: The call is refused.
        """
        unit = self._guard.ask()
        try:
            connection = await super().getconn(timeout)
        except BaseException as error:
            self._guard.note_none(unit, error)
            raise
        self._guard.hand_out(unit, connection)
        _watch_async(unit, connection)
        return connection

    async def putconn(self, conn: ACT) -> None:
        """Put a connection back."""
        self._guard.take_back(conn)
        await super().putconn(conn)

    async def _connect(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the pool's
    ) -> ACT:
        # The pool's own, and not public: without it no attempt would be seen to fail,
        # and a session's age would be that of its first use. A test holds it fast.
        # It also hears of every failure that *reconnect_failed* is called for.
        attempt = self._guard.begin_attempt(self.get_stats())
        try:
            connection = await super()._connect(timeout)
        except BaseException as error:
            self._guard.end_attempt(attempt, self.get_stats(), error)
            raise
        self._guard.note_made(attempt, connection)
        return connection


class ConnectionPool(psycopg_pool.ConnectionPool[CT]):
    """A pool of psycopg for threads, guarded; else as `AsyncConnectionPool`."""

    def __init__(
        self,
        conninfo: "ConninfoParam" = "",
        *,
        breaker: str | Target = "main",
        operation: str | None = None,
        connection_class: type[CT] = cast(type[CT], Connection),  # noqa: B008
        **options: Any,  # noqa: ANN401 - the pool knows which there are
    ) -> None:
        """
        Args:
            breaker: The server that it connects to, or its name.
            operation: The kind of work that its connections are for. None: what
                `pgbreaker.operation` says, or no named kind.
            options: The pool's own.

        Raises:
            ValueError: A breaker cannot be called that.
        """
        self._guard = _Guard(breaker, operation)
        super().__init__(conninfo, connection_class=connection_class, **options)
        watch(self, self._guard.target.name, _use)

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[CT]:
        """Take a connection for the time of the block.

        Args:
            timeout: Seconds to wait for one. None: as long as the pool says.

        Raises:
            CircuitOpenError: The call is refused.
        """
        with super().connection(timeout) as connection:
            try:
                yield connection
            except BaseException as error:
                self._guard.note_leaving(connection, error)
                raise

    def getconn(self, timeout: float | None = None) -> CT:
        """Take a connection; it has to be put back by `putconn`.

        Raises:
            CircuitOpenError: The call is refused.
        """
        unit = self._guard.ask()
        try:
            connection = super().getconn(timeout)
        except BaseException as error:
            self._guard.note_none(unit, error)
            raise
        self._guard.hand_out(unit, connection)
        _watch(unit, connection)
        return connection

    def putconn(self, conn: CT) -> None:
        """Put a connection back."""
        self._guard.take_back(conn)
        super().putconn(conn)

    def _connect(self, timeout: float | None = None) -> CT:
        attempt = self._guard.begin_attempt(self.get_stats())
        try:
            connection = super()._connect(timeout)
        except BaseException as error:
            self._guard.end_attempt(attempt, self.get_stats(), error)
            raise
        self._guard.note_made(attempt, connection)
        return connection


_AnyConnection: TypeAlias = Connection[Any] | AsyncConnection[Any]
_Waiting: TypeAlias = Generator[Any, Any, Any]

_SILENT: Final = "connection timeout expired"
_ERRORS: Final = "connections_errors"
_NONE_CAME: Final = (psycopg_pool.PoolTimeout, psycopg_pool.TooManyRequests)


class _Attempt:
    """One attempt to connect.

    Attributes:
        begun: Moment at which it began.
        errors: Attempts that had failed before, by the pool's count.
    """

    __slots__ = ("begun", "errors")

    def __init__(self, begun: Seconds, errors: int) -> None:
        self.begun = begun
        self.errors = errors


class _Guard:
    """What both kinds of pool have in common: nothing in it waits.

    Attributes:
        target: The server that the pool connects to.
    """

    def __init__(self, breaker: str | Target, operation: str | None) -> None:
        self.target = (
            breaker if isinstance(breaker, Target) else REGISTRY.target(breaker)
        )
        self._operation = operation
        if operation is not None:
            self.target.breaker(operation)  # refuses a name that cannot be
        self._now = self.target.connect.clock.now
        self._units: WeakKeyDictionary[_AnyConnection, Unit] = WeakKeyDictionary()
        # Sessions that were made, and when. Those that are gone leave by themselves.
        self._made: WeakKeyDictionary[_AnyConnection, Seconds] = WeakKeyDictionary()
        self._attempts: set[_Attempt] = set()  # under way
        # Units that wait for a connection. The pool's own queue also holds those who
        # have given up, until a connection comes back; and a set and not a number, of
        # which two threads at once could lose a step.
        self._asking: set[Unit] = set()
        self._trouble: Exception | None = None  # why the last attempt failed

    # Connecting, which the pool does when it likes.

    def begin_attempt(self, stats: dict[str, int]) -> _Attempt:
        attempt = _Attempt(self._now(), stats.get(_ERRORS, 0))
        self._attempts.add(attempt)
        return attempt

    def end_attempt(
        self, attempt: _Attempt, stats: dict[str, int], error: BaseException
    ) -> None:
        """Note an attempt that failed."""
        self._attempts.discard(attempt)
        # Otherwise it was *configure* that failed, which is the application's.
        if stats.get(_ERRORS, 0) != attempt.errors and isinstance(error, Exception):
            self._trouble = error
            self._hear(attempt, error)

    def note_made(self, attempt: _Attempt, connection: _AnyConnection) -> None:
        self._attempts.discard(attempt)
        self._made[connection] = self._now()
        self._trouble = None

    def _hear(self, attempt: _Attempt, error: Exception) -> None:
        """Tell the breaker of the whole server that no connection could be made.

        Nobody's call has failed by that yet: those who wait for a connection go on
        waiting. But whoever comes next need not wait, too.
        """
        whole = self.target.connect
        judgement = judge(error, 0.0, None, Phase.CONNECT, strict=True)
        if judgement.above is Outcome.FAILURE and whole.passes:
            whole.hear(attempt.begun, self._now(), judgement.evidence)

    def _why_none(self) -> Exception | None:
        """Why there is no connection at all; None when there are some, which others
        have, or when it is not for lack of a server."""
        if self._trouble is None and not self._attempts:
            return None
        # Keys may come and go in other threads meanwhile: a list of references holds.
        for reference in list(self._made.keyrefs()):
            connection = reference()
            if connection is not None and not connection.closed:
                return None
        if self._trouble is None and self._attempts:
            return ConnectionTimeout(_SILENT)
        return self._trouble

    # Connections that are out.

    def ask(self) -> Unit:
        """Ask for leave to take a connection.

        Raises:
            CircuitOpenError: There is none.
        """
        unit = Unit(self.target, self._operation)
        if self._why_none() is not None:
            unit.ask(Phase.CONNECT)  # it waits for the server, not for its turn
        self._asking.add(unit)
        return unit

    def note_none(self, unit: Unit, error: BaseException) -> None:
        """Report a unit that got no connection, because of *error*."""
        self._asking.discard(unit)
        why = self._why_none()
        if isinstance(error, _NONE_CAME) and why is not None:
            error.__cause__ = why
            unit.phase = Phase.CONNECT
            unit.fail(why)
        elif isinstance(error, Exception) or why is not None:
            unit.phase = Phase.ACQUIRE
            unit.fail(error)
        unit.drop()

    def hand_out(self, unit: Unit, connection: _AnyConnection) -> None:
        self._asking.discard(unit)
        unit.rest()
        unit.phase = Phase.ACQUIRE  # until the server is asked something
        unit.made_at = self._made.setdefault(connection, self._now())
        self._units[connection] = unit

    def note_leaving(self, connection: _AnyConnection, error: BaseException) -> None:
        """Note that the block around a connection is left by *error*.

        What the server had to do with it was seen when it happened. A caller who
        walked away has not even got as far as to say that all is well.
        """
        unit = self._units.get(connection)
        if unit is not None and not isinstance(error, Exception):
            unit.drop()

    def take_back(self, connection: _AnyConnection) -> None:
        """Report the unit of a connection that comes back."""
        unit = self._units.pop(connection, None)
        if unit is None:
            return
        vars(connection).pop("wait", None)
        if connection.broken and not unit.is_over:
            unit.phase = Phase.STATEMENT
            unit.fail(SessionLostError())
        elif unit.phase is Phase.ACQUIRE:
            unit.drop()  # it was never used
        else:
            unit.end()

    def use(self, idle: int, limit: int) -> Use:
        """How the pool is used that has so many connections idle, and at most."""
        return Use.of(
            used=len(self._units), idle=idle, limit=limit, asking=len(self._asking)
        )


def _use(pool: AsyncConnectionPool[Any] | ConnectionPool[Any]) -> Use | None:
    if pool.closed:
        return None
    idle = pool.get_stats()["pool_available"]
    return pool._guard.use(idle, pool.max_size)


# Waiting for answers.

_IDLE: Final = TransactionStatus.IDLE
_COMMITS: Final = frozenset(
    {
        "BaseConnection._commit_gen",
        "BaseConnection._tpc_finish_gen",
        "BaseTransaction._exit_gen",
    }
)


_ENDS: Final = frozenset({"BaseConnection._commit_gen", "BaseConnection._rollback_gen"})


def _phase_of(waiting: _Waiting, connection: _AnyConnection) -> Phase | None:
    """What is waited for; None when it is no answer: a notification, or the end of a
    transaction that never began, which psycopg does not bother the server with."""
    name = getattr(waiting, "__qualname__", "")
    if name == "notifies":
        return None
    if name in _ENDS and connection.pgconn.transaction_status == _IDLE:
        return None
    return Phase.COMMIT if name in _COMMITS else Phase.STATEMENT


def _watch_async(unit: Unit, connection: AsyncConnection[Any]) -> None:
    """Have *unit* told of whatever the connection waits for, while it is out."""
    inner = connection.wait

    async def wait(waiting: _Waiting, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        phase = _phase_of(waiting, connection)
        if phase is None:
            return await inner(waiting, *args, **options)
        began = unit.breaker.clock.now()
        unit.ask(phase)
        try:
            result = await inner(waiting, *args, **options)
        except BaseException as error:
            _note_no_answer(unit, connection, error, began)
            raise
        unit.rest()
        return result

    vars(connection)["wait"] = wait


def _watch(unit: Unit, connection: Connection[Any]) -> None:
    """The same, of a connection for threads."""
    inner = connection.wait

    def wait(waiting: _Waiting, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        phase = _phase_of(waiting, connection)
        if phase is None:
            return inner(waiting, *args, **options)
        began = unit.breaker.clock.now()
        unit.ask(phase)
        try:
            result = inner(waiting, *args, **options)
        except BaseException as error:
            _note_no_answer(unit, connection, error, began)
            raise
        unit.rest()
        return result

    vars(connection)["wait"] = wait


def _note_no_answer(
    unit: Unit, connection: _AnyConnection, error: BaseException, began: Seconds
) -> None:
    """Report an answer that did not come, or was an error.

    A caller who gives up has psycopg cancel the statement, and a server that is well
    lets go of it. If it does not, and was overdue, that speaks against the server.
    """
    slow_call = unit.breaker.config.slow_call
    waited = unit.breaker.clock.now() - began
    is_overdue = slow_call is not None and waited >= slow_call
    if isinstance(error, Exception) or (is_overdue and connection.broken):
        unit.fail(error)
    else:
        unit.drop()
