"""What the answer to the replication probe is read as, without a server."""

import pytest

from pgbreaker.core.reading import Finding
from pgbreaker.probes.replication import REPLICATION, sync_wanted

REPLICA = {
    "is_replica": True,
    "sync_names": "",
    "hidden": 0,
    "sync_present": 0,
    "standbys": None,
    "has_receiver": True,
    "receiver_status": "streaming",
    "receiver_silence": 0.2,
    "receiver_timeout": 60,
    "receiver_wanted": True,
    "behind": 0,
    "commit_age": 7200.0,
    "is_paused": False,
}


def seen(**columns):
    return REPLICATION.reads([{**REPLICA, **columns}])


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("", 0),
        ("  ", 0),
        ("*", 1),
        ("a", 1),
        ("a, b, c", 1),
        ('"2 (x)", b', 1),
        ("2, b", 1),  # a standby may be called that
        ("2 (a, b, c)", 2),
        ("2(a,b,c)", 2),
        ("FIRST 3 (a, b, c)", 3),
        ("first 1 (*)", 1),
        ("  ANY\t2 (a, b)", 2),
        ("any 12 ( a,b )", 12),
        ('"any" , b', 1),
        ("any2, b", 1),
    ],
)
def test_how_many_synchronous_standbys_are_wanted(names, wanted):
    assert sync_wanted(names) == wanted


def test_who_has_replayed_what_there_is_is_not_old():
    assert seen()["replay_age_seconds"] == 0


def test_who_has_not_is_as_old_as_the_last_commit():
    assert seen(behind=100, commit_age=3.0)["replay_age_seconds"] == 3.0


def test_a_clock_that_is_behind_makes_nobody_younger_than_now():
    assert seen(behind=100, commit_age=-0.5)["replay_age_seconds"] == 0


def test_nothing_replayed_yet_is_of_unknown_age():
    assert seen(behind=100, commit_age=None)["replay_age_seconds"] is None


@pytest.mark.parametrize(
    "receiver",
    [
        {"has_receiver": False, "receiver_status": None},
        {"receiver_status": "starting"},
        {"receiver_status": "waiting"},
    ],
)
def test_who_hears_no_primary_does_not_know_how_old_it_is(receiver):
    without = seen(**receiver)

    assert without["wal_receiver_up"] == 0
    assert without["replay_age_seconds"] is None
    assert REPLICATION.weighs(without, 0.01, 30.0) is not None


@pytest.mark.parametrize(
    ("timeout", "silence", "age"),
    [
        (60, 34.0, 0.0),  # an idle primary is asked for a sign after 30 s
        (60, 36.0, 36.0),  # and gave none: the line is dead, whatever the status says
        (10, 9.0, 0.0),
        (10, 11.0, 11.0),
        (0, 34.0, 0.0),
        (0, 3600.0, 3600.0),
    ],
)
def test_a_silent_primary_is_one_that_nothing_new_comes_from(timeout, silence, age):
    """Frozen or behind a dead line, it leaves its receiver streaming for a minute."""
    silent = seen(receiver_timeout=timeout, receiver_silence=silence)

    assert silent["replay_age_seconds"] == age


def test_a_replica_without_receiver_by_choice_is_not_bad():
    by_archive = seen(has_receiver=False, receiver_status=None, receiver_wanted=False)

    assert REPLICATION.weighs(by_archive, 0.01, 30.0) is None


def test_who_may_not_know_whether_a_receiver_is_wanted_takes_it_for_missing():
    unknown = seen(has_receiver=False, receiver_status=None, receiver_wanted=None)

    assert REPLICATION.weighs(unknown, 0.01, 30.0) is not None


def test_beyond_the_limit_it_says_by_how_much():
    late = seen(behind=100, commit_age=45.0)

    assert REPLICATION.weighs(late, 0.01, 45.0) is None
    assert REPLICATION.weighs(late, 0.01, 30.0) == (
        "replays 45.0 s behind its primary (limit 30.0 s)"
    )
    assert REPLICATION.beyond is Finding.LAGGING


def test_a_primary_is_never_behind():
    primary = seen(is_replica=False, has_receiver=False, sync_names="FIRST 2 (a, b)")

    assert primary == {"standbys": (), "sync_wanted": 2, "sync_present": 0}
    assert REPLICATION.weighs(primary, 0.01, 0.001) is None


def test_senders_that_are_hidden_may_be_the_ones_that_are_wanted():
    assert seen(is_replica=False, hidden=1)["sync_present"] is None


def test_no_rows_are_nothing():
    assert REPLICATION.reads([]) == {}
