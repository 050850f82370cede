"""How many series a target costs: a budget, on real servers with one database and fifty."""

import re
from collections import Counter

import pytest

from pgbreaker.config.load import USUAL
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.probes import probe_called
from pgbreaker.sinks.metrics import Metrics
from support.servers import psql
from support.watching import Watching

SHOWN = [*(shown for name in USUAL for shown in probe_called(name).shows), *OUTLOOK]


async def series(server) -> Counter[str]:
    """Series of one target with the usual probes, by metric."""
    async with Watching(server.dsn(user="pgbreaker")) as watching:
        metrics = Metrics(watching.boards, "1", SHOWN)
        await watching.until_watched(20.0)
        text = await metrics.render()
    lines = [line for line in text.splitlines() if 'target="main"' in line]
    assert len({re.sub(r" \S+$", "", line) for line in lines}) == len(lines)
    return Counter(line.partition("{")[0] for line in lines)


@pytest.mark.parametrize(("databases", "budget"), [(0, 250), (48, 600)])
async def test_a_target_keeps_within_its_budget(fresh_server, databases, budget):
    """postgres_exporter 0.20.1 makes 1,091 of one database and 3,391 of fifty."""
    for number in range(databases):
        psql(fresh_server, f"CREATE DATABASE d{number} STRATEGY file_copy")

    counted = await series(fresh_server)

    # The server's own workers come and go, and with them a database that has nobody else.
    come_and_go = counted["pgbreaker_database_connections"] - 1
    assert sum(counted.values()) - come_and_go <= budget, counted
