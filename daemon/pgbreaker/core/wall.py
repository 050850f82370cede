"""Wall time as text."""

from datetime import UTC, datetime


def moment(wall: float) -> str:
    """Write wall time as RFC 3339, in UTC with milliseconds.

    Args:
        wall: In seconds since the epoch.
    """
    when = datetime.fromtimestamp(wall, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
