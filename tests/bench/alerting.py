"""How long from OPEN to the message in Slack, by push and by rules.

    python tests/bench/alerting.py [OPENINGS]

Breakers are simulated; all else is what runs: the sink at its real pace, a real
Prometheus and a real Alertmanager with what is shipped, and a receiver in the place of
Slack. Each opening has a job of its own, so that it makes a group and a message of its
own; they come one at a time, and then in bursts of three, as when a server goes. By rules
they come at any moment of two minutes, in which Prometheus looks every few seconds.
"""

import asyncio
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from aiohttp import web
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
from support.prometheus import prometheus
from support.slack import Slack, slack

GOAL = 500.0  # ms, p99
GOAL_BY_RULES = 10_000.0
SPREAD = 120.0  # seconds in which breakers open by rules
ROOT = Path(__file__).parents[2]
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


class Exporter:
    """Tells Prometheus of many breakers, each of a job of its own."""

    def __init__(self, count: int) -> None:
        self.open = dict.fromkeys((f"ruled-{n:04}-" for n in range(count)), 0)

    async def page(self, _request: web.Request) -> web.Response:
        """What is scraped."""
        about = 'target="main",operation="read",breaker="main/read",state="open"'
        lines = [
            f'pgbreaker_breaker_state{{job="{job}",{about}}} {is_open}\n'
            for job, is_open in self.open.items()
        ]
        return web.Response(text="".join(lines))

    async def serve(self, stack: AsyncExitStack) -> str:
        """Serve it; gives ``host:port``."""
        app = web.Application()
        app.router.add_get("/metrics", self.page)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    async def opening(self, job: str, receiver: Slack) -> float:
        """Open one at any moment; gives the milliseconds to the message of it."""
        await asyncio.sleep(random.uniform(0.0, SPREAD))
        self.open[job], opened = 1, time.time()
        await receiver.until(lambda: bool(receiver.told(job)), within=60.0)
        return (receiver.told(job)[0].arrived - opened) * 1000


async def by_rules(openings: int, url: str, receiver: Slack) -> list[float]:
    """Milliseconds to the message of each opening, as shipped."""
    said = yaml.safe_load(
        (ROOT / "config/prometheus/prometheus.yml").read_text("utf-8")
    )
    job = next(j for j in said["scrape_configs"] if j["job_name"] == "pgbreaker")
    async with AsyncExitStack() as stack:
        exporter = Exporter(openings)
        running = prometheus(
            {job["job_name"]: await exporter.serve(stack)},
            rules=[ROOT / "alerts/pgbreaker.rules.yml"],
            alertmanager=url.removeprefix("http://"),
            interval=job["scrape_interval"],
            evaluation=said["global"]["evaluation_interval"],
        )
        prom = await stack.enter_async_context(running)
        await prom.until("pgbreaker_breaker_state", 30.0)
        await asyncio.sleep(10.0)  # it finds its Alertmanagers some seconds later
        return await asyncio.gather(
            *(exporter.opening(job, receiver) for job in exporter.open)
        )


async def measure(openings: int) -> int:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = await stack.enter_async_context(slack())
        config = shipped_config(folder, receiver)
        telling = await stack.enter_async_context(alertmanager(config))
        table = Table("OPEN -> message in Slack", "ms")
        for name, operations in (
            ("by push, one breaker", ["read"]),
            ("by push, three breakers of a server", list(SERVED)),
        ):
            took = []
            for number in range(openings):
                job = f"job-{len(operations)}-{number:04}-"
                took.append(await opening(telling.url, receiver, job, operations))
                await asyncio.sleep(random.uniform(0.0, 0.02))
            table.row(name, took, p99=GOAL)
        took = await by_rules(openings, telling.url, receiver)
        table.row("by rules as shipped", took, p99=GOAL_BY_RULES)
    return table.missed


def main() -> None:
    openings = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    sys.exit(1 if asyncio.run(measure(openings)) else 0)


if __name__ == "__main__":
    main()
