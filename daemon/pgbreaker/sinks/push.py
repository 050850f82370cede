"""Alerts pushed to Alertmanager the moment that a breaker opens.

Prometheus sends the same alert, one scrape and one evaluation later. Labels are those of
its rule `PgbreakerBreakerOpen`, so that Alertmanager makes one alert of both, and it
stays as long after the closing as the rule holds it, so that neither resolves what the
other still holds up. Of a target in maintenance nothing is told, and what was is ended.
Clocks need not agree: while a breaker is open Alertmanager's own decides how long the
alert lasts, and other times are told by that clock, which is known since the first
answer.

`Alerts` knows what is on and does no I/O; `Push` is the sink. An Alertmanager keeps no
alert that nobody renews, so what is sent is made from what is on, never queued: memory
is bounded by the number of breakers, however long an Alertmanager is away.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pgbreaker.clock import Clock
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.plan import AlertmanagerPlan
from pgbreaker.core.states import Cause, Evidence, State, Transition
from pgbreaker.core.text import words_of
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.sinks.alertmanager import (
    ANSWERED_WITHIN,
    Answer,
    Post,
    lead,
    offer,
    posting,
    session,
    written,
)
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event
from pgbreaker.sinks.log import tell_fall

log = logging.getLogger(__name__)

ALERT: Final = "PgbreakerBreakerOpen"
SEVERITY: Final = "critical"
HOLD: Final[Seconds] = 120.0
"""How long an alert stays after its breaker closed: the rule's ``keep_firing_for``."""

