"""How long from OPEN to the message in Slack, by push and a real Alertmanager.

    python tests/bench/alerting.py [OPENINGS]

Breakers are simulated; all else is what runs: the sink at its real pace, a real
Alertmanager with the configuration that is shipped, and a receiver in the place of Slack.
Each opening has a job of its own, so that it makes a group and a message of its own; they
come one at a time, and then in bursts of three, as when a server goes.
"""

import asyncio
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from report import Table

from pgbreaker.clock import Clock
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import SERVED
from pgbreaker.core.plan import AlertmanagerPlan, ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Evidence, Outcome
from pgbreaker.sinks.board import Board, TargetBoard
from pgbreaker.sinks.hub import Hub
from pgbreaker.sinks.push import pushing
from support.alertmanager import alertmanager, shipped_config
from support.slack import Slack, slack

GOAL = 500.0  # ms, p99
SEEN = Evidence("refused", "connection refused", probe="ping")


class Daemon:
    """What a daemon of one job has of it: a board, breakers, and the push."""

    def __init__(self, job: str) -> None:
        self.job = job
        self.clock = Clock()
        plan = TargetPlan(
            name="main",
            dsn=Secret("postgresql://db/postgres"),
            probes={"ping": ProbePlan(interval=1.0, timeout=0.5)},
        )
        self.breakers = {
            operation: Breaker(f"main/{operation}", DAEMON, self.clock.now())
            for operation in SERVED
        }
        target = TargetBoard(plan, self.breakers, self.clock)
        self.board = Board([target], self.clock)

    def fail(self, hub: Hub, operation: str) -> None:
        """Open a breaker, as the sentinel does when a second signal agrees."""
        for move in self.breakers[operation].observe(
            Outcome.FAILURE, self.clock.now(), confirmed=True, evidence=SEEN
        ):
            hub.publish(move)


async def opening(url: str, receiver: Slack, job: str, operations: list[str]) -> float:
    """Open breakers at once; gives the milliseconds to the message of it."""
    daemon = Daemon(job)
    plan = AlertmanagerPlan(urls=(url,), job=job)
    async with pushing(plan, daemon.board, daemon.clock) as push:
        hub = Hub([daemon.board, push])
        opened = time.time()
        for operation in operations:
            daemon.fail(hub, operation)
        await receiver.until(lambda: bool(receiver.told(job)), within=30.0)
    (said,) = receiver.told(job)
    assert said.channel == "#db-critical", said.payload
    assert "Breaker" in said.title, said.payload
    return (said.arrived - opened) * 1000


async def measure(openings: int) -> int:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = await stack.enter_async_context(slack())
        config = shipped_config(folder, receiver)
        telling = await stack.enter_async_context(alertmanager(config))
        table = Table("OPEN -> message in Slack, by push", "ms")
        for name, operations in (
            ("one breaker", ["read"]),
            ("three breakers of a server", list(SERVED)),
        ):
            took = []
            for number in range(openings):
                job = f"job-{len(operations)}-{number:04}-"
                took.append(await opening(telling.url, receiver, job, operations))
                await asyncio.sleep(random.uniform(0.0, 0.02))
            table.row(name, took, p99=GOAL)
    return table.missed


def main() -> None:
    openings = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    sys.exit(1 if asyncio.run(measure(openings)) else 0)


if __name__ == "__main__":
    main()
