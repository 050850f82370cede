"""Real Alertmanagers on loopback, with the configuration that is shipped."""

import io
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from support.process import free_port, running
from support.slack import Slack
from support.tools import need

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "alerts/alertmanager.yml"
TEMPLATE = ROOT / "alerts/slack.tmpl"
# What tests/fetch-prometheus brings.
FETCHED = ROOT / ".venv/servers/prometheus-3/usr"

SHORTEST = 0.1  # seconds
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


class Alertmanager:
    """One that runs.

    Attributes:
        url: Where it listens.
        log: What it wrote.
    """

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    async def post(self, *alerts: Mapping[str, Any]) -> None:
        """Send *alerts*, as Prometheus and the daemon do."""
        # Of more than a megabyte aiohttp wants a file.
        body = io.BytesIO(json.dumps(alerts).encode())
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{self.url}/api/v2/alerts", data=body) as answer,
        ):
            assert answer.status == 200, await answer.text()

    async def alerts(self) -> list[dict[str, Any]]:
        """All alerts that it holds, the muted ones too."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/api/v2/alerts") as answer,
        ):
            assert answer.status == 200, await answer.text()
            held: list[dict[str, Any]] = await answer.json()
            return held


@asynccontextmanager
async def alertmanager(
    config: Path, *command: str | Path
) -> AsyncIterator[Alertmanager]:
    """An Alertmanager with *config*, for the time of the block.

    Args:
        command: What starts it; Debian's package when there is nothing.
    """
    if not command:
        command = (need("prometheus-alertmanager", "prometheus-alertmanager"),)
    folder = Path(tempfile.mkdtemp(prefix="alertmanager-"))
    listen = f"127.0.0.1:{free_port()}"
    log = folder / "log"
    arguments = (
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={listen}",
        "--web.external-url=https://alertmanager.test",
        "--web.route-prefix=/",
        "--cluster.listen-address=",
    )
    try:
        async with running(*command, *arguments, url=f"http://{listen}", log=log):
            yield Alertmanager(f"http://{listen}", log)
    finally:
        shutil.rmtree(folder)


def shipped_config(folder: Path, receiver: Slack, *, faster: float = 1) -> Path:
    """Write the shipped configuration so that it tells *receiver* all; gives its path.

    Routes, inhibition and template stay what they are. What leads elsewhere is
    replaced: Slack goes to `receiver.url`, the webhook of the watchdog to the path
    `watchdog`, mail to the path `email` as a webhook.

    Args:
        faster: By how much the waits of groups are divided. None gets shorter than
            `SHORTEST`: what is posted at once is to be in one message.
    """
    text = SHIPPED.read_text("utf-8")
    url_file = folder / "slack-url"
    url_file.write_text(receiver.url, "utf-8")
    hook = f"    webhook_configs:\n      - url: {receiver.address('email')}"
    text = replace(r"slack_api_url_file: .+", f"slack_api_url_file: {url_file}", text)
    text = replace(
        r"https://deadman\.example\.org\S*", receiver.address("watchdog"), text
    )
    text = replace(r"(?s) *# begin: email\n +email_configs:.*?# end: email", hook, text)
    text = replace(r"\S*slack\.tmpl\b", str(TEMPLATE), text)
    text = re.sub(
        r"(group_wait|group_interval|repeat_interval): (\d+)(ms|s|m|h)\b",
        lambda wait: f"{wait[1]}: {shorter(int(wait[2]) * SECONDS[wait[3]], faster)}",
        text,
    )
    written = folder / "alertmanager.yml"
    written.write_text(text, "utf-8")
    return written


def shorter(seconds: float, faster: float) -> str:
    """*seconds* divided by *faster*, as the configuration has it; `SHORTEST` if that is
    less, and was more."""
    return f"{max(seconds / faster, min(seconds, SHORTEST)) * 1000:.0f}ms"


def replace(pattern: str, by: str, text: str) -> str:
    """Replace the one or more places that *pattern* finds; none is a failure."""
    changed, places = re.subn(pattern, lambda _: by, text)
    assert places, f"nothing in the configuration looks like {pattern}"
    return changed


def moment(at: float) -> str:
    """Unix time as alerts have it."""
    return datetime.fromtimestamp(at, UTC).isoformat()


def alert(
    name: str,
    *,
    starts: float | None = None,
    ends: float | None = None,
    source: str = "",
    annotations: Mapping[str, str] | None = None,
    **labels: str,
) -> dict[str, Any]:
    """One alert to post.

    Args:
        starts: When it began, Unix time; when it comes in if None.
        ends: When it is over, Unix time; after `resolve_timeout` if None.
        source: What the button Query leads to.
    """
    made: dict[str, Any] = {
        "labels": {"alertname": name, **labels},
        "annotations": dict(annotations or {}),
    }
    if starts is not None:
        made["startsAt"] = moment(starts)
    if ends is not None:
        made["endsAt"] = moment(ends)
    if source:
        made["generatorURL"] = source
    return made
