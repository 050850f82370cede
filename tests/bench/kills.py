"""Whether an acknowledged decision is ever lost, or a broken file ends anything.

    python tests/bench/kills.py [KILLS [FLIPS]]

The writer decides, and prints what was acknowledged; another thread of it moves the log
into the file all the time, so that kills come in the middle of that, too. All write to
one file, one after the other. Then bits are flipped in files, which are used as a daemon
uses them.
"""

import asyncio
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from report import machine

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.flips import filled, survive
from support.kills import Kills

GOAL = 500
FLIPS = 100


def kill(times: int, directory: Path) -> bool:
    kills, luck = Kills(), random.Random(time.time())
    path = directory / "state.db"
    begun = time.monotonic()
    for done in range(1, times + 1):
        kills.once(path, luck)
        if done % 50 == 0 or done == times:
            asyncio.run(kills.audit(path))
            print(f"  {done} kills, {time.monotonic() - begun:.0f} s", flush=True)
    took = time.monotonic() - begun
    print(f"{'kills -9 of the writer':34} {times:>10,}   goal {GOAL:,}")
    print(f"{'entries acknowledged':34} {len(kills.acknowledged):>10,}")
    print(f"{'of them lost':34} {len(kills.lost):>10,}   goal 0")
    print(f"{'files or audit logs broken':34} {len(kills.faults):>10,}   goal 0")
    print(f"{'took':34} {took:>8.0f} s")
    for fault in kills.faults[:5]:
        print(f"  {fault}")
    return not kills.lost and not kills.faults


def flip(times: int, directory: Path) -> None:
    """Flip bits of a file. What reaches us as an exception ends this."""
    came: dict[str, int] = {}
    for seed in range(times):
        home = directory / str(seed)
        home.mkdir()
        asyncio.run(filled(home / "state.db"))
        what = asyncio.run(survive(home / "state.db", random.Random(1000 + seed)))
        came[what] = came.get(what, 0) + 1
    print(f"{'files with flipped bits':34} {times:>10,}   goal {FLIPS:,}")
    for what, count in sorted(came.items()):
        print(f"{'  ' + what:34} {count:>10,}")
    print(f"{'exceptions':34} {0:>10,}   goal 0")


def main(times: int, flips: int) -> int:
    print(machine())
    logging.disable()  # it says what it finds, of each file
    with tempfile.TemporaryDirectory() as directory:
        held = kill(times, Path(directory))
        flip(flips, Path(directory))
    return 0 if held else 1


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:]]
    sys.exit(main(*(given + [GOAL, FLIPS][len(given) :])))
