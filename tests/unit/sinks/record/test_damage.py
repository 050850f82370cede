"""What is damaged, cut or of others: one line that says so, or what is left of it."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence
from pgbreaker.sinks.record import Begun, Heard, RecordingError, Unread, read
from support.boards import Scene
from support.taping import heard, noisy, pings, record

HEAD = (
    '{"kind": "begun", "schema": 1, "at": 1, "wall": 2, "goes_on": false,'
    ' "targets": {}}\n'
)
SECOND = HEAD.replace('"schema": 1', '"schema": 2')


def test_a_line_that_was_cut_is_left_out(tmp_path):
    scene, path = Scene(), tmp_path / "readings.jsonl"
    values = {"a": 123_456_789}
    readings = [
        Reading("main", "ping", at, 0.0, Finding.OK, values={"a": at * 1e6})
        for at in (1.0, 2.0)
    ]
    record(scene, path, readings)

    path.write_bytes(path.read_bytes()[:-5])
    left = list(read(path))
    # Whoever goes on after it begins a line of its own.
    record(scene, path, [Reading("main", "ping", 5.0, 0.0, Finding.OK, values=values)])

    assert [type(event) for event in left] == [Begun, Heard]
    *_, begun, last = read(path)
    assert begun.at == last.at == 1_800_000_005.0
    assert not any(isinstance(event, Unread) for event in read(path))


def test_after_a_line_of_rubbish_all_is_left_out_that_builds_on_it(tmp_path):
    """Until all is said anew, which is an hour later at most."""
    path = tmp_path / "readings.jsonl"
    record(Scene(), path, pings(3_700))
    raw = path.read_bytes().splitlines(keepends=True)

    raw[11] = b"rubbish\n"
    path.write_bytes(b"".join(raw))

    events = list(read(path))
    (lost,) = [event for event in events if isinstance(event, Unread)]
    kept = [event for event in events if isinstance(event, Heard)]
    assert lost.where == f"{path}:12"
    assert lost.lines is not None
    assert len(kept) + lost.lines == 3_700
    # None is told at a moment that is not its own.
    whole = [n + 1_800_000_000.1 for n in range(3_700)]
    assert [event.at for event in kept] == pytest.approx(whole[:9] + whole[3_600:])


def test_a_line_of_rubbish_among_those_of_schema_1_costs_itself_alone(tmp_path):
    path = tmp_path / "readings.jsonl"
    reading = (
        '{"kind": "reading", "target": "main", "probe": "ping", "at": 1, "took": 0.1,'
        ' "told": 2, "finding": "ok"}\n'
    )

    path.write_text(HEAD + reading + "rubbish\n" + reading, "utf-8")

    assert [type(event) for event in read(path)] == [Begun, Heard, Heard]


@pytest.mark.parametrize("cut", [4, 200, 2_000])
def test_of_a_compressed_file_that_was_cut_the_beginning_is_read(tmp_path, cut):
    path = tmp_path / "readings.jsonl"
    record(Scene(), path, noisy(600), size=100_000)
    first = tmp_path / "readings.jsonl.1.gz"

    first.write_bytes(first.read_bytes()[:-cut])

    (lost,) = [event for event in read(path) if isinstance(event, Unread)]
    assert lost.where.startswith(f"{first}:")
    assert lost.lines is None
    kept = [round(event.at) - 1_800_000_000 for event in heard(path)]
    assert kept[:50] == list(range(50))
    assert kept[-300:] == list(range(300, 600))


def test_one_that_was_cut_to_nothing_does_not_stand_in_the_way_of_others(tmp_path):
    path = tmp_path / "readings.jsonl"
    record(Scene(), path, pings(10))

    (tmp_path / "readings.jsonl.1.gz").write_bytes(gzip.compress(b"x")[:12])

    assert [type(event) for event in read(path)] == [Unread, Begun, *[Heard] * 10]


def test_where_a_compressed_file_is_damaged_is_said(tmp_path):
    path = tmp_path / "readings.jsonl"
    record(Scene(), path, pings(1_500), size=100_000)
    first = tmp_path / "readings.jsonl.1.gz"

    raw = bytearray(first.read_bytes())
    raw[-8] ^= 1  # the sum over all that it holds
    first.write_bytes(raw)

    (lost,) = [event for event in read(path) if isinstance(event, Unread)]
    assert lost.where.startswith(f"{first}:")
    assert lost.lines is None
    assert len(heard(path)) > 1_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"kind": "reading", "at": 1}\n', ":1: no recording of pgbreaker"),
        ("[0,1,2]\n", ":1: no recording of pgbreaker"),
        ('{"kind": "begun", "schema": 99, "version": "9.9"}\n', "of pgbreaker 9.9"),
        (HEAD + '{"kind": "move", "at": 3}\n', ":2: no line of a recording"),
        (SECOND + "[7,0,0]\n", ":2: no line of a recording"),
        (SECOND + '["stream",0,"main"]\n', ":2: no line of a recording"),
        (
            SECOND + '["stream",0,"main","ping",1,["a"]]\n[0,0,0,0,-1,5]\n',
            ":3: no line of a recording",
        ),
        (SECOND + "[" * 100_000 + "\n", None),
        (SECOND + '{"kind": "of a later version"}\n["and",1]\n', None),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_what_is_no_recording_is_said_with_its_place(text, says, is_packed, tmp_path):
    path = tmp_path / "readings.jsonl"
    path.write_bytes(gzip.compress(text.encode()) if is_packed else text.encode())

    if says is None:
        assert [type(event) for event in read(path)] == [Begun]
        return
    with pytest.raises(RecordingError, match=says):
        list(read(path))


# -- Whatever is damaged -----------------------------------------------------------


def some(count: int):
    """Readings of all kinds."""
    seen = Evidence("timeout", "no answer", None, "login", 1.5)
    for n in range(count):
        rows = tuple({"b": "x" * n, "c": n} for n in range(n % 4))
        values = {"a": n / 3, "rows": rows, "name": f"n{n % 3}"}
        yield Reading("main", "ping", n * 60.0, 0.1, Finding.OK, values=values)
        yield Reading("main", "login", n * 60.0, 0.2, Finding.TIMEOUT, evidence=seen)


@pytest.fixture(scope="module", params=["plain", "packed"])
def whole(request, tmp_path_factory):
    """A file to damage, and what it holds."""
    path = tmp_path_factory.mktemp("damage") / "readings.jsonl"
    record(Scene(), path, some(150))
    raw = path.read_bytes()
    return path, raw if request.param == "plain" else gzip.compress(raw)


FLIPS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)),
    min_size=1,
    max_size=4,
)


@given(flips=FLIPS, cut=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_bytes_that_flip_make_readings_or_one_error(whole, flips, cut):
    path, raw = whole
    damaged = bytearray(raw)
    for place, by in flips:
        damaged[int(place * len(raw))] ^= by
    path.write_bytes(damaged[: max(int(cut * len(raw)), 1)] if cut < 0.3 else damaged)

    events, said = [], str(path)
    try:
        events += read(path)
    except RecordingError as error:
        said = str(error)
    assert said.startswith(str(path))
    assert "\n" not in said
    for event in events:
        if isinstance(event, Heard):
            assert isinstance(event.reading.finding, Finding)
            assert isinstance(event.reading.target, str)
            assert isinstance(event.at, float)
