"""Entries to be stored, and a store to put them in."""

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.plan import StorePlan
from pgbreaker.sinks.store import Store
from support.boards import Stopped

SOON = (0.02, 0.1)
"""Between two tries, for tests that do not wait."""

WITHIN = 5.0


def entry(number: int, **more) -> Entry:
    """A move of main/read, the *number*-th entry."""
    given = {
        "id": number,
        "at": number / 1000,
        "kind": Kind.TRANSITION,
        "text": f"move {number}",
        "target": "main",
        "breaker": "main/read",
        "details": {"from": "closed", "to": "open", "cause": "failure_run"},
    }
    return Entry(**{**given, **more})


def override(number: int, state: str | None = "forced_open", **more) -> Entry:
    """Somebody's word before main/read; None hands it back."""
    given = {
        "kind": Kind.OVERRIDE,
        "author": "mia",
        "details": {"state": state, "reason": "work", "until": 9e9},
    }
    return entry(number, **{**given, **more})


def window(number: int, **more) -> Entry:
    """A window of maintenance that somebody began."""
    details = {"targets": ["main"], "reason": "disk", "starts": 0.0, "ends": 9e9}
    given = {
        "kind": Kind.MAINTENANCE,
        "breaker": None,
        "author": "mia",
        "details": details,
    }
    return entry(number, **{**given, **more})


@asynccontextmanager
async def storing(path: Path, *, max_size: int = 64 * 1024**2, clock=None, **more):
    """A store at *path*, for the time of the block."""
    plan = StorePlan(path=path, max_size=max_size)
    given = {"rests": SOON, **more}
    store = await Store.open(plan, clock or Stopped().clock(), **given)
    try:
        yield store
    finally:
        await store.close()


async def until(holds, within: float = WITHIN) -> None:
    """Wait until *holds* says so, for *within* seconds at most."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.005)
