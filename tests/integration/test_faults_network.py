"""Faults of the way to a server: its name, its certificate, its length.

Black holes, resets and refusals are with the other faults of whole servers.
"""

import asyncio
import contextlib
import json
import time
import urllib.request
from dataclasses import replace

import pytest

from pgbreaker.core.policy import DAEMON
from pgbreaker.core.reading import Finding
from pgbreaker.demo.proxy import Proxy
from pgbreaker.sinks.board import Condition
from support.authority import Authority
from support.names import Names, daemon_by
from support.servers import psql, quiet, running_server
from support.watching import DEFAULT, QUICK, Watching


@pytest.fixture(scope="module")
def shared():
    with running_server(15) as server:
        yield server


@pytest.fixture
async def server(shared):
    yield shared
    await quiet(shared)


# How long it is.


async def test_a_way_of_140_ms_opens_nothing(server):
    """There and back, as across an ocean: a login takes that five times."""
    async with Proxy("127.0.0.1", server.port) as proxy:
        proxy.delay(0.07)
        dsn = server.dsn(user="pgbreaker", port=proxy.port)
        async with Watching(dsn, probes=QUICK) as watching:
            await _until_asked_often(watching)

            assert watching.openings == []
            assert watching.board.condition is Condition.UP


async def test_a_way_of_300_ms_opens_nothing_where_that_is_not_slow(server):
    """By the defaults a ping of 250 ms is slow, and a login of 1 s none; so whoever
    watches from that far away has to say what is slow there."""
    login = replace(QUICK["login"], timeout=4.0)
    policy = replace(DAEMON, slow_call=1.0)
    async with Proxy("127.0.0.1", server.port) as proxy:
        proxy.delay(0.15)
        async with Watching(
            server.dsn(user="pgbreaker", port=proxy.port),
            probes=QUICK | {"login": login},
            policy=policy,
        ) as watching:
            await _until_asked_often(watching)

            assert watching.openings == []
            assert watching.board.condition is Condition.UP


async def test_a_login_that_is_late_is_no_news_of_commits(server):
    """The login's question runs out of time, and with it ends the session on which the
    commit was to be tried; that is tried on another then."""
    login = replace(QUICK["login"], timeout=0.9)  # 4 times there and back, and no fifth
    async with Proxy("127.0.0.1", server.port) as proxy:
        proxy.delay(0.1)
        async with Watching(
            server.dsn(user="pgbreaker", port=proxy.port),
            probes=QUICK | {"login": login},
        ) as watching:
            await watching.until_open("connect", within=15.0)
            await watching.until(lambda: watching.answers("commit") >= 3, within=15.0)

            assert watching.findings("commit") == {Finding.OK}
    assert watching.opened == {"connect"}


async def _until_asked_often(watching):
    probes = ("login", "commit", "identity")
    await watching.until(
        lambda: watching.answers("ping") >= 6 and all(map(watching.answers, probes)),
        within=25.0,
    )


# Its certificate.


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    home = tmp_path_factory.mktemp("authorities")
    return Authority.found(home / "ours"), Authority.found(home / "strangers")


async def test_a_certificate_of_a_stranger_moves_no_breaker(server, authorities):
    """It is for somebody to look at; and the login is not tried again and again."""
    ours, strangers = authorities
    ours.certify(server)
    try:
        dsn = server.dsn(user="pgbreaker").replace("127.0.0.1", "localhost")
        dsn += f"?sslmode=verify-full&sslrootcert={ours.root}"
        async with Watching(dsn, probes=DEFAULT) as watching:
            await watching.until_watched()
            await watching.until_closed()

            logins = len(watching.readings("login"))
            strangers.certify(server)
            await watching.until(
                lambda: watching.readings("login")[-1].finding is Finding.AUTH,
                within=8.0,
            )
            pings = watching.answers("ping")
            await watching.until(
                lambda: watching.answers("ping") >= pings + 4, within=15.0
            )
            # The session that is held was let in before.
            assert watching.board.condition is Condition.DEGRADED
            assert "certificate verify failed" in watching.board.reason
            tried = watching.readings("login")[logins:]
            assert sum(r.finding is Finding.AUTH for r in tried) <= 2

            psql(
                server,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'pgbreaker'",
            )
            await watching.until(lambda: "locked_out" in watching.noticed, within=5.0)
            assert watching.board.condition is Condition.UNKNOWN
            assert "certificate verify failed" in watching.noticed["locked_out"]

            ours.certify(server)
            await watching.until(lambda: "let_in" in watching.noticed, within=30.0)
            await watching.until_closed(within=15.0)
            assert watching.moves == []
    finally:
        psql(server, "ALTER SYSTEM RESET ssl")
        psql(server, "SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    "parameters",
    [
        "sslmode=verify-full&sslrootcert={}/gone.crt",
        "sslmode=require&sslcert={0}/gone.crt&sslkey={0}/gone.key",
    ],
)
async def test_a_file_for_tls_that_is_missing_moves_no_breaker(
    server, tmp_path, parameters
):
    """It is ours to mend; a server that serves everybody else is not down by it."""
    dsn = server.dsn(user="pgbreaker").replace("127.0.0.1", "localhost")
    dsn = f"{dsn}?{parameters.format(tmp_path)}"
    async with Watching(dsn, probes=DEFAULT) as watching:
        await watching.until(lambda: "locked_out" in watching.noticed, within=10.0)

        assert "gone.crt" in watching.noticed["locked_out"]
        assert {r.finding for r in watching.readings("ping")} == {Finding.AUTH}
        assert watching.board.condition is Condition.UNKNOWN
        assert watching.moves == []


