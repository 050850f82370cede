"""The unit under a real systemd: what it promises, what it forbids, what it says."""

import json
import time
from pathlib import Path

import pytest

from acceptance.conftest import pgbreaker
from support.booted import booted
from support.process import free_port
from support.servers import one_server

UNIT = Path(__file__).parents[2] / "daemon/pgbreaker.service"
CONFIG = "/etc/pgbreaker/pgbreaker.yaml"
DROP_IN = "/etc/systemd/system/pgbreaker.service.d/test.conf"
NAME = "pgbreaker.service"


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    with booted(tmp_path_factory.mktemp("system")) as system:
        system.write(f"/etc/systemd/system/{NAME}", UNIT.read_text("utf-8"))
        man = pgbreaker("man").stdout
        system.write("/usr/local/share/man/man1/pgbreaker.1", man)
        yield system


@pytest.fixture
def service(system, server):
    """Starts the unit, watching a server whose password is a credential, and one that is
    not there. Gives what systemctl said."""
    port = free_port()
    config = f"""
version: 1
targets:
  - name: primary
    dsn: postgresql://pgbreaker@127.0.0.1:{server.port}/app
  - name: gone
    dsn: postgresql://nobody@127.0.0.1:1/app
    operations: [read]
http: {{listen: "127.0.0.1:{port}"}}
"""

    def start(more: str = "", config: str = config):
        system.write(CONFIG, config)
        system.write("/etc/credstore/primary", server.password, 0o600)
        # That there is none for `gone` must hold up nobody.
        loaded = "LoadCredential=primary\nLoadCredential=gone"
        system.write(DROP_IN, f"[Service]\n{loaded}\nRestartSec=100ms\n{more}\n")
        system.run("systemctl", "daemon-reload")
        return system.run("systemctl", "start", NAME, check=False)

    yield start
    system.run("systemctl", "stop", NAME, check=False)
    system.run("systemctl", "reset-failed", NAME, check=False)
    system.run("rm", "-rf", "/var/lib/private/pgbreaker")


def test_systemd_has_nothing_to_say_against_the_unit(system):
    """Nor against what it names: the program, and its man page."""
    path = f"/etc/systemd/system/{NAME}"

    said = system.run("systemd-analyze", "verify", path, check=False)

    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@one_server
def test_with_everything_forbidden_it_watches_and_systemd_shows_what_is_open(
    system, service
):
    began = service()

    assert began.returncode == 0, (began.stderr, system.journal(NAME))
    told = system.until(NAME, "StatusText", lambda text: "gone/read" in text)
    assert told.startswith("2 targets, 1 ")
    assert "connection refused" in told
    pid = system.shown(NAME, "MainPID")
    status = (system.root / f"proc/{pid}/status").read_text("utf-8")
    facts = dict(line.split(":\t", 1) for line in status.splitlines())
    assert facts["Uid"].split()[0] != "0"
    assert int(facts["CapBnd"], 16) == 0
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    touched = system.run("nsenter", "-t", pid, "-m", "touch", "/etc/x", check=False)
    assert "Read-only file system" in touched.stderr
    # The command line finds it by its socket, and it has a store without being told.
    shown = json.loads(
        system.run("/opt/pgbreaker/bin/pgbreaker", "status", "-o", "json").stdout
    )
    assert [target["state"] for target in shown["targets"]] == ["up", "down"]
    assert (system.root / "var/lib/private/pgbreaker/state.db").exists()


@one_server
def test_the_journal_knows_how_grave_each_line_is(system, service):
    service()
    system.until(NAME, "StatusText", lambda text: "gone/read" in text)

    # This run alone: one system serves all tests of this file.
    run = f"_SYSTEMD_INVOCATION_ID={system.shown(NAME, 'InvocationID')}"
    written = system.run("journalctl", "-o", "json", "--no-pager", run).stdout
    entries = [json.loads(line) for line in written.splitlines()]
    levels = {
        (json.loads(entry["MESSAGE"])["level"], entry["PRIORITY"]) for entry in entries
    }
    assert levels == {("INFO", "6"), ("WARNING", "4")}


@one_server
def test_a_reload_waits_and_fails_with_the_reasons_when_it_is_refused(system, service):
    service()
    pid = system.shown(NAME, "MainPID")
    place = system.root / CONFIG.lstrip("/")
    good = place.read_text("utf-8")
    place.write_text(f"{good}log: {{level: DEBUG}}\n", "utf-8")

    taken = system.run("systemctl", "reload", NAME, check=False)
    loud = system.journal(NAME, "-o", "cat")
    place.write_text("version: 2\n", "utf-8")
    refused = system.run("systemctl", "reload", NAME, check=False)

    assert (taken.returncode, refused.returncode) == (0, 1)
    assert "log.level: INFO -> DEBUG" in loud
    assert "this pgbreaker reads version 1, not 2" in system.journal(NAME, "-o", "cat")
    assert system.shown(NAME, "ActiveState") == "active"
    assert system.shown(NAME, "MainPID") == pid


@one_server
def test_what_hangs_is_ended_by_the_watchdog_and_goes_on_from_its_store(
    system, service
):
    service("WatchdogSec=2")
    system.until(NAME, "StatusText", lambda text: "gone/read" in text)

    system.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", NAME)
    system.until(NAME, "NRestarts", lambda count: count == "1")
    system.until(NAME, "StatusText", lambda text: "gone/read" in text)

    said = system.journal(NAME, "-o", "cat")
    assert "Watchdog timeout" in said
    assert "going on from the store" in said


@one_server
def test_a_configuration_that_is_wrong_is_not_tried_again(system, service):
    began = service(config="version: 1\ntargets: []\n")

    assert began.returncode == 1
    assert system.shown(NAME, "ExecMainStatus") == "78"
    assert system.shown(NAME, "ActiveState") == "failed"
    assert system.shown(NAME, "NRestarts") == "0"


@one_server
def test_it_stops_in_time_and_leaves_its_store_alone(system, service):
    service()
    system.until(NAME, "StatusText", lambda text: "gone/read" in text)
    begun = time.monotonic()

    system.run("systemctl", "stop", NAME)

    assert time.monotonic() - begun < 10
    assert system.shown(NAME, "Result") == "success"
    assert (system.root / "var/lib/private/pgbreaker/state.db").exists()
    assert not (system.root / "run/pgbreaker").exists()


def test_a_journal_that_is_somebody_elses_changes_no_line(daemon, config):
    """Who is started by a service and writes elsewhere inherits the variable, too."""
    path = config(("gone", "postgresql://nobody@127.0.0.1:1/app"))

    running = daemon("--config", str(path), JOURNAL_STREAM="1:2")

    assert running.lines[-1]["level"] == "INFO"  # it was JSON, with nothing before it
