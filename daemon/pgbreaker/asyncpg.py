"""asyncpg: a pool that goes through a breaker, and never waits for a dead server.

asyncpg's own timeouts are no bounds: a question that is cancelled makes it send a cancel
request over a new connection, and giving the session back waits for that, without a limit
(asyncpg #431). So here the question is cancelled when its time is up, for a server that
only has too much to do must not be left with it (a backend that waits for a lock does not
see its client go, and keeps its slot); and what does not come free soon after is ended.
"""

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from pgbreaker.core.units import Seconds, Share, seconds_of
from pgbreaker.errors import CallTimeoutError
from pgbreaker.guard.bulkhead import Bulkhead
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.monitor import Monitor
from pgbreaker.guard.pools import Use, watch
from pgbreaker.guard.registry import REGISTRY
from pgbreaker.guard.target import Target
from pgbreaker.guard.unit import SessionLostError, Unit
from pgbreaker.postgres.classify import Phase

GRACE: Final[Seconds] = 0.2
"""Seconds that a session has to become usable again when its caller has given up."""

_RELEASE: Final[Seconds] = 1.0  # for the same when all is well
_WITH_ONE: Final = 2  # breakers of a target with one operation: its own, the one above
_NET: Final[Seconds] = 0.15  # after a deadline, for asyncpg to let go by itself


def protect(
    pool: Any,
    *,
    breaker: str | Target = "main",
    config: PostgreSQLCircuitBreakerConfig | None = None,
    timeout: Seconds | str = 30.0,
    acquire_timeout: Seconds | str = 5.0,
    share: Share = 0.75,
) -> "ProtectedPool":
    """Put a breaker before *pool*, and a deadline on everything that is asked through it.

    Args:
        pool: What `asyncpg.create_pool` gives, entered already.
        breaker: Name of the target, or the target.
        config: Rules of its breakers. None: those it has, or the defaults.
        timeout: Seconds, or a text like ``800ms``, for each statement that has no
            ``timeout=`` of its own.
        acquire_timeout: The same for getting a connection.
        share: Share of the pool that one operation may have once there are several,
            so that one that hangs leaves something to the others. 1: all of it.

    Raises:
        ValueError: The target exists, and goes by other rules; or a time is none.
    """
    target = (
        breaker if isinstance(breaker, Target) else REGISTRY.target(breaker, config)
    )
    return ProtectedPool(
        pool,
        target,
        timeout=seconds_of(timeout, "timeout"),
        acquire_timeout=seconds_of(acquire_timeout, "acquire_timeout"),
        share=share,
    )


