"""From a move of a breaker to each of thousands that follow the daemon.

    python tests/bench/follow.py [FOLLOWERS ...]

Those who follow are sockets of one other process, which waits, takes what came and notes
the time of that; it looks at nothing before the end, and collects no garbage meanwhile.
They come from addresses of their own, for one may have half of the places. The daemon is
this process: its whole HTTP side, with beats. Moves begin three beats after the last of
them has come.

"to each" begins before the breaker is told of a failure and ends when a follower's socket
has given away the last byte of the news: the daemon, the kernel's loopback, and the wait
until that process has come to this socket. "to the last write" is the daemon's part: until
all was given to the kernel. On loopback that is the larger one, for who sends does the
receiving's work in the kernel, too. Its processor time does not depend on who else uses
the machine. Beside them, what Python's collector held the daemon up for, whether or not a
move came about just then.

Not in it: a network, TLS, and what an application does with the news; a thousand of them
on these cores would be measured, and not the daemon.

Then what one follower of the library takes, of memory and of time.
"""

import asyncio
import gc
import json
import re
import resource
import select
import socket
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, Outcome
from pgbreaker.guard.follow import Follower
from pgbreaker.web.api.advising import BEAT
from pgbreaker.web.server import serve
from support.site import Served

GOALS = {1000: 50.0, 5000: 200.0}  # milliseconds, p99
MEMORY = 50.0  # kilobytes a follower
MOVES, TARGETS, PAUSE = 20, 50, 0.3
SHARE = 1000  # followers of an address
AT_ONCE = 100  # that come and were told nothing yet, as of those who come back
ASK = b"GET /api/v1/advice/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
NEWS = re.compile(rb"id: 1-(\d+)\nevent: advice\ndata: .*\n\n")
REFUSED = Evidence("refused", "connection refused")


def listen(port: int, count: int) -> None:
    """Be *count* followers until a line is to be read; print when each version came."""
    poll = select.epoll()
    sockets = {one.fileno(): one for one in _come(port, count, poll)}
    take = {number: one.recv for number, one in sockets.items()}
    came: list[tuple[int, float, bytes]] = []
    note, wait, clock = came.append, poll.poll, time.monotonic
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    gc.collect()
    gc.disable()
    print("listens", flush=True)
    while True:
        for number, _ in wait():
            if number not in take:
                print(json.dumps(_read(came)), flush=True)
                return
            data = take[number](8192)
            note((number, clock(), data))


def _come(port: int, count: int, poll: select.epoll) -> list[socket.socket]:
    """Have *count* sockets follow, each of which was told all there is."""
    came: dict[int, socket.socket] = {}
    waiting: dict[int, bytes] = {}
    for number in range(count):
        one = socket.socket()
        one.bind((f"127.0.0.{number // SHARE + 2}", 0))
        one.connect(("127.0.0.1", port))
        one.sendall(ASK)
        came[one.fileno()], waiting[one.fileno()] = one, b""
        poll.register(one, select.EPOLLIN)
        while len(waiting) > (AT_ONCE if number + 1 < count else 0):
            for ready, _ in poll.poll():
                data = came[ready].recv(2**16)
                assert data, "the daemon has hung up"
                if ready in waiting:
                    waiting[ready] += data
                    if NEWS.search(waiting[ready]):
                        del waiting[ready]
    return list(came.values())


def _read(came: list[tuple[int, float, bytes]]) -> dict[str, list[float]]:
    """When the last byte of each version's news came, to each of those it came to."""
    of_one: dict[int, list[tuple[float, bytes]]] = defaultdict(list)
    for number, at, data in came:
        assert data, "the daemon has hung up"
        of_one[number].append((at, data))
    found: dict[str, list[float]] = defaultdict(list)
    for pieces in of_one.values():
        ends = list(accumulate(len(data) for _, data in pieces))
        for news in NEWS.finditer(b"".join(data for _, data in pieces)):
            at, _ = pieces[bisect_left(ends, news.end())]
            found[news[1].decode()].append(at)
    return found


