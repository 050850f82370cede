"""The ballot: what several daemons think of one breaker, counted."""

import itertools

import pytest

from pgbreaker.core.advice import Opinion
from pgbreaker.core.ballot import count
from support.peering import view

OPEN, HEALTHY, UNKNOWN = Opinion.OPEN, Opinion.HEALTHY, Opinion.UNKNOWN


def counted(*opinions: Opinion, voters: int | None = None, silent: int = 0, of: int):
    """The ballot of daemons a, b, c ... that think so, with a quorum *of* so many."""
    views = {
        name: view("main/read", opinion)
        for name, opinion in zip("abcdefg", opinions, strict=False)
    }
    return count(views, len(opinions) if voters is None else voters, silent, of)


@pytest.mark.parametrize(
    ("ballot", "opinion"),
    [
        (counted(OPEN, of=1), OPEN),
        (counted(HEALTHY, of=1), HEALTHY),
        (counted(OPEN, HEALTHY, of=2), HEALTHY),
        (counted(OPEN, OPEN, HEALTHY, of=2), OPEN),
        (counted(OPEN, HEALTHY, HEALTHY, of=2), HEALTHY),
        # Too few see it open, and the others have not said.
        (counted(OPEN, UNKNOWN, of=2), UNKNOWN),
        (counted(OPEN, voters=2, of=2), UNKNOWN),
        # Who has not been able to look for long is not waited for.
        (counted(OPEN, UNKNOWN, silent=1, of=2), OPEN),
        (counted(OPEN, HEALTHY, UNKNOWN, silent=1, of=2), HEALTHY),
        (counted(OPEN, OPEN, UNKNOWN, silent=1, of=3), OPEN),
        # Fewer watch than the quorum asks for: all of those that do.
        (counted(OPEN, of=3), OPEN),
        (counted(OPEN, OPEN, of=3), OPEN),
        (counted(OPEN, HEALTHY, of=3), HEALTHY),
        # Nobody has looked.
        (counted(of=1), UNKNOWN),
        (counted(UNKNOWN, UNKNOWN, silent=2, of=2), UNKNOWN),
    ],
)
def test_it_is_open_when_enough_of_those_who_could_look_say_so(ballot, opinion):
    assert ballot.opinion is opinion


def test_every_ballot_of_up_to_four_follows_the_rule():
    for size in range(5):
        for opinions in itertools.product(Opinion, repeat=size):
            for quorum, silent in itertools.product((1, 2, 3), range(size + 1)):
                ballot = counted(*opinions, silent=silent, of=quorum)

                opens, wells = opinions.count(OPEN), opinions.count(HEALTHY)
                need = max(1, min(quorum, size - silent))
                assert ballot.need == need
                assert (ballot.opinion is OPEN) == (opens >= need)
                assert (ballot.opinion is HEALTHY) == (wells > 0 and opens < need)
                assert len(ballot.opens) == opens
                assert len(ballot.views) == opens + wells
                assert ballot.passes == (UNKNOWN in opinions)


def test_one_that_is_cut_off_opens_nothing_while_the_others_look():
    for quorum in (2, 3):
        for others in itertools.product((HEALTHY, UNKNOWN), repeat=2):
            ballot = counted(OPEN, *others, silent=others.count(UNKNOWN), of=quorum)

            assert HEALTHY not in others or ballot.opinion is not OPEN


def test_the_minority_is_named():
    assert counted(OPEN, HEALTHY, HEALTHY, of=2).minority == ("a",)
    assert counted(OPEN, HEALTHY, OPEN, of=2).minority == ("b",)
    assert counted(HEALTHY, HEALTHY, of=2).minority == ()


def test_the_first_choice_speaks_for_those_who_think_so():
    ballot = counted(HEALTHY, OPEN, OPEN, of=2)

    assert ballot.speaker is ballot.views["b"]
    assert counted(OPEN, voters=2, of=2).speaker is None


def test_what_somebody_may_yet_say_passes():
    assert counted(OPEN, voters=2, of=1).passes
    assert not counted(OPEN, OPEN, of=2).passes


def test_more_than_shall_watch_are_counted_while_a_target_changes_hands():
    ballot = counted(HEALTHY, HEALTHY, voters=1, of=1)

    assert ballot.voters == 2


def test_it_says_how_it_came_out():
    assert counted(OPEN, of=1).told() == "1 of 1 daemons see it open"
    assert counted(OPEN, HEALTHY, of=2).told() == (
        "1 of 2 daemons see it open (2 needed)"
    )
