"""Every command that talks to a daemon, with one that runs and a server that it watches."""

import getpass
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from acceptance.conftest import PROGRAM, Daemon
from pgbreaker.cli import cli
from support.servers import running_server

CONFIG = """
version: 1
defaults: {{interval: {interval}}}
http: {{listen: 127.0.0.1:0}}
record: {{path: {folder}/readings.jsonl}}
targets:
- name: main
  dsn: {dsn}
  password_file: {folder}/password
"""


class Watched:
    """A daemon that runs, and commands that find it by its socket.

    Attributes:
        config: Its configuration.
        dsn: The server that it watches, with its password.
        password: That.
    """

    def __init__(self, folder: Path, dsn: str, password: str) -> None:
        self.folder = folder
        self.dsn = dsn
        self.password = password.encode()
        self.config = folder / "pgbreaker.yaml"
        secret = folder / "password"
        secret.write_text(password, "utf-8")
        secret.chmod(0o600)
        self.configure("1s")
        self.env = {n: v for n, v in os.environ.items() if "PGBREAKER" not in n}
        self.env["RUNTIME_DIRECTORY"] = str(folder)
        self.daemon = Daemon(
            "--config", str(self.config), RUNTIME_DIRECTORY=str(folder)
        )

    def configure(self, interval: str) -> None:
        without = re.sub(r":[^:@/]+@", "@", self.dsn)
        text = CONFIG.format(interval=interval, folder=self.folder, dsn=without)
        self.config.write_text(text, "utf-8")

    def run(self, *words: str):
        """Run a command to its end."""
        clean = {n: None for n in os.environ if n.startswith("PGBREAKER_")}
        return CliRunner(env={**clean, **self.env}).invoke(cli, words)

    def good(self, *words: str) -> str:
        """What a command prints that has to go well."""
        done = self.run(*words)
        assert done.exit_code == 0, (words, done.output)
        return done.stdout

    def goes_on(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on until it is stopped."""
        return subprocess.Popen(
            [*PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.env, "PYTHONUNBUFFERED": "1"},
        )


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with running_server(17) as server:
        folder = tmp_path_factory.mktemp("cli")
        watched = Watched(folder, server.dsn(user="pgbreaker"), server.password)
        try:
            watched.daemon.start()
            watched.daemon.until(lambda s: s["targets"][0]["state"] == "up")
            yield watched
        finally:
            watched.daemon.process.kill()
            watched.daemon.process.communicate()


def moment() -> str:
    return datetime.now(UTC).isoformat()


def test_the_daemon_is_found_by_its_socket(watched):
    done = watched.run("status", "-v")

    assert done.exit_code == 0, done.output
    assert done.stderr == (
        f"asking unix:{watched.folder}/pgbreaker.sock (its socket)\n"
    )
    assert re.search(r"^main +● up ", done.stdout, re.M)
    assert watched.good("healthcheck") == "healthy\n"


def test_a_breaker_is_taken_over_seen_everywhere_and_handed_back(watched):
    before = watched.good(
        *("open", "main/write", "--reason", "moving the disk", "--for", "30m", "-y")
    )
    between = moment()
    status = watched.good("status")
    explained = watched.good("explain", "main/write")
    check = watched.run("check", "main")
    after = watched.good("auto", "main/write", "--reason", "the disk is moved", "-y")
    then = watched.good("explain", "main/write", "--at", between)

    assert before.startswith("main/write is ⊘ forced_open until ")
    assert "main/write is forced_open for " in status
    assert "moving the disk (it would be closed)" in status
    assert re.search(r"^  by itself +closed$", explained, re.M)
    assert check.exit_code == 2
    assert after.startswith("main/write is ● closed")
    assert then.startswith("main/write was ")
    assert "moving the disk" in then
    told = json.loads(watched.good("events", "--breaker", "main/write", "-o", "json"))
    orders = [entry for entry in told if entry["kind"] == "override"]
    assert [entry["details"]["reason"] for entry in orders] == [
        "moving the disk",
        "the disk is moved",
    ]
    # Whoever comes by the socket is known by it.
    assert {entry["author"] for entry in orders} == {getpass.getuser()}


def test_what_happened_is_there_for_people_tables_and_documents(watched):
    watched.good("disable", "main/read", "--reason", "a load test", "-y")
    watched.good("auto", "main/read", "--reason", "the test is over", "-y")

    table = watched.good("events", "--kind", "override")
    csv = watched.good("events", "--kind", "override", "-o", "csv")
    md = watched.good("events", "--kind", "override", "-o", "md")
    last = watched.good("events", "--limit", "1", "--kind", "override", "-o", "csv")

    assert table.splitlines()[0].split() == ["TIME", "KIND", "WHAT", "WHY"]
    for told in (table, csv, md):
        assert "a load test" in told
    assert len(last.splitlines()) == 2
    assert "the test is over" in last


def test_a_word_that_is_none_is_refused_with_its_field(watched):
    short = watched.run("open", "main/read", "--reason", "x", "-y")
    long = watched.run(
        "open", "main/read", "--reason", "for ever", "--for", "99d", "-y"
    )

    assert (short.exit_code, long.exit_code) == (1, 1)
    assert "reason: " in short.stderr
    assert "for: " in long.stderr


def test_maintenance_is_planned_seen_and_ended(watched):
    added = watched.good(
        *("maintenance", "add", "main", "--reason", "an upgrade", "--for", "2h")
    )
    window = added.partition(":")[0]
    listed = watched.good("maintenance", "list")
    shown = watched.good("status")
    check = watched.good("check", "main")
    ended = watched.good("maintenance", "end", window)

    assert window in listed
    assert "an upgrade" in listed
    assert "main is in maintenance for " in shown
    assert "in maintenance (an upgrade)" in check
    assert ended == f"{window} has ended\n"
    assert watched.good("maintenance", "list") == "no maintenance is planned\n"
    assert watched.run("maintenance", "end", window).exit_code == 1


def test_events_are_followed_as_they_come(watched):
    following = watched.goes_on("events", "--follow", "--since", "0s", "-o", "json")
    # It may not be there yet for the first.
    ends, told = time.monotonic() + 10, []
    os.set_blocking(following.stdout.fileno(), False)
    while not told and time.monotonic() < ends:
        watched.good("close", "main/connect", "--reason", "shown live", "-y")
        time.sleep(0.1)
        told = [line for line in following.stdout if "shown live" in line]
    following.terminate()
    following.communicate()

    assert json.loads(told[0])["breaker"] == "main/connect"
    watched.good("auto", "main/connect", "--reason", "it was shown", "-y")


def test_a_move_is_watched_from_a_pipe(watched):
    watching = watched.goes_on("watch")
    lines = [watching.stdout.readline() for _ in range(3)]

    watched.good("open", "main/read", "--reason", "to be seen", "-y")
    line = watching.stdout.readline()
    watching.terminate()
    watching.communicate()
    watched.good("auto", "main/read", "--reason", "it was seen", "-y")

    assert all("● closed" in line for line in lines)
    assert "main/read  ⊘ forced_open" in line


def test_a_reload_tells_what_changed_and_what_is_wrong(watched):
    nothing = watched.good("reload")
    watched.configure("2s")
    changed = watched.good("reload")
    watched.configure("2 weeks and a bit")
    refused = watched.run("reload")
    watched.configure("1s")
    back = watched.good("reload")

    assert nothing == "nothing changed\n"
    assert "1s -> 2s" in changed
    assert refused.exit_code == 78
    assert f"{watched.config}:3:" in refused.stderr
    assert "2s -> 1s" in back


def test_a_bundle_has_what_helps_and_not_what_is_secret(watched, tmp_path):
    file = tmp_path / "bundle.tar.gz"
    words = ("support-bundle", str(file), "--config", str(watched.config))

    assert "look it through" in watched.good(*words)
    assert watched.run(*words).exit_code == 1  # it is there already

    with tarfile.open(file) as archive:
        texts = {
            Path(member.name).name: archive.extractfile(member).read()
            for member in archive.getmembers()
        }
    assert json.loads(texts["status.json"])["targets"][0]["name"] == "main"
    assert json.loads(texts["doctor.json"])
    assert b"pgbreaker_breaker_state" in texts["metrics.txt"]
    assert json.loads(texts["versions.json"])["packages"]["click"]
    assert not any(watched.password in text for text in texts.values())


def test_what_was_recorded_is_simulated(watched, tmp_path):
    """By the thresholds that it was recorded by, nothing would have been otherwise."""
    told = json.loads(
        watched.good(
            *("simulate", str(watched.folder / "readings.jsonl"), "-o", "json"),
            *("--config", str(watched.config)),
        )
    )

    assert told["readings"] > 10
    assert set(told["breakers"]) == {"main/connect", "main/read", "main/write"}
    for courses in told["breakers"].values():
        assert courses["simulated"] == courses["really"]


def test_a_configuration_is_begun_checked_and_tried(watched, tmp_path):
    path = tmp_path / "pgbreaker.yaml"

    begun = watched.good("init", str(path), "--from-dsn", watched.dsn)
    checked = watched.good("check-config", str(path), "--connect")
    probed = watched.good("probe", watched.dsn, "--debug")

    assert ", a primary\n" in begun
    assert ": ok, " in checked.splitlines()[1]
    for step in ("resolve", "knock", "tcp", "auth", "ping: login"):
        assert step in probed


def test_what_a_container_asks_every_few_seconds_loads_little(watched):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pgbreaker", "healthcheck"],
        capture_output=True,
        text=True,
        env=watched.env,
        check=False,
    )

    assert done.stdout == "healthy\n"
    for heavy in ("pydantic", "aiohttp", "asyncpg", "apscheduler", "yaml"):
        assert not re.search(rf"\| +{heavy}$", done.stderr, re.M), heavy
