"""The files of a recording: together never larger than they may be, and either there or
there whatever ends the process."""

import gzip
import os
import shutil
import threading
from contextlib import suppress

import pytest

from pgbreaker.monitor.replay import replay
from pgbreaker.sinks.record import Begun, Heard, RecordingError, read, read_all
from support.boards import Scene
from support.taping import heard, lines, noisy, pings, record, recorder_of

ROOM = 60_000


def seconds(events) -> list[int]:
    """When readings began, in seconds of the scene's clock."""
    return [round(event.reading.at - 1_800_000_000) for event in events]


class Scale:
    """Weighs a directory again and again until the end of the block.

    Attributes:
        most: Bytes that all files had at most.
    """

    def __init__(self, folder) -> None:
        self._folder = folder
        self._ending = threading.Event()
        self._weighing = threading.Thread(target=self._weigh)
        self.most = 0

    def _look(self) -> dict[str, tuple[int, int]]:
        found = {}
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                seen = os.stat(entry.path)
                found[entry.name] = (seen.st_ino, seen.st_size)
        return found

    def _weigh(self) -> None:
        before = self._look()
        while not self._ending.is_set():
            now = self._look()
            # What moves while it is looked at is seen twice, or as it never was.
            if now == before:
                self.most = max(self.most, sum(size for _, size in now.values()))
            before = now

    def __enter__(self):
        self._weighing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._weighing.join()


def test_all_files_together_take_no_more_than_they_may(tmp_path):
    path = tmp_path / "readings.jsonl"

    with Scale(tmp_path) as scale:
        recorder = record(Scene(), path, noisy(6_000), size=ROOM)

    left = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert ROOM / 2 < left <= ROOM
    assert scale.most <= ROOM
    assert recorder.dropped == 0
    # The latest are there, without a hole; the oldest went.
    kept = seconds(heard(path))
    assert kept == list(range(6_000 - len(kept), 6_000))
    assert 500 < len(kept) < 6_000


def test_a_full_file_is_compressed_and_several_are_kept(tmp_path):
    path = tmp_path / "readings.jsonl"

    record(Scene(), path, pings(3_000), size=100_000)

    names = sorted(file.name for file in tmp_path.iterdir())
    assert names[0] == "readings.jsonl"
    assert names[1:] == [f"readings.jsonl.{n}.gz" for n in range(1, len(names))]
    assert len(names) > 3
    assert len(heard(path)) == 3_000
    assert lines(path)[0]["goes_on"] is True


def test_each_file_can_be_read_alone(tmp_path):
    path = tmp_path / "readings.jsonl"
    record(Scene(), path, pings(3_000), size=100_000)

    for file in list(tmp_path.iterdir()):
        alone = tmp_path / "alone"
        alone.mkdir()
        shutil.copy(file, alone / file.name)
        begun, *rest = read(alone / file.name)
        assert isinstance(begun, Begun)
        assert {one.reading.values == {} for one in rest} == {True}
        shutil.rmtree(alone)


@pytest.mark.parametrize(
    ("plain", "packed", "torn"),
    [(True, False, False), (True, False, True), (True, True, False)],
)
def test_an_end_while_one_is_compressed_loses_nothing(tmp_path, plain, packed, torn):
    """It is put aside, compressed beside itself, renamed, deleted: after each of these
    the process may end."""
    path = tmp_path / "readings.jsonl"
    record(Scene(), path, pings(1_500), size=100_000)
    first = tmp_path / "readings.jsonl.1.gz"
    raw = first.read_bytes()
    if plain:
        (tmp_path / "readings.jsonl.1").write_bytes(gzip.decompress(raw))
    if not packed:
        first.unlink()
    if torn:
        (tmp_path / "readings.jsonl.1.gz.part").write_bytes(raw[:200])

    before = len(heard(path))
    scene = Scene()
    record(scene, path, pings(1, since=1_500.0), size=100_000)

    assert before == 1_500
    assert len(heard(path)) == 1_501
    assert sorted(file.name for file in tmp_path.iterdir())[:2] == [
        "readings.jsonl",
        "readings.jsonl.1.gz",
    ]
    assert not list(tmp_path.glob("*.part"))


