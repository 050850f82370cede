"""What breakers do, ours and seven others': one small experiment for each cell.

    python tests/bench/behaviour.py

Nothing is filled in by hand. A cell is `yes` or `no` as the experiment came out, `-`
where the library has no such thing, and `error` where it failed in some other way.
pybreaker guards plain functions only, so what needs a call that waits is `-` for it,
but for the first row, which is about that.
"""

import asyncio
import datetime
import gc
import inspect
import logging
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from peers import OURS, PEERS, Peer, Unsupported
from report import machine

FAILURES = 3
SOON = 0.02
"""Seconds that a breaker stays open which is to be tried again within the experiment."""

Function = Callable[[], Any]
Experiment = Callable[[Peer], Awaitable[bool]]

EXPERIMENTS: list[tuple[str, Experiment]] = []


def experiment(claim: str) -> Callable[[Experiment], Experiment]:
    """Put a function into the table, as the row *claim*."""

    def put(function: Experiment) -> Experiment:
        EXPERIMENTS.append((claim, function))
        return function

    return put


# -- What experiments are made of -------------------------------------------------


class Calls:
    """Calls that hang, each in a task of its own, until `end` or `cancel`."""

    def __init__(self, held: asyncio.Event, tasks: list[asyncio.Task[Any]]) -> None:
        self._held = held
        self.tasks = tasks

    async def end(self) -> None:
        """Let them come back: well, or badly if the server fails by now."""
        self._held.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def raised(self, kind: type[BaseException]) -> bool:
        """Whether one of them has raised an error of *kind*."""
        return any(
            task.done() and isinstance(task.exception(), kind) for task in self.tasks
        )


class Line:
    """A server, as a guarded function sees it: it answers, fails, or hangs.

    Attributes:
        error: What a call raises, None for a good answer.
        held: What calls wait for; None when they do not hang.
        entered: Calls that came through.
    """

    def __init__(self, peer: Peer, breaker: Any) -> None:
        self.error: Exception | None = None
        self.held: asyncio.Event | None = None
        self.entered = 0
        self.peer = peer
        self._guarded = peer.guard(
            breaker, self.answer() if peer.is_async else self.answer_blocking
        )

    def answer_blocking(self) -> str:
        self.entered += 1
        if self.error is not None:
            raise self.error
        return "good"

    def answer(self) -> Function:
        # A function and not a method: aiobreaker decorates nothing else.
        async def answer() -> str:
            if self.held is None:
                return self.answer_blocking()
            self.entered += 1
            await self.held.wait()
            if self.error is not None:
                raise self.error
            return "good"

        return answer

    async def call(self) -> Any:
        """Make one call."""
        result = self._guarded()
        return await result if inspect.isawaitable(result) else result

    async def begin(self, number: int = 1) -> Calls:
        """Have calls begin that hang."""
        if not self.peer.is_async:
            raise Unsupported
        self.held = held = asyncio.Event()
        tasks = [asyncio.create_task(self.call()) for _ in range(number)]
        for _ in range(10):
            await asyncio.sleep(0)
        self.held = None
        return Calls(held, tasks)

    async def begin_trial(self) -> Calls:
        """Have the call begin, and hang, that decides whether it closes."""
        entered = self.entered
        trial = await self.begin()
        assert self.entered == entered + 1, "there is no trial"
        return trial

    async def fail(self, number: int = FAILURES) -> None:
        """Have calls fail."""
        before, self.error = self.error, ConnectionResetError("reset by peer")
        for _ in range(number):
            with suppress(ConnectionResetError, self.peer.refusal):
                await self.call()
        self.error = before

    async def succeed(self, number: int = 1) -> None:
        for _ in range(number):
            await self.call()

    async def refuses(self) -> bool:
        """Make one call, which is good if it is let in."""
        before, self.error = self.error, None
        try:
            await self.call()
        except self.peer.refusal:
            return True
        finally:
            self.error = before
        return False

    async def open(self, *, cooled: bool = False) -> None:
        """Have it open; and, where it is to be, wait until it may be tried again."""
        await self.fail()
        if not cooled:
            assert await self.refuses(), "it has not opened"
            return
        await asyncio.sleep(1.5 * SOON)


