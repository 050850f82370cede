"""Applications that follow a daemon: what they hear, and what is left when it is gone."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from pgbreaker import (
    CircuitOpenError,
    PostgreSQLCircuitBreaker,
    PostgreSQLCircuitBreakerConfig,
    State,
)
from pgbreaker.core.states import Cause
from pgbreaker.guard.follow import Follower
from pgbreaker.guard.target import Target
from support.process import free_port
from support.servers import running_server

LEASE = 6.0
CONFIG = PostgreSQLCircuitBreakerConfig(minimum_calls=5, success_threshold=2)


def until(holds, within: float = 10.0) -> float:
    """Wait until it *holds*. Returns how long it took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within, "it did not come about"
        time.sleep(0.005)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def _server():
    with running_server(17) as one:
        yield one


@pytest.fixture
def server(_server):
    yield _server
    if not _server.is_running:
        _server.start()


@pytest.fixture
def follow():
    """Follows, and ends that with the test."""
    started = []

    def start(*urls: str, **more) -> Follower:
        follower = Follower(urls, **more)
        if follower.reporter is not None:
            follower.reporter.every = 0.2  # until the daemon says otherwise
        follower.start()
        started.append(follower)
        return follower

    yield start
    for follower in started:
        follower.stop(0.0)


@pytest.fixture
def target():
    """An application's own view of the server; nobody calls."""
    one = Target("main", CONFIG)
    one.breaker("read"), one.breaker("write"), one.breaker("report")
    return one


@pytest.fixture
def watching(daemon, config, server):
    port = free_port()
    path = config(("main", f"'{server.dsn(user='pgbreaker')}'\n    interval: 200ms"))

    def start(**env: str):
        running = daemon("--config", str(path), "--listen", f"127.0.0.1:{port}", **env)
        running.until(lambda s: s["targets"][0]["state"] == "up")
        return running

    return start


OPENED_AND_CLOSED = {
    (State.CLOSED, State.OPEN, Cause.ADVISED): 1,
    (State.OPEN, State.CLOSED, Cause.WITHDRAWN): 1,
}


def test_who_has_seen_nothing_opens_with_the_daemon_and_closes_with_it(
    watching, follow, target, server
):
    running = watching()
    follower = follow(running.url)
    until(lambda: follower.is_connected)

    told = [target.breaker(operation) for operation in ("read", "write", "report")]
    server.kill()
    took = until(lambda: all(breaker.state is State.OPEN for breaker in told))
    states = {b.name: b.state for b in target.breakers}
    reason = target.breaker("report").explain()
    server.start()
    until(lambda: all(b.state is State.CLOSED for b in target.breakers), 15.0)

    # The daemon's own breakers are closed and so is the one above: who has a connection
    # is served, and here nobody had a say but the daemon.
    assert took < 3.0
    assert states["main/connect"] is State.CLOSED
    assert {states["main/read"], states["main/write"], states["main/report"]} == {
        State.OPEN
    }
    assert "advised: main/read is open" in reason
    assert target.breaker("read").transitions == OPENED_AND_CLOSED


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_daemon_that_is_gone_holds_nothing_open(
    how, watching, follow, target, server
):
    """Dead, it hangs up; frozen, it says nothing more, and nobody hangs up."""
    running = watching()
    follower = follow(running.url)
    until(lambda: follower.is_connected)
    server.kill()
    until(lambda: target.breaker("read").state is State.OPEN)

    running.process.send_signal(how)
    took = until(lambda: target.breaker("read").state is State.CLOSED, LEASE + 2)

    assert took <= LEASE + 0.5
    assert follower.lease == 0.0
    assert target.breaker("read").transitions == OPENED_AND_CLOSED


