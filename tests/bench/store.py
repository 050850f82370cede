"""How fast the store is: decisions, appends, what goes, what is read, upgrades, and what
forecasts have learned of a thousand targets.

python tests/bench/store.py [ENTRIES]
"""

import asyncio
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from report import Table, machine

sys.path.insert(0, str(Path(__file__).parents[1]))

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.wanted import Wanted
from pgbreaker.sinks.store import Learned
from pgbreaker.sinks.store.schema import SCHEMA, Schema
from support.storing import override, storing, until

BREAKERS = [f"db{n // 3}/{('connect', 'read', 'write')[n % 3]}" for n in range(500)]
LATER = Schema(
    SCHEMA.version + 1,
    {
        **SCHEMA.steps,
        SCHEMA.version + 1: "ALTER TABLE entry ADD COLUMN more TEXT;"
        " CREATE INDEX entry_target ON entry (target, id);",
    },
)
CAUSE = {
    "from": "closed",
    "to": "open",
    "cause": "failure_run",
    "retry_after_seconds": 1.0,
    "override": None,
    "evidence": {"code": "refused", "sqlstate": None, "probe": "ping", "text": "no"},
}


def made(id_: int, luck: random.Random) -> Entry:
    breaker = luck.choice(BREAKERS)
    return Entry(
        id=id_,
        at=id_ / 1000,
        kind=Kind.TRANSITION,
        text="3 of the last 3 calls failed: connection refused",
        target=breaker.partition("/")[0],
        breaker=breaker,
        details=CAUSE,
    )


def size_of(path: Path) -> int:
    return path.stat().st_size


async def timed(awaited) -> float:
    begun = time.perf_counter()
    await awaited
    return (time.perf_counter() - begun) * 1000


async def decisions(path: Path, table: Table) -> None:
    async with storing(path, clock=Clock()) as store:
        took = [await timed(store.record([override(n)])) for n in range(1, 501)]
    table.row("a decision, until it is on disk", took, p50=5, p99=50)


async def filling(path: Path, count: int, table: Table) -> None:
    luck, first = random.Random(1), 1_700_000_000_000
    begun = time.perf_counter()
    async with storing(path, clock=Clock(), max_size=2**31) as store:
        for start in range(first, first + count, 500):
            await store.record([made(n, luck) for n in range(start, start + 500)])
        took = time.perf_counter() - begun
        store.keep({name: memory(name) for name in BREAKERS})
        await store.record([override(first + count, breaker=n) for n in BREAKERS[:1]])
        reads = []
        for _ in range(200):
            wanted = Wanted(breaker=luck.choice(BREAKERS), limit=200)
            reads.append(await timed(store.entries(wanted)))
        table.row("the last 200 of a breaker", reads, p50=20, p99=100)
        incidents = [await timed(store.course((first + count) / 1000 - 5))]
        table.row("what incidents are read out of", incidents, p50=1000)
    print(f"{'appended, entries a second':34} {count / took:>10,.0f}   goal 5,000")
    print(f"{'bytes an entry':34} {size_of(path) / count:>10.0f}")


def memory(name: str) -> dict:
    return Breaker(name, DAEMON, 0.0, draw=lambda: 0.0).memory(1.0)


def remembered(luck: random.Random) -> dict:
    """As much as forecasts may remember of a target: 25 kB, most of it what is usual."""
    signals = {
        f"signal_{number}": {
            "now": [luck.gauss(0.0, 1.0) for _ in range(4)],
            "offsets": [luck.randrange(-999, 999) for _ in range(96)],
            "deviations": [luck.randrange(999) for _ in range(48)],
            "counts": [luck.randrange(14) for _ in range(48)],
        }
        for number in range(30)
    }
    return {"version": 1, "usual": signals}


async def learning(path: Path, table: Table) -> None:
    """What forecasts have learned, of a thousand targets. Each holds the loop, for so much
    of a processor's time: who else is busy on the machine is not its fault."""
    luck = random.Random(2)
    memories = [remembered(luck) for _ in range(20)]
    took, many = [], {}
    for number in range(1000):
        begun = time.thread_time()
        many[f"db{number}"] = Learned.of(memories[number % 20], time.time())
        took.append((time.thread_time() - begun) * 1000)
    table.row("what was learned of a target, put by", took, p50=2, p99=5)
    async with storing(path, clock=Clock(), max_size=2**28) as store:
        begun = time.perf_counter()
        store.learn(many)
        await until(
            lambda: store.size_bytes > sum(len(x.packed) for x in many.values())
        )
        took = [(time.perf_counter() - begun) * 1000]
    table.row("that of a thousand, written", took, p50=2000)
    print(f"{'bytes on disk a target':34} {size_of(path) / 1000:>10,.0f}")
    begun = time.perf_counter()
    async with storing(path, clock=Clock(), max_size=2**28) as store:
        took = [(time.perf_counter() - begun) * 1000]
        found = list(store.restored().learned.values())
    table.row("that of a thousand, restored", took, p50=500)
    took = []
    for one in found:
        begun = time.thread_time()
        one.memory()
        took.append((time.thread_time() - begun) * 1000)
    table.row("what was learned of a target, read", took, p50=2, p99=5)


async def restoring(path: Path, table: Table) -> None:
    took = []
    for _ in range(10):
        begun = time.perf_counter()
        async with storing(path, clock=Clock(), max_size=2**31) as store:
            took.append((time.perf_counter() - begun) * 1000)
            found = store.restored()
            assert len(found.memories) == len(BREAKERS)
            assert len(found.entries) == 2000
    table.row("to restore 500 breakers", took, p50=500, p99=1000)


async def upgrading(path: Path, count: int, table: Table) -> None:
    begun = time.perf_counter()
    async with storing(path, clock=Clock(), max_size=2**31, schema=LATER) as store:
        took = (time.perf_counter() - begun) * 1000
        assert store.degraded is None
        assert path.with_name(f"{path.name}.bak-v{SCHEMA.version}").exists()
    table.row(f"to upgrade {count:,} entries", [took], p50=5000)


async def pruning(path: Path, table: Table) -> None:
    """Decisions, while a third of the file goes."""
    took = []
    size = size_of(path)
    more = {"schema": LATER, "max_size": size * 2 // 3}
    begun = time.monotonic()
    async with storing(path, clock=Clock(), **more) as store:
        number = store.restored().last_id
        while time.monotonic() - begun < 20.0:
            number += 1
            took.append(await timed(store.record([override(number)])))
            await asyncio.sleep(0.01)
        gone = size - size_of(path)
    table.row("a decision, while much goes", took, p50=20, p99=250)
    print(f"{'bytes that went meanwhile':34} {gone:>10,}")


async def main(count: int) -> int:
    print(machine())
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        table = Table("store", "ms")
        await decisions(home / "decisions.db", table)
        await learning(home / "learned.db", table)
        await filling(home / "state.db", count, table)
        await restoring(home / "state.db", table)
        await upgrading(home / "state.db", count, table)
        await pruning(home / "state.db", table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'memory at most, MB':34} {peak:>10.0f}")
    return 1 if table.missed else 0


if __name__ == "__main__":
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    sys.exit(asyncio.run(main(entries)))
