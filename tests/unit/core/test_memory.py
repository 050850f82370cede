"""What a breaker remembers across processes, and what of it still holds."""

import itertools
import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.policy import Policy
from pgbreaker.core.states import Evidence, Outcome, Override, Permit, State

# Times are multiples of 1/64 s, and widths powers of two: no float is ever rounded.
ROUND = Policy(jitter=0.25, window=2.0, buckets=4)
POLICIES = [
    replace(ROUND, minimum_calls=5, failure_threshold=3, timeout=1.0),
    replace(
        ROUND,
        window=8.0,
        buckets=8,
        minimum_calls=2,
        failure_threshold=None,
        timeout=0.5,
    ),
    replace(
        ROUND,
        window=1.0,
        buckets=1,
        minimum_calls=4,
        success_threshold=2,
        timeout=1.0,
        max_timeout=4.0,
        slow_call=0.25,
        ramp=2.0,
    ),
]
SEEN = Evidence("full", "sorry, too many clients already", "53300", "login", 0.5)

policies = st.sampled_from(POLICIES)
steps = st.tuples(
    st.sampled_from([0, 0, 1, 8, 32, 64, 400]),  # 1/64 s since the one before
    st.sampled_from(["observe"] * 6 + ["call"] * 3 + ["advance", "force", "resume"]),
    st.sampled_from([Outcome.SUCCESS, Outcome.FAILURE, *Outcome]),
    st.booleans(),  # slow
    st.integers(0, 9),  # 0: confirmed
)
scripts = st.lists(steps, max_size=40)


@dataclass
class Played:
    """A breaker, and the time by its clock."""

    breaker: Breaker
    now: float = 1024.0

    def play(self, script) -> list:
        """Do what the script says; returns all that could be seen of it."""
        seen = []
        for wait, what, outcome, slow, chance in script:
            self.now += wait / 64
            seen.append(self._do(what, outcome, slow, chance))
            seen.append(self.shown())
        return seen

    def _do(self, what, outcome, slow, chance):
        breaker, now = self.breaker, self.now
        match what:
            case "observe":
                moves = breaker.observe(
                    outcome,
                    now,
                    slow=slow,
                    confirmed=chance == 0,
                    evidence=SEEN if outcome is Outcome.FAILURE else None,
                )
            case "call":
                answer = breaker.admit(now)
                moves = [answer.move]
                if isinstance(answer, Permit):
                    moves.append(breaker.settle(answer.token, outcome, now, slow=slow))
            case "advance":
                moves = [breaker.advance(now)]
            case "force":
                state = [State.FORCED_OPEN, State.DISABLED][chance % 2]
                until = None if slow else now + 1
                moves = [breaker.force(Override(state, "why", "who", until), now)]
            case _:
                moves = [breaker.resume(now)]
        return [(m.before, m.after, m.cause, m.reason) for m in moves if m]

    def shown(self) -> dict:
        shown = self.breaker.snapshot(self.now)
        del shown["era"]
        return shown | {"free": self.breaker.gate > 0}


def new(policy: Policy) -> Breaker:
    return Breaker("b", policy, 1024.0, draw=lambda: 0.25, eras=itertools.count(1))


def played(policy: Policy, script) -> Played:
    """A breaker that the script was played to, which no operator holds."""
    one = Played(new(policy))
    one.play(script)
    one.breaker.resume(one.now)
    return one


def recalled(one: Played, *, away: float = 0.0, policy: Policy | None = None) -> Played:
    """Another process's breaker, which is told what *one* remembers."""
    memory = json.loads(json.dumps(one.breaker.memory(one.now)))
    now = 4096.0  # another clock
    other = Breaker(
        "b",
        policy or one.breaker.policy,
        now,
        draw=lambda: 0.25,
        eras=itertools.count(1),
    )
    other.recall(memory, now, away)
    return Played(other, now)


@settings(max_examples=150, deadline=None)
@given(policies, scripts, scripts)
def test_who_was_not_away_goes_on_as_if_nothing_had_happened(policy, before, after):
    one = played(policy, before)
    other = recalled(one)

    assert other.shown() == one.shown()
    assert other.play(after) == one.play(after)
    gap = one.now - other.now
    assert other.breaker.left_closed == (
        None if one.breaker.left_closed is None else one.breaker.left_closed - gap
    )


@settings(max_examples=150, deadline=None)
@given(policies, scripts, st.sampled_from([0, 1, 63, 64, 640, 6_400_000]))
def test_being_away_neither_opens_nor_closes(policy, script, away):
    """Only what is seen anew does: not time, not a good answer while closed, not a look
    at an open one."""
    one = played(policy, script)
    before = one.breaker.computed_state
    other = recalled(one, away=away / 64)

    assert other.breaker.computed_state is before
    assert other.breaker.totals == one.breaker.totals
    moves = other.breaker.observe(Outcome.IGNORED, other.now)
    assert all(move.after is not State.CLOSED for move in moves)
    if before is State.CLOSED:
        assert other.play([(1, "observe", Outcome.SUCCESS, False, 1)])[0] == []
        assert other.breaker.advance(other.now) is None


@settings(max_examples=100, deadline=None)
@given(policies, scripts, st.integers(0, 2_000))
def test_a_closed_window_ages_as_it_would_have(policy, script, away):
    one = played(policy, script)
    other = recalled(one, away=away / 64)

    there = one.breaker.window.counts_at(one.now + away / 64)

    assert other.breaker.counts(other.now) == there


def opened_by_confirmation(policy: Policy = POLICIES[0]) -> Played:
    one = Played(new(policy))
    one.breaker.observe(Outcome.FAILURE, one.now, confirmed=True, evidence=SEEN)
    return one


