"""What a version leaves to its successors: a store with some of everything, written by a
daemon of that version, and configurations with what they mean. In
`tests/fixtures/VERSION/`; nothing there is ever changed again.

    state.db        the store              content.json   what is in it
    *.yaml          configurations         *.shown.json   what is in force by them
"""

import asyncio
import contextlib
import json
import re
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pgbreaker import config
from pgbreaker.clock import Clock
from pgbreaker.core.plan import StorePlan
from pgbreaker.core.wanted import Wanted
from pgbreaker.sinks.store import Bucket, Counts, Store
from release.tree import ROOT, ReleaseError, version
from support.lives import NOWHERE, Life, breakers
from support.process import free_port
from support.servers import running_server

FIXTURES = "tests/fixtures"
FOREVER = 9_000_000_000.0
"""The end of what is still to hold whenever it is read, in seconds since the epoch."""

_ALL = 10_000
_TARGETS = ("main", "gone")
_AUTHOR = {"author": "mia", "reason": "kept as a fixture"}
# A line of the example that is a comment only because it is not usual.
_OPTION = re.compile(r"^( *)# ( *[a-z_]+:.*| {2,}[a-z_]+:.*)$", re.MULTILINE)
_NEEDS_FILES = re.compile(r"^ *(include|web_config):.*\n", re.MULTILINE)


# -- What is in a store ------------------------------------------------------------


async def content(path: Path, at: float) -> dict[str, Any]:
    """All that the store at *path* holds, fit for JSON.

    Args:
        at: The time that it is opened at, in seconds since the epoch: what is old goes.

    Raises:
        ReleaseError: It is not whole.
    """
    clock = Clock(wall=lambda: at)
    store = await Store.open(StorePlan(path=path, max_size=64 * 1024**2), clock)
    try:
        wrong = store.degraded or await store.verify_audit()
        if wrong is not None:
            raise ReleaseError(f"the store is not whole: {wrong}")
        names = [f"{t}/{o}" for t in _TARGETS for o in ("connect", "read", "write")]
        held = store.restored()
        found = {
            "entries": await store.entries(Wanted(limit=_ALL)),
            "audit": await store.audit(_ALL),
            "overrides": held.overrides,
            "windows": held.windows,
            "memories": held.memories,
            "learned": {target: one.memory() for target, one in held.learned.items()},
            "failures": {t: await store.failures(t) for t in _TARGETS},
        }
        for hours in (False, True):
            each = "hours" if hours else "minutes"
            pings = {t: await store.buckets(t, 0, hours=hours) for t in _TARGETS}
            shut = {n: await store.shut(n, 0, hours=hours) for n in names}
            found |= {f"pings by {each}": pings, f"shut by {each}": shut}
    finally:
        await store.close()
    plain: dict[str, Any] = json.loads(json.dumps(found, default=asdict))
    return plain


# -- What a configuration means ----------------------------------------------------


def meaning(path: Path) -> dict[str, Any]:
    """What is in force by the configuration at *path*, in an empty environment."""
    found: dict[str, Any] = config.shown(
        config.parse(path.read_bytes(), path.name, env={})
    )
    return found


def _with_every_key(example: str) -> str:
    """The example, with what is usually a comment in force, but for what needs files."""
    whole = _NEEDS_FILES.sub("", _OPTION.sub(r"\1\2", example))
    return re.sub(r"/(var/lib|run)/pgbreaker/", "/tmp/", whole)


# -- Writing it --------------------------------------------------------------------


def write_fixtures() -> int:
    """Write the fixtures of this version, once.

    Raises:
        ReleaseError: They are there.
    """
    into = ROOT / FIXTURES / version()
    if into.exists():
        raise ReleaseError(f"{into} is there, and stays as it is")
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        _write_configs(made)
        _write_store(Path(temporary), made)
        shutil.copytree(made, into)
    print(
        f"{into.relative_to(ROOT)}: {', '.join(sorted(p.name for p in into.iterdir()))}"
    )
    return 0


def _write_configs(into: Path) -> None:
    example = (ROOT / "config/pgbreaker.yaml").read_text("utf-8")
    texts = {
        "example": example,
        "every-key": _with_every_key(example),
        "minimal": (ROOT / "config/minimal.yaml").read_text("utf-8"),
    }
    for name, text in texts.items():
        path = into / f"{name}.yaml"
        path.write_text(text, "utf-8")
        _write_json(path.with_suffix(".shown.json"), meaning(path))


