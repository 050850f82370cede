"""What this daemon sees, as it tells the others; and what they see, as it stands here.

A breaker of a target that is watched here goes by what is seen here, and for callers by
what enough daemons see. One of a target that others watch is as they have it, and goes on
from there once it is watched here: nobody has to find out anew.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from pgbreaker.clock import Clock
from pgbreaker.core.advice import Opinion
from pgbreaker.core.ballot import Ballot
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.circle import Circle
from pgbreaker.core.condition import Condition
from pgbreaker.core.opinion import Thought, thought_of
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.states import State
from pgbreaker.core.units import Seconds
from pgbreaker.core.view import View, target_of
from pgbreaker.sinks.board import Board, Elsewhere, TargetBoard
from pgbreaker.sinks.hub import Hub

_AT_ONCE: Final = 50  # targets that are looked at before others have a turn


@dataclass(frozen=True, slots=True)
class _Mind:
    """What a change of is told."""

    opinion: Opinion
    is_definite: bool
    era: int
    condition: Condition


class Sights:
    """Has a board and the circle know of each other.

    Attributes:
        untold: Breaker -> what this daemon thinks of it by now, written; None: nothing
            any more. Of those that were not told yet.
    """

    def __init__(
        self,
        circle: Circle,
        board: Board,
        hub: Hub,
        clock: Clock,
    ) -> None:
        """Begin with nothing said."""
        self.untold: dict[str, str | None] = {}
        self.ahead: Seconds = clock.wall() - clock.now()
        self.token = 0
        self._circle = circle
        self._board = board
        self._hub = hub
        self._clock = clock
        self._changed: Callable[[str], None] = _nobody
        self._stands: set[str] = set()  # breakers of which a view of ours does
        self._minds: dict[str, _Mind] = {}
        self._thoughts: dict[str, Thought] = {}  # what holds
        self._passing: set[str] = set()  # targets of which time alone may change that
        self._mirrored: dict[str, View] = {}

    def follow(self, changed: Callable[[str], None]) -> None:
        """Have *changed* told of each target of which something holds that did not."""
        self._changed = changed

    def wall(self) -> float:
        """Wall time of the engine, as far as it is known, in seconds."""
        return self._clock.now() + self.ahead

    # What is seen here.

    async def look(self) -> None:
        """Look at every target that is watched here; and at what time alone brings."""
        await _each(tuple(self._circle.watching), self.look_at)
        await _each(tuple(self._passing), self.reckon)

    def look_at(self, name: str) -> None:
        """Find out what is thought of a target's breakers otherwise than before."""
        target = self._board.targets.get(name)
        if target is None or name not in self._circle.watching:
            return
        now, news = self._clock.now(), False
        is_fresh = target.is_fresh(now)
        for breaker in target.breakers.values():
            seen = thought_of(breaker, is_fresh=is_fresh)
            mind = _Mind(seen.opinion, seen.is_definite, breaker.era, target.condition)
            if self._minds.get(breaker.name) != mind:
                self._minds[breaker.name] = mind
                self._think(target, breaker, seen, now)
                news = True
        if news:
            self._changed(name)

    def _think(
        self, target: TargetBoard, breaker: Breaker, seen: Thought, now: Seconds
    ) -> None:
        view = View(
            breaker=breaker.name,
            opinion=seen.opinion,
            state=breaker.computed_state,
            reason=breaker.reason,
            sqlstate=seen.sqlstate,
            is_definite=seen.is_definite,
            condition=target.condition,
            token=self.token,
            at=self.wall(),
            memory=breaker.memory(now),
        )
        self.untold[breaker.name] = json.dumps(view.written(), separators=(",", ":"))
        self._circle.hear(self._circle.name, self.token, view, now)
        self._rule(target, breaker, now)

    async def tell_all(self, token: int, standing: Iterable[str]) -> None:
        """Have all that is thought here told anew, under a new lease.

        Args:
            standing: Breakers of which there still stands what was thought under another
                one; what nobody here thinks of any more is taken back.
        """
        self.token = token
        self._minds.clear()
        self._stands = set(standing)
        self.untold = dict.fromkeys(self._stands)
        await self.look()

    def are_told(self, told: Iterable[tuple[str, str | None]]) -> None:
        """Know that these were told; where there is something newer by now, that was
        not."""
        for name, body in told:
            if self.untold.get(name, "") is body:
                del self.untold[name]
            if body is None:
                self._stands.discard(name)
            else:
                self._stands.add(name)

    def _take_back(self, name: str) -> None:
        """Have it told that nothing is thought of a breaker any more."""
        if name in self._stands:
            self.untold[name] = None
        else:
            self.untold.pop(name, None)

    def turn(self) -> None:
        """Go on by the breakers that the board has now."""
        there = self._board.breakers
        for known in (self._minds, self._mirrored, self._thoughts):
            for name in [name for name in known if name not in there]:
                del known[name]
                self._take_back(name)

    def take(self, name: str) -> None:
        """A target is watched here from now on; its breakers go on as they are."""
        self.look_at(name)

    def leave(self, name: str) -> None:
        """A target is watched here no more."""
        target = self._board.targets.get(name)
        if target is None:
            return
        for breaker in target.breakers.values():
            self._minds.pop(breaker.name, None)
            self._mirrored.pop(breaker.name, None)
            self._take_back(breaker.name)
            self._circle.forget(self._circle.name, breaker.name)
        self.reckon(name)

    # What others see.

    def hear(self, daemon: str, view: View) -> None:
        """Hear what another daemon thinks."""
        if self._board.breaker(view.breaker) is None:
            return
        self._circle.hear(daemon, view.token, view, self._clock.now())
        self.reckon(view.target)

    def forget(self, daemon: str, breaker: str) -> None:
        """Hear that another daemon watches a breaker's target no more."""
        self._circle.forget(daemon, breaker)
        target = target_of(breaker)
        if target in self._board.targets:
            self.reckon(target)

    async def reckon_all(self) -> None:
        """Count everything anew: somebody came or went."""
        await _each(tuple(self._board.targets), self.reckon)

    def reckon(self, name: str) -> None:
        """Count anew what is thought of a target's breakers."""
        self._passing.discard(name)
        target, now = self._board.targets.get(name), self._clock.now()
        if target is None:
            return
        for operation, breaker in target.breakers.items():
            if name in self._circle.watching:
                self._rule(target, breaker, now)
            else:
                self._mirror(target, operation, breaker, now)
        self._changed(name)

    def _count(self, target: TargetBoard, breaker: Breaker, now: Seconds) -> Ballot:
        ballot = self._circle.ballot(breaker.name, now)
        if ballot.passes:
            self._passing.add(target.plan.name)
        known = self._thoughts.get(breaker.name, _NOBODY_KNOWS)
        # Where one has gone who agreed, the others are believed until somebody looks.
        if ballot.opinion is not Opinion.UNKNOWN or not ballot.has(known.opinion):
            self._thoughts[breaker.name] = _thought(ballot)
        return ballot

    def _rule(self, target: TargetBoard, breaker: Breaker, now: Seconds) -> None:
        """Have a breaker be, for callers, what enough daemons see."""
        assert isinstance(breaker, RuledBreaker)
        ballot, ruling = self._count(target, breaker, now), breaker.ruling
        state: State | None = None
        if not self._circle.rules(target.plan.name):
            because = "this daemon goes by what it sees itself"
        else:
            is_open, because = ballot.opinion is Opinion.OPEN, ballot.told()
            if ballot.opinion is Opinion.UNKNOWN:  # too few know yet: as it was
                ruled = breaker.computed_state if ruling is None else ruling.state
                is_open = ruled is not State.CLOSED
            state = State.OPEN if is_open else State.CLOSED
        move = breaker.rule(state, because, now)
        if move is not None:
            self._hub.publish(move)

    def _mirror(
        self, target: TargetBoard, operation: str, breaker: Breaker, now: Seconds
    ) -> None:
        """Have a breaker be as those have it who watch it."""
        assert isinstance(breaker, RuledBreaker)
        ballot, name = self._count(target, breaker, now), target.plan.name
        view = ballot.speaker
        if view is not None and view is not self._mirrored.get(breaker.name):
            self._mirrored[breaker.name] = view
            breaker.rule(None, "", now)
            breaker.recall(view.memory, now, max(0.0, self.wall() - view.at))
            target.mirror(operation)
        known = target.elsewhere
        who = tuple(d for d in self._circle.chosen(name) if d != self._circle.name)
        was = Condition.UNKNOWN if known is None else known.condition
        target.elsewhere = Elsewhere(who, was if view is None else view.condition)

    # What holds.

    def thought_of(self, _target: TargetBoard, breaker: Breaker) -> Thought:
        """What holds of a breaker, for whoever asks this daemon."""
        return self._thoughts.get(breaker.name, _NOBODY_KNOWS)


_NOBODY_KNOWS: Final = Thought(Opinion.UNKNOWN)


def _thought(ballot: Ballot) -> Thought:
    speaker = ballot.speaker
    if speaker is None:
        return Thought(ballot.opinion)
    reason = speaker.reason if ballot.opinion is Opinion.OPEN else ""
    if reason and ballot.need > 1:
        reason = f"{ballot.told()}: {reason}"
    return Thought(
        ballot.opinion, reason, speaker.sqlstate, is_definite=speaker.is_definite
    )


async def _each(names: Iterable[str], do: Callable[[str], None]) -> None:
    """Do something with each of ten thousand targets, with others in between."""
    for number, name in enumerate(names, 1):
        do(name)
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)


def _nobody(_target: str) -> None:
    """Who is told while nobody follows."""
