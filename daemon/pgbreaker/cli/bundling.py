"""`pgbreaker support-bundle`: all that helps to understand, and nothing secret."""

import asyncio
import io
import json
import os
import platform
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final

import click

from pgbreaker import __version__
from pgbreaker.cli import options
from pgbreaker.cli.daemon import Asked
from pgbreaker.cli.ending import FAILED, EndError
from pgbreaker.core.units import counted
from pgbreaker.errors import PgbreakerError

# What the daemon is asked: name in the archive -> address.
_ASKED: Final[Mapping[str, str]] = {
    "status.json": "/api/v1/status",
    "events.json": "/api/v1/events?limit=1000",
    "incidents.json": "/api/v1/incidents",
    "maintenance.json": "/api/v1/maintenance",
    "audit.json": "/api/v1/audit",
    "running-config.json": "/api/v1/config",
    "healthy.json": "/-/healthy",
    "metrics.txt": "/metrics",
}

_PACKAGES: Final = (
    *("aiohttp", "APScheduler", "asyncpg", "bcrypt", "click", "Jinja2", "pydantic"),
    *("opentelemetry-sdk", "prometheus-client", "PyYAML", "SQLAlchemy", "psycopg"),
)


@click.command(
    "support-bundle",
    epilog=options.examples("pgbreaker support-bundle --config pgbreaker.yaml"),
)
@click.argument(
    "file",
    required=False,
    type=click.Path(dir_okay=False, path_type=Path),
)
@click.option(
    "--log",
    "log",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The daemon's log, of which the end is taken along.",
)
@options.asks
def support_bundle(daemon: Asked, file: Path | None, log: Path | None) -> None:
    """Gather what helps to understand into FILE (.tar.gz).

    Versions, the configuration, status, events, metrics, what doctor says, and the
    names, not the values, of the environment. Secrets are left out; look it through
    before you send it on: names of servers and roles are in it.
    """
    file = file or Path(time.strftime("pgbreaker-support-%Y%m%d-%H%M%S.tar.gz"))
    try:
        count = _write(file, _gathered(daemon, log))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EndError(f"{file} cannot be written: {reason}", FAILED) from None
    click.echo(f"{file}: {counted(count, 'file')}; look it through before you send it")


def _write(file: Path, texts: Iterable[tuple[str, str]]) -> int:
    """Write an archive that is not there yet; returns how many files it has."""
    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    count = 0
    with (
        open(number, "wb") as opened,
        tarfile.open(fileobj=opened, mode="w:gz") as archive,
    ):
        for name, text in texts:
            _add(archive, name, text)
            count += 1
    return count


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    raw = text.encode()
    entry = tarfile.TarInfo(f"pgbreaker-support/{name}")
    entry.size, entry.mtime, entry.mode = len(raw), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(raw))


def _gathered(daemon: Asked, log: Path | None) -> Iterator[tuple[str, str]]:
    """Name and text of each file. What cannot be had is said in its place."""
    yield "versions.json", _json(_versions())
    yield "environment.txt", "".join(f"{name}\n" for name in sorted(os.environ))
    for name, address in _ASKED.items():
        yield name, _or_why(partial(_asked, daemon, address))
    if daemon.config is not None:
        yield "config.json", _or_why(partial(_config, daemon.config))
        yield "doctor.json", _or_why(partial(_doctor, daemon.config))
    if log is not None:
        yield "log.txt", _or_why(partial(_end_of, log))


def _or_why(gather: Callable[[], str]) -> str:
    try:
        return gather()
    except EndError as error:
        return f"not to be had: {error.message}\n"
    except (PgbreakerError, OSError) as error:
        return f"not to be had: {error}\n"


def _asked(daemon: Asked, address: str) -> str:
    answer = daemon.ask("GET", address)
    return answer.raw.decode("utf-8", errors="replace")


def _config(path: Path) -> str:
    from pgbreaker import config

    return _json(config.shown(config.load(path)))


_PATIENCE: Final = 2.0  # seconds; where much is down, much is to be waited for


def _doctor(path: Path) -> str:
    from pgbreaker import config
    from pgbreaker.monitor.doctor import ask_all, look_around

    plans = config.load(path).targets
    found = look_around(plans, path) + asyncio.run(ask_all(plans, within=_PATIENCE))
    return _json([asdict(one) for one in found])


_END: Final = 1024 * 1024  # bytes of the log's end


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _END))
        return file.read().decode("utf-8", errors="replace")


def _versions() -> dict[str, Any]:
    return {
        "pgbreaker": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return None


def _json(told: object) -> str:
    return json.dumps(told, indent=2) + "\n"
