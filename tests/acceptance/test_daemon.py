"""The daemon from start to end: signals, exit codes, states, secrets."""

import asyncio
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

from acceptance.conftest import PROGRAM, pgbreaker
from support.otlp import attributes, collector
from support.servers import one_breakable_server

NOWHERE = "postgresql://nobody:hunter2@127.0.0.1:1/app"


def states(status) -> dict[str, str]:
    return {b["name"]: b["state"] for t in status["targets"] for b in t["breakers"]}


def test_it_watches_sees_a_server_stop_and_come_back(daemon, config, fresh_server):
    running = daemon(
        "--config", str(config(("main", fresh_server.dsn(user="pgbreaker"))))
    )
    running.until(lambda s: s["targets"][0]["state"] == "up")

    fresh_server.kill()
    running.until(lambda s: set(states(s).values()) == {"open"}, within=3.0)
    status, retry_after = running.refusal("/health/main/read")
    line = running.read_until("breaker main/read: closed -> open")
    fresh_server.start()
    running.until(lambda s: set(states(s).values()) == {"closed"}, within=8.0)

    assert status == 503
    assert int(retry_after) >= 1
    assert (line["level"], line["event"], line["cause"]) == (
        "WARNING",
        "transition",
        "confirmed",
    )
    assert running.stop()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_ten_seconds_while_everything_is_down(daemon, config, number):
    path = config(*((f"t{n}", NOWHERE) for n in range(20)))
    running = daemon("--config", str(path))
    running.until(lambda s: all(t["state"] == "down" for t in s["targets"]))

    code, seconds, words = running.stop(number)

    assert code == 0
    assert seconds < 10
    assert "Task was destroyed" not in words
    assert "Traceback" not in words


@one_breakable_server
def test_it_ends_while_a_server_is_frozen_and_streams_are_open(daemon, fresh_server):
    running = daemon("--dsn", fresh_server.dsn(user="pgbreaker"))
    running.until(lambda s: s["targets"][0]["state"] == "up")
    fresh_server.freeze()
    host, port = running.url.removeprefix("http://").split(":")

    with socket.create_connection((host, int(port))) as open_end:
        open_end.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")  # never finished
        code, seconds, words = running.stop()

    fresh_server.thaw()
    assert (code, "Traceback" in words) == (0, False)
    assert seconds < 10


def test_a_server_that_is_not_there_is_a_state_and_not_an_exit(daemon, config):
    path = config(
        ("gone", NOWHERE), ("nameless", "postgresql://me@no-such-host.invalid/app")
    )

    running = daemon("--config", str(path))

    running.until(
        lambda s: [t["state"] for t in s["targets"]] == ["down", "down"], 20.0
    )
    assert running.get("/-/healthy") == {"status": "ok"}
    assert running.get("/-/ready") == {"status": "ok"}


def test_everything_configured_is_shown_from_the_first_scrape(daemon, config):
    """Before any server can have answered: it is the daemon that is asked."""
    path = config(*((f"t{n}", "postgresql://me@192.0.2.1/app") for n in range(5)))
    running = daemon("--config", str(path))

    with urllib.request.urlopen(running.url + "/metrics", timeout=5) as answer:
        text = answer.read().decode()

    for n in range(5):
        assert f'pgbreaker_target_up{{target="t{n}"}} 0\n' in text
        assert f'target="t{n}",state="unknown"}} 1\n' in text


def test_metrics_answer_at_once_while_the_server_is_frozen(daemon, fresh_server):
    running = daemon("--dsn", fresh_server.dsn(user="pgbreaker"))
    running.until(lambda s: s["targets"][0]["state"] == "up")
    fresh_server.freeze()
    try:
        running.until(lambda s: s["targets"][0]["state"] == "down", within=5.0)
        for _ in range(20):
            with urllib.request.urlopen(
                running.url + "/metrics", timeout=1.0
            ) as answer:
                assert b"pgbreaker_target_up" in answer.read()
    finally:
        fresh_server.thaw()


