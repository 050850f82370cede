"""What a guard costs a call, ours and seven others', in one run.

    python tests/bench/guards.py [ROUNDS]

Every figure is a ratio to the same call without a guard, measured in the same round. A
round measures each contestant once, in an order that rotates; the garbage collector
rests meanwhile. pybreaker has no guard for coroutine functions: its rows are those of
a plain function, against a bare call of one.
"""

import asyncio
import gc
import importlib
import logging
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import Any

from peers import NEVER, OURS, PEERS, Peer, Unsupported, fresh_name
from report import Table, machine

import pgbreaker
from pgbreaker.clock import Clock

ROUNDS = 100
CALLS = 1000

Loop = Callable[[int], Awaitable[None]]
Ratios = dict[str, list[float]]

DECORATED, ATTRIBUTE = "pgbreaker @circuit_breaker(name)", "pgbreaker @breaker"


@dataclass(frozen=True)
class Contestant:
    """One row of a table.

    Attributes:
        run: Does what is measured so many times.
        against: Label of the contestant that it is divided by.
        goal: Ratio that it must not exceed.
    """

    label: str
    run: Loop
    against: str | None = None
    goal: float | None = None


# -- What is called ---------------------------------------------------------------


async def bare(_value: int) -> None:
    """A call that does nothing."""


def bare_blocking(_value: int) -> None:
    """The same, of a plain function."""


async def broken(_value: int) -> None:
    """A call whose connection breaks."""
    raise ConnectionResetError("connection reset by peer")


def broken_blocking(_value: int) -> None:
    raise ConnectionResetError("connection reset by peer")


async def pausing() -> None:
    """A call that lets the others run once."""
    await asyncio.sleep(0)


# -- How it is called, many times -------------------------------------------------


def calls(function: Callable[..., Any], *, is_async: bool = True) -> Loop:
    async def run(number: int) -> None:
        for _ in repeat(None, number):
            await function(1)

    async def run_blocking(number: int) -> None:
        for _ in repeat(None, number):
            function(1)

    return run if is_async else run_blocking


def catches(
    function: Callable[..., Any], error: type[BaseException], *, is_async: bool = True
) -> Loop:
    async def run(number: int) -> None:
        for _ in repeat(None, number):
            try:  # noqa: SIM105 - `suppress` would be measured, too
                await function(1)
            except error:
                pass

    async def run_blocking(number: int) -> None:
        for _ in repeat(None, number):
            try:  # noqa: SIM105
                function(1)
            except error:
                pass

    return run if is_async else run_blocking


def blocks(block: Any, *, is_async: bool = True) -> Loop:
    """Calls within `with`."""
    is_one = hasattr(type(block), "__enter__")

    async def run(number: int) -> None:
        for _ in repeat(None, number):
            with block:
                await bare(1)

    async def run_made(number: int) -> None:
        for _ in repeat(None, number):
            with block():
                await bare(1)

    async def run_blocking(number: int) -> None:
        for _ in repeat(None, number):
            with block():
                bare_blocking(1)

    if not is_async:
        return run_blocking
    return run if is_one else run_made


def async_blocks(block: Any) -> Loop:
    """Calls within `async with`."""

    async def run(number: int) -> None:
        for _ in repeat(None, number):
            async with block:
                await bare(1)

    async def run_made(number: int) -> None:
        for _ in repeat(None, number):
            async with await block():
                await bare(1)

    return run if hasattr(type(block), "__aenter__") else run_made


def tickets(breaker: pgbreaker.PostgreSQLCircuitBreaker) -> Loop:
    """Calls between `acquire` and `record`."""
    acquire, record = breaker.acquire, breaker.record

    async def run(number: int) -> None:
        for _ in repeat(None, number):
            ticket = acquire()
            try:
                await bare(1)
            except BaseException as error:
                record(ticket, error)
                raise
            record(ticket)

    return run


def allowances(breaker: Any) -> Loop:
    """The same in resilix's words."""
    allow, good, bad = breaker.allow, breaker.record_success, breaker.record_failure

    async def run(number: int) -> None:
        for _ in repeat(None, number):
            if not allow():
                raise AssertionError
            try:
                await bare(1)
            except BaseException:
                bad()
                raise
            good()

    return run


