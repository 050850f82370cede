"""Advice to applications: pushed as the daemon changes its mind, and kept up by beats.

A beat says no more than that all that was said still holds, so thousands can follow.
What is told at once is written once, and straight to each connection: a task woken for
each would cost more than the sending.
"""

import asyncio
import gc
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from aiohttp import HttpVersion11, hdrs, web

from pgbreaker.clock import Clock, boot_id
from pgbreaker.core.advice import Version
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry
from pgbreaker.core.opinion import Mind, Thought, advice_of, mind_of, thought_of
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.history import History
from pgbreaker.web.api.asked import Query
from pgbreaker.web.doors.lines import Line
from pgbreaker.web.problems import problem

log = logging.getLogger(__name__)

STREAMED: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store",
    "X-Accel-Buffering": "no",  # nginx would wait until it has a page full
}
"""The headers of a stream."""

BEAT: Final[Seconds] = 2.0
"""Seconds between two beats."""

LEASE: Final[Seconds] = 3 * BEAT
"""Seconds for which advice holds that nobody repeats: three beats, so that one that is
late takes nothing back."""

RATE: Final = 500
"""Processes a second that come back to a server which has just done so itself."""

_TAKES: Final = 256 * 1024  # bytes that wait for who reads nothing, beside all of it
_AT_ONCE: Final = 50  # followers that a beat is sent to before others have a turn
# Of the time between two beats, for sending one to all. Who has another daemon to turn to
# does so after a beat and a half of silence.
_SPREAD: Final = 0.25
_MANY: Final = 500  # who came or went, for the collector to be told
_LOOKED_AT: Final = 500  # targets that are thought of before others have a turn
_LOOKS_EVERY: Final[Seconds] = 0.1  # for those who come, where nothing else has looked
_SAME_FOR: Final[Seconds] = 0.5  # that all of it is told as it was written last
_RETRY_AFTER: Final = "5"
_GOODBYE: Final = b"event: bye\ndata: {}\n\n"


Think = Callable[[TargetBoard, Breaker], Thought]
"""What is thought of a breaker."""


