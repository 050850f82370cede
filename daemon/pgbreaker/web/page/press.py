"""Writes pages: the templates, and the files that go with them."""

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pgbreaker.core.units import Seconds, counted, lasting, percent
from pgbreaker.web.page.words import neat

CSP: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
"""What a page of ours may load: nothing that does not come from here."""

HEADERS: Final = {
    "Content-Security-Policy": CSP,
    # With `no-referrer` a form says that it comes from nowhere, and is turned away.
    "Referrer-Policy": "same-origin",
}
"""What every page carries."""

_TYPES: Final = {
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


@cache
def statics() -> Mapping[str, tuple[bytes, str]]:
    """Name -> content and media type of each file that pages load."""
    found = {}
    for file in (files("pgbreaker.web.page") / "static").iterdir():
        ending = file.name.rpartition(".")[2]
        if ending in _TYPES:
            found[file.name] = (file.read_bytes(), _TYPES[ending])
    return found


@cache
def edition() -> str:
    """A word that is another whenever one of `statics` is: part of their address, so
    that a browser may keep them for ever."""
    digest = hashlib.sha256()
    for name, (content, _) in sorted(statics().items()):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:12]


def moment(wall: float) -> str:
    """Wall time for a machine: RFC 3339."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clocked(wall: float) -> str:
    """Wall time for people, in UTC: the servers' logs are, too."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def age(seconds: Seconds) -> str:
    """How long ago something was: one unit, rounded down. The script counts on."""
    if seconds < 60:
        return f"{math.floor(seconds)} s"
    if seconds < 3600:
        return f"{math.floor(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{math.floor(seconds / 3600)} h"
    return f"{math.floor(seconds / 86400)} d"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pgbreaker.web.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "moment": moment,
        "clocked": clocked,
        "lasting": lasting,
        "age": age,
        "left": lambda seconds: age(math.ceil(seconds)),
        "neat": neat,
        "percent": percent,
        "ms": lambda wall: int(wall * 1000),
    }
    environment.globals |= {"counted": counted, "edition": edition()}
    return environment


def write(template: str, /, **facts: Any) -> Markup:  # noqa: ANN401 - whatever it shows
    """Fill *template* in. What comes of it is safe: everything in it was escaped."""
    return Markup(_environment().get_template(template).render(**facts).strip())
