"""The daemon itself: run it, show it off, see whether it is well."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgbreaker import __version__
from pgbreaker.cli import options
from pgbreaker.cli.daemon import Asked
from pgbreaker.cli.ending import FAILED, UNCONFIGURED, EndError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from pgbreaker.core.plan import Config


@click.command(
    epilog=options.examples("pgbreaker run --dsn postgresql://pgbreaker@db1/app"),
)
@options.config
@options.dsn
@options.listen
def run(path: Path | None, dsn: str | None, listen: str | None) -> None:
    """Watch, until told to stop (SIGTERM or Ctrl-C).

    SIGHUP reads the configuration anew, SIGUSR1 writes what the daemon is at to the
    log, SIGUSR2 has it log more for ten minutes.
    """
    from pgbreaker import app
    from pgbreaker.config import cautions
    from pgbreaker.sinks.log import configure

    # Before it is read: what changes meanwhile is read again.
    source = None if path is None else app.Source(path, listen)
    config = configured(path, dsn, listen)
    configure(config.log.format, config.log.level)
    for caution in cautions(config):
        log.warning("%s", caution)
    asyncio.run(app.run(config, source=source))


def configured(path: Path | None, dsn: str | None, listen: str | None) -> "Config":
    """The configuration that a command was given.

    Raises:
        ConfigError: It cannot be used.
        UsageError: None was given, or two.
    """
    from pgbreaker import config

    if path is None and dsn is None:
        raise click.UsageError("say either --config FILE or --dsn DSN")
    if path is not None and dsn is not None:
        raise click.UsageError(
            f"say either --config FILE or --dsn DSN; besides the DSN, {path} is given"
            " (PGBREAKER_CONFIG and PGBREAKER_DSN count, too)"
        )
    if path is not None:
        return config.load(path, listen=listen)
    assert dsn is not None
    return config.for_dsn(dsn, listen=listen)


@click.command(epilog=options.examples("pgbreaker demo --fault freeze"))
@click.option(
    "--fault",
    envvar="FAULT",
    type=click.Choice(["crash", "freeze", "exhaust", "lock", "slow"]),
    help="Break the server after ten seconds, and show what happens.",
)
@click.option(
    "--listen",
    default="127.0.0.1:9432",
    show_default=True,
    metavar="HOST:PORT",
    help="Listen here.",
)
@click.option(
    "--for", "seconds", type=float, help="End by itself after so many seconds."
)
def demo(fault: str | None, listen: str, seconds: float | None) -> None:
    """Show it all, with a PostgreSQL of its own.

    Starts a server, a workload, and the daemon watching it; nothing is left behind.
    """
    from pgbreaker.demo.show import show

    asyncio.run(show(fault or None, listen, seconds))


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(f"pgbreaker {__version__}")


@click.command()
@options.asks
def healthcheck(daemon: Asked) -> None:
    """Exit 0 when the daemon itself is well; for containers.

    Whatever its targets are: a daemon whose servers are down is at its best.
    """
    answer = daemon.ask("GET", "/-/healthy", timeout=2.0)
    if not answer.is_good:
        raise EndError(answer.problem, FAILED)
    click.echo("healthy")


@click.command()
@options.asks
def reload(daemon: Asked) -> None:
    """Have the daemon read its configuration anew.

    Prints what changed.

    A configuration that cannot be used changes nothing: what is wrong with it is
    printed, and the exit code is 78.
    """
    from pgbreaker.cli.orders import author

    answer = daemon.ask("POST", "/-/reload", {"author": author()}, timeout=30.0)
    if answer.status == 422:
        raise EndError(answer.problem, UNCONFIGURED)
    if not answer.is_good:
        raise daemon.refused(answer)
    done = daemon.read(answer, "changes")
    changes, later = done.get("changes") or [], set(done.get("later") or [])
    if not changes:
        click.echo("nothing changed")
    for change in changes:
        click.echo(f"{change}  (with the next start)" if change in later else change)
    for change in done.get("later") or []:
        if change not in changes:
            click.echo(f"{change}  (with the next start)")
