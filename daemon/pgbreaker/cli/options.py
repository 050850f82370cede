"""What several commands take."""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias

import click

from pgbreaker.cli.daemon import Asked

Command: TypeAlias = Callable[..., Any]

config = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="PGBREAKER_CONFIG",
    show_envvar=True,
    help="The configuration file.",
)
dsn = click.option(
    "--dsn",
    envvar="PGBREAKER_DSN",
    show_envvar=True,
    help="This one server, without a file.",
)
listen = click.option(
    "--listen", metavar="HOST:PORT", help="Listen here, whatever the file says."
)


def examples(*lines: str) -> str:
    """The end of a command's help, each example on its line."""
    head = "Example:" if len(lines) == 1 else "Examples:"
    return "\n".join(("\b", head, *(f"  {line}" for line in lines)))


def form(*forms: str) -> Callable[[Command], Command]:
    """``-o``, with the first of *forms* unless another is asked for."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(forms),
        default=forms[0],
        show_default=True,
        help="How to print it.",
    )


def asks(command: Command) -> Command:
    """Give a command that asks a daemon what says which: its argument ``daemon``."""

    @click.option(
        "--url",
        metavar="URL",
        help="Where the daemon listens: http://, https:// or unix:/path."
        "  [env var: PGBREAKER_URL]",
    )
    @config
    @click.option(
        "--ca",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="PGBREAKER_CA",
        show_envvar=True,
        help="Certificates to trust the daemon by.",
    )
    @click.option("-v", "--verbose", is_flag=True, help="Say which daemon is asked.")
    @wraps(command)
    def asking(
        *args: Any,  # noqa: ANN401 - the command's own
        url: str | None,
        path: Path | None,
        ca: Path | None,
        verbose: bool,
        **more: Any,  # noqa: ANN401 - the command's own
    ) -> Any:  # noqa: ANN401
        asked = Asked.found(url, path, os.environ, ca=ca)
        if verbose:
            click.echo(f"asking {asked.place}", err=True)
        return command(asked, *args, **more)

    return asking