def test_what_is_put_aside_while_it_is_read_is_read_once(tmp_path):
    scene, path = Scene(), tmp_path / "readings.jsonl"
    record(scene, path, pings(800), size=100_000)

    reading = read(path)
    told = [next(reading)]
    # Meanwhile the daemon goes on, and what was the last file is one of those before.
    record(scene, path, pings(2_000, since=800.0), size=100_000)
    told += reading

    ats = seconds(one for one in told if isinstance(one, Heard))
    assert ats[:800] == list(range(800))
    assert len(ats) == len(set(ats))


def test_the_file_may_be_gone_while_those_before_it_are_there(tmp_path):
    path = tmp_path / "readings.jsonl"
    record(Scene(), path, pings(1_500), size=100_000)

    path.unlink()

    assert 0 < len(heard(path)) < 1_500


# -- Several -----------------------------------------------------------------------


def test_of_a_directory_all_recordings_are_read_merged_by_time(tmp_path):
    for name, since in (("a.jsonl", 0.0), ("b.jsonl", 0.5)):
        record(Scene(), tmp_path / name, pings(1_500, since), size=100_000)
    (tmp_path / "notes.txt").write_text("nothing of ours\n", "utf-8")
    (tmp_path / "state.db").write_bytes(b"SQLite format 3\0" * 9)
    (tmp_path / "of-others.gz").write_bytes(gzip.compress(b"nothing of ours"))

    events = list(read_all(tmp_path))

    ats = [event.at for event in events if isinstance(event, Heard)]
    assert len(ats) == 3_000
    assert ats == sorted(ats)
    assert isinstance(events[0], Begun)


def test_several_are_read_that_are_named_and_each_once(tmp_path):
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    record(Scene(), one, pings(10))
    record(Scene(), other, pings(10, 0.5))

    events = read_all([one, other, one])

    assert sum(isinstance(event, Heard) for event in events) == 20


def test_full_files_that_were_copied_without_the_last_are_read(tmp_path):
    path = tmp_path / "readings.jsonl"
    record(Scene(), path, pings(1_500), size=100_000)
    with_last = len(heard(path))
    last = sum(isinstance(line, list) and line[0] == 0 for line in lines(path))
    path.unlink()

    events = read_all(tmp_path)

    assert sum(isinstance(event, Heard) for event in events) == with_last - last


def test_a_directory_without_a_recording_says_so(tmp_path):
    with pytest.raises(RecordingError, match="no recording of pgbreaker in it"):
        list(read_all(tmp_path))


# -- Of an earlier version ------------------------------------------------------------


def outage(tmp_path):
    """What version 0.1.0 recorded of a real outage, by schema 1."""
    path = tmp_path / "readings.jsonl"
    shutil.copy(os.path.join(os.path.dirname(__file__), "outage-schema-1.jsonl"), path)
    return path


def plans():
    return [target.plan for target in Scene().board.targets.values()]


def test_a_recording_by_schema_1_is_read_and_one_goes_on_in_its_file(tmp_path):
    path = outage(tmp_path)
    before = list(read(path))
    (tmp_path / "readings.jsonl.1").write_bytes(path.read_bytes())
    wall = before[-1].at - 1_800_000_000.0

    record(Scene(), path, pings(1_500, since=wall), size=200_000)

    found = list(read(path))
    assert found[: len(before)] == before
    assert found[len(before) : 2 * len(before)] == before
    assert sum(isinstance(event, Heard) for event in found) == 1_500 + 2 * sum(
        isinstance(event, Heard) for event in before
    )
    assert (tmp_path / "readings.jsonl.1.gz").exists()


def test_the_same_outage_by_either_schema_comes_to_the_same(tmp_path):
    path, again = outage(tmp_path), tmp_path / "again.jsonl"
    scene = Scene()
    recorder = recorder_of(scene, again)
    recorder.start()
    for event in read(path):
        if not isinstance(event, Begun):
            scene.time.now = event.at
            recorder(event.reading if isinstance(event, Heard) else event)
    recorder.close()

    first, second = (replay(lambda f=f: read(f), plans()) for f in (path, again))

    assert first.readings == second.readings > 30
    for name, course in first.simulated.items():
        moves, others = course.moves, second.simulated[name].moves
        assert [(m.after, m.cause, m.reason) for m in moves] == [
            (m.after, m.cause, m.reason) for m in others
        ]
        assert course.openings == 1
        assert [m.at - first.began for m in moves] == pytest.approx(
            [m.at - second.began for m in others], abs=1e-3
        )
