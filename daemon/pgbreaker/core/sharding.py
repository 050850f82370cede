"""Who watches what, where several daemons share the work: rendezvous hashing.

Everybody who knows the same daemons comes to the same answer, and nobody has to ask. Of a
daemon that comes or goes only its own share changes hands.
https://en.wikipedia.org/wiki/Rendezvous_hashing
"""

import hashlib
from collections.abc import Iterable
from typing import Final

_MIX: Final = 0x9E3779B97F4A7C15  # the golden ratio: neighbours end up far apart
_ALL: Final = 2**64 - 1


def seed_of(name: str) -> int:
    """The number that stands for a daemon or a target; of the name alone, and the same
    in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())


def chosen(target: str, daemons: Iterable[str], count: int) -> tuple[str, ...]:
    """Those who watch a target, the first choice first.

    Args:
        daemons: Those who could.
        count: How many shall; all of them, where there are no more.
    """
    seeded = ((seed_of(name), name) for name in daemons)
    return chosen_by_seed(seed_of(target), seeded, count)


def chosen_by_seed(
    seed: int, daemons: Iterable[tuple[int, str]], count: int
) -> tuple[str, ...]:
    """As `chosen`, for who has the seeds at hand: ten thousand targets are many."""
    ranked = sorted((-_weight(seed, other), name) for other, name in daemons)
    return tuple(name for _, name in ranked[:count])


def _weight(target: int, daemon: int) -> int:
    """What a daemon bids for a target: a mix of both, by the end of MurmurHash3."""
    mixed = (target ^ (daemon * _MIX)) & _ALL
    mixed = ((mixed ^ (mixed >> 33)) * 0xFF51AFD7ED558CCD) & _ALL
    mixed = ((mixed ^ (mixed >> 33)) * 0xC4CEB9FE1A85EC53) & _ALL
    return mixed ^ (mixed >> 33)
