"""Schemathesis against the API, for as long as it takes: several seeds, all checks.

python tests/bench/api.py [EXAMPLES] [SEEDS]
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.fuzzing import cases, fuzz, fuzzed


async def main(examples: int, seeds: int) -> None:
    began, made = time.monotonic(), 0
    for seed in range(1, seeds + 1):
        async with fuzzed() as (url, _served):
            with tempfile.TemporaryDirectory() as place:
                made += cases(
                    await fuzz(url, Path(place), examples=examples, seed=seed)
                )
    took = time.monotonic() - began
    print(
        f"{made} cases of {seeds} seeds in {took:.0f} s, none failed (goal: none fails)"
    )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*(given + [60, 5][len(given) :])))
