"""The line to one target: at most three connections, one question on each at a time."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from collections.abc import Callable as Fn
from dataclasses import replace
from typing import Any, Final, TypeVar

from pgbreaker.clock import Clock
from pgbreaker.core.judge import COMMIT, GONE, LATENCY, LOGIN, PING
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Finding, Reading, Seen
from pgbreaker.core.states import Evidence
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.monitor.doorway import Doorway
from pgbreaker.monitor.questions import Questions
from pgbreaker.monitor.stall import Stall, UnheardError
from pgbreaker.postgres.failures import read_failure
from pgbreaker.postgres.target import Session, Target, Visit, within_time
from pgbreaker.postgres.wire import Step
from pgbreaker.probes import PROBES, probe_called
from pgbreaker.probes.login import LOCKED_OUT, LOGINS_WAIT
from pgbreaker.probes.probe import Place

# How long a server that is down may take to open the door once it has picked up:
# longer than a probe's deadline, so that a freeze of ten minutes leaves it with a few
# hundred closed sockets to clear away, and not with thousands.
_PATIENCE: Final[Seconds] = 2.0

_LOGIN: Final = 8  # times a knock: TLS, SCRAM and the start-up are five round trips
_QUESTION: Final = 4  # times a ping: parse, then execute, are two round trips

_CANCELED: Final = "57014"  # query_canceled: our own statement_timeout

_LONGEST_WAY: Final[Seconds] = 5.0
_LONGEST_LOGIN: Final[Seconds] = 60.0  # as long as the server's authentication_timeout

_T = TypeVar("_T")


class Line:
    """Asks one target's server, and always comes back with readings.

    One connection is held and asked the quick questions; a second one is made for
    the time of a login or a commit, a third for that of a dear question. While the
    held one is lost, nothing is asked but whether it can be had again: a server in
    trouble gets one knock at a time.

    Attributes:
        last_loss: Why the held connection is missing, None while it is there.
    """

    def __init__(
        self,
        target: Target,
        clock: Clock,
        when_lost: Fn[[], None],
        doorway: Doorway | None = None,
    ) -> None:
        self._target = target
        self._clock = clock
        self._when_lost = when_lost
        self._doorway = doorway or Doorway()
        self._held: Session | None = None
        self._visits: set[Visit] = set()
        self._asking = asyncio.Lock()  # one question at a time on the held one
        self._door = asyncio.Lock()  # one connection besides it at a time
        self._dear = asyncio.Lock()  # and one for what takes long
        self._logging_in: asyncio.Task[Session] | None = None
        self._locked_out: Evidence | None = None
        commit = target.plan.probes.get(COMMIT, PROBES[COMMIT].plan)
        self._stall = Stall(self._consult, commit.timeout)
        self._questions = Questions()
        self._ping_took: Seconds = 0.0  # the last one that was answered
        self.last_loss: Reading | None = None

    @property
    def is_up(self) -> bool:
        """Whether the held connection is there, as far as anybody has told us."""
        return self._held is not None and self._held.is_open

    @property
    def connections(self) -> int:
        """Connections to the server right now."""
        open_ones = sum(visit.is_open for visit in self._visits)
        coming = self._logging_in is not None
        return open_ones + self.is_up + coming + self._stall.sessions

    def echo(self, probe: str) -> Reading:
        """Answer without asking: what keeps the held connection away speaks for
        every probe."""
        now, loss = self._clock.now(), self.last_loss
        if loss is None or loss.evidence is None:
            waiting = Evidence(
                Finding.LOST.value, "the held connection was lost", probe="conn_watch"
            )
            return self._reading(probe, now, Finding.LOST, evidence=waiting)
        evidence = replace(loss.evidence, probe=probe)
        return self._reading(probe, now, loss.finding, evidence=evidence)

    # On the held connection.

    async def ping(self) -> Reading:
        """Ping on the held connection, or get a new one and ping on that."""
        if not self.is_up:
            return await self.renew()
        async with self._asking:
            begun = self._clock.now()  # waiting for our own turn is not its fault
            return await self._read(PING, begun, self._ping_held())

    async def ask(self, probes: Sequence[str]) -> list[Reading]:
        """Ask *probes*, which are of one place, as few questions as may be."""
        first = probe_called(probes[0])
        if first.place is Place.APART:
            return [await self._go(probe) for probe in probes]
        if not self.is_up:
            return [self.echo(probe) for probe in probes]
        if first.place is Place.HELD:
            return await self._ask_held(probes)
        async with self._dear if first.is_dear else self._door:
            if first.is_dear or not self._stall.is_on:
                return await self._ask_visiting(probes)
            async with self._dear:  # or there would be four of ours at the server
                return await self._ask_visiting(probes)

    async def _ask_held(self, probes: Sequence[str]) -> list[Reading]:
        readings: list[Reading] = []
        for together in self._questions.groups(probes):
            readings += await self._ask_group(together)
        return readings

    async def _ask_group(self, probes: Sequence[str]) -> list[Reading]:
        """Ask *probes* in one statement; when that fails, each in one of its own."""
        async with self._asking:
            begun, session = self._clock.now(), self._held
            if session is None:  # lost while we waited for our turn
                return [self.echo(probe) for probe in probes]
            within = self._patience_for(probes)
            asking = self._questions.ask(session, probes, within)
            seen, failure = await _caught(asking)
        if failure is None:
            return [self._answered(probe, begun, seen[probe]) for probe in probes]
        finding, _ = read_failure(failure, probe=probes[0], connecting=False)
        if len(probes) > 1 and finding not in GONE:
            self._questions.part(probes)
            return await self._ask_held(probes)
        return [self._failed(probe, begun, failure) for probe in probes]

    def _patience_for(self, probes: Sequence[str]) -> Seconds:
        # The next ping waits for its turn behind this question, so none may take
        # longer than a ping: silence is as telling, whatever was asked. But where a
        # ping takes long the way is long, and these go it more than once.
        longest = max(self._plan(probe).timeout for probe in probes)
        ping = self._plan(PING).timeout
        return max(min(longest, ping), _QUESTION * self._ping_took)

    async def _ping_held(self) -> Seen:
        session = self._held
        if session is None:  # lost while we waited for our turn
            raise ConnectionResetError("the held connection was lost")
        return await self._ping(session, self._plan(PING).timeout)

    async def _ping(self, session: Session, within: Seconds) -> Seen:
        asked = self._clock.now()
        await session.ping(within)
        self._ping_took = self._clock.now() - asked
        return NOTHING

    # A new one to be held.

    async def renew(self) -> Reading:
        """Replace the held connection by a fresh one, and ping on that.

        Also the second opinion on a held connection that failed: whatever an old
        connection says, a server that lets a new one in is alive.
        """
        self.hang_up()
        begun = self._clock.now()
        reading = await self._read(PING, begun, self._open(), connecting=True)
        self.last_loss = None if reading.answered else reading
        return reading

    async def _open(self) -> Seen:
        plan = self._plan(PING)
        begun = knocked = self._clock.now()
        try:
            # First seen failing, a second opinion has to come within the deadline.
            patience = None if self.last_loss is None else _PATIENCE
            await self._target.knock(plan.timeout, patience)
        except Exception:
            self._stop_dialling()  # it goes to a server that is not there
            raise
        answered = self._clock.now()
        if self.last_loss is not None:
            begun = answered  # somebody is there: a deadline of its own
        left = plan.timeout - (answered - begun)
        # The knock has measured the way: over a long one a login takes its time.
        within = max(left, min(_LOGIN * (answered - knocked), _LONGEST_WAY))
        with await self._doorway.enter():  # waiting there is none of the server's time
            session = await self._log_in(plan, within)
        try:
            await self._ping(session, plan.timeout)
        except BaseException:
            session.hang_up()
            raise
        self._held = session
        session.when_lost(lambda: self._lost(session))
        return NOTHING

    async def _log_in(self, plan: ProbePlan, within: Seconds) -> Session:
        """Wait *within* seconds for a login, and leave it under way after that.

        A login that waits for a lock stays in the server's queue, whether we hang
        up or not. So there is one, and the next beat goes on waiting for it: giving
        up and trying again would fill the server with waiting logins of ours.
        """
        if self._logging_in is None:
            self._logging_in = asyncio.create_task(
                self._target.connect(_LONGEST_LOGIN, limit=plan.timeout)
            )
        begun = self._clock.now()
        done, _ = await asyncio.wait([self._logging_in], timeout=within)
        if not done and (lost := self._target.late(begun)):
            done, _ = await asyncio.wait([self._logging_in], timeout=lost)
        if not done:
            raise TimeoutError(f"not let in within {lasting(within)}")
        ended, self._logging_in = self._logging_in, None
        return ended.result()

    def _stop_dialling(self) -> None:
        pending, self._logging_in = self._logging_in, None
        if pending is not None:
            pending.add_done_callback(_hang_up)
            pending.cancel()

    def _lost(self, session: Session) -> None:
        if self._held is session:  # not one that we hung up ourselves
            self._when_lost()

    # On a connection made for the question.

    async def _ask_visiting(self, probes: Sequence[str]) -> list[Reading]:
        begun = self._clock.now()
        if self._locked_out is not None and await self._is_locked_out():
            # Another login would wait in the same queue, and stay there after we
            # hang up: the server reads nothing from it until it has the lock.
            return [self._out(probe, begun) for probe in probes]
        if COMMIT in probes and self._stall.is_on and await self._stall.look():
            others = [probe for probe in probes if probe != COMMIT]
            told = [self._stalls(begun)]
            return [*(await self._visiting(others) if others else ()), *told]
        return await self._visiting(probes)

    async def _visiting(self, probes: Sequence[str]) -> list[Reading]:
        """Make a connection and ask *probes* on it, one after the other."""
        steps: list[Step] = []
        with await self._doorway.enter():
            begun = self._clock.now()
            coming = self._target.visit(
                COMMIT if COMMIT in probes else probes[0],
                self._plan(probes[0]).timeout,
                limit=max(self._plan(probe).timeout for probe in probes),
                read_only=COMMIT not in probes,
                steps=steps,
            )
            visit, failure = await _caught(coming)
        if failure is not None:
            told = await self._not_let_in(probes, begun, failure)
            return [replace(reading, steps=tuple(steps)) for reading in told]
        self._visits.add(visit)
        connected = self._clock.now() - begun
        try:
            readings = []
            for probe in probes:
                reading = await self._ask_visitor(visit, probe, begun, connected)
                readings.append(reading)
                begun, connected = self._clock.now(), 0.0
                if not visit.is_open:
                    break
            await visit.close()
        finally:
            visit.hang_up()
            self._visits.discard(visit)
        # What ended with an earlier question is no answer to the later ones.
        left = probes[len(readings) :]
        return [*readings, *(await self._visiting(left) if left else ())]

    async def _ask_visitor(
        self, visit: Visit, probe: str, begun: Seconds, connected: Seconds
    ) -> Reading:
        within = self._plan(probe).timeout
        if probe == LOGIN:
            within = max(0.001, within - connected)  # it is one thing, to be let in
        asking = self._questions.ask_visitor(visit, probe, self._plan(probe), within)
        reading = await self._read(probe, begun, asking)
        if connected:  # the first of a visit
            steps = (*visit.steps, ("query", max(0.0, reading.took - connected)))
            reading = replace(reading, connecting=connected, steps=steps)
        if probe == COMMIT and reading.finding is Finding.TIMEOUT:
            visit.hang_up()
            if await self._stall.look():
                return replace(self._stalls(begun), connecting=connected)
        return reading

    async def _not_let_in(
        self, probes: Sequence[str], begun: Seconds, failure: Exception
    ) -> list[Reading]:
        finding, _ = read_failure(failure, probe=probes[0], connecting=True)
        if finding is Finding.TIMEOUT and await self._is_locked_out():
            return [self._out(probe, begun) for probe in probes]
        return [
            # That nobody new is let in is news of logins: sessions go on committing.
            self._unasked(probe, begun)
            if probe == COMMIT
            else self._failed(probe, begun, failure, connecting=True)
            for probe in probes
        ]

    def _unasked(self, probe: str, begun: Seconds) -> Reading:
        why = "not asked: the new connection for it was not let in"
        evidence = Evidence(Finding.SKIPPED.value, why, probe=probe)
        return self._reading(probe, begun, Finding.SKIPPED, evidence=evidence)

    def _out(self, probe: str, begun: Seconds) -> Reading:
        assert self._locked_out is not None
        evidence = replace(self._locked_out, probe=probe)
        return self._reading(probe, begun, Finding.QUERY, evidence=evidence)

    async def _is_locked_out(self) -> bool:
        """Ask the held connection whether logins wait for a lock."""
        self._locked_out = None
        try:
            seen = await self._consult(LOCKED_OUT)
        except UnheardError:
            return False  # no answer is no excuse; the next ping tells
        if seen:
            text = f"logins wait for a lock on {seen['relation']}, held by pid {seen['blocker']}"
            self._locked_out = Evidence(LOGINS_WAIT, text, probe=LOGIN)
        return bool(seen)

    def _stalls(self, begun: Seconds) -> Reading:
        """The old connection answers and the commit's does not: two signals agree."""
        finding, evidence = self._stall.told()
        reading = self._reading(COMMIT, begun, finding, evidence=evidence)
        return replace(reading, confirmed=True)

    async def _consult(self, sql: str) -> Mapping[str, Any] | None:
        """Ask the held connection about another one.

        Raises:
            UnheardError: It cannot be asked, or does not answer.
        """
        async with self._asking:
            if self._held is None:
                raise UnheardError
            try:
                return await self._held.fetch(sql, self._patience_for([PING]))
            except Exception as error:
                raise UnheardError from error

    # Elsewhere.

    async def _go(self, name: str) -> Reading:
        probe, plan, begun = probe_called(name), self._plan(name), self._clock.now()
        assert probe.goes is not None
        # Its own bound is the outer one: it does not know when nobody listened.
        going = probe.goes(self._target.plan, 2 * plan.timeout)
        coming = within_time(going, plan.timeout, "no answer within", self._target.late)
        return await self._read(name, begun, coming, connecting=True)

    # Readings.

    def _plan(self, probe: str) -> ProbePlan:
        return self._target.plan.probes[probe]

    async def _read(
        self,
        probe: str,
        begun: Seconds,
        answer: Awaitable[Seen],
        *,
        connecting: bool = False,
    ) -> Reading:
        seen, failure = await _caught(answer)
        if failure is not None:
            return self._failed(probe, begun, failure, connecting=connecting)
        return self._answered(probe, begun, seen)

    def _answered(self, probe: str, begun: Seconds, seen: Seen | Exception) -> Reading:
        """Read what came, which is an error when its rows made no sense."""
        if isinstance(seen, Exception):
            return self._failed(probe, begun, seen)
        took, plan = self._clock.now() - begun, self._plan(probe)
        what = probe_called(probe)
        if plan.limit is not None and what.weighs is not None:
            bad = what.weighs(seen, took, plan.limit)
            if bad is not None:
                evidence = Evidence(what.beyond.value, bad, probe=probe)
                return self._reading(
                    probe, begun, what.beyond, values=seen, evidence=evidence
                )
        slow_call = self._target.plan.policy.slow_call
        # A login is many round trips and a fork: its own deadline is its measure.
        is_slow = probe == PING and slow_call is not None and took >= slow_call
        finding = Finding.SLOW if is_slow else Finding.OK
        return self._reading(probe, begun, finding, values=seen)

    def _failed(
        self, probe: str, begun: Seconds, error: Exception, *, connecting: bool = False
    ) -> Reading:
        finding, evidence = read_failure(error, probe=probe, connecting=connecting)
        if probe == LATENCY and evidence.sqlstate == _CANCELED and not connecting:
            # Too slow for the server's limit, which is ours, is slow as well.
            finding = probe_called(probe).beyond
            evidence = replace(evidence, code=finding.value)
        return self._reading(probe, begun, finding, evidence=evidence)

    def _reading(
        self,
        probe: str,
        begun: Seconds,
        finding: Finding,
        *,
        values: Seen = NOTHING,
        evidence: Evidence | None = None,
    ) -> Reading:
        took = self._clock.now() - begun
        name = self._target.plan.name
        return Reading(name, probe, begun, took, finding, values, evidence)

    def hang_up(self) -> None:
        """End the held connection at once."""
        session, self._held = self._held, None
        if session is not None:
            session.hang_up()

    async def close(self) -> None:
        """End all connections, the held one politely."""
        session, self._held = self._held, None
        self._stop_dialling()
        for visit in self._visits:
            visit.hang_up()
        if session is not None and session.is_open:
            await session.close()


async def _caught(answer: Awaitable[_T]) -> tuple[_T, None] | tuple[Any, Exception]:
    """Await *answer*; what it raises is given back beside it."""
    try:
        return await answer, None
    except Exception as error:  # noqa: BLE001 - failing to probe is a finding
        return None, error


def _hang_up(login: asyncio.Task[Session]) -> None:
    """End a login that nobody waits for any more, however it ended."""
    if not login.cancelled() and login.exception() is None:  # noqa: LOG004 - no logger
        login.result().hang_up()
