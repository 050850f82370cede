"""Whether reading changes anything: many sequences of reads and events, interleaved.

    python tests/bench/reads.py [SEQUENCES]

Two daemons are told the same, and one of them is read at random all the time: explained,
shown, scraped, asked what it remembers. What they do has to be the same, after each step.
"""

import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, run_state_machine_as_test
from report import machine

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.reads import Reads

GOAL = 10_000
STEPS = 20


def main(sequences: int) -> None:
    steps = 0

    class Counted(Reads):
        @invariant()
        def they_do_the_same(self) -> None:
            nonlocal steps
            steps += 1
            super().they_do_the_same()

    begun = time.monotonic()
    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    took = time.monotonic() - begun
    print(machine())
    print(f"{'sequences':30} {sequences:>10,}   goal {GOAL:,}")
    print(f"{'steps':30} {steps:>10,}")
    print(f"{'that a read changed':30} {0:>10}   goal 0")
    print(f"{'took':30} {took:>9.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else GOAL)
