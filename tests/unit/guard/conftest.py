"""Fixtures: a clock in the hand, ears, and a registry that forgets."""

import pytest

from pgbreaker import registry, subscribe
from unit.guard.driving import Time


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def heard():
    """The events that were told while the test ran."""
    events = []
    unsubscribe = subscribe(events.append)
    yield events
    unsubscribe()


@pytest.fixture(autouse=True)
def _fresh_registry():
    registry.clear()
    yield
    registry.clear()
