"""Lines: each says what is new, and all of them together say all of it."""

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence
from pgbreaker.sinks.record import Begun, Heard, read
from pgbreaker.sinks.record.reading import Reader
from pgbreaker.sinks.record.writing import Lines, head
from support.boards import Scene
from support.taping import heard, lines, record

HOUR = 3600.0


def saw(values: dict, at: float = 1.0, **more) -> Reading:
    return Reading("main", "ping", at, 0.1, Finding.OK, values=values, **more)


def written(readings: list[Reading], computed=()) -> list[bytes]:
    """The lines of readings, each told a tenth of a second after it began."""
    board = Scene().board
    plans = [target.plan for target in board.targets.values()]
    writing = Lines(computed)
    told = head(plans, "1.2.3", 0.0, 0.0, goes_on=False)
    raw = writing.begin(plans, told, str)
    raw += b"".join(writing.of_reading(one, one.at + 0.1) for one in readings)
    return raw.splitlines(keepends=True)


def told_again(readings: list[Reading], computed=()) -> list[Reading]:
    raw = BytesIO(b"".join(written(readings, computed)))
    events = Reader(Path("readings.jsonl")).read(raw)
    return [event.reading for event in events if isinstance(event, Heard)]


# -- What is the same is not said again -----------------------------------------------


def test_a_reading_like_the_one_before_is_three_numbers(tmp_path):
    readings = [saw({"a": 1, "rows": ({"b": 2},)}, at) for at in (1.0, 2.0)]

    first, second = written(readings)[2:]

    assert len(first) > 40
    # Its stream, what it was late by, what it took.
    assert second == b"[0,0,10000]\n"


def test_only_what_changed_is_said_and_of_rows_those_that_did():
    one, other = {"b": "x", "c": 1}, {"b": "y", "c": 1}
    readings = [
        saw({"a": 1, "rows": (one, other), "d": 2}, 1.0),
        saw({"a": 1, "rows": (one, {"b": "y", "c": 5}), "d": 3}, 2.0),
    ]

    *_, last = written(readings)

    assert last == b"[0,0,10000,0,6,[0,[1,5]],7,3]\n"
    assert [one.values for one in told_again(readings)] == [r.values for r in readings]


def test_what_follows_from_what_was_seen_is_left_out(tmp_path):
    path = tmp_path / "readings.jsonl"

    record(Scene(), path, [saw({"a": 1, "left": 60.0})], computed={"left"})

    (event,) = heard(path)
    assert event.reading.values == {"a": 1}
    assert "left" not in path.read_text("utf-8")


def test_what_follows_at_times_only_makes_no_other_stream():
    readings = [
        saw({"a": 1}, 1.0),
        saw({"a": 1, "left": 60.0}, 2.0),
        saw({"a": 1}, 3.0),
    ]

    raw = written(readings, {"left"})

    assert raw[3:] == [b"[0,0,10000]\n"] * 2


def test_an_answer_after_none_is_told_against_the_answer_before():
    none = Reading("main", "ping", 2.0, 0.1, Finding.TIMEOUT, evidence=SEEN)
    readings = [saw({"a": 1}, 1.0), none, saw({"a": 1}, 3.0)]

    again = told_again(readings)

    assert [one.values for one in again] == [{"a": 1}, {}, {"a": 1}]
    assert [one.evidence for one in again] == [None, SEEN, None]


def test_a_line_that_is_too_long_leaves_its_rows_out():
    many = tuple({"relation": f"a table {n}", "bytes": n} for n in range(2_000))
    readings = [saw({"a": 1, "tables": many}), saw({"a": 2, "tables": many}, 2.0)]

    again = told_again(readings)

    assert [one.values for one in again] == [
        {"a": 1, "tables": ()},
        {"a": 2, "tables": ()},
    ]
    assert max(map(len, written(readings)[2:])) < 16 * 1024


def test_moments_and_durations_are_kept_to_a_hundredth_of_a_millisecond():
    """Rounded down: an answer that was quicker than a limit stays so."""
    reading = Reading("main", "ping", 1.2345678, 0.0299999, Finding.OK)

    (again,) = told_again([reading])

    assert again.took == 0.02999
    assert again.at == pytest.approx(1.2345678, abs=0.00101)
    (exact,) = told_again([Reading("main", "ping", 1.0, 0.29, Finding.OK)])
    assert exact.took >= 0.29


def test_after_an_hour_all_is_said_anew():
    """What a damaged line takes with it is an hour at most."""
    readings = [saw({"a": 1}, at) for at in (1.0, HOUR, HOUR + 1)]

    anew, stream, third, *_ = written(readings)[3:]

    assert anew.startswith(b'{"kind":"anew"')
    assert stream.startswith(b'["stream",0,')
    assert third.endswith(b",5,1]\n")
    assert [one.at for one in told_again(readings)] == [1.0, HOUR, HOUR + 1]


SEEN = Evidence("timeout", "no answer within 500 ms", None, "ping")
SCALARS = st.none() | st.booleans() | st.integers(-9, 9**15) | st.text(max_size=5)
NUMBERS = st.floats(-1e9, 1e9).map(lambda x: round(x, 3))
ROWS = st.lists(
    st.fixed_dictionaries({"b": SCALARS, "c": NUMBERS}, optional={"d": SCALARS}),
    max_size=3,
).map(tuple)
VALUES = st.fixed_dictionaries({}, optional={"a": SCALARS | NUMBERS | ROWS, "e": ROWS})
READINGS = st.lists(
    st.builds(
        Reading,
        st.sampled_from(["main", "other"]),
        st.sampled_from(["ping", "login"]),
        st.integers(0, 10_000).map(lambda n: n / 4),
        st.integers(0, 100).map(lambda n: n / 8),
        st.sampled_from(Finding),
        values=VALUES,
        evidence=st.none() | st.builds(Evidence, st.text(), st.text()),
        confirmed=st.booleans(),
        judged=st.booleans(),
    ),
    max_size=12,
)


@given(readings=READINGS)
@settings(max_examples=150, deadline=None)
def test_whatever_readings_come_they_are_told_again(readings):
    assert told_again(readings) == readings


def test_half_a_character_is_told_again():
    assert told_again([saw({"a": "x\udc80"})])[0].values == {"a": "x\udc80"}


# -- Heads -------------------------------------------------------------------------


def test_rules_that_many_targets_share_are_told_once(tmp_path):
    scene = Scene([f"target{n}" for n in range(50)])
    path = tmp_path / "readings.jsonl"

    record(scene, path, [Reading("target7", "ping", 1.0, 0.1, Finding.OK)])

    begun = next(read(path))
    assert isinstance(begun, Begun)
    assert set(begun.targets) == set(scene.board.targets)
    assert len(lines(path)[0]["rules"]) == 1
