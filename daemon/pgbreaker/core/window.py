"""The sliding window: what became of the calls of the last seconds."""

from array import array
from dataclasses import dataclass
from math import isclose

from pgbreaker.core.memory import WindowMemory
from pgbreaker.core.units import Seconds, Share


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls in the window.

    Attributes:
        total: Calls that say something of the server: successes and failures.
        failed: Those that failed.
        slow: Those that were slow, whether they failed or not.
    """

    total: int
    failed: int
    slow: int

    @property
    def failure_ratio(self) -> Share:
        return self.failed / self.total if self.total else 0.0

    @property
    def slow_ratio(self) -> Share:
        return self.slow / self.total if self.total else 0.0


class Window:
    """Counts in a ring of buckets, forgotten a bucket at a time.

    A guard's fast path touches three names directly: it compares the time with
    `edge`, and below it adds one to `ok`. Everything else asks for `rotate`
    first, so that the current bucket is the current one.

    Attributes:
        edge: Moment at which the current bucket ends.
        ok: Successes in the current bucket.
        failed: Failures in the current bucket.
        slow: Slow calls in the current bucket.
        held_ok: Successes in the buckets before it; likewise `held_failed` and
            `held_slow`.
    """

    __slots__ = (
        "_next",
        "_past_failed",
        "_past_ok",
        "_past_slow",
        "_ring",
        "_width",
        "edge",
        "failed",
        "held_failed",
        "held_ok",
        "held_slow",
        "ok",
        "slow",
    )

    def __init__(self, length: Seconds, buckets: int, now: Seconds) -> None:
        self._width = length / buckets
        self._ring = array("I", [0, 0, 0] * (buckets - 1))
        self._next = 0
        self.held_ok = self.held_failed = self.held_slow = 0  # sums over the ring
        self._past_ok = self._past_failed = self._past_slow = 0  # forgotten ones
        self.ok = self.failed = self.slow = 0
        self.edge = now + self._width

    def rotate(self, now: Seconds) -> None:
        """Make the bucket of *now* the current one."""
        if now < self.edge:
            return
        steps = int((now - self.edge) / self._width) + 1
        if steps > len(self._ring) // 3:
            self.clear(now)
            return
        for _ in range(steps):
            self._push()
        self.edge += steps * self._width

    def _push(self) -> None:
        ring, at = self._ring, self._next
        oldest = ring[at], ring[at + 1], ring[at + 2]
        ring[at], ring[at + 1], ring[at + 2] = self.ok, self.failed, self.slow
        self._next = (at + 3) % len(ring)
        self.held_ok += self.ok - oldest[0]
        self.held_failed += self.failed - oldest[1]
        self.held_slow += self.slow - oldest[2]
        self._forget(oldest)
        self.ok = self.failed = self.slow = 0

    def _forget(self, bucket: tuple[int, int, int]) -> None:
        self._past_ok += bucket[0]
        self._past_failed += bucket[1]
        self._past_slow += bucket[2]

    def pass_by(self, *, ok: bool, failed: bool, slow: bool) -> None:
        """Count a call in the totals over all time alone."""
        self._forget((ok, failed, slow))

    def clear(self, now: Seconds) -> None:
        """Forget every call; the totals over all time stay."""
        self._forget(
            (
                self.held_ok + self.ok,
                self.held_failed + self.failed,
                self.held_slow + self.slow,
            )
        )
        self._ring = array("I", [0] * len(self._ring))
        self._next = 0
        self.held_ok = self.held_failed = self.held_slow = 0
        self.ok = self.failed = self.slow = 0
        self.edge = now + self._width

    def memory(self, now: Seconds) -> WindowMemory:
        """What is remembered of it; changes nothing."""
        ring, size = self._ring, len(self._ring)
        places = [(self._next + n) % size for n in range(0, size, 3)]
        held = [(ring[at], ring[at + 1], ring[at + 2]) for at in places]
        return WindowMemory(
            length=self._width * (len(held) + 1),
            edge_in=self.edge - now,
            buckets=(*held, (self.ok, self.failed, self.slow)),
            past=(self._past_ok, self._past_failed, self._past_slow),
        )

    def recall(self, memory: WindowMemory, now: Seconds, away: Seconds) -> None:
        """Hold what is remembered and still within reach, after *away* seconds.

        What another kind of window held is counted in the totals over all time alone:
        its buckets do not fit.
        """
        self.clear(now)
        self._past_ok, self._past_failed, self._past_slow = memory.past
        *held, current = memory.buckets
        width = memory.length / len(memory.buckets)
        if 3 * len(held) != len(self._ring) or not isclose(width, self._width):
            for bucket in memory.buckets:
                self._forget(bucket)
            return
        self._ring = array("I", [count for bucket in held for count in bucket])
        self.held_ok, self.held_failed, self.held_slow = (
            sum(self._ring[n::3]) for n in range(3)
        )
        self.ok, self.failed, self.slow = current
        # Not turned yet: whoever counts next does that, as in a window that stayed.
        self.edge = now - away + memory.edge_in

    def counts(self) -> Counts:
        """What the window holds as of the last `rotate`."""
        failed = self.held_failed + self.failed
        return Counts(
            self.held_ok + self.ok + failed, failed, self.held_slow + self.slow
        )

    def counts_at(self, now: Seconds) -> Counts:
        """What it will hold at *now*, if nothing comes in between; changes nothing."""
        if now < self.edge:
            return self.counts()
        if not self.reaches(now):
            return Counts(0, 0, 0)
        ring, size = self._ring, len(self._ring)
        aged = 3 * (int((now - self.edge) / self._width) + 1)
        places = [(self._next + n) % size for n in range(aged)]
        ok, failed, slow = (sum(ring[at] for at in places[n::3]) for n in range(3))
        seen = self.counts()
        return Counts(seen.total - ok - failed, seen.failed - failed, seen.slow - slow)

    def reaches(self, now: Seconds) -> bool:
        """Whether the current bucket is still within the window at *now*."""
        ended = 0 if now < self.edge else int((now - self.edge) / self._width) + 1
        return 3 * ended <= len(self._ring)

    @property
    def successes(self) -> int:
        """Successes since the beginning, within the window or not."""
        return self._past_ok + self.held_ok + self.ok

    @property
    def failures(self) -> int:
        """Failures since the beginning, within the window or not."""
        return self._past_failed + self.held_failed + self.failed

    @property
    def slows(self) -> int:
        """Slow calls since the beginning, within the window or not."""
        return self._past_slow + self.held_slow + self.slow
