"""One line an event, with the same facts as everywhere else."""

import contextlib
import io
import json
import logging
import os
import re
import time

import pytest

from pgbreaker.core.reading import Finding
from pgbreaker.sinks.hub import Hub, Notice
from pgbreaker.sinks.log import (
    JournalFormatter,
    JsonFormatter,
    LogSink,
    Scribe,
    configure,
    dropped,
)
from support.boards import Scene


@pytest.fixture(autouse=True)
def _restored_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def told(level: str = "INFO", form: str = "json") -> tuple[Scene, io.StringIO]:
    stream = io.StringIO()
    configure(form, level, stream=stream, env={})
    scene = Scene()
    scene.also(LogSink(scene.board))
    return scene, stream


def test_a_transition_is_one_line_with_its_facts():
    scene, stream = told()

    scene.open("connect")

    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["level"] == "WARNING"
    assert line["message"] == (
        "breaker main/connect: closed -> open: 53300 sorry, too many clients already"
    )
    facts = {
        k: line[k] for k in ("event", "target", "operation", "from", "to", "cause")
    }
    assert facts == {
        "event": "transition",
        "target": "main",
        "operation": "connect",
        "from": "closed",
        "to": "open",
        "cause": "confirmed",
    }
    assert (line["sqlstate"], line["probe"]) == ("53300", "login")
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(("level", "lines"), [("INFO", 0), ("DEBUG", 1)])
def test_readings_are_for_whoever_debugs(level, lines):
    scene, stream = told(level)

    scene.read("ping", Finding.TIMEOUT)

    told_ = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["outcome"] for line in told_] == ["timeout"] * lines


def test_a_notice_is_told():
    scene, stream = told(form="console")

    scene.hub.publish(Notice("main", "restarted", "the server was restarted", 100.0))

    assert "WARNING main: the server was restarted" in stream.getvalue()


def test_no_secret_is_in_a_line_at_any_level():
    scene, stream = told("DEBUG")

    scene.read()
    scene.open()

    assert "hunter2" not in stream.getvalue()


def test_a_journal_gets_the_priority_of_each_line():
    record = logging.makeLogRecord({"msg": "one\ntwo", "levelname": "WARNING"})

    text = JournalFormatter(logging.Formatter("%(message)s")).format(record)

    assert text == "<4>one\n<4>two"


def test_a_traceback_is_one_string_of_the_object():
    error = ValueError("a fault of ours")
    record = logging.makeLogRecord(
        {"msg": "broken", "exc_info": (ValueError, error, None)}
    )

    line = json.loads(JsonFormatter().format(record))

    assert "a fault of ours" in line["traceback"]


def test_a_sink_that_fails_is_told_and_does_not_keep_others_from_the_event(caplog):
    seen: list[object] = []

    def broken(_event: object) -> None:
        raise RuntimeError("a fault of ours")

    hub = Hub([broken, seen.append])

    hub.publish(Notice("main", "role", "the server is a replica now", 0.0))

    assert len(seen) == 1
    assert hub.dropped == 1
    assert "failed to take" in caplog.text


# Nobody waits for whoever reads it.


@pytest.fixture
def pipe():
    """A pipe: an end to read, an end to write."""
    reads, writes = os.pipe()
    yield reads, writes
    for end in (reads, writes):
        with contextlib.suppress(OSError):  # the test did
            os.close(end)


def say(scribe: Scribe, text: str, level: str = "INFO") -> None:
    number = logging.getLevelNamesMapping()[level]
    record = {"msg": text, "levelname": level, "levelno": number}
    scribe.handle(logging.makeLogRecord(record))


def read_all(end: int) -> str:
    with os.fdopen(end, "rb", closefd=False) as file:
        return file.read().decode()


