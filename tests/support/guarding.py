"""What tests of the library's guards do to a real server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest

from pgbreaker import PostgreSQLCircuitBreaker, PostgreSQLCircuitBreakerConfig, Target
from pgbreaker.guard.registry import REGISTRY

QUICK = PostgreSQLCircuitBreakerConfig(
    timeout=0.3,
    success_threshold=1,
    jitter=0.0,
    base_backoff_delay=0.01,
    enable_detailed_logging=False,
)
"""Rules that open at five failures in a row and try again after 300 ms."""


@pytest.fixture
def target():
    """A target of the test's own, with `QUICK` rules."""
    yield Target("shop", QUICK)
    REGISTRY.clear()


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Wait for *condition*, and fail when it does not come true in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < within, "it did not come true in time"
        await asyncio.sleep(0.005)


async def outcome(call: Awaitable[object]) -> object:
    """What a call gives, or the error that it raises."""
    try:
        return await call
    except Exception as error:
        return error


@asynccontextmanager
async def at_once(
    call: Callable[[], Coroutine[object, object, object]], callers: int
) -> AsyncIterator[None]:
    """So many callers who make *call*, until the block ends; that cancels them."""
    tasks = [asyncio.create_task(call()) for _ in range(callers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def totals(breaker: PostgreSQLCircuitBreaker) -> dict[str, int]:
    """What came of the breaker's calls, without what did not happen."""
    return {name: n for name, n in breaker.core.totals.items() if n}
