"""A call that is over when its time is, whatever it does.

Cancelling is not enough: drivers clean up when they are cancelled, and on a dead server
that takes as long as they like (asyncpg's cancel request opens a new connection, without
a deadline). So the call runs in a task of its own, which is left behind when it does not
end soon after it was told to.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from pgbreaker.core.units import Seconds
from pgbreaker.errors import CallTimeoutError

P = ParamSpec("P")
R = TypeVar("R")

GRACE: Final[Seconds] = 0.2
"""Seconds that a cancelled call has for its cleaning up before it is left behind."""

left_behind: Final[set[asyncio.Task[Any]]] = set()
"""Calls that were given up and have not ended yet."""


def limited(
    function: Callable[P, Awaitable[R]], seconds: Seconds, name: str
) -> Callable[P, Coroutine[Any, Any, R]]:
    """Give every call of *function* so many seconds.

    Raises:
        CallTimeoutError: From the call, when it did not come back in time.
    """

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        task: asyncio.Future[R] = asyncio.ensure_future(function(*args, **kwargs))
        try:
            await asyncio.wait((task,), timeout=seconds)
        except asyncio.CancelledError:
            await _end(task)
            raise
        try:
            if task.done():
                return task.result()
            await _end(task)
            if task.done() and not task.cancelled():
                # It made it after all, or said what was wrong.
                error = task.exception()
                if error is None:
                    return task.result()
                raise CallTimeoutError(name, seconds) from error
            raise CallTimeoutError(name, seconds)
        finally:
            del task  # its error knows this frame

    return call


async def _end(task: "asyncio.Future[Any]") -> None:
    """Cancel, wait a little, and then no longer."""
    task.cancel()
    try:
        await asyncio.wait((task,), timeout=GRACE)
    finally:
        if isinstance(task, asyncio.Task):
            left_behind.add(task)
            task.add_done_callback(_bury)  # at once, where it has ended


def _bury(task: "asyncio.Task[Any]") -> None:
    left_behind.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not complain of it
