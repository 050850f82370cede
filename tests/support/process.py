"""Programs that tests run: Prometheus and its kin, who tell when they are ready."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

READY_WITHIN = 20.0
STOPPED_WITHIN = 10.0
# Below the ports that the kernel hands out to clients, which may be taken any time.
_PORTS = range(15_000, 32_000)


@asynccontextmanager
async def running(*command: str | Path, url: str, log: Path) -> AsyncIterator[None]:
    """Have *command* run for the time of the block, which begins when it is ready.

    Args:
        url: Where it answers ``/-/ready``.
        log: The file for what it says.
    """
    with log.open("wb") as told:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=told, stderr=told
        )
    try:
        await _ready(process, url, log)
        yield
    finally:
        await _stop(process)


async def _ready(process: asyncio.subprocess.Process, url: str, log: Path) -> None:
    """Wait until it answers; fails with its log when it ends or takes too long."""
    try:
        async with asyncio.timeout(READY_WITHIN), aiohttp.ClientSession() as http:
            while process.returncode is None:
                try:
                    async with http.get(f"{url}/-/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass  # not yet
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    said = await asyncio.to_thread(log.read_text, "utf-8")
    raise AssertionError(f"what is to answer at {url} is not ready: {said}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOPPED_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no free port between {_PORTS.start} and {_PORTS.stop}")
