"""A daemon's lives: killed and started again under probes, and what it still knows.

It watches a server that is well and an address where there is none, by one store. Before
the first kill, somebody has given orders: one breaker is forced open, one is disabled,
and a window of maintenance is on. None of that, and no breaker, is to be another after
any start.
"""

import json
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from support.process import free_port

STARTED_WITHIN = 20.0
SETTLED_WITHIN = 10.0
NOWHERE = "postgresql://nobody:hunter2@127.0.0.1:1/app"
FORCED, DISABLED, SHUT = "main/write", "main/connect", "gone/read"


class Life:
    """One process of the daemon, from its start to its end.

    Attributes:
        answered: Seconds from the start of the process to its first answer.
        first: The status that it answered first.
    """

    def __init__(self, config: Path, port: int, log: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._log = log
        begun = time.monotonic()
        with log.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pgbreaker", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
            )
        self.first = self._first_status(begun)
        self.answered = time.monotonic() - begun

    def _first_status(self, begun: float) -> dict[str, Any]:
        while time.monotonic() - begun < STARTED_WITHIN:
            assert self.process.poll() is None, self._log.read_text("utf-8")
            try:
                return self.ask("/api/v1/status")
            except urllib.error.HTTPError:
                raise
            except OSError:  # not yet
                time.sleep(0.005)
        self.kill()
        raise AssertionError(f"it did not answer: {self._log.read_text('utf-8')}")

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """Ask it for JSON."""
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5.0) as answer:
            return json.load(answer)

    def until(self, what, within: float = SETTLED_WITHIN) -> float:
        """Wait until *what* holds of its status. Returns the seconds."""
        begun = time.monotonic()
        while not what(status := self.ask("/api/v1/status")):
            assert time.monotonic() < begun + within, breakers(status)
            time.sleep(0.01)
        return time.monotonic() - begun

    @property
    def restoring(self) -> float | None:
        """Seconds that it took to take up what the store held, by its own word. None:
        there was nothing."""
        lines = map(json.loads, self._log.read_text("utf-8").splitlines())
        took = [x["took_seconds"] for x in lines if x.get("event") == "restored"]
        return took[0] if took else None

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()


def breakers(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> breaker, of a status."""
    return {b["name"]: b for t in status["targets"] for b in t["breakers"]}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What of a status is another in one after a restart, a line each."""
    was, is_ = _facts(before), _facts(after)
    found = [f"{n}: {was[n]} became {is_.get(n)}" for n in was if was[n] != is_.get(n)]
    then, now = _moments(before), _moments(after)
    # What is stored is how long ago something was, or when it was decided.
    found += [
        f"{name}: {then[name]:.3f} became {now.get(name, 0.0):.3f}"
        for name in then
        if abs(then[name] - now.get(name, 0.0)) > 1.0
    ]
    return found


def _facts(status: dict[str, Any]) -> dict[str, Any]:
    windows = [(w["id"], w["reason"], w["ends"]) for w in status["maintenance"]]
    known: dict[str, Any] = {"windows": windows}
    for name, breaker in breakers(status).items():
        word = breaker["override"] and {**breaker["override"], "until": None}
        known[name] = (
            breaker["state"],
            breaker["computed_state"],
            breaker["cause"],
            word,
        )
    return known


def _moments(status: dict[str, Any]) -> dict[str, float]:
    moments = {}
    for name, breaker in breakers(status).items():
        moments[f"{name} since"] = breaker["since"]
        if breaker["override"] is not None:
            moments[f"{name} until"] = breaker["override"]["until"]
    return {n: datetime.fromisoformat(m).timestamp() for n, m in moments.items()}


@dataclass
class Lives:
    """What came of a number of kills and starts.

    Attributes:
        answered: Seconds from the start of each process to its first answer.
        restoring: Seconds in which each took up what the store held.
        blind: Seconds from each kill until the server was seen again.
        changed: What was another after a start, each time.
        moves: Transitions that were told after the orders were given.

    Args:
        path: A directory for all of it.
        dsn: Of a server that is well.
    """

    path: Path
    dsn: str
    answered: list[float] = field(default_factory=list)
    restoring: list[float] = field(default_factory=list)
    blind: list[float] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.port = free_port()
        self.config = self.path / "pgbreaker.yaml"
        self.config.write_text(
            "version: 1\ntargets:\n"
            f"  - {{name: main, dsn: '{self.dsn}'}}\n"
            f"  - {{name: gone, dsn: '{NOWHERE}'}}\n"
            f"store: {{path: '{self.path / 'state.db'}'}}\n"
            f"http: {{listen: '127.0.0.1:{self.port}'}}\n",
            "utf-8",
        )

    def begin(self) -> Life:
        """Start the daemon."""
        return Life(self.config, self.port, self.path / "log")

    def run(self, times: int, luck: random.Random) -> None:
        """Kill and start it *times* times, each at another moment of its life."""
        life = self.begin()
        try:
            mark = self._settle(life)
            before = life.ask("/api/v1/status")
            for _ in range(times):
                time.sleep(luck.uniform(0.0, 1.5))  # the moment
                life.kill()
                died = time.monotonic()
                life = self.begin()
                self.changed += differences(before, life.first)
                self._measure(life, died)
                # What it does in its first moments counts, too.
                self.changed += differences(before, life.ask("/api/v1/status"))
            told = life.ask(f"/api/v1/events?after={mark}&kind=transition&limit=500")
            self.moves += [f"{e['breaker']}: {e['text']}" for e in told["events"]]
        finally:
            life.kill()

    def _settle(self, life: Life) -> int:
        """Have it see what there is, and give the orders. Returns the last event's id."""
        life.until(lambda s: _all_seen(s) and breakers(s)[SHUT]["state"] == "open")
        order = {"reason": "a restart keeps this", "for": "6h", "author": "mia"}
        for breaker, state in ((FORCED, "open"), (DISABLED, "disabled")):
            path = f"/api/v1/breakers/{breaker}/override"
            life.ask(path, "PUT", {"state": state, **order})
        life.ask("/api/v1/maintenance", "POST", {"targets": ["gone"], **order})
        return max(e["id"] for e in life.ask("/api/v1/events?limit=100")["events"])

    def _measure(self, life: Life, died: float) -> None:
        self.answered.append(life.answered)
        life.until(_all_seen)
        self.blind.append(time.monotonic() - died)
        took = life.restoring
        assert took is not None, "it restored nothing"
        self.restoring.append(took)


def _all_seen(status: dict[str, Any]) -> bool:
    """Whether every target was pinged by this process."""
    return all(t["probes"][0]["last"] is not None for t in status["targets"])