class ProtectedPool:
    """A pool of asyncpg's, behind a breaker. What is not here, the pool does itself.

    Each connection is a unit of work: it is asked for through the breaker of its kind
    of work, and has one outcome.

    Attributes:
        pool: The pool itself.
        target: The server, and its breakers.
        monitor: What can be told of them.
        timeout: Seconds for a statement that has no limit of its own.
        acquire_timeout: Seconds for getting a connection.
    """

    def __init__(
        self,
        pool: Any,
        target: Target,
        *,
        timeout: Seconds,
        acquire_timeout: Seconds,
        share: Share = 1.0,
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share is above 0 and up to 1, got {share!r}")
        self.pool = pool
        self.target = target
        self.monitor = Monitor(target)
        self.timeout = timeout
        self.acquire_timeout = acquire_timeout
        self._births = Births(pool, target)
        self._most = max(1, int(pool.get_max_size() * share))
        self._places: dict[str, Bulkhead] = {}
        self._asking = 0  # callers that the pool has yet to answer
        watch(self, target.name, ProtectedPool._use)

    def __repr__(self) -> str:
        return f"<ProtectedPool of {self.target!r}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _use(self) -> Use | None:
        pool = self.pool
        if pool.is_closing():
            return None
        idle = pool.get_idle_size()
        use = Use.of(
            used=pool.get_size() - idle,
            idle=idle,
            limit=pool.get_max_size(),
            asking=self._asking,
        )
        # Whoever waits for a place of its operation has not come to the pool yet.
        queued = sum(place.waiting for place in tuple(self._places.values()))
        return replace(use, waiters=use.waiters + queued)

    def acquire(
        self, *, timeout: Seconds | None = None, operation: str | None = None
    ) -> "Acquiring":
        """A connection, by ``async with`` or, to be given to `release`, by ``await``.

        Args:
            timeout: Seconds. None: `acquire_timeout`.
            operation: The kind of work. None: what `pgbreaker.operation` says.

        Raises:
            CircuitOpenError: The breaker refuses; no connection has been touched.
        """
        return Acquiring(self, timeout or self.acquire_timeout, operation)

    async def take(
        self, within: Seconds, operation: str | None
    ) -> "ProtectedConnection":
        """Ask the breaker, then the pool."""
        unit = Unit(self.target, operation)
        try:
            place = await self._place_for(unit, within)
        except BaseException as error:
            unit.fail(error)
            unit.drop()
            raise
        try:
            return await self._connect(unit, within, place)
        except BaseException:
            if place is not None:
                place.give_back()
            raise

    async def _place_for(self, unit: Unit, within: Seconds) -> Bulkhead | None:
        """A place among those of the operation; None while it is the only one."""
        if len(self.target.breakers) <= _WITH_ONE:
            return None
        name = unit.breaker.name
        place = self._places.get(name)
        if place is None:
            # As patient as the pool itself is.
            made = Bulkhead(self._most, wait=self.acquire_timeout)
            place = self._places.setdefault(name, made)
        await place.enter(name, within)
        return place

    async def _connect(
        self, unit: Unit, within: Seconds, place: Bulkhead | None
    ) -> "ProtectedConnection":
        pool = self.pool
        is_growing = not pool.get_idle_size() and pool.get_size() < pool.get_max_size()
        if is_growing:
            unit.ask(Phase.CONNECT)
        self._asking += 1
        try:
            raw = await pool.acquire(timeout=within)
        except BaseException as error:
            # A pool that was full of sessions had none to give; else it connected.
            if pool.get_size() < pool.get_max_size():
                unit.phase = Phase.CONNECT
            unit.fail(error)
            unit.drop()
            raise
        finally:
            self._asking -= 1
        unit.rest()
        unit.phase = Phase.STATEMENT
        unit.made_at = self._births.of(raw)
        return ProtectedConnection(raw, unit, self.timeout, place)

    async def release(self, connection: "ProtectedConnection") -> None:
        """Give a connection back that was got by ``await``."""
        await connection.give_back(self.pool)

    async def fetch(self, query: str, *args: Any, **more: Any) -> Any:
        """Run a query on a connection of its own; gives its rows.

        Args:
            more: ``operation=`` names the kind of work, ``timeout=`` limits the whole
                in seconds, getting the connection included; the rest is asyncpg's.
        """
        return await self._once("fetch", query, args, more)

    async def fetchrow(self, query: str, *args: Any, **more: Any) -> Any:
        """The same; gives the first row."""
        return await self._once("fetchrow", query, args, more)

    async def fetchval(self, query: str, *args: Any, **more: Any) -> Any:
        """The same; gives one value of the first row."""
        return await self._once("fetchval", query, args, more)

    async def execute(self, query: str, *args: Any, **more: Any) -> Any:
        """The same; gives the command's tag."""
        return await self._once("execute", query, args, more)

    async def executemany(self, query: str, args: Any, **more: Any) -> Any:
        """The same, for each of *args*."""
        return await self._once("executemany", query, (args,), more)

    async def _once(
        self, name: str, query: str, args: tuple[Any, ...], more: dict[str, Any]
    ) -> Any:
        operation = more.pop("operation", None)
        limit = more.pop("timeout", None)
        clock = self.target.connect.clock.now
        begun = clock()
        within = self.acquire_timeout if limit is None else limit
        async with Acquiring(self, min(within, self.acquire_timeout), operation) as it:
            if limit is not None:
                more["timeout"] = max(0.001, limit - (clock() - begun))
            return await getattr(it, name)(query, *args, **more)

    async def close(self, *, within: Seconds = 10.0) -> None:
        """Close the pool, and end what does not close within so many seconds."""
        try:
            async with asyncio.timeout(within):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()

    def terminate(self) -> None:
        """End every connection at once."""
        self.pool.terminate()


class Births:
    """When the connections of a pool were made, for `Wave`.

    A connection that was there before we were is as old as we are.
    """

    def __init__(self, pool: Any, target: Target) -> None:
        self._now = target.connect.clock.now
        self._first = self._now()
        self._born: OrderedDict[int, Seconds] = OrderedDict()
        self._kept = 4 * int(pool.get_max_size())
        # asyncpg lets nobody see a new connection after the pool is made. Where it
        # changes that name, every connection is as old as we are, and what is lost of
        # them counts less than it should until the first wave is over.
        self._init: Callable[[Any], Awaitable[None]] | None = getattr(
            pool, "_init", None
        )
        if hasattr(pool, "_init"):
            pool._init = self._note

    async def _note(self, raw: Any) -> None:
        self._born[raw.get_server_pid()] = self._now()
        while len(self._born) > self._kept:
            self._born.popitem(last=False)
        if self._init is not None:
            await self._init(raw)

    def of(self, raw: Any) -> Seconds:
        """The moment at which a connection was made."""
        return self._born.get(raw.get_server_pid(), self._first)


class Acquiring:
    """A connection to come: for ``async with``, or ``await``."""

    __slots__ = ("_connection", "_operation", "_pool", "_within")

    def __init__(
        self, pool: ProtectedPool, within: Seconds, operation: str | None
    ) -> None:
        self._pool = pool
        self._within = within
        self._operation = operation

    def __await__(self) -> Generator[Any, None, "ProtectedConnection"]:
        return self._pool.take(self._within, self._operation).__await__()

    async def __aenter__(self) -> "ProtectedConnection":
        self._connection = await self._pool.take(self._within, self._operation)
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.give_back(self._pool.pool)


class Asked:
    """Something of asyncpg's whose every coroutine gets a deadline."""

    def __init__(self, raw: Any, connection: "ProtectedConnection") -> None:
        self._raw = raw
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._raw, name)
        if not inspect.isroutine(found):
            return found
        return self._connection.guarded(found)


