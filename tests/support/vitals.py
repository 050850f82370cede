"""What a process takes of its machine, and whether that grows."""

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Vitals:
    """A process at a moment.

    Attributes:
        rss: Bytes of its memory that are in RAM; pss: its share of them.
        private: Bytes that are its alone.
        files: Open file descriptors.
        threads: Threads.
    """

    rss: int
    pss: int
    private: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Look at process *pid*."""
        home = Path(f"/proc/{pid}")
        sizes: Counter[str] = Counter()
        for line in (home / "smaps_rollup").read_text("ascii").splitlines()[1:]:
            name, size, *_ = line.split()
            sizes[name] += int(size) * 1024
        return cls(
            rss=sizes["Rss:"],
            pss=sizes["Pss:"],
            private=sizes["Private_Clean:"] + sizes["Private_Dirty:"],
            files=len(os.listdir(home / "fd")),
            threads=len(os.listdir(home / "task")),
        )


def files(pid: int) -> Counter[str]:
    """Kind of what is open -> how many: ``socket``, ``pipe``, or a path."""
    kinds: Counter[str] = Counter()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            kinds[os.readlink(f"/proc/{pid}/fd/{entry}").partition(":")[0]] += 1
        except FileNotFoundError:
            continue  # closed meanwhile
    return kinds


def growth(values: Sequence[float], share: float = 0.1) -> float:
    """By which part the last ones are more than the first: medians of a *share* each.

    A median, because a page that is being written is no growth.
    """
    few = max(1, round(len(values) * share))
    return statistics.median(values[-few:]) / statistics.median(values[:few]) - 1.0
