"""A daemon that ends in whatever way, and the one after it."""

import random
from subprocess import Popen

from support.lives import (
    NOWHERE,
    STARTED_WITHIN,
    Life,
    Lives,
    breakers,
    differences,
)
from support.servers import one_breakable_server, one_server


@one_server
def test_a_daemon_that_was_killed_goes_on_where_it_was(server, tmp_path):
    """The long form is `tests/bench/restarts.py`."""
    lives = Lives(tmp_path, server.dsn(user="pgbreaker"))

    lives.run(4, random.Random(6))

    assert lives.changed == []
    assert lives.moves == []
    assert max(lives.restoring) < 1.0


@one_breakable_server
def test_a_server_that_came_back_unseen_is_let_in_in_time(fresh_server, tmp_path):
    """It died, then the daemon did, and the server was there again first."""
    lives = Lives(tmp_path, fresh_server.dsn(user="pgbreaker"))
    life = lives.begin()
    try:
        life.until(all_closed)
        fresh_server.kill()
        life.until(lambda s: states(s) == {"open"})
        life.until(lambda _: len(moves(life)) == 1)  # on disk, or it was not told
        before = life.ask("/api/v1/status")
        life.kill()
        fresh_server.start()

        life = lives.begin()
        changed = differences(before, life.first)
        seconds = life.until(all_closed)
        told = moves(life)
    finally:
        life.kill()

    assert breakers(before)["main/read"]["state"] == "open"
    assert changed == []
    assert seconds < 5.0
    assert told == ["closed -> open", "open -> half_open", "half_open -> closed"]


def test_the_record_of_warnings_outlives_an_end_and_a_kill(tmp_path):
    """What was put by as a process ended is there for the one after it, and once that was
    killed, for the next. Nobody warned of a server that is nowhere."""
    lives = Lives(tmp_path, NOWHERE)
    missed = []
    for end in (Popen.terminate, Popen.kill, Popen.terminate):
        life = lives.begin()
        try:
            life.until(lambda s: states(s) == {"open"})
            life.until(lambda _, life=life: missed_by(life))
            missed.append(missed_by(life))
            end(life.process)
            life.process.wait(STARTED_WITHIN)
        finally:
            life.kill()

    assert missed == [1, 1, 1]


def missed_by(life: Life) -> int:
    """Failures of main that came unannounced, by its own record."""
    foretold = life.ask("/api/v1/targets/main")["forecast"]
    missed: int = foretold["record"]["failure"]["missed"]
    return missed


def moves(life: Life) -> list[str]:
    """What was told of a breaker of the server that is to be watched."""
    told = life.ask("/api/v1/events?breaker=main/read&limit=100")["events"]
    return [f"{e['details']['from']} -> {e['details']['to']}" for e in told]


def all_closed(status) -> bool:
    return states(status) == {"closed"}


def states(status) -> set[str]:
    """How the breakers of the server are that is to be watched."""
    return {b["state"] for n, b in breakers(status).items() if n.startswith("main/")}
