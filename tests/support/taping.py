"""Readings, recorded by hand."""

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pgbreaker.core.plan import RecordPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.sinks.record import Heard, Recorder, read
from support.boards import Scene


def recorder_of(
    scene: Scene, path: Path, size: int = 1_000_000, computed: Iterable[str] = ()
) -> Recorder:
    """A recorder of a scene's targets, on its clock."""
    plans = [target.plan for target in scene.board.targets.values()]
    plan = RecordPlan(path=path, max_size=size)
    return Recorder(plan, plans, scene.clock, "1.2.3", computed)


def record(scene: Scene, path: Path, readings: Iterable[Reading], **more) -> Recorder:
    """Record *readings*, each told when it was answered, to the end of the recorder."""
    recorder = recorder_of(scene, path, **more)
    recorder.start()
    for reading in readings:
        scene.time.now = reading.at + reading.took
        recorder(reading)
        while recorder.waiting > 50:  # the disk's pace is not what is tried here
            os.sched_yield()
    recorder.close(within=20.0)
    return recorder


def pings(count: int, since: float = 0.0) -> Iterator[Reading]:
    """Answers to so many pings, one a second."""
    for number in range(count):
        at = since + number
        yield Reading("main", "ping", at, 0.1, Finding.OK, judged=True)


def noisy(count: int) -> Iterator[Reading]:
    """Readings that compress badly."""
    for n, ping in enumerate(pings(count)):
        noise = zlib.crc32(str(n).encode())
        values = {"a": noise, "b": noise**3, "c": noise**2 / 7}
        yield Reading("main", "ping", ping.at, noise / 2**33, Finding.OK, values=values)


def heard(path: Path) -> list[Heard]:
    """The readings of a recording."""
    return [event for event in read(path) if isinstance(event, Heard)]


def lines(path: Path) -> list:
    """What the lines of a plain file say."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
