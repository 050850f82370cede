"""What servers are asked by hand: one probe of everything, and what they lack."""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pgbreaker import __version__
from pgbreaker.cli import options
from pgbreaker.cli.daemon import Asked, find
from pgbreaker.cli.ending import FAILED, EndError
from pgbreaker.cli.serving import configured
from pgbreaker.cli.table import shows_colours
from pgbreaker.core.units import Seconds, counted, duration, lasting

if TYPE_CHECKING:
    from pgbreaker.core.plan import Config, TargetPlan
    from pgbreaker.monitor.doctor import Complaint, Level


@click.command(
    epilog=options.examples(
        "pgbreaker probe primary --config pgbreaker.yaml --debug",
        "pgbreaker probe postgresql://pgbreaker@db1/app",
    )
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
    epilog=options.examples(
        "pgbreaker doctor --config pgbreaker.yaml",
        "pgbreaker doctor --dsn postgresql://pgbreaker@db1/app -o json",
    )
)
@options.dsn
@click.option("--prometheus", metavar="URL", help="Also ask the Prometheus there.")
@options.form("table", "json")
@options.asks
def doctor(daemon: Asked, dsn: str | None, prometheus: str | None, form: str) -> None:
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
    if prometheus is not None:
        found += _of_prometheus(prometheus, config)
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
        seen = daemon.get("/api/v1/status", "targets", "time")
        well = daemon.ask("GET", "/-/healthy")
        version = str(daemon.get("/openapi.json", "info")["info"]["version"])
    except EndError as error:
        yield _complaint("daemon", Level.WEAK, error.message.splitlines()[0])
        return
    if not well.is_good:
        yield _complaint("unhealthy", Level.WRONG, well.problem)
    if version != __version__:
        yield _complaint(
            "version",
            Level.WEAK,
            f"the daemon is {version}, and this command {__version__}",
            "systemctl restart pgbreaker",
        )
    yield from _of_status(seen, daemon.config, config)


_SELDOM: Final[Seconds] = 15.0
"""Rules of ours look back a minute, and want four samples in it."""


def _of_prometheus(url: str, config: "Config") -> "Iterator[Complaint]":
    """Whether somebody scrapes us, and often enough for the alerts."""
    from pgbreaker.monitor.doctor import Level

    job = "pgbreaker" if config.alertmanager is None else config.alertmanager.job
    there = Asked(find(url, None, {}))
    try:
        seen = there.get("/api/v1/targets?state=active")["data"]["activeTargets"]
        ours = [one for one in seen if one["labels"]["job"] == job]
        intervals = [duration(one["scrapeInterval"]) for one in ours]
    except EndError as error:
        yield _complaint("prometheus", Level.WRONG, error.message.splitlines()[0])
        return
    except (KeyError, TypeError, ValueError):
        text = f"what answers at {there.place.url} is no Prometheus"
        yield _complaint("prometheus", Level.WRONG, text)
        return
    if not ours:
        yield _complaint(
            "not_scraped",
            Level.WRONG,
            f"Prometheus has no target of the job {job!r}: no alert of ours can fire",
            f"scrape_configs: [{{job_name: {job}, scrape_interval: 5s, ...}}]",
        )
    for one, interval in zip(ours, intervals, strict=True):
        if one["health"] == "down":
            yield _complaint(
                "not_scraped",
                Level.WRONG,
                f"Prometheus cannot scrape {one['scrapeUrl']}: {one['lastError']}",
            )
        elif interval > _SELDOM:
            yield _complaint(
                "scrape_interval",
                Level.WRONG,
                f"Prometheus scrapes us every {lasting(interval)}: rules that look back"
                " a minute see too little",
                f"scrape_interval: 5s  (of the job {job})",
            )


def _complaint(code: str, level: "Level", text: str, *helps: str) -> "Complaint":
    from pgbreaker.monitor.doctor import Complaint

    return Complaint("the daemon", code, level, text, helps)


def _of_status(
    seen: Mapping[str, Any], path: Path | None, config: "Config"
) -> "Iterator[Complaint]":
    from pgbreaker.monitor.doctor import Level

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
    store, reload = seen.get("store") or {}, seen.get("reload") or {}
    if store.get("degraded"):
        text = f"what happens cannot be written down: {store['problem']}"
        yield _complaint("store", Level.WRONG, text)
    if store.get("audit_fault"):
        yield _complaint(
            "audit",
            Level.WRONG,
            f"the audit log is not as it was written: {store['audit_fault']}",
            "compare it with a backup of the store",
        )
    if reload.get("ok") is False:
        yield _complaint(
            "reload",
            Level.WRONG,
            f"the configuration was refused at {reload['at']}: {reload['problem']}",
            "pgbreaker check-config FILE",
        )
