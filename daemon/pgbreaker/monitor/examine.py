"""One run of every probe on one target, step by step, for a person to read."""

import asyncio
import socket
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgbreaker.clock import Clock
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.reading import NOTHING, Finding, Value
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.postgres.failures import read_failure
from pgbreaker.postgres.target import Session, Target, address
from pgbreaker.probes import PROBES, WRITING


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried.

    Attributes:
        name: What.
        took: Seconds.
        finding: How it ended.
        said: What the server, or the network, said; empty when all went well.
        values: What was seen.
    """

    name: str
    took: Seconds
    finding: Finding
    said: str = ""
    values: Mapping[str, Value] = field(default_factory=lambda: NOTHING)


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
        """Whether everything succeeded, but for what the server's role forbids."""
        return all(s.finding in (Finding.OK, Finding.WRONG_ROLE) for s in self.steps)

    @property
    def line(self) -> str:
        """The report in one line."""
        bad = next((s for s in self.steps if s.finding is not Finding.OK), None)
        if bad is None:
            took = lasting(sum(step.took for step in self.steps))
            return f"{self.target}: ok, {len(self.steps)} steps in {took}"
        return f"{self.target}: {bad.name} ended {bad.finding.value}: {bad.said}"

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
            lines += [f"{'':<{width + 12}}{k} = {v}" for k, v in step.values.items()]
        return "\n".join([*lines, self.line])


async def examine(plan: TargetPlan, clock: Clock | None = None) -> Report:
    """Resolve, knock, log in, and ask every configured probe once."""
    return await _Examination(plan, clock or Clock()).run()


class _Examination:
    def __init__(self, plan: TargetPlan, clock: Clock) -> None:
        self._plan = plan
        self._target = Target(plan)
        self._clock = clock
        self._steps: list[Step] = []

    async def run(self) -> Report:
        longest = max(probe.timeout for probe in self._plan.probes.values())
        if await self._reach(longest):
            for probe, plan in self._plan.probes.items():
                if not await self._probe(probe, plan.timeout):
                    break
        return Report(self._plan.name, tuple(self._steps))

    async def _reach(self, within: Seconds) -> bool:
        host, port = address(self._plan.dsn.reveal())
        if not host.startswith("/"):
            resolved = await self._step("resolve", self._resolve(host, port))
            if resolved is None:
                return False
        return await self._step("knock", self._target.knock(within)) is not None

    async def _resolve(self, host: str, port: int) -> Mapping[str, Value]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = sorted({str(entry[4][0]) for entry in found})
        return {"addresses": ", ".join(addresses)}

    async def _probe(self, probe: str, within: Seconds) -> bool:
        """Ask one probe on a connection of its own. False when there is none."""
        connecting = self._target.connect(probe, within, read_only=probe not in WRITING)
        session: Session | None = await self._step(f"{probe}: login", connecting)
        if session is None:
            return False
        await self._step(probe, session.ask(PROBES[probe], within))
        await session.close()
        return True

    async def _step(self, name: str, doing: Awaitable[Any]) -> Any:  # noqa: ANN401 - whatever the step gives
        begun = self._clock.now()
        try:
            got = await doing
        except Exception as error:  # noqa: BLE001 - failing is what we came to see
            finding, evidence = read_failure(error, probe=name, connecting=":" in name)
            took = self._clock.now() - begun
            self._steps.append(Step(name, took, finding, str(evidence)))
            return None
        values = got if isinstance(got, Mapping) else NOTHING
        took = self._clock.now() - begun
        self._steps.append(Step(name, took, Finding.OK, values=values))
        return NOTHING if got is None else got
