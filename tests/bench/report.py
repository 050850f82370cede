"""How a benchmark prints: percentiles, the goal beside them, a mark when missed."""

import math
import os
import platform
import sys


def percentile(values: list[float], share: float) -> float:
    """The smallest value that *share* of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def machine() -> str:
    """One line that says what this ran on."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    return (
        f"Python {platform.python_version()}, {os.cpu_count()} cores,"
        f" load {load}, {platform.system()} {platform.release()}"
    )


class Table:
    """Rows of measured values against their goals.

    Attributes:
        missed: Rows whose goal was not met.
    """

    def __init__(self, title: str, unit: str) -> None:
        self.missed = 0
        self._unit = unit
        print(f"\n{title} [{unit}]   ({machine()})")
        print(f"{'':<34}{'p50':>9}{'p99':>9}{'max':>9}{'n':>8}   goal")

    def row(
        self,
        name: str,
        values: list[float],
        *,
        p50: float | None = None,
        p99: float | None = None,
    ) -> None:
        """Print one row; *p50* and *p99* are the goals for these percentiles."""
        middle, high = percentile(values, 0.5), percentile(values, 0.99)
        goals = [
            (f"p50 <= {p50:g}", p50 is None or middle <= p50) if p50 else None,
            (f"p99 <= {p99:g}", p99 is None or high <= p99) if p99 else None,
        ]
        said = ", ".join(goal[0] for goal in goals if goal)
        met = all(goal[1] for goal in goals if goal)
        self.missed += not met
        print(
            f"{name:<34}{middle:>9.1f}{high:>9.1f}{max(values):>9.1f}{len(values):>8}"
            f"   {said}{'' if met else '   MISSED'}"
        )
        sys.stdout.flush()
