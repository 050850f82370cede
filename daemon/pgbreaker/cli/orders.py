"""What somebody decides: take a breaker over, hand it back, plan maintenance."""

import getpass
import json
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import click

from pgbreaker.cli import options
from pgbreaker.cli.daemon import Asked
from pgbreaker.cli.looking import instant, moment, place_of, why, written
from pgbreaker.cli.table import stated, table
from pgbreaker.core.units import duration, lasting

_reason = click.option(
    "--reason",
    required=True,
    help="Why; whoever looks at it later wants to know.",
)
_for = click.option(
    "--for",
    "lasting_for",
    default="1h",
    show_default=True,
    metavar="TIME",
    help="Until it hands itself back; 7d at most.",
)
_sure = click.option("-y", "--yes", is_flag=True, help="Do not ask.")

_EFFECTS: Final[Mapping[str, str]] = {
    "open": "refuse every call",
    "closed": "let every call pass, and go on counting",
    "disabled": "let every call pass, and count nothing",
    "auto": "decide by itself again",
}


def author() -> str:
    """Who sits here, for daemons that nobody logs in at."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


# -- Overrides ---------------------------------------------------------------------


@click.command(
    "open",
    epilog=options.examples(
        "pgbreaker open primary/write --reason 'moving the disk' --for 30m"
    ),
)
@click.argument("breaker")
@_reason
@_for
@_sure
@options.asks
def open_(
    daemon: Asked, breaker: str, reason: str, lasting_for: str, yes: bool
) -> None:
    """Have BREAKER refuse every call, whatever it sees itself."""
    _take_over(daemon, breaker, "open", reason, lasting_for, is_sure=yes)


@click.command(
    epilog=options.examples(
        "pgbreaker close primary/read --reason 'false alarm' --for 30m"
    )
)
@click.argument("breaker")
@_reason
@_for
@_sure
@options.asks
def close(
    daemon: Asked, breaker: str, reason: str, lasting_for: str, yes: bool
) -> None:
    """Have BREAKER let every call pass, whatever it sees itself."""
    _take_over(daemon, breaker, "closed", reason, lasting_for, is_sure=yes)


@click.command(
    epilog=options.examples(
        "pgbreaker disable primary/read --reason 'load test' --for 2h"
    )
)
@click.argument("breaker")
@_reason
@_for
@_sure
@options.asks
def disable(
    daemon: Asked, breaker: str, reason: str, lasting_for: str, yes: bool
) -> None:
    """Have BREAKER let every call pass, and count nothing."""
    _take_over(daemon, breaker, "disabled", reason, lasting_for, is_sure=yes)


@click.command(
    epilog=options.examples("pgbreaker auto primary/read --reason 'the disk is moved'")
)
@click.argument("breaker")
@_reason
@_sure
@options.asks
def auto(daemon: Asked, breaker: str, reason: str, yes: bool) -> None:
    """Have BREAKER decide by itself again."""
    before = daemon.get(place_of(breaker), "state", "override")
    if before["override"] is None:
        click.echo(f"{breaker} decides by itself already: {why(before)}")
        return
    body = {"reason": reason, "author": author()}
    address = f"{place_of(breaker)}/override"
    _confirm(daemon, before, "auto", None, ("DELETE", address, body), is_sure=yes)
    _tell(daemon.read(daemon.good("DELETE", address, body), "state", "override"))


def _take_over(
    daemon: Asked, breaker: str, state: str, reason: str, ends: str, *, is_sure: bool
) -> None:
    seconds = _lasting(ends)
    before = daemon.get(place_of(breaker), "state", "override")
    body = {"state": state, "reason": reason, "for": ends, "author": author()}
    address = f"{place_of(breaker)}/override"
    _confirm(daemon, before, state, seconds, ("PUT", address, body), is_sure=is_sure)
    _tell(daemon.read(daemon.good("PUT", address, body), "state", "override"))


def _lasting(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise click.UsageError(f"--for: {error}") from None


Order = tuple[str, str, Mapping[str, Any]]
"""Method, address and body of what is to be asked."""


def _confirm(
    daemon: Asked,
    before: Mapping[str, Any],
    state: str,
    seconds: float | None,
    order: Order,
    *,
    is_sure: bool,
) -> None:
    """Show what an order will do, and how else to give it; ask, where somebody sits.

    Raises:
        Abort: They changed their mind.
    """
    ends = "" if seconds is None else f" for {lasting(seconds)}"
    click.echo(
        f"{before['name']} is {stated(before['state'])} and will"
        f" {_EFFECTS[state]}{ends}",
        err=True,
    )
    click.echo(f"  {curl(daemon, *order)}", err=True)
    if not is_sure and sys.stdin.isatty():
        click.confirm("Do it?", abort=True, err=True)


def curl(daemon: Asked, method: str, path: str, body: Mapping[str, Any]) -> str:
    """The same order for a shell; who may give it is left to whoever types it."""
    url = daemon.place.url
    words = ["curl", "-X", method]
    if url.startswith("unix:"):
        words += ["--unix-socket", url.removeprefix("unix:")]
        url = "http://localhost"
    if daemon.ca is not None:
        words += ["--cacert", str(daemon.ca)]
    if daemon.who is not None:
        words += ["-u", "USER"]
    words += ["-H", "Content-Type: application/json"]
    words += ["-d", json.dumps(body, ensure_ascii=False), url + path]
    return shlex.join(words)


def _tell(after: Mapping[str, Any]) -> None:
    override = after["override"]
    until = ""
    if override is not None and override["until"] is not None:
        until = f" until {override['until']}"
    click.echo(f"{after['name']} is {stated(after['state'])}{until}: {why(after)}")
    if after.get("forgets"):
        click.echo(f"note: {after['forgets']}")


# -- Maintenance -------------------------------------------------------------------


@click.group()
def maintenance() -> None:
    """Plan times in which alerts are not told."""


@maintenance.command(
    epilog=options.examples(
        "pgbreaker maintenance add primary --reason 'minor upgrade' --for 2h"
    )
)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@_reason
@click.option("--for", "lasting_for", metavar="TIME", help="How long: 30m, 2h.")
@click.option("--ends", metavar="TIME", help="Until then (RFC 3339), instead of --for.")
@click.option(
    "--starts", metavar="TIME", help="From then on (RFC 3339); now if not said."
)
@options.asks
def add(
    daemon: Asked,
    targets: Sequence[str],
    reason: str,
    lasting_for: str | None,
    ends: str | None,
    starts: str | None,
) -> None:
    """Plan maintenance of TARGETs; '*' stands for all."""
    if (lasting_for is None) == (ends is None):
        raise click.UsageError("say either --for TIME or --ends TIME")
    body: dict[str, Any] = {
        "targets": list(targets),
        "reason": reason,
        "author": author(),
    }
    if lasting_for is not None:
        _lasting(lasting_for)
        body["for"] = lasting_for
    if ends is not None:
        body["ends"] = written(instant(ends))
    if starts is not None:
        body["starts"] = written(instant(starts))
    window = daemon.read(daemon.good("POST", "/api/v1/maintenance", body), "id", "ends")
    click.echo(
        f"{window['id']}: maintenance of {', '.join(window['targets'])}"
        f" from {window['starts']} to {window['ends']}"
    )


@maintenance.command("list")
@options.form("table", "json")
@options.asks
def list_(daemon: Asked, form: str) -> None:
    """Show what is planned and what goes on."""
    windows = daemon.get("/api/v1/maintenance", "windows")["windows"]
    if form == "json":
        click.echo(json.dumps(windows, indent=2))
        return
    if not windows:
        click.echo("no maintenance is planned")
        return
    rows = [
        (
            str(window["id"]),
            ", ".join(window["targets"]),
            window["starts"],
            window["ends"],
            window["author"],
            window["reason"],
        )
        for window in sorted(windows, key=lambda window: moment(window["starts"]))
    ]
    head = ("ID", "TARGETS", "STARTS", "ENDS", "BY", "WHY")
    click.echo("\n".join(table(head, rows)))


@maintenance.command(epilog=options.examples("pgbreaker maintenance end 1795688000000"))
@click.argument("window", metavar="ID")
@options.asks
def end(daemon: Asked, window: str) -> None:
    """End the window ID, or call it off."""
    body = {"author": author()}
    daemon.good("DELETE", f"/api/v1/maintenance/{quote(window, safe='')}", body)
    click.echo(f"{window} has ended")
