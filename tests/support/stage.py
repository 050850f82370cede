"""Everything at once, as on a host of a user's: servers, the daemon as a process, an
application, Prometheus, Alertmanager and somebody shaped like Slack."""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgbreaker.demo.server import Server
from support.alertmanager import Alertmanager, alertmanager, shipped_config
from support.pooler import ADMIN, Pooler, running_pooler
from support.process import free_port
from support.prometheus import Prometheus, prometheus
from support.servers import psql, running_server
from support.slack import Slack, slack
from support.standby import running_standby

TESTS = Path(__file__).parents[1]
GRAFANA = "https://grafana.test"
RUNBOOKS = "https://runbooks.test"

CONFIG = """
version: 1
targets:
  - name: main
    dsn: {primary}
    labels: {{env: prod}}
    pgbouncer: {{dsn: "{pooler}", interval: 1s}}
    probes:
      login: {{interval: 1s}}
      commit: {{interval: 1s}}
      latency: {{query: "SELECT count(*) FROM public.sale", slow: 250ms, interval: 1s}}
      saturation: {{interval: 1s}}
      blocking: {{interval: 1s}}
      replication: {{interval: 1s}}
      slots: {{interval: 1s}}
      database: {{interval: 1s}}
      statements: {{interval: 1s}}
      wal_ckpt: {{interval: 2s}}
      maintenance: {{interval: 2s}}
      size: {{interval: 2s, capacity: 500GB}}
    custom:
      - {{name: sales, query: "SELECT count(*) AS sales FROM public.sale", interval: 1s}}
  - name: replica
    dsn: {replica}
    operations: [connect, read]
    probes:
      login: {{interval: 1s}}
      replication: {{interval: 1s, max_lag: 5m}}
      saturation: {{interval: 1s}}
http: {{listen: "127.0.0.1:{port}"}}
alertmanager:
  urls: ["{alertmanager}"]
  grafana_url: {grafana}
  runbook_url: {runbooks}
"""


@dataclass
class Stage:
    """All that plays.

    Attributes:
        server: The primary.
        url: Where the daemon serves.
        began: Unix time at which all of it was there.
    """

    server: Server
    url: str
    prometheus: Prometheus
    alertmanager: Alertmanager
    slack: Slack
    began: float


@asynccontextmanager
async def stage(*, interval: str = "1s") -> AsyncIterator[Stage]:
    """All of it, for the time of the block.

    Args:
        interval: Between scrapes, and between evaluations.
    """
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server, replica, pooler = stack.enter_context(_servers())
        exported(folder / "alerts")
        daemon, shop = free_port(), free_port()
        async with slack() as receiver:
            config = shipped_config(folder, receiver)
            async with alertmanager(config) as manager:
                text = CONFIG.format(
                    primary=server.dsn(user="pgbreaker", database="app"),
                    replica=replica.dsn(user="pgbreaker", database="app"),
                    pooler=pooler.dsn(user=ADMIN, database="pgbouncer"),
                    port=daemon,
                    alertmanager=manager.url,
                    grafana=GRAFANA,
                    runbooks=RUNBOOKS,
                )
                path = folder / "pgbreaker.yaml"
                path.write_text(text, "utf-8")
                dsn = server.dsn(user="app_user", database="app")
                shop_path = str(TESTS / "support/shop.py")
                queue = pooler.dsn()
                stack.enter_context(_running(shop_path, dsn, queue, str(shop)))
                stack.enter_context(
                    _running("-m", "pgbreaker", "run", "--config", str(path))
                )
                jobs = {
                    "pgbreaker": f"127.0.0.1:{daemon}",
                    "shop": f"127.0.0.1:{shop}",
                    "alertmanager": manager.url.removeprefix("http://"),
                }
                async with prometheus(
                    jobs,
                    rules=[folder / "alerts/pgbreaker.rules.yml"],
                    alertmanager=jobs["alertmanager"],
                    interval=interval,
                ) as prom:
                    url = f"http://127.0.0.1:{daemon}"
                    yield Stage(server, url, prom, manager, receiver, time.time())


def exported(folder: Path) -> None:
    """The alerts as a user gets them, with every group evaluated at each turn."""
    given = ("--grafana-url", GRAFANA, "--runbook-url", RUNBOOKS)
    command = [sys.executable, "-m", "pgbreaker", "export", "alerts", str(folder)]
    subprocess.run([*command, *given], check=True, capture_output=True)
    rules = folder / "pgbreaker.rules.yml"
    text = re.sub(r"(?m)^    interval: .*\n", "", rules.read_text("utf-8"))
    rules.write_text(text, "utf-8")


@contextmanager
def _servers() -> Iterator[tuple[Server, Server, Pooler]]:
    """A primary with something of everything, its replica, and a pooler."""
    with (
        running_server(
            17,
            max_connections="30",
            shared_preload_libraries="pg_stat_statements",
            max_slot_wal_keep_size="1GB",
            track_io_timing="on",
            archive_mode="on",
            archive_command="true",
        ) as primary,
        running_standby(primary) as replica,
        running_pooler(
            primary, default_pool_size="2", query_wait_timeout="30"
        ) as pooler,
    ):
        psql(primary, "CREATE EXTENSION pg_stat_statements", database="app")
        psql(primary, "SELECT pg_create_physical_replication_slot('spare', true)")
        table = (
            "CREATE TABLE sale (id serial, at timestamptz DEFAULT now());"
            "ALTER TABLE sale OWNER TO app_user;"
            "GRANT SELECT ON sale, sale_id_seq TO pgbreaker;"
            "INSERT INTO sale SELECT FROM generate_series(1, 5000); DELETE FROM public.sale WHERE id % 3 = 0"
        )
        psql(primary, table, database="app")
        yield primary, replica, pooler


@contextmanager
def _running(*arguments: str) -> Iterator[None]:
    """A process of Python's with *arguments*, for the time of the block."""
    # Not a pipe: nobody reads from it, and a process whose log is full stands still.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=log
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
        assert process.returncode in (0, -signal.SIGTERM), said[-2000:]