def line(peer: Peer, recovery: float = 60.0, **more: Any) -> Line:
    """A new breaker, with a server behind."""
    return Line(peer, peer.make(FAILURES, recovery, **more))


# -- What is guarded --------------------------------------------------------------


@experiment("coroutine functions are guarded")
async def guards_coroutines(peer: Peer) -> bool:
    async def broken() -> None:
        raise ConnectionResetError("reset by peer")

    guarded = peer.guard(peer.make(FAILURES), broken)
    for _ in range(FAILURES):
        with suppress(ConnectionResetError, peer.refusal):
            await guarded()
    try:
        await guarded()
    except peer.refusal:
        return True
    except ConnectionResetError:
        return False
    raise AssertionError


@experiment("asynchronous generators are guarded")
async def guards_generators(peer: Peer) -> bool:
    async def broken():
        yield 1
        raise ConnectionResetError("reset by peer")

    guarded = peer.guard(peer.make(FAILURES), broken)

    async def use() -> type[BaseException] | None:
        try:
            async for _ in guarded():
                pass
        except (ConnectionResetError, TypeError, peer.refusal) as error:
            return type(error)
        return None

    for _ in range(FAILURES):
        await use()
    last = await use()
    # A TypeError says that it gave back something that is no generator at all.
    return last is not None and issubclass(last, peer.refusal)


# -- Calls that come back late ----------------------------------------------------


@experiment("a late success does not close it")
async def late_success(peer: Peer) -> bool:
    server = line(peer)
    late = await server.begin()
    await server.open()
    await late.end()
    return await server.refuses()


@experiment("late failures do not reopen it")
async def late_failure(peer: Peer) -> bool:
    server = line(peer, SOON)
    late = await server.begin(FAILURES)
    await server.open(cooled=True)
    await server.succeed(10)
    server.error = ConnectionResetError("reset by peer")
    await late.end()
    return not await server.refuses()


@experiment("a late failure does not touch a trial")
async def late_failure_in_trial(peer: Peer) -> bool:
    async def felt(*, late_ones: bool) -> list[str]:
        """What another caller meets during a trial, and one after it."""
        server = line(peer, SOON)
        late = await server.begin()
        await server.open(cooled=True)
        trial = await server.begin_trial()
        server.error = ConnectionResetError("reset by peer")
        if late_ones:
            await late.end()
        server.error = None
        other = asyncio.create_task(server.refuses())
        await asyncio.wait((other,), timeout=0.01)
        during = f"refused: {other.result()}" if other.done() else "waits"
        await trial.end()
        await other
        after = f"refused: {await server.refuses()}"
        await late.cancel()
        return [during, after]

    return await felt(late_ones=True) == await felt(late_ones=False)


# -- Calls that hang, calls that are cancelled ------------------------------------


@experiment("a cancelled call counts for nothing")
async def cancelled(peer: Peer) -> bool:
    # Not as failures, of which these would be enough ...
    server = line(peer)
    calls = await server.begin(2 * FAILURES)
    await calls.cancel()
    if await server.refuses():
        return False
    # ... and not as a success, which would end a run of them.
    server = line(peer)
    await server.fail(FAILURES - 1)
    calls = await server.begin()
    await calls.cancel()
    await server.fail(1)
    return await server.refuses()


@experiment("120 hangs cut at 10 ms open it")
async def cut(peer: Peer) -> bool:
    if not peer.is_async:
        raise Unsupported
    server = line(peer, slow_call=0.005)
    server.held = asyncio.Event()
    for _ in range(120):
        try:
            async with asyncio.timeout(0.01):
                await server.call()
        except peer.refusal:
            return True
        except TimeoutError:
            pass
    return False


