"""The recording: what is written can be read again, whatever the disk does meanwhile."""

import json
import os
import stat

import pytest

from pgbreaker.core.plan import RecordPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, State
from pgbreaker.sinks.hub import Notice
from pgbreaker.sinks.record import (
    Begun,
    Heard,
    Recorder,
    RecordingError,
    Rules,
    before,
    read,
    recording,
)
from support.boards import Scene

SEEN = Evidence("timeout", "no answer within 500 ms", None, "ping", 1.5)


def recorder_of(scene: Scene, path, size: int = 1_000_000) -> Recorder:
    plans = [target.plan for target in scene.board.targets.values()]
    return Recorder(RecordPlan(path=path, max_size=size), plans, scene.clock, "1.2.3")


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_is_read_is_what_was_told(tmp_path):
    scene, path = Scene(), tmp_path / "readings.jsonl"
    recorder = recorder_of(scene, path)
    reading = Reading(
        "main",
        "ping",
        99.5,
        0.5,
        Finding.TIMEOUT,
        values={"a": 1.5, "rows": ({"b": "x"},)},
        evidence=SEEN,
        confirmed=True,
        judged=True,
    )
    scene.also(recorder)

    recorder.start()
    scene.hub.publish(reading)
    scene.open()
    scene.hub.publish(Notice("main", "restarted", "it was", 100.0))
    recorder.close()

    begun, heard, _, move = read(path)
    wall = scene.clock.wall()
    plan = scene.board.targets["main"].plan
    assert isinstance(begun, Begun)
    assert begun.at == wall
    assert begun.targets == {"main": Rules(plan.operations, plan.policy)}
    assert isinstance(heard, Heard)
    assert heard.at == wall
    assert heard.reading.at == pytest.approx(wall - 0.5)
    assert heard.reading == Reading(
        **{
            name: getattr(reading, name)
            for name in ("target", "probe", "took", "finding", "values", "evidence")
        },
        at=heard.reading.at,
        confirmed=True,
        judged=True,
    )
    assert (move.breaker, move.after) == ("main/connect", State.OPEN)
    assert move.retry_after > 0


def test_no_address_and_no_password_is_in_it(tmp_path):
    scene, path = Scene(), tmp_path / "readings.jsonl"
    recorder = recorder_of(scene, path)

    recorder.start()
    recorder(Reading("main", "ping", 1.0, 0.1, Finding.OK))
    recorder.close()

    assert "hunter2" not in path.read_text("utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_takes_no_more_than_it_may_and_keeps_the_one_before(tmp_path):
    scene, path = Scene(), tmp_path / "readings.jsonl"
    recorder = recorder_of(scene, path, size=20_000)

    recorder.start()
    for number in range(400):
        recorder(Reading("main", "ping", float(number), 0.1, Finding.OK))
        while recorder.waiting > 50:  # the disk's pace is not what is tried here
            os.sched_yield()
    recorder.close()

    kept = [event.reading.at for event in read(path) if isinstance(event, Heard)]
    assert path.stat().st_size + before(path).stat().st_size <= 20_000
    assert recorder.dropped == 0
    assert len(kept) > 50
    assert kept == sorted(kept)
    assert lines(path)[0]["goes_on"] is True


def test_a_disk_that_hangs_holds_back_nobody_and_what_is_left_out_is_counted(tmp_path):
    scene = Scene()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it to write hangs until somebody reads
    recorder = recorder_of(scene, pipe)

    recorder.start()
    for number in range(25_000):
        recorder(Reading("main", "ping", float(number), 0.1, Finding.OK))
    recorder.close(within=0.05)

    assert recorder.dropped >= 4_000
    with pipe.open("rb") as reader:  # let its thread go
        assert reader.readline()


def test_a_disk_that_refuses_is_told_of_once_and_tried_again(tmp_path, caplog):
    scene, path = Scene(), tmp_path / "no/readings.jsonl"
    recorder = recorder_of(scene, path)

    recorder.start()
    recorder(Reading("main", "ping", 1.0, 0.1, Finding.OK))
    recorder.close(within=5.0)

    assert recorder.failures >= 1
    assert recorder.dropped >= 1
    told = [r.getMessage() for r in caplog.records]
    assert [text for text in told if str(path) in text] == [
        f"cannot record to {path}: no such file or directory"
    ]


async def test_a_second_run_goes_on_in_the_same_file_on_its_own_clock(tmp_path):
    scene, path = Scene(), tmp_path / "readings.jsonl"
    plan = RecordPlan(path=path)

    for started in (100.0, 5.0):
        scene.time.now = started
        async with recording(plan, [], scene.clock, "1.2.3") as recorder:
            recorder(Reading("main", "ping", started, 0.1, Finding.OK))

    walls = [event.at for event in read(path)]
    assert walls == [1_800_000_100.0] * 2 + [1_800_000_005.0] * 2


def test_rules_that_change_are_told_from_there_on(tmp_path):
    scene, path = Scene(), tmp_path / "readings.jsonl"
    recorder = recorder_of(scene, path)

    recorder.start()
    recorder(Reading("main", "ping", 1.0, 0.1, Finding.OK))
    recorder.turn([])
    recorder.close()

    kinds = [line["kind"] for line in lines(path)]
    assert kinds == ["begun", "reading", "begun"]
    assert lines(path)[2]["targets"] == {}


def test_a_line_that_was_cut_is_left_out(tmp_path):
    scene, path = Scene(), tmp_path / "readings.jsonl"
    recorder = recorder_of(scene, path)
    recorder.start()
    for at in (1.0, 2.0):
        recorder(Reading("main", "ping", at, 0.1, Finding.OK))
    recorder.close()

    path.write_bytes(path.read_bytes()[:-20])
    left = len(list(read(path)))
    # Whoever goes on after it begins a line of its own.
    scene.time.now = 5.0
    recorder = recorder_of(scene, path)
    recorder.start()
    recorder(Reading("main", "ping", 5.0, 0.1, Finding.OK))
    recorder.close()

    assert left == 2
    *_, begun, heard = read(path)
    assert begun.at == heard.at == 1_800_000_005.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"kind": "reading", "at": 1}\n', ":1: no recording of pgbreaker"),
        ('{"kind": "begun", "schema": 99, "version": "9.9"}\n', "of pgbreaker 9.9"),
        (
            (
                '{"kind": "begun", "schema": 1, "at": 1, "wall": 2, "goes_on": false,'
                ' "targets": {}}\n{"kind": "move", "at": 3}\n'
            ),
            ":2: no line of a recording",
        ),
    ],
)
def test_what_is_no_recording_is_said_with_its_place(text, says, tmp_path):
    path = tmp_path / "readings.jsonl"
    path.write_text(text, "utf-8")

    with pytest.raises(RecordingError, match=says):
        list(read(path))
