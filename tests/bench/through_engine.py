"""From a move of a breaker at one daemon to each of a thousand that follow another.

    python tests/bench/through_engine.py [FOLLOWERS]

The daemon that is followed is a process as people run it, with a store, a real engine and
a real server, of which it watches half of the targets. The other half is of a daemon in
this process that is told by hand how its targets are: so the moment of a move is known.
Those who follow are sockets of a process of their own, which takes what came and notes
the time of that; it looks at nothing before the end.

"to each" begins before the first daemon's breaker is told of a failure, and ends when a
follower's socket has given away the last byte of the news: two daemons, the engine, and
the kernel's loopback.
"""

import asyncio
import gc
import json
import re
import resource
import select
import socket
import sys
import tempfile
import time
from bisect import bisect_left
from collections import defaultdict
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from support.crew import Hand, until
from support.engines import RedisServer, running_redis
from support.process import free_port
from support.servers import running_server
from support.troop import Member, configure, enlist

FOLLOWERS, TARGETS, MOVES, PAUSE = 1000, 50, 20, 0.3
GOAL = 100.0  # milliseconds, p99
AT_ONCE = 100  # that come and were told nothing yet, as of those who come back
ASK = b"GET /api/v1/advice/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
NEWS = re.compile(rb"event: advice\ndata: (.*)\n\n")


def listen(port: int, count: int) -> None:
    """Be *count* followers until a line is to be read; print when each was told that a
    breaker is open: breaker -> moments."""
    poll = select.epoll()
    sockets = {one.fileno(): one for one in _come(port, count, poll)}
    came: list[tuple[int, float, bytes]] = []
    note, wait, clock = came.append, poll.poll, time.monotonic
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    gc.collect()
    gc.disable()
    print("listens", flush=True)
    while True:
        for number, _ in wait():
            if number not in sockets:
                print(json.dumps(_opened(came)), flush=True)
                return
            data = sockets[number].recv(8192)
            note((number, clock(), data))


def _come(port: int, count: int, poll: select.epoll) -> list[socket.socket]:
    """Have *count* sockets follow, each of which was told all there is."""
    came: dict[int, socket.socket] = {}
    waiting: dict[int, bytes] = {}
    for number in range(count):
        one = socket.socket()
        one.bind((f"127.0.0.{number // 500 + 2}", 0))  # one may have half of the places
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


def _opened(came: list[tuple[int, float, bytes]]) -> dict[str, list[float]]:
    of_one: dict[int, list[tuple[float, bytes]]] = defaultdict(list)
    for number, at, data in came:
        assert data, "the daemon has hung up"
        of_one[number].append((at, data))
    found: dict[str, list[float]] = defaultdict(list)
    for pieces in of_one.values():
        ends = list(accumulate(len(data) for _, data in pieces))
        for news in NEWS.finditer(b"".join(data for _, data in pieces)):
            at, _ = pieces[bisect_left(ends, news.end())]
            for one in json.loads(news[1])["advice"]:
                if one["opinion"] == "open":
                    found[one["breaker"]].append(at)
    return found


async def measure(count: int, engine: RedisServer, followed: Member) -> list[float]:
    """Milliseconds from each move to each follower."""
    targets = [f"t{number:02}" for number in range(TARGETS)]
    hand = Hand(engine.plan(), "a", targets)
    await hand.join()
    try:
        await until(
            lambda: (
                hand.is_settled
                and hand.peers.circle.live == ("a", "b")
                and 0 < len(hand.watching) < TARGETS
            )
        )
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--listen", str(followed.port), str(count)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**28,
        )
        assert child.stdout is not None
        assert (await child.stdout.readline()) == b"listens\n"
        moved = sorted(hand.watching)[:MOVES]
        begun = {}
        for target in moved:
            await asyncio.sleep(PAUSE)
            begun[f"{target}/read"] = time.monotonic()
            hand.fail(target)
        await asyncio.sleep(1.0)
        said, _ = await child.communicate(b"\n")
    finally:
        await hand.close()
    came = json.loads(said)
    took = []
    for breaker, at in begun.items():
        assert len(came[breaker]) == count, f"{len(came[breaker])} heard of {breaker}"
        took += [(one - at) * 1000 for one in came[breaker]]
    return took


async def main(count: int) -> int:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    table = Table("a move at one daemon, to each that follows another", "ms")
    targets = [f"t{number:02}" for number in range(TARGETS)]
    with (
        tempfile.TemporaryDirectory() as home,
        running_server(17, max_connections="300") as server,
        running_redis() as engine,
    ):
        enlist(server, ("b",), targets)
        followed = Member("b", Path(home), free_port())
        dsns = {target: server.dsn(user=f"b.{target}") for target in targets}
        configure(followed, engine.url(), dsns)
        await asyncio.to_thread(followed.start)
        try:
            took = await measure(count, engine, followed)
        finally:
            followed.kill()
    table.row(f"{count} followers", took, p99=GOAL)
    return table.missed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--listen"]:
        listen(*map(int, sys.argv[2:]))
    else:
        given = [int(word) for word in sys.argv[1:]]
        sys.exit(asyncio.run(main(*(given or [FOLLOWERS]))))
