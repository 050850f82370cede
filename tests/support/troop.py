"""Daemons as processes that share an engine, and what tests do to them; and those who
follow them."""

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg

from pgbreaker.core.states import BY_DAEMONS as BY_OTHERS
from pgbreaker.demo.proxy import Proxy
from pgbreaker.demo.server import Server
from support.process import free_port
from support.servers import psql

PROGRAM = (sys.executable, "-m", "pgbreaker")
STARTED_WITHIN = 30.0
SETTLED_WITHIN = 20.0
PAGE = 500  # entries that are read at once

_OTHERS = (
    *("login", "commit", "identity", "saturation", "blocking", "replication", "slots"),
    *("database", "statements", "wal_ckpt", "maintenance", "size"),
)
PINGED = f"probes: {{{', '.join(f'{name}: false' for name in _OTHERS)}}}"
"""A target is pinged, and nothing else is asked: the machine is to be busy with daemons
that talk to each other."""

CALM = "defaults: {interval: 1s, timeout: 1s}\n"
"""As usual, with time to answer for fifty of one server on a busy machine."""

BY_DAEMONS = frozenset(cause.value for cause in BY_OTHERS)


def until(
    holds: Callable[[], object],
    within: float = SETTLED_WITHIN,
    say: Callable[[], object] = lambda: "it did not come about",
) -> float:
    """Wait until it *holds*. Returns the seconds.

    Args:
        say: Says how it is, when it does not.
    """
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() < begun + within, say()
        time.sleep(0.05)
    return time.monotonic() - begun


class Tap(contextlib.AbstractContextManager["Tap"]):
    """A `Proxy` by itself, whose faults anybody can call for.

    Attributes:
        port: The port that it listens on.
    """

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._proxy = Proxy("127.0.0.1", port)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Tap":
        self._thread.start()
        self._run(self._proxy.__aenter__())
        self.port = self._proxy.port
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._proxy.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    def blackhole(self) -> None:
        """Take everything, and pass nothing on."""
        self._loop.call_soon_threadsafe(self._proxy.blackhole)

    def reset(self) -> None:
        """Refuse everybody."""
        self._loop.call_soon_threadsafe(self._proxy.reset)

    def delay(self, seconds: float) -> None:
        """Hold everything back for so long."""
        self._loop.call_soon_threadsafe(self._proxy.delay, seconds)

    def restore(self) -> None:
        """End all that."""
        self._loop.call_soon_threadsafe(self._proxy.restore)


