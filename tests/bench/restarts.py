"""A daemon killed and started again under probes: what it still knows, and how soon.

    python tests/bench/restarts.py [RESTARTS]

One target is well, one is not there; one breaker is forced open, one is disabled, and a
window of maintenance is on. Each process is killed at another moment of its life, and its
successor asked at once: states, causes, words, windows, and since when they are.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from support.lives import Lives
from support.servers import running_server

RESTARTS = 200
RESTORING = 1000.0  # milliseconds: the promise
STARTING = 2000.0
BLIND = 10_000.0  # no alert notices a gap of less than two scrapes, of 5 s each


def main(restarts: int) -> int:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running_server(17) as server:
        lives = Lives(Path(folder), server.dsn(user="pgbreaker"))
        lives.run(restarts, random.Random(time.time()))
    table = Table(f"{restarts} times kill -9, and started again", "ms")
    table.row("taking up what was", _ms(lives.restoring), p99=RESTORING)
    # How long Python takes to begin is the machine's affair, and its load's.
    table.row("process begins -> first status", _ms(lives.answered), p50=STARTING)
    table.row("kill -> the server seen again", _ms(lives.blind), p99=BLIND)
    print(f"another than before: {len(lives.changed)} (goal 0)")
    print(f"moves without a reason: {len(lives.moves)} (goal 0)")
    print(f"took {time.monotonic() - begun:.0f} s")
    for line in (*lives.changed[:10], *lives.moves[:10]):
        print(f"  {line}")
    return table.missed + bool(lives.changed) + bool(lives.moves)


def _ms(seconds: list[float]) -> list[float]:
    return [1000 * one for one in seconds]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else RESTARTS))
