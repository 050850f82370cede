"""The process: how it ends, what signals have it do, and that nothing holds it up."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from acceptance.conftest import PROGRAM
from support.hanging import hanging
from support.manager import managing
from support.process import free_port
from support.servers import one_breakable_server
from support.tools import need

NOWHERE = "postgresql://nobody:hunter2@127.0.0.1:1/app"


def opened(running):
    """The stream of what happens, read until its first event."""
    stream = urllib.request.urlopen(running.url + "/api/v1/stream", timeout=10)
    while not stream.readline().startswith(b"event: snapshot"):
        pass
    return stream


# How it ends.


@one_breakable_server
def test_it_ends_in_time_under_load_and_says_goodbye(daemon, config, fresh_server):
    """With streams open, scrapes under way and a server that does not answer."""
    dsn = fresh_server.dsn(user="pgbreaker")
    path = config(("main", dsn), *((f"t{n}", NOWHERE) for n in range(20)))
    running = daemon("--config", str(path))
    running.until(lambda s: s["targets"][0]["state"] == "up")
    streams = [opened(running) for _ in range(10)]
    over = threading.Event()

    def scrape() -> None:
        while not over.is_set():
            try:
                with urllib.request.urlopen(running.url + "/metrics", timeout=5) as got:
                    got.read()
            except OSError:
                return  # it has ended

    with ThreadPoolExecutor(20) as pool:
        for _ in range(10):
            pool.submit(scrape)
        farewells = [pool.submit(stream.read) for stream in streams]
        fresh_server.freeze()
        code, seconds, words = running.stop()
        over.set()
        last = [farewell.result() for farewell in farewells]

    assert code == 0
    assert seconds < 10
    assert "Task was destroyed" not in words
    assert "Traceback" not in words
    assert all(b"event: bye" in text for text in last)
    assert all(b'"kind":"daemon"' in text for text in last)


@one_breakable_server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(daemon, config, fresh_server, number):
    """While it hangs up on a server that is frozen, which takes a moment."""
    running = daemon("--dsn", fresh_server.dsn(user="pgbreaker"))
    running.until(lambda s: s["targets"][0]["state"] == "up")
    fresh_server.freeze()
    running.process.send_signal(number)
    running.read_until("stopping")

    code, seconds, words = running.stop(number)

    assert code == -number
    assert seconds < 1.0
    assert "Traceback" not in words


# What signals have it do.


def test_usr1_tells_what_it_is_at(daemon, config):
    running = daemon("--config", str(config(("gone", NOWHERE))))
    running.until(lambda s: s["targets"][0]["state"] == "down")

    running.process.send_signal(signal.SIGUSR1)
    line = running.read_until("breaker 'gone/write' is ")
    said = [line["message"] for line in running.lines]

    assert "connection refused" in line["message"]
    assert any(
        text.startswith("task sentinel gone: run (sentinel.py:") for text in said
    )
    assert any(text.startswith("target gone: down: ") for text in said)
    assert "hunter2" not in json.dumps(running.lines)


def test_usr2_has_it_tell_everything_until_it_comes_again(daemon, config):
    running = daemon("--config", str(config(("gone", NOWHERE))))

    running.process.send_signal(signal.SIGUSR2)
    line = running.read_until("probe ping of gone")
    running.process.send_signal(signal.SIGUSR2)
    running.read_until("as it is configured again")
    running.until(lambda s: s["targets"][0]["state"] == "down")
    _, _, words = running.stop()

    assert line["level"] == "DEBUG"
    assert '"level": "DEBUG"' not in words


# Nothing holds it up.


def test_a_log_that_nobody_reads_holds_nothing_up(config):
    """Its pipe is full after a second, and stays so."""
    port = free_port()
    path = config(
        *((f"t{n}", NOWHERE) for n in range(20)), more="log: {level: DEBUG}\n"
    )
    arguments = ("run", "--config", str(path), "--listen", f"127.0.0.1:{port}")
    with subprocess.Popen([*PROGRAM, *arguments], stderr=subprocess.PIPE) as process:
        try:
            until_there(port)
            slowest = 0.0
            for _ in range(30):
                process.send_signal(signal.SIGUSR1)
                begun = time.monotonic()
                health = f"http://127.0.0.1:{port}/-/healthy"
                with urllib.request.urlopen(health, timeout=5) as answer:
                    assert answer.status == 200
                slowest = max(slowest, time.monotonic() - begun)
                time.sleep(0.02)
            begun = time.monotonic()
            process.terminate()
            code = process.wait(15)
            ended = time.monotonic() - begun
        finally:
            process.kill()
        said = process.stderr.read()

    assert slowest < 1.0
    assert (code, ended < 10) == (0, True)
    assert b"stopping" not in said  # the pipe was full
    assert len(said) > 32_768


def until_there(port: int, within: float = 15.0) -> None:
    end = time.monotonic() + within
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_loop_that_hangs_is_not_fed_and_says_where(config, tmp_path):
    """The long form is `tests/bench/hung.py`."""
    with managing(tmp_path) as manager:
        seen = hanging(config(("gone", NOWHERE)), manager, seconds=3.0, watchdog=1.0)

    assert seen.longest_unfed >= 2.5
    assert seen.fed_again
    assert seen.stacks_after is not None
    assert seen.stacks_after < 3.0  # while it hung
    assert seen.place_is_told
    assert seen.health[0] == 503
    assert seen.health[1].startswith("the daemon itself was held up for ")
    assert seen.code == 0


def test_the_first_process_of_a_container_ends_when_it_is_told_to_from_the_start():
    """It has no default action: what comes before the daemon listens would be lost."""
    unshare = need("unshare", "util-linux")
    process = subprocess.Popen(
        [unshare, "--pid", "--fork", *PROGRAM, "run", "--dsn", NOWHERE],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    deadline = time.monotonic() + 10.0
    while process.poll() is None and time.monotonic() < deadline:
        for child in children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        time.sleep(0.01)

    assert process.poll() == 128 + signal.SIGTERM


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]
