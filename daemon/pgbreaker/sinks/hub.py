"""One event in, every sink told."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from pgbreaker.core.reading import Reading
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds

log = logging.getLogger(__name__)


NOTICES: Final = (
    "locked_out",
    "let_in",
    "logins_wait",
    "restarted",
    "crashed",
    "role",
    "cluster",
    "moved",
    "blind",
    "too_old",
)
"""What a notice can be of."""

FORETOLD: Final = ("warned", "warning_over")
"""What a notice of a forecast can be of; it is counted once there has been one."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something worth telling that moves no breaker: a restart, a new role.

    Attributes:
        target: Name of the target.
        code: One of `NOTICES`, or of `FORETOLD`.
        text: One sentence for people, without secrets.
        at: Moment of it.
    """

    target: str
    code: str
    text: str
    at: Seconds


Event: TypeAlias = Reading | Transition | Notice
Sink: TypeAlias = Callable[[Event], None]


class Hub:
    """Hands each event to each sink, in the order they were given.

    Attributes:
        dropped: Events that a sink failed to take, since the beginning.
    """

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self._sinks = tuple(sinks)
        self.dropped = 0

    def add(self, sink: Sink) -> None:
        """Have one more told, after the others."""
        self._sinks = (*self._sinks, sink)

    def publish(self, event: Event) -> None:
        """Tell every sink, whatever the others do."""
        for sink in self._sinks:
            try:
                sink(event)
            except Exception:
                self.dropped += 1
                log.exception("sink %r failed to take %r", sink, event)
