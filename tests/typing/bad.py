"""Wrong uses: each marked line is an error, and no other line is."""

from collections.abc import AsyncIterator
from typing import assert_type

from pgbreaker import (
    PostgreSQLCircuitBreaker,
    PostgreSQLCircuitBreakerConfig,
    circuit_breaker,
)

breaker = PostgreSQLCircuitBreaker("orders")


async def from_cache(player_id: int) -> str:
    return str(player_id)


def from_memory(player_id: int) -> str:
    return str(player_id)


async def number_from_cache(player_id: int) -> int:
    return player_id


def number_from_memory(player_id: int) -> int:
    return player_id


async def two_from_cache(player_id: int, other_id: int) -> str:
    return f"{player_id} {other_id}"


def two_from_memory(player_id: int, other_id: int) -> str:
    return f"{player_id} {other_id}"


async def get(player_id: int) -> str:
    return str(player_id)


def get_blocking(player_id: int) -> str:
    return str(player_id)


# The fallback has to fit: its arguments, what it returns, and its kind.

circuit_breaker("players", fallback=two_from_cache)(get)  # wrong
circuit_breaker("players", fallback=two_from_memory)(get)  # wrong
circuit_breaker("players", fallback=two_from_memory)(get_blocking)  # wrong
circuit_breaker("players", fallback=number_from_cache)(get)  # wrong
circuit_breaker("players", fallback=number_from_memory)(get)  # wrong
circuit_breaker("players", fallback=number_from_memory)(get_blocking)  # wrong
circuit_breaker("players", fallback=from_cache)(get_blocking)  # wrong
circuit_breaker("players", fallback="nobody")  # wrong
circuit_breaker("players", fallback=from_cache, default="nobody")  # wrong

# The other arguments.

circuit_breaker()  # wrong
circuit_breaker(get)  # wrong
circuit_breaker(name="players")  # wrong
circuit_breaker("players", timeout=b"800ms")  # wrong
circuit_breaker("players", cache="5m")  # wrong
circuit_breaker("players", bulkhead="20")  # wrong
circuit_breaker("players", retries=3)  # wrong
circuit_breaker("players", config={"timeout": 1.0})  # wrong

PostgreSQLCircuitBreakerConfig(timeout="1s")  # wrong
PostgreSQLCircuitBreakerConfig(5)  # wrong
PostgreSQLCircuitBreakerConfig(failure_treshold=3)  # wrong
PostgreSQLCircuitBreakerConfig.preset("wep")  # wrong


# What is guarded takes what it took, and gives what it gave.


@circuit_breaker("players", fallback=from_memory)
async def guarded(player_id: int) -> str:
    return str(player_id)


@circuit_breaker("players", fallback=from_memory)
def guarded_blocking(player_id: int) -> str:
    return str(player_id)


@breaker
async def guarded_rows(first: int) -> AsyncIterator[int]:
    yield first


async def uses() -> None:
    await guarded("1")  # wrong
    await guarded()  # wrong
    await guarded(1, 2)  # wrong
    await guarded(id=1)  # wrong
    guarded_blocking("1")  # wrong
    await guarded_blocking(1)  # wrong
    await guarded_rows(1)  # wrong
    assert_type(await guarded(1), int)  # wrong
    assert_type(guarded_blocking(1), int)  # wrong
    await breaker.call(get, "1")  # wrong
    await breaker.call(get)  # wrong
    await breaker.call(get_blocking, 1)  # wrong
    breaker.record(None)  # wrong
    breaker.record(breaker.acquire(), "failed")  # wrong
    breaker(1)  # wrong
