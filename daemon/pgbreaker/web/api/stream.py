"""The stream: what happens, told as it happens, by server-sent events.

Whoever comes first gets a `snapshot`, which is the status, and then each entry of the
history by its kind. What is told is written once for all who listen. Who is slow is told
less: behind a queue of `QUEUE` bursts there comes one new snapshot for all that was left
out. Who takes nothing at all is dropped.

Ids are those of the history, larger is later over restarts, too: whoever comes back with
the last one they saw (``Last-Event-ID``, or ``after`` in the address) is told what they
missed, and gets a snapshot before it where that may not be all of it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any, Final

from aiohttp import hdrs, web

from pgbreaker.clock import Clock
from pgbreaker.core.entry import Entry
from pgbreaker.core.units import Seconds
from pgbreaker.core.wall import moment
from pgbreaker.sinks.history import History
from pgbreaker.web.api.advising import STREAMED, event
from pgbreaker.web.api.asked import LAST_ID, Query
from pgbreaker.web.api.changes import Changes, FullError
from pgbreaker.web.problems import problem
from pgbreaker.web.views import Views

QUEUE: Final = 8
"""Bursts of events that wait for a reader who is slow: what happens at once is one."""

BURST: Final = 64
"""Events of a burst; of more at once, a snapshot tells better."""

MOST: Final = 200
"""Readers that there may be at a time."""

MISSED: Final = 500
"""Events that are told one by one to who comes back; of more, a snapshot tells better."""

BEAT: Final[Seconds] = 5.0
"""Seconds between two heartbeats."""

_TAKES: Final[Seconds] = 5.0  # a reader who takes nothing for so long is gone
_FRESH: Final[Seconds] = 1.0  # a reader gets one snapshot in so long at most
_AGAIN: Final = 2000  # milliseconds after which a browser comes back
_RETRY_AFTER: Final = "5"


class Reader:
    """Somebody who listens.

    Attributes:
        is_behind: Whether some of what happened was left out, and a snapshot is due.
    """

    def __init__(self) -> None:
        self.is_behind = False
        self._queue: deque[tuple[int | None, bytes]] = deque()
        self._news = asyncio.Event()
        self._is_over = False

    def push(self, id_: int | None, told: bytes) -> None:
        """Have them told, as soon as they take it.

        Args:
            id_: Of the last entry in it. None: it is of none, and need not be told to who
                is slow.
        """
        if len(self._queue) < QUEUE and not self.is_behind:
            self._queue.append((id_, told))
            self._news.set()
        elif id_ is not None:
            self.skip()

    def skip(self) -> None:
        """Leave out what waits and what is to come, and have a snapshot told instead."""
        self._queue.clear()
        self.is_behind = True
        self._news.set()

    def end(self) -> None:
        """Tell them nothing more."""
        self._is_over = True
        self._news.set()

    async def next(self) -> tuple[int | None, bytes] | None:
        """What comes next. None: a snapshot is due, or all is over."""
        await self._news.wait()
        if self._queue:
            one = self._queue.popleft()
            if not self._queue and not self._is_over:
                self._news.clear()
            return one
        if not self._is_over:
            self._news.clear()
        return None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to tell, and never will be."""
        return self._is_over and not self._queue