def _write_store(home: Path, into: Path) -> None:
    path = home / "state.db"
    with running_server(17) as server:
        _live(server, home, path)
    at = asyncio.run(_outlast(path))
    _write_json(into / "content.json", {"at": at} | asyncio.run(content(path, at)))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
        )
        for (table,) in tables.fetchall():
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            if not count:
                raise ReleaseError(f"nothing is in {table}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(path, into / "state.db")


def _live(server: Any, home: Path, path: Path) -> None:
    """A daemon's life, with a crash of the server and orders of all kinds."""
    port = free_port()
    text = (
        f"version: 1\ntargets:\n"
        f"  - {{name: main, dsn: '{server.dsn(user='pgbreaker', database='app')}'}}\n"
        f"  - {{name: gone, dsn: '{NOWHERE}'}}\n"
        f"store: {{path: '{path}'}}\nhttp: {{listen: '127.0.0.1:{port}'}}\n"
    )
    file = home / "pgbreaker.yaml"
    file.write_text(text, "utf-8")
    life = Life(file, port, home / "log")
    try:
        life.until(lambda s: _states(s) == {"main": "closed", "gone": "open"})
        for target, state in (("main/write", "open"), ("main/connect", "disabled")):
            address = f"/api/v1/breakers/{target}/override"
            life.ask(address, "PUT", {"state": state, "for": "1h", **_AUTHOR})
        life.ask(address, "DELETE", _AUTHOR)
        window = {"targets": ["gone"], "for": "1h", **_AUTHOR}
        for _ in range(2):
            begun = life.ask("/api/v1/maintenance", "POST", window)
        life.ask(f"/api/v1/maintenance/{begun['id']}", "DELETE", {"author": "mia"})
        server.stop("immediate")
        life.until(lambda s: _states(s) == {"main": "open", "gone": "open"})
        server.start()
        life.until(
            lambda s: _states(s) == {"main": "closed", "gone": "open"}, within=30
        )
        file.write_text(text.replace("name: main,", "name: main, labels: {env: prod},"))
        life.ask("/-/reload", "POST")
        events = life.ask("/api/v1/events?limit=500")["events"]
        (opening, *_) = (e["id"] for e in events if e["kind"] == "transition")
        note = {"text": "it was the disk", "author": "mia"}
        life.ask(f"/api/v1/events/{opening}/notes", "POST", note)
        life.process.send_signal(signal.SIGTERM)
        life.process.wait(20)
    finally:
        life.kill()


def _states(status: Mapping[str, Any]) -> dict[str, str]:
    """Target -> the state of its breaker for reads."""
    found = breakers(dict(status)).items()
    return {
        name.partition("/")[0]: breaker["state"]
        for name, breaker in found
        if name.endswith("/read")
    }


async def _outlast(path: Path) -> float:
    """Have an override and a window hold for good, and counters be there that take hours
    to come about. Returns the time of the last entry."""
    clock = Clock()
    store = await Store.open(StorePlan(path=path, max_size=64 * 1024**2), clock)
    entries = await store.entries(Wanted(limit=_ALL))
    last = entries[-1]
    more = [
        replace(
            next(e for e in reversed(entries) if named in e.details),
            id=last.id + number,
            at=last.at,
            author="mia",
            **given,
        )
        for number, named, given in (
            (1, "state", {"breaker": "main/read", "text": "main/read: forced open"}),
            (2, "targets", {"text": "maintenance of gone"}),
        )
    ]
    details = (
        {"state": "forced_open", "until": FOREVER},
        {"starts": last.at, "ends": FOREVER},
    )
    await store.record(
        replace(entry, details={**entry.details, **much})
        for entry, much in zip(more, details, strict=True)
    )
    minute = int(last.at // 3600) * 3600
    counts = Counts()
    counts.pings["main", minute] = Bucket(minute, 59, 0.12, 0.011, 1)
    counts.shut["main/read", minute] = 12.5
    store.count(counts)
    await store.close()
    return last.at


def _write_json(path: Path, found: object) -> None:
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", "utf-8")
