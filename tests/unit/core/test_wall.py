"""Wall time as text: daemon and library write the same moment alike."""

from datetime import UTC, datetime
from random import Random

import pytest

from pgbreaker.core.wall import moment


@pytest.mark.parametrize(
    ("wall", "said"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (0.3, "1970-01-01T00:00:00.300Z"),
        (-59_073_314_094.2457, "0098-01-15T02:05:05.754Z"),
        (1_800_000_000.9996, "2027-01-15T08:00:00.999Z"),
        (1_800_000_000.9999996, "2027-01-15T08:00:01.000Z"),
    ],
)
def test_a_moment_is_cut_to_milliseconds(wall, said):
    assert moment(wall) == said


def test_a_moment_is_what_a_calendar_says():
    luck = Random(7)
    for _ in range(2000):
        wall = luck.uniform(0, 4_000_000_000)  # until 2096

        when = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
        assert moment(wall) == when.replace("+00:00", "Z")