def gathered(function: Callable[[], Awaitable[None]]) -> Loop:
    """Calls in as many tasks at once."""

    async def run(number: int) -> None:
        await asyncio.gather(*(function() for _ in range(number)))

    return run


# -- Measuring --------------------------------------------------------------------


async def interleave(
    contestants: list[Contestant], rounds: int, number: int = CALLS
) -> Ratios:
    """Time every contestant once a round; give the ratios, a list for each."""
    for one in contestants:
        await one.run(number)
    ratios: Ratios = {one.label: [] for one in contestants if one.against}
    for turn in range(rounds):
        first = turn % len(contestants)
        took: dict[str, float] = {}
        gc.collect()
        gc.disable()
        for one in (*contestants[first:], *contestants[:first]):
            begun = time.perf_counter()
            await one.run(number)
            took[one.label] = time.perf_counter() - begun
        gc.enable()
        for one in contestants:
            if one.against:
                ratios[one.label].append(took[one.label] / took[one.against])
    return ratios


class Bench:
    """All tables, and what is remembered for the last one.

    Attributes:
        missed: Goals of ours that were not met.
        medians: Median ratio by measure and contestant.
    """

    def __init__(self, rounds: int) -> None:
        self.missed = 0
        self.rounds = rounds
        self.medians: dict[str, dict[str, float]] = {}

    async def measure(
        self, title: str, contestants: list[Contestant], number: int = CALLS
    ) -> Ratios:
        """Print the table of one measure."""
        ratios = await interleave(contestants, self.rounds, number)
        table = Table(title, "x bare")
        for one in contestants:
            if one.against:
                table.row(one.label, ratios[one.label], p50=one.goal)
        self.missed += table.missed
        self.medians[title] = {
            label: median(values) for label, values in ratios.items()
        }
        return ratios

    def compare(self, title: str, unit: str, values: list[float], goal: float) -> None:
        """Print one figure of ours against its goal."""
        table = Table(title, unit)
        table.row("pgbreaker", values, p50=goal)
        self.missed += table.missed

    def summary(self) -> None:
        """Print the medians of all measures side by side."""
        print(f"\nmedians [x bare]   ({machine()})")
        columns = list(self.medians)
        labels = dict.fromkeys(
            label for medians in self.medians.values() for label in medians
        )
        print(f"{'':<34}" + "".join(f"{column:>16.15}" for column in columns))
        for label in labels:
            cells = (self.medians[column].get(label) for column in columns)
            said = ("-" if cell is None else f"{cell:.2f}" for cell in cells)
            print(f"{label:<34}" + "".join(f"{cell:>16}" for cell in said))


def bares(run: Loop, blocking: Loop) -> list[Contestant]:
    """The calls without a guard."""
    return [Contestant("bare", run), Contestant("bare (sync)", blocking)]


def against(peer: Peer) -> str:
    return "bare" if peer.is_async else "bare (sync)"


def our_ways(
    make: Callable[[Callable[..., Any]], Loop],
    function: Callable[..., Any],
    goal: float,
    failures: int = 5,
) -> list[Contestant]:
    """Ours as a decorator: by its name, retries and all, and by itself."""
    config = None if failures == 5 else OURS.config(failures)
    named = pgbreaker.circuit_breaker(fresh_name(), config=config)
    return [
        Contestant(DECORATED, make(named(function)), "bare", goal),
        Contestant(ATTRIBUTE, make(OURS.make(failures)(function)), "bare", goal),
    ]


def others() -> tuple[Peer, ...]:
    return PEERS[1:]


async def decorator(bench: Bench) -> None:
    contestants = bares(calls(bare), calls(bare_blocking, is_async=False))
    contestants += our_ways(calls, bare, 6.5)
    for peer in others():
        guarded = peer.guard(peer.make(), bare if peer.is_async else bare_blocking)
        run = calls(guarded, is_async=peer.is_async)
        contestants.append(Contestant(str(peer), run, against(peer)))
    ratios = await bench.measure("decorator, closed", contestants)
    interlock = next(label for label in ratios if label.startswith("interlock"))
    share = [
        100 * ours / theirs
        for ours, theirs in zip(ratios[DECORATED], ratios[interlock], strict=True)
    ]
    bench.compare("decorator, of what interlock-cb's costs", "%", share, 10)


