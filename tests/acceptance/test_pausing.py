"""A daemon that has paused a pool, and ends: nobody waits for ever."""

import time

import pytest

from support.pooler import ADMIN, USER, running_pooler
from support.servers import running_server

from .conftest import pgbreaker

CONFIG = """\
version: 1
targets:
  - name: main
    dsn: {server}
    pgbouncer:
      dsn: {looks}
      pause: {{database: app, dsn: {admin}}}
store: {{path: state.db}}
"""


@pytest.fixture(scope="module")
def server():
    with running_server(15) as server:
        yield server


@pytest.fixture
def pooler(server):
    with running_pooler(server, stats_users=USER) as pooler:
        yield pooler


@pytest.fixture
def path(server, pooler, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    text = CONFIG.format(
        server=server.dsn(user="pgbreaker", database="app"),
        looks=pooler.dsn(database="pgbouncer"),
        admin=pooler.dsn(user=ADMIN, database="pgbouncer"),
    )
    path.write_text(text, "utf-8")
    return path


def is_paused(pooler) -> bool:
    rows = pooler.tell("SHOW DATABASES")
    return next(row["paused"] for row in rows if row["name"] == "app") == 1


def until_it_is(paused: bool, pooler, within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while is_paused(pooler) is not paused:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def open_(running) -> None:
    said = pgbreaker(
        *("open", "main/write", "--reason", "failover", "-y"), PGBREAKER_URL=running.url
    )
    assert said.returncode == 0, said.stderr


def test_one_that_is_killed_is_followed_by_one_that_resumes(daemon, path, pooler):
    """
    The breaker is open still: an operator's word outlives the restart, a pause does not.
    """
    first = daemon("--config", str(path))
    open_(first)
    until_it_is(True, pooler)
    first.process.kill()
    first.process.wait()
    left = is_paused(pooler)

    second = daemon("--config", str(path))

    until_it_is(False, pooler)
    assert left
    second.until(
        lambda status: status["targets"][0]["breakers"][2]["state"] == "forced_open"
    )
    texts = [
        entry["text"] for entry in second.get("/api/v1/events?kind=pause")["events"]
    ]
    assert "pgbouncer has resumed app: whoever paused it has ended since" in texts


def test_one_that_ends_resumes_first(daemon, path, pooler):
    running = daemon("--config", str(path))
    open_(running)
    until_it_is(True, pooler)

    status, took, _ = running.stop()

    assert not is_paused(pooler)
    assert status == 0
    assert took < 3.0
