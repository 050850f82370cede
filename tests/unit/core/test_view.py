"""Views: what is written is read again, and what is none is refused."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.advice import Opinion
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.condition import Condition
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.states import State
from pgbreaker.core.view import View, read, target_of
from support.peering import memory, view

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
views = st.builds(
    View,
    breaker=texts,
    opinion=st.sampled_from(Opinion),
    state=st.sampled_from([State.CLOSED, State.OPEN, State.HALF_OPEN]),
    reason=texts,
    sqlstate=st.none() | texts,
    is_definite=st.booleans(),
    condition=st.sampled_from(Condition),
    token=st.integers(0, 2**53),
    at=st.integers(0, 2**42).map(lambda ms: ms / 1024),
    memory=st.sampled_from([memory(State.CLOSED), memory(State.OPEN)]),
)


@given(views)
@settings(deadline=None, max_examples=100)
def test_what_was_written_is_read_again(given):
    again = read(json.loads(json.dumps(given.written())))

    assert abs(again.at - given.at) < 1e-5
    assert again == View(
        **{name: getattr(given, name) for name in View.__slots__ if name != "at"},
        at=again.at,
    )


def test_long_texts_are_cut():
    written = view(reason="x" * 9_000).written()

    assert len(written["reason"]) == 500
    assert len(read(written | {"reason": "y" * 9_000}).reason) == 500


def test_it_names_its_target():
    assert view("shop-1/write").target == "shop-1"
    assert target_of("nothing") == "nothing"


def test_whoever_takes_the_target_over_can_go_on_from_it():
    heard = read(json.loads(json.dumps(view(opinion=Opinion.OPEN).written())))
    breaker = Breaker("main/read", DAEMON, 0.0)

    breaker.recall(heard.memory, 10.0, away=0.25)

    assert breaker.state is State.OPEN


def wrong() -> dict[str, object]:
    good = view().written()
    changed = {
        "at": [None, "12", True, math.nan, math.inf, -math.inf, 10**400, []],
        "breaker": [None, 1, ["a"]],
        "opinion": [None, "closed", 1, [], {}],
        "state": [None, "shut", []],
        "reason": [None, 7],
        "sqlstate": [7, []],
        "condition": [None, "ill", {}],
        "memory": [None, [], "x", {}, {"version": 99}],
    }
    found: dict[str, object] = {
        f"{key} is {value!r:.20}": good | {key: value}
        for key, values in changed.items()
        for value in values
    }
    found |= {f"no {key}": {k: v for k, v in good.items() if k != key} for key in good}
    return found | {"nothing": None, "a list": [], "a text": "x", "a number": 1}


@pytest.mark.parametrize("name", wrong())
def test_what_is_no_view_is_refused(name):
    with pytest.raises(ValueError, match=r"no view|is not a valid|memory"):
        read(wrong()[name])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner)
    ),
    max_leaves=5,
)


@given(st.sampled_from(sorted(view().written())), anything)
@settings(deadline=None, max_examples=150)
def test_whatever_stands_in_it_is_read_or_refused(key, value):
    written = view().written() | {key: value}
    try:
        read(written)
    except ValueError:
        return


@given(st.sampled_from(sorted(memory())), anything)
@settings(deadline=None, max_examples=150)
def test_a_memory_that_is_taken_can_be_recalled(key, value):
    written = view().written()
    written["memory"] = {**written["memory"], key: value}
    try:
        heard = read(written)
    except ValueError:
        return
    Breaker("main/read", DAEMON, 0.0).recall(heard.memory, 10.0, away=0.5)
