"""A breaker in an engine's pool.

The pool is where a call can be refused without harm: raising in the events ``checkout``
or ``engine_connect`` throws the connection away, which is a storm of reconnects at the
worst of times. It is also the only place that sees every failure: no event is told of a
connection that could not be made, nor of a pool that had none.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, cast

from sqlalchemy import event
from sqlalchemy.engine import (
    URL,
    Connection,
    CreateEnginePlugin,
    Engine,
    ExceptionContext,
)
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import (
    ConnectionPoolEntry,
    NullPool,
    Pool,
    PoolProxiedConnection,
    QueuePool,
)

from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig, Preset
from pgbreaker.guard.pools import Use, forget, watch
from pgbreaker.guard.registry import REGISTRY
from pgbreaker.guard.target import Target
from pgbreaker.guard.unit import Unit
from pgbreaker.postgres.classify import Phase

_UNIT: Final = "pgbreaker.unit"  # in the info of a pooled connection
_MADE: Final = "pgbreaker.made"

# The unit whose connection is being looked for. The events of connecting tell which
# connection it is, but not for whom.
_ASKING: Final[ContextVar[Unit | None]] = ContextVar("pgbreaker_asking", default=None)


class GuardedPool(Pool):
    """What a pool does more, once an engine is protected.

    Attributes:
        target: The server that its connections lead to.
        asking: Units that it has yet to give a connection. None: nobody has asked it
            since an engine's `dispose` put it in the place of another.
    """

    target: Target
    # A set and not a number, of which two threads at once could lose a step.
    asking: set[Unit | None] | None = None

    def connect(self) -> PoolProxiedConnection:
        """Ask the breaker, then the pool.

        Raises:
            CircuitOpenError: The breaker refuses; no connection has been touched.
        """
        unit = Unit(self.target)
        before = _ASKING.get()
        _ASKING.set(unit)
        try:
            fairy = super().connect()
        except BaseException as error:
            unit.fail(error)
            unit.drop()  # unless that was an outcome
            raise
        finally:
            _ASKING.set(before)
        unit.rest()
        info = fairy.record_info
        if info is None:  # detached already, by an event of the application's own
            unit.end()
        else:
            unit.made_at = info.get(_MADE)
            unit.phase = Phase.ACQUIRE  # until something is asked
            other = info.get(_UNIT)
            if other is not None:
                other.drop()  # of a pool that gives one connection to many
            info[_UNIT] = unit
        return fairy

    def _do_get(self) -> ConnectionPoolEntry:
        asking = self.asking
        if asking is None:
            asking = _tell_of(self)
        unit = _ASKING.get()
        asking.add(unit)
        try:
            return super()._do_get()
        finally:
            asking.discard(unit)

    def recreate(self) -> Pool:
        """The pool that takes the place of this one, which is told of no more."""
        forget(self)
        return super().recreate()

    # Every connection comes back through here, however it was lost or let go. The event
    # of it costs more than all the rest of the guard; a test holds the name.
    def _return_conn(self, record: ConnectionPoolEntry) -> None:
        _end_unit(record)
        super()._return_conn(record)


class GuardedNullPool(GuardedPool):
    """One that keeps no connection, and so does not know how many are out.

    Attributes:
        out: The connections that callers have.
    """

    out: set[ConnectionPoolEntry]

    def _create_connection(self) -> ConnectionPoolEntry:
        made = super()._create_connection()
        self.out.add(made)
        return made

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self.out.discard(record)
        super()._do_return_conn(record)


def _tell_of(pool: GuardedPool) -> set[Unit | None]:
    """Have a pool told of from now on; gives the set of those who ask it."""
    read = None
    if isinstance(pool, QueuePool):
        read = _use_of_queue
        pool.checkedin()  # makes the queue, which no other thread's scrape is to do
    elif isinstance(pool, GuardedNullPool):
        read = _use_of_null
        vars(pool).setdefault("out", set())
    # Of two threads that come here at once, the first one's is everybody's.
    mine: set[Unit | None] = set()
    asking: set[Unit | None] = vars(pool).setdefault("asking", mine)
    if asking is mine and read is not None:
        watch(pool, pool.target.name, read)
    return asking


def _use_of_queue(pool: Any) -> Use:
    asking = pool.asking.copy()
    # The pool counts a connection from before it is made.
    dialling = sum(unit is not None and unit.phase is Phase.CONNECT for unit in asking)
    overflow = getattr(pool, "_max_overflow", -1)  # which no method tells
    return Use.of(
        used=pool.checkedout() - dialling,
        idle=pool.checkedin(),
        limit=None if overflow < 0 else pool.size() + overflow,
        asking=len(asking),
    )


def _use_of_null(pool: Any) -> Use:
    return Use.of(used=len(pool.out), idle=0, limit=None, asking=len(pool.asking))


def protect(
    engine: Engine | AsyncEngine,
    *,
    breaker: str | Target = "main",
    config: PostgreSQLCircuitBreakerConfig | None = None,
) -> Target:
    """Have every connection of *engine* asked for through a breaker, from now on.

    An engine that is protected already stays as it is. What is done with
    `raw_connection` is seen only where it cannot be had: no event tells of it.

    Args:
        breaker: Name of the target, or the target.
        config: Rules of its breakers. None: those it has, or the defaults.

    Returns:
        The target.

    Raises:
        ValueError: The target exists, and goes by other rules.
    """
    engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    there = target_of(engine)
    if there is not None:
        return there
    target = (
        breaker if isinstance(breaker, Target) else REGISTRY.target(breaker, config)
    )
    pool = engine.pool
    # Of the pool's own class, which `dispose` makes the next pool of: so the guard
    # stays, whichever pool it is and whatever it was made with.
    kind = type(pool)
    guarded = GuardedNullPool if issubclass(kind, NullPool) else GuardedPool
    pool.__class__ = cast(
        "type[Pool]",
        type(f"Guarded{kind.__name__}", (guarded, kind), {"target": target}),
    )
    _tell_of(cast("GuardedPool", pool))
    _listen(engine, target)
    return target


def target_of(engine: Engine | AsyncEngine) -> Target | None:
    """The target that an engine is protected for, None when it is not."""
    pool = engine.pool
    return pool.target if isinstance(pool, GuardedPool) else None


def _listen(engine: Engine, target: Target) -> None:
    clock = target.connect.clock

    def dialling(_dialect: object, *_rest: object) -> None:
        unit = _ASKING.get()
        if unit is not None:
            unit.ask(Phase.CONNECT)

    def made(_connection: object, entry: ConnectionPoolEntry) -> None:
        if entry.record_info is not None:
            entry.record_info[_MADE] = clock.now()
        unit = _ASKING.get()
        if unit is not None:
            unit.rest()
            unit.phase = Phase.ACQUIRE

    event.listen(engine, "do_connect", dialling)
    event.listen(engine, "connect", made)
    event.listen(engine, "detach", lambda _connection, entry: _end_unit(entry))
    event.listen(engine, "handle_error", _failed)
    # The dialect itself and not the events of connections: with one listener to these,
    # SQLAlchemy takes a tenth longer for a session, and of a commit they tell only that
    # it begins.
    dialect: Any = engine.dialect
    for name in ("do_execute", "do_execute_no_params", "do_executemany"):
        setattr(dialect, name, _around_statement(getattr(dialect, name)))
    dialect.do_commit = _around_commit(dialect.do_commit)


def _end_unit(entry: ConnectionPoolEntry) -> None:
    unit = entry.record_info.pop(_UNIT, None) if entry.record_info else None
    if unit is None:
        return
    if unit.phase is Phase.ACQUIRE:
        unit.drop()  # nothing was asked: that it is back says nothing
    else:
        unit.end()


def _around_statement(execute: Callable[..., None]) -> Callable[..., None]:
    """Have a unit know what is asked, and when it is answered."""

    def executed(*args: Any) -> None:
        context = args[-1]
        unit = None if context is None else _unit_of(context.root_connection)
        if unit is None:
            execute(*args)
            return
        unit.ask(Phase.STATEMENT)
        execute(*args)  # what it raises comes to `_failed`
        unit.rest()

    return executed


def _around_commit(
    commit: Callable[[PoolProxiedConnection], None],
) -> Callable[[PoolProxiedConnection], None]:
    """Have a unit know that it is committed: of an answer that is lost then, nobody
    knows what it would have been."""

    def committed(connection: PoolProxiedConnection) -> None:
        info = connection.record_info
        unit: Unit | None = None if info is None else info.get(_UNIT)
        if unit is None or unit.phase is Phase.ACQUIRE:  # nothing was begun
            commit(connection)
            return
        unit.ask(Phase.COMMIT)
        commit(connection)
        unit.rest()
        unit.phase = Phase.STATEMENT

    return committed


def _unit_of(connection: Connection | None) -> Unit | None:
    if connection is None or connection.closed or connection.invalidated:
        return None
    info = connection.connection.record_info
    return None if info is None else info.get(_UNIT)


def _failed(context: ExceptionContext) -> None:
    if context.is_pre_ping:
        return  # a connection is made next, and that decides
    unit = _unit_of(context.connection)
    if unit is not None:
        unit.fail(context.original_exception)


class Plugin(CreateEnginePlugin):
    """``?plugin=pgbreaker``, or ``create_engine(..., plugins=["pgbreaker"])``.

    In the URL, or as arguments of `create_engine`: ``breaker`` names the target
    (``main`` when it is missing), ``breaker_preset`` the rules it starts from.
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: There is no preset of that name.
        """
        query = url.query
        name = kwargs.pop("breaker", None) or query.get("breaker") or "main"
        preset = kwargs.pop("breaker_preset", None) or query.get("breaker_preset")
        self._breaker: str | Target = name if isinstance(name, Target) else str(name)
        self._config = (
            None
            if preset is None
            else PostgreSQLCircuitBreakerConfig.preset(cast("Preset", preset))
        )

    def update_url(self, url: URL) -> URL:
        """Take our own words out of what the driver is given."""
        return url.difference_update_query(["breaker", "breaker_preset"])

    def engine_created(self, engine: Engine) -> None:
        """Protect the engine that was made."""
        protect(engine, breaker=self._breaker, config=self._config)
