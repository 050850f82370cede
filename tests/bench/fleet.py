"""A fleet by a virtual clock: what it costs the engine, each daemon, each follower.

    python tests/bench/fleet.py [TARGETS DAEMONS FOLLOWERS [WATCHERS]]

What `support/fleets.py` models goes through what happens to fleets; the circle, its
ballots and breakers are real, and so are the sizes of what is said. Then a real daemon's
board of so many targets: memory, and the longest that its loop is held; and what a real
Redis takes, where one is installed.
"""

import gc
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import redis
from report import machine

from pgbreaker.app.fleet import board_of
from pgbreaker.clock import Clock
from pgbreaker.config import load
from pgbreaker.core import view as views
from pgbreaker.core.circle import Circle
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.view import View
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Hub
from pgbreaker.sinks.peers.sights import Sights
from pgbreaker.web.api.advising import Advising, event
from support.fleets import OPERATIONS, SCENARIOS, Came, Fleet, begun, play, written

SIZES = ((10, 1, 100), (50, 3, 600), (1_000, 3, 10_000), (10_000, 10, 100_000))
STEP = 20.0  # milliseconds that a loop may be held


def tell(name: str, outcome: Came) -> None:
    tally, engine, daemon = outcome.tally, outcome.engine, outcome.daemon
    print(
        f"{name:<21}{engine[0]:>7.0f}{engine[1]:>8}{engine[2] / 1e3:>8.0f}"
        f"{engine[3] / 1e3:>9.0f}{daemon[2] / 1e6:>8.2f}{daemon[3] / 1e6:>9.1f}"
        f"{outcome.follower[0]:>7.2f}{outcome.follower[1] / 1e3:>8.2f}"
        f"{tally.handed:>8}{tally.unwatched:>6.1f}{tally.false_open:>5}"
        f"{tally.forgotten:>6}{outcome.lost:>7}{tally.fenced + tally.missed:>5}"
        f"{outcome.settled:>6.1f}{outcome.fullest:>8}"
    )


HEADINGS = (
    f"{'':<21}{'msg/s':>7}{'peak':>8}{'kB/s':>8}{'peak':>9}{'MB/s':>8}{'peak':>9}"
    f"{'msg/s':>7}{'kB/s':>8}{'handed':>8}{'blind':>6}{'open':>5}{'unkn':>6}"
    f"{'lost':>7}{'anew':>5}{'calm':>6}{'most':>8}"
)


# A real daemon's board.


@dataclass(frozen=True, slots=True)
class Held:
    """What one daemon holds, and how long its loop is held."""

    board: float  # MB
    circle: float  # MB
    all_of_it: int  # bytes that a follower is sent first
    steps: dict[
        str, tuple[int, float, float]
    ]  # calls, microseconds each, longest in ms


