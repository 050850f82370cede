"""Advice to those who follow: what they are told, in which order, and who takes whose place."""

import asyncio
import gc
import json
import os
import socket
import time
import weakref
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import aiohttp
import pytest

from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.states import Override, State
from pgbreaker.web.api.advising import AdviceFile, Advising
from pgbreaker.web.doors.limits import Limits
from pgbreaker.web.server import serve
from support.doors import doors, raw
from support.listening import Heard, Listener
from support.site import Served, serving

STREAM = "/api/v1/advice/stream"
ASK = f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.fixture
async def served():
    async with serving() as served:
        served.scene.read()
        served.inside.advising.look()
        yield served


class Following(Listener):
    """One who follows: the ids are the versions."""

    async def next(self, within: float = 5.0) -> Heard:
        """The next event."""
        async with asyncio.timeout(within):
            fields = await self._block()
            while "data" not in fields:
                fields = await self._block()
        return Heard(fields["event"], fields.get("id"), json.loads(fields["data"]))


@asynccontextmanager
async def following(client, seen: str | None = None, **more):
    headers = {} if seen is None else {"Last-Event-ID": seen}
    async with client.get(STREAM, headers=headers, **more) as answer:
        assert answer.status == 200, await answer.text()
        yield Following(answer)


# Seconds for what asks for all that Python knows, a million things where all tests are run.
LOOKED_AT = 120.0


@asynccontextmanager
async def beating(served, beat: float = 0.02, file=None):
    """Have the beats go on for the time of the block."""
    advising = served.inside.advising
    advising._beat = beat
    task = asyncio.create_task(advising.run(file))
    try:
        yield
    finally:
        advising.close()
        await task


async def until(holds, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


def opinions(told: Heard) -> dict[str, str]:
    return {one["breaker"]: one["opinion"] for one in told.data["advice"]}


def words(told: Heard) -> dict[str, dict]:
    return {one["breaker"]: one["override"] for one in told.data["advice"]}


# What they are told.


async def test_the_first_is_all_there_is(served):
    async with following(served.client) as stream:
        first = await stream.next()

    seq = served.inside.advising.version.seq
    names = ("main/connect", "main/read", "main/write")
    assert first.kind == "advice"
    assert first.id == f"1-{seq}"
    assert first.data["complete"]
    assert first.data["version"] == {"epoch": "1", "seq": seq}
    assert opinions(first) == dict.fromkeys(names, "healthy")


async def test_a_move_is_told_at_once_and_alone(served):
    async with following(served.client) as stream:
        first = await stream.next()
        served.scene.open("read")
        told = await stream.next()

    (one,) = told.data["advice"]
    assert not told.data["complete"]
    assert told.data["version"]["seq"] == first.data["version"]["seq"] + 1
    assert (one["breaker"], one["opinion"], one["sqlstate"]) == (
        *("main/read", "open"),
        "53300",
    )


async def test_who_comes_back_is_told_what_they_missed(served):
    async with following(served.client) as stream:
        first = await stream.next()
    served.scene.open("write")

    async with following(served.client, first.id) as stream:
        missed = await stream.next()
    async with following(served.client, missed.id) as stream:
        nothing = await stream.next()

    assert not missed.data["complete"]
    assert opinions(missed) == {"main/write": "open"}
    assert not nothing.data["complete"]
    assert opinions(nothing) == {}


@pytest.mark.parametrize("seen", ["2-1", "0-1", "1-999", "1-", "1--1", "x", "1-٣", "-"])
async def test_who_comes_from_elsewhere_is_told_all(seen, served):
    async with following(served.client, seen.encode().decode("latin-1")) as stream:
        first = await stream.next()

    assert first.data["complete"]
    assert len(first.data["advice"]) == 3


async def test_what_is_gone_is_told_by_all_that_is_left(served):
    async with following(served.client) as stream:
        first = await stream.next()
        served.scene.board.remove("main")
        served.inside.advising.look()
        told = await stream.next()
    async with following(served.client, first.id) as stream:
        back = await stream.next()

    assert (told.data["complete"], told.data["advice"]) == (True, [])
    assert (back.data["complete"], back.data["advice"]) == (True, [])


async def test_nobody_looking_any_more_is_told_by_a_beat(served):
    async with beating(served), following(served.client) as stream:
        await stream.next()
        served.scene.time.now += 3600.0
        told = await stream.until("advice")

    assert set(opinions(told).values()) == {"unknown"}


async def test_an_operators_word_is_news_and_so_is_another_end_of_it(served):
    """The same word for longer: who was not told would let go at the first end."""
    board, advising = served.scene.board.targets["main"], served.inside.advising
    breaker, now = board.breakers["read"], served.scene.time.now
    word = Override(State.FORCED_OPEN, "disk is being replaced", "mia", now + 60.0)
    async with following(served.client) as stream:
        await stream.next()
        breaker.force(word, now)
        advising.look()
        first = await stream.next()
        served.scene.time.now = now + 50.0
        served.scene.read()
        breaker.force(replace(word, until=now + 3600.0), now + 50.0)
        advising.look()
        second = await stream.next()

    assert words(first)["main/read"]["seconds_left"] == 60.0
    assert words(second)["main/read"]["seconds_left"] == 3550.0


async def test_that_less_of_a_word_is_left_is_no_news(served):
    advising, now = served.inside.advising, served.scene.time.now
    breaker = served.scene.board.targets["main"].breakers["read"]
    breaker.force(Override(State.FORCED_OPEN, "r", "mia", now + 60.0), now)
    advising.look()
    version = advising.version
    served.scene.time.now += 1.0
    advising.look()

    assert advising.version == version
    assert advising.said()["advice"][1]["override"]["seconds_left"] == 59.0


async def test_a_beat_says_which_version_still_holds(served):
    async with beating(served), following(served.client) as stream:
        first = await stream.next()
        beats = [await stream.until("heartbeat") for _ in range(3)]

    assert {beat.id for beat in beats} == {first.id}
    assert {beat.data["lease_seconds"] for beat in beats} == {6.0}


async def test_after_news_no_beat_is_of_what_was_before(served):
    """Whoever hears one would ask for all anew."""
    async with beating(served, 0.001), following(served.client) as stream:
        await stream.next()
        seqs, seen = [], 0
        for operation in ("read", "write", "connect"):
            served.scene.open(operation)
            while (told := await stream.next()).kind == "heartbeat":
                seqs.append((told.data["version"]["seq"], seen))
            seen = told.data["version"]["seq"]
        seqs.append(((await stream.next()).data["version"]["seq"], seen))

    assert all(seq >= seen for seq, seen in seqs)


async def test_beats_are_spread_and_news_does_not_wait_for_the_last_of_them(served):
    """A burst to thousands would hold up all else, here and with those who read."""
    advising = served.inside.advising
    advising._beat = 2.0
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(following(served.client)) for _ in range(60)
        ]
        for stream in streams:
            await stream.next()
        await stack.enter_async_context(beating(served, 2.0))
        first = await streams[0].next()
        served.scene.open("read")
        last = [(await streams[-1].next()).kind for _ in range(2)]

    assert first.kind == "heartbeat"
    assert last == ["advice", "heartbeat"]