@experiment("calls that hang open it before they end")
async def hanging(peer: Peer) -> bool:
    server = line(peer, slow_call=0.005)
    await server.succeed(2000)
    waves = []
    for _ in range(25):
        waves.append(await server.begin())
        await asyncio.sleep(0.01)
    has_opened = any(wave.raised(peer.refusal) for wave in waves)
    for wave in waves:
        await wave.cancel()
    return has_opened


# -- Half-open --------------------------------------------------------------------


@experiment("one of 100 callers is let in to try")
async def one_trial(peer: Peer) -> bool:
    server = line(peer, SOON)
    await server.open(cooled=True)
    server.entered = 0
    calls = await server.begin(100)
    entered = server.entered
    await calls.cancel()
    return entered == 1


@experiment("a cancelled trial gives its place back")
async def trial_cancelled(peer: Peer) -> bool:
    server = line(peer, SOON)
    await server.open(cooled=True)
    trial = await server.begin_trial()
    await trial.cancel()
    # The next call is let in, and is a trial still: one failure and it is open again.
    entered = server.entered
    await server.fail(1)
    return server.entered == entered + 1 and await server.refuses()


@experiment("a trial that hangs does not bar others")
async def trial_hangs(peer: Peer) -> bool:
    server = line(peer, SOON, slow_call=0.005)
    await server.open(cooled=True)
    trial = await server.begin_trial()
    end = time.monotonic() + 0.5
    is_in = False
    while not is_in and time.monotonic() < end:
        await asyncio.sleep(0.01)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                is_in = not await server.refuses()
    await trial.cancel()
    return is_in


# -- Time -------------------------------------------------------------------------


