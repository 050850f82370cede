"""The desk: where people put their word before a breaker's, and plan maintenance.

What is asked here is written down first, then done, then told. What time ends by itself
is done first: that it has ended can be told by what was written down before.

Of one breaker one decision is made at a time, so that what is written down last is what
holds. Overrides go by the monotonic clock: no jump of wall time ends one or makes it
longer. Windows of maintenance are planned by the calendar and go by wall time.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.maintenance import ALL, Window, is_meant
from pgbreaker.core.states import OVERRIDES, Override, State, Transition
from pgbreaker.core.units import Seconds
from pgbreaker.core.units import lasting as lasting_of
from pgbreaker.errors import PgbreakerError
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History, NotKeptError
from pgbreaker.sinks.hub import Hub

__all__ = ["ALL", "Desk", "RefusedError", "Window", "one_line"]

log = logging.getLogger(__name__)

LASTS: Final[Seconds] = 3600.0
"""How long an override holds unless it is said otherwise."""

LONGEST: Final[Seconds] = 7 * 24 * 3600.0
"""How long one may hold at most: a forgotten one is worse than one that ran out."""

LONGEST_WINDOW: Final[Seconds] = 31 * 24 * 3600.0
"""How long a window of maintenance may be."""

FURTHEST: Final[Seconds] = 366 * 24 * 3600.0
"""How far ahead one may start."""

MOST_WINDOWS: Final = 500
"""Windows that may be planned at a time."""

REASON: Final = (5, 500)
"""Characters that a reason has, at least and at most."""

AUTHOR: Final = (1, 100)
"""Characters that an author's name has, at least and at most."""

HANDED_BACK: Final = "handed back"
"""The reason to hand back where none is given."""

_T = TypeVar("_T")
_Still = Callable[[Breaker], bool]
_Tell = Callable[[], Coroutine[Any, Any, None]]

_LOOKS: Final[Seconds] = 1.0  # between two looks at most: wall time may jump
_SOON: Final[Seconds] = 0.01  # between two looks at least
_SAME_END: Final[Seconds] = 2.0  # what ends so much later ends at the same time


class RefusedError(PgbreakerError):
    """What was asked is not done: it is not one thing or another, as the text says.

    Attributes:
        field: What of the question is wrong, such as ``reason``.
    """

    def __init__(self, field: str, text: str) -> None:
        super().__init__(field, text)
        self.field = field
        self.text = text

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


