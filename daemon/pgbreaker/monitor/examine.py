"""One run of every probe on one target, step by step, for a person to read."""

import asyncio
import socket
from collections.abc import Awaitable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pgbreaker.clock import Clock
from pgbreaker.core.judge import COMMIT, PING
from pgbreaker.core.plan import ProbePlan, TargetPlan
from pgbreaker.core.reading import NOTHING, Finding, Seen
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.monitor.questions import Questions
from pgbreaker.postgres.failures import read_failure
from pgbreaker.postgres.target import Session, Target, Visit
from pgbreaker.probes import probe_called

_NEED_NOT: Final = (Finding.WRONG_ROLE, Finding.DENIED, Finding.ABSENT)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried.

    Attributes:
        name: What.
        took: Seconds.
        finding: How it ended.
        said: What the server, or the network, said; empty when all went well.
        values: What was seen.
        parts: What it consisted of, with the seconds of each; empty where that is one.
    """

    name: str
    took: Seconds
    finding: Finding
    said: str = ""
    values: Seen = field(default_factory=lambda: NOTHING)
    parts: tuple[tuple[str, Seconds], ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether it succeeded, or failed for want of what a server, or the rights of
        the role, need not have."""
        is_question = ":" not in self.name
        return self.finding is Finding.OK or (is_question and self.finding in _NEED_NOT)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it all.

    Attributes:
        target: Name of the target.
        steps: What was tried, in order; the first connection that fails ends it.
    """

    target: str
    steps: tuple[Step, ...]

    @property
    def is_good(self) -> bool:
        """Whether every step is."""
        return all(step.is_good for step in self.steps)

    @property
    def line(self) -> str:
        """The report in one line."""
        bad = next((step for step in self.steps if not step.is_good), None)
        if bad is not None:
            return f"{self.target}: {bad.name} ended {bad.finding.value}: {bad.said}"
        took = lasting(sum(step.took for step in self.steps))
        but = [s for s in self.steps if s.finding is not Finding.OK]
        named = "".join(f"; {s.name} {s.finding.value}: {s.said}" for s in but)
        return f"{self.target}: ok, {len(self.steps)} steps in {took}{named}"

    def text(self, *, debug: bool) -> str:
        """The report for a terminal; with *debug*, every step and value."""
        if not debug:
            return self.line
        width = max(len(step.name) for step in self.steps)
        lines = []
        for step in self.steps:
            took = lasting(step.took).rjust(8)
            ended = f"{step.finding.value:<10} {step.said}".rstrip()
            lines.append(f"{step.name:<{width}}  {took}  {ended}")
            lines += [
                f"{'':<{width}}  {lasting(spent).rjust(8)}  {part}"
                for part, spent in step.parts
            ]
            lines += [f"{'':<{width + 12}}{line}" for line in _told(step.values)]
        return "\n".join([*lines, self.line])

    def told(self) -> dict[str, Any]:
        """The report for programs, fit for JSON."""
        return {
            "target": self.target,
            "ok": self.is_good,
            "steps": [
                {
                    "name": step.name,
                    "took_seconds": round(step.took, 6),
                    "outcome": step.finding.value,
                    "text": step.said or None,
                    "parts": {name: round(took, 6) for name, took in step.parts},
                }
                for step in self.steps
            ],
        }


def _told(values: Seen) -> Iterator[str]:
    for name, value in values.items():
        if not isinstance(value, tuple):
            yield f"{name} = {value}"
            continue
        for row in value:
            yield f"{name}: " + ", ".join(f"{k} {v}" for k, v in row.items())


async def examine(plan: TargetPlan, clock: Clock | None = None) -> Report:
    """Resolve, knock, log in, and ask every configured probe once."""
    return await _Examination(plan, clock or Clock()).run()


class _Examination:
    def __init__(self, plan: TargetPlan, clock: Clock) -> None:
        self._plan = plan
        self._target = Target(plan)
        self._clock = clock
        self._steps: list[Step] = []
        self._visit: Visit | None = None

    async def run(self) -> Report:
        longest = max(probe.timeout for probe in self._plan.probes.values())
        if await self._reach(longest):
            for probe, plan in self._plan.probes.items():
                if not await self._probe(probe, plan):
                    break
            await self._leave()
        return Report(self._plan.name, tuple(self._steps))

    async def _reach(self, within: Seconds) -> bool:
        if await self._step("resolve", self._resolve()) is None:
            return False
        return await self._step("knock", self._target.knock(within)) is not None

    async def _resolve(self) -> Seen:
        there = self._target.address  # a DSN may lead nowhere
        if there.socket is not None:
            return {"socket": there.socket}
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(there.host, there.port, type=socket.SOCK_STREAM)
        addresses = sorted({str(entry[4][0]) for entry in found})
        return {"addresses": ", ".join(addresses)}

    async def _probe(self, name: str, plan: ProbePlan) -> bool:
        """Ask one probe on a connection of its own. False when there is none."""
        probe, within = probe_called(name), plan.timeout
        if probe.goes is not None:
            await self._step(name, probe.goes(self._plan, within), within, plan=plan)
            return True
        if name == PING:
            return await self._ping(within)
        visit = self._visit if self._visit and self._visit.is_open else None
        if visit is None or name == COMMIT:  # the one that may write
            visit = await self._come_in(name, within)
        if visit is None:
            return False
        asking = Questions().ask_visitor(visit, name, plan, within)
        await self._step(name, asking, plan=plan)
        if name == COMMIT:
            await self._leave()
        return True

    async def _ping(self, within: Seconds) -> bool:
        connecting = self._target.connect(within, limit=within)
        session: Session | None = await self._step(f"{PING}: login", connecting)
        if session is None:
            return False
        await self._step(PING, session.ping(within))
        await session.close()
        return True

    async def _come_in(self, name: str, within: Seconds) -> Visit | None:
        await self._leave()
        longest = max(probe.timeout for probe in self._plan.probes.values())
        coming = self._target.visit(
            name, within, limit=longest, read_only=name != COMMIT
        )
        self._visit = await self._step(f"{name}: login", coming)
        return self._visit

    async def _leave(self) -> None:
        visit, self._visit = self._visit, None
        if visit is not None:
            await visit.close()

    async def _step(
        self,
        name: str,
        doing: Awaitable[Any],
        within: Seconds | None = None,
        *,
        plan: ProbePlan | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the step gives
        """Take one step, and note how it ended.

        Args:
            plan: The probe's whose answer it is, which may say how bad that may be.
        """
        begun = self._clock.now()
        try:
            async with asyncio.timeout(within):
                got = await doing
        except Exception as error:  # noqa: BLE001 - failing is what we came to see
            finding, evidence = read_failure(error, probe=name, connecting=":" in name)
            took = self._clock.now() - begun
            self._steps.append(Step(name, took, finding, str(evidence)))
            return None
        values = got if isinstance(got, Mapping) else NOTHING
        took = self._clock.now() - begun
        finding, said = Finding.OK, ""
        if plan is not None:
            finding, said = _weighed(name, plan, values, took)
        parts = got.steps if isinstance(got, Visit) else ()
        self._steps.append(Step(name, took, finding, said, values, parts))
        return NOTHING if got is None else got


def _weighed(
    name: str, plan: ProbePlan, values: Seen, took: Seconds
) -> tuple[Finding, str]:
    """How a run of a probe ended that was answered, and what is bad about it."""
    what = probe_called(name)
    if plan.limit is None or what.weighs is None:
        return Finding.OK, ""
    bad = what.weighs(values, took, plan.limit)
    return (Finding.OK, "") if bad is None else (what.beyond, bad)
