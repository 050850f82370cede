"""PromQL, and whose series a query means.

The daemon's series carry ``target``, an application's breakers ``breaker`` alone: NAME or
NAME/OPERATION. An application that names its breaker as the daemon names the target is
found with it, and All finds everybody.
"""

from typing import Final

_JOB: Final = 'job=~"$job"'

TARGET: Final = f'{_JOB},target=~"$target"'
"""What the daemon says of the servers chosen."""

WATCHED: Final = f'{TARGET},operation!=""'
"""Of what breakers say, what the daemon's do: All does not mean applications here."""

ANY: Final = f'{_JOB},target=~"$target|"'
"""The same, and what carries no target at all: what the daemon says of itself."""

BREAKER: Final = f'{ANY},breaker=~"$target(/.+)?"'
"""Breakers of the servers chosen: the daemon's and the applications'."""

CHOSEN: Final = f'{BREAKER},breaker=~"$breaker"'
"""The same, on pages where breakers can be chosen."""

APPLICATION: Final = f'{BREAKER},operation=""'
"""Of those the applications': they have no operation, and see real calls."""

EACH: Final = "job, target, operation, breaker"
"""What tells breakers apart; the processes of an application are one."""

NOT_CLOSED: Final = 'state=~"open|half_open"'
CALLED: Final = 'outcome=~"success|failure|cut|rejected"'
IN_RULES: Final = "no calls, or alerts/pgbreaker.rules.yml is not loaded"


def pick(metric: str, where: str, *more: str) -> str:
    """The series of *metric* that all of these match."""
    return f"{metric}{{{','.join((where, *more))}}}"


def rate(metric: str, where: str, *more: str) -> str:
    """How much the counter grows in a second."""
    return f"rate({pick(metric, where, *more)}[$__rate_interval])"


def lately(metric: str, where: str, *more: str) -> str:
    """How much the counter grew about each point of a graph."""
    return f"increase({pick(metric, where, *more)}[$__rate_interval])"


def grown(metric: str, where: str, *more: str) -> str:
    """How much the counter grew in all the time that is shown."""
    return f"increase({pick(metric, where, *more)}[$__range])"


def by(labels: str, expr: str, how: str = "sum") -> str:
    """Put together what has the same *labels*."""
    return f"{how} by ({labels}) ({expr})"


def top(count: int, expr: str) -> str:
    """The *count* largest: of a thousand servers, a line each would say nothing."""
    return f"topk({count}, {expr})"


def worst(count: int, series: str, labels: str | None = None) -> str:
    """The *count* that are highest at any time shown, and these ones all the time.

    Args:
        labels: What tells lines apart. None: what tells the series apart.
    """
    peak = f"max_over_time({series}[$__range] @ end())"
    if labels is None:
        return f"{series} and topk({count}, {peak})"
    chosen = f"topk({count}, {by(labels, peak, 'max')})"
    return f"{by(labels, series, 'max')} and on ({labels}) {chosen}"


def or_zero(expr: str) -> str:
    """Nothing to count is 0, and not a panel without data."""
    return f"({expr}) or vector(0)"


def quantile(share: float, histogram: str, where: str, labels: str) -> str:
    """Below how many seconds *share* of what happened took."""
    buckets = by(f"{labels}, le", rate(f"{histogram}_bucket", where))
    return f"histogram_quantile({share}, {buckets})"


# The higher the number the worse for callers, so that the worst of several is their
# maximum. The panels' words and colours for them are in `panels`.
STATES: Final = (
    "closed",
    "metrics_only",
    "disabled",
    "half_open",
    "forced_open",
    "open",
)


def state(where: str, labels: str = EACH) -> str:
    """The worst state of the breakers with the same *labels*, as a place in `STATES`."""
    return _place("pgbreaker_breaker_state", where, STATES, labels)


# As above; what the daemon cannot say is worse than a server of which it says little good.
CONDITIONS: Final = ("up", "degraded", "unknown", "down")


def condition(where: str, labels: str) -> str:
    """The state of the servers with the same *labels*, as a place in `CONDITIONS`."""
    return _place("pgbreaker_target_state", where, CONDITIONS, labels)


def _place(metric: str, where: str, states: tuple[str, ...], labels: str) -> str:
    # Of every state there is a series of 0 or 1: where the others are 0, it is the first.
    told = (
        f"{place} * " + pick(metric, where, f'state="{state}"')
        for place, state in enumerate(states)
        if place > 0
    )
    return by(labels, " or ".join(told), "max")


def out_of_closed(where: str) -> str:
    """Seconds since each breaker that is not closed left that state."""
    left = pick("pgbreaker_breaker_left_closed_timestamp_seconds", where)
    is_out = pick("pgbreaker_breaker_state", where, NOT_CLOSED)
    same = "job, instance, target, operation, breaker"
    return f"(time() - {left}) and on ({same}) ({is_out} == 1)"


def overdue(where: str) -> str:
    """Seconds that a probe has not run, beyond three of its intervals."""
    ran = pick("pgbreaker_probe_last_run_timestamp_seconds", where)
    interval = pick("pgbreaker_probe_interval_seconds", where)
    return f"(time() - ({ran} > 0)) - 3 * {interval}"