class Desk:
    """Takes orders, and sees to it that they end in time."""

    def __init__(self, board: Board, hub: Hub, history: History, clock: Clock) -> None:
        self._board = board
        self._hub = hub
        self._history = history
        self._clock = clock
        # What was written down as holding, by the name of its breaker: what is no longer
        # so, and was not handed back, has ended by itself.
        self._held: dict[str, Override] = {}
        self._deciding: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._planning = asyncio.Lock()
        self._ahead: set[int] = set()  # windows that have not been told to have begun
        self._changed = asyncio.Event()
        self._orders: set[asyncio.Task[Any]] = set()  # under way
        self._telling: set[str] = set()  # breakers whose end is being told

    @property
    def windows(self) -> Mapping[int, Window]:
        """Id -> window, of those that are not over."""
        return self._board.windows

    @property
    def overrides(self) -> Mapping[str, Override]:
        """Breaker -> the word that stands before its own, where one does."""
        return {
            breaker.name: breaker.override
            for target in self._board.targets.values()
            for breaker in target.breakers.values()
            if breaker.override is not None
        }

    def window_of(self, target: str) -> Window | None:
        """The window that *target* is in now, None when it is in none."""
        known = self._board.targets.get(target)
        return None if known is None else known.maintenance

    async def _surely(self, order: Coroutine[Any, Any, _T]) -> _T:
        """Carry an order out to its end, even if whoever gave it does not wait for it:
        what was written down and not done would come to hold with the next start."""
        return await asyncio.shield(self._carry_out(order))

    def _carry_out(self, order: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(order)
        self._orders.add(task)
        task.add_done_callback(self._carried_out)
        return task

    def _carried_out(self, task: asyncio.Task[Any]) -> None:
        self._orders.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; else nobody wants it

    async def close(self, within: Seconds = 2.0) -> None:
        """Wait for the orders that are under way, for *within* seconds at most."""
        if self._orders:
            await asyncio.wait(self._orders, timeout=within)

    # Orders: of breakers.

    async def override(
        self,
        breaker: Breaker,
        state: State,
        *,
        reason: str,
        author: str,
        lasting: Seconds = LASTS,
        still: _Still | None = None,
    ) -> Transition:
        """Put *state* before the breaker's own for *lasting* seconds.

        Args:
            still: Whether all is as whoever asks believes it is; asked when all decisions
                before this one are made. None: it does not matter to them.

        Raises:
            RefusedError: One of the arguments is not to be had.
            NotKeptError: It could not be written down, and so is not done.
        """
        if state not in OVERRIDES:
            there_are = ", ".join(state.value for state in OVERRIDES)
            raise RefusedError(
                "state",
                f"a breaker cannot be forced {state.value}; it can be {there_are}",
            )
        if not 0 < lasting <= LONGEST:
            raise RefusedError(
                "for", f"{lasting:.12g} s is not between 0 and {lasting_of(LONGEST)}"
            )
        reason = one_line(reason, "reason", REASON)
        author = one_line(author, "author", AUTHOR)
        order = self._override(breaker.name, state, reason, author, lasting, still)
        return await self._surely(order)

    async def _override(
        self,
        name: str,
        state: State,
        reason: str,
        author: str,
        lasting: Seconds,
        still: _Still | None,
    ) -> Transition:
        async with self._deciding[name]:
            target, _ = self._home(name)
            self._check(name, still)
            # By the clock as of now: while this is written down wall time may jump.
            override = Override(state, reason, author, self._clock.now() + lasting)
            await self._history.decide(
                Kind.OVERRIDE,
                f"{name} is {state.value} for {lasting_of(lasting)}: {reason}",
                target=target,
                breaker=name,
                author=author,
                details={
                    "state": state.value,
                    "reason": reason,
                    "until": self._clock.wall() + lasting,
                },
            )
            # While that was written down the world went on: the breaker may be another
            # one by now, or none.
            self._held[name] = override
            self._changed.set()
            there = self._board.breaker(name)
            if there is None:
                await self._tell_ended(name, "its target was removed")
                raise RefusedError("breaker", f"{name} was removed meanwhile")
            move = there.force(override, self._clock.now())
            self._hub.publish(move)
            return move

    async def hand_back(
        self,
        breaker: Breaker,
        *,
        author: str,
        reason: str = HANDED_BACK,
        still: _Still | None = None,
    ) -> Transition | None:
        """Let the breaker decide by itself again. None when it already does.

        Args:
            reason: Why. An empty one will do: a slip of the hand is undone in one step.
            still: As for `override`.

        Raises:
            RefusedError: The reason or the author is none.
            NotKeptError: It could not be written down, and so is not done.
        """
        reason = one_line(reason.strip() or HANDED_BACK, "reason", REASON)
        author = one_line(author, "author", AUTHOR)
        return await self._surely(self._hand_back(breaker.name, reason, author, still))

    async def _hand_back(
        self, name: str, reason: str, author: str, still: _Still | None
    ) -> Transition | None:
        async with self._deciding[name]:
            target, _ = self._home(name)
            self._check(name, still)
            there = self._board.breaker(name)
            if there is None or there.override is None:
                return None
            await self._history.decide(
                Kind.OVERRIDE,
                f"{name} decides by itself again: {reason}",
                target=target,
                breaker=name,
                author=author,
                details={"state": None, "reason": reason, "until": None},
            )
            self._held.pop(name, None)
            there = self._board.breaker(name)
            if there is None:
                return None
            told = f"handed back by {author}"
            if reason != HANDED_BACK:
                told += f" ({reason})"
            move = there.resume(self._clock.now(), told)
            if move is not None:
                self._hub.publish(move)
            return move

    async def obey(
        self,
        name: str,
        state: State | None,
        *,
        reason: str,
        author: str,
        daemon: str,
        lasting: Seconds,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """Have a word hold that was given to another daemon, or taken back there.

        It holds even where it cannot be written down: it was, there.

        Args:
            name: Of the breaker; where there is none, nothing is done.
            state: What stands before its own. None: nothing any more.
            daemon: Who was asked.
            lasting: Seconds that it holds.
            still: Whether it is still the last one; asked when all decisions before it
                are made.
        """
        lasting = min(lasting, LONGEST)
        order = self._obey(name, state, reason, author, daemon, lasting, still)
        await self._surely(order)

    async def _obey(
        self,
        name: str,
        state: State | None,
        reason: str,
        author: str,
        daemon: str,
        lasting: Seconds,
        still: Callable[[], bool],
    ) -> None:
        async with self._deciding[name]:
            there, now = self._board.breaker(name), self._clock.now()
            if there is None or not still():
                return
            if _is_so(there.override, state, reason, now + lasting):
                return
            text = f"{name} decides by itself again: {reason}"
            if state is not None:
                text = f"{name} is {state.value} for {lasting_of(lasting)}: {reason}"
            await self._tell(
                Kind.OVERRIDE,
                f"{text} (asked of {daemon})",
                target=self._board.home(name)[0],
                breaker=name,
                author=author,
                details={
                    "state": None if state is None else state.value,
                    "reason": reason,
                    "until": None if state is None else self._clock.wall() + lasting,
                    "daemon": daemon,
                },
            )
            there, now = self._board.breaker(name), self._clock.now()
            if there is None or not still():
                return
            move: Transition | None
            if state is None:
                self._held.pop(name, None)
                move = there.resume(now, f"handed back by {author}, at {daemon}")
            else:
                self._held[name] = Override(state, reason, author, now + lasting)
                self._changed.set()
                move = there.force(self._held[name], now)
            if move is not None:
                self._hub.publish(move)

    def _check(self, name: str, still: _Still | None) -> None:
        there = self._board.breaker(name)
        if still is not None and (there is None or not still(there)):
            raise RefusedError("was", "somebody has decided something else since")

    def _home(self, breaker: str) -> tuple[str, str]:
        if self._board.breaker(breaker) is None:
            raise RefusedError("breaker", f"there is no {breaker} any more")
        return self._board.home(breaker)

    # Orders: of maintenance.

    async def begin(
        self,
        targets: Sequence[str],
        *,
        reason: str,
        author: str,
        ends: float,
        starts: float | None = None,
    ) -> Window:
        """Plan maintenance of *targets*; None starts it now.

        Args:
            targets: As `Window.targets` has them.

        Raises:
            RefusedError: There is no such target, or the times are none.
            NotKeptError: It could not be written down, and so is not done.
        """
        meant = self._meant(targets)
        reason = one_line(reason, "reason", REASON)
        author = one_line(author, "author", AUTHOR)
        return await self._surely(self._begin(meant, reason, author, starts, ends))

    async def _begin(
        self,
        targets: tuple[str, ...],
        reason: str,
        author: str,
        starts: float | None,
        ends: float,
    ) -> Window:
        async with self._planning:
            if len(self.windows) >= MOST_WINDOWS:
                raise RefusedError("targets", f"{MOST_WINDOWS} windows are planned")
            now = self._clock.wall()
            begins = now if starts is None else max(starts, now)
            _check_times(begins, ends, now)
            how_long = f"for {lasting_of(ends - begins)}"
            when = how_long
            if begins > now:
                when = f"in {lasting_of(begins - now)}, {how_long}"
            entry = await self._history.decide(
                Kind.MAINTENANCE,
                f"maintenance of {', '.join(targets)} {when}: {reason}",
                target=self._only(targets),
                author=author,
                details={
                    "targets": list(targets),
                    "reason": reason,
                    "starts": begins,
                    "ends": ends,
                },
            )
            window = Window(
                id=entry.id,
                targets=targets,
                reason=reason,
                author=author,
                starts=begins,
                ends=ends,
            )
            self._plan(window, now)
        return window

    def _plan(self, window: Window, now: float) -> None:
        self._board.windows[window.id] = window
        if window.starts > now:
            self._ahead.add(window.id)
        self._changed.set()

    def _meant(self, targets: Sequence[str]) -> tuple[str, ...]:
        """Every target named, once.

        Raises:
            RefusedError: None is named, or one that there is not.
        """
        plans = [target.plan for target in self._board.targets.values()]
        unknown = [
            named
            for named in targets
            if named != ALL
            and not any(is_meant(named, plan.name, plan.labels) for plan in plans)
        ]
        if unknown or not targets:
            named = ", ".join(map(repr, unknown)) or "none"
            labels = {f"{k}={v}" for plan in plans for k, v in plan.labels.items()}
            there_are = ", ".join(
                (*(p.name for p in plans), *sorted(labels), f"{ALL!r}")
            )
            raise RefusedError("targets", f"no target {named}; there are {there_are}")
        return tuple(dict.fromkeys(targets))

    def _only(self, targets: Sequence[str]) -> str | None:
        """The one target that a window is of, None when it may be of several."""
        is_one = len(targets) == 1 and targets[0] in self._board.targets
        return targets[0] if is_one else None

    async def end(self, window: int, *, author: str) -> Window:
        """End a window, or call it off.

        Raises:
            RefusedError: There is none of this id.
            NotKeptError: It could not be written down, and so is not done.
        """
        author = one_line(author, "author", AUTHOR)
        return await self._surely(self._end(window, author))

    async def _end(self, window: int, author: str) -> Window:
        async with self._planning:
            if window not in self.windows:
                raise RefusedError(
                    "id", f"no window of maintenance has the id {window}"
                )
            known = self.windows[window]
            has_begun = known.starts <= self._clock.wall()
            what = "has ended" if has_begun else "is called off"
            await self._history.decide(
                Kind.MAINTENANCE,
                f"maintenance of {', '.join(known.targets)} {what}: {known.reason}",
                target=self._only(known.targets),
                author=author,
                details={"ended": window},
            )
            self._drop(window)
        return known

    def _drop(self, window: int) -> None:
        self._board.windows.pop(window, None)
        self._ahead.discard(window)

    # Orders: of words.

    async def note(self, entry: int, text: str, *, author: str) -> Entry:
        """Write something to an entry of the history.

        Raises:
            RefusedError: There is no such entry, or the text is none.
            NotKeptError: It could not be written down.
        """
        text = one_line(text, "text", REASON)
        author = one_line(author, "author", AUTHOR)
        found = await self._history.page(before=entry + 1, limit=1)
        if not found or found[-1].id != entry:
            raise RefusedError("id", f"no event has the id {entry}")
        known = found[-1]
        noted = self._history.decide(
            Kind.NOTE,
            text,
            target=known.target,
            breaker=known.breaker,
            author=author,
            details={"of": entry},
        )
        return await self._surely(noted)

    # Time.

    @property
    def next(self) -> Seconds | None:
        """Moment of the next thing that time brings about, None when there is none."""
        now, wall = self._clock.now(), self._clock.wall()
        ends = [
            override.until
            for name, override in self._held.items()
            if override.until is not None and name not in self._telling
        ]
        for window in self.windows.values():
            comes = window.starts if window.id in self._ahead else window.ends
            ends.append(now + comes - wall)
        return min(ends, default=None)

    async def look(self, now: Seconds | None = None) -> None:
        """Do what time has brought about, and tell of it: overrides that ran out, windows
        that begin or are over.

        Args:
            now: When. None: now.
        """
        for tell in self._turn(self._clock.now() if now is None else now):
            await tell()

    async def run(self) -> None:
        """Look whenever there is something to do, for good.

        It is done in time, and told when that can be written down: a disk that hangs
        holds no override up.
        """
        while True:
            for tell in self._turn(self._clock.now()):
                self._carry_out(tell())
            self._changed.clear()
            comes = self.next
            rest = _LOOKS if comes is None else comes - self._clock.now()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(_SOON, min(rest, _LOOKS))):
                    await self._changed.wait()

    def _turn(self, now: Seconds) -> list[_Tell]:
        """Do what time has brought about. Returns what tells of it."""
        over = self._end_overrides(now)
        self._telling.update(over)
        ends = [partial(self._tell_if_ended, name) for name in over]
        return [*ends, *self._turn_windows()]

    def _end_overrides(self, now: Seconds) -> list[str]:
        """Let breakers go whose override ran out; names those that are held no more."""
        over = []
        for name, override in self._held.items():
            breaker = self._board.breaker(name)
            is_held = breaker is not None and breaker.override is override
            ran_out = override.until is not None and now >= override.until
            if breaker is not None and is_held and ran_out:
                move = breaker.advance(now)
                if move is not None:
                    self._hub.publish(move)
                is_held = breaker.override is override
            if not is_held and name not in self._telling:
                over.append(name)
        return over

    async def _tell_if_ended(self, name: str) -> None:
        async with self._deciding[name]:
            self._telling.discard(name)
            # While this waited for its turn somebody may have decided anew.
            override, breaker = self._held.get(name), self._board.breaker(name)
            if override is None:
                return
            if breaker is None:
                await self._tell_ended(name, "its target was removed")
            elif breaker.override is None:
                why = f"the override by {override.author} ran out"
                await self._tell_ended(name, why)
            elif breaker.override is not override:
                del self._held[name]  # nobody asked here for what stands there now

    async def _tell_ended(self, name: str, why: str) -> None:
        """Write down and tell that an override has ended by itself."""
        self._held.pop(name, None)
        known = self._board.breaker(name) is not None
        await self._tell(
            Kind.OVERRIDE,
            f"{name} decides by itself again: {why}" if known else f"{name}: {why}",
            target=self._board.home(name)[0] if known else name.partition("/")[0],
            breaker=name,
            details={"state": None, "reason": why, "until": None},
        )

    def _turn_windows(self) -> list[_Tell]:
        """Drop windows that are over. Returns what tells of them and of those that
        begin."""
        wall, tells = self._clock.wall(), list[_Tell]()
        for window in tuple(self.windows.values()):
            if wall >= window.ends:
                self._drop(window.id)
                tells.append(partial(self._tell_window, window, "is over", "ended"))
            elif window.id in self._ahead and wall >= window.starts:
                self._ahead.discard(window.id)
                tells.append(partial(self._tell_window, window, "has begun", "begun"))
        return tells

    async def _tell_window(self, window: Window, what: str, detail: str) -> None:
        await self._tell(
            Kind.MAINTENANCE,
            f"maintenance of {', '.join(window.targets)} {what}: {window.reason}",
            target=self._only(window.targets),
            details={detail: window.id},
        )

    async def _tell(self, kind: Kind, text: str, **more: Any) -> None:  # noqa: ANN401 - Entry's
        """Tell what has come about. It holds even where it cannot be written down: the
        end was written down with the beginning."""
        try:
            await self._history.decide(kind, text, **more)
        except NotKeptError as error:
            log.warning("%s (%s)", text, error)

    # After a restart.

    async def restore(
        self, overrides: Mapping[str, Mapping[str, Any]], windows: Iterable[Entry]
    ) -> None:
        """Take up what was decided before the process began. No breaker moves by that,
        as those see it who are told.

        Args:
            overrides: Breaker -> what was written down: state, reason and author, since
                when (``at``) and until when, in wall time.
            windows: The entries that windows began with which nobody has ended.
        """
        for name, written in overrides.items():
            why = self._take_up(name, written)
            if why is not None:
                await self._tell_ended(name, why)
        wall = self._clock.wall()
        for entry in windows:
            window = _window(entry)
            if window is None:
                log.warning("entry %d is of no window of maintenance", entry.id)
            else:
                self._plan(window, wall)
        await self.look()

    def _take_up(self, name: str, written: Mapping[str, Any]) -> str | None:
        """Put a word before a breaker again that stood there.

        Returns:
            Why it does not stand there any more; None: it does.
        """
        breaker = self._board.breaker(name)
        if breaker is None:
            return "there is no such breaker any more"
        try:
            state = State(written["state"])
            wall = self._clock.wall()
            left = min(float(written["until"]) - wall, LONGEST)
            age = max(0.0, wall - float(written["at"]))
            author, reason = str(written["author"]), str(written["reason"])
        except (KeyError, TypeError, ValueError) as error:
            log.warning("the override of %r cannot be read: %r", name, error)
            return "what was written down of its override cannot be read"
        if state not in OVERRIDES:
            return f"its override was {state.value}, which it cannot be"
        if left <= 0:
            return f"the override by {author} ran out while nobody watched"
        now = self._clock.now()
        self._held[name] = Override(state, reason, author, now + left)
        target, operation = self._board.home(name)
        # As of then: what it shows, and since when, is what it was before the restart.
        move = breaker.force(self._held[name], now - age)
        self._board.targets[target].move(operation, move)
        self._changed.set()
        return None


def _is_so(
    override: Override | None, state: State | None, reason: str, until: Seconds
) -> bool:
    """Whether a breaker stands as somebody wants it."""
    if override is None or state is None:
        return override is None and state is None
    is_same = (override.state, override.reason) == (state, reason)
    ends = override.until
    return is_same and ends is not None and abs(ends - until) < _SAME_END


def _window(entry: Entry) -> Window | None:
    details = entry.details
    try:
        return Window(
            id=entry.id,
            targets=tuple(map(str, details["targets"])),
            reason=str(details["reason"]),
            author=entry.author or "",
            starts=float(details["starts"]),
            ends=float(details["ends"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _check_times(starts: float, ends: float, now: float) -> None:
    if not ends > starts:
        raise RefusedError("ends", "a window ends after it starts, and after now")
    if ends - starts > LONGEST_WINDOW:
        longest = lasting_of(LONGEST_WINDOW)
        raise RefusedError("ends", f"a window lasts {longest} at most")
    if starts - now > FURTHEST:
        furthest = lasting_of(FURTHEST)
        raise RefusedError("starts", f"a window starts within {furthest}")


def one_line(text: str, field: str, length: tuple[int, int]) -> str:
    """Take a person's words, as one line.

    Raises:
        RefusedError: There are too few or too many, or some cannot be shown.
    """
    text = " ".join(text.split())
    least, most = length
    if not least <= len(text) <= most:
        raise RefusedError(field, f"{len(text)} characters are not {least} to {most}")
    if not text.isprintable():
        odd = next(c for c in text if not c.isprintable())
        raise RefusedError(field, f"holds a character that cannot be shown: {odd!r}")
    return text
