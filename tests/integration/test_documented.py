"""Is daemon/METRICS.md what a daemon exports? Asked of one that has seen everything."""

import asyncio
import contextlib
import os
import re
import subprocess
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from integration.test_probe_patroni import LEADER, saying, serving
from integration.test_probe_pgbouncer import client
from pgbreaker import PostgreSQLCircuitBreaker
from pgbreaker.app import running
from pgbreaker.config.load import parse
from pgbreaker.core.maintenance import Window
from pgbreaker.core.states import Override, State
from pgbreaker.metrics import collector
from pgbreaker.monitor.outlook import OUTLOOK
from pgbreaker.sinks.metrics import SHARED
from support.pooler import USER, running_pooler
from support.servers import Crowd, psql, running_server
from support.standby import running_standby
from support.tools import need

PAGE = Path(__file__).parents[2] / "daemon/METRICS.md"

CONFIG = """
version: 1
targets:
  - name: primary
    dsn: {primary}
    labels: {{env: test}}
    operations: [connect, read, write, pool]
    probes:
      saturation: {{interval: 1s}}
      blocking: {{interval: 1s}}
      maintenance: {{interval: 1s}}
      wal_ckpt: {{interval: 1s}}
      size: {{capacity: 500GB}}
      latency: {{query: SELECT 1}}
    custom:
      - {{name: orders, query: "SELECT 'eu' AS region, 5 AS waiting, 7 AS done_total"}}
    pgbouncer: {{dsn: {pooler}}}
    patroni: {{url: {patroni}}}
  - name: replica
    dsn: {replica}
    operations: [connect, read]
  - name: gone
    dsn: postgresql://nobody@127.0.0.1:1/app
http: {{listen: 127.0.0.1:0}}
"""

# What only a history of hours tells; its tests are those of the outlook.
TAKES_HOURS = {shown.family.name for shown in OUTLOOK} - {
    "pgbreaker_disk_used_ratio",
    "pgbreaker_session_ends_total",
}


# What one of several daemons tells; its tests are those of the fleet.
OF_A_FLEET = {family.name for family in SHARED} | {"pgbreaker_breaker_disagreement"}


def documented() -> dict[str, str]:
    """Name -> type of each metric on the page, of the daemon's part."""
    text = PAGE.read_text("utf-8")
    table = text.partition("<!-- metrics -->")[2].partition("<!-- /metrics -->")[0]
    return dict(re.findall(r"^\| `(pgbreaker_\w+)` \| (\w+) \|", table, re.MULTILINE))


def exported(text: str) -> dict[str, str]:
    """Name -> type of each metric of ours in a scrape."""
    return dict(re.findall(r"^# TYPE (pgbreaker_\w+) (\w+)$", text, re.MULTILINE))


def busy(server) -> None:
    """Give a server something of everything that probes look at."""
    psql(server, "CREATE EXTENSION pg_stat_statements")
    psql(server, "SELECT pg_create_physical_replication_slot('left', true)")
    psql(
        server,
        "CREATE TABLE parcels (); CREATE TABLE orders (id serial PRIMARY KEY, text text);"
        " INSERT INTO orders (text)"
        " SELECT repeat('x', 500) FROM generate_series(1, 30000);"
        " GRANT SELECT ON ALL TABLES IN SCHEMA public TO pgbreaker;"
        " GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO pgbreaker",
    )
    psql(server, "DELETE FROM orders WHERE id % 2 = 0; SELECT pg_switch_wal()")
    # A sequence is looked at when it has been there for a hundred transactions.
    ids = "PERFORM pg_current_xact_id(); COMMIT;"
    psql(server, f"DO $$BEGIN FOR i IN 1..101 LOOP {ids} END LOOP; END$$")


@pytest.fixture(scope="module")
def primary():
    with running_server(
        15,
        archive_mode="on",
        archive_command="'/bin/true'",
        autovacuum="off",
        full_page_writes="on",  # else there is no copying a replica
        max_connections="30",
        shared_preload_libraries="pg_stat_statements",
        max_slot_wal_keep_size="'10GB'",
    ) as server:
        busy(server)
        yield server


