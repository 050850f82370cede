"""The block ``peers``: from its shape to what the daemon runs by."""

import re
import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pgbreaker.config.document import Document
from pgbreaker.config.files import CannotReadError, beside, content, password_size
from pgbreaker.config.shape import PeersShape
from pgbreaker.core.plan import EnginePlan, PeersPlan
from pgbreaker.core.secret import Secret
from pgbreaker.core.units import Seconds, lasting

_MOST: Final = 100  # daemons that watch a target
_LONGEST: Final[Seconds] = 60.0  # a lease
_SHORTEST: Final[Seconds] = 1.0  # a lease: there are five beats in it
_TIMEOUTS: Final = 4  # in a lease: a beat that is late must not end it


def peers_of(peers: PeersShape, document: Document, folder: Path) -> PeersPlan:
    """Make the plan; what is wrong is noted with its place in *document*.

    Args:
        folder: Where the paths in it begin.
    """
    engine = EnginePlan(
        url=Secret(peers.url),
        password_file=peers.password_file and beside(folder, peers.password_file),
        ca_file=peers.ca_file and beside(folder, peers.ca_file),
        cert_file=peers.cert_file and beside(folder, peers.cert_file),
        key_file=peers.key_file and beside(folder, peers.key_file),
        prefix=peers.prefix,
        timeout=peers.timeout,
        lease=peers.lease,
    )
    _check_files(engine, peers, document)
    _check_times(engine, document)
    _check_quorum(peers, document)
    return PeersPlan(
        engine=engine,
        name=peers.name or _host(document),
        watchers=peers.watchers,
        quorum=peers.quorum,
    )


def shown_url(url: str) -> str:
    """The engine's address, without the password in it."""
    return re.sub(r"(?<=//)([^@/:]*):.*@", r"\1@", url)


def _check_files(engine: EnginePlan, peers: PeersShape, document: Document) -> None:
    parts, is_told = urlsplit(peers.url), not document.is_spoilt(("peers", "url"))
    for key in ("ca_file", "cert_file", "key_file"):
        path = getattr(engine, key)
        if path is None or document.is_spoilt(("peers", key)):
            continue
        other = {"cert_file": "key_file", "key_file": "cert_file"}.get(key, key)
        if is_told and parts.scheme != "rediss":
            document.complain(("peers", key), "of no use without TLS; write rediss://")
        elif getattr(engine, other) is None:
            document.complain(("peers", key), f"of no use without {other}")
        else:
            _complain_of(document, key, path)
    path = engine.password_file
    if path is None or document.is_spoilt(("peers", "password_file")):
        return
    if is_told and parts.password:
        text = "there is a password in the url already; write it in one place"
        document.complain(("peers", "password_file"), text)
    _complain_of(document, "password_file", path, holds="password")


def _complain_of(document: Document, key: str, path: Path, holds: str = "") -> None:
    """Note what is wrong with a file, by whose name nothing else is shown."""
    said = f"{str(path)!r}" if "/" in str(path) else "the file"
    try:
        if holds and password_size(path) == 0:
            document.complain(("peers", key), f"{said} is empty")
        content(path, 0)
    except CannotReadError as error:
        document.complain(("peers", key), f"{said} cannot be read: {error}")


def _check_times(engine: EnginePlan, document: Document) -> None:
    if document.is_spoilt(("peers", "timeout")):
        return
    longest, least = _LONGEST / _TIMEOUTS, _TIMEOUTS * engine.timeout
    if engine.timeout > longest:
        text = f"{lasting(engine.timeout)} is too long; at most {lasting(longest)}"
        document.complain(("peers", "timeout"), text)
    elif not max(least, _SHORTEST) <= engine.lease <= _LONGEST:
        said = f"{_TIMEOUTS} timeouts ({lasting(least)})"
        if least < _SHORTEST:
            said = lasting(_SHORTEST)
        text = f"{lasting(engine.lease)} is not between {said} and {lasting(_LONGEST)}"
        document.complain(("peers", "lease"), text)


def _check_quorum(peers: PeersShape, document: Document) -> None:
    if peers.watchers > _MOST:
        text = f"{peers.watchers} watchers; at most {_MOST} are taken"
        document.complain(("peers", "watchers"), text)
    if document.is_spoilt(("peers", "watchers")):
        return
    if peers.quorum is not None and peers.quorum > peers.watchers:
        text = f"{peers.quorum} of {peers.watchers} watchers can never be reached"
        document.complain(("peers", "quorum"), text)


def _host(document: Document) -> str:
    """What the host is called, as a name of ours."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:63]
    if not host:
        document.complain(("peers", "name"), "the host has no name; write one")
    return host or "nameless"
