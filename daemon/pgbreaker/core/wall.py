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
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}Z"
