"""What servers are asked by hand: one probe of everything, and what they lack."""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pgbreaker import __version__
from pgbreaker.cli import options
from pgbreaker.cli.daemon import Asked
from pgbreaker.cli.ending import FAILED, EndError
from pgbreaker.cli.serving import configured
from pgbreaker.cli.table import shows_colours
from pgbreaker.core.units import counted

if TYPE_CHECKING:
    from pgbreaker.core.plan import Config, TargetPlan
    from pgbreaker.monitor.doctor import Complaint, Level


@click.command(
    epilog="Examples: pgbreaker probe primary --config pgbreaker.yaml --debug   ·"
    "   pgbreaker probe postgresql://pgbreaker@db1/app"
)
@click.argument("target", metavar="TARGET|DSN")
@options.config
@click.option("--debug", is_flag=True, help="Show every step and what was seen.")
def probe(target: str, path: Path | None, debug: bool) -> None:
    """Ask TARGET every question once, and say what came of it.

    The daemon is not asked, and nothing of it is disturbed.
    """
    from pgbreaker.monitor.examine import examine

    report = asyncio.run(examine(_plan(target, path)))
    click.echo(report.text(debug=debug))
    if not report.is_good:
        sys.exit(FAILED)


def _plan(target: str, path: Path | None) -> "TargetPlan":
    from pgbreaker import config

    if "://" in target:
        return config.for_dsn(target).targets[0]
    if path is None:
        raise click.UsageError(
            f"{target!r} is a name: say --config FILE, or give a DSN"
        )
    plans = {plan.name: plan for plan in config.load(path).targets}
    if target not in plans:
        there_are = ", ".join(plans)
        raise click.UsageError(f"no target is called {target!r}; there are {there_are}")
    return plans[target]


# -- doctor ------------------------------------------------------------------------


@click.command(
    epilog="Examples: pgbreaker doctor --config pgbreaker.yaml   ·"
    "   pgbreaker doctor --dsn postgresql://pgbreaker@db1/app -o json"
)
@options.asks
@options.dsn
@options.form("table", "json")
def doctor(daemon: Asked, dsn: str | None, form: str) -> None:
    """Name what is missing, and what would help.

    Timeouts, rights, extensions, clocks, TLS, modes of files; and the daemon, where one
    answers. Nothing is changed. Exits 1 when something is wrong (x); what would only be better
    otherwise (!) is no failure.
    """
    from pgbreaker.monitor.doctor import Level, ask_all, look_around

    config = configured(daemon.config, dsn, None)
    found = look_around(config.targets, daemon.config)
    found += asyncio.run(ask_all(config.targets))
    found += _of_daemon(daemon, config)
    if form == "json":
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        for line in _told(found, len(config.targets)):
            click.echo(line)
    if any(one.level is Level.WRONG for one in found):
        sys.exit(FAILED)


_SHOWN = 3
"""Lines that help, of a complaint, in a terminal."""


def _told(found: "Sequence[Complaint]", asked: int) -> Iterator[str]:
    from pgbreaker.monitor.doctor import Level

    width = max((len(one.about) for one in found), default=0)
    for one in sorted(found, key=lambda one: one.level is not Level.WRONG):
        is_wrong = one.level is Level.WRONG
        sign, colour = ("x", "red") if is_wrong else ("!", "yellow")
        sign = click.style(sign, fg=colour) if shows_colours() else sign
        yield f"{sign} {one.about.ljust(width)}  {one.text}"
        for line in one.helps[:_SHOWN]:
            yield f"  {'':<{width}}    {line}"
        if len(one.helps) > _SHOWN:
            yield f"  {'':<{width}}    … and {len(one.helps) - _SHOWN} more: -o json"
    wrong = sum(one.level is Level.WRONG for one in found)
    yield (
        f"{counted(asked, 'target')}: {counted(wrong, 'thing')} wrong,"
        f" {len(found) - wrong} could be better"
    )


def _of_daemon(daemon: Asked, config: "Config") -> "Iterator[Complaint]":
    """What the daemon has to complain about, or is to be complained of."""
    from pgbreaker.monitor.doctor import Level

    try:
        seen = daemon.get("/api/v1/status")
        well = daemon.ask("GET", "/-/healthy")
    except EndError as error:
        yield _complaint("daemon", Level.WEAK, error.message.splitlines()[0])
        return
    if not well.is_good:
        yield _complaint("unhealthy", Level.WRONG, well.problem)
    yield from _of_status(seen, daemon.config, config)


def _complaint(code: str, level: "Level", text: str, *helps: str) -> "Complaint":
    from pgbreaker.monitor.doctor import Complaint

    return Complaint("the daemon", code, level, text, helps)


def _of_status(
    seen: Mapping[str, Any], path: Path | None, config: "Config"
) -> "Iterator[Complaint]":
    from pgbreaker.monitor.doctor import Level

    version = seen.get("version")
    if version is not None and version != __version__:
        yield _complaint(
            "version",
            Level.WEAK,
            f"the daemon is {version}, and this command {__version__}",
            "systemctl restart pgbreaker",
        )
    named = {target["name"] for target in seen["targets"]}
    ours = {plan.name for plan in config.targets}
    if path is not None and named != ours:
        apart = ", ".join(sorted(named ^ ours))
        yield _complaint(
            "configuration",
            Level.WRONG,
            f"the daemon does not watch what {path} says: {apart}",
            "pgbreaker reload",
        )
    if seen.get("store_degraded") or (seen.get("store") or {}).get("degraded"):
        yield _complaint(
            "store", Level.WRONG, "the daemon cannot write down what happens"
        )