class ProtectedConnection:
    """A connection of the pool, each statement of which has a deadline.

    What is not here, the connection does itself; what that does asynchronously gets
    the same deadline.

    Attributes:
        unit: The unit of work that it serves.
        timeout: Seconds for a statement that has no limit of its own.
    """

    def __init__(
        self, raw: Any, unit: Unit, timeout: Seconds, place: Bulkhead | None = None
    ) -> None:
        self.unit = unit
        self._place = place
        self.timeout = timeout
        self._raw = raw
        self._is_doubtful = False  # whether the session may not answer any more

    def __repr__(self) -> str:
        return f"<ProtectedConnection {self._raw!r}>"

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._raw, name)
        return self.guarded(found) if inspect.isroutine(found) else found

    @property
    def is_lost(self) -> bool:
        """Whether the session has ended under its user, who was not told yet."""
        # What is left of a session that ended while nothing was asked on it.
        is_detached = getattr(self._raw, "_con", self) is None
        return bool(is_detached or self._raw.is_closed())

    def guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of asyncpg's, with a deadline if it turns out to be a coroutine."""

        def call(*args: Any, **kwargs: Any) -> Any:
            limit = kwargs.pop("timeout", None)
            if self.is_lost:
                self.unit.fail(SessionLostError())
            result = method(*args, **kwargs)
            if inspect.iscoroutine(result):
                return self.ask(result, limit)
            return result

        return call

    async def ask(
        self,
        question: Coroutine[Any, Any, Any],
        within: Seconds | None = None,
        phase: Phase = Phase.STATEMENT,
    ) -> Any:
        """Ask the server something, and hang up when no answer comes in time.

        Raises:
            CallTimeoutError: No answer came in time; the server was told to stop.
        """
        unit, seconds = self.unit, within or self.timeout
        # A net, for what cancelling does not end.
        loop = asyncio.get_running_loop()
        overdue = loop.call_later(seconds + _NET, self._raw.terminate)
        limit = asyncio.timeout(seconds)
        unit.ask(phase)
        try:
            async with limit:
                answer = await question
        except BaseException as error:
            if limit.expired() and isinstance(error, TimeoutError):
                self._is_doubtful = True
                late = CallTimeoutError(unit.breaker.name, seconds)
                unit.fail(late)
                raise late from error
            judgement = unit.fail(error)
            found = judgement.classification
            self._is_doubtful |= found is None or found.poisoned
            raise
        finally:
            overdue.cancel()
        unit.rest()
        return answer

    async def prepare(self, *args: Any, **more: Any) -> Asked:
        """Prepare a statement, whose own calls have deadlines too."""
        return Asked(await self.guarded(self._raw.prepare)(*args, **more), self)

    def cursor(self, *args: Any, **more: Any) -> "Cursor":
        """A cursor: rows by ``async for``, or, by ``await``, one to be moved."""
        limit = more.pop("timeout", None)
        return Cursor(self.guarded(self._raw.cursor)(*args, **more), self, limit)

    def transaction(self, **options: Any) -> "Transaction":
        """A transaction, as asyncpg's."""
        return Transaction(self.guarded(self._raw.transaction)(**options), self)

    async def give_back(self, pool: Any) -> None:
        """Give the connection back; ends it when it does not come free soon."""
        unit = self.unit
        budget = GRACE if self._is_doubtful else min(_RELEASE, self.timeout)
        unit.ask(Phase.STATEMENT)
        place, self._place = self._place, None
        try:
            await pool.release(self._raw, timeout=budget)
        except asyncio.CancelledError:
            # The pool goes on with it, within the budget, and needs nobody for that.
            unit.drop()
            raise
        except Exception as error:  # noqa: BLE001 - the caller has its answers
            # The pool has ended it. Whoever was served by then need not know; the
            # breaker must.
            unit.fail(error)
        finally:
            if place is not None:
                place.give_back()
        unit.end()