def test_systemd_is_told_ready_status_and_stopping(daemon, config, tmp_path):
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(0.2)
        over = threading.Event()

        def listen() -> None:
            while not over.is_set():
                try:
                    heard.append(manager.recv(4096).decode())
                except TimeoutError:
                    continue

        listening = threading.Thread(target=listen)
        listening.start()
        running = daemon(
            "--config",
            str(config(("gone", NOWHERE))),
            NOTIFY_SOCKET=str(tmp_path / "notify"),
            WATCHDOG_USEC="1000000",
        )
        running.until(lambda s: s["targets"][0]["state"] == "down")
        deadline = time.monotonic() + 5
        while not any("3 not closed" in text for text in heard):
            assert time.monotonic() < deadline, heard
            time.sleep(0.05)
        running.stop()
        over.set()
        listening.join()

    assert heard[0].startswith("READY=1")
    assert any(text.startswith("WATCHDOG=1") for text in heard)
    assert heard[-1].startswith("STOPPING=1")


def test_no_secret_leaves_it(daemon, config, fresh_server):
    """Neither in the log of a fault at the lowest level, nor on any address."""
    secret = fresh_server.password
    good = fresh_server.dsn(user="pgbreaker")
    path = config(("good", good), ("gone", NOWHERE), more="log: {level: DEBUG}\n")
    running = daemon("--config", str(path))
    running.until(lambda s: [t["state"] for t in s["targets"]] == ["up", "down"])
    fresh_server.kill()
    running.until(lambda s: s["targets"][0]["state"] == "down")

    seen = ""
    for address in ("/", "/metrics", "/api/v1/status", "/api/v1/targets/good"):
        with urllib.request.urlopen(running.url + address) as answer:
            seen += answer.read().decode()
    seen += running.stop()[2] + str(running.lines)

    assert secret not in seen
    assert "hunter2" not in seen


@one_breakable_server
async def test_probes_and_transitions_arrive_as_traces(daemon, config, fresh_server):
    async with collector() as collecting:
        otlp = f"otlp: {{endpoint: '{collecting.url}', sample: 100%}}\n"
        path = config(("main", fresh_server.dsn(user="pgbreaker")), more=otlp)
        running = await asyncio.to_thread(daemon, "--config", str(path))
        names = {"probe ping", "probe login", "probe commit", "probe identity"}
        await collecting.until(lambda spans: names <= {s.name for s in spans}, 10.0)

        fresh_server.kill()

        def opened(spans) -> bool:
            moves = [attributes(span) for span in spans if span.name == "transition"]
            return "open" in {move["pgbreaker.to"] for move in moves}

        await collecting.until(opened, 10.0)
        code, seconds, _ = await asyncio.to_thread(running.stop)

    assert (code, seconds < 10) == (0, True)


def test_a_collector_that_is_down_is_one_line_and_no_delay(daemon, config):
    otlp = "otlp: {endpoint: 'http://127.0.0.1:9', sample: 100%}\n"
    running = daemon("--config", str(config(("gone", NOWHERE), more=otlp)))
    running.until(lambda s: s["targets"][0]["state"] == "down")

    line = running.read_until("traces are not being sent")
    code, seconds, words = running.stop()

    assert line["level"] == "WARNING"
    assert "traceback" not in line
    assert "traces are not" not in words
    assert (code, seconds < 10) == (0, True)


# Exit codes.


def test_a_bad_configuration_ends_it_with_78_and_all_that_is_wrong(config):
    path = config(("my server", "postgresql://me:hunter2@db1/app"), more="htpp: {}\n")

    done = pgbreaker("run", "--config", str(path))

    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        f"{path}:3:11: targets.0.name: 'my server' is no name; use 1 to 63 of A-Z a-z 0-9 _ . -",
        f"{path}:5:1: htpp: no such key; did you mean 'http'?",
    ]


def test_a_port_that_is_taken_ends_it_with_one_line(config):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        done = pgbreaker("run", "--dsn", NOWHERE, "--listen", address)

    assert done.returncode == 1
    assert done.stderr == (
        f"cannot listen on {address}: address already in use"
        " (http.listen, or --listen, say where)\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "--dsn", NOWHERE, "--config", "x"),
        ("nothing",),
        ("probe", "a"),
    ],
)
def test_wrong_usage_ends_with_2(arguments):
    done = pgbreaker(*arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["status", "healthcheck"])
def test_without_a_daemon_to_ask_it_is_69_and_says_what_helps(verb):
    done = pgbreaker(verb, "--url", "http://127.0.0.1:9")

    assert done.returncode == 69
    assert done.stderr == (
        "no daemon answers at http://127.0.0.1:9 (--url): connection refused"
        " (is it running? --url or PGBREAKER_URL say where)\n"
    )


# Commands.