def test_an_opening_goes_on_for_the_rest_of_its_time():
    other = recalled(opened_by_confirmation(), away=0.5)

    assert other.breaker.state is State.OPEN
    assert other.breaker.retry_after(other.now) == 0.5625  # of 1 s and the jitter
    assert other.breaker.evidence == SEEN
    assert other.breaker.since == other.now - 0.5
    assert other.breaker.left_closed == other.now - 0.5


def test_an_opening_that_would_have_ended_is_due_and_still_open():
    other = recalled(opened_by_confirmation(), away=3600.0)

    assert other.breaker.state is State.OPEN
    assert other.breaker.is_due(other.now)
    assert other.breaker.observe(Outcome.FAILURE, other.now) == ()


def test_failures_in_a_row_do_not_go_on_after_a_night():
    """Two before and one after are three, but not in a row that means anything."""
    one = Played(new(POLICIES[0]))
    for _ in range(2):
        one.breaker.observe(Outcome.FAILURE, one.now)
    soon, later = recalled(one, away=1.0), recalled(one, away=30_000.0)

    assert soon.breaker.observe(Outcome.FAILURE, soon.now) != ()
    assert later.breaker.observe(Outcome.FAILURE, later.now) == ()


def test_trials_that_were_out_are_nobodys():
    one = opened_by_confirmation()
    one.now += 2
    permit = one.breaker.admit(one.now)
    other = recalled(one)

    assert other.breaker.state is State.HALF_OPEN
    assert other.breaker.in_flight == 0
    other.breaker.settle(permit.token, Outcome.SUCCESS, other.now)
    assert other.breaker.good_trials == 0


def test_calls_that_guards_counted_are_remembered():
    one = Played(new(POLICIES[0]))
    one.breaker.flights.slice.started += 7
    one.breaker.flights.slice.ok += 7

    other = recalled(one)

    assert other.breaker.totals == one.breaker.totals
    assert other.breaker.counts(other.now).total == 7
    assert one.breaker.window.ok == 0  # the look has changed nothing


def test_the_clock_set_back_while_away_is_no_time_at_all():
    other = recalled(opened_by_confirmation(), away=-3600.0)

    assert other.breaker.retry_after(other.now) == 1.0625


def test_an_operators_word_is_not_remembered():
    one = Played(new(POLICIES[0]))
    one.breaker.force(Override(State.FORCED_OPEN, "why", "who"), one.now)

    assert recalled(one).breaker.state is State.CLOSED


def test_another_policy_keeps_the_state_and_forgets_what_the_window_held():
    one = Played(new(POLICIES[0]))
    one.breaker.observe(Outcome.FAILURE, one.now)

    closed = recalled(one, policy=POLICIES[1])
    opened = recalled(opened_by_confirmation(), policy=POLICIES[1])

    assert closed.breaker.counts(closed.now).total == 0
    assert closed.breaker.totals["failure"] == 1
    assert opened.breaker.state is State.OPEN
    assert opened.breaker.retry_after(opened.now) > 0


def edit(memory: dict, path: str, value: object) -> dict:
    *way, name = path.split(".")
    inner = memory
    for step in way:
        inner = inner[step]
    inner[name] = value
    return memory


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("version", 2, "version 2 of memory is not 1"),
        ("state", "ajar", "'ajar' is not a valid State"),
        ("state", "forced_open", "cause 'confirmed' does not lead to forced_open"),
        ("state", "closed", "cause 'confirmed' does not lead to closed"),
        ("cause", None, "cause None does not lead to open"),
        ("until_in", 9e9, "until_in 9e+09 is longer than the opening"),
        ("until_in", float("nan"), "until_in nan is out of range"),
        ("wait", 10**400, "000 is out of range"),
        ("since_ago", -1, "since_ago -1 is out of range"),
        ("run", 1.5, "run 1.5 is no whole number"),
        ("run", True, "run True is no whole number"),
        ("round", -1, "round -1 is out of range"),
        ("local", 0, "local 0 is neither true nor false"),
        ("reason", None, "reason None is no text"),
        ("evidence.hint", "long", "hint 'long' is no number"),
        ("counted", {}, "'rejected' is missing"),
        ("window", [], "list indices must be integers"),
        ("window.buckets", [], "the window is none"),
        ("window.buckets", [[1, 2]], "bucket has 2 parts, not 3"),
        ("window.buckets", [[1, 2, 4]], "has more slow calls than calls"),
        ("window.buckets", [[2**32, 0, 0]], "bucket 4294967296 is out of range"),
        ("window.edge_in", 77.0, "the window is none"),
    ],
)
def test_what_no_breaker_wrote_is_refused_and_changes_nothing(path, value, said):
    one = opened_by_confirmation()
    memory = edit(one.breaker.memory(one.now), path, value)
    other = Played(new(POLICIES[0]))
    before = other.breaker.snapshot(other.now)

    with pytest.raises(ValueError) as raised:  # noqa: PT011 - its text is compared
        other.breaker.recall(memory, other.now)

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert other.breaker.snapshot(other.now) == before


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.data(),
)
def test_any_json_in_any_place_is_read_or_refused(value, data):
    one = opened_by_confirmation()
    memory = one.breaker.memory(one.now)
    place = data.draw(
        st.sampled_from(
            [
                *memory,
                *(f"window.{n}" for n in memory["window"]),
                *(f"counted.{n}" for n in memory["counted"]),
                *(f"evidence.{n}" for n in memory["evidence"]),
            ]
        )
    )
    other = new(POLICIES[0])

    try:
        other.recall(edit(memory, place, value), 4096.0)
    except ValueError:
        return

    assert other.snapshot(4096.0)["name"] == "b"
