"""The circle: the daemons that share an engine, as one of them knows it.

It decides which targets this daemon watches, and what holds for the fleet; it neither
talks nor waits. Whoever hears of the others tells it, with the time.

Nothing is let go before somebody else has it: a target that has moved to another daemon
is watched here until that one has looked at it. A daemon that hears of nobody any more
goes on alone, by what it sees itself, and after a while watches all that it can.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, TypeAlias

from pgbreaker.core.advice import Opinion
from pgbreaker.core.ballot import Ballot, count
from pgbreaker.core.sharding import chosen_by_seed, seed_of
from pgbreaker.core.units import Seconds
from pgbreaker.core.view import View, target_of

TAKEOVER: Final[Seconds] = 2.0
"""How long a daemon that has lost the engine waits until it watches everything: so long
does the engine wait until it has others watch what a dead daemon did."""

HOLDS: Final[Seconds] = 6.0
"""How long what a daemon thought last holds after it was heard of last, where nobody has
looked since: as long as advice to applications does."""


@dataclass(slots=True)
class _Peer:
    """Another daemon, or this one."""

    token: int
    since: Seconds  # that it has this lease
    met: Seconds
    seed: int
    targets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Said:
    """A view, and when it was heard."""

    view: View
    token: int
    since: Seconds  # that it is the opinion, or none
    before: View | None  # what it thought under another lease, until it knows again


@dataclass(frozen=True, slots=True)
class Duties:
    """What changes of what this daemon watches.

    Attributes:
        take: Targets to watch from now on.
        leave: Targets to leave to others.
    """

    take: frozenset[str] = frozenset()
    leave: frozenset[str] = frozenset()


_Place: TypeAlias = dict[str, dict[str, _Said]]
"""What was said of one target: daemon -> breaker -> what it said last."""


class Circle:
    """What one daemon knows of the others.

    Attributes:
        name: Its own name.
        watching: Targets that it watches.
        is_alone: Whether it hears of nobody.

    Args:
        watchers: Daemons that shall watch each target.
        quorum: Of these, how many have to see a breaker open. None: more than half.
        takeover: As `TAKEOVER`.
        holds: As `HOLDS`.
    """

    def __init__(
        self,
        name: str,
        now: Seconds,
        *,
        watchers: int = 1,
        quorum: int | None = None,
        takeover: Seconds = TAKEOVER,
        holds: Seconds = HOLDS,
    ) -> None:
        self.name = name
        self.watching: set[str] = set()
        self.is_alone = True
        self._watchers = watchers
        self._quorum = watchers // 2 + 1 if quorum is None else quorum
        self._takeover = takeover
        self._holds = holds
        self._alone_since = now - takeover  # who has never met anybody does not wait
        self._targets: frozenset[str] = frozenset()  # that it can watch
        self._live: dict[str, _Peer] = {}
        self._dead: dict[str, _Peer] = {}
        self._places: dict[str, _Place] = {}
        self._open: dict[str, None] = {}  # targets whose duty may change, in turn
        self._seeds: dict[str, int] = {}
        self._chosen: dict[str, tuple[str, ...]] = {}
        # (daemon, breaker) -> since when somebody waits for its first word.
        self._awaited: dict[tuple[str, str], Seconds] = {}

    # What is heard.

    def can_watch(self, targets: Iterable[str]) -> None:
        """Know what this daemon is configured to watch."""
        self._seeds = {target: seed_of(target) for target in targets}
        self._targets = frozenset(self._seeds)
        self.watching &= self._targets
        for target in self._places.keys() - self._targets:
            del self._places[target]
        self._turn()

    def meet(
        self,
        peers: Mapping[str, tuple[int, frozenset[str]]],
        now: Seconds,
    ) -> None:
        """Hear who is there: daemon -> its token, and what it can watch. Its own is
        among them."""
        before, roll = self._live, self._roll(self._live)
        live: dict[str, _Peer] = {}
        for name, (token, targets) in peers.items():
            known = before.get(name)
            if known is None or known.token != token:
                live[name] = _Peer(token, now, now, seed_of(name), targets)
            else:
                known.met, known.targets = now, targets
                live[name] = known
        gone = {n: p for n, p in (self._dead | before).items() if n not in live}
        self._dead = {n: p for n, p in gone.items() if now - p.met < self._holds}
        self._live = live
        for name in gone.keys() - self._dead.keys() - {self.name}:
            for place in self._places.values():
                place.pop(name, None)
        was_alone, self.is_alone = self.is_alone, False
        if was_alone or roll != self._roll(live):
            self._turn()

    @staticmethod
    def _roll(peers: Mapping[str, _Peer]) -> dict[str, tuple[int, frozenset[str]]]:
        return {name: (peer.token, peer.targets) for name, peer in peers.items()}

    def lose(self, now: Seconds) -> None:
        """Hear of nobody any more."""
        if not self.is_alone:
            self.is_alone, self._alone_since = True, now
            self._turn()

    def hear(self, daemon: str, token: int, view: View, now: Seconds) -> None:
        """Hear what a daemon thinks; what it says as the holder of another lease than its
        present one counts no more once it has that."""
        if view.target not in self._targets:
            return
        mine = self._places.setdefault(view.target, {}).setdefault(daemon, {})
        known = mine.get(view.breaker)
        is_same = known is not None and known.view.opinion is view.opinion
        since = known.since if known is not None and is_same else now
        before = None
        if known is not None and view.opinion is Opinion.UNKNOWN:
            is_new = known.token != token and known.view.opinion is not Opinion.UNKNOWN
            before = known.view if is_new else known.before
        mine[view.breaker] = _Said(view, token, since, before)
        self._awaited.pop((daemon, view.breaker), None)
        self._open[view.target] = None

    def forget(self, daemon: str, breaker: str) -> None:
        """Hear that a daemon watches a breaker's target no more."""
        place = self._places.get(target_of(breaker), {})
        if daemon in place:
            place[daemon].pop(breaker, None)
            if not place[daemon]:
                del place[daemon]

    def retain(self, standing: Mapping[str, Collection[str]]) -> None:
        """Know no more of what others said than what stands: daemon -> breakers."""
        for place in self._places.values():
            for daemon in [name for name in place if name != self.name]:
                stands = standing.get(daemon, ())
                kept = {b: said for b, said in place[daemon].items() if b in stands}
                if kept:
                    place[daemon] = kept
                else:
                    del place[daemon]

    def _turn(self) -> None:
        self._chosen.clear()
        self._awaited.clear()
        self._open = dict.fromkeys(self._seeds)

    # What follows from it.

    @property
    def live(self) -> tuple[str, ...]:
        """The daemons that are there, this one too; none while it is alone."""
        return () if self.is_alone else tuple(sorted(self._live))

    def chosen(self, target: str) -> tuple[str, ...]:
        """The daemons that shall watch a target, the first choice first."""
        known = self._chosen.get(target)
        if known is None:
            could = (
                (peer.seed, name)
                for name, peer in self._live.items()
                if target in peer.targets
            )
            seed = self._seeds.get(target) or seed_of(target)
            known = chosen_by_seed(seed, could, self._watchers)
            self._chosen[target] = known
        return known

    def decide(self, now: Seconds, at_most: int = 500) -> Duties:
        """Find out what is to be watched from now on, and what no more; what is told is
        taken for done.

        Args:
            at_most: Targets that are looked at; the others the next time.
        """
        take, leave = set[str](), set[str]()
        for target in tuple(islice(self._open, at_most)):
            del self._open[target]
            is_ours = target in self.watching
            wanted = self._is_wanted(target, now)
            if wanted and not is_ours:
                take.add(target)
            elif is_ours and not wanted:
                leave.add(target)
            if self.is_alone and not wanted:  # it will be, in time
                self._open[target] = None
        self.watching |= take
        self.watching -= leave
        return Duties(frozenset(take), frozenset(leave))

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to decide until something is heard."""
        return not self._open

    def is_due(self, now: Seconds) -> bool:
        """Whether there is something to decide at once."""
        return bool(self._open) and not (self.is_alone and self._waits(now))

    def _waits(self, now: Seconds) -> bool:
        """Whether it is alone for too short a time to watch everything."""
        return now - self._alone_since < self._takeover

    def _is_wanted(self, target: str, now: Seconds) -> bool:
        if self.is_alone:
            return target in self.watching or not self._waits(now)
        if self.name in self.chosen(target):
            return True
        return target in self.watching and not self._is_relieved(target)

    def _is_relieved(self, target: str) -> bool:
        """Whether all who shall watch it have looked at it."""
        place, who = self._places.get(target, {}), self.chosen(target)
        return bool(who) and all(self._has_looked(place, daemon) for daemon in who)

    def _has_looked(self, place: _Place, daemon: str) -> bool:
        token = self._live[daemon].token
        return any(
            said.token == token and said.view.opinion is not Opinion.UNKNOWN
            for said in place.get(daemon, {}).values()
        )

    def targets_of(self, daemon: str, token: int) -> frozenset[str]:
        """What a daemon could watch when it was met last, under this lease."""
        known = self._live.get(daemon)
        is_it = known is not None and known.token == token
        return known.targets if known is not None and is_it else frozenset()

    def leads(self, target: str) -> bool:
        """Whether this daemon is the one to act on a target, where one has to; nobody is
        while the others are not heard of."""
        return not self.is_alone and self.chosen(target)[:1] == (self.name,)

    def rules(self, target: str) -> bool:
        """Whether several daemons decide together about the breakers of a target."""
        return not self.is_alone and len(self.chosen(target)) > 1

    def ballot(self, breaker: str, now: Seconds) -> Ballot:
        """Count what is thought of a breaker."""
        target = target_of(breaker)
        place = self._places.get(target, {})
        own = place.get(self.name, {}).get(breaker)
        is_mine = self.is_alone and target in self.watching
        if is_mine and own is not None and own.view.opinion is not Opinion.UNKNOWN:
            return count({self.name: own.view}, 1, 0, 1)
        views, abstaining = self._views(place, breaker, now)
        voters = len(self.chosen(target))
        if any(view.opinion is not Opinion.UNKNOWN for view in views.values()):
            return count(views, voters, abstaining, self._quorum)
        held = self._held(place, breaker, now)
        ballot = count(held, max(voters, len(held)), 0, self._quorum)
        return replace(ballot, passes=bool(place))

    def _views(
        self, place: _Place, breaker: str, now: Seconds
    ) -> tuple[dict[str, View], int]:
        """What those think who are there, the first choice first; and how many of those
        who shall watch have been unable to look for long."""
        if self.is_alone:
            return {}, 0
        target = target_of(breaker)
        who = self.chosen(target)
        views: dict[str, View] = {}
        abstaining = 0
        for name in (*who, *(n for n in place if n not in who)):
            peer, said = self._live.get(name), place.get(name, {}).get(breaker)
            counts = False
            if peer is not None and said is not None:
                # Who is not configured for it any more has left what it said behind.
                counts = said.token == peer.token and target in peer.targets
            if counts:
                assert said is not None
                views[name] = said.view
            if name not in who:
                continue
            begun = now
            if not counts:
                begun = self._awaited.setdefault((name, breaker), now)
            elif views[name].opinion is Opinion.UNKNOWN:
                assert said is not None
                begun = said.since
            abstaining += now - begun >= self._holds
        return views, abstaining

    def _held(self, place: _Place, breaker: str, now: Seconds) -> dict[str, View]:
        """What those thought last who were there a moment ago; and those, before, who
        have another lease since a moment ago."""
        held = {}
        for name, all_said in place.items():
            said, peer = all_said.get(breaker), self._live.get(name)
            if said is None:
                continue
            view: View | None = said.view
            if peer is None or self.is_alone:
                peer = peer or self._dead.get(name)
                until = now if peer is None else peer.met + self._holds
            else:
                view = said.view if said.token != peer.token else said.before
                until = peer.since + self._holds
            if view is not None and now < until:
                held[name] = view
        return held
