"""What coming in consists of, and how long each part of it took: also of what failed."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.secret import Secret
from pgbreaker.postgres.target import Target
from pgbreaker.postgres.wire import Step, Wire


@asynccontextmanager
async def answering(*words: bytes):
    """A server that sends one of *words* for whatever it is sent, and then is silent."""
    silent = asyncio.Event()

    async def answer(reader, writer):
        for word in words:
            await reader.read(4096)
            writer.write(word)
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        silent.set()
        server.close()
        await server.wait_closed()


READY = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"


async def test_each_step_is_told_with_its_time():
    async with answering(READY) as port:
        dsn = f"postgresql://me@127.0.0.1:{port}/app?sslmode=disable"
        steps: list[Step] = []

        wire = await Wire.connect(dsn, steps=steps)
        await wire.close()

    assert [name for name, _ in steps] == ["tcp", "auth"]
    assert all(took > 0 for _, took in steps)
    assert wire.steps == tuple(steps)


async def test_a_name_is_looked_up_and_tls_is_tried_where_there_are_any():
    async with answering(b"N", READY) as port:
        dsn = f"postgresql://me@localhost:{port}/app?sslmode=prefer"

        wire = await Wire.connect(dsn)
        await wire.close()

    assert [name for name, _ in wire.steps] == ["dns", "tcp", "tls", "auth"]


async def test_of_a_login_that_hangs_is_told_in_which_step():
    async with answering() as port:
        dsn = Secret(f"postgresql://me@127.0.0.1:{port}/app?sslmode=disable")
        target = Target(TargetPlan(name="main", dsn=dsn, probes={}))
        steps: list[Step] = []

        with pytest.raises(TimeoutError, match="not let in within"):
            await target.visit("login", 0.1, limit=1.0, steps=steps)

    took = dict(steps)
    assert list(took) == ["tcp", "auth"]
    assert took["auth"] > 0.05 > took["tcp"]


async def test_a_name_that_nobody_knows_is_told_as_before():
    steps: list[Step] = []

    with pytest.raises(socket.gaierror):
        await Wire.connect("postgresql://me@no-such-host.invalid/app", steps=steps)

    assert [name for name, _ in steps] == ["dns"]


async def test_every_address_of_a_name_is_tried():
    """Where all of them refuse, it is told as asyncio would."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

        with pytest.raises(OSError, match="Connect call failed") as raised:
            await Wire.connect(f"postgresql://me@localhost:{port}/app?sslmode=disable")
        with pytest.raises(OSError, match="Connect call failed") as usual:
            await asyncio.open_connection("localhost", port)

    assert str(raised.value) == str(usual.value)
