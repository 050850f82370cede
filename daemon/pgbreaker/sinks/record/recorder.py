"""What the hub tells, on its way to the files.

A disk that hangs must hold back nothing: a thread of its own writes, from a queue of so
many; what finds it full is counted and left out.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

from pgbreaker.clock import Clock
from pgbreaker.core.plan import RecordPlan, TargetPlan
from pgbreaker.core.reading import Reading
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.hub import Event
from pgbreaker.sinks.record.discreet import discreet
from pgbreaker.sinks.record.shelf import Shelf
from pgbreaker.sinks.record.writing import Lines, head

log = logging.getLogger(__name__)

_QUEUED: Final = 20_000  # events; at a thousand targets, some seconds
_AT_ONCE: Final = 500  # lines to one write
_PARTING: Final[Seconds] = 2.0
_AGAIN: Final[Seconds] = 5.0  # after the disk refused

_Targets: TypeAlias = tuple[TargetPlan, ...]
_Queued: TypeAlias = tuple[Reading | Transition | _Targets, Seconds]
"""What is to be written, or by which rules it goes on; and the moment at which that was
told."""


class Recorder:
    """Writes what the hub tells to a file, of which those before are kept; a sink.

    Args:
        computed: Names of values that a replay finds out anew; they are left out.

    Attributes:
        failures: Times that the disk refused.
    """

    def __init__(
        self,
        plan: RecordPlan,
        targets: Iterable[TargetPlan],
        clock: Clock,
        version: str,
        computed: Iterable[str] = (),
    ) -> None:
        # Each counted up by one thread alone, or what both count at once would be lost.
        self._refused = 0  # for want of room in the queue
        self._unwritten = 0  # by the disk
        self.failures = 0
        self._clock = clock
        self._queue: queue.Queue[_Queued | None] = queue.Queue(_QUEUED)
        self._ending = threading.Event()
        self._writing = threading.Thread(
            target=self._write, name="recording", daemon=True
        )
        # Of the thread alone.
        self._version = version
        self._targets = tuple(targets)
        self._lines = Lines(computed)
        self._shelf = Shelf(plan)
        self._goes_on = False

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        if isinstance(event, Reading | Transition):
            self._put((event, self._clock.now()))

    def turn(self, targets: Iterable[TargetPlan]) -> None:
        """Go on by the rules of a configuration that was read anew."""
        self._put((tuple(targets), self._clock.now()))

    def _put(self, queued: _Queued) -> None:
        try:
            self._queue.put_nowait(queued)
        except queue.Full:
            self._refused += 1

    @property
    def dropped(self) -> int:
        """Events that were left out: too many waited, or the disk refused."""
        return self._refused + self._unwritten

    @property
    def waiting(self) -> int:
        """Events that wait to be written."""
        return self._queue.qsize()

    def start(self) -> None:
        """Begin to write."""
        self._writing.start()

    def close(self, within: Seconds = _PARTING) -> None:
        """Write what is still to be written, as far as the disk lets us, and end."""
        self._ending.set()
        with suppress(queue.Full):  # then it is awake
            self._queue.put_nowait(None)
        self._writing.join(within)

    # In the thread.

    def _write(self) -> None:
        while not (self._ending.is_set() and self._queue.empty()):
            events = list(self._take())
            try:
                self._write_down(events)
            except OSError as error:
                self._unwritten += len(events)
                self._complain(error)
                self._shelf.close()
                self._ending.wait(_AGAIN)
            except Exception as error:  # noqa: BLE001 - what cannot be told is left out
                self._unwritten += len(events)
                self._complain(error)
                self._shelf.close()  # and all is said anew
        self._shelf.close()

    def _take(self) -> Iterator[_Queued]:
        first = self._queue.get()
        if first is not None:
            yield first
        for _ in range(_AT_ONCE):
            try:
                event = self._queue.get_nowait()
            except queue.Empty:
                return
            if event is not None:
                yield event

    def _write_down(self, events: Iterable[_Queued]) -> None:
        """Write all of it.

        Raises:
            OSError: The disk refused.
        """
        lines = bytearray()
        for event, told in events:
            if not self._shelf.is_open:
                self._shelf.open()
                self._pack()
                lines += self._begin(told)
            elif self._shelf.is_full(len(lines)):
                self._shelf.append(lines)
                self._shelf.put_aside()
                self._pack()
                self._shelf.open()
                lines = bytearray(self._begin(told))
            lines += self._line(event, told)
        if lines:
            self._shelf.append(lines)

    def _pack(self) -> None:
        try:
            self._shelf.pack()
        except OSError as error:
            self._complain(error)  # and go on: it can be read as it is

    def _line(self, event: Reading | Transition | _Targets, told: Seconds) -> bytes:
        match event:
            case Reading():
                return self._lines.of_reading(event, told)
            case Transition():
                return self._lines.of_move(event)
        self._targets = event
        return self._begin(told)

    def _begin(self, told: Seconds) -> bytes:
        """The head of what was told from then on."""
        wall = self._clock.wall() - self._clock.now() + told
        begun = head(self._targets, self._version, told, wall, goes_on=self._goes_on)
        self._goes_on = True
        # Passwords in files may be others by now.
        return self._lines.begin(self._targets, begun, discreet(self._targets))

    def _complain(self, error: Exception) -> None:
        if self.failures == 0:
            if isinstance(error, OSError):
                said, fault = (error.strerror or str(error)).lower(), None
            else:
                said, fault = f"a fault of ours, {error!r}", error
            path = self._shelf.path
            log.error("cannot record to %s: %s", path, said, exc_info=fault)
        self.failures += 1


@asynccontextmanager
async def recording(
    plan: RecordPlan,
    targets: Iterable[TargetPlan],
    clock: Clock,
    version: str,
    computed: Iterable[str] = (),
) -> AsyncIterator[Recorder]:
    """Record for the time of the block."""
    recorder = Recorder(plan, targets, clock, version, computed)
    recorder.start()
    try:
        yield recorder
    finally:
        await asyncio.to_thread(recorder.close)
