"""`pgbreaker init`: a configuration to begin with, each line explained."""

import asyncio
import os
import re
from json import dumps
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import click

from pgbreaker.cli import options
from pgbreaker.cli.ending import FAILED, EndError


@click.command(
    epilog=options.examples("pgbreaker init --from-dsn postgresql://pgbreaker@db1/app")
)
@click.argument(
    "file",
    default="pgbreaker.yaml",
    type=click.Path(dir_okay=False, path_type=Path),
)
@click.option(
    "--from-dsn",
    "dsn",
    metavar="DSN",
    help="Write it for this server, which is asked what it is.",
)
@click.option("--force", is_flag=True, help="Overwrite what is there.")
def init(file: Path, dsn: str | None, force: bool) -> None:
    """Write a configuration to begin with.

    Into FILE, pgbreaker.yaml unless it is said, with a comment on each key. A password
    in the DSN goes into a file of its own beside it, which only you can read.
    """
    from pgbreaker import config

    text = config.starter(dsn)
    if dsn is None:
        _write(file, text, 0o644, force=force)
        click.echo(f"{file}: written; put your server into it")
        return
    name = config.for_dsn(dsn).targets[0].name
    is_replica, said = asyncio.run(_met(dsn))
    if is_replica:
        text = _OPERATIONS.sub("    operations: [connect, read]\n", text)
    password = password_of(dsn)
    beside = file.with_name(f"{name}.password").absolute()
    if password is not None:
        line = f"    password_file: {dumps(str(beside))}\n"
        text = _PASSWORD.sub(lambda _: line, text)
        _write(beside, password + "\n", 0o600, force=force)
    _write(file, text, 0o644, force=force)
    click.echo(f"{file}: written for {name}{said}")
    if password is not None:
        click.echo(f"{beside}: its password, for you alone to read")
    click.echo(f"next: pgbreaker check-config {file} --connect")


# What the starter leaves to be said.
_OPERATIONS: Final = re.compile(r"^    # operations: .*\n", re.M)
_PASSWORD: Final = re.compile(r"^(?:    # .*\n)*    # password_file: .*\n", re.M)


def password_of(dsn: str) -> str | None:
    """The password that stands in a DSN. None: there is none in it."""
    parts = urlsplit(dsn)
    if parts.password is not None:
        return unquote(parts.password)
    return dict(parse_qsl(parts.query)).get("password")


async def _met(dsn: str) -> tuple[bool, str]:
    """Whether the server is a replica, and what is to be said of how it answered."""
    from pgbreaker.postgres.failures import read_failure
    from pgbreaker.postgres.wire import Wire

    try:
        async with asyncio.timeout(5.0):
            wire = await Wire.connect(
                dsn, settings={"application_name": "pgbreaker/init"}
            )
            try:
                (row,) = await wire.query("SELECT pg_is_in_recovery() AS is_replica")
            finally:
                await wire.close()
    except Exception as error:  # noqa: BLE001 - it need not be there yet
        _, evidence = read_failure(error, probe="login", connecting=True)
        return False, f", which was not met: {evidence}"
    is_replica = row["is_replica"] == "t"
    return is_replica, f", {'a replica' if is_replica else 'a primary'}"


def _write(path: Path, text: str, mode: int, *, force: bool) -> None:
    """Write a file that is only then there when it is whole.

    Raises:
        EndError: It is there already, or cannot be written.
    """
    if path.exists() and not force:
        raise EndError(f"{path} is there already; --force overwrites it", FAILED)
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(new, path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EndError(f"{path} cannot be written: {reason}", FAILED) from None
