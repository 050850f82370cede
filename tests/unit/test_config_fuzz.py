"""A few of the wrong configurations of `tests/bench/fuzz_config.py`, and the worst ones."""

import time

import pytest

from bench.fuzz_config import LINE, SLOWEST, WORST, Tally, build, mutate, verify
from pgbreaker.config import parse
from pgbreaker.errors import ConfigError


def test_changed_and_built_configurations_are_told_or_the_same_when_written():
    tally = Tally()

    mutate(200, tally, seed=7)
    build(75, tally, seed=0)

    assert tally.failures == {}, tally.example
    assert tally.told > 50
    assert tally.taken > 25


def told(raw: bytes) -> tuple[str, ...]:
    try:
        parse(raw, "x.yml", env={})
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize("name", WORST)
def test_the_worst_is_told_within_a_second(name):
    raw = WORST[name].encode("utf-8", "surrogatepass")
    began = time.process_time()

    problems = told(raw)

    took = time.process_time() - began
    assert 1 <= len(problems) <= 201
    assert all(map(LINE.match, problems))
    assert max(map(len, problems)) < 1000
    assert took < SLOWEST * 3  # on a machine that does more


def test_what_is_verified_can_fail():
    tally = Tally()

    verify(b"version: 1\ntargets: [{name: hunter2, dsn: 'postgresql://h/a'}]\n", tally)

    assert tally.failures == {"a password is shown": 1}
