"""What outlives the process, in one SQLite file: history, decisions, memories, roll-ups.

One thread writes, and answers for what it was given once that is on disk; whoever reads
has a connection of his own. Nothing that a disk can do reaches the daemon as an error:
it goes on, and says what it cannot keep.

    store     what others see
    writer    the thread, its queue, and what it does when the disk does not take it
    file      whose the file is, its version, and what becomes of a broken one
    schema    tables, and the steps between versions
    books     what is written         live      what holds now
    learned   of forecasts            rows      entries as rows
    reading   what is read            rollup    a sink that counts by the minute
    pruning   what goes
"""

from pgbreaker.sinks.store.books import Counts
from pgbreaker.sinks.store.file import InUseError
from pgbreaker.sinks.store.learned import Learned
from pgbreaker.sinks.store.rollup import Rollup
from pgbreaker.sinks.store.rows import Bucket, Failure, Past
from pgbreaker.sinks.store.store import Restored, Store

__all__ = [
    "Bucket",
    "Counts",
    "Failure",
    "InUseError",
    "Learned",
    "Past",
    "Restored",
    "Rollup",
    "Store",
]
