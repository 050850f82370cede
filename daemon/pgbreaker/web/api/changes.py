"""Whether anything has moved since somebody last asked, and a way to wait for it.

There are two counts of what is new. The *index* is that of what is shown: the id of the
last entry of the history that changed it (a move, an override, a window, a notice, a new
configuration), or more. It stands in ``X-Pgbreaker-Index`` and can be waited for. Notes
are no such thing: they are of the history's own count, `Entry.id`.

Between two entries the readings go on, and a target's state with them. Who waits is not
woken for those, or it would be every second; an ``ETag`` is another as soon as any state
is, so nobody is told "not modified" of what is.
"""

import asyncio
from typing import Final

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.units import Seconds
from pgbreaker.sinks.history import History

MOST: Final = 200
"""Questions that may wait at a time: more would take the connections of all others."""

_ONLY_TOLD: Final = frozenset((Kind.NOTE,))


class FullError(Exception):
    """There are as many who wait, or listen, as there may be."""


class Changes:
    """Follows a history.

    Attributes:
        index: Larger with every entry that changed what is shown; 0 before the first.
        last: The largest id of any entry; 0 before the first.
    """

    def __init__(self, history: History) -> None:
        shown = (entry.id for entry in history.entries if _changes(entry))
        self.index = max(shown, default=0)
        self.last = max((entry.id for entry in history.entries), default=0)
        self._waiting: set[asyncio.Future[None]] = set()
        self._is_closed = False

    def note(self, entry: Entry) -> None:
        """Take an entry that is new."""
        self.last = max(self.last, entry.id)
        if _changes(entry):
            # Another each time, also where a decision that took long comes late.
            self.index = max(self.index + 1, entry.id)
            self._wake()

    def close(self) -> None:
        """Let all go who wait, and keep nobody waiting from now on."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def beyond(self, index: int, within: Seconds) -> None:
        """Wait until the index is another than *index*, for *within* at most.

        Raises:
            FullError: There are as many who wait as there may be.
        """
        # Another, and not a larger one: that of a daemon before this one may be larger.
        if self.index != index or self._is_closed:
            return
        if len(self._waiting) >= MOST:
            raise FullError
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout(within):
                await future
        except TimeoutError:
            return
        finally:
            self._waiting.discard(future)


def _changes(entry: Entry) -> bool:
    return entry.kind not in _ONLY_TOLD