class AdviceFile:
    """What is said, in a file beside the daemon: for those on this machine who do not
    want to listen, and for other languages. It is replaced in one piece each time.

    Attributes:
        problem: Why it could not be written last, None when it was.
    """

    def __init__(self, path: Path) -> None:
        self.problem: str | None = None
        self._path = path
        self._boot = boot_id()

    def write(self, said: Mapping[str, Any]) -> None:
        """Write it; that it cannot be is logged, once."""
        # Of one machine, all processes have the same monotonic clock.
        text = json.dumps(
            {**said, "boot": self._boot, "written_monotonic": time.monotonic()}
        )
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(text, "utf-8")
            beside.replace(self._path)
        except OSError as error:
            if self.problem != str(error):
                log.warning("advice.file: cannot be written: %s", error)
            self.problem = str(error)
        else:
            self.problem = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Take it away at the end of the block: nobody says so any more."""
        try:
            yield
        finally:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Thought:
    """What is thought of the work of a breaker, and since when."""

    target: TargetBoard
    breaker: Breaker
    mind: Mind
    version: Version


class Advising:
    """What is said, and to whom.

    Attributes:
        version: Of the last change of mind.
        dropped: Followers that were hung up on, for they read nothing.
        is_open: Whether anybody may follow.
    """

    def __init__(
        self,
        board: Board,
        history: History,
        clock: Clock,
        epoch: int,
        *,
        most: int = 5000,
        also: Callable[[bytes], None] = lambda _told: None,
        think: Think | None = None,
        beat: Seconds = BEAT,
        lease: Seconds = LEASE,
    ) -> None:
        """Begin to follow a history.

        Args:
            epoch: When the daemon began, in milliseconds of the wall clock.
            most: Followers that there may be at a time.
            also: Is told of every change of mind, too.
            think: Says what is thought of a breaker. None: what its own machine does.
            beat: Seconds between two beats.
            lease: Seconds for which what nobody repeats holds.
        """
        self.version = Version(epoch, 0)
        self.dropped, self.is_open = 0, True
        self._board = board
        self._clock = clock
        self._most = most
        self._also = also
        self._think = think or self._by_itself
        self._beat = beat
        self._lease = lease
        self._said: dict[str, _Thought] = {}
        self._removed = 0  # when something was last said no more
        self._followers: dict[asyncio.Transport, bool] = {}  # -> whether in chunks
        self._changes = 0  # of who follows
        self._settled = 0  # of these, those that the collector knows of
        self._all: tuple[Version, Seconds, bytes] | None = None  # as written last
        self._looked_at: Seconds = 0.0
        self._is_closed = False
        self._unsure: set[str] = set()  # targets that are to be thought of anew
        self._woken = asyncio.Event()
        self._over = asyncio.Event()
        self.look()
        self._unfollow = history.follow(self._hear)

    @property
    def followers(self) -> int:
        """How many follow."""
        return len(self._followers)

    # What is thought.

    def _by_itself(self, target: TargetBoard, breaker: Breaker) -> Thought:
        return thought_of(breaker, is_fresh=target.is_fresh(self._clock.now()))

    def _hear(self, entry: Entry) -> None:
        if entry.target is not None:
            self.look_soon(entry.target)
        else:  # of the daemon, or another configuration
            asyncio.get_running_loop().call_soon(self.look)

    def look_soon(self, target: str) -> None:
        """Think anew of a target in a moment: something may be otherwise."""
        # What is decided is told before it is done: a moment later, both are so.
        if not self._unsure:
            asyncio.get_running_loop().call_soon(self._look_there)
        self._unsure.add(target)

    def _look_there(self) -> None:
        unsure = [self._board.targets.get(name) for name in self._unsure]
        self._unsure.clear()
        self._look_at(target for target in unsure if target is not None)

    def look(self) -> None:
        """Think anew of all, and tell what is thought otherwise than before."""
        self._looked_at = time.monotonic()
        self._look_at(self._board.targets.values())

    async def _look_through(self) -> None:
        """Look at all, of thousands some at a time."""
        self._looked_at = time.monotonic()
        targets = tuple(self._board.targets.values())
        for begin in range(0, len(targets), _LOOKED_AT):
            self._look_at(targets[begin : begin + _LOOKED_AT])
            await asyncio.sleep(0)

    def _look_at(self, targets: Iterable[TargetBoard]) -> None:
        """Think anew of these; of what there is no more, nothing."""
        said = dict(self._said)
        news = self._news(said, targets)
        for name in said.keys() - self._board.breakers:
            del said[name]
        self._turn(said, news)

    def _news(
        self, said: dict[str, _Thought], targets: Iterable[TargetBoard]
    ) -> list[_Thought]:
        """Put into *said* what is thought of these targets by now. Returns what is
        otherwise than it was."""
        version = replace(self.version, seq=self.version.seq + 1)
        news: list[_Thought] = []
        # There may be thousands, and nearly always all is as it was.
        for target in targets:
            for breaker in target.breakers.values():
                known = said.get(breaker.name)
                mind = mind_of(self._think(target, breaker), breaker)
                if known is None or known.mind != mind:
                    known = _Thought(target, breaker, mind, version)
                    news.append(known)
                elif known.breaker is not breaker:  # of another configuration
                    known = replace(known, target=target, breaker=breaker)
                said[breaker.name] = known
        return news

    def _turn(self, said: dict[str, _Thought], news: list[_Thought]) -> None:
        """Think what is in *said* from now on, and tell it."""
        is_less = not self._said.keys() <= said.keys()
        self._said = said
        if not news and not is_less:
            return
        version = self.version = replace(self.version, seq=self.version.seq + 1)
        if is_less:
            self._removed = version.seq
        self._woken.set()
        message = self._message(said.values() if is_less else news, is_less)
        told = self._numbered("advice", message)
        if is_less:
            self._all = version, time.monotonic(), told
        self._push(told)
        self._also(event("advice", message))

    # What is told.

    def said(self) -> dict[str, Any]:
        """All that is thought now, fit for JSON."""
        self.look()
        return self._message(self._said.values(), complete=True)

    def _message(self, said: Iterable[_Thought], complete: bool) -> dict[str, Any]:
        now = self._clock.now()
        return {
            **self._heading(),
            "complete": complete,
            "advice": [
                advice_of(
                    one.breaker,
                    self._think(one.target, one.breaker),
                    one.version,
                    now,
                    self._lease,
                ).written()
                for one in said
            ],
        }

    def _heading(self) -> dict[str, Any]:
        version = self.version
        return {
            "version": {"epoch": str(version.epoch), "seq": version.seq},
            "lease_seconds": self._lease,
            "spread_seconds": max(1.0, round(len(self._followers) / RATE, 1)),
        }

    def _told_all(self) -> bytes:
        """All of it, written anew if it is other than before, or time went on: thousands
        come at once when a daemon is there again."""
        known, now = self._all, time.monotonic()
        if known is None or known[0] != self.version or now - known[1] >= _SAME_FOR:
            told = self._numbered("advice", self._message(self._said.values(), True))
            known = self._all = self.version, now, told
        return known[2]

    def _numbered(self, kind: str, data: Mapping[str, Any]) -> bytes:
        version = self.version
        return b"id: %d-%d\n" % (version.epoch, version.seq) + event(kind, data)

    def _push(self, told: bytes) -> None:
        self._send(told, list(self._followers))

    def _send(self, told: bytes, to: Iterable[asyncio.Transport]) -> None:
        framed = _framed(told)
        # Who has just come may have all of it before them yet, however much that is.
        most = _TAKES + len(self._all[2] if self._all is not None else b"")
        for transport in to:
            in_chunks = self._followers.get(transport)
            if in_chunks is None:
                continue  # gone meanwhile
            if transport.get_write_buffer_size() > most:
                self.dropped += 1
                transport.abort()
            else:
                transport.write(framed if in_chunks else told)

    async def run(self, file: AdviceFile | None = None) -> None:
        """Keep up what is said, until the end.

        Args:
            file: Where it is written besides. None: nowhere.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            if file is not None:
                group.create_task(self._keep(file))
            while not self._is_closed:
                next_at, changes = loop.time() + self._beat, self._changes
                # That nobody has looked of late is told by no entry.
                await self._look_through()
                await self._send_beat()
                await self._rest(next_at - loop.time())
                if self._changes == changes:
                    self._settle()

    async def _send_beat(self) -> None:
        """Send one to each, in small batches with time in between: news that come
        meanwhile wait for no more than those few, here and with who reads."""
        loop = asyncio.get_running_loop()
        batches, begun = list(_batches(list(self._followers))), loop.time()
        for number, some in enumerate(batches, 1):
            # There may be news since the last of them: who has heard it must not hear
            # after it that all is as it was before.
            self._send(self._numbered("heartbeat", self._heading()), some)
            # By the clock, so that what others take of it delays no beat after that.
            share = number / len(batches)
            await self._rest(begun + self._beat * _SPREAD * share - loop.time())
            if self._is_closed:
                return  # goodbye was said: nothing holds any more

    async def _rest(self, seconds: Seconds) -> None:
        """Let others have their turn, and *seconds* go by, unless it is over before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    def _settle(self) -> None:
        """Have Python's collector leave alone who follows, once they have come.

        Five thousand are a quarter of a million objects: to look at all of them holds
        news up for 0.2 s, and it would do so at any time. Who has gone is looked for here.
        """
        many = max(_MANY, len(self._followers) // 2)
        if self._changes - self._settled >= many:
            self._settled = self._changes
            gc.unfreeze()
            gc.collect()
            gc.freeze()

    async def _keep(self, file: AdviceFile) -> None:
        # Apart from the beats: a disk that hangs is no reason for nobody to hear.
        with file.kept():
            while not self._is_closed:
                self._woken.clear()
                message = self._message(self._said.values(), complete=True)
                await asyncio.to_thread(file.write, message)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._beat):
                        await self._woken.wait()

    def close(self) -> None:
        """Say goodbye to all who follow."""
        if self._is_closed:
            return
        self._is_closed, self.is_open = True, False
        self._unfollow()
        self._push(_GOODBYE)
        self._over.set()
        self._woken.set()

    # HTTP.

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Tell who asks, until they go."""
        Query(request).check()
        response = web.StreamResponse(headers=STREAMED)
        if request.method == hdrs.METH_HEAD:
            await response.prepare(request)
            return response  # who stays for nothing takes nobody's place
        line, transport = request.protocol, request.transport
        is_full = len(self._followers) >= self._most or not self.is_open
        if is_full or (isinstance(line, Line) and not line.follow()):
            why = f"{len(self._followers)} follow, and no more may"
            if not self.is_open:
                why = "the daemon does not know yet what the others do, or it stops"
            return problem(503, "too many follow", why, **{"Retry-After": _RETRY_AFTER})
        with suppress(ConnectionResetError):
            await response.prepare(request)
            if transport is None:
                return response
            assert isinstance(transport, asyncio.Transport)
            in_chunks = request.version >= HttpVersion11
            first = self._first(request.headers.get("Last-Event-ID", ""))
            transport.write(_framed(first) if in_chunks else first)
            self._followers[transport] = in_chunks
            self._changes += 1
            try:
                await self._over.wait()
            finally:
                self._followers.pop(transport, None)
                self._changes += 1
        return response

    def _first(self, seen: str) -> bytes:
        """What is told first: what they have missed, where they have all else."""
        if time.monotonic() - self._looked_at >= _LOOKS_EVERY:
            self.look()
        epoch, _, seq = seen.partition("-")
        is_number = seq.isascii() and seq.isdecimal() and len(seq) < 16
        if epoch != str(self.version.epoch) or not is_number:
            return self._told_all()
        if not self._removed <= int(seq) <= self.version.seq:
            return self._told_all()
        missed = [one for one in self._said.values() if one.version.seq > int(seq)]
        return self._numbered("advice", self._message(missed, complete=False))


def event(kind: str, data: Mapping[str, Any]) -> bytes:
    """Write an event of a stream."""
    # JSON has no line breaks in it, so one line of data is enough.
    text = json.dumps(data, separators=(",", ":"))
    return f"event: {kind}\ndata: {text}\n\n".encode()


def _batches(all_: list[asyncio.Transport]) -> Iterator[list[asyncio.Transport]]:
    for begin in range(0, len(all_), _AT_ONCE):
        yield all_[begin : begin + _AT_ONCE]


def _framed(told: bytes) -> bytes:
    """A chunk, as HTTP/1.1 has it."""
    return b"%x\r\n%s\r\n" % (len(told), told)
