"""Days of the daemon on a virtual clock: what it takes must not grow.

    python tests/bench/soak.py [HOURS] [TARGETS]
    python tests/bench/soak.py --days [DAYS]

The whole daemon, its store on a disk, fifty simulated servers that are broken by a
schedule, every usual probe at its usual interval; see `support/soaking.py`. With `--days`
it is the store alone, in which what is kept for 14 and for 400 days grows old, and which
may not take all that it is given.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import machine

from pgbreaker.app.lookups import Crew
from pgbreaker.sinks.log import configure
from support.soaking import Aged, Seen, Soak, grow_old
from support.virtual import VirtualLoop
from support.vitals import growth

HOURS, TARGETS = 24.0, 50
DAYS, MAX_SIZE = 430, 32 * 1024**2
# Of the time: what is answered to who asks for incidents grows with them until there are
# as many as are ever read, within half a day of such faults.
WARM = 1 / 2
GOAL = 0.02


def report(seen: Seen, hours: float) -> int:
    """Print what came of it. Returns how many promises were not kept."""
    missed = 0

    def told(name: str, value: str, *, is_kept: bool = True) -> None:
        nonlocal missed
        missed += not is_kept
        print(f"{name:<44}{value}{'' if is_kept else '   MISSED'}")

    speed = hours * 3600 / seen.took
    print(
        f"\n{hours:g} virtual hours in {seen.took:.0f} s, {speed:.0f}x   ({machine()})"
    )
    told("readings", f"{seen.readings} ({seen.readings / seen.took:.0f}/s)")
    told("faults", ", ".join(f"{n} {name}" for name, n in seen.faults.items()))
    told("openings", str(seen.openings))
    warm = [s for s in seen.samples if s[0] >= seen.samples[-1][0] * WARM]
    rss = [vitals.rss for _, vitals, _ in warm]
    objects = [count for *_, count in warm]
    for name, values in (("memory after warm-up", rss), ("objects after it", objects)):
        grown = growth(values)
        told(
            name,
            f"{values[0] / 1e6:.2f} M, {values[-1] / 1e6:.2f} M: {grown:+.2%} (goal 2 %)",
            is_kept=grown < GOAL,
        )
    rests = [rest for rest in seen.rests if rest.at >= seen.rests[-1].at * WARM]
    for name in ("files", "threads", "tasks", "series"):
        values = [getattr(rest, name) for rest in rests]
        # Some series begin when a target first suffers what they tell of.
        more = GOAL / 2 if name == "series" else 0.0
        told(
            f"{name} at rest, {len(values)} times",
            f"{min(values)} to {max(values)}",
            is_kept=max(values) <= min(values) * (1 + more),
        )
    told("store, at most", f"{seen.largest / 1e6:.1f} MB")
    told("answers", ", ".join(f"{n} {name}" for name, n in seen.answers.items()))
    told("what should not have been", str(len(seen.wrong)), is_kept=not seen.wrong)
    for line in seen.wrong:
        print(f"  {line}")
    return missed


def bad_lines(log: Path) -> list[str]:
    """Lines of the log that tell of faults of ours."""
    lines = map(json.loads, log.read_text("utf-8").splitlines())
    return [str(line) for line in lines if line["level"] in ("ERROR", "CRITICAL")]


async def day(loop: VirtualLoop, home: Path, hours: float, targets: int) -> Seen:
    loop.set_default_executor(Crew())
    soak = Soak(loop, home, targets=targets)
    await soak.run(hours * 3600, told=lambda line: print(line, flush=True))
    return soak.seen


def main(hours: float, targets: int) -> int:
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "log").open("w") as log,
    ):
        configure("json", "INFO", stream=log)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            seen = runner.run(day(loop, Path(folder), hours, targets))
        log.flush()
        seen.wrong += bad_lines(Path(folder) / "log")
        return report(seen, hours)


def report_age(aged: Aged, days: int) -> int:
    """Print how a store grew old. Returns how many promises were not kept."""
    largest = max(aged.sizes)
    promises = {
        f"{days} days: at most {largest / 1e6:.1f} MB (goal {MAX_SIZE / 1e6:.1f})": (
            largest <= MAX_SIZE
        ),
        f"minutes go back {aged.oldest['ping_1m']:.1f} days (goal 14)": (
            aged.oldest["ping_1m"] <= 15
        ),
        f"hours go back {aged.oldest['ping_1h']:.1f} days (goal 400)": (
            aged.oldest["ping_1h"] <= 401
        ),
    }
    for promise, is_kept in promises.items():
        print(f"{promise}{'' if is_kept else '   MISSED'}")
    print(f"entries left: {aged.entries} of {days * 100}")
    return list(promises.values()).count(False)


def age(days: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, VirtualLoop)
            growing = grow_old(loop, path, days, targets=TARGETS, max_size=MAX_SIZE)
            return report_age(runner.run(growing), days)


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:] if not word.startswith("-")]
    if "--days" in sys.argv:
        sys.exit(age(int(given[0]) if given else DAYS))
    hours, targets, *_ = (*given, *(HOURS, TARGETS)[len(given) :])
    sys.exit(main(hours, int(targets)))
