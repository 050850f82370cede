"""The connection pools of a process, told of when somebody asks.

A pool is read where it stands, and only then; what it does not count itself, whoever
guards it counts. It is held weakly: one that is closed, or gone, is told of no more.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from weakref import ref

from pgbreaker.guard.living import join

P = TypeVar("P")

log = logging.getLogger("pgbreaker")


@dataclass(frozen=True, slots=True)
class Use:
    """How a pool is used at a moment.

    Attributes:
        used: Connections that callers have.
        idle: Connections that are there for the next one.
        max: Connections that there can be. None: no limit is known.
        waiters: Callers that wait for one to be given back, or to be made.
    """

    used: int
    idle: int
    max: int | None
    waiters: int

    @classmethod
    def of(cls, *, used: int, idle: int, limit: int | None, asking: int) -> Self:
        """Of a pool that *asking* callers are asking: who finds one idle waits for
        none, and is only on the way to it."""
        return cls(max(0, used), idle, limit, max(0, asking - idle))

    def __add__(self, other: "Use") -> "Use":
        """Two pools together. Where one has no limit, both have none."""
        limit = None if self.max is None or other.max is None else self.max + other.max
        return Use(
            self.used + other.used,
            self.idle + other.idle,
            limit,
            self.waiters + other.waiters,
        )


@dataclass(slots=True, eq=False)
class _Watched:
    """A pool, and how to read it.

    Attributes:
        target: Name of the server that it connects to.
        read: Tells how it is used, None once it is closed.
        is_complained_of: Whether the log has it that it could not be read.
    """

    pool: ref[Any]
    target: str
    read: Callable[[Any], Use | None]
    is_complained_of: bool = False

    def use(self) -> Use | None:
        """How it is used. None: it is closed, gone, or cannot be read."""
        pool = self.pool()
        if pool is None:
            return None
        try:
            return self.read(pool)
        except Exception:
            # The others, and all that is told of breakers, are there all the same.
            if not self.is_complained_of:
                self.is_complained_of = True
                log.exception("a pool of %s cannot be read", self.target)
            return None


class _Known:
    """The pools that are watched.

    One tuple takes the place of another, so that a reader needs no lock: to copy a list
    while others change it is not safe everywhere, for CPython 3.11 may collect garbage,
    and so run other threads, in the midst of it.

    Attributes:
        all: They.
    """

    def __init__(self) -> None:
        self.all: tuple[_Watched, ...] = ()
        self.disown()
        join(self)

    def disown(self) -> None:
        """Begin anew with the lock, which may be another thread's of the parent."""
        self._lock = threading.RLock()

    def keep(self, is_meant: Callable[[object], bool], *more: _Watched) -> None:
        """Keep those whose pools are meant, and *more*."""
        with self._lock:
            kept = [watched for watched in self.all if is_meant(watched.pool())]
            self.all = (*kept, *more)


_KNOWN: Final = _Known()


def watch(pool: P, target: str, read: Callable[[P], Use | None]) -> None:
    """Have *pool* told of for as long as it is there.

    Args:
        target: Name of the server that it connects to.
        read: Tells how it is used, None once it is closed. In any thread, while calls
            go on; it must not wait. While it raises, this pool is left out, which is
            logged once.
    """
    one = _Watched(ref(pool), target, read)
    _KNOWN.keep(lambda there: there is not None, one)


def forget(pool: object) -> None:
    """Tell of *pool* no more."""
    _KNOWN.keep(lambda there: there is not pool)


def uses() -> dict[str, Use]:
    """Name of a target -> how its pools are used that are open, all together."""
    found: dict[str, Use] = {}
    for watched in _KNOWN.all:
        use = watched.use()
        if use is not None:
            before = found.get(watched.target)
            found[watched.target] = use if before is None else before + use
    return found
