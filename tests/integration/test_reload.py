"""The configuration is another while the daemon runs, by real servers."""

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from pgbreaker.app import Source, running
from pgbreaker.core.reading import Reading
from pgbreaker.core.states import State, Transition
from support.servers import count_connections, one_breakable_server, one_server
from support.storing import until

NOWHERE = "postgresql://nobody:hunter2@127.0.0.1:1/app"
INTERVAL = 0.2


class Told:
    """Remembers what was told, a sink."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def __call__(self, event: object) -> None:
        self.events.append(event)

    def moves(self, target: str) -> list[Transition]:
        return [
            event
            for event in self.events
            if isinstance(event, Transition) and event.breaker.startswith(f"{target}/")
        ]

    def pings(self, target: str) -> list[Reading]:
        return [
            event
            for event in self.events
            if isinstance(event, Reading)
            and (event.target, event.probe) == (target, "ping")
        ]


class File:
    """A configuration that tests write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *targets: str, more: str = "") -> None:
        lines = "".join(f"  - {{{target}}}\n" for target in targets)
        self.path.write_text(f"version: 1\ntargets:\n{lines}{more}", "utf-8")


def target(name: str, dsn: str, **more: object) -> str:
    words = [f"name: {name}", f"dsn: '{dsn}'", *(f"{k}: {v}" for k, v in more.items())]
    return ", ".join(words)


@pytest.fixture
def file(tmp_path):
    return File(tmp_path / "pgbreaker.yaml")


@asynccontextmanager
async def latest():
    """How late the loop was at worst meanwhile, in seconds; the machine is others', too."""
    worst = [0.0]

    async def tick() -> None:
        while True:
            due = time.monotonic() + 0.01
            await asyncio.sleep(0.01)
            worst[0] = max(worst[0], time.monotonic() - due)

    ticking = asyncio.create_task(tick())
    yield worst
    ticking.cancel()


@asynccontextmanager
async def daemon(file: File):
    source, told = Source(file.path, "127.0.0.1:0"), Told()
    async with running(source.read(), source=source, also=[told], env={}) as one:
        yield one, told


@one_server
async def test_who_is_not_meant_loses_no_probe_and_does_not_move(file, server):
    """
    Another target is changed, taken out and put back, as fast as that goes.
    """
    dsn = server.dsn(user="pgbreaker")
    main = target("main", dsn, interval="200ms")
    others = (
        (target("other", dsn, interval="1s"),),
        (target("other", dsn, interval="2s"),),
        (),
        (target("new", NOWHERE), target("other", dsn)),
    )
    file.write(main, *others[0])
    async with daemon(file) as (one, told):
        await until(lambda: len(told.pings("main")) > 2)
        before = one.board.targets["main"]
        pid, held = before.facts["backend_pid"], before.held_since
        reloads, end = 0, time.monotonic() + 3.0
        async with latest() as late:
            for other in itertools.cycle(others):
                file.write(main, *other)
                reloads += len((await one.renewal.reload("mia")).changes) > 0
                if time.monotonic() > end:
                    break
                await asyncio.sleep(0.01)

        assert one.board.targets["main"] is before
        assert (before.facts["backend_pid"], before.held_since) == (pid, held)
        assert one.trouble is None
    begins = [reading.at for reading in told.pings("main")]
    gaps = [b - a for a, b in itertools.pairwise(begins)]
    assert reloads > 30
    assert max(gaps) < 1.9 * INTERVAL + late[0]
    assert all(reading.answered for reading in told.pings("main"))
    assert told.moves("main") == []
    assert [m for m in told.moves("other") if m.after is not State.CLOSED] == []


async def test_a_target_that_is_changed_goes_on_where_it_was(file):
    file.write(target("gone", NOWHERE))
    async with daemon(file) as (one, told):
        await until(lambda: len(told.moves("gone")) >= 3)
        old = one.board.targets["gone"]
        breaker = old.breakers["read"]
        state, since, reason = breaker.state, breaker.since, breaker.reason
        count = len(told.moves("gone"))

        breaking = "{max_timeout: 30s, success_threshold: 5}"
        file.write(target("gone", NOWHERE, interval="2s", breaker=breaking))
        done = await one.renewal.reload()
        new = one.board.targets["gone"]
        moved = told.moves("gone")[count:]
        text = await scraped(one)

    after = new.breakers["read"]
    assert len(done.changes) == 3
    assert done.later == ()
    assert new is not old
    assert after.policy.success_threshold == 5
    assert (after.state, after.reason) == (state, reason)
    assert after.since == pytest.approx(since, abs=0.001)
    assert moved == []
    assert new.moved["read"] == old.moved["read"]
    assert new.readings["ping"] is old.readings["ping"]
    opened = 'breaker="gone/read",from="closed",to="open",cause="confirmed"} 1\n'
    assert opened in text


@one_server
async def test_what_is_taken_out_is_gone_everywhere(file, server):
    dsn = server.dsn(user="pgbreaker")
    file.write(target("main", dsn), target("leaver", dsn))
    async with daemon(file) as (one, told):
        await until(lambda: told.pings("main") and told.pings("leaver"))
        file.write(target("main", dsn))
        await one.renewal.reload()
        seen = len(told.events)
        metrics, page = await scraped(one), await scraped(one, "/")
        status = await scraped(one, "/api/v1/status")
        await until(lambda: count_connections(server, "pgbreaker") <= 2)
        later = [e for e in told.events[seen:] if getattr(e, "target", "") == "leaver"]

    assert 'target="main"' in metrics
    for text in (metrics, page, status):
        assert "leaver" not in text
    assert later == []


@one_server
async def test_what_is_put_in_is_watched_at_once_in_the_order_of_the_file(file, server):
    dsn = server.dsn(user="pgbreaker")
    file.write(target("main", dsn))
    async with daemon(file) as (one, told):
        await until(lambda: told.pings("main"))
        file.write(target("first", dsn), target("main", dsn))
        await one.renewal.reload()
        order = list(one.board.targets)
        await until(lambda: one.board.targets["first"].is_up, within=3.0)

    assert order == ["first", "main"]
    assert told.moves("first") == []


@one_breakable_server
async def test_a_frozen_server_does_not_hold_up_who_reloads(file, fresh_server):
    dsn = fresh_server.dsn(user="pgbreaker")
    file.write(target("main", dsn), target("gone", NOWHERE))
    async with daemon(file) as (one, told):
        await until(lambda: told.pings("main") and told.moves("gone"))
        fresh_server.freeze()
        file.write(target("gone", NOWHERE))
        begun = time.monotonic()
        await one.renewal.reload()
        took = time.monotonic() - begun
        fresh_server.thaw()

    assert took < 0.5


async def scraped(one, path: str = "/metrics") -> str:
    host, port = one.address
    async with (
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
        client.get(path) as answer,
    ):
        assert answer.status == 200
        return await answer.text()
