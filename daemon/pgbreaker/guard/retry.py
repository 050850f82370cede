"""Whether and when a failed call is tried again.

Only what is safe: a call that never reached the server, or that the server is known to
have rolled back when the caller can do the whole of it again. A refusal is never
retried: waiting for a breaker is what the breaker is there to prevent.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.units import Seconds, seconds_of
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.events import Retry as Retried
from pgbreaker.guard.events import flush, note
from pgbreaker.guard.outcomes import Judgement
from pgbreaker.postgres.sqlstates import Retry as Safety

ONLY_UNREACHED: Final = frozenset((Safety.ALWAYS,))
"""What may be repeated whatever the call does: the server has done nothing."""

WHOLE_TRANSACTION: Final = frozenset((Safety.ALWAYS, Safety.TRANSACTION))
"""What may be repeated when the call is one transaction, from its beginning."""

IDEMPOTENT: Final = frozenset(
    (Safety.ALWAYS, Safety.TRANSACTION, Safety.IDEMPOTENT),
)
"""What may be repeated when doing it twice is like doing it once."""


@dataclass(slots=True, eq=False)
class Retrying:
    """The rules by which calls of one breaker are tried again.

    Attributes:
        attempts: Retries of one call at the most.
        base: Seconds that the first wait is drawn from; doubled for each further one.
        longest: Seconds that no wait exceeds.
        safe: What may be repeated.
        deadline: Seconds from the first attempt after which no retry begins. None:
            no such limit.
        draw: Random number from 0 to 1.
    """

    attempts: int
    base: Seconds
    longest: Seconds
    safe: frozenset[Safety] = ONLY_UNREACHED
    deadline: Seconds | None = None
    draw: Callable[[], float] = random.random

    def wait(
        self,
        breaker: PostgreSQLCircuitBreaker,
        judgement: Judgement,
        number: int,
        begun: Seconds,
    ) -> Seconds | None:
        """Decide on retry *number* (1 is the first) of a call begun at *begun*.

        Returns:
            Seconds to wait before it; None when there is to be none.
        """
        found = judgement.classification
        if found is None or found.retry not in self.safe or number > self.attempts:
            return None  # an error that does not invite it
        if not breaker.passes:
            return None  # it would only be refused, after a wait
        # Full jitter: the wait is drawn from nothing to the whole, so that those who
        # failed together do not come back together.
        # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        ceiling = min(self.longest, self.base * 2.0 ** min(number - 1, 60))
        wait = ceiling * self.draw()
        now = breaker.clock.now()
        if self.deadline is not None and now + wait - begun > self.deadline:
            return None
        if not breaker.budget.spend(breaker.calls(), now):
            return None
        breaker.retries += 1
        event = Retried(breaker.name, number, wait, found.reason, now)
        note(event, detailed=breaker.config.enable_detailed_logging)
        flush()
        return wait


def retrying(
    config: PostgreSQLCircuitBreakerConfig,
    deadline: Seconds | str | None = None,
    *,
    idempotent: bool = False,
) -> Retrying | None:
    """The retries that a breaker's rules ask for, None when they ask for none."""
    if not config.max_retry_attempts:
        return None
    return Retrying(
        config.max_retry_attempts,
        config.base_backoff_delay,
        config.max_backoff_delay,
        IDEMPOTENT if idempotent else ONLY_UNREACHED,
        None if deadline is None else seconds_of(deadline, "deadline"),
    )
