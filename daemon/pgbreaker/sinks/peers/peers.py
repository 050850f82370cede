"""The daemons that share an engine, kept in touch with: what each sees, the others know.

One task talks to the engine, one thing after the other, and nothing waits for it. While
the engine does not answer, this daemon goes on alone by what it sees itself; when it
answers again all is told and heard anew, so nobody has to know what the other missed.
"""

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, TypeAlias

from pgbreaker.clock import Clock
from pgbreaker.core import view as views
from pgbreaker.core.circle import Circle, Duties
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.states import BY_DAEMONS
from pgbreaker.core.units import Seconds, counted
from pgbreaker.core.view import target_of
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History
from pgbreaker.sinks.peers import words
from pgbreaker.sinks.peers.engine import (
    Beat,
    Engine,
    EngineLostError,
    FencedError,
    Heard,
    Message,
    MissedError,
)
from pgbreaker.sinks.peers.sights import Sights
from pgbreaker.sinks.peers.words import FleetWord, Words

log = logging.getLogger(__name__)

BEAT: Final[Seconds] = 0.2
"""Seconds between two renewals of the lease: with the engine's timeout, half a second
until it is known that the engine does not answer."""

_LOOKS: Final[Seconds] = 1.0  # between two looks at all that is watched
_LONGEST_WAIT: Final[Seconds] = 2.0  # between two tries while the engine is lost
_OWED: Final = 2000  # entries at most that wait to be told
_AT_ONCE: Final = 200  # messages that are told in one go
_MUTE: Final[Seconds] = 2.0  # after which no lease is held that nothing can be told by
_AWAY: Final[Seconds] = 5.0  # before it is asked for again, at first
_LONGEST_AWAY: Final[Seconds] = 60.0
_OURS: Final = "talking to the engine fails, which is a fault of ours"
_YIELDS: Final = 50  # messages that are heard before others have a turn
_SOON: Final[Seconds] = 0.5  # until the others are back, too, after an engine was lost
_LATER: Final[Seconds] = 4.0  # after which a target is told that others ought to watch

_UNREADABLE: Final = (
    *(ValueError, KeyError, TypeError),
    *(OverflowError, RecursionError),
)
"""What reading of others' JSON raises, where it is none that we know."""

Watch = Callable[[Duties], Awaitable[None]]
"""Begins to watch targets, and leaves others."""

_Who: TypeAlias = tuple[int, frozenset[str]]
"""A daemon's token, and the targets that it can watch."""

Still = Callable[[], bool]
"""Whether a word is still the last one."""

Obey = Callable[[FleetWord, Seconds, Still], Awaitable[None]]
"""Has an operator's word hold here that was given to another daemon, for so long."""