def test_lines_come_in_order_and_the_last_ones_are_written_at_the_end(pipe):
    reads, writes = pipe
    scribe = Scribe(writes)
    for number in range(1000):
        say(scribe, f"{number}")

    scribe.close()
    os.close(writes)

    assert read_all(reads).splitlines() == [str(n) for n in range(1000)]
    assert scribe.dropped == 0


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time(pipe):
    """A pipe takes 64 KiB; whoever writes more to it waits until somebody reads."""
    reads, writes = pipe
    scribe = Scribe(writes, most=100)
    begun = time.perf_counter()
    for number in range(5000):
        say(scribe, f"{number} {'x' * 200}")
    saying = time.perf_counter() - begun
    dropped = scribe.dropped
    begun = time.perf_counter()
    scribe.close()
    parting = time.perf_counter() - begun

    # Now somebody reads: what was left out is said, and nothing is hidden. The last that
    # is said of it need not be the last line.
    os.set_blocking(reads, False)
    text, deadline = "", time.monotonic() + 5
    while accounted(text) < 5000 and time.monotonic() < deadline:
        try:
            text += os.read(reads, 1 << 20).decode()
        except BlockingIOError:
            time.sleep(0.01)

    # Who waited for the pipe would wait for good: nobody had read by then.
    assert saying < 5
    assert parting < 3
    assert dropped > 1000
    assert left_out(text) == dropped
    assert text.count("xxx\n") == 5000 - dropped


def accounted(text: str) -> int:
    """Lines that were written, and those of which it is said that they were not."""
    return text.count("xxx\n") + left_out(text)


def left_out(text: str) -> int:
    """How many lines were left out, by what is said of it."""
    said = re.findall(r"^(\d+) lines of the log were left out", text, re.M)
    return sum(map(int, said))


def test_what_is_left_out_is_counted_for_whoever_scrapes(pipe):
    reads, writes = pipe
    os.close(reads)
    scribe = Scribe(writes)
    logging.getLogger().addHandler(scribe)
    before = dropped()

    say(scribe, "nobody hears this")
    scribe.close()

    assert dropped() == before + 1


def test_a_reader_that_went_away_is_no_error(pipe):
    reads, writes = pipe
    os.close(reads)
    scribe = Scribe(writes)

    say(scribe, "nobody hears this")
    scribe.close()

    assert scribe.dropped == 1


def test_a_pipe_that_does_not_block_is_waited_for(pipe):
    reads, writes = pipe
    os.set_blocking(writes, False)
    scribe = Scribe(writes)
    for number in range(1000):
        say(scribe, f"{number} {'x' * 200}")
    text = b""
    while text.count(b"\n") < 1000:
        text += os.read(reads, 1 << 16)
    scribe.close()

    assert [int(line.split()[0]) for line in text.splitlines()] == list(range(1000))


def test_an_error_that_comes_again_is_written_once_with_how_often(pipe):
    reads, writes = pipe
    scribe = Scribe(writes)
    for _ in range(37):
        say(scribe, "the disk is full", "ERROR")
        say(scribe, "breaker main/read: closed -> open", "WARNING")
    say(scribe, "another error", "ERROR")
    for known in scribe._repeated.values():
        known.since -= 60.0
    say(scribe, "the disk is full", "ERROR")

    scribe.close()
    os.close(writes)
    lines = read_all(reads).splitlines()

    assert lines.count("the disk is full") == 2
    assert lines.count("the disk is full (x36 in 60 s)") == 1
    assert lines.count("another error") == 1
    assert lines.count("breaker main/read: closed -> open") == 37
    assert len(lines) == 41


def test_how_often_is_said_at_the_end_at_the_latest(pipe):
    reads, writes = pipe
    scribe = Scribe(writes)
    for _ in range(3):
        say(scribe, "the disk is full", "ERROR")

    scribe.close()
    os.close(writes)

    assert read_all(reads) == "the disk is full\nthe disk is full (x2 in 0 s)\n"


def test_the_lines_of_one_who_goes_on_by_other_rules_keep_their_order(capfd):
    configure("json", "INFO", env={})
    (scribe,) = logging.getLogger().handlers
    logging.getLogger("x").info("first")

    configure("console", "DEBUG", env={})
    logging.getLogger("x").debug("second")
    same = logging.getLogger().handlers == [scribe]
    scribe.close()

    first, second = capfd.readouterr().err.splitlines()
    assert json.loads(first)["message"] == "first"
    assert second.endswith("DEBUG   second")
    assert same
