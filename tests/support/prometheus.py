"""A real Prometheus on loopback."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from support.process import free_port, running
from support.tools import need


class Prometheus:
    """One that runs.

    Attributes:
        url: Where it listens.
    """

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self._http = http

    async def ask(self, path: str, **parameters: str) -> Any:
        """Ask its API. What it says is wrong with the question is a failure."""
        address = f"{self.url}/api/v1/{path}"
        async with self._http.get(address, params=parameters) as answer:
            said = await answer.json()
        assert said["status"] == "success", f"{said.get('error')}: {parameters}"
        return said["data"]

    async def series(self, query: str) -> list[dict[str, Any]]:
        """What *query* gives now."""
        return (await self.ask("query", query=query))["result"]

    async def course(
        self, query: str, since: float, *, step: float = 1.0
    ) -> list[dict[str, Any]]:
        """What *query* has given from *since*, a Unix time, until now."""
        asked = {"start": str(since), "end": str(time.time()), "step": str(step)}
        return (await self.ask("query_range", query=query, **asked))["result"]

    async def until(self, query: str, within: float) -> list[dict[str, Any]]:
        """Wait until *query* gives something."""
        last: list[dict[str, Any]] = []
        deadline = time.monotonic() + within
        while not (last := await self.series(query)):
            assert time.monotonic() < deadline, f"{query} gave nothing in {within} s"
            await asyncio.sleep(0.1)
        return last


@asynccontextmanager
async def prometheus(
    jobs: Mapping[str, str],
    *,
    rules: Iterable[Path] = (),
    alertmanager: str | None = None,
    interval: str = "1s",
    evaluation: str | None = None,
    command: Path | None = None,
) -> AsyncIterator[Prometheus]:
    """A Prometheus that scrapes *jobs*, for the time of the block.

    Args:
        jobs: Name -> ``host:port``.
        rules: Files with rules.
        alertmanager: ``host:port`` of who takes alerts.
        interval: Of scrapes.
        evaluation: Of rules. None: as of scrapes.
        command: What starts it; Debian's package when None.
    """
    program = command or need("prometheus", "prometheus")
    folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
    listen = f"127.0.0.1:{free_port()}"
    config = folder / "prometheus.yml"
    made = _configuration(jobs, rules, alertmanager, interval, evaluation or interval)
    config.write_text(made, "utf-8")
    log = folder / "log"
    url = f"http://{listen}"
    arguments = (
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={listen}",
        "--enable-feature=exemplar-storage",
    )
    try:
        async with (
            running(program, *arguments, url=url, log=log),
            aiohttp.ClientSession() as http,
        ):
            yield Prometheus(url, http)
    finally:
        shutil.rmtree(folder)


def _configuration(
    jobs: Mapping[str, str],
    rules: Iterable[Path],
    alertmanager: str | None,
    interval: str,
    evaluation: str,
) -> str:
    made: dict[str, Any] = {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "evaluation_interval": evaluation,
        },
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {
                "job_name": name,
                # A bench plays many jobs at once.
                "honor_labels": True,
                "static_configs": [{"targets": [address]}],
            }
            for name, address in jobs.items()
        ],
    }
    if alertmanager is not None:
        there = [{"targets": [alertmanager]}]
        made["alerting"] = {"alertmanagers": [{"static_configs": there}]}
    return yaml.safe_dump(made)