class Peers:
    """Keeps in touch with the other daemons.

    Attributes:
        circle: What is known of them.
        sights: What each of them sees.
        why: Why the engine is not reached. Empty: it is.
        losses: Times that it was lost.
        told: Messages said, since the beginning.
        heard: Messages heard of others, since the beginning.
        unread: Of these, those that were none.
    """

    def __init__(
        self,
        engine: Engine,
        sights: Sights,
        circle: Circle,
        board: Board,
        history: History,
        clock: Clock,
        *,
        watch: Watch,
        obey: Obey,
        overrides: Mapping[str, Mapping[str, Any]] = {},
        beat: Seconds = BEAT,
    ) -> None:
        """Begin to note what is to be told.

        Args:
            overrides: What operators had decided before the process began, as it was
                written down.
            beat: Seconds between two renewals of the lease.
        """
        self.circle = circle
        self.sights = sights
        self.words = Words(circle.name)
        self.why = "it has not been reached yet"
        self.losses = self.told = self.heard = self.unread = 0
        self._engine = engine
        self._board = board
        self._history = history
        self._clock = clock
        self._watch = watch
        self._obey = obey
        self._overrides = overrides
        self._beat = beat
        self._token: int | None = None
        self._born = ""
        self._last = 0  # number of the last message that was heard
        self._hinted = 0  # of the last one that there is, as far as is known
        self._at_once = _AT_ONCE  # messages that are told, or heard, in one go
        self._failing_since: Seconds | None = None  # that only beats get through
        self._away: Seconds = _AWAY  # before a lease is asked for again that was no use
        self._has_missed = False  # whether all that stands is to be heard anew
        self._met: Beat | None = None  # as the engine answered last
        self._lost: str | None = "it has not been asked yet"
        self._lease: int | None = None  # number of ours, as it told last
        self._soon: Seconds = 0.0  # until when nothing is told of what is watched
        self._later: Seconds = 0.0  # and until when not of what is left soon
        self._lists: dict[str, frozenset[str]] = {}  # digest -> targets
        self._targets = self._digest = ""
        self._names: frozenset[str] = frozenset()
        self._is_announced = False
        self._owed: deque[Entry] = deque(maxlen=_OWED)
        self._seen: dict[str, int] = {}  # daemon -> the last entry of it that is known
        self._tries = 0
        self._looked_at: Seconds = clock.now()
        self._woken = asyncio.Event()
        self._duties: asyncio.Queue[Duties] = asyncio.Queue()
        self._orders: set[asyncio.Task[None]] = set()
        for entry in history.entries:
            self._know(entry)
        self.turn()
        self._unfollow = history.follow(self._note)

    @property
    def is_joined(self) -> bool:
        """Whether the others are heard of."""
        return not self.circle.is_alone

    def turn(self) -> None:
        """Go on by the targets that the board has now."""
        names = self._board.targets.keys()
        new = names - self._names
        self._names = frozenset(names)
        self.circle.can_watch(names)
        self.sights.turn()
        if new and self._token is not None:
            # Of these nothing was heard: all is heard anew.
            self._has_missed = True
            for breaker in self._board.breakers:
                word = self.words.of(breaker)
                if word is not None and target_of(breaker) in new:
                    self._have_obeyed(word)
        self._targets = json.dumps(sorted(names))
        self._digest = _digest(self._targets)
        self._lists[self._digest] = frozenset(names)
        self._is_announced = False
        self._woken.set()

    # What is to be told.

    def _know(self, entry: Entry) -> None:
        """Know that an entry of another daemon is in the history already."""
        daemon, of = entry.details.get("daemon"), entry.details.get("of")
        if isinstance(daemon, str) and isinstance(of, int):
            self._seen[daemon] = max(of, self._seen.get(daemon, 0))

    def _note(self, entry: Entry) -> None:
        """Take an entry of the history: the others shall know of it."""
        if "daemon" in entry.details or entry.breaker is None:
            return
        if entry.kind is Kind.OVERRIDE:
            ahead = self.sights.wall() - self._clock.wall()
            self.words.note(entry, self.sights.wall(), ahead)
        elif self._is_told(entry):
            self._owed.append(entry)
        else:
            return
        if entry.target is not None:
            self.sights.look_at(entry.target)  # what it leads to goes before it
        self._woken.set()

    @staticmethod
    def _is_told(entry: Entry) -> bool:
        """Whether an entry is of the history of all daemons."""
        is_move = entry.kind is Kind.TRANSITION and "daemon" not in entry.details
        return is_move and entry.details.get("cause") not in BY_DAEMONS

    # Running.

    async def join(self) -> None:
        """Try once to reach the others, so that what they know is there from the start;
        then find out what is watched here."""
        await self._beat_once()
        await self._talk()
        await self._watch(self._decided())

    async def run(self) -> None:
        """Keep in touch, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(), name="peers, beats")
            group.create_task(self._listen(), name="peers, hints")
            group.create_task(self._tend(), name="peers, duties")
            while True:
                await self._talk()
                duties = self._decided()
                if duties.take or duties.leave:
                    self._duties.put_nowait(duties)
                await self._rest()

    async def close(self) -> None:
        """Leave: the others need not wait for the end of the lease."""
        self._unfollow()
        if self._token is not None and self.is_joined:
            with suppress(EngineLostError, FencedError):
                await self._tell()
                await self._engine.leave(self._token)
        await self._engine.close()
        for order in self._orders:
            order.cancel()

    async def _rest(self) -> None:
        """Wait until there is something to tell, to hear, or to decide."""
        rest = self._beat
        if self.circle.is_due(self._clock.now()):
            rest = 0.0
        elif self.is_joined and self._later:
            until = [at - self._clock.now() for at in (self._soon, self._later)]
            rest = min([rest, *(left for left in until if left > 0)])
        with suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await self._woken.wait()

    async def _keep(self) -> None:
        """Renew the lease, whatever else is said or heard meanwhile."""
        while True:
            begun = self._clock.now()
            if self._is_mute(begun):
                await self._withdraw()
                continue
            await self._beat_once()
            wait = self._beat
            if self._lost is not None:
                # All lose the engine at one moment, and need not come back at one.
                wait = min(_LONGEST_WAIT, wait * 2.0 ** min(self._tries, 6))
                wait *= random.uniform(0.5, 1.0)
            await asyncio.sleep(max(0.0, begun + wait - self._clock.now()))

    def _is_mute(self, now: Seconds) -> bool:
        """Whether a lease is held though nothing can be told or heard for long."""
        since = self._failing_since
        return self._lease is not None and since is not None and now - since > _MUTE

    async def _withdraw(self) -> None:
        """Hold no lease that is not served: others watch in its place. Try anew after a
        while."""
        why = self.why or "it is not let in"
        log.warning("the lease is given back, for nothing can be told: %s", why)
        lease, self._lease = self._lease, None
        with suppress(EngineLostError):
            if lease is not None:
                await self._engine.leave(lease)
        self._met, self._lost = None, why
        self._woken.set()
        await asyncio.sleep(self._away * random.uniform(0.5, 1.0))
        self._away, self._failing_since = min(_LONGEST_AWAY, 2 * self._away), None

    async def _beat_once(self) -> None:
        try:
            self._met = await self._engine.beat(self._lease, self._digest)
        except EngineLostError as error:
            self._met, self._lost, self._tries = None, error.why, self._tries + 1
        else:
            self._lost, self._tries, self._lease = None, 0, self._met.token
        self._woken.set()

    async def _listen(self) -> None:
        """Hear at once that there is something to hear."""
        while True:
            with suppress(EngineLostError):
                async for number in self._engine.hints():
                    self._hinted = number
                    self._woken.set()
            await asyncio.sleep(_LONGEST_WAIT * random.uniform(0.25, 0.5))

    async def _tend(self) -> None:
        """Do what was decided, one thing after the other: a server may be slow to go."""
        while True:
            await self._watch(await self._duties.get())

    def _decided(self) -> Duties:
        duties = self.circle.decide(self._clock.now())
        for name in duties.take:
            self.sights.take(name)
        for name in duties.leave:
            self.sights.leave(name)
        return duties

    # Talking to the engine.

    async def _talk(self) -> None:
        """Tell what is to be told, and hear what there is; once."""
        self._woken.clear()
        now = self._clock.now()
        if now - self._looked_at >= _LOOKS:
            self._looked_at = now
            await self.sights.look()  # that nobody looks any more is told by no entry
        beat, self._met = self._met, None
        if self._lost is not None:
            await self._lose(self._lost)
            return
        try:
            await self._say_and_hear(beat)
        except EngineLostError as error:
            # So much may be more than a slow line carries in time.
            self._at_once = max(1, self._at_once // 2)
            await self._fail(error.why)
        except FencedError as error:
            self._token = None  # it is nobody's any more; the next beat brings another
            self._failing_since = self._failing_since or now
            self.why = str(error)
        except MissedError:
            self._has_missed = True
        except Exception as error:
            # The lease and what is advised must not go on as if nothing were.
            if self.why != _OURS:
                log.critical("%s", _OURS, exc_info=error)
            await self._fail(_OURS)
        else:
            if self.is_joined and now >= self._soon:
                self._failing_since, self._away = None, _AWAY
                self._at_once = min(_AT_ONCE, 2 * self._at_once)

    async def _say_and_hear(self, beat: Beat | None) -> None:
        if beat is not None:
            await self._meet(beat)
        await self._tell()
        await self._hear(self._hinted)

    async def _fail(self, why: str) -> None:
        """Be alone, for what was to be told or heard was not."""
        self._failing_since = self._failing_since or self._clock.now()
        await self._lose(why)

    async def _lose(self, why: str) -> None:
        if self.is_joined:
            self.losses += 1
            log.warning("the engine is lost, this daemon goes on alone: %s", why)
        elif self.why != why:
            log.warning("the engine is not reached: %s", why)
        self.why = why
        if self.is_joined:
            self.circle.lose(self._clock.now())
            await self.sights.reckon_all()

    async def _meet(self, beat: Beat) -> None:
        """Know who is there; and where the engine knows us no more, or we it, all else
        that there is to know."""
        self.sights.ahead = beat.now - self._clock.now()
        is_new = beat.token != self._token or beat.born != self._born
        was_joined, before = self.is_joined, self.circle.live
        is_heard_anew = is_new or self._has_missed
        if is_new or not self._is_announced:
            await self._engine.announce(beat.token, self._targets)
            self._is_announced = True
        who = await self._who(beat)
        if is_heard_anew:
            await self._hear_standing(beat, who, is_new=is_new)
        else:
            self.circle.meet(who, self._clock.now())
            await self._hear(beat.last)
        self.why = ""
        if is_heard_anew or not was_joined or before != self.circle.live:
            live = self.circle.live
            log.info("%s here: %s", counted(len(live), "daemon"), ", ".join(live))
            if not was_joined:
                # The others are not back yet, and what each shall watch is not sure: of
                # what it watches for the moment it tells nothing.
                now = self._clock.now()
                self._soon, self._later = now + _SOON, now + _LATER
            await self.sights.reckon_all()

    async def _hear_standing(
        self, beat: Beat, who: Mapping[str, _Who], *, is_new: bool
    ) -> None:
        """Hear all that stands; and where it is told of us anew, tell all that is thought
        here."""
        standing = await self._engine.standing()
        for daemon, said in standing.views.items():
            for number, body in enumerate(said.values(), 1):
                self._take_standing(daemon, body)
                if number % _YIELDS == 0:
                    await asyncio.sleep(0)
        # Only now it is known by how much the engine's clock is ahead.
        self.words.restore(self._overrides, self.sights.wall() - self._clock.wall())
        self._overrides = {}
        for name, body in standing.words.items():
            self._take(Heard(0, "", 0, "word", name, body))
        after = self._last if beat.born == self._born else 0
        self._token, self._born, self._has_missed = beat.token, beat.born, False
        self._last = self._hinted = standing.last
        self.circle.retain(standing.views)
        self.circle.meet(who, self._clock.now())
        if is_new:
            self.words.tell_all(self.sights.wall())
            self._owe(standing.entries.get(self.circle.name, 0))
            own = standing.views.get(self.circle.name, {})
            await self.sights.tell_all(beat.token, own)
        await self._catch_up(after, standing.last)

    async def _who(self, beat: Beat) -> Mapping[str, _Who]:
        """Daemon -> its token, and what it can watch."""
        if any(peer.targets not in self._lists for peer in beat.peers.values()):
            # A digest of what nobody has announced yet is of no target.
            self._lists = {self._digest: self._lists[self._digest]}
            for text in (await self._engine.targets_of(beat.peers)).values():
                self._lists[_digest(text)] = _names(text)
        known = self.circle.targets_of  # of one that is just telling it anew
        return {
            name: (peer.token, self._lists.get(peer.targets, known(name, peer.token)))
            for name, peer in beat.peers.items()
        }

    async def _tell(self) -> None:
        """Tell what is to be told, in the order in which it came about."""
        while self._token is not None and self.is_joined:
            views = self._views_to_tell()
            said = self.words.untold()[: self._at_once]
            entries = list(islice(self._owed, self._at_once))
            messages = [
                *(_view(name, body) for name, body in views),
                *(Message("word", word.breaker, word.written()) for word in said),
                *(_entry(entry) for entry in entries),
            ]
            if not messages:
                return
            await self._engine.say(self._token, messages)
            self.told += len(messages)
            self._are_told(views, said, entries)

    def _views_to_tell(self) -> list[tuple[str, str | None]]:
        """What is thought of targets that are to be watched here; of others that are
        still, a while after the engine is there again: most of them are left before."""
        untold: Iterable[tuple[str, str | None]] = self.sights.untold.items()
        now = self._clock.now()
        if now < self._soon:
            return []
        if now < self._later:
            chosen, name = self.circle.chosen, self.circle.name
            untold = (
                (b, v) for b, v in untold if v is None or name in chosen(target_of(b))
            )
        else:
            self._later = 0.0
        return list(islice(untold, self._at_once))

    def _are_told(
        self,
        told: Iterable[tuple[str, str | None]],
        said: list[FleetWord],
        entries: Iterable[Entry],
    ) -> None:
        self.sights.are_told(told)
        self.words.are_told(said)
        for entry in entries:
            if self._owed and self._owed[0] is entry:
                self._owed.popleft()

    def _owe(self, last: int) -> None:
        """Have told what this daemon has seen and the engine does not know, the oldest
        first; *last* is the last entry of it that the engine knows."""
        self._owed.clear()
        self._owed.extend(
            entry
            for entry in self._history.entries
            if entry.id > last and self._is_told(entry)
        )

    async def _hear(self, last: int) -> None:
        """Hear what was said until number *last*, in order."""
        while self._last < last:
            heard = await self._engine.heard(self._last, 2 * self._at_once)
            if not heard:
                return
            for number, one in enumerate(heard, 1):
                self._last = one.number
                self._take(one)
                if number % _YIELDS == 0:
                    await asyncio.sleep(0)

    async def _catch_up(self, after: int, until: int) -> None:
        """Hear what others did while this daemon did not hear them, as far as it is kept;
        all else of it stands."""
        async for one in self._engine.kept(after):
            if one.number > until:
                return
            if one.kind == "entry":
                self._take(one)

    def _take(self, one: Heard) -> None:
        """Take a message; one that is none is of a daemon that we do not know."""
        if one.daemon == self.circle.name:
            return
        with self._reading(one.daemon):
            match one.kind:
                case "view":
                    self.sights.hear(one.daemon, views.read(json.loads(one.body)))
                case "gone":
                    self.sights.forget(one.daemon, one.key)
                case "word":
                    self._take_word(words.read(one.body))
                case "entry":
                    self._take_entry(one.daemon, int(one.key), json.loads(one.body))

    def _take_standing(self, daemon: str, body: str) -> None:
        """Take a view that stands; what holds is counted when all of them are known."""
        if daemon == self.circle.name:
            return
        with self._reading(daemon):
            view = views.read(json.loads(body))
            self.circle.hear(daemon, view.token, view, self._clock.now())

    @contextmanager
    def _reading(self, daemon: str) -> Iterator[None]:
        """Count what is read, and apart what cannot be."""
        self.heard += 1
        try:
            yield
        except _UNREADABLE as error:
            self.unread += 1
            if self.unread == 1:
                log.warning("%s says what cannot be read: %s", daemon, error)

    def _take_word(self, word: FleetWord) -> None:
        if self.words.hear(word):
            self._have_obeyed(word)

    def _have_obeyed(self, word: FleetWord) -> None:
        left, last = word.until - self.sights.wall(), word

        def still() -> bool:
            return self.words.of(last.breaker) is last

        if left <= 0:  # nothing stands any more, also not what it took the place of
            word = replace(word, state=None)
        order = asyncio.create_task(
            self._carry_out(word, left, still), name="a peer's word"
        )
        self._orders.add(order)
        order.add_done_callback(self._orders.discard)

    async def _carry_out(self, word: FleetWord, left: Seconds, still: Still) -> None:
        try:
            await self._obey(word, left, still)
        except Exception:
            log.exception("the word of %s on %s", word.author, word.breaker)

    def _take_entry(self, daemon: str, of: int, written: Mapping[str, object]) -> None:
        """Put what another daemon saw into the history, once."""
        if of <= self._seen.get(daemon, 0):
            return
        self._seen[daemon] = of
        name = str(written["breaker"])
        if self._board.breaker(name) is None:
            return
        details = written["details"]
        if not isinstance(details, dict):
            raise TypeError("an entry without details")
        kind, text = Kind.TRANSITION, str(written["text"])
        if target_of(name) in self.circle.watching:
            # The breaker here goes by its own machine, and by what is ruled.
            kind, text = Kind.NOTICE, f"{name} of {daemon}: {details['to']}: {text}"
        self._history.copy(
            kind,
            text,
            at=float(str(written["at"])),
            breaker=name,
            details={**details, "daemon": daemon, "of": of, "code": "peer"},
        )


def _view(name: str, body: str | None) -> Message:
    kind = "gone" if body is None else "view"
    return Message(kind, name, body or "")


def _entry(entry: Entry) -> Message:
    body = {
        "text": entry.text,
        "at": entry.at,
        "breaker": entry.breaker,
        "details": dict(entry.details),
    }
    return Message("entry", str(entry.id), json.dumps(body, separators=(",", ":")))


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _names(text: str) -> frozenset[str]:
    """The targets that a daemon has announced."""
    try:
        names = json.loads(text)
    except ValueError:
        return frozenset()
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return frozenset(names) if is_list else frozenset()
