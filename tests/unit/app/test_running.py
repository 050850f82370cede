"""The daemon put together, as far as that takes no server."""

from contextlib import asynccontextmanager

import aiohttp
import pytest

from pgbreaker.app import Source, running
from support.otlp import attributes, collector

GONE = (
    "version: 1\ntargets:\n  - {name: gone, dsn: 'postgresql://me@127.0.0.1:1/app'}\n"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pgbreaker.yaml"


@asynccontextmanager
async def daemon(path, **env: str):
    source = Source(path, "127.0.0.1:0")
    async with running(source.read(), source=source, env=env) as one:
        yield one


async def asked(one, path: str) -> dict:
    host, port = one.address
    async with (
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
        client.get(path) as answer,
    ):
        return await answer.json()


async def test_a_reload_is_a_span(path):
    async with collector() as collecting:
        otlp = f"otlp: {{endpoint: '{collecting.url}'}}\n"
        path.write_text(GONE + otlp, "utf-8")
        async with daemon(path) as one:
            path.write_text(f"{GONE}{otlp}log: {{level: DEBUG}}\n", "utf-8")
            assert one.renewal is not None
            await one.renewal.reload("ana")

        (span,) = [span for span in collecting.spans if span.name == "reload"]

    assert attributes(span) == {
        "pgbreaker.changes": ["log.level: INFO -> DEBUG"],
        "pgbreaker.author": "ana",
    }
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < 5e9


# Its store.


class PowerCut(Exception):
    """What no daemon sees coming."""


async def test_it_is_told_how_the_one_before_ended(path, tmp_path):
    path.write_text(GONE, "utf-8")
    env = {"STATE_DIRECTORY": str(tmp_path)}
    with pytest.raises(PowerCut):
        async with daemon(path, **env):
            raise PowerCut
    async with daemon(path, **env):
        pass
    async with daemon(path, **env) as one:
        told = await asked(one, "/api/v1/events?kind=daemon")

    first, after_a_cut, stops, after_that = [entry["text"] for entry in told["events"]]
    assert first.endswith(" starts, watching 1 target")
    assert after_a_cut.endswith("; the one before did not stop, it was ended")
    assert stops == "the daemon stops"
    assert after_that == first


async def test_a_store_that_was_damaged_is_an_event_and_not_for_the_log_alone(
    path, tmp_path
):
    path.write_text(GONE, "utf-8")
    (tmp_path / "state.db").write_bytes(b"SQLite format 3\0" + b"no page " * 2000)

    async with daemon(path, STATE_DIRECTORY=str(tmp_path)) as one:
        told = await asked(one, "/api/v1/events?kind=daemon")

    _, damaged = [entry["text"] for entry in told["events"]]
    assert damaged.startswith("the store was damaged and put aside as ")
    assert ".corrupt-" in damaged


async def test_the_room_that_a_service_manager_made_is_used(path, tmp_path):
    path.write_text(GONE, "utf-8")
    room = tmp_path / "room"
    room.mkdir()

    async with daemon(path, STATE_DIRECTORY=f"{room}:/nowhere"):
        pass

    assert (room / "state.db").is_file()


async def test_without_a_room_and_a_word_nothing_is_stored(path, tmp_path):
    path.write_text(GONE, "utf-8")

    async with daemon(path):
        pass

    assert list(tmp_path.iterdir()) == [path]
