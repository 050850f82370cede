"""Following the stream: nothing is missed, and what is lost is found again."""

from itertools import islice

import pytest

from pgbreaker.cli.daemon import Asked
from pgbreaker.cli.ending import EndError
from pgbreaker.cli.following import LOST, follow
from unit.cli.streaming import event, status, streaming


def taken(url: str, count: int, waits: list[float] | None = None, **more):
    """The first events of the stream at *url*."""
    wait = [].append if waits is None else waits.append
    asked = Asked.found(url, None, {})
    return list(islice(follow(asked, silence=5.0, wait=wait, **more), count))


def test_an_event_is_its_name_its_id_and_its_data():
    text = (
        ": a comment\n\n"
        "event: snapshot\ndata: {}\n\n"
        "id: 7\nevent: transition\ndata: [1,\ndata: 2]\n\n"
        "event: heartbeat\n\n"
        "data: unnamed\r\n\r\n"
    )
    with streaming(text) as there:
        events = taken(there.url, 5)

    assert [(e.kind, e.id, e.data) for e in events] == [
        ("comment", None, ""),
        ("snapshot", None, "{}"),
        ("transition", "7", "[1,\n2]"),
        ("heartbeat", "7", ""),
        ("message", "7", "unnamed"),
    ]


def test_a_stream_that_ends_is_taken_up_after_what_was_seen():
    waits: list[float] = []
    first = event("snapshot", status()) + event("transition", {}, 7)

    with streaming(first, event("transition", {}, 8)) as there:
        events = taken(there.url, 4, waits, after="3")

        assert there.after == ["3", "7"]
    assert [e.kind for e in events] == ["snapshot", "transition", LOST, "transition"]
    assert waits == [0.5]


def test_that_the_daemon_is_away_is_told_once():
    with streaming(event("transition", {}, 7)) as there:
        there.ended.set()
        stream = follow(
            Asked.found(there.url, None, {}), silence=5.0, wait=lambda _: None
        )
        first = [next(stream), next(stream)]
        # It answers again, and has no such stream any more.
        with pytest.raises(EndError) as caught:
            next(stream)

    assert [e.kind for e in first] == ["transition", LOST]
    assert caught.value.exit_code == 1


def test_a_daemon_that_never_was_there_is_no_stream():
    with pytest.raises(EndError) as caught:
        taken("http://127.0.0.1:1", 1)

    assert caught.value.exit_code == 69