# Clocks further apart than this are worth a word: people compare what they show.
_APART: Final[Seconds] = 30.0
# What opened no longer ago begins when an Alertmanager gets it, whose clock is not known.
_FRESH: Final[Seconds] = 2.0
# In one post; writing more would keep the loop from others for longer than 10 ms.
_MOST: Final = 500
_ON: Final = (State.OPEN, State.HALF_OPEN)  # one condition, as in the rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often is told what.

    Attributes:
        gather: Seconds for which an opening waits for others, to be told with them: a
            server that goes takes three breakers, a host takes all of its servers.
        renew: Seconds between two tellings of an alert that is on. When the rule ends
            what is still on, Prometheus says so each minute, and until the next telling
            that is what Alertmanager believes.
        within: Seconds for an Alertmanager's answer, connecting included.
        again: Seconds from a failure to the next try; each further failure doubles it.
        rarest: The longest that this becomes.
        parting: Seconds for what is still to be told at the end.
    """

    gather: Seconds = 0.05
    renew: Seconds = 10.0
    within: Seconds = ANSWERED_WITHIN
    again: Seconds = 0.5
    rarest: Seconds = 30.0
    parting: Seconds = 1.0


# What is on.


@dataclass(slots=True)
class _Alert:
    """The alert of one breaker.

    Attributes:
        target: Name of the breaker's target.
        operation: What the breaker is for.
        starts: Wall time at which the breaker left closed.
        reason: Why it did.
        evidence: What was seen last by then, None when nothing was.
        closing: The move by which it closed again. None: it has not.
        edition: Number of what is to be told of it now; larger is later.
        taken: Number of what an Alertmanager took last.
        is_told: Whether it was ever to be told.
        muted: Moment at which maintenance of its target ended it, or the target was
            removed. None: it was not.
    """

    target: str
    operation: str
    starts: float
    reason: str
    evidence: Evidence | None
    edition: int
    closing: Transition | None = None
    taken: int = 0
    is_told: bool = True
    muted: Seconds | None = None


class Alerts:
    """Which breakers have an alert that is on, or held for a while after."""

    def __init__(self, plan: AlertmanagerPlan, board: Board, clock: Clock) -> None:
        self._plan = plan
        self._board = board
        self._clock = clock
        self._known: dict[str, _Alert] = {}
        self._editions = itertools.count(1)

    def take(self, move: Transition) -> str | None:
        """Note a move. Returns the breaker that there is news of, None for none."""
        if move.override is not None:
            return None  # nobody feels it, and the rule does not see it
        if self._board.breaker(move.breaker) is None:
            return None  # its target was removed
        alert = self._known.get(move.breaker)
        is_on = alert is not None and alert.closing is None
        if move.after in _ON:
            if is_on:
                return None
            alert = self._known[move.breaker] = self._opened(move, alert)
        elif alert is not None and is_on:
            alert.closing, alert.edition = move, next(self._editions)
        else:
            return None
        return move.breaker if alert.muted is None else None

    def _opened(self, move: Transition, before: _Alert | None) -> _Alert:
        starts = self._clock.wall_of(move.at)
        if before is not None and before.muted is None and not self._is_over(before):
            starts = before.starts  # the rule, too, has held it until now
        alert = _Alert(
            *self._board.home(move.breaker),
            starts,
            move.reason,
            move.evidence,
            next(self._editions),
        )
        if self._is_muted(alert):
            alert.muted, alert.is_told = move.at, False
        return alert

    def take_up(self) -> list[str]:
        """Take up the alerts of breakers that are open without a move having been told:
        they were when the process began. Names them."""
        names = []
        for target in self._board.targets.values():
            for operation, breaker in target.breakers.items():
                if breaker.state not in _ON or breaker.name in self._known:
                    continue
                alert = _Alert(
                    target.plan.name,
                    operation,
                    target.left_closed.get(operation, target.moved[operation]),
                    breaker.reason,
                    breaker.evidence,
                    next(self._editions),
                )
                if self._is_muted(alert):
                    alert.muted, alert.is_told = self._clock.now(), False
                else:
                    names.append(breaker.name)
                self._known[breaker.name] = alert
        return names

    def renew(self) -> list[str]:
        """Name the breakers whose alert is to be told again to stay on."""
        self._forget()
        names = [
            name
            for name, alert in self._known.items()
            if alert.closing is None and alert.muted is None
        ]
        for name in names:
            self._known[name].edition = next(self._editions)
        return names

    def mute(self) -> list[str]:
        """End the alerts of targets that are in maintenance now, or were removed, and
        take those up again whose maintenance is over. Names them."""
        names = []
        self._forget_closed()
        for name, alert in self._known.items():
            is_muted = self._is_muted(alert)
            if is_muted and alert.muted is None:
                alert.muted = self._clock.now()
            elif not is_muted and alert.muted is not None and alert.closing is None:
                alert.muted, alert.is_told = None, True
            else:
                continue
            alert.edition = next(self._editions)
            names.append(name)
        return names

    def _forget_closed(self) -> None:
        """Forget the muted alerts of breakers that have closed meanwhile, without a move
        here, where others watch their target: nothing is on, and nothing to be ended."""
        for name, alert in tuple(self._known.items()):
            breaker = self._board.breaker(name)
            is_on = breaker is None or breaker.state in _ON
            if alert.muted is not None and alert.closing is None and not is_on:
                del self._known[name]

    def _is_muted(self, alert: _Alert) -> bool:
        target = self._board.targets.get(alert.target)
        if target is None or target.maintenance is not None:
            return True
        return target.elsewhere is not None  # who watches it tells

    def names(self) -> list[str]:
        """Name all whose alert is on or held, or was ended by maintenance."""
        self._forget()
        return [name for name, alert in self._known.items() if alert.is_told]

    def edition(self, name: str) -> int:
        """The number of what is to be told of *name* now; 0 for nothing."""
        alert = self._known.get(name)
        return 0 if alert is None else alert.edition

    def was_taken(self, name: str, edition: int) -> bool:
        """Note that an Alertmanager took this. Returns whether it was the first to."""
        alert = self._known.get(name)
        if alert is None or edition <= alert.taken:
            return False
        alert.taken = edition
        return True

    def _forget(self) -> None:
        """Forget what has been held for as long as the rule holds it."""
        over = [name for name, alert in self._known.items() if self._is_over(alert)]
        for name in over:
            del self._known[name]

    def _is_over(self, alert: _Alert) -> bool:
        ended = None if alert.closing is None else alert.closing.at
        if alert.target not in self._board.targets:
            ended = alert.muted
        return ended is not None and self._clock.now() - ended >= HOLD

    def written(
        self, names: Iterable[str], *, ahead: Seconds | None = 0.0
    ) -> list[dict[str, Any]]:
        """Write the alerts of *names* as Alertmanager's API wants them.

        Args:
            ahead: By how much the clock of that Alertmanager is ahead of ours. None: it
                is not known.
        """
        return [self._written(name, self._known[name], ahead) for name in names]

    def _written(
        self, name: str, alert: _Alert, ahead: Seconds | None
    ) -> dict[str, Any]:
        plan = self._plan
        starts, ends = self._times(alert, ahead)
        own = {"target": alert.target, "operation": alert.operation, "breaker": name}
        links = {}
        if plan.grafana_url:
            links["dashboard_url"] = (
                f"{plan.grafana_url}/d/pgbreaker-breakers?var-breaker={name}"
            )
        if plan.runbook_url:
            links["runbook_url"] = f"{plan.runbook_url}/{ALERT}.md"
        return written(
            plan,
            {"alertname": ALERT, "severity": SEVERITY, **own},
            {
                "summary": f"Breaker {name} opened",
                "description": _described(name, alert),
                **links,
            },
            starts=starts,
            ends=ends,
        )

    def _times(
        self, alert: _Alert, ahead: Seconds | None
    ) -> tuple[float | None, float | None]:
        """When it begins and ends, as `written` has it."""
        shift = ahead or 0.0
        closing = alert.closing
        if alert.muted is not None:
            muted = self._clock.wall_of(alert.muted)
            return min(alert.starts, muted) + shift, muted + shift
        if closing is None:
            now = self._clock.wall()
            if ahead is None and now - alert.starts <= _FRESH:
                return None, None
            return min(alert.starts, now) + shift, None
        closed = self._clock.wall_of(closing.at)
        # A wall clock that was set back would else have it begin after its end.
        return min(alert.starts, closed) + shift, closed + HOLD + shift


def _described(name: str, alert: _Alert) -> str:
    seen = "" if alert.evidence is None else str(alert.evidence)
    if seen in alert.reason:
        seen = ""  # most reasons end with it
    elif alert.evidence is not None and alert.evidence.probe:
        seen = f"{seen} (probe {alert.evidence.probe})"
    last = f" Seen last: {seen}." if seen else ""
    return (
        f"Callers of {name} are told at once instead of waiting, until trials succeed."
        f" Why it opened: {alert.reason}.{last}{_end(alert.closing)}"
    )


def _end(closing: Transition | None) -> str:
    if closing is None:
        return ""
    if closing.cause is Cause.RECOVERED:
        return " Trials have succeeded since."
    return f" Since then an operator has put it to {closing.reason}."


# Telling it.


class _Alertmanager:
    """One of them, and what it is owed.

    Attributes:
        url: Where it is.
    """

    def __init__(
        self,
        url: str,
        alerts: Alerts,
        post: Post,
        pace: Pace,
        clock: Clock,
        count: Callable[[bool, int], None],
    ) -> None:
        self.url = url
        self._alerts = alerts
        self._post = post
        self._pace = pace
        self._clock = clock
        self._count = count
        self._owed: dict[str, None] = {}  # who has waited longest comes first
        self._news = asyncio.Event()
        self._pause: Seconds = 0.0
        self._away_since: Seconds | None = None
        self._is_faulty = False
        self._ahead: Seconds | None = None  # its clock, of ours

    def tell(self, names: Iterable[str]) -> None:
        """Have it told of these, soon."""
        self._owed |= dict.fromkeys(names)
        self._news.set()

    async def run(self) -> None:
        """Tell it what it is owed, for good."""
        pace = self._pace
        while True:
            await self._due()
            self._news.clear()
            took = await self._offer(pace.within)
            if took:
                self._pause = 0.0
            elif took is False:
                self._pause = min(pace.rarest, max(pace.again, 2 * self._pause))

    async def _due(self) -> None:
        """Wait for news; after a failure, no longer than until the next try."""
        rest = None
        if self._pause:
            # News does not wait for the next try, but nor does it hammer.
            await asyncio.sleep(self._pace.again)
            if self._owed:
                rest = self._pause - self._pace.again
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(rest):
                await self._news.wait()
        await asyncio.sleep(self._pace.gather)

    async def part(self) -> None:
        """Tell it what it is owed, if anything, as far as that goes in a short time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._pace.parting
        while self._owed and (left := until - loop.time()) > 0:
            if not await self._offer(left):
                return

    async def _offer(self, within: Seconds) -> bool | None:
        """Offer the first part of what it is owed.

        Returns:
            Whether it took that; None when it is owed nothing, and was not asked.
        """
        editions = self._first_part()
        if not editions:
            return None
        answer = await self._answer(editions, within)
        if not answer.took:
            self._missed(answer)
            return False
        fresh = 0
        for name, edition in editions.items():
            fresh += self._alerts.was_taken(name, edition)
            if self._alerts.edition(name) == edition:  # else it moved meanwhile
                self._owed.pop(name, None)
        if self._owed:
            self._news.set()
        self._took(fresh)
        return True

    async def _answer(self, names: Iterable[str], within: Seconds) -> Answer:
        try:
            alerts = self._alerts.written(names, ahead=self._ahead)
            answer = await offer(self._post, self.url, alerts, within)
            self._compare(answer)
            return answer
        except Exception as fault:  # of ours: the next try may go well, and it counts
            if not self._is_faulty:
                log.critical(
                    "telling Alertmanager %s of alerts fails, which is a fault of ours",
                    self.url,
                    exc_info=fault,
                )
            self._is_faulty = True
            return Answer(None, f"{type(fault).__name__}: {words_of(fault)}")

    def _compare(self, answer: Answer) -> None:
        """Note by how much its clock is ahead, and say so once when that is much."""
        if answer.date is None:
            return
        known = self._ahead or 0.0
        ahead = lead(answer, self._clock.wall(), known=known)
        if abs(ahead) > _APART >= abs(known):
            log.warning(
                "the clock of Alertmanager %s is %s %s ours; alerts have its times",
                self.url,
                lasting(abs(ahead)),
                "ahead of" if ahead > 0 else "behind",
            )
        self._ahead = ahead

    def _first_part(self) -> dict[str, int]:
        """Name what it is told of next, with the numbers of that."""
        is_on = set(self._alerts.names())
        self._owed = {name: None for name in self._owed if name in is_on}
        part = itertools.islice(self._owed, _MOST)
        return {name: self._alerts.edition(name) for name in part}

    def _missed(self, answer: Answer) -> None:
        # It may have been restarted, and knows nothing then of what it took before.
        self._owed |= dict.fromkeys(self._alerts.names())
        if self._away_since is None:  # the first of a series
            self._away_since = self._clock.now()
            log.warning("Alertmanager %s takes no alerts: %s", self.url, answer)
        self._count(False, 0)

    def _took(self, fresh: int) -> None:
        if self._away_since is not None:
            away = lasting(self._clock.now() - self._away_since)
            log.info("Alertmanager %s takes alerts again, after %s", self.url, away)
            self._away_since = None
        self._is_faulty = False
        self._count(True, fresh)


