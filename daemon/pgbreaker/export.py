"""Hands out what is shipped beside the code, alerts, dashboards, manifests, with the
addresses of those who use it in the place of ours.

The files are text with placeholders at ``example.org``. None of them is ever written with
one left in it: a button in a message that leads nowhere costs minutes at night.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import indent
from typing import Final

from pgbreaker.core.units import counted
from pgbreaker.errors import PgbreakerError
from pgbreaker.shipped import shipped

# Option -> what it is put in the place of. Where a block is of the option's name, it
# goes when the option is not given: not everybody has an address for it.
PLACEHOLDERS: Final[Mapping[str, str]] = {
    "grafana-url": "https://grafana.example.org",
    "runbook-url": "https://runbooks.example.org",
    "watchdog-url": "https://deadman.example.org/pgbreaker",
    "email": "oncall@example.org",
    "smtp": "smtp.example.org:587",
    "image": "registry.example.org/pgbreaker:VERSION",
}
_BLOCKS: Final[Mapping[str, str]] = {"watchdog": "watchdog-url", "email": "email"}

_LEFT: Final = re.compile(r"[\w.-]+[.@]example\.org(?![\w-]|\.\w)")

# What follows an address that others are made of must be ours alone, and what is before
# the @ of one is a password that every message would tell.
_BASE: Final = re.compile(r"https?://[\w.:\[\]-]+(/[\w.~%/-]*)?")
_LIKE: Final[Mapping[str, re.Pattern[str]]] = {
    "grafana-url": _BASE,
    "runbook-url": _BASE,
    "watchdog-url": re.compile(r"https?://[\w.:\[\]-]+([/?][^\s\"'<>{}\\@]*)?"),
    "email": re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"),
    "smtp": re.compile(r"([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}"),
    # What it names must not be another one tomorrow.
    "image": re.compile(
        r"[\w.-]+(:\d{1,5})?(/[\w.-]+)*"
        r"(:(?!latest$)[\w][\w.-]*(@sha256:[\da-f]{64})?|@sha256:[\da-f]{64})"
    ),
}

# Of each kind, what is a beginning for whoever goes on with it, and theirs from then on.
_THEIRS: Final[Mapping[str, frozenset[str]]] = {
    "kubernetes": frozenset({"pgbreaker.yaml"})
}

# The rules of Prometheus are those of its operator, below a head.
_OPERATORS: Final = """\
# Made of pgbreaker.rules.yml by `pgbreaker export kubernetes`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pgbreaker
  labels:
    app.kubernetes.io/name: pgbreaker
    # What your Prometheus selects by, where it does not take all.
    # release: kube-prometheus-stack
spec:
"""


def export(kind: str, into: Path, given: Mapping[str, str], *, force: bool) -> int:
    """Write the files of *kind* below *into*, each at one blow.

    Nothing is written when a placeholder would be left, or what somebody changed be lost.
    A configuration that is there is left as it is, come what may.

    Args:
        given: Option -> address, of those in `PLACEHOLDERS` that were given.
        force: Whether files that are there and say something else are overwritten.

    Returns:
        How many files there are now.

    Raises:
        PgbreakerError: A placeholder would be left; an address is none; a file is there
            that would be overwritten; *into* cannot be written to.
    """
    addresses = {name: _checked(name, text) for name, text in given.items()}
    if "smtp" in addresses and "email" not in addresses:
        raise PgbreakerError("--smtp is of use to --email alone; say that, too")
    made = {path: filled(text, addresses).encode() for path, text in _texts(kind)}
    for path in _THEIRS.get(kind, frozenset()):
        if (into / path).exists():
            del made[path]
    _refuse_left(made)
    try:
        if not force:
            _refuse_edited(into, made)
        for path, text in made.items():
            _write(into / path, text)
    except OSError as error:
        raise PgbreakerError(
            f"cannot write {error.filename or into}: {error.strerror}"
        ) from None
    return len(made)


def _texts(kind: str) -> Iterator[tuple[str, str]]:
    yield from shipped(kind)
    if kind == "kubernetes":
        for path, text in shipped("dashboards"):
            yield f"monitoring/dashboards/{path}", text
        rules = dict(shipped("alerts"))["pgbreaker.rules.yml"]
        yield "monitoring/prometheusrule.yaml", _OPERATORS + indent(rules, "  ")


def _write(place: Path, text: bytes) -> None:
    """Write a file, whoever reads it meanwhile."""
    # Prometheus and Alertmanager are other users, whatever our umask; nothing is secret.
    for folder in reversed([f for f in place.parents if not f.exists()]):
        folder.mkdir()
        folder.chmod(0o755)
    new = place.with_name(f".{place.name}.new")
    new.write_bytes(text)
    new.chmod(0o644)
    os.replace(new, place)


def filled(text: str, given: Mapping[str, str]) -> str:
    """Put the addresses that are *given* in, and take out blocks that need others."""
    for block, option in _BLOCKS.items():
        if option not in given:
            text = re.sub(
                rf"(?ms)^ *# begin: {block}\n.*?^ *# end: {block}\n", "", text
            )
    for option, address in given.items():
        text = text.replace(PLACEHOLDERS[option], address)
    return re.sub(r"(?m)^ *# (begin|end): \w+\n", "", text)


def _checked(option: str, text: str) -> str:
    if not _LIKE[option].fullmatch(text):
        raise PgbreakerError(
            f"--{option} {text!r} is no address of that kind; write it like"
            f" {PLACEHOLDERS[option]}"
        )
    return text.rstrip("/") if _LIKE[option] is _BASE else text


def _refuse_left(made: Mapping[str, bytes]) -> None:
    places = list(_left(made))
    if not places:
        return
    path, line, what = places[0]
    options = [
        f"--{option}"
        for option, placeholder in PLACEHOLDERS.items()
        if any(found in placeholder for _, _, found in places)
    ]
    more = f" and {counted(len(places) - 1, 'more place')}" if len(places) > 1 else ""
    help_ = f"; say {' and '.join(options)}" if options else ""
    raise PgbreakerError(
        f"nothing is written: {what} is left in {path}:{line}{more}{help_}"
    )


def _left(made: Mapping[str, bytes]) -> Iterator[tuple[str, int, str]]:
    for path, text in made.items():
        for number, line in enumerate(text.decode().splitlines(), 1):
            for found in _LEFT.findall(line):
                yield path, number, found


def _refuse_edited(into: Path, made: Mapping[str, bytes]) -> None:
    edited = [
        path
        for path, text in made.items()
        if (into / path).exists() and (into / path).read_bytes() != text
    ]
    if edited:
        more = f" and {len(edited) - 1} more" if len(edited) > 1 else ""
        raise PgbreakerError(
            f"{into / edited[0]}{more} would be overwritten; --force does it"
        )