def test_a_daemon_that_is_started_again_moves_nothing(watching, follow, target):
    running = watching()
    follower = follow(running.url)
    until(lambda: follower.is_connected)
    running.stop(signal.SIGKILL)
    until(lambda: not follower.is_connected)

    again = watching()
    until(lambda: follower.is_connected, 20.0)

    assert again.url == running.url
    assert follower.reconnects == 2
    assert [b.transitions for b in target.breakers] == [{}, {}, {}, {}]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_where_there_is_another_daemon_nothing_is_felt_of_one_that_is_gone(
    how, daemon, config, server, follow, target
):
    dsn = f"'{server.dsn(user='pgbreaker')}'\n    interval: 200ms"
    path = str(config(("main", dsn)))
    pair = [daemon("--config", path, "--listen", "127.0.0.1:0") for _ in range(2)]
    for one in pair:
        one.until(lambda s: s["targets"][0]["state"] == "up")
    follower = follow(*(one.url for one in pair))
    until(lambda: follower.is_connected)
    server.kill()
    until(lambda: target.breaker("read").state is State.OPEN)
    (lost,) = (one for one in pair if one.url == follower.where)
    (other,) = (one for one in pair if one is not lost)

    lost.process.send_signal(how)
    leases = []
    took = until(lambda: leases.append(follower.lease) or follower.where == other.url)
    explained = target.breaker("read").explain()
    moves = dict(target.breaker("read").transitions)
    server.start()
    until(lambda: target.breaker("read").state is State.CLOSED, 15.0)

    assert took < 0.65 * LEASE
    assert min(leases) > 0.3 * LEASE
    assert list(moves.values()) == [1]
    assert explained.endswith(f"; advised by {other.url}")
    assert target.breaker("read").transitions == OPENED_AND_CLOSED


def test_what_an_application_reports_is_shown_and_moves_nothing(
    watching, follow, target
):
    breaker = target.breaker("write")
    for _ in range(10):
        with suppress(ConnectionRefusedError, CircuitOpenError), breaker:
            raise ConnectionRefusedError(111, "Connection refused")
    running = watching()
    follower = follow(running.url, report="shop")
    until(lambda: follower.reporter.sent == 1)

    shown = running.get("/api/v1/reports")
    (crowd,) = (b for b in shown["breakers"] if b["breaker"] == "main/write")
    (instance,) = shown["instances"]
    theirs = running.get("/api/v1/breakers/main/write")

    assert follower.reporter.every == 5.0
    assert shown["processes"] == 1
    assert (crowd["open"], crowd["by_calls"]) == (1, 1)
    assert (instance["application"], len(instance["breakers"])) == ("shop", 4)
    assert theirs["state"] == "closed"


def test_the_word_of_an_operator_reaches_every_application(watching, follow, target):
    running = watching()
    follower = follow(running.url)
    until(lambda: follower.is_connected)
    breaker = target.breaker("write")
    word = ["--reason", "disk is being replaced", "--url", running.url]
    command = [sys.executable, "-m", "pgbreaker"]

    subprocess.run([*command, "open", "main/write", "-y", *word], check=True)
    opened = until(lambda: breaker.state is State.FORCED_OPEN, 3.0)
    explained = breaker.explain()
    subprocess.run([*command, "auto", "main/write", "-y", *word], check=True)
    until(lambda: breaker.state is State.CLOSED, 3.0)

    assert opened < 1.0
    assert "disk is being replaced" in explained
    assert target.breaker("read").state is State.CLOSED


def test_the_file_says_the_same_to_who_is_on_the_machine(
    daemon, config, server, follow, target, tmp_path
):
    file = tmp_path / "advice.json"
    dsn = f"'{server.dsn(user='pgbreaker')}'\n    interval: 200ms"
    path = config(("main", dsn), more=f"advice: {{file: {file}}}\n")
    running = daemon("--config", str(path))
    running.until(lambda s: s["targets"][0]["state"] == "up")
    follower = follow(file.as_uri())
    until(lambda: follower.is_connected)

    server.kill()
    until(lambda: target.breaker("read").state is State.OPEN)
    running.stop()
    until(lambda: target.breaker("read").state is State.CLOSED, LEASE + 2)
    server.start()

    assert not file.exists()
    assert target.breaker("read").transitions == OPENED_AND_CLOSED


def test_a_forked_child_follows_too(watching, follow, target):
    running = watching()
    follower = follow(running.url)
    until(lambda: follower.is_connected)

    child = os.fork()
    if child == 0:
        connected = False
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline and not connected:
            connected = follower.is_connected
            time.sleep(0.01)
        os._exit(0 if connected else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert follower.is_connected


def test_breakers_know_nothing_of_it_unless_they_are_asked(watching, follow):
    """One that stands for itself listens to nobody, unless it is named."""
    running = watching()
    mine = PostgreSQLCircuitBreaker("orders", CONFIG)
    other = PostgreSQLCircuitBreaker("players", CONFIG)
    follower = follow(running.url, breakers={"orders": "main/write"})
    until(lambda: follower.is_connected)

    assert (mine.core.snapshot(0.0)["advice"] or {})["breaker"] == "main/write"
    assert other.core.snapshot(0.0)["advice"] is None
