"""The stack of docker-compose.yml: brought up by podman-compose, through the Makefile.

The images are stand-ins under the names of those that the file pins
(tests/make-images); there is none for Grafana, whose files other tests look at.
"""

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from support.containers import environment, inspected, made, podman
from support.process import free_port

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
IMAGES = ("pgbreaker", "postgres", "prometheus", "alertmanager", "tempo")
SERVED = ("PGBREAKER", "SLACK", "SHOP", "GRAFANA", "PROMETHEUS", "ALERTMANAGER")

UP_WITHIN = 60.0
LOOK_EVERY = 0.1


class Stack:
    """One that is up.

    Attributes:
        project: What podman-compose calls it.
        urls: Where each service is reached, by the words before ``_PORT``.
    """

    def __init__(self, project: str, override: Path, ports: dict[str, int]) -> None:
        self.project = project
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        self._compose = (
            *(sys.executable, "-m", "podman_compose", "--project-name", project),
            *("--file", str(FILE), "--file", str(override)),
        )
        self._ours = f"label=io.podman.compose.project={project}"
        self._ports = {f"{name}_PORT": str(port) for name, port in ports.items()}

    def make(self, target: str) -> str:
        """Run ``make up``, or what else there is for the stack. Returns what it said."""
        # tests/make-images has made the image: where a build needs no network.
        compose = f"COMPOSE={' '.join(self._compose)}"
        return self._run("make", "--no-print-directory", target, compose, "BUILD=")

    def start(self, service: str) -> None:
        """Run one of the services that `up` leaves alone."""
        how = ("--profile", "faults", "run", "--detach", "--rm")
        self._run(*self._compose, *how, service)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment(), **self._ports},
            capture_output=True,
            text=True,
            timeout=UP_WITHIN,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.project}_{service}_1"

    def inspect(self, service: str) -> dict[str, Any]:
        """What podman knows of a service's container."""
        return inspected("container", self.container(service))

    def running(self, service: str) -> str:
        """The ids of a service's containers that run, also of those that `start` began."""
        of = f"label=com.docker.compose.service={service}"
        return podman("ps", "--quiet", "--filter", self._ours, "--filter", of).stdout

    def left(self) -> str:
        """Containers, volumes and networks that there are of it."""
        containers = podman(
            *("ps", "--all", "--filter", self._ours),
            *("--format", "{{.Names}} {{.Status}}"),
        )
        volumes = podman("volume", "ls", "--quiet", "--filter", f"name={self.project}")
        networks = podman(
            "network", "ls", "--quiet", "--filter", f"name={self.project}"
        )
        return containers.stdout + volumes.stdout + networks.stdout

    def exec(self, service: str, *command: str, fails: bool = False) -> str:
        """Run a command within a service. Returns what it said.

        Args:
            fails: It may end with another status than 0.
        """
        return podman("exec", self.container(service), *command, fails=fails).stdout

    def log(self, service: str) -> str:
        """All that a service wrote."""
        done = podman("logs", self.container(service))
        return done.stdout + done.stderr

    def health(self, service: str) -> str:
        """Have the health check of a service run. Returns why it is not well, or nothing.

        podman leaves that to systemd's timers, which are not everywhere.
        """
        done = podman("healthcheck", "run", self.container(service), fails=True)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def get(self, service: str, path: str) -> Any:
        """Ask a service from outside; JSON is read."""
        with urllib.request.urlopen(self.urls[service] + path, timeout=5) as answer:
            said = answer.read().decode()
            kind = answer.headers.get_content_type()
        return json.loads(said) if kind == "application/json" else said

    def series(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus has for *query* now."""
        asked = urllib.parse.urlencode({"query": query})
        found = self.get("PROMETHEUS", f"/api/v1/query?{asked}")["data"]["result"]
        return list(found)

    def told(self, *words: str, after: float = 0.0) -> list[dict[str, Any]]:
        """The messages with all *words* in them that Slack would show.

        Args:
            after: Unix time before which they are of no interest.
        """
        return [
            message
            for message in self.get("SLACK", "/messages.json")
            if all(word in json.dumps(message["payload"]) for word in words)
            and message["arrived"] > after
        ]

    def states(self) -> set[str]:
        """The states of the daemon's breakers."""
        breakers = self.get("PGBREAKER", "/api/v1/breakers")
        return {breaker["state"] for breaker in breakers}

    def until(self, what: Callable[[], T], within: float) -> T:
        """Wait until *what* is true; gives what it said."""
        deadline = time.monotonic() + within
        seen: Any = None
        while True:
            try:
                if seen := what():
                    return seen
            except OSError as error:  # not yet
                seen = error
            assert time.monotonic() < deadline, f"not within {within} s: {seen!r}"
            time.sleep(LOOK_EVERY)

    def hurry(self) -> None:
        """Have rules and routes wait for seconds, not minutes, and else be as shipped.

        They wait so that what flaps is one message.
        """
        folder = Path(inspected("volume", f"{self.project}_alerts")["Mountpoint"])
        for file, pattern, by in (
            ("pgbreaker.rules.yml", r"for: \d\w+", "for: 1s"),
            ("alertmanager.yml", r"group_interval: \d\w+", "group_interval: 2s"),
        ):
            text, places = re.subn(pattern, by, (folder / file).read_text("utf-8"))
            assert places
            (folder / file).write_text(text, "utf-8")
        for service in ("prometheus", "alertmanager"):
            podman("kill", "--signal", "HUP", self.container(service))


@contextmanager
def stack(folder: Path) -> Iterator[Stack]:
    """The stack, which is not up yet, and is gone after the block.

    Args:
        folder: For a file of ours.
    """
    made(*IMAGES)
    override = folder / "override.yml"
    override.write_text("services: {grafana: {profiles: [elsewhere]}}\n", "utf-8")
    project = f"pgbreaker-{uuid.uuid4().hex[:8]}"
    one = Stack(project, override, {name: free_port() for name in SERVED})
    try:
        yield one
    finally:
        one.make("down")


def services() -> dict[str, Any]:
    """The services of the file."""
    return dict(yaml.safe_load(FILE.read_text("utf-8"))["services"])
