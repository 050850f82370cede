"""A soak in small: every fault once, by a virtual clock. `make soak` has the days."""

import asyncio
import logging

from support.soaking import FAULTS, Soak
from support.virtual import VirtualLoop

MINUTES = 20


def test_twenty_minutes_of_every_fault_leaves_nothing_behind(tmp_path, caplog):
    """
    The whole daemon, its store on a disk, against simulated servers: what each fault
    should open opens and closes again, nothing else does, no exception is left
    uncaught, no series goes, and what is open and what runs at rest is the same after
    all of them as it was after half.
    """
    caplog.set_level(logging.WARNING)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        soak = Soak(loop, tmp_path, targets=4)
        runner.run(soak.run(MINUTES * 60.0, every=480.0))

    seen = soak.seen
    assert seen.wrong == []
    assert seen.faults.keys() == {fault.name for fault in FAULTS}
    assert seen.openings > len(FAULTS)
    assert seen.readings > 4 * MINUTES * 60 * 2
    first, last = seen.rests[0], seen.rests[-1]
    assert last.tasks == first.tasks
    # The store is read by two threads at most, which come when they are needed; and
    # SQLite keeps what one opened for the next.
    assert last.threads - first.threads in (0, 1, 2)
    assert last.files - first.files in (0, 1, 2)
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors] == []