class Push:
    """Pushes what breakers do to every Alertmanager; a sink.

    Attributes:
        pushed: Alerts that at least one Alertmanager took, each renewal counted.
        failures: Times that not one of them took what it was told.
    """

    def __init__(
        self,
        plan: AlertmanagerPlan,
        board: Board,
        clock: Clock,
        post: Post,
        pace: Pace | None = None,
    ) -> None:
        self.pushed = self.failures = 0
        self._pace = pace or Pace()
        self._alerts = Alerts(plan, board, clock)
        self._failed: set[str] = set()  # since one took something, or all had failed
        self._alertmanagers = [
            _Alertmanager(
                url, self._alerts, post, self._pace, clock, self._counter(url)
            )
            for url in plan.urls
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def _counter(self, url: str) -> Callable[[bool, int], None]:
        def count(took: bool, fresh: int) -> None:
            if took:
                self.pushed += fresh
                self._failed.clear()
                return
            self._failed.add(url)
            if len(self._failed) == len(self._alertmanagers):
                self.failures += 1
                self._failed.clear()

        return count

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        if isinstance(event, Transition):
            name = self._alerts.take(event)
            if name is not None:
                self._tell([name])

    def _tell(self, names: Iterable[str]) -> None:
        for alertmanager in self._alertmanagers:
            alertmanager.tell(names)

    def start(self) -> None:
        """Begin to tell; needs a running loop."""
        self._begin(self._renew(), "renewal of alerts")
        for alertmanager in self._alertmanagers:
            self._begin(alertmanager.run(), f"push to {alertmanager.url}")

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(partial(tell_fall, log))
        self._tasks.append(task)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._pace.renew)
            self.look()
            names = self._alerts.renew()
            if names:
                self._tell(names)

    def take_up(self) -> None:
        """Tell of breakers that were open when the process began, as if it had not
        been away."""
        names = self._alerts.take_up()
        if names:
            self._tell(names)

    def look(self) -> None:
        """See which targets are in maintenance now, or watched elsewhere, and tell what
        that changes; and what was open when it came here."""
        names = [*self._alerts.mute(), *self._alerts.take_up()]
        if names:
            self._tell(names)

    def heed(self, entry: Entry) -> None:
        """Take an entry of the history: of maintenance it tells at once."""
        if entry.kind is Kind.MAINTENANCE:
            # Told while it is being done: by then it is done.
            asyncio.get_running_loop().call_soon(self.look)

    async def close(self) -> None:
        """Tell what is still to be told, as far as that goes in a short time.

        What is on is not ended: whoever starts the daemon again finds it there, and
        else it ends by itself, after Alertmanager's ``resolve_timeout``.
        """
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._pace.parting)
        partings = await asyncio.gather(
            *(alertmanager.part() for alertmanager in self._alertmanagers),
            return_exceptions=True,  # the others are to be told all the same
        )
        for alertmanager, fault in zip(self._alertmanagers, partings, strict=True):
            if fault is not None:
                log.critical(
                    "parting from Alertmanager %s failed, which is a fault of ours",
                    alertmanager.url,
                    exc_info=fault,
                )


@asynccontextmanager
async def pushing(
    plan: AlertmanagerPlan, board: Board, clock: Clock, pace: Pace | None = None
) -> AsyncIterator[Push]:
    """Push to the Alertmanagers of *plan*, for the time of the block."""
    async with session() as http:
        push = Push(plan, board, clock, posting(http), pace)
        push.start()
        try:
            yield push
        finally:
            await push.close()
