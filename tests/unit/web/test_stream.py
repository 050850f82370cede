"""The stream: told in time, in order, to all, and to who comes back."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest

from pgbreaker.core.entry import Kind
from pgbreaker.core.plan import HttpPlan
from pgbreaker.sinks.history import History
from pgbreaker.sinks.hub import Notice
from pgbreaker.web.api.stream import BURST, MISSED, QUEUE, Reader, Stream
from pgbreaker.web.server import serve
from support.figures import tell
from support.listening import listening
from support.site import serving
from support.storing import storing

BREAKER = "/api/v1/breakers/main/read"
STREAM = "/api/v1/stream"


@pytest.fixture
async def served():
    async with serving() as served:
        yield served


def note(served, text: str = "the server was restarted") -> None:
    """Have something happen that moves no breaker."""
    now = served.scene.time.now
    served.scene.hub.publish(Notice("main", "restarted", text, now))


async def until(what, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def test_the_first_event_is_the_whole_status(served):
    async with listening(served.client) as stream:
        first = await stream.next()

    _, status = await served.get("/api/v1/status")
    assert first.kind == "snapshot"
    assert first.data == status
    assert first.id is not None


async def test_a_move_is_told_with_its_cause_and_its_breaker(served):
    async with listening(served.client) as stream:
        await stream.until("snapshot")
        began = time.monotonic()
        served.scene.open("read")
        told = await stream.until("transition")
        took = time.monotonic() - began

    assert told.data["id"] == told.id
    assert told.data["breaker"] == "main/read"
    assert told.data["details"]["to"] == "open"
    assert told.data["breaker_status"]["state"] == "open"
    assert told.data["breaker_status"]["cause"]["sqlstate"] == "53300"
    tell("a move on the stream", f"{took * 1000:.1f} ms", "100 ms")
    assert took < 1.0  # ten times as much, where others want the processor, too


async def test_an_override_is_told_as_it_is_once_it_is_done(served):
    async with listening(served.client) as stream:
        await stream.until("snapshot")
        order = {"state": "open", "reason": "failover drill", "for": "5m"}
        async with served.client.put(f"{BREAKER}/override", json=order) as answer:
            assert answer.status == 200
        told = await stream.until("override")

    seen = told.data["breaker_status"]
    assert told.data["author"] == "someone on this machine"
    assert (seen["state"], seen["computed_state"]) == ("forced_open", "closed")
    assert seen["override"]["reason"] == "failover drill"


async def test_who_comes_back_is_told_what_they_missed_and_no_more(served):
    note(served, "first")
    async with listening(served.client) as stream:
        seen = await stream.until("snapshot")
        note(served, "second")
        seen = await stream.until("notice")
    note(served, "third")
    served.scene.open("read")

    again = {"Last-Event-ID": str(seen.id)}
    async with listening(served.client, headers=again) as stream:
        missed = [await stream.next(), await stream.next()]
        beat = await stream.next()

    assert missed[0].data["text"] == "third"
    assert [told.kind for told in missed] == ["notice", "transition"]
    assert beat.kind == "heartbeat"


async def test_the_header_goes_before_the_address_and_both_resume(served):
    note(served, "first")
    first = served.history.entries[0].id
    note(served, "second")
    second = served.history.entries[1].id

    async with listening(served.client, f"{STREAM}?after={first}") as stream:
        assert (await stream.next()).data["text"] == "second"
    again = {"Last-Event-ID": str(second)}
    path = f"{STREAM}?after={first}"
    async with listening(served.client, path, headers=again) as stream:
        assert (await stream.next()).kind == "heartbeat"


@pytest.mark.parametrize("seen", [1, 10**14])
async def test_who_saw_what_nobody_knows_of_gets_a_snapshot(served, seen):
    note(served)

    async with listening(served.client, f"{STREAM}?after={seen}") as stream:
        first = await stream.next()

    assert first.kind == "snapshot"


async def test_who_missed_too_much_gets_a_snapshot_and_resumes_behind_it(served):
    note(served, "the first")
    first = served.history.entries[0].id
    for number in range(MISSED + 1):
        note(served, f"{number}")

    async with listening(served.client, f"{STREAM}?after={first}") as stream:
        snapshot = await stream.next()
        note(served, "the last")
        told = await stream.until("notice")

    assert snapshot.kind == "snapshot"
    assert snapshot.id == told.id - 1
    assert told.data["text"] == "the last"


async def test_a_daemon_that_starts_anew_goes_on_where_the_one_before_it_was():
    async with serving() as before:
        note(before, "seen")
        seen = before.history.entries[-1]
        note(before, "missed")
    kept = list(before.history.entries)

    async with serving() as after:
        after.history.entries.extend(kept)
        after.scene.time.now += 60.0
        stream = Stream(after.history, after.inside.views, after.scene.clock)
        told = stream.tell(Reader(), seen.id)
        heard = [await anext(told) for _ in range(2)]
        await told.aclose()

    assert b"event: notice" in heard[1]
    assert b'"text":"missed"' in heard[1]


async def test_what_memory_has_no_more_comes_from_the_store(served, tmp_path):
    scene = served.scene
    async with storing(tmp_path / "state.db", clock=scene.clock) as store:
        before = History(scene.board, scene.clock, store)
        seen = await before.decide(Kind.NOTICE, "seen")
        await before.decide(Kind.NOTICE, "missed")
        scene.time.now += 60.0
        history = History(scene.board, scene.clock, store, archive=store)
        stream = Stream(history, served.inside.views, scene.clock)
        told = stream.tell(Reader(), seen.id)
        heard = [await anext(told) for _ in range(2)]
        await told.aclose()

    assert b'"text":"missed"' in heard[1]


async def test_a_reader_who_takes_nothing_is_dropped(served):
    stream = Stream(
        served.history, served.inside.views, served.scene.clock, beat=1.0, takes=0.2
    )
    inside = replace(served.inside, stream=stream)
    async with serve(HttpPlan(listen=("127.0.0.1", 0)), inside) as (host, port):
        with socket.socket() as reader:
            # The kernel takes as little as it can for them, and they nothing.
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(reader, (host, port))
            ask = f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            await loop.sock_sendall(reader, ask)
            await until(lambda: stream.listeners == 1)

            async def go_on() -> None:
                while stream.listeners:
                    note(served, "x" * 20_000)
                    await asyncio.sleep(0.001)

            async with asyncio.timeout(20):
                await go_on()

    assert stream.listeners == 0


async def test_what_happens_at_once_is_told_to_the_last(served):
    async with listening(served.client) as stream:
        await stream.until("snapshot")
        for number in range(BURST):
            note(served, f"{number}")
        told = [await stream.next() for _ in range(BURST)]

    assert [one.data["text"] for one in told] == [f"{n}" for n in range(BURST)]


async def test_of_very_much_at_once_a_snapshot_tells(served):
    async with listening(served.client) as stream:
        first = await stream.until("snapshot")
        for number in range(BURST + 1):
            note(served, f"{number}")
        told = await stream.next()

    assert told.kind == "snapshot"
    assert told.id - first.id == BURST + 1


async def test_who_is_slow_gets_one_snapshot_for_all_that_was_left_out(served):
    stream = served.inside.stream
    with stream.subscribe() as reader:
        told = stream.tell(reader, None)
        await anext(told)
        await anext(told)
        for number in range(QUEUE + 5):
            note(served, f"{number}")
            await asyncio.sleep(0)  # it is passed on behind what happened

        told_next = await anext(told)
        note(served, "later")
        await asyncio.sleep(0)
        last = await anext(told)
        await told.aclose()

    assert b"event: snapshot" in told_next
    assert f"id: {served.history.entries[-2].id}".encode() in told_next
    assert b'"text":"later"' in last


async def test_what_happens_while_they_catch_up_is_told_once(served):
    note(served, "seen")
    seen, stream = served.history.entries[-1].id, served.inside.stream
    with stream.subscribe() as reader:
        told = stream.tell(reader, seen)
        note(served, "missed")
        await asyncio.sleep(0)  # it waits in the queue, too
        heard = [await anext(told) for _ in range(3)]
        note(served, "later")
        await asyncio.sleep(0)
        heard.append(await anext(told))
        await told.aclose()

    assert b'"text":"missed"' in heard[1]
    assert b"event: heartbeat" in heard[2]
    assert b'"text":"later"' in heard[3]


def test_who_is_slow_to_take_heartbeats_has_missed_nothing():
    reader = Reader()

    for _ in range(QUEUE + 1):
        reader.push(None, b"event: heartbeat\n\n")

    assert not reader.is_behind


async def test_the_heartbeat_says_how_old_the_data_is(served):
    served.scene.read()
    served.scene.time.now += 3.0
    stream = Stream(served.history, served.inside.views, served.scene.clock, beat=0.02)

    with stream.subscribe() as reader:
        _, told = await asyncio.wait_for(reader.next(), 5)

    assert b"event: heartbeat" in told
    assert b'"age_seconds":2.998' in told
    assert b"id:" not in told


async def test_whoever_goes_away_is_forgotten(served):
    tasks = len(asyncio.all_tasks())
    async with listening(served.client) as stream:
        await stream.until("snapshot")
        assert served.inside.stream.listeners == 1

    await until(lambda: served.inside.stream.listeners == 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_one_too_many_is_told_to_come_back(served):
    scene = served.scene
    stream = Stream(served.history, served.inside.views, scene.clock, most=1)
    inside = replace(served.inside, stream=stream)
    async with serve(HttpPlan(listen=("127.0.0.1", 0)), inside) as (host, port):
        url = f"http://{host}:{port}{STREAM}"
        async with listening(served.client, url) as first:
            await first.until("snapshot")
            answer, body = await served.get(url)

    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert body["title"] == "too many streams"


async def test_at_the_end_everybody_is_told_goodbye_and_nobody_new_comes_in(served):
    async with listening(served.client) as stream:
        await stream.until("snapshot")
        note(served, "one last thing")
        closing = asyncio.create_task(served.inside.stream.close())
        assert (await stream.next()).data["text"] == "one last thing"
        assert (await stream.next()).kind == "bye"
        with pytest.raises(EOFError):
            await stream.next()
        await closing

    assert served.inside.stream.listeners == 0
    answer, _ = await served.get(STREAM)
    assert answer.status == 503


async def test_a_head_of_it_ends(served):
    async with asyncio.timeout(5), served.client.head(STREAM) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")


async def test_a_note_is_told_and_moves_nothing(served):
    note(served)
    entry = served.history.entries[-1]
    _, before = await served.get("/api/v1/status")
    async with listening(served.client) as stream:
        await stream.until("snapshot")
        await served.desk.note(entry.id, "that was me", author="ann")
        told = await stream.until("note")

    _, after = await served.get("/api/v1/status")
    assert told.data["details"] == {"of": entry.id}
    assert served.history.entries[-1].kind is Kind.NOTE
    assert before["index"] == after["index"] == entry.id
