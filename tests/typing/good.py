"""Right uses: the types that come out are those that went in."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Any, assert_type

from pgbreaker import (
    PostgreSQLCircuitBreaker,
    PostgreSQLCircuitBreakerConfig,
    State,
    circuit_breaker,
    stale,
)

breaker = PostgreSQLCircuitBreaker(
    "orders", PostgreSQLCircuitBreakerConfig(timeout=1.0)
)


async def from_cache(player_id: int, *, fresh: bool = False) -> str:
    return f"{player_id} {fresh}"


def from_memory(player_id: int, *, fresh: bool = False) -> str:
    return f"{player_id} {fresh}"


def key(player_id: int, *, fresh: bool = False) -> int:
    return player_id


# A coroutine function.


@circuit_breaker("players")
async def plain(player_id: int, *, fresh: bool = False) -> str:
    return f"{player_id} {fresh}"


@circuit_breaker("players", fallback=from_cache)
async def with_async_fallback(player_id: int, *, fresh: bool = False) -> str:
    return f"{player_id} {fresh}"


@circuit_breaker("players", fallback=from_memory)
async def with_fallback(player_id: int, *, fresh: bool = False) -> str:
    return f"{player_id} {fresh}"


@circuit_breaker("players", default=None)
async def with_default(player_id: int) -> str | None:
    return str(player_id)


@circuit_breaker(
    "players",
    fallback=from_cache,
    config=PostgreSQLCircuitBreakerConfig.preset("web"),
    cache=stale("5m", key=key),
    timeout="800ms",
    bulkhead=20,
    deadline=2.0,
    retry=True,
    idempotent=True,
)
async def with_all(player_id: int, *, fresh: bool = False) -> str:
    return f"{player_id} {fresh}"


async def coroutines() -> None:
    assert_type(await plain(1), str)
    assert_type(await plain(1, fresh=True), str)
    assert_type(await with_async_fallback(1), str)
    assert_type(await with_async_fallback(player_id=1, fresh=True), str)
    assert_type(await with_fallback(1, fresh=True), str)
    assert_type(await with_default(1), str | None)
    assert_type(await with_all(1), str)
    assert_type(await asyncio.create_task(plain(1)), str)
    assert_type(await asyncio.create_task(with_async_fallback(1)), str)
    assert_type(await asyncio.create_task(with_fallback(1)), str)


# A function.


@circuit_breaker("players")
def plain_blocking(player_id: int, *, fresh: bool = False) -> str:
    return f"{player_id} {fresh}"


@circuit_breaker("players", fallback=from_memory)
def blocking_with_fallback(player_id: int, *, fresh: bool = False) -> str:
    return f"{player_id} {fresh}"


@circuit_breaker("players", default="nobody", bulkhead=3)
def blocking_with_default(player_id: int) -> str:
    return str(player_id)


def functions() -> None:
    assert_type(plain_blocking(1, fresh=True), str)
    assert_type(blocking_with_fallback(1, fresh=True), str)
    assert_type(blocking_with_default(1), str)


# Generators.


@circuit_breaker("players")
async def rows(first: int) -> AsyncIterator[int]:
    yield first


@circuit_breaker("players")
async def dialogue(first: int) -> AsyncGenerator[int, str]:
    said = yield first
    yield len(said)


@circuit_breaker("players")
def blocking_rows(first: int) -> Iterator[int]:
    yield first


async def generators() -> None:
    assert_type(rows(1), AsyncIterator[int])
    assert_type([row async for row in rows(1)], list[int])
    assert_type(await dialogue(1).asend("well"), int)
    assert_type(list(blocking_rows(1)), list[int])


# The breaker itself.


@breaker
async def guarded(player_id: int) -> str:
    return str(player_id)


@breaker
def guarded_blocking(player_id: int) -> str:
    return str(player_id)


@breaker
async def guarded_rows(first: int) -> AsyncIterator[int]:
    yield first


class Store:
    """Methods keep their signature too."""

    @breaker
    async def get(self, player_id: int) -> str:
        return str(player_id)

    @circuit_breaker("players")
    async def find(self, player_id: int) -> str:
        return str(player_id)

    @staticmethod
    @circuit_breaker("players", fallback=from_memory)
    async def load(player_id: int, *, fresh: bool = False) -> str:
        return f"{player_id} {fresh}"


async def by_hand(store: Store) -> None:
    assert_type(await guarded(1), str)
    assert_type(guarded_blocking(1), str)
    assert_type([row async for row in guarded_rows(1)], list[int])
    assert_type(await store.get(1), str)
    assert_type(await store.find(player_id=1), str)
    assert_type(await store.load(1), str)

    with breaker as inside:
        assert_type(inside, PostgreSQLCircuitBreaker)
    async with breaker as inside:
        assert_type(inside, PostgreSQLCircuitBreaker)
    assert_type(await breaker.call(from_cache, 1, fresh=True), str)
    assert_type(await breaker.call(partial(from_cache, 1)), str)

    ticket = breaker.acquire()
    breaker.record(ticket)
    breaker.record(ticket, ValueError())
    breaker.record(ticket, error=None)

    assert_type(breaker.state, State)
    assert_type(breaker.explain(), str)
    assert_type(breaker.snapshot(), dict[str, Any])


def a_block() -> int:
    """`with` hides no error, so what follows is reached only through the block."""
    with breaker:
        return 1


# What is expected somewhere.

decorated: Callable[[int], Coroutine[Any, Any, str]] = guarded
block: AbstractContextManager[PostgreSQLCircuitBreaker, None] = breaker
async_block: AbstractAsyncContextManager[PostgreSQLCircuitBreaker, None] = breaker
