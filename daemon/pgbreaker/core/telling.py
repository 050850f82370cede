"""What is told of a breaker: in a sentence for people, in a record for programs."""

from typing import TYPE_CHECKING, Any

from pgbreaker.core.policy import NEVER, Policy
from pgbreaker.core.states import Evidence, Override, State
from pgbreaker.core.units import Seconds, lasting, percent

if TYPE_CHECKING:
    from pgbreaker.core.breaker import Breaker
    from pgbreaker.core.merge import Counsel


def explain(breaker: "Breaker", now: Seconds) -> str:
    """Say in one sentence what a breaker does and why."""
    text = _by_itself(breaker, now)
    if breaker.override is None:
        return f"breaker {breaker.name!r} is {text}"
    forced = overridden(breaker.override, now)
    return f"breaker {breaker.name!r} is {forced}; by itself it is {text}"


def _by_itself(breaker: "Breaker", now: Seconds) -> str:
    for_long = f"for {lasting(max(0.0, now - breaker.since))}"
    counts, policy = breaker.counts(now), breaker.policy
    match breaker.computed_state:
        case State.CLOSED:
            return (
                f"closed {for_long}: {counts.failed} of {counts.total} calls failed in"
                f" the last {lasting(policy.window)} ({_opens_at(policy)})"
            )
        case State.OPEN:
            wait = breaker.until - now
            next_trial = f"in {lasting(wait)}" if wait > 0 else "with the next call"
            return f"open {for_long}: {breaker.reason}; next trial {next_trial}"
        case _:
            done = f"{breaker.good_trials} of {policy.success_threshold}"
            return f"half-open {for_long}: {done} trials succeeded"


def _opens_at(policy: Policy) -> str:
    if policy.minimum_calls >= NEVER:
        return f"opens at {policy.failure_threshold} in a row"
    share = percent(policy.failure_rate)
    return f"opens at {share} of at least {policy.minimum_calls}"


def overridden(override: Override, now: Seconds) -> str:
    """Say who put what before a breaker's own state, why, and for how long."""
    ends = (
        ""
        if override.until is None
        else f", for another {lasting(max(0.0, override.until - now))}"
    )
    return f"{override.state.value} by {override.author} ({override.reason}){ends}"


def advised(name: str, counsel: "Counsel", by_itself: str) -> str:
    """Say that calls are refused by advice alone, and what the breaker would do."""
    return f"breaker {name!r} is open, {counsel.because}; by itself: {by_itself}"


def ruled(breaker: "Breaker", state: State, because: str, now: Seconds) -> str:
    """Say what several daemons hold, and what the breaker of this one would do."""
    by_itself = _by_itself(breaker, now)
    return (
        f"breaker {breaker.name!r} is {state.value}: {because}; here it is {by_itself}"
    )


def snapshot(breaker: "Breaker", now: Seconds) -> dict[str, Any]:
    """All that can be said of a breaker now, fit for JSON."""
    counts = breaker.counts(now)
    return {
        "name": breaker.name,
        "state": breaker.state.value,
        "computed_state": breaker.computed_state.value,
        "since_seconds": max(0.0, now - breaker.since),
        "due": breaker.is_due(now),
        "reason": breaker.reason,
        "evidence": _evidence(breaker.evidence),
        "retry_after_seconds": breaker.retry_after(now),
        "override": _override(breaker.override, now),
        "window": {
            "total": counts.total,
            "failed": counts.failed,
            "slow": counts.slow,
            "failure_ratio": counts.failure_ratio,
            "slow_ratio": counts.slow_ratio,
        },
        "in_flight": breaker.in_flight,
        "totals": breaker.totals,
        "round": breaker.round,
        "era": breaker.era,
    }


def _evidence(evidence: Evidence | None) -> dict[str, str | None] | None:
    if evidence is None:
        return None
    return {
        "code": evidence.code,
        "sqlstate": evidence.sqlstate,
        "probe": evidence.probe,
        "text": evidence.text,
    }


def _override(override: Override | None, now: Seconds) -> dict[str, Any] | None:
    if override is None:
        return None
    return {
        "state": override.state.value,
        "reason": override.reason,
        "author": override.author,
        "seconds_left": None
        if override.until is None
        else max(0.0, override.until - now),
    }