@dataclass(slots=True)
class Member:
    """One daemon.

    Attributes:
        name: Its own.
        home: Where its configuration, its store and its log are.
        port: Where it serves.
        env: What it is started with, besides our own environment.
    """

    name: str
    home: Path
    port: int
    env: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.home / f"{self.name}.log").read_text("utf-8", "replace")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    # What is done to it.

    def spawn(self) -> None:
        """Start it, and wait for nothing."""
        assert not self.is_running
        with (self.home / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*PROGRAM, "run", "--config", str(self.home / f"{self.name}.yaml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
            )

    def answer(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + STARTED_WITHIN
        while True:
            assert self.is_running, self.log[-3000:]
            try:
                self.status()
            except OSError:
                assert time.monotonic() < deadline, self.log[-3000:]
                time.sleep(0.01)
            else:
                return

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.spawn()
        self.answer()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """Stop it in its tracks."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> int:
        """End it in order. Returns its exit status."""
        assert self.process is not None
        self._signal(signal.SIGTERM)
        return self.process.wait(STARTED_WITHIN)

    # What it is asked.

    def ask(self, path: str) -> Any:
        """Ask it for JSON."""
        with urllib.request.urlopen(self.url + path, timeout=5.0) as answer:
            return json.load(answer)

    def status(self) -> dict[str, Any]:
        """Ask it how all is."""
        status: dict[str, Any] = self.ask("/api/v1/status")
        return status

    def peers(self) -> dict[str, Any]:
        """Ask it how it stands with the others."""
        peers: dict[str, Any] = self.status()["peers"]
        return peers

    def metric(self, name: str) -> float:
        """One number of its metrics, which has no labels."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=5.0) as answer:
            text = answer.read().decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def watched(self) -> set[str]:
        """The targets that it watches itself."""
        return {t["name"] for t in self.status()["targets"] if t["watched"]["here"]}

    def states(self) -> dict[str, str]:
        """Breaker -> how it is for callers."""
        targets = self.status()["targets"]
        return {b["name"]: b["state"] for t in targets for b in t["breakers"]}

    def events(self, after: int = 0, kinds: str = "transition") -> list[dict[str, Any]]:
        """All entries of its history after one, the oldest first, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            path = f"/api/v1/events?limit={PAGE}&kind={kinds}&after={after}"
            page = self.ask(path)["events"]
            found += page
            if len(page) < PAGE:
                return found
            after = page[-1]["id"]

    def last(self) -> int:
        """The id of the last transition in its history."""
        told = self.ask("/api/v1/events?limit=1&kind=transition")["events"]
        return int(told[-1]["id"]) if told else 0

    def said(self, words: str, after: float) -> float:
        """When it said so first after some moment, in seconds of the wall clock."""
        for line in self.log.splitlines():
            told = json.loads(line)
            if words in told["message"]:
                at = datetime.fromisoformat(told["time"]).timestamp()
                if at >= after:
                    return at
        raise AssertionError(f"{self.name} did not say {words!r}: {self.log[-2000:]}")

    def run(self, *words: str) -> str:
        """Run a command against it. Returns what it printed."""
        done = subprocess.run(
            [*PROGRAM, *words, "--url", self.url],
            capture_output=True,
            text=True,
            timeout=30.0,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout


@dataclass(slots=True)
class Troop:
    """All of them.

    Attributes:
        members: By their names.
        targets: The names of what they can watch.
        watchers: Daemons that shall watch each.
    """

    members: dict[str, Member]
    targets: tuple[str, ...]
    watchers: int

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members.values())

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    @property
    def up(self) -> list[Member]:
        """Those that run."""
        return [member for member in self if member.is_running]

    def together(self, do: Callable[[Member], Any]) -> list[Any]:
        """Do something with each that runs, all at once."""
        up = self.up
        with ThreadPoolExecutor(len(up)) as pool:
            return list(pool.map(do, up))

    def is_settled(self) -> bool:
        """Whether all who run know each other, and each target is watched by as many as
        shall, and seen."""
        everybody = sorted(member.name for member in self.up)
        seen = self.together(Member.status)
        if any(s["peers"]["daemons"] != everybody for s in seen):
            return False
        here = [t for s in seen for t in s["targets"] if t["watched"]["here"]]
        many = min(self.watchers, len(everybody))
        counts = dict.fromkeys(self.targets, 0)
        for target in here:
            counts[target["name"]] += 1
        return set(counts.values()) == {many}

    def settle(self, within: float = SETTLED_WITHIN) -> float:
        """Wait until it is so. Returns the seconds."""
        return until(self.is_settled, within, self.told)

    def heal(self, within: float = SETTLED_WITHIN) -> float:
        """Wait until every breaker is closed everywhere. Returns the seconds."""
        return until(self.is_well, within, self.ills)

    def ills(self) -> str:
        """Say which breakers are not closed, for whoever wonders why."""
        return "\n".join(
            f"{m.name}: {b['name']} {b['state']}, {t['watched']}: {b['reason']};"
            f" {b['fleet']}"
            for m in self.up
            for t in m.status()["targets"]
            for b in t["breakers"]
            if b["state"] != "closed"
        )

    def told(self) -> str:
        """Say how they stand with each other, for whoever wonders why not."""
        return "\n".join(
            f"{m.name}: {m.peers()}, watches {sorted(m.watched())}; {m.log[-2000:]}"
            for m in self.up
        )

    def is_well(self) -> bool:
        """Whether every breaker is closed everywhere."""
        return all(set(s.values()) == {"closed"} for s in self.together(Member.states))

    def moves(self, since: Mapping[str, int]) -> dict[str, list[str]]:
        """Daemon -> what its callers have felt since some entry of each."""

        def felt(member: Member) -> list[str]:
            told = member.events(since.get(member.name, 0))
            return [
                f"{e['breaker']}: {e['details']['from']} -> {e['details']['to']}"
                for e in told
                if e["details"]["override"] is None  # else it was decided for it
            ]

        up = self.up
        return dict(zip([m.name for m in up], self.together(felt), strict=True))

    def differences(self) -> "Differences":
        """Compare what each has seen with what the others have of it."""
        up = self.up
        all_ = self.together(lambda m: m.events(kinds="transition,notice"))
        found = Differences()
        for one, told in zip(up, all_, strict=True):
            own = [
                e["id"]
                for e in told
                if e["kind"] == "transition"
                and "daemon" not in e["details"]
                and e["details"]["cause"] not in BY_DAEMONS
            ]
            found.made += len(own)
            for other, theirs in zip(up, all_, strict=True):
                if other is not one:
                    found.compare(
                        own,
                        [
                            e["details"]["of"]
                            for e in theirs
                            if e["details"].get("daemon") == one.name
                            and e["details"].get("code") == "peer"
                        ],
                    )
        return found

    def agree(self, within: float = SETTLED_WITHIN) -> "Differences":
        """Wait until every history has all of the others. Returns how they compare then,
        or at the end of that time."""
        deadline = time.monotonic() + within
        while (found := self.differences()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return found

    def last(self) -> dict[str, int]:
        """Daemon -> its last transition until now."""
        up = self.up
        return dict(zip([m.name for m in up], self.together(Member.last), strict=True))


@dataclass(slots=True)
class Differences:
    """How histories compare; false when each has all of the others, once and in order.

    Attributes:
        made: Transitions that the daemons saw themselves.
        lost: Ids that another does not have.
        again: Those that it has more than once.
        reordered: Those that it has after a later one.
        unwritten: Those that only others have: who saw them was killed before they were
            on a disk that took longer than `history.PATIENCE`.
    """

    made: int = 0
    lost: list[int] = field(default_factory=list)
    again: list[int] = field(default_factory=list)
    reordered: list[int] = field(default_factory=list)
    unwritten: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.again or self.reordered)

    def compare(self, own: list[int], theirs: list[int]) -> None:
        """Compare what one has seen with what another has of it."""
        self.lost += sorted(set(own) - set(theirs))
        self.unwritten += sorted(set(theirs) - set(own))
        self.again += sorted(n for n, times in Counter(theirs).items() if times > 1)
        self.reordered += [n for m, n in pairwise(theirs) if n < m]


def enlist(server: Server, names: Iterable[str], targets: Iterable[str]) -> None:
    """Make a role for each daemon and target: the server knows then who looks at what."""
    both = [f"{name}.{target}" for name in names for target in targets]
    makes = "".join(
        f"CREATE ROLE \"{role}\" LOGIN PASSWORD :'p' IN ROLE pg_monitor;"
        for role in both
    )
    psql(server, makes.replace(":'p'", f"'{server.password}'"))


class Eye(contextlib.AbstractContextManager["Eye"]):
    """Looks all the time who is connected to a server by the roles of `enlist`.

    Attributes:
        seen: What was seen: moment, and target -> the daemons that look at it.
    """

    def __init__(self, server: Server, every: float = 0.05) -> None:
        self.seen: list[tuple[float, dict[str, set[str]]]] = []
        self._server = server
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._look()))

    def __enter__(self) -> "Eye":
        self._thread.start()
        until(lambda: self.seen)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    async def _look(self) -> None:
        connection = await asyncpg.connect(self._server.dsn(), timeout=10)
        try:
            while not self._ended.is_set():
                rows = await connection.fetch(_CONNECTED)
                found: dict[str, set[str]] = {}
                for row in rows:
                    daemon, _, target = row["usename"].partition(".")
                    found.setdefault(target, set()).add(daemon)
                self.seen.append((time.monotonic(), found))
                await asyncio.sleep(self._every)
        finally:
            connection.terminate()

    @property
    def now(self) -> dict[str, set[str]]:
        """Target -> the daemons that look at it, as was seen last."""
        return self.seen[-1][1]

    def longest_gap(self, targets: Iterable[str], besides: str = "") -> float:
        """Seconds for which nobody looked at one of these, at the longest.

        Args:
            besides: A daemon whose connections are not counted: it is frozen.
        """
        longest = 0.0
        for target in targets:
            looked = self.seen[0][0]
            for at, found in self.seen:
                longest = max(longest, at - looked)
                if found.get(target, set()) - {besides}:
                    looked = at
        return longest


_CONNECTED = """
SELECT usename FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND usename LIKE '%.%'
"""


def configure(
    member: Member,
    engine: str,
    targets: Mapping[str, str],
    *,
    peers: str = "",
    defaults: str = CALM,
) -> None:
    """Write a daemon's configuration.

    Args:
        engine: URL of the engine.
        targets: Target -> DSN.
        peers: More of its ``peers``, as YAML in one line, with a comma before.
        defaults: Lines of the configuration before the targets.
    """
    lines = "".join(
        f"  - {{name: {target}, dsn: '{dsn}', operations: [read], {PINGED}}}\n"
        for target, dsn in targets.items()
    )
    (member.home / f"{member.name}.yaml").write_text(
        f"version: 1\n{defaults}targets:\n{lines}"
        f"http: {{listen: 127.0.0.1:{member.port}}}\n"
        f"peers: {{url: '{engine}', name: {member.name}{peers}}}\n"
        f"store: {{path: {member.home / member.name}.db}}\n"
        "log: {format: json}\n",
        "utf-8",
    )


@contextlib.contextmanager
def troop(
    home: Path,
    engines: Mapping[str, str],
    targets: Mapping[str, Mapping[str, str]],
    *,
    env: Mapping[str, Mapping[str, str]] | None = None,
    peers: str = "",
    defaults: str = CALM,
    watchers: int = 1,
) -> Iterator[Troop]:
    """Daemons for the time of the block, which begins when all are settled.

    Args:
        home: A directory of their own.
        engines: Daemon -> URL of the engine, as it reaches that.
        targets: Daemon -> target -> DSN, as it reaches that.
        env: Daemon -> what it is started with besides.
        peers: More of their ``peers``, as YAML in one line, with a comma before.
        defaults: Lines of the configuration before the targets.
    """
    members = {
        name: Member(name, home, free_port(), (env or {}).get(name, {}))
        for name in engines
    }
    for name, member in members.items():
        more = f", watchers: {watchers}{peers}"
        configure(member, engines[name], targets[name], peers=more, defaults=defaults)
    all_ = Troop(members, tuple(targets[next(iter(engines))]), watchers)
    try:
        for member in all_:
            member.spawn()
        for member in all_:
            member.answer()
        all_.settle()
        all_.heal()
        yield all_
    finally:
        for member in all_:
            if member.is_running:
                member.thaw()
                member.kill()


_ASK = b"GET /api/v1/advice/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
_NEWS = re.compile(rb"event: advice\ndata: (.*)\n\n")


@dataclass(slots=True)
class Ear:
    """One who follows a daemon, by a bare socket.

    Attributes:
        daemon: Whom it follows.
        known: Breaker -> what was said of it last.
        turns: What was said otherwise than before, in its order: breaker, opinion.
        is_lost: Whether it was hung up on.
    """

    daemon: str
    sock: socket.socket
    known: dict[str, str] = field(default_factory=dict)
    turns: list[tuple[str, str]] = field(default_factory=list)
    is_lost: bool = False
    _rest: bytes = b""

    def take(self, data: bytes) -> None:
        """Take what was said."""
        self._rest += data
        end = 0
        for news in _NEWS.finditer(self._rest):
            end = news.end()
            for one in json.loads(news[1])["advice"]:
                name, opinion = one["breaker"], one["opinion"]
                if self.known.get(name, opinion) != opinion:
                    self.turns.append((name, opinion))
                self.known[name] = opinion
        self._rest = self._rest[end:]


class Ears:
    """Many who follow, in a thread of their own.

    Attributes:
        all: Each of them.
    """

    def __init__(self, members: Iterable[Member], count: int) -> None:
        """Have *count* follow, spread over the daemons."""
        self._ending = False
        self._poll = select.epoll()
        self._by_number: dict[int, Ear] = {}
        of = list(members)
        self.all: list[Ear] = []
        for number in range(count):
            self.add(of[number % len(of)])
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def add(self, member: Member) -> Ear:
        """Have one more follow."""
        sock = socket.create_connection(("127.0.0.1", member.port), 10.0)
        sock.sendall(_ASK)
        sock.setblocking(False)
        ear = Ear(member.name, sock)
        self._by_number[sock.fileno()] = ear
        self.all.append(ear)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        return ear

    def _hear(self) -> None:
        while not self._ending:
            for number, _ in self._poll.poll(0.1):
                ear = self._by_number[number]
                try:
                    data = ear.sock.recv(2**18)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if data:
                    ear.take(data)
                else:
                    ear.is_lost = True
                    self._poll.unregister(number)
                    del self._by_number[number]
                    ear.sock.close()

    def know(
        self, opinion: str, breakers: Iterable[str], count: int | None = None
    ) -> bool:
        """Whether all who are not lost were told this of these."""
        wanted = set(breakers)
        those = [ear for ear in self.all if not ear.is_lost]
        return (count is None or len(those) == count) and all(
            all(ear.known.get(name) == opinion for name in wanted) for ear in those
        )

    def close(self) -> None:
        """End them."""
        self._ending = True
        self._thread.join()
        for ear in self._by_number.values():
            ear.sock.close()
        self._poll.close()


@contextlib.contextmanager
def following(members: Iterable[Member], count: int) -> Iterator[Ears]:
    """So many followers, spread over the daemons, for the time of the block."""
    ears = Ears(members, count)
    try:
        yield ears
    finally:
        ears.close()
