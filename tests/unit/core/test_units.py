"""Numbers as people say them."""

import pytest

from pgbreaker.core.units import lasting, percent


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0.0 ms"),
        (0.0004, "0.4 ms"),
        (0.24, "240 ms"),
        (0.9999, "1.0 s"),
        (3.21, "3.2 s"),
        (59.96, "1 min 0 s"),
        (245, "4 min 5 s"),
        (3 * 3600 + 120, "3 h 2 min"),
        (50 * 3600, "2 d 2 h"),
    ],
)
def test_a_duration_in_the_unit_that_fits(seconds, said):
    assert lasting(seconds) == said


def test_a_share_in_percent():
    assert percent(0.704) == "70 %"
