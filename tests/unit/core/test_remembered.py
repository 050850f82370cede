"""Reading what was remembered: what is no number of JSON does not get in."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbreaker.core.remembered import (
    number,
    number_or_none,
    numbers,
    part,
    reading,
    several,
    short,
    text,
    whole,
    wholes,
)


@pytest.mark.parametrize("wrong", [None, True, "1", [1], {}], ids=repr)
@pytest.mark.parametrize("read", [whole, number])
def test_what_is_no_number_is_refused(read, wrong):
    with pytest.raises(TypeError, match=r"^age .* is no"):
        read(wrong, "age")


@pytest.mark.parametrize(
    "wrong", [math.nan, math.inf, -math.inf, 10**400, -(10**400), -0.1, 7.1, 8], ids=str
)
def test_what_is_out_of_range_is_refused(wrong):
    for read in (number, number_or_none):
        with pytest.raises(ValueError, match=r"^age .* is out of range$"):
            read(wrong, "age", 0.0, 7.0)
    with pytest.raises(ValueError, match=r"^ages .* is out of range$"):
        numbers([1, wrong], "ages", None, 0.0, 7.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 10**400], ids=str)
def test_a_number_without_bounds_is_finite(wrong):
    with pytest.raises(ValueError, match="out of range"):
        number(wrong, "age")


@pytest.mark.parametrize("wrong", [-1, 2**63 + 1])
def test_a_whole_number_without_bounds_is_a_count(wrong):
    with pytest.raises(ValueError, match="out of range"):
        whole(wrong, "run")


def test_a_whole_number_has_no_point():
    with pytest.raises(TypeError, match=r"^run 1\.0 is no whole number$"):
        whole(1.0, "run")


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_what_json_says_is_read(value):
    told = json.loads(json.dumps(value))

    assert number(told, "age", told, told) == value
    assert numbers([told, told], "ages", 2) == [value, value]
    assert number_or_none(told, "age") == value


def test_there_may_be_none():
    assert number_or_none(None, "age", 1.0) is None


def test_the_bounds_themselves_are_in_range():
    assert wholes([-2, 0, 5], "steps", 3, -2, 5) == [-2, 0, 5]


@pytest.mark.parametrize("wrong", [None, "ab", {"a": 1, "b": 2}, (1, 2), 2], ids=repr)
def test_what_is_no_list_is_refused(wrong):
    with pytest.raises(TypeError, match=r"^pair .* is no list$"):
        several(wrong, "pair", 2)


@pytest.mark.parametrize("read", [several, numbers])
@pytest.mark.parametrize("wrong", [[], [1], [1, 2, 3]], ids=str)
def test_a_list_of_another_length_is_refused(read, wrong):
    with pytest.raises(ValueError, match=rf"^pair has {len(wrong)} parts, not 2$"):
        read(wrong, "pair", 2)


def test_a_part_is_one_with_names():
    assert part({"odds": {"bias": 1}}, "odds") == {"bias": 1}

    with pytest.raises(TypeError, match=r"^odds 3 has no parts$"):
        part({"odds": 3}, "odds")


def test_a_text_is_one():
    assert text("", "reason") == ""

    with pytest.raises(TypeError, match=r"^reason None is no text$"):
        text(None, "reason")


@reading("memory of odds")
def read_bias(memory):
    return 1 / number(memory["bias"], "bias", 0.0)


@pytest.mark.parametrize(
    ("memory", "says"),
    [
        ({}, "'bias' is missing"),
        ({"bias": "x"}, "bias 'x' is no number"),
        ({"bias": -1}, "bias -1 is out of range"),
        ({"bias": 0}, "float division by zero"),
        ([], "list indices must be integers or slices, not str"),
        (None, "'NoneType' object is not subscriptable"),
    ],
    ids=str,
)
def test_whatever_is_wrong_is_one_error_that_says_of_what(memory, says):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - its text is compared
        read_bias(memory)

    assert str(raised.value) == f"no memory of odds: {says}"
    assert read_bias({"bias": 2}) == 0.5


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(TypeError) as raised:
        number("x" * 9_000, "bias")

    assert len(str(raised.value)) < 120


def test_a_number_to_remember_has_so_many_digits():
    assert (short(1 / 3, 4), short(123456.0, 2), short(-0.0, 3)) == (
        0.3333,
        120000.0,
        0,
    )
