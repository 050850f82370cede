"""Rules that make no sense are refused, with the value and what helps."""

import pytest

from pgbreaker.core.policy import DAEMON, Policy


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"failure_rate": 70},
            "failure_rate is a share above 0 and up to 1, got 70 (70 % is 0.7)",
        ),
        (
            {"slow_rate": 0},
            "slow_rate is a share above 0 and up to 1, got 0 (70 % is 0.7)",
        ),
        ({"jitter": 2.0}, "jitter is a share from 0 to 1, got 2.0"),
        ({"window": 0.0}, "window is a time above 0 s, got 0.0"),
        ({"timeout": float("nan")}, "timeout is a time above 0 s, got nan"),
        ({"timeout": float("inf")}, "timeout is a time above 0 s, got inf"),
        ({"slow_call": -1.0}, "slow_call is a time above 0 s, got -1.0"),
        ({"ramp": -1.0}, "ramp is a time of 0 s or more, got -1.0"),
        ({"minimum_calls": 0}, "minimum_calls is a count of 1 or more, got 0"),
        ({"failure_threshold": 0}, "failure_threshold is a count of 1 or more, got 0"),
        (
            {"timeout": 60.0, "max_timeout": 30.0},
            "max_timeout (30 s) is shorter than timeout (60 s)",
        ),
    ],
)
def test_each_bad_rule_has_its_message(rules, message):
    with pytest.raises(ValueError, match=r".") as caught:
        Policy(**rules)

    assert str(caught.value) == message


def test_the_defaults_are_the_documented_ones():
    library = Policy()

    assert (library.failure_threshold, library.success_threshold, library.timeout) == (
        5,
        3,
        60.0,
    )
    assert (DAEMON.failure_threshold, DAEMON.success_threshold) == (3, 2)
    assert (DAEMON.timeout, DAEMON.max_timeout, DAEMON.slow_call) == (1.0, 60.0, 0.25)


def test_a_trial_has_twice_the_time_of_a_slow_call_but_at_least_ten_seconds():
    assert Policy().lease == 10.0
    assert Policy(slow_call=8.0).lease == 16.0
    assert Policy(slow_call=8.0, trial_deadline=3.0).lease == 3.0
