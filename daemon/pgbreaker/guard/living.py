"""Everything of ours that is alive in this process: for scrapes, and for forks.

A forked process has to begin anew: a lock that another thread of the parent held at the
moment of the fork is held for ever in the child, and the calls that were out then are the
parent's.
"""

import os
import threading
from typing import Final, Protocol
from weakref import ref


class Living(Protocol):
    """Something that has a lock, or counts what is out."""

    def disown(self) -> None:
        """Begin anew: this is a child process."""


# In the order in which they were made, which a set would not keep. Swept when it has
# doubled, so that adding one costs the same however many there are.
_THINGS: Final[list[ref[Living]]] = []
_swept_to = 64


class _Joining:
    """The lock of the list, which is not to be lost to a fork either."""

    def __init__(self) -> None:
        self.disown()

    def disown(self) -> None:
        self.lock = threading.RLock()


_JOINING: Final = _Joining()


def join(thing: Living) -> None:
    """Have ``thing.disown()`` called in every process that is forked from now on."""
    global _swept_to
    with _JOINING.lock:
        if len(_THINGS) >= _swept_to:
            _THINGS[:] = [there for there in _THINGS if there() is not None]
            _swept_to = max(64, 2 * len(_THINGS))
        _THINGS.append(ref(thing))


def living() -> list[Living]:
    """All that are alive, in the order in which they were made."""
    with _JOINING.lock:  # not even a copy is one step: see `pools`
        things = tuple(_THINGS)
    there = [thing() for thing in things]
    return [thing for thing in there if thing is not None]


def _disown_all() -> None:
    _JOINING.disown()
    for thing in living():
        thing.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
