"""What a user says about a breaker."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal, Self, TypeAlias

from pgbreaker.core.policy import NEVER, Policy
from pgbreaker.core.units import Seconds, Share

Preset: TypeAlias = Literal["default", "web", "background", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgreSQLCircuitBreakerConfig:
    """The rules of one breaker of an application.

    The first seven are the ones most people set. An opening of a minute is long for a
    web service; `preset` has values that come back sooner.

    Raises:
        ValueError: A number is out of its range, or two contradict each other.

    Attributes:
        failure_threshold: Failures in a row that open, whatever the rate. None: no
            such rule.
        success_threshold: Successful trial calls that close.
        timeout: Seconds that the first opening lasts before a trial call.
        max_retry_attempts: Times that a call which never reached the server, or was
            rolled back by it, is tried again. 0: never.
        base_backoff_delay: Seconds that the wait before the first of those is drawn
            from, 0 to this much; doubled for each further one.
        enable_detailed_logging: Whether trials and retries are logged, and not only
            transitions.
        metrics_collection_enabled: Whether `pgbreaker.metrics.collector` shows it.
        failure_rate: Share of failed calls in the window that opens.
        slow_rate: Share of slow calls in the window that opens. None: slowness alone
            never opens.
        slow_call: Seconds from which a call counts as slow; from which one that was
            cancelled counts as failed; and from which one that has not come back is
            overdue. When five (or `failure_threshold`, if less) are overdue and no
            call comes back any more, the breaker opens. None: none of this.
        minimum_calls: Calls in the window below which no rate opens.
        window: Seconds that the sliding window covers.
        max_timeout: Seconds beyond which repeated openings no longer double.
        pool_timeout: Seconds that the first opening lasts when the application's own
            pool is exhausted; the first call that gets a connection closes it again.
        jitter: Share of itself by which an opening may be longer.
        trials: Trial calls in flight at once while half-open.
        trial_deadline: Seconds after which a trial that has not come back counts as
            failed. None: twice `slow_call`, but at least ten.
        ramp: Seconds after closing over which admission climbs from 10 % to 100 %.
        max_backoff_delay: Seconds that no wait before a retry exceeds.
        retry_ratio: Retries that each call earns, so that an outage is not made worse
            by them: 0.1 is one retry for ten calls.
    """

    failure_threshold: int | None = 5
    success_threshold: int = 3
    timeout: Seconds = 60.0
    max_retry_attempts: int = 3
    base_backoff_delay: Seconds = 1.0
    enable_detailed_logging: bool = True
    metrics_collection_enabled: bool = True
    failure_rate: Share = 0.5
    slow_rate: Share | None = None
    slow_call: Seconds | None = 0.5
    minimum_calls: int = 20
    window: Seconds = 10.0
    max_timeout: Seconds = 300.0
    pool_timeout: Seconds = 0.25
    jitter: Share = 0.2
    trials: int = 1
    trial_deadline: Seconds | None = None
    ramp: Seconds = 0.0
    max_backoff_delay: Seconds = 30.0
    retry_ratio: Share = 0.1

    def __post_init__(self) -> None:
        if self.max_retry_attempts < 0:
            raise ValueError(
                "max_retry_attempts is a count of 0 or more,"
                f" got {self.max_retry_attempts!r}"
            )
        for name in ("base_backoff_delay", "max_backoff_delay"):
            seconds = getattr(self, name)
            if not 0 <= seconds < float("inf"):
                raise ValueError(f"{name} is a time of 0 s or more, got {seconds!r}")
        if not 0 <= self.retry_ratio <= 1:
            raise ValueError(
                f"retry_ratio is a share from 0 to 1, got {self.retry_ratio!r}"
            )
        self.policy()

    @classmethod
    def preset(cls, name: Preset, **changes: Any) -> Self:
        """Start from the rules for a kind of work.

        Args:
            name: ``default``: the defaults. ``web``: somebody waits for the answer,
                so an opening is over within seconds. ``background``: nobody waits,
                and patience is cheap. ``report``: calls of many seconds are usual.
            changes: Fields that differ from it.

        Raises:
            ValueError: There is no preset of that name.
        """
        if name not in PRESETS:
            there_are = ", ".join(PRESETS)
            raise ValueError(f"no preset is called {name!r}; there are {there_are}")
        return cls(**(PRESETS[name] | changes))

    def replace(self, **changes: Any) -> Self:
        """The same rules but for *changes*."""
        return replace(self, **changes)

    def policy(self) -> Policy:
        """The part of it that the state machine goes by."""
        return _policy(self)


@lru_cache(maxsize=256)  # breakers with the same rules share one
def _policy(config: PostgreSQLCircuitBreakerConfig) -> Policy:
    return Policy(
        failure_rate=config.failure_rate,
        slow_rate=config.slow_rate,
        window=config.window,
        minimum_calls=config.minimum_calls,
        failure_threshold=config.failure_threshold,
        success_threshold=config.success_threshold,
        timeout=config.timeout,
        max_timeout=max(config.max_timeout, config.timeout),
        pool_timeout=config.pool_timeout,
        jitter=config.jitter,
        slow_call=config.slow_call,
        trials=config.trials,
        trial_deadline=config.trial_deadline,
        ramp=config.ramp,
    )


# An opening starts at a second, so that a restart of two costs three; and it does not grow
# beyond three, so that of any outage no more than that is added to it. One trial in three
# seconds is nothing to a server that is coming back.
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "web": {
        "failure_threshold": 10,
        "success_threshold": 2,
        "timeout": 1.0,
        "max_timeout": 3.0,
        "trial_deadline": 2.0,
        "ramp": 1.0,
        "max_retry_attempts": 2,
        "base_backoff_delay": 0.05,
        "max_backoff_delay": 0.5,
    },
    "background": {
        "failure_threshold": 10,
        "timeout": 5.0,
        "max_timeout": 60.0,
        "slow_call": 5.0,
        "max_retry_attempts": 5,
        "base_backoff_delay": 0.5,
    },
    "report": {
        "failure_threshold": 3,
        "success_threshold": 1,
        "timeout": 10.0,
        "slow_call": 30.0,
        "window": 120.0,
        "minimum_calls": 5,
        "trial_deadline": 120.0,
        "max_retry_attempts": 1,
    },
}
"""The presets, as what differs from the defaults."""

# What the breaker of a whole server goes by: it hears of nothing but connections, and
# only of their failures one after the other, for no rate of anything is known there.
# Ten in a row come by chance once in years (errors of 10 %, 100 calls a second).
CONNECT: Final = PostgreSQLCircuitBreakerConfig(
    failure_threshold=10,
    success_threshold=1,
    timeout=1.0,
    max_timeout=3.0,
    slow_call=None,
    minimum_calls=NEVER,
    max_retry_attempts=0,
)
