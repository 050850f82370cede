"""When a closed breaker opens: from counts to a cause, and a sentence with its numbers.

Pure: each rule is given what was counted, and says None when it has nothing against it.
"""

from typing import Final, TypeAlias

from pgbreaker.core.policy import Policy
from pgbreaker.core.states import Cause
from pgbreaker.core.units import Seconds, Share, lasting, percent
from pgbreaker.core.window import Counts

Charge: TypeAlias = tuple[Cause, str]
"""What a rule has against a breaker staying closed: the cause, and why."""

# Silence means something when ten calls would have come back in the meantime: left to
# chance, that happens once in 22,000 times.
_GAPS: Final = 10
_HANGING: Final = 5  # calls overdue that are enough, however patient the rules are


def failure_run(run: int, policy: Policy) -> Charge | None:
    """Too many failures in a row."""
    threshold = policy.failure_threshold
    if threshold is None or run < threshold:
        return None
    return Cause.FAILURE_RUN, f"{run} failures in a row"


def failure_rate(counts: Counts, policy: Policy) -> Charge | None:
    """Too large a share of the window failed."""
    limit = policy.failure_rate
    if counts.total < policy.minimum_calls or counts.failure_ratio < limit:
        return None
    return Cause.FAILURE_RATE, _share("failed", counts.failed, counts, policy, limit)


def slow_rate(counts: Counts, policy: Policy, overdue: int = 0) -> Charge | None:
    """Too large a share of the window was slow.

    Args:
        overdue: Calls that have not come back and are as good as slow.
    """
    limit = policy.slow_rate
    seen = Counts(counts.total + overdue, counts.failed, counts.slow + overdue)
    if limit is None or seen.total < policy.minimum_calls or seen.slow_ratio < limit:
        return None
    what = "were slow or are overdue" if overdue else "were slow"
    return Cause.SLOW_RATE, _share(what, seen.slow, seen, policy, limit)


def hanging(
    counts: Counts, policy: Policy, overdue: int, silence: Seconds, span: Seconds
) -> Charge | None:
    """Calls used to come back, and now several are overdue while none does.

    An operation whose calls are long anyway is not hanging: its successes are far
    apart, so the silence has to last the longer.

    Args:
        overdue: Calls that have been out for `Policy.slow_call` or longer.
        silence: Seconds since the last call came back.
        span: Seconds that the counts are of; less than a window after a start.
    """
    enough = min(policy.failure_threshold or policy.minimum_calls, _HANGING)
    good = counts.total - counts.failed
    if policy.slow_call is None or overdue < enough or good < enough:
        return None
    if silence < max(policy.slow_call, _GAPS * span / good):
        return None
    return Cause.HANGING, (
        f"{overdue} calls have been out for over {lasting(policy.slow_call)},"
        f" and none came back in the last {lasting(silence)}"
    )


def pool_exhausted(starved: int, policy: Policy) -> Charge | None:
    """The caller's own pool has had no connection for too many calls in a row."""
    threshold = policy.failure_threshold
    if threshold is None or starved < threshold:
        return None
    return Cause.POOL_EXHAUSTED, (
        f"{starved} calls in a row got no connection from the caller's own pool;"
        " the server was not asked"
    )


def _share(what: str, part: int, counts: Counts, policy: Policy, limit: Share) -> str:
    return (
        f"{part} of {counts.total} calls {what} in the last {lasting(policy.window)}"
        f" ({percent(part / counts.total)}, limit {percent(limit)})"
    )
