"""Smoke test of the daemon, by the Python that it is installed for:

    VENV/bin/python -I tests/smoke/daemon.py postgresql://pgbreaker@HOST/DATABASE

The server has to be up. Everything is done by `pgbreaker` as it stands beside that
Python, and nothing is left behind.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("pgbreaker")
WITHIN = 20.0
SHIPPED = {"alerts": 3, "dashboards": 6, "systemd": 1}
"""Kind -> files that `pgbreaker export` writes at least."""


def told(*arguments: object, fails: bool = False) -> str:
    """What a command prints; it has to succeed."""
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert fails or done.returncode == 0, f"{arguments}: {done.stderr or done.stdout}"
    return done.stdout


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_up(daemon: "subprocess.Popen[bytes]", url: str, log: Path) -> dict[str, Any]:
    """Wait until the daemon says that its one target is up; gives its status."""
    end = time.monotonic() + WITHIN
    while daemon.poll() is None and time.monotonic() < end:
        said = told("status", "--url", url, "-o", "json", fails=True)
        status = json.loads(said) if said.startswith("{") else {"targets": []}
        states = [b["state"] for t in status["targets"] for b in t["breakers"]]
        if [t["up"] for t in status["targets"]] == [True] and set(states) == {"closed"}:
            return status
        time.sleep(0.1)
    raise AssertionError(f"it does not say that the server is up: {log.read_text()}")


def watch(dsn: str, home: Path) -> None:
    """`run` says that the server is up, and ends when it is told to."""
    url = f"http://127.0.0.1:{free_port()}"
    log = home / "log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [PROGRAM, "run", "--dsn", dsn, "--listen", url.removeprefix("http://")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        until_up(daemon, url, log)
        assert "up" in told("status", "--url", url, "--exit-code")
        told("healthcheck", "--url", url)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(WITHIN) == 0, log.read_text()
    finally:
        daemon.kill()
        daemon.wait()


def main() -> None:
    """Fails unless it watches the server, and hands out what is shipped."""
    (dsn,) = sys.argv[1:]
    version = told("version").split()[1]
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        config = home / "pgbreaker.yaml"
        config.write_text(
            "version: 1\ntargets:\n  - {name: main, dsn: '${SMOKE_DSN}'}\n", "utf-8"
        )
        os.environ["SMOKE_DSN"] = dsn
        told("check-config", config, "--connect")
        watch(dsn, home)
        for kind, least in SHIPPED.items():
            addresses = [
                *("--grafana-url", "https://grafana.test"),
                *("--runbook-url", "https://runbooks.test"),
            ]
            told("export", kind, home / kind, *addresses)
            files = [path for path in (home / kind).rglob("*") if path.is_file()]
            assert len(files) >= least, f"{kind}: {files}"
    print(f"daemon {version}, Python {sys.version.split()[0]}: it watches")


if __name__ == "__main__":
    main()
