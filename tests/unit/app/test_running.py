"""The daemon put together, as far as that takes no server."""

import asyncio
import re
from contextlib import asynccontextmanager, closing

import aiohttp
import pytest

from pgbreaker.app import Source, running
from pgbreaker.core.forecast.warning import FAILURE
from pgbreaker.sinks.store import Learned
from pgbreaker.sinks.store.file import connect, uri_of
from support.otlp import attributes, collector
from support.storing import override, storing, until

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


async def scraped(one) -> str:
    host, port = one.address
    async with (
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
        client.get("/metrics") as answer,
    ):
        return await answer.text()


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


async def test_a_daemon_tells_until_when_the_one_before_it_watched(path, tmp_path):
    path.write_text(GONE, "utf-8")
    env = {"STATE_DIRECTORY": str(tmp_path)}
    async with daemon(path, **env):
        pass
    async with daemon(path, **env) as one:
        told = await asked(one, "/api/v1/events?kind=daemon")

    first, stop, second = [entry["details"] for entry in told["events"]]
    ids = [entry["id"] / 1000 for entry in told["events"]]
    assert (first["phase"], stop["phase"], second["phase"]) == (
        "start",
        "stop",
        "start",
    )
    assert "watched_until" not in first
    assert ids[0] <= second["watched_until"] <= ids[2]


async def test_the_record_of_warnings_outlives_the_process(path, tmp_path):
    """The server is nowhere, and nobody warned of it: that is missed once, and not again
    by the next process, which finds the breakers open."""
    path.write_text(GONE, "utf-8")
    env = {"STATE_DIRECTORY": str(tmp_path)}
    records = []
    for _ in range(2):
        async with daemon(path, **env) as one:
            target = one.board.targets["gone"]
            await until(lambda target=target: missed(target) == 1)
            records.append(target.foretold().record[FAILURE].missed)

    assert records == [1, 1]


def missed(target) -> int:
    return target.foretold().record[FAILURE].missed


async def test_what_was_learned_and_damaged_since_is_said_once(path, tmp_path, caplog):
    path.write_text(GONE, "utf-8")
    file = tmp_path / "state.db"
    async with storing(file) as store:
        store.learn({"gone": Learned(store._clock.wall(), b"no such thing")})

    async with daemon(path, STATE_DIRECTORY=str(tmp_path)) as one:
        await until(lambda: missed(one.board.targets["gone"]) == 1)
        assert one.trouble is None

    assert caplog.text.count("the forecasts of gone begin anew: it was damaged") == 1


async def test_an_audit_log_that_somebody_changed_is_told_at_the_start(path, tmp_path):
    path.write_text(GONE, "utf-8")
    file = tmp_path / "state.db"
    async with storing(file) as store:
        await store.record([override(1), override(2, None)])
    with closing(connect(uri_of(file, "mode=rw"))) as connection:
        connection.execute("UPDATE audit SET author = 'eve' WHERE number = 2")

    async with daemon(path, STATE_DIRECTORY=str(tmp_path)) as one:
        async with asyncio.timeout(5.0):
            told: list[str] = []
            while len(told) < 2:
                events = await asked(one, "/api/v1/events?kind=daemon")
                told = [entry["text"] for entry in events["events"]]
        status = await asked(one, "/api/v1/status")
        audit = await asked(one, "/api/v1/audit?verify=true")
        trouble = one.trouble

    fault = "line 2 of the audit log was changed"
    assert told[1].startswith(f"the audit log is not as it was written: {fault}")
    assert status["store"]["audit_fault"] == audit["fault"] == fault
    assert trouble is None


async def test_what_the_recording_and_the_log_leave_out_is_counted(path, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path.write_text(f"{GONE}record: {{path: {folder}/seen.jsonl}}\n", "utf-8")
    config = Source(path, "127.0.0.1:0").read()
    folder.rmdir()

    async with running(config) as one, asyncio.timeout(10.0):
        text = ""
        while "pgbreaker_recording_failures_total 1" not in text:
            text = await scraped(one)

    (left_out,) = re.findall(r"^pgbreaker_recording_dropped_total (\d+)$", text, re.M)
    assert int(left_out) >= 1
    assert "pgbreaker_log_dropped_total 0\n" in text


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
