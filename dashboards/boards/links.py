"""Ways from one dashboard to the next: they keep the time and what was chosen.

Variables go along as ``${var:queryparam}``: written out, All would arrive as the name of a
target called so.
"""

from typing import Final

OVERVIEW: Final = "pgbreaker-overview"
TARGET: Final = "pgbreaker-target"
BREAKERS: Final = "pgbreaker-breakers"
POOLS: Final = "pgbreaker-pools"
SLO: Final = "pgbreaker-slo"
DAEMON: Final = "pgbreaker-daemon"

RUNBOOKS: Final = "https://runbooks.example.org"
"""The address that ``pgbreaker export dashboards`` puts another in the place of."""

_KEPT: Final = "${__url_time_range}&${datasource:queryparam}&${job:queryparam}"


def to(uid: str) -> str:
    """The same servers on another page."""
    return f"/d/{uid}?{_KEPT}&${{target:queryparam}}"


def to_target(name: str) -> str:
    """One server's page.

    Args:
        name: What gives its name, as Grafana fills it in.
    """
    return f"/d/{TARGET}?{_KEPT}&var-target={name}"


def to_breaker(name: str) -> str:
    """What one breaker did."""
    return f"/d/{BREAKERS}?{_KEPT}&var-target=$__all&var-breaker={name}"


SERIES_TARGET: Final = "${__field.labels.target}"
SERIES_BREAKER: Final = "${__field.labels.breaker}"
CELL: Final = "${__value.text}"
CELL_AS_IS: Final = "${__value.raw}"  # where it is shown otherwise