async def test_after_goodbye_there_is_no_beat(served):
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(following(served.client)) for _ in range(60)
        ]
        async with beating(served, 2.0):
            for stream in streams:
                await stream.next()
            await streams[0].next()
        last = (await streams[-1].next()).kind
        with pytest.raises(EOFError):
            await streams[-1].next()

    assert last == "bye"


async def test_at_the_end_there_is_a_goodbye(served):
    async with following(served.client) as stream:
        await stream.next()
        served.inside.advising.close()
        last = await stream.next()
        with pytest.raises(EOFError):
            await stream.next()
    async with served.client.get(STREAM) as answer:
        assert answer.status == 503

    assert last.kind == "bye"


# How they are told.


async def test_a_client_of_http_1_0_is_told_without_chunks(served):
    task = asyncio.create_task(raw(served.port, ASK.replace(b"1.1", b"1.0")))
    await until(lambda: served.inside.advising.followers == 1)
    served.inside.advising.close()

    head, _, body = (await task).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body.startswith(b"id: 1-")
    assert body.endswith(b"event: bye\ndata: {}\n\n")


async def test_who_goes_is_forgotten(served):
    advising = served.inside.advising
    for _ in range(3):
        async with following(served.client) as stream:
            await stream.next()
            assert advising.followers == 1
        await until(lambda: advising.followers == 0)


async def test_those_who_follow_are_left_alone_by_the_collector_until_they_go(served):
    """To look at thousands of them would hold up news; never to, keep those who went."""
    advising = served.inside.advising

    def is_seen(transport: asyncio.Transport | None) -> bool:
        return any(known is transport for known in gc.get_objects())

    try:
        async with beating(served):
            async with following(served.client) as stream:
                await stream.next()
                one = weakref.ref(*advising._followers)
                advising._changes += 500  # as if so many had come and gone
                await until(lambda: not is_seen(one()), within=LOOKED_AT)
            await until(lambda: advising.followers == 0)
            deadline = time.monotonic() + LOOKED_AT
            while one() is not None:  # the first time it may be on its way yet
                assert time.monotonic() < deadline, gc.get_referrers(one())
                advising._changes += 500
                await until(lambda: advising._settled == advising._changes, LOOKED_AT)
    finally:
        gc.freeze()  # as the suite has it


