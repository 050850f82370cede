"""A loop that hangs for 40 s: what the service manager, the log and a person see.

    python tests/bench/hung.py [SECONDS]

With the watchdog of the unit file the manager would end it after 30 s without food; here
it only looks, so that what comes after is seen as well.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import machine

from support.hanging import hanging
from support.manager import managing

SECONDS, WATCHDOG = 40.0, 30.0
CONFIG = "version: 1\ntargets:\n  - {name: gone, dsn: 'postgresql://a@127.0.0.1:1/b'}\n"


def main(seconds: float) -> int:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pgbreaker.yaml"
        config.write_text(CONFIG, "utf-8")
        with managing(Path(folder)) as manager:
            seen = hanging(config, manager, seconds, WATCHDOG)
    print(f"\na loop that hangs for {seconds:g} s   ({machine()})")
    checks = {
        f"watchdog unfed for {seen.longest_unfed:.1f} s, more than its {WATCHDOG:g} s": (
            seen.longest_unfed > WATCHDOG
        ),
        f"stacks in the log after {seen.stacks_after} s, with the place": (
            seen.stacks_after is not None
            and seen.stacks_after < WATCHDOG
            and seen.place_is_told
        ),
        f"/-/healthy said {seen.health[0]}: {seen.health[1]}": seen.health[0] == 503,
        "fed again when the loop turned again": seen.fed_again,
        f"and ended with {seen.code}": seen.code == 0,
    }
    for check, holds in checks.items():
        print(f"{'ok    ' if holds else 'MISSED'}  {check}")
    return sum(not holds for holds in checks.values())


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