def test_check_config_says_ok_and_can_try_the_door(config, server):
    good = config(("main", server.dsn(user="pgbreaker")))
    checked = pgbreaker("check-config", str(good), "--connect")
    bad = config(("main", server.dsn(user="pgbreaker", password="wrong")))
    refused = pgbreaker("check-config", str(bad), "--connect")

    assert checked.returncode == 0
    assert checked.stdout.startswith(f"{good}: ok, 1 target\nmain: ok, ")
    assert refused.returncode == 1
    assert "main: ping: login ended auth: 28P01" in refused.stdout


def test_probe_debug_shows_every_step_with_its_time(server):
    done = pgbreaker("probe", server.dsn(user="pgbreaker"), "--debug")

    assert done.returncode == 0
    names = [line.split("  ")[0].strip() for line in done.stdout.splitlines()]
    for step in (
        "resolve",
        "knock",
        "ping",
        "login",
        "commit",
        "identity",
        "saturation",
    ):
        assert step in names
    assert "slots_usable = 17" in done.stdout
    assert server.password not in done.stdout


def test_probe_of_a_server_that_is_not_there_is_a_failure_in_one_line():
    done = pgbreaker("probe", NOWHERE)

    assert done.returncode == 1
    assert done.stdout == "127.0.0.1: knock ended refused: connection refused\n"


def test_status_is_a_table_json_metrics_and_an_exit_code(daemon, config, server):
    path = config(("main", server.dsn(user="pgbreaker")), ("gone", NOWHERE))
    running = daemon("--config", str(path))
    running.until(lambda s: [t["state"] for t in s["targets"]] == ["up", "down"])
    at = ("--url", running.url)

    table = pgbreaker("status", *at, "--exit-code")
    prom = pgbreaker("status", *at, "-o", "prom")
    json = pgbreaker("status", PGBREAKER_URL=running.url)

    assert table.returncode == 2
    assert "connection refused" in table.stdout
    assert 'breaker="gone/read",state="open"} 1' in prom.stdout
    assert json.returncode == 0
    assert pgbreaker("healthcheck", *at).stdout == "healthy\n"


def test_the_version_is_the_packages():
    from pgbreaker import __version__

    assert pgbreaker("version").stdout == f"pgbreaker {__version__}\n"


# The demo.


DEMOS = {
    "crash": {"connect", "read", "write"},
    "freeze": {"connect", "read", "write"},
    "exhaust": {"connect"},
    "lock": set(),
    "slow": {"connect", "read"},
}


@pytest.fixture(scope="module")
def demos():
    """Fault -> what its demo said, and what all of them left behind. They run at the
    same time: each waits most of its time."""
    before = set(os.listdir("/tmp"))

    def show(fault: str):
        return pgbreaker("demo", "--listen", "127.0.0.1:0", timeout=120, FAULT=fault)

    with ThreadPoolExecutor(len(DEMOS)) as together:
        shown = dict(zip(DEMOS, together.map(show, DEMOS), strict=True))
    return shown, left_behind(before)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "opens"), DEMOS.items(), ids=DEMOS)
def test_the_demo_shows_each_fault(demos, fault, opens):
    done = demos[0][fault]

    opened, closed = (
        {
            line.partition("primary/")[2].partition(":")[0]
            for line in done.stdout.splitlines()
            if move in line
        }
        for move in ("-> open", "-> closed")
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert opened == opens, done.stdout
    assert closed == opens, done.stdout


def test_the_demo_leaves_nothing_behind(demos):
    assert demos[1] == set()


def left_behind(before: set[str]) -> set[str]:
    return {name for name in set(os.listdir("/tmp")) - before if "pgbreaker-" in name}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_demo_and_leaves_nothing_behind(number):
    before = set(os.listdir("/tmp"))
    showing = subprocess.Popen(
        [*PROGRAM, "demo", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert showing.stdout is not None
    said = [showing.stdout.readline() for _ in range(5)]
    (home,) = left_behind(before)
    pid_file = Path(f"/tmp/{home}/data/postmaster.pid").read_text("utf-8")
    postmaster = int(pid_file.splitlines()[0])

    showing.send_signal(number)
    rest, errors = showing.communicate(timeout=15)

    assert said[-1] == "Ctrl-C ends it and leaves nothing behind.\n"
    assert (showing.returncode, errors) == (0, "")
    assert "0 failed" in rest
    assert left_behind(before) == set()
    assert not os.path.exists(f"/proc/{postmaster}")