class Stream:
    """Tells all who listen what happens.

    Attributes:
        changes: What has moved, for those who wait instead of listening.
    """

    def __init__(
        self,
        history: History,
        views: Views,
        clock: Clock,
        *,
        beat: Seconds = BEAT,
        takes: Seconds = _TAKES,
        most: int = MOST,
    ) -> None:
        """Begin to follow a history.

        Args:
            beat: Seconds between two heartbeats.
            takes: Seconds after which a reader is dropped who takes nothing.
            most: Readers that there may be at a time.
        """
        self.changes = Changes(history)
        self._history = history
        self._views = views
        self._clock = clock
        self._beat_every = beat
        self._takes = takes
        self._most = most
        self._began = int(clock.wall() * 1000) - 1  # smaller than any id from now on
        self._readers: set[Reader] = set()
        self._burst: list[Entry] = []  # what happens just now
        self._beating: asyncio.TimerHandle | None = None
        self._snapshot: tuple[int, Seconds, bytes] | None = None
        self._is_closed = False
        self._unfollow = history.follow(self._hear)

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._readers)

    # What happens.

    def _hear(self, entry: Entry) -> None:
        self.changes.note(entry)
        if not self._readers:
            return
        if not self._burst:
            # What is decided is told before it is done: a moment later, both are so.
            asyncio.get_running_loop().call_soon(self._pass_on)
        self._burst.append(entry)

    def _pass_on(self) -> None:
        burst, self._burst = self._burst, []
        if len(burst) > BURST:
            for reader in self._readers:
                reader.skip()
            return
        told = b"".join(map(self._told, burst))
        for reader in self._readers:
            reader.push(burst[-1].id, told)

    def advise(self, told: bytes) -> None:
        """Tell all who listen what those are told who follow, too; it has no id, for it is
        none of the history's."""
        for reader in self._readers:
            reader.push(None, told)

    def _told(self, entry: Entry) -> bytes:
        return _event(entry.kind.value, self._views.told(entry), entry.id)

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._beating = loop.call_later(self._beat_every, self._beat)
        beat = self._heartbeat()
        for reader in self._readers:
            reader.push(None, beat)

    def _heartbeat(self) -> bytes:
        return _event("heartbeat", self._views.heartbeat())

    # Who listens.

    @contextmanager
    def subscribe(self) -> Iterator[Reader]:
        """Listen for the time of the block.

        Raises:
            FullError: There are as many as there may be, or all is about to end.
        """
        if len(self._readers) >= self._most or self._is_closed:
            raise FullError
        reader = Reader()
        self._readers.add(reader)
        if self._beating is None:
            loop = asyncio.get_running_loop()
            self._beating = loop.call_later(self._beat_every, self._beat)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
            if not self._readers and self._beating is not None:
                self._beating.cancel()
                self._beating = None

    async def tell(
        self, reader: Reader, after: int | None
    ) -> AsyncGenerator[bytes, None]:
        """What a reader is told, from the beginning to the end of the daemon.

        Args:
            after: Id of the last event that they saw. None: they have seen none.
        """
        yield f"retry: {_AGAIN}\n\n".encode()
        caught_up = set()
        async for id_, told in self._catch_up(after):
            caught_up.add(id_)
            yield told
        if after is not None:
            yield self._heartbeat()  # or who has missed nothing would hear nothing
        spoke = 0.0
        while not reader.is_over:
            one = await reader.next()
            if one is not None:
                # What was told while they caught up may be in both.
                if one[0] is None or one[0] not in caught_up:
                    yield one[1]
            elif reader.is_behind:
                await asyncio.sleep(spoke + _FRESH - _time())
                reader.is_behind = False
                spoke = _time()
                yield self._shown(self._mark)
        yield _event("bye", {"time": moment(self._clock.wall())})

    async def _catch_up(
        self, after: int | None
    ) -> AsyncGenerator[tuple[int | None, bytes], None]:
        if after is None or after > max(self.changes.last, self._began):
            yield None, self._shown(self._mark)
            return
        missed = await self._history.page(after=after, limit=MISSED + 1)
        if len(missed) > MISSED:
            yield None, self._shown(self._mark)
            return
        if not await self._reaches(after):
            yield None, self._shown(None)
        for entry in missed:
            yield entry.id, self._told(entry)

    @property
    def _mark(self) -> int:
        """The id to come back with, for who has seen all there is."""
        return max(self.changes.last, self._began)

    async def _reaches(self, id_: int) -> bool:
        """Whether all that came after *id_* is known."""
        if id_ >= self._began:
            return True
        return bool(await self._history.page(before=id_ + 1, limit=1))

    def _shown(self, id_: int | None) -> bytes:
        """A snapshot, written anew if anything moved since the last, or time went on."""
        last, now = self.changes.last, _time()
        known = self._snapshot
        if known is None or known[0] != last or now - known[1] >= _FRESH:
            status = self._views.status() | {"index": self.changes.index}
            known = self._snapshot = (last, now, _event("snapshot", status))
        return (b"" if id_ is None else b"id: %d\n" % id_) + known[2]

    async def close(self, within: Seconds = 0.5) -> None:
        """Say goodbye to all who listen, and wait until they took it; not for ever."""
        if not self._is_closed:
            self._is_closed = True
            self._unfollow()
            self.changes.close()
        for reader in self._readers:
            reader.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._readers:  # noqa: ASYNC110 - they leave one by one
                    await asyncio.sleep(0.01)

    # HTTP.

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Tell who asks, until they go."""
        query = Query(request, "after")
        after = query.number("after", 0, LAST_ID)
        query.check()
        seen = request.headers.get("Last-Event-ID", "")
        # Of a browser that comes back by itself, the header is newer than its address.
        if seen.isascii() and seen.isdecimal() and len(seen) < 16:
            after = int(seen)
        try:
            with self.subscribe() as reader:
                return await self._speak(request, self.tell(reader, after))
        except FullError:
            why = f"{len(self._readers)} streams are open, and no more are"
            headers = {"Retry-After": _RETRY_AFTER}
            return problem(503, "too many streams", why, **headers)

    async def _speak(
        self, request: web.Request, told: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=STREAMED)
        with suppress(ConnectionResetError):
            await response.prepare(request)
            if request.method == hdrs.METH_HEAD:
                return response
            try:
                async with aclosing(told):
                    async for text in told:
                        async with asyncio.timeout(self._takes):
                            await response.write(text)
                async with asyncio.timeout(self._takes):
                    await response.write_eof()
            except TimeoutError:
                if request.transport is not None:
                    request.transport.abort()
        return response


def _time() -> Seconds:
    """The loop's time: how much is told at once has nothing to do with the daemon's."""
    return asyncio.get_running_loop().time()


def _event(kind: str, data: dict[str, Any], id_: int | None = None) -> bytes:
    head = b"" if id_ is None else b"id: %d\n" % id_
    return head + event(kind, data)
