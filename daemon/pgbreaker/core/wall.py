"""Wall time as text."""

import time


def moment(wall: float) -> str:
    """Write wall time as RFC 3339, in UTC with milliseconds; what is less is left out.

    Args:
        wall: In seconds since the epoch.
    """
    # Not by `datetime`: the library would load it for this alone. A float tells a
    # microsecond, no less: 0.3 is to be 300 ms and not 299.
    seconds, rest = divmod(round(wall * 1_000_000) // 1000, 1000)
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z"
