"""How what is foretold becomes metrics."""

from collections.abc import Iterator
from functools import cache
from typing import Final

from pgbreaker.core.forecast.warning import CONNECTIONS, KINDS
from pgbreaker.core.metric import Shown, counter, gauge

ENDS: Final = ("abandoned", "fatal", "killed")
"""How sessions end badly."""

_RUNWAY_SAYS: Final = (
    "Seconds until ids, a sequence, the WAL that a slot may hold back, the disk (by all"
    " that is on it, or by WAL that is not archived), a pool, or the lag that a replica"
    " may have are used up at the present rate, of each kind the soonest; absent while it"
    " cannot be told."
)
_BOUND_SAYS: Final = (
    "Seconds of pgbreaker_runway_seconds by the steepest and by the flattest rate that"
    " the samples allow, nine times of ten; latest is absent where it may be never."
)
_CONNECTIONS_SAYS: Final = (
    "Seconds until every usable connection slot is taken at the present rate; absent"
    " below two fifths of them and while it cannot be told."
)
_CONNECTIONS_BOUND_SAYS: Final = (
    "Seconds of pgbreaker_connection_exhaustion_seconds by the steepest and by the"
    " flattest rate that the samples allow, nine times of ten; latest is absent where it"
    " may be never."
)
_BOUNDS: Final = ("soonest", "latest")


@cache  # asked for with each reading
def runway_of(of: str) -> str:
    """Name of the value that says how long is left of a kind."""
    return (
        "connection_exhaustion_seconds" if of == CONNECTIONS else f"{of}_runway_seconds"
    )


@cache
def bound_of(of: str, bound: str) -> str:
    """Name of the value that says how long it is at the soonest, or at the latest."""
    return f"{runway_of(of).removesuffix('seconds')}{bound}_seconds"


def _runways() -> Iterator[Shown]:
    for kind in KINDS.values():
        if kind.is_runway and kind.of != CONNECTIONS:
            label = {"of": kind.of}
            yield gauge(
                "pgbreaker_runway_seconds",
                _RUNWAY_SAYS,
                runway_of(kind.of),
                labels=label,
            )
            for bound in _BOUNDS:
                yield gauge(
                    "pgbreaker_runway_bound_seconds",
                    _BOUND_SAYS,
                    bound_of(kind.of, bound),
                    labels={**label, "bound": bound},
                )


def _record() -> Iterator[Shown]:
    for kind in KINDS.values():
        label = {"of": kind.of}
        yield gauge(
            "pgbreaker_forecast_warning",
            "1 while it is warned of what is to come; absent while it is not.",
            f"{kind.of}_warning",
            labels=label,
        )
        if kind.is_scored:
            yield gauge(
                "pgbreaker_forecast_precision_ratio",
                "Share of the warnings so far that something came of; absent until one"
                " has been seen to its end.",
                f"{kind.of}_precision",
                labels=label,
            )
            yield gauge(
                "pgbreaker_forecast_recall_ratio",
                "Share of the failures so far that were warned of at least a minute"
                " before; absent until there has been one.",
                f"{kind.of}_recall",
                labels=label,
            )


OUTLOOK: Final[tuple[Shown, ...]] = (
    gauge(
        "pgbreaker_connection_exhaustion_seconds",
        _CONNECTIONS_SAYS,
        runway_of(CONNECTIONS),
    ),
    *(
        gauge(
            "pgbreaker_connection_exhaustion_bound_seconds",
            _CONNECTIONS_BOUND_SAYS,
            bound_of(CONNECTIONS, bound),
            labels={"bound": bound},
        )
        for bound in _BOUNDS
    ),
    *_runways(),
    *_record(),
    gauge(
        "pgbreaker_failure_probability",
        "Probability that a breaker of the target opens within a quarter of an hour, by"
        " what its openings have taught; absent while that is too little.",
        "failure_probability",
    ),
    gauge(
        "pgbreaker_forecast_model_begun_timestamp_seconds",
        "Unix time at which the model of the target's openings began to learn, in seconds;"
        " absent until then.",
        "model_begun",
    ),
    gauge(
        "pgbreaker_forecast_model_learned_timestamp_seconds",
        "Unix time at which the model of the target's openings last learned, in seconds;"
        " absent until it has.",
        "model_learned",
    ),
    gauge(
        "pgbreaker_disk_used_ratio",
        "Share of the configured capacity that data, WAL and temporary files take.",
        "disk_used_ratio",
    ),
    gauge(
        "pgbreaker_statement_mean_seconds_ratio",
        "Mean time of a statement lately, as a multiple of what is usual here.",
        "statement_mean_ratio",
    ),
    *(
        counter(
            "pgbreaker_session_ends_total",
            "Sessions that ended badly, in all databases, since the daemon first saw the"
            " server: abandoned by the client, by a fatal error, or killed by an operator.",
            f"session_ends_{end}",
            labels={"end": end},
        )
        for end in ENDS
    ),
)

COMPUTED: Final = frozenset(
    (
        *(shown.value for shown in OUTLOOK),
        *(f"{of}_soonest" for of in ("sequence", "slot", "pool")),
    )
)
"""Names of all values that follow from what probes saw: who has that, has these."""