async def with_block(bench: Bench) -> None:
    contestants = bares(calls(bare), calls(bare_blocking, is_async=False))
    for peer in PEERS:
        try:
            run = blocks(peer.block(peer.make()), is_async=peer.is_async)
        except Unsupported:
            continue
        goal = 9 if peer is OURS else None
        contestants.append(Contestant(str(peer), run, against(peer), goal))
    await bench.measure("with", contestants)


async def async_with_block(bench: Bench) -> None:
    contestants = [Contestant("bare", calls(bare))]
    for peer in PEERS:
        try:
            run = async_blocks(peer.async_block(peer.make()))
        except Unsupported:
            continue
        goal = 11 if peer is OURS else None
        contestants.append(Contestant(str(peer), run, "bare", goal))
    await bench.measure("async with", contestants)


async def acquire_record(bench: Bench) -> None:
    resilix = next(peer for peer in PEERS if peer.name == "resilix")
    contestants = [
        Contestant("bare", calls(bare)),
        Contestant(str(OURS), tickets(OURS.make()), "bare", 4.5),
        Contestant(str(resilix), allowances(resilix.make()), "bare"),
    ]
    await bench.measure("acquire/record", contestants)


async def trip(peer: Peer, guarded: Callable[..., Any], failures: int = 5) -> None:
    """Have so many calls fail."""
    expected = (ConnectionResetError, peer.refusal)
    await catches(guarded, expected, is_async=peer.is_async)(failures)


async def refusal(bench: Bench) -> None:
    contestants = bares(calls(bare), calls(bare_blocking, is_async=False))
    config = OURS.config(5, 3600.0)
    ways = {
        DECORATED: pgbreaker.circuit_breaker(fresh_name(), config=config)(broken),
        ATTRIBUTE: OURS.make(5, 3600.0)(broken),
    }
    for label, guarded in ways.items():
        await trip(OURS, guarded)
        contestants.append(
            Contestant(label, catches(guarded, OURS.refusal), "bare", 12)
        )
    for peer in others():
        function = broken if peer.is_async else broken_blocking
        guarded = peer.guard(peer.make(5, 3600.0), function)
        await trip(peer, guarded)
        run = catches(guarded, peer.refusal, is_async=peer.is_async)
        contestants.append(Contestant(str(peer), run, against(peer)))
    ratios = await bench.measure("refusal", contestants)
    theirs = {label: ratios[label] for label in ratios if label not in ways}
    cheapest = min(theirs, key=lambda label: median(theirs[label]))
    share = [
        100 * ours / other
        for ours, other in zip(ratios[DECORATED], theirs[cheapest], strict=True)
    ]
    bench.compare(f"refusal, of the cheapest other's ({cheapest})", "%", share, 100)


async def failure(bench: Bench) -> None:
    error = ConnectionResetError
    contestants = bares(
        catches(broken, error), catches(broken_blocking, error, is_async=False)
    )
    contestants += our_ways(lambda f: catches(f, error), broken, 6, NEVER)
    for peer in others():
        function = broken if peer.is_async else broken_blocking
        guarded = peer.guard(peer.make(NEVER), function)
        run = catches(guarded, error, is_async=peer.is_async)
        contestants.append(Contestant(str(peer), run, against(peer)))
    await bench.measure("failure", contestants)


async def tasks(bench: Bench) -> None:
    contestants = [Contestant("bare", gathered(pausing))]
    contestants += our_ways(gathered, pausing, 1.5)
    for peer in others():
        if peer.is_async:
            guarded = peer.guard(peer.make(), pausing)
            contestants.append(Contestant(str(peer), gathered(guarded), "bare"))
    await bench.measure("1,000 tasks", contestants, 1000)


# -- Metrics, memory --------------------------------------------------------------


def watch_metrics() -> bool:
    """Have a registry of metrics collect every breaker, where there is a module that
    does so; says whether there is."""
    try:
        collector = importlib.import_module("pgbreaker.metrics").collector()
        registry = importlib.import_module("prometheus_client").CollectorRegistry()
    except ImportError:
        return False
    registry.register(collector)
    generate = importlib.import_module("prometheus_client").generate_latest
    assert b"pgbreaker" in generate(registry)
    return True


