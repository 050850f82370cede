"""What sharing an engine costs: how soon others hear, and what a beat takes.

.venv/bin/python tests/bench/engine.py
"""

import asyncio
import resource
import statistics
import sys
import time
from contextlib import aclosing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pgbreaker.sinks.peers.engine import MOST, Engine, Message
from support.engines import running_redis

SAID = 1000
BEATS = 2000
PEERS = 10
BODY = "x" * 700


def parts(values: list[float]) -> str:
    """The median and what one in a hundred exceeds, in milliseconds."""
    ranks = statistics.quantiles(values, n=100)
    return f"p50 {ranks[49] * 1000:.2f} ms, p99 {ranks[98] * 1000:.2f} ms"


def figure(server, section: str, name: str) -> float:
    """One of the figures that the engine gives of itself."""
    for line in server.tell("INFO", section).splitlines():
        if line.startswith(f"{name}:"):
            return float(line.partition(":")[2])
    raise LookupError(name)


async def latency(server) -> None:
    """From before it is said until another daemon has the message."""
    a, b = Engine(server.plan(), "a"), Engine(server.plan(), "b")
    token = (await a.beat(None)).token
    taken: list[float] = []
    async with aclosing(b.hints()) as hints:
        at = await anext(hints)
        for number in range(SAID):
            began = time.perf_counter()
            saying = asyncio.create_task(
                a.say(token, [Message("view", f"t{number % 50}/read", BODY)])
            )
            await anext(hints)
            (heard,) = await b.heard(at)
            taken.append(time.perf_counter() - began)
            at = heard.number
            await saying
            if number % 100 == 0:
                await a.beat(token)
    print(f"say -> another has it, n={SAID}: {parts(taken)}")
    await a.close()
    await b.close()


async def beats(server) -> None:
    """What renewing a lease costs both sides, with a fleet of some size."""
    others = [Engine(server.plan(lease=600.0), f"peer{n}") for n in range(PEERS - 1)]
    for other in others:
        await other.beat(None, "0123456789abcdef")
    a = Engine(server.plan(), "a")
    token = (await a.beat(None, "0123456789abcdef")).token
    server.tell("CONFIG", "RESETSTAT")
    client = resource.getrusage(resource.RUSAGE_SELF)
    theirs = figure(server, "cpu", "used_cpu_user") + figure(
        server, "cpu", "used_cpu_sys"
    )
    taken: list[float] = []
    for _ in range(BEATS):
        began = time.perf_counter()
        await a.beat(token, "0123456789abcdef")
        taken.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_SELF)
    theirs = (
        figure(server, "cpu", "used_cpu_user")
        + figure(server, "cpu", "used_cpu_sys")
        - theirs
    )
    ours = after.ru_utime + after.ru_stime - client.ru_utime - client.ru_stime
    read = figure(server, "stats", "total_net_input_bytes")
    written = figure(server, "stats", "total_net_output_bytes")
    print(
        f"a beat among {PEERS} daemons, n={BEATS}: {parts(taken)};"
        f" CPU {ours / BEATS * 1e6:.0f} µs ours, {theirs / BEATS * 1e6:.0f} µs the"
        f" engine's; {read / BEATS:.0f} bytes there, {written / BEATS:.0f} back"
    )
    for engine in (a, *others):
        await engine.close()


async def much(server) -> None:
    """What it takes to say and to read what stands, of 10,000 targets."""
    a = Engine(server.plan(timeout=1.0, lease=60.0), "a")
    token = (await a.beat(None)).token
    taken: list[float] = []
    for at in range(0, 30_000, MOST):
        said = [Message("view", f"t{at + n}/read", BODY) for n in range(MOST)]
        began = time.perf_counter()
        await a.say(token, said)
        taken.append(time.perf_counter() - began)
    print(f"{MOST} views at once: {parts(taken)}")
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        b = Engine(server.plan(timeout=1.0), "b")
        try:
            its = (await b.beat(None)).token
            while True:
                began = time.perf_counter()
                await b.beat(its)
                worst = max(worst, time.perf_counter() - began)
        finally:
            await b.close()

    watching = asyncio.create_task(watch())
    began = time.perf_counter()
    standing = await a.standing()
    whole = time.perf_counter() - began
    watching.cancel()
    await asyncio.wait((watching,))
    server.tell("CONFIG", "SET", "slowlog-log-slower-than", "100")
    server.tell("SLOWLOG", "RESET")
    await a.standing()
    slow = max((line[2] for line in server.tell("SLOWLOG", "GET", "100")), default=0)
    print(
        f"{len(standing.views['a'])} views that stand are read in {whole:.2f} s; a beat"
        f" of the same process meanwhile takes {worst * 1000:.0f} ms at most, and the"
        f" engine is busy for {slow / 1000:.1f} ms at a time at most;"
        f" {figure(server, 'memory', 'used_memory') / 2**20:.0f} MiB in the engine"
    )
    await a.close()


async def main() -> None:
    for measure in (latency, beats, much):
        with running_redis() as server:
            await measure(server)


asyncio.run(main())