async def test_the_kernel_is_asked_for_little_at_once(served):
    """Room for 256 kB, of which all but a request goes back, leaves the heap in pieces."""
    async with following(served.client) as stream:
        await stream.next()
        (transport,) = served.inside.advising._followers

    assert transport.max_size == 16 * 1024


async def test_one_who_reads_nothing_is_let_go_but_not_before_all_is_taken():
    """All that there is of hundreds of targets is more than may wait beside it."""
    names = [f"{'x' * 40}{number}" for number in range(800)]
    async with serving(*names) as served:
        advising = served.inside.advising
        seen = f"Last-Event-ID: 1-{advising.version.seq}\r\n\r\n".encode()
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            slow.connect(("127.0.0.1", served.port))
            slow.sendall(ASK.removesuffix(b"\r\n") + seen)
            await until(lambda: advising.followers == 1)
            (transport,) = advising._followers
            kernel = transport.get_extra_info("socket")
            kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            served.scene.board.remove(names[0])
            advising.look()
            waits = transport.get_write_buffer_size()
            advising._push(b": a beat\n\n")
            dropped_early = advising.dropped
            for _ in range(4):
                advising._push(b"data: " + b"x" * 200_000 + b"\n\n")
            await until(lambda: advising.followers == 0)
        _, metrics = await served.get("/metrics")

    assert waits > 256 * 1024
    assert dropped_early == 0
    assert advising.dropped == 1
    assert "pgbreaker_followers 0\n" in metrics
    assert "pgbreaker_followers_dropped_total 1\n" in metrics


# Whose place they take.


async def test_a_head_takes_nobodys_place(served):
    """And who asks so first may follow then, on the same connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(ASK.replace(b"GET", b"HEAD"))
    async with asyncio.timeout(5.0):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.write(ASK)
    async with asyncio.timeout(5.0):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 200 ")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_one_address_has_half_of_the_places_and_who_goes_leaves_theirs():
    async with doors(limits=Limits(followers=2)) as served:
        async with following(served.client) as stream:
            await stream.next()
            async with served.client.get(STREAM) as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "5"
            connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
            url = f"http://127.0.0.1:{served.port}"
            async with (
                aiohttp.ClientSession(url, connector=connector) as other,
                following(other) as another,
            ):
                await another.next()
        await until(lambda: served.inside.advising.followers == 0)
        async with following(served.client) as stream:
            await stream.next()


async def test_who_follows_takes_no_place_of_those_who_ask():
    async with doors(limits=Limits(connections=2, followers=20)) as served:
        writers = []
        for number in range(1, 9):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(ASK)
            writers.append(writer)
            await until(lambda n=number: served.inside.advising.followers == n)
        answer, _ = await served.get("/-/healthy")
        for writer in writers:
            writer.close()

    assert answer.status == 200


async def test_there_is_an_end_to_how_many_follow():
    served = Served("main")
    scene = served.scene
    few = Advising(scene.board, served.history, scene.clock, 1, most=1)
    served.inside = replace(served.inside, advising=few)
    async with (
        serve(HttpPlan(listen=("127.0.0.1", 0)), served.inside) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
        following(client) as stream,
    ):
        await stream.next()
        async with client.get(STREAM) as answer:
            problem = await answer.json()

    assert (answer.status, problem["detail"]) == (503, "1 follow, and no more may")


# The file.


async def test_the_file_says_it_all_and_goes_with_the_daemon(served, tmp_path):
    path = tmp_path / "advice.json"
    async with beating(served, file=AdviceFile(path)):
        await until(path.exists)
        served.scene.open("read")
        await until(lambda: '"open"' in path.read_text())
        said = json.loads(path.read_text())

    assert said["complete"]
    assert {"boot", "written_monotonic", "lease_seconds"} <= said.keys()
    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_cannot_be_written_is_told_once(served, tmp_path, caplog):
    file = AdviceFile(tmp_path / "missing" / "advice.json")
    for _ in range(3):
        file.write({"n": 1})
    problem = file.problem
    (tmp_path / "missing").mkdir()
    file.write({"n": 2})

    assert problem is not None
    assert file.problem is None
    assert len(caplog.records) == 1


async def test_a_disk_that_hangs_keeps_nobody_from_hearing(served, tmp_path):
    path = tmp_path / "advice.json"
    beside = tmp_path / f".advice.json.{os.getpid()}"
    os.mkfifo(beside)  # opening it waits for somebody who reads

    async with beating(served, file=AdviceFile(path)):
        async with following(served.client) as stream:
            await stream.next()
            for _ in range(3):
                await stream.until("heartbeat")
        with suppress(FileNotFoundError), open(beside, "rb") as reader:  # noqa: ASYNC230 - the other end waits
            reader.read()