class _Later(datetime.datetime):
    """The wall clock, an hour ahead."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return super().now(tz) + datetime.timedelta(hours=1)

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return super().utcnow() + datetime.timedelta(hours=1)


@contextmanager
def an_hour_later(peer: Peer) -> Iterator[None]:
    """Put the wall clock forward, in all ways that the library may read it."""
    real = time.time
    prefix = peer.modules + "."
    replaced = [
        (module, name, value)
        for key, module in list(sys.modules.items())
        if key == peer.modules or key.startswith(prefix)
        for name, value in list(vars(module).items())
        if value is datetime.datetime or value is real
    ]

    def ahead() -> float:
        return real() + 3600

    time.time = ahead
    for module, name, value in replaced:
        setattr(module, name, _Later if value is datetime.datetime else ahead)
    try:
        yield
    finally:
        time.time = real
        for module, name, value in replaced:
            setattr(module, name, value)


@experiment("a step of the wall clock ends nothing")
async def wall_clock(peer: Peer) -> bool:
    server = line(peer)
    await server.open()
    with an_hour_later(peer):
        return await server.refuses()


@experiment("jitter is drawn once")
async def jitter(peer: Peer) -> bool:
    if not peer.has_jitter:
        raise Unsupported
    recovery, share = 0.2, 0.5
    shortest = recovery * (1 - peer.jitter_from * share)
    longest = recovery * (1 + share)

    async def opened_for() -> float:
        server = line(peer, recovery, jitter=share)
        await server.fail()
        begun = time.monotonic()
        while await server.refuses():  # noqa: ASYNC110 - its callers poll, too
            await asyncio.sleep(0)
        return (time.monotonic() - begun - shortest) / (longest - shortest)

    places = await asyncio.gather(*(opened_for() for _ in range(60)))
    # Drawn at each call, the shortest of many draws ends it: all come at the beginning.
    # Drawn once, the mean of 60 is below 0.35 once in 30,000 times.
    return sum(places) / len(places) > 0.35


# -- Refusals and errors ----------------------------------------------------------


@experiment("100,000 refusals keep no memory")
async def refusals_keep_nothing(peer: Peer) -> bool:
    server = line(peer)
    await server.open()

    async def refused(number: int) -> None:
        for _ in range(number):
            with suppress(peer.refusal):
                await server.call()

    await refused(1000)
    gc.collect()
    before = sys.getallocatedblocks()
    await refused(100_000)
    gc.collect()
    return sys.getallocatedblocks() - before < 100


@experiment("the call that trips raises its own error")
async def trips_with_its_own(peer: Peer) -> bool:
    server = line(peer)
    server.error = ConnectionResetError("reset by peer")
    raised = []
    for _ in range(FAILURES):
        try:
            await server.call()
        except (ConnectionResetError, peer.refusal) as error:
            raised.append(error)
    assert await server.refuses(), "it has not opened"
    return all(error is server.error for error in raised)


@experiment("a refusal tells how long to wait")
async def tells_wait(peer: Peer) -> bool:
    server = line(peer)
    await server.open()
    try:
        await server.call()
    except peer.refusal as refusal:
        told = peer.told_wait(refusal)
        return told is not None and 0 < told <= 75  # jitter may make it longer
    raise AssertionError


@experiment("a listener that raises does no harm")
async def listener_raises(peer: Peer) -> bool:
    told = 0

    def listener() -> None:
        nonlocal told
        told += 1
        raise RuntimeError("the listener is broken")

    server = line(peer, listener=listener)
    server.error = ConnectionResetError("reset by peer")
    own = []
    for _ in range(FAILURES):
        try:
            await server.call()
        except (ConnectionResetError, peer.refusal):
            own.append(True)
        except RuntimeError:
            own.append(False)
    assert told, "nobody told the listener"
    return all(own) and await server.refuses()


@experiment("ValueError does not count by default")
async def value_error(peer: Peer) -> bool:
    server = line(peer)
    server.error = ValueError("not a number")
    for _ in range(4 * FAILURES):
        with suppress(ValueError, peer.refusal):
            await server.call()
    return not await server.refuses()


@experiment("calls of four threads run at once")
async def threads(peer: Peer) -> bool:
    meeting = threading.Barrier(4)

    def meet() -> None:
        # Passed only by four that are in it together, which each takes 50 ms for.
        time.sleep(0.05)
        meeting.wait(timeout=0.5)

    guarded = peer.guard_blocking(FAILURES, meet)
    results = await asyncio.gather(
        *(asyncio.to_thread(guarded) for _ in range(4)), return_exceptions=True
    )
    return not any(results)


# -- The table --------------------------------------------------------------------


async def cell(peer: Peer, ask: Experiment) -> str:
    """Run one experiment with one library."""
    try:
        async with asyncio.timeout(30):
            return "yes" if await ask(peer) else "no"
    except Unsupported:
        return "-"
    except Exception as error:
        print(f"  {peer}, {ask.__name__}: {error!r}", file=sys.stderr)
        return "error"


async def table() -> int:
    """Print all cells; give the number of ours that are not yes."""
    print(f"behaviour   ({machine()})")
    print(f"{'':<42}" + "".join(f"{peer.name.split()[0]:>15}" for peer in PEERS))
    print(f"{'':<42}" + "".join(f"{peer.version:>15}" for peer in PEERS))
    good = dict.fromkeys(PEERS, 0)
    for claim, ask in EXPERIMENTS:
        cells = [await cell(peer, ask) for peer in PEERS]
        for peer, said in zip(PEERS, cells, strict=True):
            good[peer] += said == "yes"
        print(f"{claim:<42}" + "".join(f"{said:>15}" for said in cells), flush=True)
    of = len(EXPERIMENTS)
    print(f"{'yes':<42}" + "".join(f"{f'{n} of {of}':>15}" for n in good.values()))
    return of - good[OURS]


def main() -> None:
    logging.disable(logging.CRITICAL)  # listeners that raise are told of
    warnings.simplefilter("ignore")  # so are hooks, and coroutines left unawaited
    sys.exit(1 if asyncio.run(table()) else 0)


if __name__ == "__main__":
    main()
