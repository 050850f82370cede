"""Circles, and the least engine that they need: leases by one clock, what was said in
order, what stands. Anybody may die, freeze, come back, be cut off from the engine or from
the servers, or be configured anew.

It knows what is true of all of them, which none of them does, and looks whether it fits.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from pgbreaker.core.advice import Opinion
from pgbreaker.core.circle import Circle
from pgbreaker.core.view import View
from support.peering import view

TICK = 0.25  # seconds; each daemon has a turn in each
LEASE = 2.0
HOLDS = 6.0
LOOKS = 0.5  # seconds from taking a target to having looked
# After a death: until the lease ends, until everybody knows, and until somebody looked.
GRACE = LEASE + 3 * TICK + LOOKS
QUIET = HOLDS + LEASE + LOOKS + 6 * TICK


@cache
def _view(target: str, opinion: Opinion) -> View:
    return view(f"{target}/read", opinion)


@dataclass
class Engine:
    """What the daemons share.

    Attributes:
        leases: Daemon -> token, end, targets.
        said: Daemon, token, target, and what it thinks of it, if anything.
        standing: Daemon -> target -> what it said last, and under which token.
        born: Which engine it is: one that has lost all is another.
    """

    born: int = 0
    tokens: int = 0
    leases: dict[str, tuple[int, float, frozenset[str]]] = field(default_factory=dict)
    said: list[tuple[str, int, str, View | None]] = field(default_factory=list)
    standing: dict[str, dict[str, tuple[int, View]]] = field(default_factory=dict)

    def say(self, name: str, token: int, target: str, seen: View | None) -> None:
        self.said.append((name, token, target, seen))
        if seen is None:
            self.standing.get(name, {}).pop(target, None)
        else:
            self.standing.setdefault(name, {})[target] = (token, seen)


class Daemon:
    """One of them: its circle, and what it sees.

    Attributes:
        looks_at: Target -> when it began to watch it.
        shadow: What it watches, by its duties alone.
    """

    def __init__(self, world: "World", name: str, targets: set[str]) -> None:
        self.world, self.name, self.targets = world, name, targets
        self.is_frozen = self.is_cut = False
        self.token: int | None = None
        self.born = -1
        self.read = 0
        self.looks_at: dict[str, float] = {}
        self.shadow: set[str] = set()
        self.seen: dict[str, View] = {}
        self.untold: dict[str, View | None] = {}
        self.circle = Circle(
            name,
            world.now,
            watchers=world.watchers,
            quorum=world.quorum,
            takeover=LEASE,
            holds=HOLDS,
        )
        self.circle.can_watch(targets)
        self.hears_anew = False

    def reload(self, targets: set[str]) -> None:
        self.targets = targets
        self.circle.can_watch(targets)
        self.shadow &= targets
        for target in self.looks_at.keys() - targets:
            self._stop(target)
            del self.untold[target]  # nobody is left here who would say so
        self.hears_anew = True

    def _stop(self, target: str) -> None:
        del self.looks_at[target]
        self.seen.pop(target, None)
        self.untold[target] = None

    # A turn.

    def turn(self) -> None:
        now, engine = self.world.now, self.world.engine
        if self.is_cut or not self._has_lease(engine, now):
            self.circle.lose(now)
        else:
            self._meet(engine, now)
        self._decide(now)
        self._look(now)
        if not self.circle.is_alone:
            self._tell(engine)

    def _has_lease(self, engine: Engine, now: float) -> bool:
        token, ends, _ = engine.leases.get(self.name, (0, 0.0, frozenset()))
        if ends > now and token != self.token:
            return False  # of the process that had the name
        if ends <= now:
            engine.tokens += 1
            token = engine.tokens
        engine.leases[self.name] = (token, now + LEASE, frozenset(self.targets))
        if token != self.token or engine.born != self.born or self.hears_anew:
            self._hear_standing(engine, token, now)
        return True

    def _peers(self, engine: Engine, now: float) -> dict:
        leases = engine.leases.items()
        return {n: (token, t) for n, (token, end, t) in leases if end > now}

    def _hear_standing(self, engine: Engine, token: int, now: float) -> None:
        for name, all_said in engine.standing.items():
            if name != self.name:
                for its, seen in all_said.values():
                    self.circle.hear(name, its, seen, now)
        stands = {
            name: {f"{target}/read" for target in all_said}
            for name, all_said in engine.standing.items()
        }
        self.circle.retain(stands)
        self.token, self.born, self.read = token, engine.born, len(engine.said)
        self.hears_anew = False
        self.circle.meet(self._peers(engine, now), now)
        self.seen.clear()  # and so is told anew
        self._look(now)

    def _meet(self, engine: Engine, now: float) -> None:
        self.circle.meet(self._peers(engine, now), now)
        for name, token, target, seen in engine.said[self.read :]:
            if name == self.name:
                continue
            if seen is None:
                self.circle.forget(name, f"{target}/read")
            else:
                self.circle.hear(name, token, seen, now)
        self.read = len(engine.said)

    def _decide(self, now: float) -> None:
        before = set(self.circle.watching)
        duties = self.circle.decide(now, at_most=self.world.at_most)
        assert not duties.take & before
        assert duties.leave <= before
        self.shadow = (self.shadow | duties.take) - duties.leave
        assert self.shadow == self.circle.watching
        for target in duties.take:
            self.looks_at[target] = now
        for target in duties.leave:
            self._stop(target)
            self.circle.forget(self.name, f"{target}/read")

    def _see(self, target: str, now: float) -> View:
        if now - self.looks_at[target] < LOOKS:
            return _view(target, Opinion.UNKNOWN)
        is_down = target in self.world.down or self.name == self.world.blind
        return _view(target, Opinion.OPEN if is_down else Opinion.HEALTHY)

    def _look(self, now: float) -> None:
        for target in self.looks_at:
            seen = self._see(target, now)
            if self.seen.get(target) is not seen:
                self.seen[target] = seen
                self.circle.hear(self.name, self.token or 0, seen, now)
                self.untold[target] = seen

    def _tell(self, engine: Engine) -> None:
        assert self.token is not None
        for target, seen in self.untold.items():
            engine.say(self.name, self.token, target, seen)
        self.untold.clear()


class World:
    """All of it.

    Attributes:
        down: Targets that are down.
        blind: The one daemon that reaches no server.
        turns: Of daemons, since the beginning.
        bare: Target -> when something happened after which it may be without anybody for
            a moment.
    """

    def __init__(self, seed: int, watchers: int, quorum: int | None = None) -> None:
        self.chance = random.Random(seed)
        self.watchers, self.quorum = watchers, quorum
        self.need = watchers // 2 + 1 if quorum is None else quorum
        self.at_most = self.chance.choice((3, 500))
        self.now = 100.0
        self.engine = Engine()
        self.targets = [f"db{number}" for number in range(8)]
        self.down = {t for t in self.targets if self.chance.random() < 0.5}
        self.blind: str | None = None
        self.turns = 0
        self.daemons: dict[str, Daemon] = {}
        self.away: list[str] = []
        self.bare = dict.fromkeys(self.targets, self.now)
        for name in "abcdef"[: self.chance.randint(2, 6)]:
            self.come(name)

    # What happens.

    def come(self, name: str) -> None:
        """A daemon begins, or comes back."""
        share = self.chance.choice((1.0, 1.0, 0.7))
        targets = {t for t in self.targets if self.chance.random() < share}
        self._begin(targets)
        self.daemons[name] = Daemon(self, name, targets)

    def _begin(self, targets: set[str]) -> None:
        """Nobody could watch some of these until now, or nobody was awake who could."""
        for target in targets:
            if not self.seen_by(target):
                self.bare[target] = self.now

    def _cease(self, targets: set[str]) -> None:
        """A daemon watches these no more, from one moment to the other."""
        self.bare |= dict.fromkeys(targets, self.now)

    def end(self, daemon: Daemon) -> None:
        """One dies, or leaves in order."""
        del self.daemons[daemon.name]
        self.away.append(daemon.name)
        self._cease(daemon.targets)
        if self.chance.random() < 0.3:
            self.engine.leases.pop(daemon.name, None)

    def reload(self, daemon: Daemon) -> None:
        share = self.chance.choice((1.0, 0.7))
        targets = {t for t in self.targets if self.chance.random() < share}
        self._cease(daemon.targets - targets)
        self._begin(targets - daemon.targets)
        daemon.reload(targets)

    def freeze(self, daemon: Daemon) -> None:
        daemon.is_frozen = True
        self._cease(daemon.targets)

    def thaw(self, daemon: Daemon) -> None:
        self._begin(daemon.targets)
        daemon.is_frozen = False

    def wipe(self) -> None:
        """The engine loses all, and comes back."""
        old = self.engine
        self.engine = Engine(old.born + 1, old.tokens + 1000)

    def happen(self) -> None:
        """Something happens."""
        names = sorted(self.daemons)
        daemon = self.daemons[self.chance.choice(names)]
        what = self.chance.randrange(8)
        if what == 0 and len(names) > 1:
            self.end(daemon)
        elif what in (1, 2) and self.away:
            self.come(self.away.pop(self.chance.randrange(len(self.away))))
        elif what == 3:
            self.freeze(daemon)
        elif what == 4:
            self.reload(daemon)
        elif what == 5:
            daemon.is_cut = not daemon.is_cut
        elif what == 6:
            is_cut = self.chance.random() < 0.5
            for one in self.daemons.values():
                one.is_cut = is_cut
        elif what == 7 and self.chance.random() < 0.5:
            self.wipe()

    def settle(self) -> None:
        """Nobody is frozen or cut off any more."""
        for daemon in self.daemons.values():
            daemon.is_cut = False
            self.thaw(daemon)

    def tick(self) -> Iterator[Daemon]:
        """Each has a turn, in any order; yields each after its own."""
        self.now += TICK
        order = sorted(self.daemons)
        self.chance.shuffle(order)
        for name in order:
            daemon = self.daemons[name]
            if daemon.is_frozen and self.chance.random() < 0.1:
                self.thaw(daemon)
            if not daemon.is_frozen:
                daemon.turn()
                yield daemon

    # What is true.

    @property
    def awake(self) -> list[Daemon]:
        return [one for one in self.daemons.values() if not one.is_frozen]

    def watched_by(self, target: str) -> list[str]:
        return sorted(d.name for d in self.awake if target in d.looks_at)

    def seen_by(self, target: str) -> list[str]:
        """Who watches it and has looked."""
        begun = {d.name: d.looks_at.get(target, self.now) for d in self.awake}
        return sorted(name for name, at in begun.items() if self.now - at >= LOOKS)

    def is_bare(self, target: str) -> bool:
        """Whether nobody sees it, though somebody could for long enough."""
        could = self.could_watch(target) and self.now - self.bare[target] > GRACE
        return bool(could) and not self.seen_by(target)

    def could_watch(self, target: str) -> list[str]:
        return sorted(d.name for d in self.awake if target in d.targets)

    def opinion(self, target: str) -> Opinion:
        """What everybody thinks of it who has looked, but for the one that is blind."""
        return Opinion.OPEN if target in self.down else Opinion.HEALTHY
