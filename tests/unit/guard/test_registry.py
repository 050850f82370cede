"""Breakers by name."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgbreaker import PostgreSQLCircuitBreaker, PostgreSQLCircuitBreakerConfig, registry
from pgbreaker.guard.registry import Registry

Config = PostgreSQLCircuitBreakerConfig


def test_the_same_name_is_the_same_breaker():
    assert registry.breaker("orders") is registry.breaker("orders")


def test_another_name_is_another():
    assert registry.breaker("orders") is not registry.breaker("players")


def test_one_that_a_constructor_made_is_not_in_it():
    made = PostgreSQLCircuitBreaker("orders")

    assert registry.breaker("orders") is not made


def test_rules_are_given_once_and_hold_for_all():
    config = Config(timeout=1.0)
    first = registry.breaker("orders", config)

    assert registry.breaker("orders") is first
    assert registry.breaker("orders", Config(timeout=1.0)) is first
    assert first.config is config


@pytest.mark.parametrize("name", ["orders", "main/read", "main/connect"])
def test_other_rules_are_refused(name):
    registry.breaker(name, Config(timeout=1.0))

    with pytest.raises(ValueError, match=r"exists already, with other rules") as caught:
        registry.breaker(name, Config(timeout=2.0))
    shown = name.partition("/")[0]
    assert str(caught.value) == (
        f"breaker {shown!r} exists already, with other rules; give them once"
    )


def test_a_name_with_a_slash_is_of_a_target():
    read, connect = registry.breaker("main/read"), registry.breaker("main/connect")

    assert (read.target, read.operation) == ("main", "read")
    assert read.above is connect
    assert registry.target("main").breaker("read") is read
    assert registry.breaker("main").above is connect


def test_a_breaker_that_stands_for_itself_keeps_its_name():
    registry.breaker("main")

    for ask in (lambda: registry.target("main"), lambda: registry.breaker("main/read")):
        with pytest.raises(ValueError, match="stands for itself") as caught:
            ask()
    assert str(caught.value) == (
        "a breaker that stands for itself is called 'main' already;"
        " call it 'main/...' to have it on the target"
    )


def test_all_are_listed_those_of_targets_last():
    registry.breaker("main/read")
    registry.breaker("orders")

    assert [breaker.name for breaker in registry.breakers()] == [
        "orders",
        "main/connect",
        "main/read",
    ]


def test_it_can_forget():
    before = registry.breaker("orders")

    registry.clear()

    assert registry.breakers() == ()
    assert registry.breaker("orders") is not before


@pytest.mark.parametrize("name", ["orders", "main/read"])
def test_threads_that_ask_at_once_get_the_same(name):
    for _ in range(50):
        fresh, barrier = Registry(), threading.Barrier(4)

        def ask(_, fresh=fresh, barrier=barrier):
            barrier.wait()
            return fresh.breaker(name)

        with ThreadPoolExecutor(4) as threads:
            found = set(threads.map(ask, range(4)))

        assert len(found) == 1
