"""Reading changes nothing: nobody trips a breaker by looking at it (promise 10)."""

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from support.reads import Reads

SEQUENCES = 150
"""Of the 10,000 of tests/bench/reads.py."""


def test_reads_never_change_what_a_daemon_does():
    run_state_machine_as_test(
        Reads,
        settings=settings(
            max_examples=SEQUENCES, stateful_step_count=20, deadline=None, database=None
        ),
    )