@contextmanager
def collecting() -> Iterator[list[float]]:
    """Note how long the collector of garbage takes each time, in milliseconds."""
    took: list[float] = []
    begun = 0.0

    def note(phase: str, _what: dict[str, Any]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.monotonic()
        else:
            took.append((time.monotonic() - begun) * 1000)

    gc.callbacks.append(note)
    try:
        yield took
    finally:
        gc.callbacks.remove(note)


async def measure(count: int, table: Table) -> None:
    """Have *count* follow, and *MOVES* come about."""
    names = [f"target-{n}" for n in range(TARGETS)]
    served = Served(*names)
    scene, advising = served.scene, served.inside.advising
    for name in names:
        scene.hub.publish(Reading(name, "ping", scene.time.now, 0.002, Finding.OK))
    async with serve(HttpPlan(listen=("127.0.0.1", 0)), served.inside) as (_, port):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--listen", str(port), str(count)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**28,
        )
        assert child.stdout is not None
        beating = asyncio.create_task(advising.run())
        assert (await child.stdout.readline()) == b"listens\n"
        await asyncio.sleep(3 * BEAT)
        begun: dict[str, float] = {}
        own, cpu = [], []
        with collecting() as held:
            for number in range(MOVES):
                breaker = scene.board.targets[names[number]].breakers["read"]
                seq, now = advising.version.seq + 1, scene.clock.now()
                begun[str(seq)], used = time.monotonic(), time.thread_time()
                for move in breaker.observe(
                    Outcome.FAILURE, now, confirmed=True, evidence=REFUSED
                ):
                    scene.hub.publish(move)
                await asyncio.sleep(0)  # what was to be done at once, is
                cpu.append((time.thread_time() - used) * 1000)
                own.append((time.monotonic() - begun[str(seq)]) * 1000)
                assert advising.version.seq == seq
                await asyncio.sleep(PAUSE)
        said, _ = await child.communicate(b"\n")
        advising.close()
        await beating
    came = json.loads(said)
    took = []
    for version, at in begun.items():
        assert len(came[version]) == count, f"{len(came[version])} heard of {version}"
        took += [(one - at) * 1000 for one in came[version]]
    table.row(f"{count} followers, to each", took, p99=GOALS.get(count, 200.0))
    table.row(f"{count}, to the last write", own)
    table.row(f"{count}, of that processor time", cpu)
    if held:
        table.row(f"{count}, the collector's pauses", held)


async def weigh(count: int = 200) -> float:
    """Kilobytes that a follower of the library takes."""
    served = Served("main")
    async with serve(HttpPlan(listen=("127.0.0.1", 0)), served.inside) as (host, port):
        beating = asyncio.create_task(served.inside.advising.run())
        warm = await _following(f"http://{host}:{port}", 5)
        before = _resident()
        many = await _following(f"http://{host}:{port}", count)
        after = _resident()
        for follower in (*warm, *many):
            follower.stop(0.0)
        served.inside.advising.close()
        await beating
        await asyncio.to_thread(lambda: [f.stop(5.0) for f in (*warm, *many)])
    return (after - before) / count


async def _following(url: str, count: int) -> list[Follower]:
    followers = [Follower(url) for _ in range(count)]
    for follower in followers:
        follower.start()
    while not all(f.is_connected for f in followers):  # noqa: ASYNC110 - threads
        await asyncio.sleep(0.01)
    return followers


def _resident() -> float:
    """Kilobytes of the process, without what it shares: threads' stacks included."""
    text = Path("/proc/self/smaps_rollup").read_text("ascii")
    return float(text.partition("Private_Dirty:")[2].split()[0])


async def main(counts: list[int]) -> int:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    table = Table("a move, to each that follows", "ms")
    for count in counts:
        await measure(count, table)
    memory = await weigh()
    weight = Table("a follower of the library", "kB")
    weight.row("with its thread, and the daemon's side of it", [memory], p99=MEMORY)
    return table.missed + weight.missed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--listen"]:
        listen(*map(int, sys.argv[2:]))
    else:
        given = [int(word) for word in sys.argv[1:]]
        sys.exit(asyncio.run(main(given or list(GOALS))))
