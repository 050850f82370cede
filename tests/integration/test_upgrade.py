"""What every released version left behind is taken up by the present one.

`tests/fixtures/VERSION/` was written by that version; `release.fixtures` says how.
"""

import json
import shutil
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from release.fixtures import FOREVER, content, meaning
from support.lives import NOWHERE, Life, breakers
from support.process import free_port

FIXTURES = Path(__file__).parents[1] / "fixtures"
RELEASED = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
CONFIGS = [path.relative_to(FIXTURES) for path in sorted(FIXTURES.glob("*/*.yaml"))]


@pytest.fixture(params=RELEASED)
def left(request, tmp_path):
    """A copy of the store that a version left, and what is in it."""
    home = FIXTURES / request.param
    shutil.copy(home / "state.db", tmp_path)
    return tmp_path / "state.db", json.loads((home / "content.json").read_text())


def lost(then, now, place="") -> list[str]:
    """What of *then* is not the same in *now*, which may have more keys."""
    if isinstance(then, dict) and isinstance(now, dict):
        pairs = [(key, then[key], now.get(key)) for key in then]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = [(number, *pair) for number, pair in enumerate(zip(then, now))]  # noqa: B905
    else:
        return [] if then == now else [f"{place}: {then!r} became {now!r}"]
    return [line for key, *pair in pairs for line in lost(*pair, f"{place}.{key}")]


@contextmanager
def living(store: Path):
    """A daemon with a copy of that store."""
    port = free_port()
    config = store.with_name("pgbreaker.yaml")
    config.write_text(
        "version: 1\ntargets:\n"
        f"  - {{name: main, dsn: '{NOWHERE}'}}\n"
        f"  - {{name: gone, dsn: '{NOWHERE}'}}\n"
        f"store: {{path: '{store}'}}\nhttp: {{listen: '127.0.0.1:{port}'}}\n"
    )
    life = Life(config, port, store.with_name("log"))
    try:
        yield life
    finally:
        life.kill()


async def test_nothing_of_a_store_is_lost(left):
    store, wanted = left

    found = await content(store, wanted.pop("at"))

    assert lost(wanted, found) == []


async def test_what_was_decided_holds_for_the_daemon_that_takes_it_up(left):
    """It is another process, years later: only what has run out is over."""
    store, wanted = left
    now = time.time()
    with living(store) as life:
        held = breakers(life.first)
        windows = [window["id"] for window in life.first["maintenance"]]
        events = life.ask("/api/v1/events?after=0&limit=500")["events"]

    audit = (await content(store, time.time()))["audit"]
    holding = {
        name: word["state"]
        for name, word in wanted["overrides"].items()
        if word["until"] > now
    }
    assert wanted["overrides"]["main/read"]["until"] == FOREVER
    assert {name: held[name]["state"] for name in holding} == holding
    assert windows == [
        window["id"] for window in wanted["windows"] if window["details"]["ends"] > now
    ]
    known = {event["id"]: event["text"] for event in events}
    assert lost({e["id"]: e["text"] for e in wanted["entries"]}, known) == []
    # What was handed back because it has run out is sealed onto it.
    assert lost(wanted["audit"], audit[: len(wanted["audit"])]) == []


async def test_a_downgrade_is_refused_and_changes_nothing(left):
    store, _ = left
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA user_version = 1000")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = store.read_bytes()

    with living(store) as life:
        assert life.first["targets"]
    said = store.with_name("log").read_text("utf-8")

    assert "was written by a later version of pgbreaker (its schema is 1000" in said
    assert f"put the copy {store}.bak-v" in said
    assert store.read_bytes() == before


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_configuration_means_the_same(config):
    """There may be keys more; what is said, or was not said, then, holds now."""
    path = FIXTURES / config
    then = json.loads(path.with_suffix(".shown.json").read_text("utf-8"))

    assert lost(then, meaning(path)) == []


def test_what_is_compared_is_found():
    then = {"a": [1, {"b": 2}], "c": None}

    assert lost(then, {"a": [1, {"b": 2, "more": 3}], "c": None, "d": 4}) == []
    assert lost(then, {"a": [1, {"b": 3}]}) == [".a.1.b: 2 became 3"]
    assert lost(then, {"a": [1]})[0].startswith(".a: [1, {'b': 2}] became [1]")
