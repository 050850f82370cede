"""Has clients wait at pgbouncer while a breaker is open, and sees to it that they go on.

To forget a pool that was paused is worse than not to pause it: its clients wait until
nothing is left of them. So:

- What may be paused by us is written down before it is sent. A daemon that begins undoes
  what the one before it has left, whatever the breaker says.
- A pause ends with the opening, after `max_time`, and before the daemon ends, whichever is
  first; and it is ended until the console says that it is.
- What somebody else has paused, or paused again, is theirs. Nothing of it is undone here.
- One pause an opening, and one a minute.

Of each pool there is one task. It goes by what is so now, not by what it was told: an
event wakes it, and it looks once a second anyway.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pgbreaker.clock import Clock
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.plan import PausePlan, TargetPlan
from pgbreaker.core.states import Transition
from pgbreaker.core.units import Seconds, shortly
from pgbreaker.postgres.console import (
    Console,
    ConsoleError,
    NotSentError,
    RefusedError,
    UnansweredError,
    named,
)
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.history import History, NotKeptError
from pgbreaker.sinks.hub import Event
from pgbreaker.sinks.log import tell_fall

log = logging.getLogger(__name__)

AUTHOR: Final = "pgbreaker"
"""Who pauses: the daemon itself."""

EVERY: Final[Seconds] = 60.0
"""Seconds between the beginnings of two pauses, at least."""

ENDS_WITHIN: Final[Seconds] = 4.0
"""How long a pool may take to be resumed when the daemon ends, or is to leave it."""

_LOOKS: Final[Seconds] = 1.0
_MOST_READ: Final = 500

MayAct = Callable[[str], bool]
"""Whether it is this daemon that acts on the target of that name, of several that watch
it: the one that has its lease."""


@dataclass(slots=True)
class Held:
    """A pause that is ours, as far as we know.

    Attributes:
        until: Monotonic moment at which it ends at the latest.
        ending: Why it is being ended. None: it is not, yet.
        told: What was told last of an end that does not succeed.
    """

    until: Seconds
    ending: str | None = None
    told: str = ""


class Pool:
    """One database of one pgbouncer, and what of it is ours."""

    def __init__(
        self,
        target: str,
        plan: PausePlan,
        board: Board,
        history: History,
        clock: Clock,
        *,
        is_kept: bool,
        may_act: MayAct,
    ) -> None:
        self.plan = plan
        self._target = target
        self._breaker = f"{target}/{plan.while_open}"
        self._console = Console(plan.address, plan.password_file)
        self._board = board
        self._history = history
        self._clock = clock
        self._is_kept = is_kept
        self._may_act = may_act
        self._held: Held | None = None
        # Whether this opening has had its pause; one that is older than we are may have.
        self._is_spent = self._is_open
        self._next: Seconds | None = None  # before this moment there is no other pause
        self._leaves: str | None = None  # why it is to be left alone for good
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def task(self) -> "asyncio.Task[None]":
        """What does all this. Begins it."""
        if self._task is None:
            name = f"pausing of {self._target}"
            self._task = asyncio.create_task(self._run(), name=name)
            self._task.add_done_callback(partial(tell_fall, log))
        return self._task

    def wake(self) -> None:
        """Look at once: something has moved."""
        self._changed.set()

    async def leave(self, why: str, within: Seconds = ENDS_WITHIN) -> None:
        """Resume what is ours, and end; what cannot be resumed in time is written down as
        ours."""
        self._leaves = why
        self.wake()
        _, late = await asyncio.wait((self.task,), timeout=within)
        for task in late:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        await self._take_up()
        while True:
            self._changed.clear()
            await self._look()
            if self._leaves is not None and self._held is None:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOKS):
                    await self._changed.wait()

    async def _look(self) -> None:
        if self._held is not None:
            await self._hold(self._held)
        elif self._leaves is not None:
            return
        elif not self._is_open:
            self._is_spent = False
        elif not self._is_spent and self._may_act(self._target):
            self._is_spent = True
            await self._pause()

    @property
    def _is_open(self) -> bool:
        breaker = self._board.breaker(self._breaker)
        return breaker is not None and not breaker.passes

    # After a restart.

    async def _take_up(self) -> None:
        """Undo what a daemon has left that did not come to it."""
        last = await _last(self._history, self._target)
        if last is None:
            return
        ago = self._clock.wall() - last.at
        if last.details.get("sent") and 0 <= ago < EVERY:
            self._next = self._clock.now() + EVERY - ago
        if not last.details.get("held"):
            return
        known = self.plan.database, self._console.place
        if (last.details.get("database"), last.details.get("console")) == known:
            now = self._clock.now()
            self._held = Held(now, "whoever paused it has ended since")
        else:
            await _tell_left(self._history, last)

    # A pause: begins, goes on, ends.

    async def _pause(self) -> None:
        database, now = self.plan.database, self._clock.now()
        if self._next is not None and now < self._next:
            log.info(
                "%s is not paused: it was less than %s ago", database, shortly(EVERY)
            )
            return
        if not self._is_kept:
            # Nobody would know of it after a restart.
            await self._tell(
                f"{database} is not paused at pgbouncer: there is no store"
            )
            return
        try:
            is_paused = await self._console.is_paused(database)
        except ConsoleError as error:
            await self._tell(f"{database} is not paused at pgbouncer: {error}")
            return
        if is_paused is None:
            await self._tell(f"pgbouncer knows no database {database} to pause")
            return
        if is_paused:
            await self._tell(
                f"{database} is paused at pgbouncer already, by somebody else: that is"
                " left as it is"
            )
            return
        try:
            await self._decide()
        except NotKeptError as error:
            log.warning("%s is not paused at pgbouncer: it %s", database, error)
            return
        self._next = now + EVERY
        self._held = Held(self._clock.now() + self.plan.max_time)
        await self._send_pause()

    async def _decide(self) -> None:
        most = shortly(self.plan.max_time)
        await self._history.decide(
            Kind.PAUSE,
            f"pgbouncer is told to pause {self.plan.database}, for {most} at most:"
            f" {self._breaker} is open",
            target=self._target,
            author=AUTHOR,
            details=self._details(self._word("PAUSE"), None, held=True),
        )

    async def _send_pause(self) -> None:
        database, word = self.plan.database, self._word("PAUSE")
        try:
            await self._console.tell(word)
        except UnansweredError as error:
            # In force all the same, as long as it has come to the console.
            await self._tell(
                f"pgbouncer was told to pause {database}, and has not answered yet"
                f" ({error}): queries that run go on, those that come wait",
                word,
                str(error),
                held=True,
            )
        except ConsoleError as error:
            self._held = None
            await self._tell(
                f"{database} is not paused at pgbouncer: {error}",
                word if isinstance(error, RefusedError) else None,
                str(error),
            )
        else:
            await self._tell(
                f"pgbouncer has paused {database}", word, "done", held=True
            )

    async def _hold(self, held: Held) -> None:
        if held.ending is None:
            held.ending = self._why_to_end(held)
        if held.ending is not None:
            await self._resume(held, held.ending)
        elif await self._is_undone():
            self._held = None
            await self._tell(
                f"{self.plan.database} is not paused at pgbouncer any more, by somebody"
                " else's word: that is left as it is"
            )

    def _why_to_end(self, held: Held) -> str | None:
        if self._leaves is not None:
            return self._leaves
        if not self._is_open:
            return f"{self._breaker} is not open any more"
        if self._clock.now() >= held.until:
            return f"it has lasted {shortly(self.plan.max_time)}"
        return None

    async def _is_undone(self) -> bool:
        try:
            return not await self._console.is_paused(self.plan.database)
        except ConsoleError:
            return False  # that is for the end to find out

    async def _resume(self, held: Held, why: str) -> None:
        """Try to end it; whoever looks next tries again where that does not succeed."""
        database, word = self.plan.database, self._word("RESUME")
        try:
            if not await self._console.is_paused(database):
                self._held = None
                await self._tell(
                    f"{database} is not paused at pgbouncer any more ({why})"
                )
                return
            await self._console.tell(word)
        except ConsoleError as error:
            if str(error) != held.told:
                held.told = str(error)
                await self._tell(
                    f"pgbouncer cannot be told to resume {database} ({why}): {error};"
                    " it is told again each second",
                    None if isinstance(error, NotSentError) else word,
                    str(error),
                    held=True,
                )
            return
        self._held = None
        await self._tell(f"pgbouncer has resumed {database}: {why}", word, "done")

    def _word(self, command: str) -> str:
        return f"{command} {named(self.plan.database)}"

    # What is told.

    async def _tell(
        self,
        text: str,
        sent: str | None = None,
        answered: str | None = None,
        *,
        held: bool = False,
    ) -> None:
        log.info("%s", text)
        await self._history.decide(
            Kind.PAUSE,
            text,
            target=self._target,
            details=self._details(sent, answered, held=held),
        )

    def _details(
        self, sent: str | None, answered: str | None, *, held: bool
    ) -> dict[str, Any]:
        """What programs want to know.

        ``held``: whether it may be paused by us from here on.
        """
        return {
            "database": self.plan.database,
            "console": self._console.place,
            "sent": sent,
            "answered": answered,
            "held": held,
        }


class Pausing:
    """Every pool that is paused by breakers, as it is configured now; a sink."""

    def __init__(
        self,
        board: Board,
        history: History,
        clock: Clock,
        *,
        is_kept: bool,
        may_act: MayAct = lambda _target: True,
    ) -> None:
        """Args:
        is_kept: Whether the history outlives the process; else nothing is paused.
        may_act: Asked before each pause.
        """
        self._board = board
        self._history = history
        self._clock = clock
        self._is_kept = is_kept
        self._may_act = may_act
        self._pools: dict[str, Pool] = {}
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        if isinstance(event, Transition):
            pool = self._pools.get(event.breaker.rpartition("/")[0])
            if pool is not None:
                pool.wake()

    async def take(self, targets: Iterable[TargetPlan]) -> None:
        """Pause as *targets* say from now on. What is paused for one that says otherwise
        is resumed first."""
        wanted = {plan.name: plan.pause for plan in targets if plan.pause is not None}
        left = {n: p for n, p in self._pools.items() if wanted.get(n) != p.plan}
        for name in left:
            del self._pools[name]
        why = "it is configured otherwise"
        await asyncio.gather(*(pool.leave(why) for pool in left.values()))
        for name, plan in wanted.items():
            if name not in self._pools:
                self._pools[name] = Pool(
                    name,
                    plan,
                    self._board,
                    self._history,
                    self._clock,
                    is_kept=self._is_kept,
                    may_act=self._may_act,
                )
        self._changed.set()

    async def run(self) -> None:
        """See to it that each pool is seen to, for good.

        Raises:
            Exception: What one of them fell by.
        """
        await self._tell_strays()
        while True:
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            pools = {pool.task for pool in self._pools.values()}
            waiting: set[asyncio.Task[Any]] = {changed, *pools}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
            for task in pools:
                if task.done():
                    task.result()  # raises what it fell by
                    self._forget(task)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        """Wait no more for one that was left."""
        self._pools = {n: p for n, p in self._pools.items() if p.task is not task}

    async def _tell_strays(self) -> None:
        """Tell what was paused before a restart that nobody can resume after it."""
        entries = await self._history.page(kinds=(Kind.PAUSE,), limit=_MOST_READ)
        for target, last in {entry.target: entry for entry in entries}.items():
            if target not in self._pools and last.details.get("held"):
                await _tell_left(self._history, last)

    async def close(self) -> None:
        """Resume all that is ours, as far as that can be in a short time."""
        pools, self._pools = self._pools, {}
        await asyncio.gather(*(p.leave("the daemon ends") for p in pools.values()))


async def _last(history: History, target: str) -> Entry | None:
    entries = await history.page(kinds=(Kind.PAUSE,), target=target, limit=1)
    return entries[-1] if entries else None


async def _tell_left(history: History, last: Entry) -> None:
    database, console = last.details.get("database"), last.details.get("console")
    await history.decide(
        Kind.PAUSE,
        f"pgbouncer at {console} may have {database} paused still, by this daemon, which"
        f" is configured otherwise now: tell it RESUME {named(str(database))}",
        target=last.target,
        details={**last.details, "sent": None, "answered": None, "held": False},
    )
