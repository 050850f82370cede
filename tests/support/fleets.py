"""A fleet by a virtual clock: daemons that share an engine, and all who follow them.

What decides is the daemon's own: the circle, its ballots, its breakers. Around them a model
of what `sinks/peers` does, step by step: it tells and hears the same messages in the same
order, written by the same encoders, but has no board of its own, so that ten daemons of
ten thousand targets fit into minutes. Servers, the engine and followers are models too.

A step takes the time that `COSTS` says, in which nothing else of that daemon happens.
"""

import heapq
import itertools
import json
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pgbreaker.core.advice import Advice, Opinion, Version
from pgbreaker.core.circle import Circle, Duties
from pgbreaker.core.condition import Condition
from pgbreaker.core.entry import Entry, Kind, of_transition
from pgbreaker.core.opinion import DEFINITE, opinion_of, sqlstate_of
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.states import Evidence, Outcome, State, Transition
from pgbreaker.core.view import View
from pgbreaker.sinks.peers import scripts
from pgbreaker.sinks.peers.engine import KEPT
from pgbreaker.sinks.peers.peers import BEAT
from pgbreaker.web.api import advising

OPERATIONS: Final = ("connect", "read", "write")
PING: Final = 1.0  # seconds between two pings
FIRST: Final = 0.4  # until a target is pinged first that another daemon had
WALL: Final = 1_800_000_000.0
GONE: Final = Evidence(
    "refused", "connection refused by db-000.example.net:5432", None, "ping"
)

# As `sinks/peers/peers.py` has them.
LEASE, TIMEOUT, TELLS, HEARS = 2.0, 0.25, 200, 500
LOOKS, LONGEST_WAIT, OWED = 1.0, 2.0, 2000
RTT = 0.0005
SOON = 0.5  # until the others are back, too, after an engine was lost
LATER = 4.0  # until it is told of what others shall watch, and have not looked at yet

GRACE = 5.0
"""Seconds after the end of a fault in which breakers may still be open."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor seconds of a daemon, as `bench/fleet.py` measures them on a real one."""

    hear: float = 100e-6  # a message of another, until it is on the board
    standing: float = 35e-6  # a view that stands
    tell: float = 25e-6  # a view of its own
    reckon: float = 7e-6  # a breaker, counted anew
    look: float = 3e-6  # a breaker that is watched, once a second
    decide: float = 6e-6  # a target, when somebody came or went


COSTS: Final = Costs()


# The timeline.


class Timeline:
    """What is to happen, in its order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have *what* happen at *when*."""
        heapq.heappush(self._heap, (max(when, self.now), next(self._numbers), what))

    def run(self, until: float) -> None:
        """Have all of it happen until *until*."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, what = heapq.heappop(self._heap)
            what()
        self.now = until


# What is counted.


@dataclass
class Flow:
    """Messages and bytes, by seconds."""

    messages: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    bytes: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, now: float, messages: int, size: int) -> None:
        """Note some of them."""
        self.messages[int(now)] += messages
        self.bytes[int(now)] += size

    def between(self, since: float, until: float) -> tuple[float, int, float, int]:
        """Messages a second, the most in a second, and the same of bytes."""
        seconds = range(int(since), int(until))
        n = [self.messages.get(s, 0) for s in seconds]
        b = [self.bytes.get(s, 0) for s in seconds]
        return sum(n) / len(n), max(n), sum(b) / len(b), max(b)


@dataclass
class Spent:
    """Processor time of one kind of call of the real thing."""

    calls: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    def note(self, took: float) -> None:
        """Note one."""
        self.calls += 1
        self.seconds += took
        self.longest = max(self.longest, took)


# The wire: what redis-py and a Redis write (RESP 2).


def bulk(size: int) -> int:
    """Bytes of a string of *size* bytes."""
    return size + len(str(size)) + 5


def command(*words: object) -> int:
    """Bytes of a command, or of an answer of strings."""
    sizes = [len(str(word)) for word in words]
    return len(str(len(words))) + 3 + sum(map(bulk, sizes))


_PREFIX = "{pgbreaker}:"
_SHA = scripts.BEAT.sha
_WHO = "0" * 16


def script(keys: Iterable[str], *args: object) -> int:
    """Bytes of running a script."""
    named = [_PREFIX + key for key in keys]
    return command(
        "EVALSHA", _SHA, len(named), *named, "0" * 40, "00000", *args
    )  # the process of the engine, and the attempt


class LostError(Exception):
    """The engine does not answer."""


class FencedError(Exception):
    """The lease has ended."""


class MissedError(Exception):
    """What was asked for is not kept any more."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message: `what` is a view, or an entry of a history."""

    number: int
    daemon: str
    token: int
    kind: str
    key: str
    what: Any
    size: int  # of its body


@dataclass(frozen=True, slots=True)
class Beat:
    """What the engine answers to a sign of life."""

    token: int
    peers: dict[str, tuple[int, bool]]  # its token, whether it has told its targets
    last: int
    born: int


@dataclass
class Lease:
    """A lease."""

    token: int
    ends: float
    told: bool


