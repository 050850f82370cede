"""The command line: one verb a function, exit codes as documented.

Nothing heavy is imported before a verb needs it: ``pgbreaker version`` answers at
once, and ``healthcheck`` runs every few seconds in a container.
"""

import asyncio
import json
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import click

from pgbreaker import __version__
from pgbreaker.core.units import counted
from pgbreaker.errors import ConfigError, PgbreakerError

if TYPE_CHECKING:
    from pgbreaker.core.plan import AlertmanagerPlan
    from pgbreaker.sinks.trial import Sent, Tried

FAILED: Final = 1
UNREACHABLE: Final = 69
UNCONFIGURED: Final = 78

_URL: Final = "http://127.0.0.1:9432"

_dsn = click.option(
    "--dsn", envvar="PGBREAKER_DSN", help="Watch this one server, without a file."
)
_config = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    envvar="PGBREAKER_CONFIG",
    help="The configuration file.",
)
_url = click.option(
    "--url",
    envvar="PGBREAKER_URL",
    default=_URL,
    show_default=True,
    help="Where the daemon listens.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Watch PostgreSQL from outside, and break the circuit before it hurts."""


def main() -> None:
    """Run the command line; every error is one clear line and an exit code."""
    try:
        cli(prog_name="pgbreaker")
    except ConfigError as error:
        _fail(str(error), UNCONFIGURED)
    except PgbreakerError as error:
        _fail(str(error), FAILED)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(f"pgbreaker {__version__}")


@cli.command()
@_config
@_dsn
@click.option("--listen", metavar="HOST:PORT", help="Listen here instead.")
def run(path: Path | None, dsn: str | None, listen: str | None) -> None:
    """Watch, until told to stop (SIGTERM or Ctrl-C)."""
    from pgbreaker import app
    from pgbreaker.sinks.log import configure

    config = _configured(path, dsn, listen)
    configure(config.log.format, config.log.level)
    asyncio.run(app.run(config))


def _configured(path: Path | None, dsn: str | None, listen: str | None) -> Any:  # noqa: ANN401 - pydantic stays unimported until here
    from pgbreaker import config

    if (path is None) == (dsn is None):
        raise click.UsageError("say either --config FILE or --dsn DSN")
    if path is not None:
        return config.load(path, listen=listen)
    assert dsn is not None
    return config.for_dsn(dsn, listen=listen)


@cli.command("check-config")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--connect", is_flag=True, help="Also log in at every target.")
def check_config(path: Path, connect: bool) -> None:
    """Say everything that is wrong with FILE, at once."""
    from pgbreaker import config

    checked = config.load(path)
    click.echo(f"{path}: ok, {counted(len(checked.targets), 'target')}")
    if connect:
        from pgbreaker.monitor.examine import examine

        reports = [asyncio.run(examine(plan)) for plan in checked.targets]
        for report in reports:
            click.echo(report.line)
        if not all(report.is_good for report in reports):
            sys.exit(FAILED)


@cli.command()
@click.argument("target", metavar="TARGET|DSN")
@_config
@click.option("--debug", is_flag=True, help="Show every step and what was seen.")
def probe(target: str, path: Path | None, debug: bool) -> None:
    """Ask TARGET every question once, and say what came of it."""
    from pgbreaker import config
    from pgbreaker.monitor.examine import examine

    if "://" in target:
        plan = config.for_dsn(target).targets[0]
    elif path is None:
        raise click.UsageError(
            f"{target!r} is a name: say --config FILE, or give a DSN"
        )
    else:
        plans = {plan.name: plan for plan in config.load(path).targets}
        if target not in plans:
            there_are = ", ".join(plans)
            raise click.UsageError(
                f"no target is called {target!r}; there are {there_are}"
            )
        plan = plans[target]
    report = asyncio.run(examine(plan))
    click.echo(report.text(debug=debug))
    if not report.is_good:
        sys.exit(FAILED)


# What somebody asks of a daemon that runs.


def _ask(url: str, path: str, *, timeout: float = 5.0) -> Any:  # noqa: ANN401 - JSON
    """Get *path* from the daemon at *url*.

    Raises:
        SystemExit: With `UNREACHABLE`, after one line that says what helps.
    """
    address = url.rstrip("/") + path
    try:
        request = Request(address, headers={"Accept": "application/json"})
        with urlopen(request, timeout=timeout) as answer:
            return json.load(answer)
    except HTTPError as error:
        _fail(f"{address} answered {error.code} {error.reason}", FAILED)
    except (URLError, TimeoutError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, OSError) and reason.strerror:
            reason = reason.strerror.lower()
        _fail(
            f"no daemon answers at {url}: {reason}"
            " (is it running? --url or PGBREAKER_URL say where)",
            UNREACHABLE,
        )


_GRADE: Final = {
    "closed": 0,
    "metrics_only": 0,
    "disabled": 0,
    "half_open": 1,
    "open": 2,
    "forced_open": 2,
}


@cli.command()
@_url
@click.option(
    "-o",
    "form",
    type=click.Choice(["table", "json", "prom"]),
    default="table",
    show_default=True,
)
@click.option(
    "--exit-code",
    "graded",
    is_flag=True,
    help="Exit 0 when all is closed, 1 half-open or degraded, 2 open, 3 unknown.",
)
def status(url: str, form: str, graded: bool) -> None:
    """Show every target and breaker of the daemon."""
    seen = _ask(url, "/api/v1/status")
    if form == "json":
        click.echo(json.dumps(seen, indent=2))
    else:
        lines = _prom(seen) if form == "prom" else _table(seen)
        click.echo("\n".join(lines))
    if graded:
        sys.exit(max((_grade(target) for target in seen["targets"]), default=0))


def _grade(target: Mapping[str, Any]) -> int:
    if target["state"] == "unknown":
        return 3
    grades = [_GRADE[breaker["state"]] for breaker in target["breakers"]]
    return max([*grades, int(target["state"] == "degraded")])


def _table(seen: Mapping[str, Any]) -> list[str]:
    rows = [("TARGET", "BREAKER", "STATE", "SINCE", "WHY")]
    for target in seen["targets"]:
        rows.append((target["name"], "", target["state"], "", target["reason"]))
        rows += [
            (
                "",
                breaker["operation"],
                breaker["state"],
                breaker["since"],
                breaker["reason"],
            )
            for breaker in target["breakers"]
        ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        "  ".join(
            [*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]
        )
        for row in rows
    ]


def _prom(seen: Mapping[str, Any]) -> list[str]:
    """The states alone, for a node exporter's text file collector."""
    name = "pgbreaker_breaker_state"
    lines = [
        f"# HELP {name} 1 for the state that the breaker is in.",
        f"# TYPE {name} gauge",
    ]
    for target in seen["targets"]:
        for breaker in target["breakers"]:
            labels = (
                f'target="{target["name"]}",operation="{breaker["operation"]}",'
                f'breaker="{breaker["name"]}"'
            )
            lines += [
                f'{name}{{{labels},state="{state}"}} {int(state == breaker["state"])}'
                for state in _GRADE
            ]
    return lines


@cli.command()
@_url
def healthcheck(url: str) -> None:
    """Exit 0 when the daemon itself is well; for containers."""
    _ask(url, "/-/healthy", timeout=2.0)
    click.echo("healthy")


_UNHEARD: Final = {
    "watchdog-url": "when Prometheus or Alertmanager itself is down",
    "email": "when Slack itself fails, but by Slack",
}


@cli.command()
@click.argument("kind", type=click.Choice(["alerts", "dashboards"]))
@click.argument("into", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--grafana-url", metavar="URL", help="Where Grafana is.")
@click.option("--runbook-url", metavar="URL", help="Where you put the runbooks.")
@click.option("--watchdog-url", metavar="URL", help="Who misses us when all is down.")
@click.option("--email", metavar="ADDRESS", help="Who hears when Slack does not.")
@click.option("--smtp", metavar="HOST:PORT", help="Who takes mail for that.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
def export(kind: str, into: Path, force: bool, **addresses: str | None) -> None:
    """Write the alerts or the dashboards into DIR, with your addresses in them."""
    from pgbreaker.export import export as hand_out

    given = {
        name.replace("_", "-"): address
        for name, address in addresses.items()
        if address is not None
    }
    count = hand_out(kind, into, given, force=force)
    click.echo(f"{into}: {counted(count, 'file')}")
    if kind == "alerts":
        for option, when in _UNHEARD.items():
            if option not in given:
                click.echo(f"without --{option} nobody hears {when}")


@cli.group()
def alerts() -> None:
    """Try the way that alerts go."""


@alerts.command("test")
@_config
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


@cli.command()
@click.option(
    "--fault",
    envvar="FAULT",
    type=click.Choice(["crash", "freeze", "exhaust", "lock", "slow"]),
    help="Break the server after ten seconds, and show what happens.",
)
@click.option(
    "--listen", default="127.0.0.1:9432", show_default=True, metavar="HOST:PORT"
)
@click.option(
    "--for", "seconds", type=float, help="End by itself after so many seconds."
)
def demo(fault: str | None, listen: str, seconds: float | None) -> None:
    """Start a PostgreSQL of its own, a workload, and the daemon watching it."""
    from pgbreaker.demo.show import show

    asyncio.run(show(fault or None, listen, seconds))
