"""What is no mistake and yet not as it should be: secrets that others can read, and those
that are there and not used; a door without a lock; what will not be done."""

import os
import stat
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pgbreaker.config.dsn import has_password
from pgbreaker.core.judge import PGBOUNCER
from pgbreaker.core.plan import Config, TargetPlan
from pgbreaker.core.secret import Secret


def cautions(config: Config, env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Say it, a line each, such as ``targets.primary.password_file: ...``."""
    lines = [line for plan in config.targets for line in _of_target(plan, env)]
    lines += _of_the_rest(config, env)
    return tuple(dict.fromkeys(lines))


def _of_the_rest(config: Config, env: Mapping[str, str]) -> Iterator[str]:
    if config.haproxy is not None and not _is_here(config.haproxy.listen[0]):
        yield "haproxy.listen: other machines reach it, and nobody has to log in; let HAProxy alone through"
    if config.store is None and not env.get("STATE_DIRECTORY"):
        for plan in config.targets:
            if plan.pause is not None:
                yield f"targets.{plan.name}.pgbouncer.pause: nothing is paused without a store, unless the service manager makes room for one ($STATE_DIRECTORY)"


def _is_here(host: str) -> bool:
    """Whether *host* is this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_target(plan: TargetPlan, env: Mapping[str, str]) -> Iterator[str]:
    where = f"targets.{plan.name}"
    yield from _of_address(where, plan.dsn, plan.password_file, env)
    folder = env.get("CREDENTIALS_DIRECTORY")
    if folder and plan.password_file is None and (Path(folder) / plan.name).is_file():
        yield f"{where}.dsn: the credential {plan.name!r} is not used, for a password is in the dsn"
    pooler = plan.probes.get(PGBOUNCER)
    if pooler is not None and pooler.address is not None:
        place = f"{where}.pgbouncer"
        yield from _of_address(place, pooler.address, pooler.password_file, env)
    if plan.pause is not None:
        place = f"{where}.pgbouncer.pause"
        yield from _of_address(place, plan.pause.address, plan.pause.password_file, env)


def _of_address(
    where: str, address: Secret, file: Path | None, env: Mapping[str, str]
) -> Iterator[str]:
    if file is not None:
        mode = _mode(file)
        if mode is not None and mode & stat.S_IRWXO:
            yield f"{where}.password_file: '{file}' can be read by everybody (mode {mode:04o}); chmod o= {file}"
        return
    dsn = address.reveal()
    if has_password(dsn) or env.get("PGPASSWORD"):
        return
    noted = _passfile(dsn, env)
    mode = _mode(noted)
    if mode is not None and mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield f"{where}: '{noted}' is not used, for others than its owner can read it (mode {mode:04o}); chmod 600 {noted}"


def _passfile(dsn: str, env: Mapping[str, str]) -> Path:
    said = dict(parse_qsl(urlsplit(dsn).query)).get("passfile")
    file = said or env.get("PGPASSFILE")
    return Path(file) if file else Path(env.get("HOME", "/")) / ".pgpass"


def _mode(path: Path) -> int | None:
    """Who may do what with *path*; None when there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return stat.S_IMODE(found.st_mode) if stat.S_ISREG(found.st_mode) else None