class Engine:
    """A Redis, as far as daemons see it.

    Attributes:
        is_up: Whether it answers.
        flow: What goes in and out.
        by: Command -> how many of them.
    """

    def __init__(self, timeline: Timeline, names_size: int) -> None:
        self.is_up = True
        self.flow = Flow()
        self.by: dict[str, int] = defaultdict(int)
        self._timeline = timeline
        self._names_size = names_size
        self._listening: dict[str, Callable[[int], None]] = {}
        self._born = 0
        self.empty()

    def empty(self) -> None:
        """Come back with nothing."""
        self._born += 1
        self.last, self._tokens = self._born * 1_000_000, 0
        self.leases: dict[str, Lease] = {}
        self.said: deque[Said] = deque(maxlen=KEPT)
        self.views: dict[str, dict[str, tuple[View, int]]] = {}
        self.entries: dict[str, int] = {}
        self.places: set[str] = set()

    def _count(self, name: str, asked: int, answered: int, commands: int = 1) -> None:
        self.by[name] += commands
        self.flow.add(self._timeline.now, commands * 2, asked + answered)

    def listen(self, daemon: str, told: Callable[[int], None] | None) -> None:
        """Tell a daemon what is published; None: no more."""
        if told is None:
            self._listening.pop(daemon, None)
        else:
            self._listening[daemon] = told

    def beat(self, daemon: str, token: int | None) -> Beat:
        """Take or renew a lease."""
        now = self._timeline.now
        held = self.leases.get(daemon)
        if held is None or held.ends <= now or held.token != token:
            self._tokens = max(self._tokens, token or 0) + 1
            held = self.leases[daemon] = Lease(self._tokens, 0.0, daemon in self.places)
        held.ends = now + LEASE
        self.leases = {n: each for n, each in self.leases.items() if each.ends > now}
        live = self.leases.items()
        keys = ("fleet", "leases", "seen", "said", "entries", "words")
        digest, stamp = "0" * 16, int((WALL + now) * 1000)
        args = (
            daemon,
            _WHO,
            token or "",
            2000,
            _WHO,
            digest,
            scripts.DAY,
            scripts.LONG,
        )
        whose = (f"views:{daemon}", f"targets:{daemon}")
        answer = 4 + command("ok", self.last, _WHO) + len(f":{held.token}:{stamp}") + 4
        answer += sum(command(n, digest) + len(f":{x.token}:2000") for n, x in live)
        self._count("beat", script((*keys, *whose), *args), answer)
        peers = {name: (each.token, each.told) for name, each in live}
        return Beat(held.token, peers, self.last, self._born)

    def _check(self, daemon: str, token: int) -> None:
        held = self.leases.get(daemon)
        if held is None or held.token != token or held.ends <= self._timeline.now:
            raise FencedError

    def announce(self, daemon: str, token: int) -> None:
        """Tell what a daemon can watch."""
        asked = script(("fleet", "leases", f"targets:{daemon}"), daemon, _WHO, token)
        self._count("announce", asked + bulk(self._names_size), command("ok"))
        self._check(daemon, token)
        self.places.add(daemon)
        self.leases[daemon].told = True

    def targets(self) -> None:
        """Ask what all of them can watch."""
        for daemon in self.places:
            asked = command("GET", f"{_PREFIX}targets:{daemon}")
            self._count("targets", asked, bulk(self._names_size))

    def say(
        self, daemon: str, token: int, what: list[tuple[str, str, Any, int]]
    ) -> None:
        """Say something; whoever listens is hinted at it."""
        keys = ("fleet", "leases", "said", "entries", "words", f"views:{daemon}")
        asked = script(
            *(keys, daemon, _WHO, token, 2000, KEPT, scripts.DAY, f"{_PREFIX}said")
        )
        for kind, key, _, size in what:
            asked += bulk(len(kind)) + bulk(len(key)) + bulk(size)
        self._count("say", asked, command("ok", self.last))
        self._check(daemon, token)
        mine = self.views.setdefault(daemon, {})
        for kind, key, body, size in what:
            if kind == "view":
                mine[key] = body, size
            elif kind == "gone":
                mine.pop(key, None)
            else:
                self.entries[daemon] = max(int(key), self.entries.get(daemon, 0))
            self.last += 1
            self.said.append(Said(self.last, daemon, token, kind, key, body, size))
        hint = command("message", f"{_PREFIX}said", self.last)
        heard = len(self._listening)
        self.by["hint"] += heard
        self.flow.add(self._timeline.now, heard, heard * hint)
        for told in list(self._listening.values()):
            told(self.last)

    def _read(self, name: str, after: int) -> list[Said]:
        kept = self.said
        first = kept[0].number if kept else self.last + 1
        begin = max(0, after + 1 - first)
        found = list(itertools.islice(kept, begin, begin + HEARS))
        asked = command("HGET", f"{_PREFIX}fleet", "last")
        asked += command("XRANGE", f"{_PREFIX}said", f"{after}-0", "+", "COUNT", HEARS)
        answer = bulk(len(str(self.last))) + 8
        for one in found:
            words = ("daemon", one.daemon, "token", one.token, "kind", one.kind)
            answer += 4 + bulk(len(f"{one.number}-0")) + 1
            answer += command(*words, "key", one.key, "body", "") - 1
            answer += bulk(one.size) - bulk(0)
        self._count(name, asked, answer, 2)
        return found

    def heard(self, after: int) -> list[Said]:
        """What was said after number *after*."""
        found = self._read("heard", after)
        if found and found[0].number != after + 1:
            raise MissedError
        if not found and after != self.last:
            raise MissedError
        return found

    def kept(self, after: int) -> Iterable[list[Said]]:
        """What is kept of it, in parts."""
        while found := self._read("kept", after):
            yield found
            after = found[-1].number

    def standing(self) -> tuple[int, dict[str, dict[str, View]], dict[str, int], int]:
        """What stands; and in how many parts it was read."""
        parts = 3
        asked = command("HSCAN", f"{_PREFIX}views:daemon-0", "00000", "COUNT", HEARS)
        for said in self.views.values():
            some = max(1, -(-len(said) // HEARS))
            parts += some
            sizes = sum(bulk(len(key)) + bulk(size) for key, (_, size) in said.items())
            self._count("standing", some * asked, sizes + some * 20, some)
        self.targets()
        views = {
            name: {key: view for key, (view, _) in said.items()}
            for name, said in self.views.items()
        }
        return self.last, views, dict(self.entries), parts

    def leave(self, daemon: str, token: int) -> None:
        """Give a lease back."""
        asked = script(("fleet", "leases"), daemon, _WHO, token, 2000)
        self._count("leave", asked, command("ok"))
        if daemon in self.leases and self.leases[daemon].token == token:
            del self.leases[daemon]


# The fleet.


@dataclass
class Tally:
    """What a scenario has brought."""

    handed: int = 0
    unwatched: float = 0.0
    opened_late: float = 0.0
    closed_late: float = 0.0
    false_open: int = 0
    false_healthy: int = 0
    forgotten: int = 0
    moves: int = 0
    fenced: int = 0
    missed: int = 0
    busy: float = 0.0  # the longest that a daemon was at it without a beat


class Fleet:
    """Daemons, their targets, an engine, and those who follow.

    Attributes:
        tally: What has come of it since it was last begun.
        spent: What -> processor time of the real thing, in this process.
        followed: What all followers of a daemon are sent, by daemon.
    """

    def __init__(
        self,
        targets: int,
        daemons: int,
        followers: int,
        *,
        watchers: int = 1,
        seed: int = 1,
        costs: Costs = COSTS,
        all_of_it: int = 0,
        timed: bool = True,
    ) -> None:
        """
        Args:
            all_of_it: Bytes that a follower is sent first, when it comes.
            timed: Whether processor time is taken.
        """
        self.random = random.Random(seed)
        self.timeline = Timeline()
        self.names = [f"db-{n:05}" for n in range(targets)]
        self.engine = Engine(self.timeline, len(json.dumps(self.names)))
        self.watchers, self.costs, self.all_of_it = watchers, costs, all_of_it
        self.down: dict[str, float] = {}  # target -> since when
        self.mended: dict[str, float] = {}  # target -> since when again
        self.looking: dict[str, int] = defaultdict(int)
        self.unwatched: dict[str, float] = {}
        self.tally = Tally()
        self.spent: dict[str, Spent] = defaultdict(Spent)
        self.timed = timed
        self.followers = followers
        self.told: dict[tuple[str, int], float] = {}  # entries that have been told
        self.memory = MappingProxyType(self._usual_memory())
        self.daemons = [Daemon(self, f"daemon-{n}") for n in range(daemons)]
        for daemon in self.daemons:
            self.timeline.at(self.random.uniform(0.0, 1.0), daemon.start)

    def _usual_memory(self) -> dict[str, Any]:
        """What a breaker remembers that is pinged and well."""
        breaker = RuledBreaker(
            "any/read", DAEMON, 0.0, draw=self.random.random, eras=itertools.count(1)
        )
        for second in range(60):
            breaker.observe(Outcome.SUCCESS, float(second))
        return dict(breaker.memory(60.0))

    @property
    def now(self) -> float:
        """The moment."""
        return self.timeline.now

    @property
    def live(self) -> list["Daemon"]:
        """The daemons that run."""
        return [daemon for daemon in self.daemons if daemon.is_alive]

    def timing(self, name: str, call: Callable[[], Any]) -> Any:
        """Call the real thing, and note what that took."""
        if not self.timed:
            return call()
        begun = time.thread_time()
        answer = call()
        self.spent[name].note(time.thread_time() - begun)
        return answer

    # What happens to it.

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self.timeline.run(self.now + seconds)
        for since in self.unwatched.values():
            self.tally.unwatched = max(self.tally.unwatched, self.now - since)

    def fail(self, targets: Iterable[str]) -> None:
        """Have servers die."""
        for name in targets:
            self.down[name] = self.now
            for daemon in self.live:
                daemon.startle(name)

    def mend(self, targets: Iterable[str]) -> None:
        """Have servers be there again."""
        for name in targets:
            if self.down.pop(name, None) is not None:
                self.mended[name] = self.now

    def follow(self) -> None:
        """Have all who follow come, each daemon's share to it."""
        for number, daemon in enumerate(self.daemons):
            daemon.welcome(len(range(number, self.followers, len(self.daemons))))

    def looks(self, target: str, more: int) -> None:
        """Know that one more, or one less, looks at a target."""
        self.looking[target] += more
        if self.looking[target] > 0:
            since = self.unwatched.pop(target, None)
            if since is not None:
                self.tally.unwatched = max(self.tally.unwatched, self.now - since)
        elif more < 0:
            self.unwatched[target] = self.now

    def scatter(self, daemon: "Daemon") -> None:
        """Have those who followed a daemon come to the others, as the library does: at
        some moment of the first half second."""
        there = [other for other in self.live if other is not daemon]
        if not there:
            return
        each, rest = divmod(daemon.followers, len(there))
        daemon.followers = 0
        for number, other in enumerate(there):
            count = each + (number < rest)
            for part in range(5):
                coming = count // 5 + (part < count % 5)
                when = self.now + 0.1 * part + 0.05
                self.timeline.at(when, lambda o=other, c=coming: o.welcome(c))

    # What is felt.

    def feel(self, target: str, before: Opinion | None, after: Opinion) -> None:
        """Take note of what callers are told otherwise than before."""
        tally, now = self.tally, self.now
        since, mended = self.down.get(target), self.mended.get(target)
        if after is Opinion.OPEN:
            if since is not None:
                tally.opened_late = max(tally.opened_late, now - since)
            elif mended is None or now - mended > GRACE:
                tally.false_open += 1
        elif before is Opinion.OPEN:
            if since is None:
                assert mended is not None
                tally.closed_late = max(tally.closed_late, now - mended)
            elif after is Opinion.UNKNOWN:
                tally.forgotten += 1
            elif now - since > GRACE:
                tally.false_healthy += 1

    @property
    def lost(self) -> int:
        """Moves that are told, and that a daemon which runs has not in its history."""
        return sum(
            daemon not in other.seen or number not in other.seen[daemon]
            for daemon, number in self.told
            for other in self.live
            if other.name != daemon
        )

    @property
    def is_calm(self) -> bool:
        """Whether each target is watched by those who shall, and all is told."""
        live = self.live
        first = live[0].circle if live else None
        if first is None or any(d.circle.is_alone or d.untold for d in live):
            return False
        if any(d.last != self.engine.last for d in live):
            return False
        here = {d.name: d.circle.watching for d in live}
        whole = sum(map(len, here.values()))
        wanted = len(self.names) * min(self.watchers, len(live))
        return whole == wanted and len(first.live) == len(live)

    def settle(self, most: float) -> float:
        """Let time pass until all is calm, for *most* seconds; returns how long."""
        begun = self.now
        while not self.is_calm and self.now - begun < most:
            self.run(0.5)
        return self.now - begun


Steps = Generator[float | None, None, Any]
"""What a daemon does: seconds that each step takes; None rests until woken."""


class Daemon:
    """One daemon.

    Attributes:
        followers: How many follow it.
        followed: What is sent to them, together.
        seen: Daemon -> entries of it that its history has, which a restart keeps.
    """

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.name = name
        self.is_alive = False
        self.followers = 0
        self.followed = Flow()
        self.seen: dict[str, set[int]] = defaultdict(set)
        self.history: list[tuple[int, int]] = []  # entries of its own, and their sizes
        self._fleet = fleet
        self._timeline = fleet.timeline
        self._engine = fleet.engine
        self._run_number = 0
        self._entry = 0
        self._eras = itertools.count(1)

    # Life.

    def start(self) -> None:
        """Begin."""
        fleet = self._fleet
        self.is_alive = True
        self._run_number += 1
        self._eras = itertools.count(1)
        self.circle = Circle(self.name, fleet.now, watchers=fleet.watchers)
        self.circle.can_watch(fleet.names)
        self.token: int | None = None
        self.born = self.last = self.hinted = self.tries = 0
        self.is_announced = self.knows_lists = self.has_missed = False
        self.beats_at = fleet.now
        self.looked_at = fleet.now
        self.untold: dict[str, View | None] = {}
        self.owed: deque[tuple[int, int]] = deque(maxlen=OWED)
        self.breakers: dict[str, RuledBreaker] = {}
        self.minds: dict[str, tuple[Any, ...]] = {}
        self.fresh: set[str] = set()  # targets that a ping has come back from
        self.to_look: dict[str, None] = {}  # of which the next look brings news
        self.later: dict[str, float] = {}
        self.tells_rest_at = fleet.now
        self.passing: dict[str, None] = {}
        self.touched: dict[str, None] = {}
        self.felt: dict[str, Opinion] = {}
        self.version = Version(int((WALL + fleet.now) * 1000), 0)
        self.is_woken = False
        self.busy_since = fleet.now
        self._resting: int | None = None
        self._rests = itertools.count()
        self._steps: Steps = self._run()
        self._engine.listen(self.name, self._hint)
        self.leased: int | None = None
        self._beat_followers(self._run_number)
        self._renew(self._run_number)
        self._go(self._run_number)

    def kill(self) -> None:
        """End at once."""
        self.is_alive = False
        self._run_number += 1
        self._steps.close()
        self._engine.listen(self.name, None)
        for target in self.fresh:
            self._fleet.looks(target, -1)
        self._fleet.scatter(self)

    def stop(self) -> None:
        """End as asked: all is told, and the lease given back."""
        if self.token is not None and self._engine.is_up:
            views, entries = list(self.untold.items()), list(self.owed)
            if views or entries:
                self._say(views, entries)
            self._engine.leave(self.name, self.token)
        self.kill()

    def _go(self, run: int) -> None:
        """Make the next step."""
        if run != self._run_number or not self.is_alive:
            return
        self._resting = None
        took = next(self._steps)
        self.flush()
        if took is not None:
            self._timeline.at(self._fleet.now + took, lambda: self._go(run))

    def _renew(self, run: int) -> None:
        """Keep the lease while something else takes long."""
        if run != self._run_number:
            return
        now = self._fleet.now
        if self.leased is not None and self._engine.is_up and now > self.beats_at:
            self.beats_at = now
            self.leased = self._engine.beat(self.name, self.leased).token
        self._timeline.at(now + BEAT, lambda: self._renew(run))

    def _rest(self, until: float) -> None:
        self._resting = number = next(self._rests)
        run = self._run_number

        def over() -> None:
            if self._resting == number:
                self._go(run)

        self._timeline.at(until, over)

    def wake(self) -> None:
        """Have it see at once what there is."""
        self.is_woken = True
        if self._resting is not None and not self.circle.is_alone:
            self._resting = None
            run = self._run_number
            self._timeline.at(self._fleet.now, lambda: self._go(run))

    def _hint(self, number: int) -> None:
        run = self._run_number

        def hinted() -> None:
            if run == self._run_number:
                self.hinted = max(self.hinted, number)
                self.wake()

        self._timeline.at(self._fleet.now + RTT / 2, hinted)

    # As `Peers` does it.

    def _run(self) -> Steps:
        fleet, draw = self._fleet, self._fleet.random
        while True:
            begun = fleet.now
            yield from self._talk()
            duties = fleet.timing("decide", lambda: self.circle.decide(fleet.now))
            yield self._do(duties)
            wait = BEAT
            if self.circle.is_due(fleet.now):
                wait = 0.0
            elif self.circle.is_alone:
                longest = LONGEST_WAIT if self.circle.is_settled else wait
                wait = min(longest, wait * 2.0 ** min(self.tries, 6))
                wait *= draw.uniform(0.5, 1.0)
            if wait and not (self.is_woken and not self.circle.is_alone):
                self._rest(begun + wait)
                yield None

    def _do(self, duties: Duties) -> float:
        run = self._run_number
        for target in sorted(duties.take):
            self._fleet.tally.handed += 1
            self.look_at(target)
            when = self._fleet.now + self._fleet.random.uniform(0.0, FIRST)
            self._timeline.at(when, lambda t=target: self._first(run, t))
        for target in sorted(duties.leave):
            self._leave(target)
        return len(duties.take) * 3 * self._fleet.costs.tell

    def _leave(self, target: str) -> None:
        self.to_look.pop(target, None)
        self.later.pop(target, None)
        if target in self.fresh:
            self.fresh.discard(target)
            self._fleet.looks(target, -1)
        for name in _breakers(target):
            is_known = self.minds.pop(name, None) is not None
            self.breakers.pop(name, None)
            if is_known:
                self.untold[name] = None
            self.circle.forget(self.name, name)
            self.touched[name] = None

    def _ask(self, call: Callable[[], Any]) -> Steps:
        if not self._engine.is_up:
            yield TIMEOUT
            raise LostError
        answer = call()
        yield RTT
        return answer

    def _talk(self) -> Steps:
        fleet = self._fleet
        self.is_woken = False
        now = fleet.now
        if now - self.looked_at >= LOOKS:
            self.looked_at = now
            yield self._look()
        try:
            is_due = self.circle.is_due(now)  # which waits for no answer
            if now >= self.beats_at or (self.circle.is_alone and not is_due):
                self.beats_at = now + BEAT
                fleet.tally.busy = max(fleet.tally.busy, now - self.busy_since)
                self.busy_since = now
                beat = yield from self._ask(
                    lambda: self._engine.beat(self.name, self.token)
                )
                self.leased = beat.token
                yield from self._meet(beat)
            yield from self._tell()
            yield from self._hear(self.hinted)
        except LostError:
            self.tries += 1
            if not self.circle.is_alone:
                self.circle.lose(fleet.now)
                yield from self._reckon_all()
        except FencedError:
            fleet.tally.fenced += 1
            self.token, self.is_woken = None, True
        except MissedError:
            fleet.tally.missed += 1
            self.has_missed, self.is_woken, self.beats_at = True, True, fleet.now

    def _meet(self, beat: Beat) -> Steps:
        is_new = beat.token != self.token or beat.born != self.born
        was_joined, before = not self.circle.is_alone, self.circle.live
        if is_new or not self.is_announced:
            yield from self._ask(lambda: self._engine.announce(self.name, beat.token))
            self.is_announced = True
        if not self.knows_lists or not all(told for _, told in beat.peers.values()):
            yield from self._ask(self._engine.targets)
            self.knows_lists = True
        here = self.circle_targets
        who = {
            name: (token, here if told or name == self.name else frozenset[str]())
            for name, (token, told) in beat.peers.items()
        }
        if is_new or self.has_missed:
            yield from self._hear_standing(beat, who)
        else:
            self._meet_them(who)
            yield from self._hear(beat.last)
        self.tries = 0
        if is_new or not was_joined or before != self.circle.live:
            yield from self._reckon_all()

    @property
    def circle_targets(self) -> frozenset[str]:
        """What every daemon can watch."""
        return _all_of(self._fleet)

    def _meet_them(self, who: dict[str, tuple[int, frozenset[str]]]) -> None:
        now = self._fleet.now
        self._fleet.timing("meet", lambda: self.circle.meet(who, now))

    def _hear_standing(
        self, beat: Beat, who: dict[str, tuple[int, frozenset[str]]]
    ) -> Steps:
        fleet, costs = self._fleet, self._fleet.costs
        last, views, entries, parts = yield from self._ask(self._engine.standing)
        yield RTT * parts
        for daemon, said in views.items():
            if daemon == self.name:
                continue
            token = who[daemon][0] if daemon in who else 0
            for view in said.values():
                self.circle.hear(daemon, token, view, fleet.now)
                if view.opinion is not _HEALTHY:
                    self.touched[view.breaker] = None
            yield len(said) * costs.standing
        after = self.last if beat.born == self.born else 0
        is_new = beat.token != self.token or beat.born != self.born
        self.token, self.born, self.has_missed = beat.token, beat.born, False
        self.last = self.hinted = last
        self.circle.retain(views)
        self._meet_them(who)
        if is_new:
            self._owe_all(entries.get(self.name, 0), views.get(self.name, {}))
        yield self._look()
        for some in self._engine.kept(after):
            if some[0].number > last:
                break
            for one in some:
                if one.kind == "entry" and one.number <= last:
                    self._take(one)
            yield RTT

    def _owe_all(self, known: int, standing: dict[str, View]) -> None:
        """Have all told anew that is thought here, and seen since entry *known*."""
        now = self._fleet.now
        self.tells_rest_at = now + LATER
        self.owed.clear()
        self.owed.extend(entry for entry in self.history if entry[0] > known)
        self.minds.clear()
        self.untold = dict.fromkeys(standing)  # what is thought yet goes before it
        for target in sorted(self.circle.watching):
            self.later[target] = now + SOON  # once the others are back, too

    def _reckon_all(self) -> Steps:
        """Count anew; what cannot have changed is only said to have taken its time."""
        for target in self._fleet.down:
            self.touched.update(dict.fromkeys(_breakers(target)))
        for target in self.circle.watching:
            self.touched.update(dict.fromkeys(_breakers(target)))
        for name in [n for n, opinion in self.felt.items() if opinion is not _HEALTHY]:
            self.touched[name] = None
        yield len(self._fleet.names) * 3 * self._fleet.costs.reckon

    def _tell(self) -> Steps:
        while self.token is not None and not self.circle.is_alone:
            views = list(itertools.islice(self.untold.items(), TELLS))
            entries = list(itertools.islice(self.owed, TELLS))
            if not views and not entries:
                return
            yield from self._ask(lambda v=views, e=entries: self._say(v, e))
            for name, body in views:
                if name in self.untold and self.untold[name] is body:
                    del self.untold[name]
            for entry in entries:
                if self.owed and self.owed[0] is entry:
                    self.owed.popleft()

    def _say(
        self, views: list[tuple[str, View | None]], entries: list[tuple[int, int]]
    ) -> None:
        assert self.token is not None
        what: list[tuple[str, str, Any, int]] = []
        for name, view in views:
            size = 0 if view is None else len(written(view))
            what.append(("gone" if view is None else "view", name, view, size))
        for number, size in entries:
            what.append(("entry", str(number), None, size))
        self._engine.say(self.name, self.token, what)
        for number, _ in entries:
            self._fleet.told.setdefault((self.name, number), self._fleet.now)

    def _hear(self, last: int) -> Steps:
        while self.last < last:
            heard = yield from self._ask(lambda: self._engine.heard(self.last))
            if not heard:
                return
            others = 0
            for one in heard:
                self.last = one.number
                others += one.daemon != self.name
                self._take(one)
            yield others * self._fleet.costs.hear

    def _take(self, one: Said) -> None:
        if one.daemon == self.name:
            return
        circle, now, time_it = self.circle, self._fleet.now, self._fleet.timing
        if one.kind == "view":
            time_it("hear", lambda: circle.hear(one.daemon, one.token, one.what, now))
            self.touched[one.key] = None
        elif one.kind == "gone":
            circle.forget(one.daemon, one.key)
            self.touched[one.key] = None
        else:
            self.seen[one.daemon].add(int(one.key))

    # As `Sights` does it.

    def _look(self) -> float:
        watched = len(self.circle.watching)
        now = self._fleet.now
        for target in [t for t, when in self.later.items() if now >= when]:
            del self.later[target]
            is_last = now >= self.tells_rest_at
            if is_last or self.name in self.circle.chosen(target):
                self.to_look[target] = None
            else:
                self.later[target] = self.tells_rest_at
        for target in list(self.to_look):
            del self.to_look[target]
            self.look_at(target)
        self.touched.update(self.passing)
        return watched * 3 * self._fleet.costs.look

    def look_at(self, target: str) -> None:
        """Find out what is thought otherwise than before."""
        if target not in self.circle.watching:
            return
        now, is_fresh = self._fleet.now, target in self.fresh
        condition = self._condition(target)
        for name in _breakers(target):
            breaker = self.breakers.get(name)
            if breaker is None:
                opinion = Opinion.HEALTHY if is_fresh else Opinion.UNKNOWN
                is_definite, era, sqlstate = False, 0, None
            else:
                opinion = opinion_of(breaker, is_fresh=is_fresh)
                sqlstate, era = sqlstate_of(breaker, opinion), breaker.era
                is_definite = sqlstate in DEFINITE
            mind = (opinion, is_definite, era, condition)
            if self.minds.get(name) == mind:
                continue
            self.minds[name] = mind
            view = View(
                breaker=name,
                opinion=opinion,
                state=State.CLOSED if breaker is None else breaker.computed_state,
                reason="" if breaker is None else breaker.reason,
                sqlstate=sqlstate,
                is_definite=is_definite,
                condition=condition,
                token=self.token or 0,
                at=WALL + now,
                memory=self._fleet.memory if breaker is None else breaker.memory(now),
            )
            self.untold[name] = view
            token = self.token or 0
            self.circle.hear(self.name, token, view, now)
            self.touched[name] = None

    def _condition(self, target: str) -> Condition:
        if target not in self.fresh:
            return Condition.UNKNOWN
        if target in self._fleet.down:
            return Condition.DOWN
        known = (self.breakers.get(name) for name in _breakers(target))
        is_troubled = any(b is not None and not b.passes for b in known)
        return Condition.DEGRADED if is_troubled else Condition.UP

    # Pings.

    def _first(self, run: int, target: str) -> None:
        if run != self._run_number or target not in self.circle.watching:
            return
        if target not in self.fresh:
            self.fresh.add(target)
            self._fleet.looks(target, 1)
        self.to_look[target] = None
        self._recall(target)
        if target in self._fleet.down or _breakers(target)[0] in self.breakers:
            self._ping(run, target)

    def _recall(self, target: str) -> None:
        """Go on where those were who watched it before."""
        now = self._fleet.now
        for name in _breakers(target):
            ballot = self.circle.ballot(name, now)
            others = (v for d, v in ballot.views.items() if d != self.name)
            view = ballot.speaker or next(others, None)
            if view is not None and view.state is not State.CLOSED:
                self._own(name)
                away = max(0.0, WALL + now - view.at)
                self.breakers[name].recall(view.memory, now, away)

    def _own(self, name: str) -> RuledBreaker:
        if name not in self.breakers:
            self.breakers[name] = RuledBreaker(
                *(name, DAEMON, self._fleet.now),
                draw=self._fleet.random.random,
                eras=self._eras,
            )
        return self.breakers[name]

    def startle(self, target: str) -> None:
        """A server that is watched here has died: the next ping sees it."""
        if target in self.fresh:
            when = self._fleet.now + self._fleet.random.uniform(0.0, PING)
            run = self._run_number
            self._timeline.at(when, lambda: self._ping(run, target))

    def _ping(self, run: int, target: str) -> None:
        """Ask a server that is in trouble, until it is well."""
        if run != self._run_number or target not in self.fresh:
            return
        now, is_down = self._fleet.now, target in self._fleet.down
        outcome = Outcome.FAILURE if is_down else Outcome.SUCCESS
        for name in _breakers(target):
            moves = self._own(name).observe(
                *(outcome, now), confirmed=is_down, evidence=GONE if is_down else None
            )
            for move in moves:
                self._note(move)
        self.to_look[target] = None
        own = [self.breakers[name] for name in _breakers(target)]
        if is_down or any(b.computed_state is not State.CLOSED for b in own):
            self._timeline.at(now + PING, lambda: self._ping(run, target))
        self.flush()

    def _note(self, move: Transition) -> None:
        """A breaker has moved: the others are told of it."""
        self._fleet.tally.moves += 1
        self._entry += 1
        wall = WALL + move.at
        number = int(wall * 1000) * 10 + self._entry % 10
        number = max(number, self.history[-1][0] + 1 if self.history else 0)
        entry = Entry(
            id=number,
            at=wall,
            kind=Kind.TRANSITION,
            text=move.reason,
            breaker=move.breaker,
            details=of_transition(move),
        )
        told = (number, entry_size(entry))
        self.history.append(told)
        self.owed.append(told)
        self.look_at(move.breaker.partition("/")[0])
        self.wake()

    # What holds, and who is told.

    def flush(self) -> None:
        """Count what may hold otherwise, and tell those who follow."""
        if not self.touched:
            return
        fleet, now = self._fleet, self._fleet.now
        news = []
        for name in self.touched:
            ballot = fleet.timing("ballot", lambda n=name: self.circle.ballot(n, now))
            if ballot.passes:
                self.passing[name] = None
            else:
                self.passing.pop(name, None)
            self._rule(name, ballot)
            before = self.felt.get(name)
            if before is ballot.opinion:
                continue
            self.felt[name] = ballot.opinion
            fleet.feel(name.partition("/")[0], before, ballot.opinion)
            news.append((name, ballot))
        self.touched.clear()
        if news:
            self._advise(news)

    def _rule(self, name: str, ballot: Any) -> None:
        breaker = self.breakers.get(name)
        if breaker is None:
            return
        ruling = breaker.ruling
        state = None
        if self.circle.rules(name.partition("/")[0]):
            if ballot.opinion is Opinion.UNKNOWN:
                state = None if ruling is None else ruling.state
            else:
                is_open = ballot.opinion is Opinion.OPEN
                state = State.OPEN if is_open else State.CLOSED
        breaker.rule(state, ballot.told(), self._fleet.now)

    def _advise(self, news: list[tuple[str, Any]]) -> None:
        self.version = Version(self.version.epoch, self.version.seq + 1)
        if not self.followers:
            return
        said = []
        for name, ballot in news:
            speaker = ballot.speaker
            is_open = speaker is not None and ballot.opinion is Opinion.OPEN
            advice = Advice(
                breaker=name,
                opinion=ballot.opinion,
                version=self.version,
                lease=advising.LEASE,
                reason=speaker.reason if is_open else "",
                sqlstate=speaker.sqlstate if is_open else None,
                is_definite=speaker.is_definite if is_open else False,
            )
            said.append(advice.written())
        message = {**self._heading(), "complete": False, "advice": said}
        self._send(on_wire(self.version, "advice", message))

    def _heading(self) -> dict[str, Any]:
        return {
            "version": {"epoch": str(self.version.epoch), "seq": self.version.seq},
            "lease_seconds": advising.LEASE,
            "spread_seconds": max(1.0, round(self.followers / advising.RATE, 1)),
        }

    def _send(self, size: int) -> None:
        count = self.followers
        self.followed.add(self._fleet.now, count, count * size)

    def _beat_followers(self, run: int) -> None:
        if run != self._run_number:
            return
        self._send(on_wire(self.version, "heartbeat", self._heading()))
        when = self._fleet.now + advising.BEAT
        self._timeline.at(when, lambda: self._beat_followers(run))

    def welcome(self, count: int) -> None:
        """Have some more follow, who are sent all of it."""
        if self.is_alive:
            self.followers += count
            self.followed.add(self._fleet.now, count, count * self._fleet.all_of_it)


_HEALTHY = Opinion.HEALTHY
_NAMES: dict[str, tuple[str, ...]] = {}
_TARGETS: dict[int, frozenset[str]] = {}


def _breakers(target: str) -> tuple[str, ...]:
    """The names of a target's breakers."""
    known = _NAMES.get(target)
    if known is None:
        known = _NAMES[target] = tuple(f"{target}/{o}" for o in OPERATIONS)
    return known


def _all_of(fleet: Fleet) -> frozenset[str]:
    count = len(fleet.names)
    if count not in _TARGETS:
        _TARGETS[count] = frozenset(fleet.names)
    return _TARGETS[count]


def written(view: View) -> str:
    """A view as it is told."""
    fields = {**view.written(), "memory": dict(view.memory)}
    return json.dumps(fields, separators=(",", ":"))


def entry_size(entry: Entry) -> int:
    """Bytes of an entry of a history, as it is told."""
    body = {
        "kind": entry.kind.value,
        "text": entry.text,
        "at": entry.at,
        "breaker": entry.breaker,
        "details": dict(entry.details),
    }
    return len(json.dumps(body, separators=(",", ":")))


def on_wire(version: Version, kind: str, data: Any) -> int:
    """Bytes of an event, numbered and in a chunk of HTTP/1.1."""
    told = len(f"id: {version.epoch}-{version.seq}\n") + len(advising.event(kind, data))
    return len(f"{told:x}") + 4 + told


# What happens to fleets.

DOWN: Final = 15.0  # seconds that a server is
MOST: Final = 10.0  # seconds that it is waited for calm


def quiet(fleet: Fleet) -> None:
    fleet.run(60)


def one_fails(fleet: Fleet) -> None:
    some = fleet.names[:1]
    fleet.fail(some)
    fleet.run(DOWN)
    fleet.mend(some)
    fleet.run(10)


def some_flap(fleet: Fleet) -> None:
    some = fleet.names[3::100]
    for _ in range(5):
        fleet.fail(some)
        fleet.run(3)
        fleet.mend(some)
        fleet.run(3)
    fleet.run(20)


def zone_fails(fleet: Fleet) -> None:
    some = fleet.names[::10]
    fleet.fail(some)
    fleet.run(DOWN)
    fleet.mend(some)
    fleet.run(10)


def daemon_dies(fleet: Fleet) -> None:
    some = fleet.names[5::100]
    fleet.fail(some)
    fleet.run(3)
    fleet.daemons[-1].kill()
    fleet.run(10)
    fleet.daemons[-1].start()
    fleet.run(10)
    fleet.mend(some)
    fleet.run(10)


def engine_dies(fleet: Fleet) -> None:
    some = fleet.names[5::100]
    fleet.fail(some)
    fleet.run(3)
    fleet.engine.is_up = False
    fleet.run(10)
    fleet.engine.empty()
    fleet.engine.is_up = True
    fleet.run(15)
    fleet.mend(some)
    fleet.run(10)


def all_restart(fleet: Fleet) -> None:
    for daemon in fleet.daemons:
        daemon.stop()
        fleet.run(1)
        daemon.start()
        fleet.run(4)


SCENARIOS: dict[str, Callable[[Fleet], None]] = {
    "a quiet minute": quiet,
    "one target fails": one_fails,
    "1 % of them flap": some_flap,
    "10 % fail at once": zone_fails,
    "a daemon dies": daemon_dies,
    "all restart, in turn": all_restart,
    "the engine, 10 s": engine_dies,
}


@dataclass(frozen=True, slots=True)
class Came:
    """What a scenario came to."""

    tally: Tally
    lost: int
    settled: float
    engine: tuple[float, int, float, int]
    daemon: tuple[float, int, float, int]  # of the one whose followers are sent most
    follower: tuple[float, float]
    fullest: int


def play(fleet: Fleet, scenario: Callable[[Fleet], None]) -> Came:
    """Have it happen, and let it settle."""
    fleet.tally = Tally()
    begun = fleet.now
    scenario(fleet)
    settled = fleet.settle(MOST)
    until = max(fleet.now, begun + 1)
    sent = [daemon.followed.between(begun, until) for daemon in fleet.daemons]
    most = max(sent, key=lambda each: each[3])
    everybody = max(1, sum(daemon.followers for daemon in fleet.daemons))
    each = sum(s[0] for s in sent) / everybody, sum(s[2] for s in sent) / everybody
    fullest = max(daemon.followers for daemon in fleet.daemons)
    engine = fleet.engine.flow.between(begun, until)
    return Came(fleet.tally, fleet.lost, settled, engine, most, each, fullest)


def begun(fleet: Fleet) -> Fleet:
    """Have all start, and those who follow come."""
    fleet.run(5)
    fleet.settle(60)
    fleet.follow()
    fleet.run(2)
    return fleet
