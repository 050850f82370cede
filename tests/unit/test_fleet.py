"""What `tests/bench/fleet.py` shows of ten thousand targets, on a few: it always holds."""

import pytest

from support.fleets import SCENARIOS, Fleet, begun, play


@pytest.mark.parametrize("watchers", [1, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_opens_without_cause_nothing_is_lost_and_all_comes_to_rest(
    scenario, watchers
):
    """Callers are told of no opening that no server has given cause for, every history
    gets every move, and in the end each target is watched by those who shall.
    """
    fleet = begun(Fleet(20, 3, 60, watchers=watchers, all_of_it=10_000, timed=False))

    outcome = play(fleet, SCENARIOS[scenario])

    assert fleet.is_calm
    assert (outcome.tally.false_open, outcome.tally.false_healthy) == (0, 0)
    assert outcome.lost == 0
    assert sum(daemon.followers for daemon in fleet.daemons) == 60
    # A lease, a beat, and the first ping of whoever takes it over.
    assert outcome.tally.unwatched <= 3.5


def test_the_same_seed_brings_the_same():
    """Figures can be compared, from one version to the next."""
    told = []
    for _ in range(2):
        fleet = begun(Fleet(20, 3, 60, seed=7, timed=False))
        outcome = play(fleet, SCENARIOS["a daemon dies"])
        told.append((outcome, dict(fleet.engine.by), fleet.engine.flow.bytes))

    assert told[0] == told[1]