async def metrics(bench: Bench) -> None:
    off, on = (
        pgbreaker.circuit_breaker(
            fresh_name(),
            config=pgbreaker.PostgreSQLCircuitBreakerConfig(
                metrics_collection_enabled=enabled
            ),
        )(bare)
        for enabled in (False, True)
    )
    is_watched = watch_metrics()
    contestants = [
        Contestant("off", calls(off)),
        Contestant("on", calls(on), "off"),
    ]
    ratios = await interleave(contestants, 4 * bench.rounds)
    added = [100 * (ratio - 1) for ratio in ratios["on"]]
    how = "with a collector" if is_watched else "no pgbreaker.metrics yet"
    bench.compare(f"metrics on, more than off ({how})", "%", added, 10)


async def kept(bench: Bench) -> None:
    """Memory blocks that are there after many calls, and were not before."""
    refused = OURS.make(5, 3600.0)(broken)
    await trip(OURS, refused)
    good = pgbreaker.circuit_breaker(fresh_name())(bare)
    config = OURS.config(NEVER)
    bad = pgbreaker.circuit_breaker(fresh_name(), config=config)(broken)
    cases: list[tuple[str, Loop, int]] = [
        ("1,000,000 calls", calls(good), 1_000_000),
        ("100,000 refusals", catches(refused, OURS.refusal), 100_000),
        ("100,000 failures", catches(bad, ConnectionResetError), 100_000),
    ]
    table = Table("memory kept after calls", "blocks")
    for name, run, number in cases:
        await run(1000)
        gc.collect()
        before = sys.getallocatedblocks()
        await run(number)
        gc.collect()
        table.row(name, [float(sys.getallocatedblocks() - before)], p50=100)
    bench.missed += table.missed


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


OUTCOMES: tuple[tuple[float, BaseException | None], ...] = (
    (0.0001, None),
    (0.6, None),  # slow
    (0.0001, ConnectionResetError("connection reset by peer")),
    (0.6, asyncio.CancelledError()),  # cut
    (0.0001, asyncio.CancelledError()),  # released
    (0.0001, ValueError("not a number")),  # ignored
    (0.0001, pgbreaker.BulkheadFullError("bench", 1, 0.0)),  # unreached
)


def fill(breaker: pgbreaker.PostgreSQLCircuitBreaker, hands: Hands) -> None:
    """Use every bucket of the window, count every outcome, and open."""
    late = breaker.acquire()
    for _ in range(10):
        for took, error in OUTCOMES:
            ticket = breaker.acquire()
            hands.at += took
            breaker.record(ticket, error)
    with suppress(pgbreaker.CircuitOpenError):
        while True:  # and be refused once
            breaker.record(breaker.acquire(), ConnectionResetError("reset by peer"))
    breaker.record(late)
    assert all(breaker.core.totals.values()), breaker.core.totals


def memory(bench: Bench) -> None:
    hands, number = Hands(), 1000
    clock = Clock(now=hands.now)

    # One set of rules for all; no rate opens a breaker before all is counted.
    config = OURS.config(5, minimum_calls=1000)

    def make(name: str) -> pgbreaker.PostgreSQLCircuitBreaker:
        return pgbreaker.PostgreSQLCircuitBreaker(name, config, clock=clock)

    names = [fresh_name() for _ in range(number + 1)]
    fill(make(names.pop()), hands)
    breakers = []
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for name in names:
        breaker = make(name)
        fill(breaker, hands)
        breakers.append(breaker)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    used = [(after - before) / number / 1000]
    bench.compare("memory of a breaker, all counted", "kB", used, 2.5)


async def run_all(rounds: int) -> int:
    bench = Bench(rounds)
    for part in (
        decorator,
        with_block,
        async_with_block,
        acquire_record,
        refusal,
        failure,
        tasks,
        metrics,
        kept,
    ):
        await part(bench)
    memory(bench)
    bench.summary()
    return bench.missed


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    logging.disable(logging.CRITICAL)  # openings are many here, and no news
    sys.exit(1 if asyncio.run(run_all(rounds)) else 0)


if __name__ == "__main__":
    main()
