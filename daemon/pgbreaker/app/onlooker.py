"""The onlooker: a thread that sees when the loop hangs, and says where.

A service manager ends a daemon that does not feed its watchdog; what it hung at is lost
then, and without a service manager nobody notices at all.
"""

import faulthandler
import logging
import sys
import threading
import traceback
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.monitor.pulse import Pulse

log = logging.getLogger(__name__)

_LOOKS: Final[Seconds] = 1.0
_DEAF: Final[Seconds] = 2.0  # times the patience, after which no thread gets to run


class Onlooker:
    """Writes to the log where every thread is once the loop has hung for long.

    Args:
        patience: Seconds for which it may.
        looks: Seconds between two looks.
    """

    def __init__(
        self, pulse: Pulse, clock: Clock, patience: Seconds, looks: Seconds = _LOOKS
    ) -> None:
        self._pulse = pulse
        self._clock = clock
        self._patience = patience
        self._looks = looks
        self._told_of: Seconds | None = None  # the beat after which it hung
        self._over = threading.Event()
        self._looking = threading.Thread(
            target=self._look, name="onlooker", daemon=True
        )

    def start(self) -> None:
        """Begin to look."""
        self._looking.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._looking.join(2 * self._looks)

    # In the thread.

    def _look(self) -> None:
        while not self._over.wait(self._looks):
            # When not even this thread gets to run, because whoever hangs lets go of
            # nothing, Python's own watchdog tells, past the log.
            faulthandler.dump_traceback_later(_DEAF * self._patience, file=sys.stderr)
            beaten_at = self._pulse.beaten_at
            if beaten_at is None or beaten_at == self._told_of:
                continue
            silent = self._clock.now() - beaten_at
            if silent >= self._patience:
                self._told_of = beaten_at
                log.critical(
                    "the loop has hung for %s; every thread is here:\n%s",
                    lasting(silent),
                    "\n".join(stacks()),
                )
        faulthandler.cancel_dump_traceback_later()


def stacks() -> list[str]:
    """Where every thread is, one text each."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    ]
