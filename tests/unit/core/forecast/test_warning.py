"""When it is warned, and for how long a warning stands."""

import pytest

from pgbreaker.core.forecast.runway import NOTHING_LEFT, Left
from pgbreaker.core.forecast.warning import KINDS, Standing, is_short

DAY, HOUR = 86_400.0, 3600.0


def left(seconds, seen=DAY):
    return Left(seconds, seconds * 0.9, seconds * 1.1, seen)


@pytest.mark.parametrize("of", ["xid", "multixact", "sequence", "slot", "archiver"])
def test_what_takes_long_is_told_a_week_before(of):
    """It is mended by day. By the rate of the last day, ten days are a week at least."""
    assert is_short(KINDS[of], left(10 * DAY - 1))
    assert not is_short(KINDS[of], left(10 * DAY + 1))


@pytest.mark.parametrize(
    ("seen", "speaks_for"), [(60, 90), (HOUR, 1.5 * HOUR), (DAY / 2, 6 * DAY)]
)
def test_a_trend_is_believed_the_more_the_longer_it_goes_on(seen, speaks_for):
    """A consumer that is slow for an hour comes back mostly; one that has been for half a
    day does not."""
    assert is_short(KINDS["disk"], left(0.99 * speaks_for, seen=seen))
    assert not is_short(KINDS["disk"], left(1.01 * speaks_for, seen=seen))


def test_what_is_used_up_is_short():
    assert is_short(KINDS["xid"], NOTHING_LEFT)


def test_what_cannot_be_told_is_not_short():
    assert not is_short(KINDS["xid"], None)


# Of connections it is judged over minutes, before it gets here.
@pytest.mark.parametrize("of", [of for of, kind in KINDS.items() if kind.holds > 1])
def test_one_odd_sample_warns_nobody(of):
    standing = Standing(KINDS[of])

    looks = [standing.look(float(at), at % 2 == 0) for at in range(100)]

    assert not any(looks)


@pytest.mark.parametrize("of", KINDS)
def test_a_warning_outlasts_its_reason_for_a_while(of):
    kind = KINDS[of]
    standing = Standing(kind)
    for at in range(kind.holds):
        standing.look(float(at), True)
    since = standing.since

    assert standing.look(kind.lingers * 0.5, False)
    assert standing.since == since
    assert not standing.look(kind.lingers + kind.holds, False)
    assert standing.since is None


def test_a_warning_outlasts_the_interval_of_its_probe():
    """A dear one may be asked every four hours: between two looks nothing is over."""
    standing = Standing(KINDS["disk"])
    for look in range(5):
        standing.look(look * 4 * HOUR, True)

    assert standing.lingers(16 * HOUR + 4 * HOUR - 1)
    assert not standing.lingers(16 * HOUR + 12 * HOUR)


def test_what_is_known_to_be_over_does_not_linger():
    standing = Standing(KINDS["disk"])
    standing.look(0.0, True)
    standing.look(1.0, True)
    standing.end()

    assert standing.since is None
    assert not standing.look(2.0, True)
