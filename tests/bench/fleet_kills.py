"""Whether a transition is ever lost, told twice or out of order, whoever is killed.

    python tests/bench/fleet_kills.py [KILLS [SEED]]

Three daemons as processes with a store each, a real engine that keeps what it has on disk,
and a real server, of which some targets are behind proxies that fail and recover all the
time. At random moments one of them is killed as ``kill -9`` does, or stopped in its tracks
for a while: a daemon, the engine; one time in four the engine has lost all when it is
there again. In between the histories of all are compared: each has what the others saw,
once and in order.

Beside it: how long nobody looks at what a killed daemon watched, by the connections that
the server has, where it is let be dead for long enough; and how soon a daemon knows that
the engine is frozen.
"""

import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table, machine

from support.engines import RedisServer, running_redis
from support.servers import running_server
from support.troop import Differences, Eye, Member, Tap, Troop, enlist, troop, until

KILLS = 200
COMPARED = 25  # kills between two comparisons
NAMES = ("a", "b", "c")
TAPS, BEHIND, STEADY = 3, 4, 6  # proxies, targets behind each, and beside them
LIVELY = """\
defaults:
  interval: 500ms
  timeout: 400ms
  breaker: {timeout: 300ms, max_timeout: 1s}
"""
WITHIN = 60.0


class Storm:
    """What befalls them.

    Attributes:
        taken: Seconds that nobody looked at what a killed daemon had watched.
        alone: Milliseconds until a daemon knew that the engine was frozen.
        done: What was done -> how often.
    """

    def __init__(
        self,
        fleet: Troop,
        engine: RedisServer,
        taps: list[Tap],
        eye: Eye,
        luck: random.Random,
    ) -> None:
        self.taken: list[float] = []
        self.alone: list[float] = []
        self.done: Counter[str] = Counter()
        self._fleet = fleet
        self._engine = engine
        self._taps = taps
        self._eye = eye
        self._luck = luck
        self._steady = [name for name in fleet.targets if name.startswith("t")]

    def once(self) -> None:
        """Have servers fail and recover, and somebody be killed in the midst of it."""
        deeds: tuple[tuple[Callable[[], None], int], ...] = (
            (self._kill_daemon, 4),
            (self._freeze_daemon, 2),
            (self._kill_engine, 3),
            (self._freeze_engine, 1),
        )
        self._shake()
        time.sleep(self._luck.uniform(0.0, 0.4))  # the moment
        (deed,) = self._luck.choices(
            [d for d, _ in deeds], [often for _, often in deeds]
        )
        deed()

    def _shake(self) -> None:
        for tap in self._taps:
            self._luck.choice((tap.reset, tap.restore, lambda: None))()

    def _some_time(self, longest: float) -> None:
        """Let time go by, in which servers fail and recover."""
        ends = time.monotonic() + self._luck.uniform(0.0, longest)
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, self._luck.uniform(0.05, 0.6)))
            self._shake()

    def _kill_daemon(self) -> None:
        one = self._fleet[self._luck.choice(NAMES)]
        its = [name for name in self._steady if self._eye.now.get(name) == {one.name}]
        self.done["kill -9 of a daemon"] += 1
        one.kill()
        begun = time.monotonic()
        if its and self._luck.random() < 0.5:
            until(
                lambda: all(self._eye.now.get(name, set()) - {one.name} for name in its)
            )
            self.taken.append(time.monotonic() - begun)
        else:
            self._some_time(1.0)
        self._start(one)

    def _freeze_daemon(self) -> None:
        one = self._fleet[self._luck.choice(NAMES)]
        self.done["SIGSTOP of a daemon"] += 1
        one.freeze()
        self._some_time(4.0)
        one.thaw()
        one.answer()

    def _kill_engine(self) -> None:
        is_lost = self._luck.random() < 0.25
        self.done["kill -9 of the engine" + (", all lost" if is_lost else "")] += 1
        self._engine.kill()
        if is_lost:
            self._engine.lose()
        self._some_time(1.0)
        self._engine.start()

    def _freeze_engine(self) -> None:
        self.done["SIGSTOP of the engine"] += 1
        joined = [m for m in self._fleet if m.peers()["joined"]]
        self._engine.freeze()
        frozen = time.time()
        time.sleep(1.0)
        self._some_time(2.0)
        self._engine.thaw()
        for member in joined:
            at = member.said("the engine is lost", frozen)
            self.alone.append((at - frozen) * 1000)

    def _start(self, one: Member) -> None:
        one.spawn()
        self._some_time(1.0)
        one.answer()

    def compare(self) -> Differences:
        """Have all be well, and compare the histories."""
        for tap in self._taps:
            tap.restore()
        self._fleet.settle(WITHIN)
        self._fleet.heal(WITHIN)
        return self._fleet.agree()


def main(kills: int, seed: int) -> int:
    print(machine())
    steady = [f"t{number}" for number in range(STEADY)]
    shaky = [f"s{tap}{number}" for tap in range(TAPS) for number in range(BEHIND)]
    begun, faults = time.monotonic(), 0
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(running_server(17, max_connections="200"))
        engine = stack.enter_context(
            running_redis(appendonly="yes", appendfsync="everysec")
        )
        enlist(server, NAMES, steady + shaky)
        taps = [stack.enter_context(Tap(server.port)) for _ in range(TAPS)]
        ports = {name: taps[int(name[1])].port for name in shaky}
        dsns = {
            name: {
                target: server.dsn(user=f"{name}.{target}", port=ports.get(target))
                for target in steady + shaky
            }
            for name in NAMES
        }
        engines = dict.fromkeys(NAMES, engine.url())
        fleet = stack.enter_context(troop(home, engines, dsns, defaults=LIVELY))
        eye = stack.enter_context(Eye(server))
        storm = Storm(fleet, engine, taps, eye, random.Random(seed))
        for done in range(1, kills + 1):
            storm.once()
            if done % COMPARED == 0 or done == kills:
                found = storm.compare()
                faults += bool(found)
                print(
                    f"  {done} kills, {time.monotonic() - begun:.0f} s:"
                    f" {found.made} transitions, lost {len(found.lost)},"
                    f" again {len(found.again)}, reordered {len(found.reordered)},"
                    f" unwritten {len(found.unwritten)}",
                    flush=True,
                )
    for deed, times in storm.done.most_common():
        print(f"{deed:34} {times:>10,}")
    print(f"{'transitions':34} {found.made:>10,}")
    for what in ("lost", "again", "reordered"):
        print(f"{what:34} {len(getattr(found, what)):>10,}   goal 0")
    print(f"{'told, not written before a kill':34} {len(found.unwritten):>10,}")
    table = Table("a killed daemon's targets, until others look", "s")
    table.row("by the server's connections", storm.taken or [0.0], p99=3.0)
    known = Table("a frozen engine, until a daemon goes on alone", "ms")
    known.row("by its own log", storm.alone or [0.0], p99=500.0)
    return bool(faults) + table.missed + known.missed


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(numbers + [KILLS, 8][len(numbers) :])))
