"""The recorder: what is written can be read again, whatever the disk does meanwhile."""

import os
import stat
import time
from collections.abc import Callable

import pytest

from pgbreaker.core.plan import RecordPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, State
from pgbreaker.sinks.hub import Notice
from pgbreaker.sinks.record import (
    Asked,
    Begun,
    Heard,
    Rules,
    Unread,
    read,
    recording,
)
from support.boards import Scene
from support.disk import mounted
from support.taping import heard, lines, noisy, pings, record, recorder_of

SEEN = Evidence("timeout", "no answer within 500 ms", None, "ping", 1.5)


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
    asked = {
        "ping": Asked(interval=1.0, timeout=0.5),
        "login": Asked(interval=5.0, timeout=1.0),
    }
    assert isinstance(begun, Begun)
    assert begun.at == wall
    assert begun.targets == {"main": Rules(plan.operations, plan.policy, asked)}
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


def test_others_on_this_machine_may_not_read_it(tmp_path):
    path = tmp_path / "readings.jsonl"

    record(Scene(), path, pings(4_000), size=100_000)

    files = list(tmp_path.iterdir())
    assert len(files) > 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


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


def test_a_disk_that_refuses_to_compress_is_no_reason_not_to_record(tmp_path, caplog):
    path = tmp_path / "readings.jsonl"
    (tmp_path / "readings.jsonl.1.gz.part").mkdir()  # stands where it would write

    recorder = record(Scene(), path, pings(1_500), size=100_000)

    # It is read as it is, and compressed when the disk lets us.
    assert recorder.dropped == 0
    assert recorder.failures >= 1
    assert (tmp_path / "readings.jsonl.1").exists()
    assert sum(isinstance(event, Heard) for event in read(path)) == 1_500
    (tmp_path / "readings.jsonl.1.gz.part").rmdir()
    record(Scene(), path, pings(1))
    assert (tmp_path / "readings.jsonl.1.gz").exists()


def test_what_cannot_be_told_is_left_out_and_the_rest_goes_on(tmp_path, caplog):
    """A thread that had ended would have left out all the rest, and told nobody."""
    scene, path = Scene(), tmp_path / "readings.jsonl"
    recorder = recorder_of(scene, path)
    recorder.start()
    recorder(Reading("main", "ping", 1.0, float("inf"), Finding.OK))
    for _ in range(1_000_000):
        if recorder.failures:
            break
        os.sched_yield()
    recorder(Reading("main", "ping", 2.0, 0.1, Finding.OK))
    recorder.close(within=20.0)

    assert len(heard(path)) == 1
    assert (recorder.dropped, recorder.failures) == (1, 1)
    assert caplog.text.count("a fault of ours, OverflowError") == 1


def test_a_disk_that_was_full_for_a_while_leaves_a_hole_and_nothing_wrong(tmp_path):
    """What is said after the hole builds on nothing that is lost in it."""
    scene = Scene()
    with mounted(tmp_path / "disk", "256k") as disk:
        path = disk.path / "readings.jsonl"
        recorder = recorder_of(scene, path)
        recorder.start()
        told = list(noisy(3_000))
        for number, reading in enumerate(told):
            if number == 1_000:
                _until(lambda: recorder.waiting == 0 and path.stat().st_size > 10_000)
                disk.fill()
            if number == 2_000:
                _until(lambda: recorder.failures > 0)
                disk.free()
            scene.time.now = reading.at + reading.took
            recorder(reading)
        recorder.close(within=10.0)

        events = list(read(path))

    kept = [event for event in events if isinstance(event, Heard)]
    assert not any(isinstance(event, Unread) for event in events)
    # What a disk took of a write before it refused is counted as left out, too.
    assert 3_000 - recorder.dropped <= len(kept) < 3_000
    by_moment = {round(reading.at): reading for reading in told}
    for event in kept:
        reading = by_moment[round(event.reading.at - 1_800_000_000)]
        assert event.reading.values == pytest.approx(reading.values, rel=1e-5)


def _until(is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10.0
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.005)


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

    begun, _, turned = read(path)
    assert set(begun.targets) == {"main"}
    assert turned.targets == {}
    assert lines(path)[-1]["goes_on"] is True
