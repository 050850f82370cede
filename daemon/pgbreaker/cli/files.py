"""What is done with files: write a configuration, check it, show it; hand files out."""

import asyncio
import json
import sys
from pathlib import Path

import click

from pgbreaker.cli import options
from pgbreaker.cli.ending import FAILED, UNCONFIGURED, EndError
from pgbreaker.core.units import counted
from pgbreaker.errors import ConfigError

# -- check-config ------------------------------------------------------------------


@click.command(
    "check-config",
    epilog=options.examples("pgbreaker check-config pgbreaker.yaml --connect"),
)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--connect", is_flag=True, help="Also log in at every target.")
@options.form("table", "json")
def check_config(path: Path, connect: bool, form: str) -> None:
    """Say everything that is wrong with FILE, at once."""
    from pgbreaker import config

    try:
        checked = config.load(path)
    except ConfigError as error:
        if form == "json":
            click.echo(json.dumps({"ok": False, "problems": error.problems}, indent=2))
            sys.exit(UNCONFIGURED)
        raise
    reports = []
    if connect:
        from pgbreaker.monitor.examine import examine

        reports = [asyncio.run(examine(plan)) for plan in checked.targets]
    is_good = all(report.is_good for report in reports)
    if form == "json":
        told = {
            "ok": is_good,
            "problems": [],
            "targets": [plan.name for plan in checked.targets],
            "reports": [report.told() for report in reports],
        }
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(f"{path}: ok, {counted(len(checked.targets), 'target')}")
        for report in reports:
            click.echo(report.line)
    if not is_good:
        sys.exit(FAILED)


# -- schema, config ----------------------------------------------------------------


@click.command(epilog=options.examples("pgbreaker schema > pgbreaker.schema.json"))
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from pgbreaker import config

    click.echo(json.dumps(config.schema(), indent=2))


@click.group("config")
def config_() -> None:
    """Look at the configuration as it is understood."""


@config_.command()
@options.config
@options.dsn
@options.form("yaml", "json")
def show(path: Path | None, dsn: str | None, form: str) -> None:
    """Print what is really in force.

    Defaults are filled in, and secrets left out.
    """
    from pgbreaker import config
    from pgbreaker.cli.serving import configured

    found = configured(path, dsn, None)
    if form == "json":
        click.echo(json.dumps(config.shown(found), indent=2))
    else:
        click.echo(config.written(found), nl=False)


# -- export ------------------------------------------------------------------------

_UNHEARD = {
    "watchdog-url": "when Prometheus or Alertmanager itself is down",
    "email": "when Slack itself fails, but by Slack",
}


@click.command(
    epilog=options.examples("pgbreaker export systemd /etc/systemd/system"),
)
@click.argument(
    "kind",
    type=click.Choice(["alerts", "dashboards", "kubernetes", "role", "systemd"]),
)
@click.argument("into", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--grafana-url", metavar="URL", help="Where Grafana is.")
@click.option("--runbook-url", metavar="URL", help="Where you put the runbooks.")
@click.option("--watchdog-url", metavar="URL", help="Who misses us when all is down.")
@click.option("--email", metavar="ADDRESS", help="Who hears when Slack does not.")
@click.option("--smtp", metavar="HOST:PORT", help="Who takes mail for that.")
@click.option("--image", metavar="NAME:TAG", help="What Kubernetes runs.")
@click.option("--force", is_flag=True, help="Overwrite what is there.")
def export(kind: str, into: Path, force: bool, **addresses: str | None) -> None:
    """Write alerts, dashboards, manifests, the role or the unit.

    Into DIR, with your addresses in them.
    """
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
    if kind == "kubernetes":
        click.echo(
            f"now: see {into}/pgbreaker.yaml, then kubectl apply -k {into}; where"
            f" Prometheus' operator is, kubectl apply -k {into}/monitoring"
        )
    if kind == "systemd":
        click.echo("now: systemctl daemon-reload && systemctl enable --now pgbreaker")


# -- hash-password -----------------------------------------------------------------


@click.command("hash-password")
@click.option("--token", is_flag=True, help="Draw a token for a program instead.")
def hash_password(token: bool) -> None:
    """Print the hash of a password.

    For the web configuration. It is asked for; from a pipe the first line is taken.
    """
    from pgbreaker.web.doors import hash_password as hashed
    from pgbreaker.web.doors import new_token

    if token:
        drawn, its_hash = new_token()
        click.echo(f"token  {drawn}\nhash   {its_hash}")
        return
    if sys.stdin.isatty():
        word = click.prompt("password", hide_input=True, confirmation_prompt=True)
    else:
        word = sys.stdin.readline().rstrip("\r\n")
    if not word:
        raise EndError("an empty password is none", 2)
    click.echo(hashed(word))