def resident() -> float:
    """Megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 1e6


def _plan() -> TargetPlan:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pgbreaker.yml"
        path.write_text(
            "version: 1\ntargets:\n  - {name: db, dsn: 'postgresql://me@db/app'}\n"
        )
        return load(path).targets[0]


def weigh(targets: int, daemons: int) -> Held:
    """Build the board of a daemon that is one of some, and have it hear the others."""
    clock, plan = Clock(), _plan()
    names = [f"db-{n:05}" for n in range(targets)]
    began = resident()
    gc.disable()  # it has a row of its own
    plans = [replace(plan, name=name, probes=dict(plan.probes)) for name in names]
    board = Board((board_of(each, clock, {}) for each in plans), clock)
    with_board = resident()
    steps: dict[str, list[float]] = {}

    def step(name: str, call: Callable[[], object]) -> None:
        begun = time.thread_time()
        call()
        steps.setdefault(name, []).append(time.thread_time() - begun)

    def walk(name: str, walking: Coroutine[object, object, None]) -> None:
        """Note each step of what lets others have their turn in between."""
        is_over: list[bool] = []

        def go() -> None:
            try:
                walking.send(None)
            except StopIteration:
                is_over.append(True)

        while not is_over:
            step(name, go)

    circle, hub = Circle("daemon-0", clock.now()), Hub()
    sights = Sights(circle, board, hub, clock)
    step("a configuration is taken", lambda: circle.can_watch(names))
    every = frozenset(names)
    who = {f"daemon-{n}": (n + 1, every) for n in range(daemons)}
    step("others are met", lambda: circle.meet(who, clock.now()))
    while not circle.is_settled:
        step("500 duties", lambda: circle.decide(clock.now()))
    for name in sorted(circle.watching):
        reading = Reading(name, "ping", clock.now(), 0.001, Finding.OK)
        board.targets[name].take(reading)
    walk("a look at what is watched", sights.look())
    body = json.loads(next(b for b in sights.untold.values() if b is not None))
    others = [name for name in names if name not in circle.watching]
    for some in _parts(others, 17):  # 51 views: then others have their turn
        told = [
            (daemon := circle.chosen(n)[0], _said(body, f"{n}/{o}", who[daemon][0]))
            for n, o in itertools.product(some, OPERATIONS)
        ]
        step("50 views of others", lambda t=told: _hear(sights, t))
    walk("all counted anew", sights.reckon_all())
    step("the garbage, all collected", gc.collect)
    with_circle = resident()
    history = History(board, clock=clock)
    advising = Advising(
        board, history, clock, 1_800_000_000_000, think=sights.thought_of
    )
    step("a first look at all advice", advising.look)
    walk("a look at all advice", advising._look_through())
    all_of_it = len(event("advice", advising.said()))
    step("all advice, written", lambda: event("advice", advising.said()))
    told = {
        name: (len(all_), sum(all_) / len(all_) * 1e6, max(all_) * 1e3)
        for name, all_ in steps.items()
    }
    return Held(with_board - began, with_circle - with_board, all_of_it, told)


def _parts(names: list[str], size: int) -> list[list[str]]:
    return [names[n : n + size] for n in range(0, len(names), size)]


def _said(body: dict[str, object], breaker: str, token: int) -> str:
    return json.dumps({**body, "breaker": breaker, "token": token})


def _hear(sights: Sights, told: list[tuple[str, str]]) -> None:
    for daemon, text in told:
        sights.hear(daemon, views.read(json.loads(text)))


def kept(fleet: Fleet) -> float | None:
    """Megabytes that a Redis takes for what stands and what was said. None: there is
    none here."""
    program = shutil.which("redis-server")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/redis"
        words = ("--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder)
        with subprocess.Popen([program, *words], stdout=subprocess.DEVNULL) as server:
            try:
                return _loaded(redis.Redis(unix_socket_path=socket), fleet)
            finally:
                server.terminate()


def _loaded(client: redis.Redis, fleet: Fleet) -> float:
    for _ in range(100):
        with suppress(redis.ConnectionError):
            client.ping()
            break
        time.sleep(0.05)
    before = client.info("memory")["used_memory"]
    every = json.dumps(fleet.names)
    for daemon, said in fleet.engine.views.items():
        client.set(f"{{pgbreaker}}:targets:{daemon}", every)
        for some in _parts(list(said), 1000):
            told = {name: written(said[name][0]) for name in some}
            client.hset(f"{{pgbreaker}}:views:{daemon}", mapping=told)
    stream = client.pipeline(transaction=False)
    for one in fleet.engine.said:
        body = written(one.what) if isinstance(one.what, View) else "x" * one.size
        fields = {"daemon": one.daemon, "token": one.token, "kind": one.kind}
        fields |= {"key": one.key, "body": body}
        stream.xadd("{pgbreaker}:said", fields, id=f"{one.number}-0")
    stream.execute()
    return (client.info("memory")["used_memory"] - before) / 1e6


def main(sizes: tuple[tuple[int, ...], ...]) -> int:
    missed = 0
    for targets, daemons, followers, *rest in sizes:
        weighed = subprocess.run(
            [sys.executable, __file__, "--weigh", str(targets), str(daemons)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        held = Held(**json.loads(weighed.stdout))
        watchers = rest[0] if rest else 1
        fleet = Fleet(
            *(targets, daemons, followers),
            watchers=watchers,
            all_of_it=held.all_of_it,
        )
        print(
            f"\n{targets} targets, {daemons} daemons, {followers} followers,"
            f" watched by {watchers}   ({machine()})"
        )
        print(f"{'':<21}{'the engine':<32}{'a daemon':<17}{'a follower':<15}")
        print(HEADINGS)
        gc.disable()  # what is timed below is not the collector
        begun(fleet)
        memory = kept(fleet)
        for name, scenario in SCENARIOS.items():
            if daemons == 1 and name == "a daemon dies":
                continue
            outcome = play(fleet, scenario)
            tell(name, outcome)
            missed += outcome.tally.false_open + outcome.lost
        gc.enable()
        for name, spent in sorted(fleet.spent.items()):
            each = spent.seconds / spent.calls * 1e6
            print(f"  circle, {name:<24}{each:>9.1f} us{spent.longest * 1e3:>9.2f} ms")
        for name, (_, each, longest) in held.steps.items():
            mark = "   MISSED" if longest > STEP else ""
            print(f"  {name:<32}{each:>9.1f} us{longest:>9.2f} ms{mark}")
        print(
            f"  a daemon: board {held.board:.0f} MB, circle and what others see"
            f" {held.circle:.0f} MB; a follower that comes is sent"
            f" {held.all_of_it / 1e3:.0f} kB"
        )
        if memory is not None:
            print(f"  the engine: {memory:.1f} MB, by a real one")
        sys.stdout.flush()
    return missed


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["--weigh"]:
        weight = weigh(int(given[1]), int(given[2]))
        fields = {name: getattr(weight, name) for name in Held.__slots__}
        print(json.dumps(fields))
    else:
        numbers = tuple(int(each) for each in given)
        sys.exit(1 if main((numbers,) if numbers else SIZES) else 0)
