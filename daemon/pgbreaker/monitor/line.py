"""The line to one target: at most two connections, one question on each at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from pgbreaker.clock import Clock
from pgbreaker.core.judge import PING
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Finding, Reading, Value
from pgbreaker.core.states import Evidence
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.postgres.failures import read_failure
from pgbreaker.postgres.target import Session, Target
from pgbreaker.probes import FRESH, PROBES, WRITING, Probe
from pgbreaker.probes.login import locked_out

# How long a server that is down may take to open the door once it has picked up:
# longer than a probe's deadline, so that a freeze of ten minutes leaves it with a few
# hundred closed sockets to clear away, and not with thousands.
_PATIENCE: Final[Seconds] = 2.0

_LOGIN: Final = 8  # times a knock: TLS, SCRAM and the start-up are five round trips
_QUESTION: Final = 4  # times a ping: parse, then execute, are two round trips

_LONGEST_WAY: Final[Seconds] = 5.0
_LONGEST_LOGIN: Final[Seconds] = 60.0  # as long as the server's authentication_timeout


class Line:
    """Asks one target's server, and always comes back with a `Reading`.

    One connection is held and asked the quick questions; a second one is made for
    the time of a login or a commit. While the held one is lost, nothing is asked
    but whether it can be had again: a server in trouble gets one knock at a time.

    Attributes:
        last_loss: Why the held connection is missing, None while it is there.
    """

    def __init__(
        self,
        target: Target,
        clock: Clock,
        when_lost: Callable[[], None],
        probes: Mapping[str, Probe] = PROBES,
    ) -> None:
        self._target = target
        self._clock = clock
        self._when_lost = when_lost
        self._probes = probes
        self._held: Session | None = None
        self._fresh: Session | None = None
        self._asking = asyncio.Lock()  # one question at a time on the held one
        self._dialling = asyncio.Lock()  # one connection besides it at a time
        self._logging_in: asyncio.Task[Session] | None = None
        self._locked_out: Evidence | None = None
        self._ping_took: Seconds = 0.0  # the last one that was answered
        self.last_loss: Reading | None = None

    @property
    def is_up(self) -> bool:
        """Whether the held connection is there, as far as anybody has told us."""
        return self._held is not None and self._held.is_open

    @property
    def connections(self) -> int:
        """Connections to the server right now."""
        return sum(s is not None and s.is_open for s in (self._held, self._fresh))

    async def ask(self, probe: str, plan: ProbePlan) -> Reading:
        """Run *probe* once, on the connection that it is meant for."""
        if not self.is_up:
            return await self.renew(plan) if probe == PING else self.echo(probe)
        if probe in FRESH:
            async with self._dialling:
                return await self._ask_fresh(probe, plan)
        async with self._asking:
            begun = self._clock.now()  # waiting for our own turn is not its fault
            return await self._read(probe, begun, self._ask_held(probe, plan))

    def echo(self, probe: str) -> Reading:
        """Answer without asking: what keeps the held connection away speaks for
        every probe."""
        now, loss = self._clock.now(), self.last_loss
        if loss is None or loss.evidence is None:
            waiting = Evidence(
                Finding.LOST.value, "the held connection was lost", probe=probe
            )
            return self._reading(probe, now, Finding.LOST, evidence=waiting)
        evidence = replace(loss.evidence, probe=probe)
        return self._reading(probe, now, loss.finding, evidence=evidence)

    async def _ask_held(self, probe: str, plan: ProbePlan) -> Mapping[str, Any]:
        session = self._held
        if session is None:  # lost while we waited for our turn
            raise ConnectionResetError("the held connection was lost")
        ping = self._target.plan.probes[PING].timeout
        if probe == PING:
            return await self._ping(session, ping)
        # The next ping waits for its turn behind this question, so none may take
        # longer than a ping: silence is as telling, whatever was asked. But where a
        # ping takes long the way is long, and these go it more than once.
        within = max(min(plan.timeout, ping), _QUESTION * self._ping_took)
        return await session.ask(self._probes[probe], within)

    async def _ping(self, session: Session, within: Seconds) -> Mapping[str, Any]:
        asked = self._clock.now()
        answer = await session.ask(self._probes[PING], within)
        self._ping_took = self._clock.now() - asked
        return answer

    async def renew(self, plan: ProbePlan) -> Reading:
        """Replace the held connection by a fresh one, and ping on that.

        Also the second opinion on a held connection that failed: whatever an old
        connection says, a server that lets a new one in is alive.
        """
        self.hang_up()
        begun = self._clock.now()
        reading = await self._read(PING, begun, self._open(plan), connecting=True)
        self.last_loss = None if reading.answered else reading
        return reading

    async def _open(self, plan: ProbePlan) -> Mapping[str, Any]:
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
        session = await self._log_in(plan, within)
        try:
            answer = await self._ping(session, plan.timeout)
        except BaseException:
            session.hang_up()
            raise
        self._held = session
        session.when_lost(lambda: self._lost(session))
        return answer

    async def _log_in(self, plan: ProbePlan, within: Seconds) -> Session:
        """Wait *within* seconds for a login, and leave it under way after that.

        A login that waits for a lock stays in the server's queue, whether we hang
        up or not. So there is one, and the next beat goes on waiting for it: giving
        up and trying again would fill the server with waiting logins of ours.
        """
        if self._logging_in is None:
            self._logging_in = asyncio.create_task(
                self._target.connect(PING, _LONGEST_LOGIN, limit=plan.timeout)
            )
        done, _ = await asyncio.wait([self._logging_in], timeout=within)
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

    async def _ask_fresh(self, probe: str, plan: ProbePlan) -> Reading:
        begun = self._clock.now()
        if self._locked_out is not None and await self._is_locked_out(plan):
            # Another login would wait in the same queue, and stay there after we
            # hang up: the server reads nothing from it until it has the lock.
            evidence = replace(self._locked_out, probe=probe)
            return self._reading(probe, begun, Finding.QUERY, evidence=evidence)
        reading = await self._read(
            probe, begun, self._call_in(probe, plan), connecting=True
        )
        if reading.finding is Finding.TIMEOUT and await self._is_locked_out(plan):
            return replace(reading, finding=Finding.QUERY, evidence=self._locked_out)
        return reading

    async def _call_in(self, probe: str, plan: ProbePlan) -> Mapping[str, Any]:
        begun = self._clock.now()
        session = await self._target.connect(
            probe, plan.timeout, read_only=probe not in WRITING
        )
        self._fresh = session
        try:
            answer = await session.ask(
                self._probes[probe], _left(begun, plan, self._clock)
            )
            await session.close()
        finally:
            session.hang_up()
            self._fresh = None
        return answer

    async def _is_locked_out(self, plan: ProbePlan) -> bool:
        """Ask the held connection whether logins wait for a lock."""
        self._locked_out = None
        async with self._asking:
            if self._held is None:
                return False
            try:
                seen = await self._held.ask(locked_out, plan.timeout)
            except Exception:  # noqa: BLE001 - no answer is no excuse; the next ping tells
                return False
        if seen:
            text = f"logins wait for a lock on {seen['relation']}, held by pid {seen['blocker']}"
            self._locked_out = Evidence(Finding.QUERY.value, text, probe="login")
        return bool(seen)

    async def _read(
        self,
        probe: str,
        begun: Seconds,
        answer: Awaitable[Mapping[str, Any]],
        *,
        connecting: bool = False,
    ) -> Reading:
        try:
            values = await answer
        except Exception as error:  # noqa: BLE001 - failing to probe is a finding
            finding, evidence = read_failure(error, probe=probe, connecting=connecting)
            return self._reading(probe, begun, finding, evidence=evidence)
        slow_call = self._target.plan.policy.slow_call
        took = self._clock.now() - begun
        # A login is many round trips and a fork: its own deadline is its measure.
        is_slow = probe == PING and slow_call is not None and took >= slow_call
        finding = Finding.SLOW if is_slow else Finding.OK
        return self._reading(probe, begun, finding, values=values)

    def _reading(
        self,
        probe: str,
        begun: Seconds,
        finding: Finding,
        *,
        values: Mapping[str, Value] = NOTHING,
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
        """End both connections, the held one politely."""
        session, self._held = self._held, None
        self._stop_dialling()
        if self._fresh is not None:
            self._fresh.hang_up()
        if session is not None and session.is_open:
            await session.close()


def _hang_up(login: asyncio.Task[Session]) -> None:
    """End a login that nobody waits for any more, however it ended."""
    if not login.cancelled() and login.exception() is None:  # noqa: LOG004 - no logger
        login.result().hang_up()


def _left(begun: Seconds, plan: ProbePlan, clock: Clock) -> Seconds:
    """What is left of a probe's deadline, never nothing."""
    return max(0.001, plan.timeout - (clock.now() - begun))
