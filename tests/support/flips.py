"""Bits that flip in the store's file, as disks and memory have them flip."""

import contextlib
from pathlib import Path
from random import Random

from pgbreaker.core.wanted import Wanted
from pgbreaker.sinks.history import NotKeptError, NotReadError
from pgbreaker.sinks.store import Counts
from pgbreaker.sinks.store.rows import Bucket
from support.storing import entry, override, storing, window

_HOUR = 1_800_000_000


async def filled(path: Path) -> None:
    """A store at *path* that has some of everything."""
    async with storing(path) as store:
        for first in range(1, 1001, 200):
            await store.record([entry(n) for n in range(first, first + 200)])
        await store.record([override(n) for n in range(2001, 2051)])
        await store.record([window(n) for n in range(3001, 3011)])
        store.keep({f"main/{n}": {"state": "open", "n": n} for n in range(50)})
        minutes = range(_HOUR, _HOUR + 6000, 60)
        store.count(Counts({("main", m): Bucket(m, 1, 0.1, 0.1, 0) for m in minutes}))


async def survive(path: Path, luck: Random) -> str:
    """Flip some bits of the file, and use the store as a daemon does.

    Returns:
        What became of it: ``put aside``, ``degraded`` or ``went on``.
    """
    _flip(path, luck)
    async with storing(path) as store:
        for id_ in range(10_000, 10_010):
            try:
                await store.record([override(id_)])
            except NotKeptError:
                assert store.degraded is not None or store.quarantined is not None
        await _read(store)
        if store.degraded is not None:
            return "degraded"
        await store.record([override(20_000)])
    return "went on" if store.quarantined is None else "put aside"


def _flip(path: Path, luck: Random) -> None:
    raw = bytearray(path.read_bytes())
    for _ in range(luck.choice((1, 4, 64))):
        raw[luck.randrange(len(raw))] ^= 1 << luck.randrange(8)
    path.write_bytes(raw)


async def _read(store) -> None:
    for read in (
        lambda: store.entries(Wanted(limit=2000)),
        lambda: store.course(0.0),
        lambda: store.audit(),
        lambda: store.verify_audit(),
        lambda: store.buckets("main", 0),
        lambda: store.shut("main/read", 0, hours=True),
        lambda: store.failures("main"),
    ):
        # It may say so: then the history falls back on memory.
        with contextlib.suppress(NotReadError):
            await read()
