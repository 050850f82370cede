"""From a move of a breaker to each of thousands of processes that follow the daemon.

    python tests/bench/follow.py [FOLLOWERS ...]

The followers are processes of their own, a thousand connections each, which do nothing
but note when advice came; from addresses of their own, for one may have half of the
places. Then what one follower of the library takes, of memory and of time.
"""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, Outcome
from pgbreaker.guard.follow import Follower
from pgbreaker.web.server import serve
from support.site import Served

GOALS = {1000: 50.0, 5000: 200.0}  # milliseconds, p99
MEMORY = 50.0  # kilobytes a follower
MOVES, TARGETS, SHARE, PAUSE = 20, 50, 1000, 0.3
REFUSED = Evidence("refused", "connection refused")


async def listen(port: int, count: int, moves: int, number: int) -> None:
    """Be *count* followers; print when each change of mind came to each."""

    coming = asyncio.Semaphore(100)  # as those who come back do, one after the other

    async def one() -> list[tuple[int, float]]:
        await coming.acquire()
        reader, writer = await asyncio.open_connection(
            *("127.0.0.1", port),
            limit=2**24,
            local_addr=(f"127.0.0.{number + 2}", 0),
        )
        writer.write(b"GET /api/v1/advice/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        came = []
        kind = b""
        while len(came) < moves:
            line = await reader.readline()
            assert line, "the daemon has hung up"
            if line.startswith(b"event: "):
                kind = line[7:].strip()
            if line.startswith(b"data: ") and kind == b"advice":
                at = time.monotonic()
                said = json.loads(line[6:])
                if said["complete"]:
                    coming.release()
                    print("listens", flush=True)
                else:
                    came.append((said["version"]["seq"], at))
        writer.close()
        return came

    for came in await asyncio.gather(*(one() for _ in range(count))):
        print(json.dumps(came), flush=True)


async def measure(count: int) -> list[float]:
    """Milliseconds from the move to each follower."""
    names = [f"target-{n}" for n in range(TARGETS)]
    served = Served(*names)
    scene, advising = served.scene, served.inside.advising
    for name in names:
        scene.hub.publish(Reading(name, "ping", scene.time.now, 0.002, Finding.OK))
    async with serve(HttpPlan(listen=("127.0.0.1", 0)), served.inside) as (_, port):
        children = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--listen", str(port)),
                *(str(min(SHARE, count - begun)), str(MOVES), str(begun // SHARE)),
                stdout=asyncio.subprocess.PIPE,
                limit=2**24,
            )
            for begun in range(0, count, SHARE)
        ]
        for begun, child in zip(range(0, count, SHARE), children, strict=True):
            assert child.stdout is not None
            for _ in range(min(SHARE, count - begun)):
                assert (await child.stdout.readline()) == b"listens\n"
        beating = asyncio.create_task(advising.run())
        told = {}
        for number in range(MOVES):
            breaker = scene.board.targets[names[number]].breakers["read"]
            now = scene.clock.now()
            begun = time.monotonic()
            for move in breaker.observe(
                Outcome.FAILURE, now, confirmed=True, evidence=REFUSED
            ):
                scene.hub.publish(move)
            told[advising.version.seq + 1] = begun
            await asyncio.sleep(PAUSE)
        took = []
        for begun, child in zip(range(0, count, SHARE), children, strict=True):
            for _ in range(min(SHARE, count - begun)):
                came = json.loads(await child.stdout.readline())
                took += [(at - told[seq]) * 1000 for seq, at in came]
            await child.wait()
        advising.close()
        await beating
    return took


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
        took = await measure(count)
        table.row(f"{count} followers", took, p99=GOALS.get(count, 200.0))
    memory = await weigh()
    weight = Table("a follower of the library", "kB")
    weight.row("with its thread, and the daemon's side of it", [memory], p99=MEMORY)
    return table.missed + weight.missed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--listen"]:
        asyncio.run(listen(*map(int, sys.argv[2:])))
    else:
        given = [int(word) for word in sys.argv[1:]]
        sys.exit(asyncio.run(main(given or list(GOALS))))
