"""Fixtures: a clock in the hand, ears, threads in a hurry, and a registry that forgets."""

import gc
import sys
import time as clocks

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


@pytest.fixture
def hasty():
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def littered(hasty):
    """And whenever Python needs room, which can be in the midst of copying a list."""

    def collected(_phase, _about):
        clocks.sleep(0)

    before = gc.get_threshold()
    gc.set_threshold(2)
    gc.callbacks.append(collected)
    yield
    gc.callbacks.remove(collected)
    gc.set_threshold(*before)


@pytest.fixture(autouse=True)
def _fresh_registry():
    registry.clear()
    yield
    registry.clear()
