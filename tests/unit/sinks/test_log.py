"""One line an event, with the same facts as everywhere else."""

import io
import json
import logging

import pytest

from pgbreaker.core.reading import Finding
from pgbreaker.sinks.hub import Hub, Notice
from pgbreaker.sinks.log import JournalFormatter, JsonFormatter, LogSink, configure
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