class Cursor:
    """A cursor of asyncpg's, each step of which has a deadline."""

    def __init__(
        self,
        raw: Any,
        connection: ProtectedConnection,
        within: Seconds | None,
    ) -> None:
        self._raw = raw
        self._connection = connection
        self._within = within

    def __await__(self) -> Generator[Any, None, Asked]:
        return self._open().__await__()

    async def _open(self) -> Asked:
        async def opened() -> Any:
            return await self._raw

        raw = await self._connection.ask(opened(), self._within)
        return Asked(raw, self._connection)

    async def __aiter__(self) -> AsyncIterator[Any]:
        rows = aiter(self._raw)

        async def step() -> Any:
            return await anext(rows, _END)

        while (row := await self._connection.ask(step(), self._within)) is not _END:
            yield row


_END: Final = object()


class Transaction:
    """A transaction of asyncpg's, each step of which has a deadline."""

    def __init__(self, raw: Any, connection: ProtectedConnection) -> None:
        self._raw = raw
        self._connection = connection

    async def start(self) -> None:
        """Begin it."""
        await self._connection.ask(self._raw.start())

    async def commit(self) -> None:
        """Commit it. When the connection is lost meanwhile, nobody knows whether it
        was."""
        await self._connection.ask(self._raw.commit(), phase=Phase.COMMIT)

    async def rollback(self) -> None:
        """Undo it."""
        await self._connection.ask(self._raw.rollback())

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.commit()
        elif not self._connection.is_lost:
            try:
                await self.rollback()
            except Exception as second:  # noqa: BLE001 - the first error says more
                error.add_note(f"and the rollback failed: {type(second).__name__}")
