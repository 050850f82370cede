"""What a user says about a breaker, and what we say back."""

import pickle
from dataclasses import FrozenInstanceError, fields

import pytest

from pgbreaker import PostgreSQLCircuitBreaker, PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.config import CONNECT, PRESETS
from unit.guard.driving import make

Config = PostgreSQLCircuitBreakerConfig

SEVEN = {
    "failure_threshold": 5,
    "success_threshold": 3,
    "timeout": 60.0,
    "max_retry_attempts": 3,
    "base_backoff_delay": 1.0,
    "enable_detailed_logging": True,
    "metrics_collection_enabled": True,
}


def test_the_seven_names_and_their_defaults_are_fixed():
    """Programs are written against them."""
    config = Config()

    assert {name: getattr(config, name) for name in SEVEN} == SEVEN
    assert [field.name for field in fields(Config)][:7] == list(SEVEN)
    assert Config(**SEVEN) == config


def test_a_breaker_goes_by_the_defaults_where_nothing_is_said():
    assert PostgreSQLCircuitBreaker("orders").config == Config()


def test_it_cannot_be_changed_but_replaced():
    config = Config()

    with pytest.raises(FrozenInstanceError):
        config.timeout = 1.0
    assert config.replace(timeout=1.0) == Config(timeout=1.0)
    assert config.timeout == 60.0


def test_it_can_be_compared_and_pickled():
    assert pickle.loads(pickle.dumps(Config(timeout=1.0))) == Config(timeout=1.0)
    assert len({Config(), Config(), Config(timeout=1.0)}) == 2


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"failure_threshold": 0},
            "failure_threshold is a count of 1 or more, got 0",
        ),
        (
            {"success_threshold": 0},
            "success_threshold is a count of 1 or more, got 0",
        ),
        ({"timeout": 0}, "timeout is a time above 0 s, got 0"),
        ({"timeout": float("inf")}, "timeout is a time above 0 s, got inf"),
        ({"timeout": float("nan")}, "timeout is a time above 0 s, got nan"),
        (
            {"max_retry_attempts": -1},
            "max_retry_attempts is a count of 0 or more, got -1",
        ),
        (
            {"base_backoff_delay": -1},
            "base_backoff_delay is a time of 0 s or more, got -1",
        ),
        (
            {"max_backoff_delay": float("inf")},
            "max_backoff_delay is a time of 0 s or more, got inf",
        ),
        (
            {"failure_rate": 50},
            "failure_rate is a share above 0 and up to 1, got 50 (70 % is 0.7)",
        ),
        (
            {"failure_rate": 0},
            "failure_rate is a share above 0 and up to 1, got 0 (70 % is 0.7)",
        ),
        (
            {"slow_rate": 1.1},
            "slow_rate is a share above 0 and up to 1, got 1.1 (70 % is 0.7)",
        ),
        ({"slow_call": 0}, "slow_call is a time above 0 s, got 0"),
        ({"minimum_calls": 0}, "minimum_calls is a count of 1 or more, got 0"),
        ({"window": -1}, "window is a time above 0 s, got -1"),
        ({"pool_timeout": 0}, "pool_timeout is a time above 0 s, got 0"),
        ({"jitter": 2}, "jitter is a share from 0 to 1, got 2"),
        ({"trials": 0}, "trials is a count of 1 or more, got 0"),
        ({"trial_deadline": 0}, "trial_deadline is a time above 0 s, got 0"),
        ({"ramp": -1}, "ramp is a time of 0 s or more, got -1"),
        ({"retry_ratio": 1.5}, "retry_ratio is a share from 0 to 1, got 1.5"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_with_the_value_and_what_would_do(rules, message):
    with pytest.raises(ValueError, match=r".") as caught:
        Config(**rules)

    assert str(caught.value) == message


def test_a_name_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match="failure_treshold"):
        Config(failure_treshold=3)


@pytest.mark.parametrize(
    "rules",
    [
        {"failure_threshold": None},
        {"slow_call": None},
        {"slow_rate": None},
        {"trial_deadline": None},
        {"max_retry_attempts": 0},
        {"base_backoff_delay": 0},
        {"ramp": 0},
        {"retry_ratio": 0},
        {"timeout": 600.0},  # beyond max_timeout, which then is as long
    ],
    ids=str,
)
def test_what_can_be_switched_off_or_pushed_far_can(rules, time):
    breaker = make(time, **rules)

    with breaker:
        pass

    assert breaker.core.totals["success"] == 1


def test_the_policy_is_what_the_config_says():
    config = Config(
        failure_threshold=7,
        success_threshold=2,
        timeout=5.0,
        failure_rate=0.25,
        slow_rate=0.75,
        slow_call=0.125,
        minimum_calls=9,
        window=20.0,
        max_timeout=50.0,
        pool_timeout=2.0,
        jitter=0.5,
        trials=4,
        trial_deadline=3.0,
        ramp=6.0,
    )

    policy = config.policy()

    for field in fields(Config):
        if hasattr(policy, field.name):
            assert getattr(policy, field.name) == getattr(config, field.name)


# Presets.


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_breaker(name, time):
    breaker = PostgreSQLCircuitBreaker("orders", Config.preset(name), clock=time.clock)

    with breaker:
        pass

    assert breaker.core.totals["success"] == 1


def test_the_default_preset_is_the_default():
    assert Config.preset("default") == Config()


def test_a_preset_can_be_changed():
    config = Config.preset("web", timeout=2.0)

    assert config.timeout == 2.0
    assert config.failure_threshold == Config.preset("web").failure_threshold


def test_where_somebody_waits_an_opening_is_over_within_seconds():
    web = Config.preset("web")

    assert web.timeout <= 2.0
    assert web.max_timeout <= 15.0


@pytest.mark.parametrize("name", PRESETS)
def test_the_window_of_a_preset_is_longer_than_what_it_calls_slow(name):
    """Else overdue calls are counted into a window that is over (lesson 8)."""
    config = Config.preset(name)

    assert config.window >= config.slow_call
    assert config.policy().lease >= config.slow_call


def test_a_preset_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="preset") as caught:
        Config.preset("wep")

    assert str(caught.value) == (
        "no preset is called 'wep'; there are default, web, background, report"
    )


def test_the_breaker_of_the_whole_server_knows_no_rates_and_no_retries():
    assert CONNECT.slow_call is None
    assert CONNECT.slow_rate is None
    assert CONNECT.max_retry_attempts == 0
