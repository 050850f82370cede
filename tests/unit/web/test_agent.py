"""What HAProxy's agent checks are answered, on a socket that really listens."""

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest

from pgbreaker.core.plan import HaproxyPlan
from pgbreaker.core.states import Override, State
from pgbreaker.errors import PgbreakerError
from pgbreaker.web import agent
from pgbreaker.web.agent import LINE, answering
from support.boards import Scene

HERE = HaproxyPlan(listen=("127.0.0.1", 0))


@pytest.fixture
def scene():
    scene = Scene()
    scene.read()
    return scene


@asynccontextmanager
async def asking(scene, **more):
    """Yields what asks *scene*'s agent one question."""
    async with answering(HERE, scene.board, lambda: scene.time.now, **more) as address:

        async def ask(question: bytes) -> bytes:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(question)
            try:
                async with asyncio.timeout(5.0):
                    return await reader.read()
            finally:
                writer.close()

        yield ask


async def test_a_breaker_that_is_closed_is_up_and_one_that_is_open_is_down(scene):
    async with asking(scene) as ask:
        closed = await ask(b"main/connect\n")
        scene.open("connect")
        opened = await ask(b"main/connect\r\n")
        other = await ask(b"main/read\n")

    assert (closed, other) == (b"up\n", b"up\n")
    assert opened == b"down # main/connect is open\n"


async def test_an_operators_reason_is_told_to_nobody_who_has_not_logged_in(scene):
    breaker = scene.board.targets["main"].breakers["write"]
    breaker.force(
        Override(State.FORCED_OPEN, "disk of db1 is dying", "ana", 700.0), 100.0
    )

    async with asking(scene) as ask:
        assert await ask(b"main/write\n") == b"down # main/write is forced_open\n"


async def test_a_daemon_that_has_just_started_says_neither_up_nor_down():
    """
    Its breakers are closed for want of news: HAProxy would give work to a server that
    the daemon before this one had found dead.
    """
    async with asking(Scene()) as ask:
        assert await ask(b"main/write\n") == b"# main was not asked yet\n"


async def test_a_breaker_that_there_is_not_changes_nothing_and_is_told_once(
    scene, caplog
):
    with caplog.at_level(logging.WARNING, "pgbreaker.web.agent"):
        async with asking(scene) as ask:
            for question in (b"main/wriet\n", b"\n", b"x\x1b[31m/y\n"):
                assert (await ask(question)).startswith(b"# no breaker is called ")
            (told,) = caplog.messages
            scene.time.now += 61.0
            await ask(b"main/wriet\n")

    assert "'main/wriet', which is no breaker" in told
    assert caplog.messages[1].endswith("after 2 such questions")


async def test_who_asks_nothing_is_told_so_and_hung_up_on(scene):
    async with asking(scene, within=0.05) as ask:
        assert await ask(b"main/write") == b"# nothing was asked\n"


async def test_a_question_without_an_end_is_not_read_to_it(scene):
    async with asking(scene) as ask:
        try:
            answer = await ask(b"x" * (LINE + 1))
        except ConnectionResetError:
            answer = b""

    assert answer == b""


async def test_connections_are_few(scene, monkeypatch):
    monkeypatch.setattr(agent, "MOST", 2)

    async with answering(HERE, scene.board, lambda: 0.0) as address:
        waiting = [await asyncio.open_connection(*address) for _ in range(2)]
        first, second = waiting
        second[1].write(b"main/rea")  # whoever is here is heard before others come
        await second[1].drain()
        reader, writer = await asyncio.open_connection(*address)
        try:
            turned_away = await reader.read()
        except ConnectionResetError:
            turned_away = b""
        first[1].write(b"main/read\n")
        served = await first[0].read()
        for _, one in (*waiting, (reader, writer)):
            one.close()

    assert (turned_away, served) == (b"", b"up\n")


async def test_an_address_that_is_taken_is_named(scene):
    async with answering(HERE, scene.board, lambda: 0.0) as (host, port):
        with pytest.raises(PgbreakerError, match=rf"{host}:{port}: .*haproxy.listen"):
            async with answering(
                HaproxyPlan(listen=(host, port)), scene.board, lambda: 0.0
            ):
                pass
