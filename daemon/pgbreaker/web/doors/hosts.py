"""By which name we were asked, and whose page it was that asked.

The threat is the browser of somebody who may reach the daemon, while it shows a page of
somebody who may not. That page cannot read our answers (we allow no other origin), but
it can send forms, and it can have its own name resolve to our address ("DNS
rebinding"): then its origin is ours, as far as the browser knows.

Rebinding needs a name. So, listening on loopback, where nobody has to log in, we answer
to the names of this machine, to addresses, and to those of ``http.allowed_hosts``.
Listening beyond, we answer to any name, as long as ``allowed_hosts`` is empty: scrapers
come by names that we cannot know; nothing can be changed there without logging in,
passwords are never sent by a browser to another name than they were given for; and
what can be read without one is open to the whole network by choice. Once there are
``allowed_hosts``, they hold. A browser cannot reach a Unix socket.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

# A name or an address, and a port: of ``[::1]evil.example`` urllib sees the first part.
_HOST: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._~%-]+)?\]|[A-Za-z0-9._~%-]+)(:\d*)?"
)
_FORMS: Final = (
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
)


def host_of(header: str) -> str | None:
    """The name in a ``Host`` header, without its port; None: it is none."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # has to be one
    except ValueError:
        return None
    if not _HOST.fullmatch(header):
        return None
    return parts.hostname.rstrip(".") if parts.hostname else None


def is_loopback(host: str) -> bool:
    """Whether *host*, to listen on, is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Hosts:
    """The names that we answer to."""

    def __init__(self, listen: str, allowed: Iterable[str]) -> None:
        self._allowed = {host_of(name) or name.lower() for name in allowed}
        self._is_loopback = is_loopback(listen)

    def answers_to(self, header: str | None) -> bool:
        """Whether a request for this ``Host`` is answered."""
        if header is None:
            return True  # HTTP/1.0: no browser
        host = host_of(header)
        if host is None:
            return False
        if not self._is_loopback and not self._allowed:
            return True
        return host in self._allowed or _is_here(host) or _is_address(host)

    def wrong_with_origin(
        self, origin: str | None, site: str | None, header: str | None
    ) -> str | None:
        """Say why a change may not come from there; None when it may.

        Args:
            origin: ``Origin``, which browsers send with every change; None: no browser.
            site: ``Sec-Fetch-Site``, which newer ones send besides.
            header: ``Host``.
        """
        if site not in (None, "same-origin", "none"):
            return f"it comes from another site ({site})"
        if origin is None:
            return None
        page = origin.partition("://")[2].lower()
        host = host_of(page) if page else None
        if host is None:
            return "it comes from a page without an origin"
        if header is not None and page == header.lower():
            return None
        # Behind a proxy that asks us by another name than it was asked by.
        if host in self._allowed:
            return None
        return f"it comes from a page of {page}; http.allowed_hosts lists ours"


def is_form(content_type: str) -> bool:
    """Whether a form of any site can send this without asking."""
    return content_type in _FORMS


def _is_here(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
