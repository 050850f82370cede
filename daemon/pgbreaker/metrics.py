"""Prometheus: every breaker of the process, and every pool behind one, read when it is
scraped.

The breakers count in plain integers anyway, so that nothing is done for this on the way
of a call. One registry a process: with `prometheus_client`'s multiprocess mode a custom
collector cannot be combined.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pgbreaker.core.metric import Family
from pgbreaker.core.states import MOVES, State
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker, all_breakers
from pgbreaker.guard.follow import Follower, followers
from pgbreaker.guard.gate import BOUNDS
from pgbreaker.guard.pools import Use, uses

_B: Final = ("breaker",)

LIBRARY: Final = {
    family.name: family
    for family in (
        Family(
            "pgbreaker_breaker_state",
            "gauge",
            "1 for the state that callers feel.",
            (*_B, "state"),
        ),
        Family(
            "pgbreaker_breaker_computed_state",
            "gauge",
            "1 for the state that the breaker decided itself, whatever an operator says.",
            (*_B, "state"),
        ),
        Family(
            "pgbreaker_breaker_override",
            "gauge",
            "1 for the state that was put before the breaker's own, else 0.",
            (*_B, "state"),
        ),
        Family(
            "pgbreaker_breaker_transitions_total",
            "counter",
            "Moves of the breaker.",
            (*_B, "from", "to", "cause"),
        ),
        Family(
            "pgbreaker_breaker_state_since_timestamp_seconds",
            "gauge",
            "Unix time of the last move, or of the start, in seconds.",
            _B,
        ),
        Family(
            "pgbreaker_breaker_left_closed_timestamp_seconds",
            "gauge",
            "Unix time at which it last left closed, in seconds; 0 when it never did. A"
            " trial that fails does not change it.",
            _B,
        ),
        Family(
            "pgbreaker_breaker_disagreement",
            "gauge",
            "1 while it stays closed though the daemon that it follows says open.",
            _B,
        ),
        Family(
            "pgbreaker_breaker_failure_ratio",
            "gauge",
            "Share of the window that failed, 0 to 1.",
            _B,
        ),
        Family(
            "pgbreaker_breaker_failure_ratio_threshold",
            "gauge",
            "Share of the window at which it opens, 0 to 1.",
            _B,
        ),
        Family(
            "pgbreaker_slow_call_threshold_seconds",
            "gauge",
            "Time from which a call counts as slow, in seconds; only where one is set.",
            _B,
        ),
        Family(
            "pgbreaker_calls_total",
            "counter",
            "Calls by what they came to; slow ones beside it, and `fallback` and"
            " `stale` for those that were answered otherwise.",
            (*_B, "outcome"),
        ),
        Family(
            "pgbreaker_calls_in_flight",
            "gauge",
            "Calls that have not come back.",
            _B,
        ),
        Family(
            "pgbreaker_call_duration_seconds",
            "histogram",
            "Time from the call to its end, in seconds. It has no sum: below 1 ms"
            " calls are counted, and not timed.",
            _B,
        ),
        Family(
            "pgbreaker_errors_total",
            "counter",
            "Errors met, by their category.",
            (*_B, "category"),
        ),
        Family(
            "pgbreaker_late_results_total",
            "counter",
            "Calls that came back after the breaker had moved, and told nothing.",
            _B,
        ),
        Family(
            "pgbreaker_retries_total",
            "counter",
            "Calls tried again.",
            _B,
        ),
        Family(
            "pgbreaker_retries_denied_total",
            "counter",
            "Retries not made for want of budget; of the server's breakers together.",
            _B,
        ),
        Family(
            "pgbreaker_follower_connected",
            "gauge",
            "1 while a daemon is heard. Here `daemon` is the address of the one that is, or"
            " was last.",
            ("daemon",),
        ),
        Family(
            "pgbreaker_advice_lease_seconds",
            "gauge",
            "Time for which what the daemon said still holds, in seconds; at 0 every"
            " breaker goes by itself.",
            ("daemon",),
        ),
        Family(
            "pgbreaker_pool_connections",
            "gauge",
            "Connections of the application's pools that are open, by whether a caller"
            " has them: used, idle. Here `breaker` is the target.",
            (*_B, "state"),
        ),
        Family(
            "pgbreaker_pool_max_connections",
            "gauge",
            "Connections that the pools can have; only where there is a limit.",
            _B,
        ),
        Family(
            "pgbreaker_pool_waiters",
            "gauge",
            "Callers that wait for a connection to be given back, or to be made.",
            _B,
        ),
    )
}
"""What the library says; the reference in METRICS.md is made of this table."""

_OUTCOMES: Final = (
    *("success", "failure", "slow", "ignored", "unreached"),
    *("cut", "released", "rejected", "fallback", "stale"),
)


def collector() -> "BreakerCollector":
    """A collector over every breaker of the process, for ``registry.register``.

    Breakers whose rules say ``metrics_collection_enabled=False`` are left out, and
    with them the pools of their target.
    """
    return BreakerCollector()


class BreakerCollector(Collector):
    """Tells Prometheus of the breakers and pools that there are when it asks."""

    def describe(self) -> Iterable[Metric]:
        """The families, without asking any breaker."""
        return [_empty(family) for family in LIBRARY.values()]

    def collect(self) -> Iterator[Metric]:
        """Every sample of every breaker and pool, family by family."""
        made = {family.name: _empty(family) for family in LIBRARY.values()}
        shown = [b for b in all_breakers() if b.config.metrics_collection_enabled]
        for breaker in shown:
            _fill(made, breaker)
        targets = {breaker.target for breaker in shown}
        for target, use in uses().items():
            if target in targets:
                _fill_pool(made, target, use)
        # Two may follow one daemon, and one may have been stopped: it is one series.
        # Where one listens is asked once, for it may go elsewhere meanwhile.
        by_where: dict[str, list[Follower]] = {}
        for follower in followers():
            by_where.setdefault(follower.where, []).append(follower)
        for where, some in by_where.items():
            _fill_followers(made, where, some)
        yield from made.values()


def _empty(family: Family) -> Metric:
    kind = {
        "gauge": GaugeMetricFamily,
        "counter": CounterMetricFamily,
        "histogram": HistogramMetricFamily,
    }[family.kind]
    made: Metric = kind(family.name, family.help, labels=family.labels)
    return made


def _fill(made: dict[str, Metric], breaker: PostgreSQLCircuitBreaker) -> None:
    def put(name: str, value: float, *labels: str) -> None:
        made[name].add_metric((breaker.name, *labels), value)  # type: ignore[attr-defined]

    core = breaker.core
    override = core.override
    for state in State:
        put("pgbreaker_breaker_state", state is breaker.state, state.value)
        is_forced = override is not None and override.state is state
        put("pgbreaker_breaker_override", is_forced, state.value)
        if state in (State.CLOSED, State.OPEN, State.HALF_OPEN):
            is_computed = state is core.computed_state
            put("pgbreaker_breaker_computed_state", is_computed, state.value)
    # What has not happened yet is 0 and not missing, or its first increase is lost.
    moves = dict.fromkeys(
        ((before, after, cause) for (before, cause), after in MOVES.items()), 0
    )
    for (before, after, cause), count in (moves | breaker.transitions).items():
        labels = (before.value, after.value, cause.value)
        put("pgbreaker_breaker_transitions_total", count, *labels)
    disagrees = core.disagrees(breaker.clock.now())
    put("pgbreaker_breaker_disagreement", disagrees)
    since = breaker.clock.wall_of(core.since)
    put("pgbreaker_breaker_state_since_timestamp_seconds", since)
    left = breaker.left_closed
    left_closed = 0.0 if left is None else breaker.clock.wall_of(left)
    put("pgbreaker_breaker_left_closed_timestamp_seconds", left_closed)
    put(
        "pgbreaker_breaker_failure_ratio",
        core.counts(breaker.clock.now()).failure_ratio,
    )
    put("pgbreaker_breaker_failure_ratio_threshold", core.policy.failure_rate)
    if core.policy.slow_call is not None:
        put("pgbreaker_slow_call_threshold_seconds", core.policy.slow_call)
    _fill_calls(made, breaker)


def _fill_calls(made: dict[str, Metric], breaker: PostgreSQLCircuitBreaker) -> None:
    def put(name: str, value: float, *labels: str) -> None:
        made[name].add_metric((breaker.name, *labels), value)  # type: ignore[attr-defined]

    totals = breaker.totals
    for outcome in _OUTCOMES:
        put("pgbreaker_calls_total", totals[outcome], outcome)
    for category, count in breaker.errors().items():
        put("pgbreaker_errors_total", count, category.value)
    put("pgbreaker_calls_in_flight", breaker.core.flights.out)
    put("pgbreaker_late_results_total", totals["late"])
    put("pgbreaker_retries_total", totals["retries"])
    put("pgbreaker_retries_denied_total", breaker.budget.denied)
    _fill_durations(made["pgbreaker_call_duration_seconds"], breaker)


def _fill_durations(family: Metric, breaker: PostgreSQLCircuitBreaker) -> None:
    about = {"breaker": breaker.name}
    below = list(accumulate(breaker.durations()))
    names = [*(repr(bound) for bound in BOUNDS), "+Inf"]
    for bound, count in zip(names, below, strict=True):
        family.add_sample(f"{family.name}_bucket", about | {"le": bound}, count)
    family.add_sample(f"{family.name}_count", about, below[-1])


def _fill_followers(made: dict[str, Metric], where: str, some: list[Follower]) -> None:
    for name, value in (
        ("pgbreaker_follower_connected", float(any(f.is_connected for f in some))),
        ("pgbreaker_advice_lease_seconds", max(f.lease for f in some)),
    ):
        made[name].add_metric((where,), value)  # type: ignore[attr-defined]


def _fill_pool(made: dict[str, Metric], target: str, use: Use) -> None:
    def put(name: str, value: float, *labels: str) -> None:
        made[name].add_metric((target, *labels), value)  # type: ignore[attr-defined]

    put("pgbreaker_pool_connections", use.used, "used")
    put("pgbreaker_pool_connections", use.idle, "idle")
    if use.max is not None:
        put("pgbreaker_pool_max_connections", use.max)
    put("pgbreaker_pool_waiters", use.waiters)
