"""How much at once: attempts to log in, writes, requests. All of it forgets."""

import ipaddress
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.units import Seconds

MOST_KEYS: Final = 4096
"""Addresses, or what else is counted by, that are remembered at a time."""

_LEAST: Final = 20 * 1024  # bytes that count as something taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take.

    Attributes:
        header: Seconds for the header of a request, from the end of the last one.
        body: Seconds for the body.
        change: Seconds for a change, until it is durable.
        linger: Seconds for which what still comes after an answer is thrown away, before
            the connection is: a client that is hung up on while it sends does not read
            why.
        stalled: Seconds after which a reader is dropped who took next to nothing.
        connections: How many there may be in all.
        followers: How many may follow besides, for as long as they like.
        from_one: How many of one address.
        from_here: How many of one address of this machine: a reverse proxy is one for
            all who come by it.
        writes: Changes that an address may make at once: more than anybody clicks.
        write_every: Seconds between them from then on.
        reports: Reports that may come from an address at once: of a house with thousands
            of processes, all may come from one.
        report_every: Seconds between them from then on.
    """

    header: Seconds = 10.0
    body: Seconds = 10.0
    change: Seconds = 30.0
    linger: Seconds = 1.0
    stalled: Seconds = 20.0
    connections: int = 1024
    followers: int = 5000
    from_one: int = 64
    from_here: int = 512
    writes: int = 120
    write_every: Seconds = 0.1
    reports: int = 500
    report_every: Seconds = 0.005


DEFAULT: Final = Limits()


class Counts:
    """What happened in the last while, a key each; the longest unseen is forgotten.

    An address that is forgotten early is forgiven early: it takes thousands of others
    for that, each with a few attempts of its own.
    """

    def __init__(
        self, within: Seconds, now: Callable[[], Seconds], most: int = MOST_KEYS
    ) -> None:
        self._within = within
        self._most = most
        self._now = now
        self._seen: OrderedDict[Hashable, deque[Seconds]] = OrderedDict()

    def add(self, key: Hashable) -> None:
        """Note that it happened now."""
        self._seen.setdefault(key, deque()).append(self._now())
        self._seen.move_to_end(key)
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)

    def take_back(self, key: Hashable) -> None:
        """Note that the last of them was none."""
        if moments := self._seen.get(key):
            moments.pop()

    def count(self, key: Hashable) -> int:
        """How often it happened of late."""
        moments = self._seen.get(key)
        if moments is None:
            return 0
        while moments and moments[0] <= self._now() - self._within:
            moments.popleft()
        if not moments:
            del self._seen[key]
        return len(moments)

    def wait(self, key: Hashable) -> Seconds:
        """Seconds until the first of them is forgotten."""
        moments = self._seen.get(key)
        return moments[0] + self._within - self._now() if moments else 0.0


class Pace:
    """A bucket of tokens for each key: some at once, and then so many a second."""

    def __init__(
        self, interval: Seconds, burst: int, now: Callable[[], Seconds]
    ) -> None:
        self._interval = interval
        self._burst = burst
        self._now = now
        # When the bucket of a key will be full again.
        self._full_at: OrderedDict[Hashable, Seconds] = OrderedDict()

    def wait(self, key: Hashable = None) -> Seconds:
        """Take one. Returns seconds to wait; 0: it was taken."""
        now = self._now()
        full_at = max(now, self._full_at.get(key, now)) + self._interval
        over = full_at - now - self._interval * self._burst
        if over > 1e-9:
            return over
        self._full_at[key] = full_at
        self._full_at.move_to_end(key)
        if len(self._full_at) > MOST_KEYS:
            self._full_at.popitem(last=False)
        return 0.0


class Flow:
    """Whether a reader takes what is there for them.

    Waiting until they have taken it all is not enough: small answers to who takes
    nothing end in a buffer that nobody waits for, and so does a connection that is
    being closed. And who takes a byte a second would never be dropped.
    """

    def __init__(self) -> None:
        self._since: Seconds | None = None
        self._peak = 0

    def flows(self) -> None:
        """Note that they have taken nearly all there was."""
        self._since = None

    def stands_for(self, size: int, now: Seconds) -> Seconds:
        """Say for how long next to nothing was taken.

        To be asked about once a second.

        Args:
            size: Bytes that wait for them.
        """
        if not size:
            self._since = None
            return 0.0
        if self._since is None or size <= self._peak - _LEAST:
            self._since, self._peak = now, size
        self._peak = max(self._peak, size)
        return now - self._since


def neighbourhood(address: str | None) -> str:
    """What counts as one address: of IPv6 its network, which one machine has whole."""
    if address is None:
        return "unix"
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        if not found.is_loopback:
            return str(ipaddress.ip_network((int(found), 64), strict=False))
    return str(found)


def retry_after(seconds: Seconds) -> str:
    """Write a wait as ``Retry-After`` has it: whole seconds, one at least."""
    return str(max(1, math.ceil(seconds)))
