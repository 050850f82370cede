"""A process that writes decisions, killed at any moment; and what it leaves behind.

Run as a program it is that process:

    python tests/support/kills.py PATH

It prints the id of each entry once that is acknowledged.
"""

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root / "daemon"), str(root / "tests")]

from support.storing import entry, override, storing

READY_WITHIN = 20.0


async def write(path: Path) -> None:
    """Decide for good, and let go of each id once it was written down."""
    async with storing(path) as store:
        checking = threading.Thread(target=_check_points, args=(path,), daemon=True)
        checking.start()
        id_ = store.restored().last_id
        while True:
            id_ += 4
            store.keep({f"main/{n}": {"id": id_, "n": n} for n in range(20)})
            mine, by_itself = id_, id_ - 1
            await asyncio.gather(
                store.record([entry(by_itself, text="x" * 300)]),
                store.record([override(mine, None if mine % 8 else "closed")]),
            )
            os.write(1, f"{by_itself}\n{mine}\n".encode("ascii"))


def _check_points(path: Path) -> None:
    """Move the log into the file all the time, so that a kill comes in between."""
    with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as connection:
        while True:
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


@dataclass
class Kills:
    """What came of a number of kills.

    Attributes:
        acknowledged: Ids that were.
        lost: Those of them that are not there.
        faults: What is wrong with the file, or its audit log.
    """

    acknowledged: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def once(self, path: Path, luck: random.Random) -> None:
        """Have a process write to *path*, and kill it at some moment."""
        process = subprocess.Popen(
            [sys.executable, __file__, str(path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with process, process.stdout as told:
            first = told.readline()
            time.sleep(luck.uniform(0.0, 0.06))  # the moment
            process.kill()
            said = (first + told.read()).decode("ascii")
        # The last line may have been cut.
        ids = [int(line) for line in said[: said.rfind("\n") + 1].splitlines()]
        assert ids, "it did not write anything"
        self.acknowledged += ids
        self._look(path, ids)

    def _look(self, path: Path, ids: list[int]) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT id FROM entry WHERE id >= ?", (ids[0],))
            there = {id_ for (id_,) in rows}
            (whole,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            last = connection.execute(
                "SELECT id, details FROM entry WHERE kind = 'override'"
                " ORDER BY id DESC LIMIT 1"
            ).fetchone()
            holds = connection.execute("SELECT id, details FROM override").fetchall()
        self.lost += [id_ for id_ in ids if id_ not in there]
        if whole != "ok":
            self.faults.append(whole)
        if holds != ([] if '"state":null' in last[1] else [last]):
            self.faults.append(f"{holds} is said to hold after {last}")

    async def audit(self, path: Path) -> None:
        """Look the audit log, and all that was ever acknowledged, through."""
        async with storing(path) as store:
            fault = await store.verify_audit()
            assert store.quarantined is None
        with contextlib.closing(sqlite3.connect(path)) as connection:
            there = {id_ for (id_,) in connection.execute("SELECT id FROM entry")}
        self.lost = sorted({*self.lost, *(set(self.acknowledged) - there)})
        if fault is not None:
            self.faults.append(fault)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
