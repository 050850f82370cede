"""`pgbreaker alerts test`: does a message come out at the other end?"""

import asyncio
import socket
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgbreaker.cli import options
from pgbreaker.cli.ending import FAILED, UNREACHABLE
from pgbreaker.core.units import counted
from pgbreaker.errors import ConfigError

if TYPE_CHECKING:
    from pgbreaker.core.plan import AlertmanagerPlan
    from pgbreaker.sinks.trial import Sent, Tried


@click.group()
def alerts() -> None:
    """Try the way that alerts go."""


@alerts.command("test")
@options.config
@click.option("--url", metavar="URL", help="Try this Alertmanager instead.")
@click.option(
    "--severity",
    type=click.Choice(["critical", "warning"]),
    default="critical",
    show_default=True,
    help="Whose route the alert takes.",
)
@click.option("--wait", is_flag=True, help="Wait, up to a minute, until it is sent on.")
def try_alerts(path: Path | None, url: str | None, severity: str, wait: bool) -> None:
    """Send a test alert through every Alertmanager of the configuration."""
    from pgbreaker.clock import Clock
    from pgbreaker.sinks.trial import TEST, TEST_LASTS, send_test

    plan = _alertmanagers(path, url)
    tried = asyncio.run(
        send_test(
            plan,
            severity,
            sender=f"pgbreaker alerts test on {socket.gethostname()}",
            clock=Clock(),
            mark=uuid.uuid4().hex[:8],
            patience=TEST_LASTS if wait else 0.0,
        )
    )
    for one in tried:
        click.echo(f"{one.url}: {_said(one)}")
    if any(one.answer.took for one in tried):
        click.echo(
            f"{TEST} takes the route of severity {severity}, job {plan.job}: look there"
            " for a message; the alert ends by itself in a minute"
        )
    if any(one.answer.status is None for one in tried):
        sys.exit(UNREACHABLE)
    if any(not one.answer.took or (wait and not one.is_sent) for one in tried):
        sys.exit(FAILED)


def _alertmanagers(path: Path | None, url: str | None) -> "AlertmanagerPlan":
    from pgbreaker import config

    if path is None and url is None:
        raise click.UsageError("say --config FILE, or --url URL")
    here = None if url is None else config.for_alertmanager(url)
    if path is None:
        assert here is not None
        return here
    plan = config.load(path).alertmanager
    if here is not None:  # the file still says under which labels
        return here if plan is None else replace(plan, urls=here.urls)
    if plan is None:
        raise ConfigError(
            (f"{path}: no alertmanager is configured; add its urls, or say --url URL",)
        )
    return plan


def _said(tried: "Tried") -> str:
    answer = tried.answer
    if answer.status is None:
        return f"does not answer: {answer.text}"
    if not answer.took:
        return f"refused it: {answer.status} {answer.text}".rstrip()
    parts = ["took it"]
    if tried.receivers:
        parts.append(f"for {', '.join(tried.receivers)}")
    if tried.is_muted:
        parts.append("which are not told: a silence or another alert mutes it")
    if tried.doubt:
        parts.append(f"whether a message went out is not known: {tried.doubt}")
    if tried.sent is not None:
        parts += [_went(name, sent) for name, sent in tried.sent.items()]
        if not tried.sent:
            parts.append("by which nothing is sent")
    return ", ".join(parts)


def _went(integration: str, sent: "Sent") -> str:
    if not sent.messages:
        why = ": its log says why" if sent.failures else " within a minute"
        return f"no message went out by {integration}{why}"
    beside = (
        f", beside {counted(sent.failures, 'failure')}: its log says why"
        if sent.failures
        else ""
    )
    return f"a message went out by {integration}{beside}"