@contextlib.asynccontextmanager
async def work(server):
    """A session that waits for another's lock, one that is killed, a long vacuum."""
    async with Crowd(server) as crowd:
        lock = "LOCK TABLE parcels IN ROW EXCLUSIVE MODE"
        await crowd.join("BEGIN", lock, user="postgres", database="postgres")
        waiting = await crowd.join("BEGIN", user="postgres", database="postgres")
        await crowd.leave(waiting, "LOCK TABLE parcels IN SHARE MODE")
        vacuum = await crowd.join(
            *("CREATE TABLE worn AS SELECT * FROM orders", "DELETE FROM worn"),
            *("SET vacuum_cost_delay = 50", "SET vacuum_cost_limit = 20"),
            user="postgres",
            database="postgres",
        )
        await crowd.leave(vacuum, "VACUUM (INDEX_CLEANUP off) worn")
        killed = await crowd.join(database="postgres")
        psql(server, f"SELECT pg_terminate_backend({killed.get_server_pid()})")
        yield


@contextlib.asynccontextmanager
async def watching(primary):
    """A daemon that watches this, a replica of it, and a server that is gone."""
    with (
        running_standby(primary) as standby,
        running_pooler(primary, stats_users=USER) as pooler,
    ):
        async with (
            serving(saying(LEADER)) as patroni,
            client(pooler, "SELECT 1"),
            work(primary),
        ):
            text = CONFIG.format(
                primary=primary.dsn(user="pgbreaker", database="postgres"),
                replica=standby.dsn(user="pgbreaker", database="postgres"),
                pooler=pooler.dsn(user=USER, database="pgbouncer"),
                patroni=patroni,
            )
            config = parse(text.encode(), "pgbreaker.yaml", env=os.environ)
            async with running(config) as daemon:
                breaker = daemon.board.targets["replica"].breakers["read"]
                breaker.force(Override(State.DISABLED, "a drill", "ana"), 0.0)
                daemon.board.windows[1] = Window(
                    id=1,
                    targets=("gone",),
                    reason="a drill",
                    author="ana",
                    starts=0.0,
                    ends=float("inf"),
                )
                await reporting(daemon)
                yield daemon


async def reporting(daemon) -> None:
    """Report as an application does."""
    host, port = daemon.address
    told = {"name": "orders", "follows": "replica/read", "state": "open"}
    report = {"instance": "web-1:1:00000000", "breakers": [told]}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"http://{host}:{port}/api/v1/reports", json=report) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def scraped(daemon, *, until) -> str:
    """A scrape of which *until* holds, or the last one."""
    host, port = daemon.address
    said = ""
    async with aiohttp.ClientSession() as http:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(15):
                while not until(said):
                    await asyncio.sleep(0.2)
                    async with http.get(f"http://{host}:{port}/metrics") as answer:
                        said = await answer.text()
    return said


def checked(text: str) -> tuple[int, str]:
    """What promtool says of metrics: its exit code and its words."""
    done = subprocess.run(
        [need("promtool", "prometheus"), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_the_page_names_what_is_exported_and_nothing_else(primary):
    named = documented()
    wanted = named.keys() - TAKES_HOURS - OF_A_FLEET

    async with watching(primary) as daemon:
        said = await scraped(daemon, until=lambda text: wanted <= exported(text).keys())

    found = exported(said)
    assert wanted - found.keys() == set()
    assert found.items() <= named.items()
    assert checked(said) == (0, "")


def test_the_librarys_metrics_are_what_prometheus_recommends():
    registry = CollectorRegistry()
    registry.register(collector())
    breaker = PostgreSQLCircuitBreaker("documented")

    said = generate_latest(registry).decode()

    assert f'breaker="{breaker.name}"' in said
    assert checked(said) == (0, "")
