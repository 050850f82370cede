"""When a breaker opens, how long it stays open, and what closes it again."""

from dataclasses import dataclass
from typing import Final

from pgbreaker.core.units import Seconds, Share

NEVER: Final = 1_000_000_000
"""As `minimum_calls`: no rate opens, however many calls fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of one breaker.

    The defaults are the library's; `DAEMON` holds those of a breaker that is
    driven by probes, which keep asking and so need not wait long.

    Raises:
        ValueError: A number is out of its range, or two contradict each other.

    Attributes:
        failure_rate: Share of failed calls in the window that opens.
        slow_rate: Share of slow calls in the window that opens, and whether a slow
            trial fails. None: slowness alone never opens.
        window: Length of the sliding window in seconds.
        buckets: Slices of the window; what is forgotten, is forgotten a slice
            at a time, so the window covers between ``window * (buckets - 1) /
            buckets`` and ``window`` seconds.
        minimum_calls: Calls in the window below which no rate opens.
        failure_threshold: Failures in a row that open whatever the rate, for
            operations with few calls. None: no such rule.
        success_threshold: Successful trial calls that close.
        timeout: Seconds that the first opening lasts before a trial call.
        max_timeout: Seconds beyond which repeated openings no longer double.
        jitter: Share of itself by which an opening may be longer, drawn once.
            Only upward: nobody comes back early.
        pool_timeout: Seconds that the first opening lasts for want of a pooled
            connection; `timeout` when that is less. The first trial that gets one
            closes it again.
        slow_call: Seconds from which a call counts as slow, and from which one that
            has not come back is overdue. None: none does.
        trials: Trial calls in flight at once while half-open.
        trial_deadline: Seconds after which a trial that has not come back
            counts as failed. None: twice `slow_call`, but at least ten.
        ramp: Seconds after closing over which admission climbs from 10 % to
            100 % of the calls. 0: all at once.
    """

    failure_rate: Share = 0.5
    slow_rate: Share | None = 0.8
    window: Seconds = 10.0
    buckets: int = 10
    minimum_calls: int = 20
    failure_threshold: int | None = 5
    success_threshold: int = 3
    timeout: Seconds = 60.0
    max_timeout: Seconds = 300.0
    pool_timeout: Seconds = 0.25
    jitter: Share = 0.2
    slow_call: Seconds | None = None
    trials: int = 1
    trial_deadline: Seconds | None = None
    ramp: Seconds = 0.0

    def __post_init__(self) -> None:
        self._check_share("failure_rate", self.failure_rate)
        if self.slow_rate is not None:
            self._check_share("slow_rate", self.slow_rate)
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is a share from 0 to 1, got {self.jitter!r}")
        for name in (
            "window",
            "timeout",
            "pool_timeout",
            "slow_call",
            "trial_deadline",
        ):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < float("inf"):
                raise ValueError(f"{name} is a time above 0 s, got {seconds!r}")
        if not 0 <= self.ramp < float("inf"):
            raise ValueError(f"ramp is a time of 0 s or more, got {self.ramp!r}")
        for name in (
            "buckets",
            "minimum_calls",
            "failure_threshold",
            "success_threshold",
            "trials",
        ):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is a count of 1 or more, got {count!r}")
        if self.max_timeout < self.timeout:
            raise ValueError(
                f"max_timeout ({self.max_timeout:g} s) is shorter than"
                f" timeout ({self.timeout:g} s)"
            )

    @staticmethod
    def _check_share(name: str, share: Share) -> None:
        if not 0 < share <= 1:
            raise ValueError(
                f"{name} is a share above 0 and up to 1, got {share!r} (70 % is 0.7)"
            )

    @property
    def lease(self) -> Seconds:
        """Seconds that a trial call has before it counts as failed."""
        if self.trial_deadline is not None:
            return self.trial_deadline
        return max(2 * (self.slow_call or 0.0), 10.0)


DAEMON: Final = Policy(
    minimum_calls=5,
    failure_threshold=3,
    success_threshold=2,
    timeout=1.0,
    max_timeout=60.0,
    slow_call=0.25,
)
"""What the daemon's breakers start from: small, because the probes go on."""
