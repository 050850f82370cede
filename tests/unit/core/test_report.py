"""A report: what is read of it, and what is told of one that is none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbreaker.core.report import (
    INSTANCE,
    MOST,
    REASON,
    By,
    Crowd,
    NoReportError,
    Report,
    Voice,
    report_of,
)
from pgbreaker.core.states import State


def told(**more) -> dict:
    """What a report tells of a breaker that its own calls have opened."""
    return {
        "name": "orders",
        "follows": "main/write",
        "state": "open",
        "computed_state": "open",
        "by": "calls",
        "reason": "12 of 20 calls failed",
        "calls": {"success": 8, "failure": 12},
    } | more


def report(*breakers, **more) -> dict:
    """A report, as it is sent."""
    return {"instance": "web-7:4711:9f3a21c0", "application": "shop"} | (
        {"breakers": list(breakers)} | more
    )


def wrong(given) -> dict[str, str]:
    with pytest.raises(NoReportError) as caught:
        report_of(given)
    return dict(caught.value.errors)


def test_a_report_is_read_as_it_was_sent():
    read = report_of(report(told()))

    (one,) = read.breakers
    assert (read.instance, read.application) == ("web-7:4711:9f3a21c0", "shop")
    assert one.written() == told()
    assert one.held is By.CALLS


def test_what_a_newer_library_says_besides_is_left_out():
    newer = told(mood="low", calls={"success": 1, "hedged": 3})

    read = report_of(report(newer, shoe_size=43))

    assert read.breakers[0].written() == told(calls={"success": 1})


def test_what_may_be_missing_may():
    read = report_of({"instance": "x", "breakers": [{"name": "a", "state": "open"}]})

    (one,) = read.breakers
    assert read.application is None
    assert (one.follows, one.by, one.reason, one.calls) == (None, None, "", {})
    assert one.computed_state is State.OPEN
    assert one.held is By.CALLS


def test_what_is_too_long_is_cut_and_what_cannot_be_printed_is_none():
    read = report_of(report(told(reason="\x1b[31m\u202eno\n" + "x" * 900)))

    reason = read.breakers[0].reason
    assert len(reason) == REASON
    assert reason.startswith("[31m no x")
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "instance"),
        (report(instance=""), "instance"),
        (report(instance=7), "instance"),
        (report(instance="x" * (INSTANCE + 1)), "instance"),
        (report(instance="a\nb"), "instance"),
        (report(instance="a\ud800"), "instance"),
        (report(application=7), "application"),
        (report(breakers=None), "breakers"),
        (report(breakers={}), "breakers"),
        (report(*[told()] * (MOST + 1)), "breakers"),
        (report("orders"), "breakers[0]"),
        (report(told(), told(name=None)), "breakers[1].name"),
        (report(told(state="ajar")), "breakers[0].state"),
        (report(told(state=None)), "breakers[0].state"),
        (report(told(state=["open"])), "breakers[0].state"),
        (report(told(by="me")), "breakers[0].by"),
        (report(told(calls=[1])), "breakers[0].calls"),
        (report(told(calls={"failure": -1})), "breakers[0].calls.failure"),
        (report(told(calls={"failure": 1.5})), "breakers[0].calls.failure"),
        (report(told(calls={"failure": True})), "breakers[0].calls.failure"),
        (report(told(calls={"failure": 2**63})), "breakers[0].calls.failure"),
    ],
)
def test_what_is_no_report_is_told_where(given, field):
    assert field in wrong(given)


def test_only_the_first_mistakes_are_told():
    assert len(wrong(report(*[told(state="ajar")] * MOST))) == 10


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
NEAR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text() | ANYTHING,
        "follows": st.sampled_from(["main/read", None]) | ANYTHING,
        "state": st.sampled_from(list(State)) | ANYTHING,
        "computed_state": st.sampled_from(list(State)) | ANYTHING,
        "by": st.sampled_from([*By, None]) | ANYTHING,
        "reason": st.text(st.characters(), max_size=400) | ANYTHING,
        "calls": st.dictionaries(st.sampled_from(["failure", "x"]), ANYTHING)
        | ANYTHING,
    },
)


@given(
    st.dictionaries(st.text(), ANYTHING)
    | st.fixed_dictionaries(
        {"instance": st.text() | ANYTHING, "breakers": st.lists(NEAR) | ANYTHING},
        optional={"application": st.text() | ANYTHING, "more": ANYTHING},
    )
)
def test_whatever_is_sent_is_a_report_that_can_be_shown_or_is_told_to_be_none(sent):
    try:
        read = report_of(sent)
    except NoReportError as error:
        mistakes = len(error.errors)
    else:
        mistakes = 0
        check_shown(read)
    assert mistakes <= 10


def check_shown(read: Report) -> None:
    """See that what was read can be shown, and read again."""
    shown = json.dumps([one.written() for one in read.breakers], ensure_ascii=False)
    shown.encode()  # no half of a character is left in it
    assert shown.isprintable()
    assert 0 < len(read.instance) <= INSTANCE
    assert all(len(one.reason) <= REASON for one in read.breakers)
    # It can be read again, and is the same.
    again = report_of(
        {"instance": read.instance, "breakers": json.loads(shown)}
    ).breakers
    assert [one.held for one in again] == [one.held for one in read.breakers]


@pytest.mark.parametrize(
    ("state", "by", "held"),
    [
        ("closed", None, None),
        ("open", "advice", By.ADVICE),
        ("half_open", None, By.CALLS),
        ("forced_open", None, By.OPERATOR),
        ("disabled", "operator", None),
        ("metrics_only", "operator", None),
        ("closed", "operator", None),
    ],
)
def test_calls_are_held_back_where_they_do_not_pass(state, by, held):
    (one,) = report_of(report(told(state=state, by=by))).breakers

    assert one.held is held


def test_of_several_breakers_that_follow_one_the_one_that_knows_most_speaks():
    closed = told(name="a", state="closed", by=None)
    advised = told(name="b", by="advice")
    own = told(name="c", by="calls")
    elsewhere = told(name="d", follows="main/read")
    alone = told(name="e", follows=None)

    stances = report_of(report(closed, advised, own, elsewhere, alone)).stances()

    assert {name: one.name for name, one in stances.items()} == {
        "main/write": "c",
        "main/read": "d",
    }


@pytest.mark.parametrize(
    ("processes", "held", "text"),
    [
        (1, {}, "the one process that reports does not have it open"),
        (40, {}, "none of the 40 processes that report has it open"),
        (1, {By.CALLS: 1}, "1 of 1 process has it open, by its own calls: no route"),
        (
            40,
            {By.CALLS: 3},
            "3 of 40 processes have it open, by their own calls: no route",
        ),
        (
            40,
            {By.CALLS: 1, By.ADVICE: 2, By.OPERATOR: 0},
            "3 of 40 processes have it open, 1 by its own calls, 2 by advice: no route",
        ),
        (
            40,
            {By.OPERATOR: 40},
            "40 of 40 processes have it open, by an operator: no route",
        ),
    ],
)
def test_how_many_have_it_open_is_one_sentence(processes, held, text):
    voices = (Voice("web-1", None, "orders", By.CALLS, "no route"),) if held else ()

    assert Crowd(processes, held, voices).text == text


@pytest.mark.parametrize(
    ("processes", "own", "is_troubled"),
    [(1, 0, False), (1, 1, True), (4, 1, True), (5, 1, False), (40, 9, False)],
)
def test_a_quarter_that_fails_is_trouble(processes, own, is_troubled):
    crowd = Crowd(processes, {By.CALLS: own, By.ADVICE: processes - own})

    assert crowd.is_troubled is is_troubled
