"""Follows the daemon's stream, and finds it again when it is lost."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from pgbreaker.cli.daemon import Asked, Told
from pgbreaker.cli.ending import UNREACHABLE, EndError
from pgbreaker.core.units import Seconds

STREAM: Final = "/api/v1/stream"

LOST: Final = "lost"
"""The kind of what is told, by us, when the daemon no longer answers."""

_WAITS: Final[tuple[Seconds, ...]] = (0.5, 1.0, 2.0, 4.0)


def follow(
    daemon: Asked,
    after: str | None = None,
    *,
    silence: Seconds,
    wait: Callable[[Seconds], None] = time.sleep,
) -> Iterator[Told]:
    """Follow the daemon's stream for ever, from after an event on.

    What happens while the daemon is away is told when it is back, as far as its history
    reaches. That it is away is told as `LOST`, once.

    Raises:
        EndError: It answers, and will not tell us; or it never was there.
    """
    failures, was_there = 0, False
    while True:
        lost = "the daemon ended the stream"
        try:
            for told in daemon.follow(STREAM, after, silence=silence):
                failures, was_there = 0, True
                after = told.id or after
                yield told
        except EndError as error:
            if error.exit_code != UNREACHABLE or not was_there:
                raise
            lost = error.message
        if failures == 0:
            yield Told(LOST, after, lost)
        wait(_WAITS[min(failures, len(_WAITS) - 1)])
        failures += 1
