"""Figures that tests measure, told with their goals: `pytest -s` shows them."""

import sys


def tell(what: str, figure: str, goal: str) -> None:
    """Say that *what* was measured as *figure*, with its *goal*."""
    sys.stdout.write(f"{what}: {figure} (goal {goal})\n")
