"""The recording: every reading and every move, a line each.

It is what `pgbreaker simulate` and `pgbreaker backtest` replay. It holds what is shown
anyway, and no secret: neither addresses nor who asks there, neither passwords nor queries.

`writing` and `reading` know the lines, `shelf` the files, `discreet` what must not be in
them.
"""

from pgbreaker.sinks.record.reading import read, read_all
from pgbreaker.sinks.record.recorder import Recorder, recording
from pgbreaker.sinks.record.told import (
    SCHEMA,
    Asked,
    Begun,
    Heard,
    Recorded,
    RecordingError,
    Rules,
    Unread,
)

__all__ = [
    "SCHEMA",
    "Asked",
    "Begun",
    "Heard",
    "Recorded",
    "Recorder",
    "RecordingError",
    "Rules",
    "Unread",
    "read",
    "read_all",
    "recording",
]