async def test_a_password_that_was_changed_is_not_tried_again_and_again(server):
    """While the session that is held goes on: a role can be locked by bad logins."""
    async with Watching(server.dsn(user="pgbreaker"), probes=DEFAULT) as watching:
        await watching.until_watched()
        psql(server, "ALTER ROLE pgbreaker PASSWORD 'another'")
        try:
            await watching.until(
                lambda: watching.readings("login")[-1].finding is Finding.AUTH,
                within=8.0,
            )
            pings = watching.answers("ping")
            await watching.until(
                lambda: watching.answers("ping") >= pings + 5, within=15.0
            )
        finally:
            psql(server, f"ALTER ROLE pgbreaker PASSWORD '{server.password}'")

        refused = [r for r in watching.readings("login") if r.finding is Finding.AUTH]
        assert len(refused) <= 2
        assert "28P01" in str(refused[0].evidence)
        assert watching.moves == []


# Its name.

CONFIG = """
version: 1
targets:
  - name: main
    dsn: {dsn}
    interval: 200ms
    probes:
      login: {{interval: 1s}}
      commit: {{interval: 1s}}
"""


@pytest.fixture
def named(server, tmp_path):
    """A daemon that watches the server by a name, and the names that it has."""
    names = Names.below(tmp_path)
    names.resolve("db.test")
    config = tmp_path / "pgbreaker.yaml"
    dsn = server.dsn(user="pgbreaker").replace("127.0.0.1", "db.test")
    config.write_text(CONFIG.format(dsn=dsn), "utf-8")
    daemon = daemon_by(names, "--listen", "127.0.0.1:0", "--config", str(config))
    try:
        yield names, _url_of(daemon)
    finally:
        daemon.kill()
        daemon.communicate()


def _url_of(daemon):
    for line in daemon.stderr:
        message = json.loads(line)["message"]
        if "listening on " in message:
            return "http://" + message.rpartition("listening on ")[2]
    raise AssertionError("the daemon ended")


def _until(url, what, within):
    """Wait until *what* holds of the target, as the daemon tells it. Returns that."""
    deadline = time.monotonic() + within
    while True:
        with contextlib.closing(urllib.request.urlopen(url, timeout=5.0)) as answer:
            target = json.load(answer)["targets"][0]
        if what(target):
            return target
        assert time.monotonic() < deadline, target
        time.sleep(0.05)


async def test_a_name_that_is_lost_opens_connect_and_not_read(named):
    """Whoever is in goes on: reads, by the session that is held."""
    names, url = named
    url += "/api/v1/status"

    def state(target, operation):
        (breaker,) = (b for b in target["breakers"] if b["name"] == f"main/{operation}")
        return breaker["state"]

    def watch():
        _until(url, lambda t: t["state"] == "up", within=10.0)
        names.resolve()
        target = _until(url, lambda t: state(t, "connect") == "open", within=10.0)
        assert "the host's name has no address" in target["reason"]
        assert state(target, "read") == "closed"

        names.resolve("db.test")
        _until(url, lambda t: t["state"] == "up", within=15.0)

    await asyncio.to_thread(watch)
