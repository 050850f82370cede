"""What the web configuration says, as plain objects."""

import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pgbreaker.core.secret import Secret
from pgbreaker.core.units import Seconds
from pgbreaker.web.route import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPlan:
    """How connections are encrypted, and which clients have to show a certificate.

    Attributes:
        certificate: Its chain, in PEM.
        key: Its key, in PEM.
        authorities: Whose certificates of clients are believed, in PEM. None: clients
            are asked for none.
        is_required: Whether a client without a certificate is hung up on.
        names: Subject alternative names, one of which a client's certificate has to
            have. None: it need not.
        least: Oldest version of TLS that is spoken.
        most: Newest version.
        ciphers: Ciphers of TLS 1.2 by OpenSSL's names. None: OpenSSL's choice.
        prefers_ours: Whether our order of ciphers goes before the client's.
        curve: The one curve of the key exchange. None: OpenSSL's choice.
    """

    certificate: bytes
    key: Secret
    authorities: str | None = None
    is_required: bool = False
    names: frozenset[str] | None = None
    least: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: str | None = None
    prefers_ours: bool = True
    curve: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPlan:
    """Who may come in, and how.

    Attributes:
        tls: None: connections are not encrypted.
        headers: What every answer carries, before our own word on it.
        users: Name -> hash of the password, for basic authentication.
        tokens: Name -> SHA-256 of the token in hexadecimal, of programs.
        roles: Name of a user, token or certificate -> what it may do.
        anonymous: What those may do who did not log in, where somebody can.
        interval: Seconds from a request to the next, at the rate that is taken. 0: as
            fast as they come.
        burst: Requests that may come at once all the same.
    """

    tls: TlsPlan | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    anonymous: Role = Role.NOBODY
    interval: Seconds = 0.0
    burst: int = 0

    @property
    def has_logins(self) -> bool:
        """Whether anybody can log in at all."""
        return bool(self.users or self.tokens or self.takes_certificates)

    @property
    def takes_certificates(self) -> bool:
        """Whether clients may show a certificate."""
        return self.tls is not None and self.tls.authorities is not None

    def role_of(self, name: str) -> Role:
        """What somebody may do who logged in as *name*."""
        # Least surprise: exporter-toolkit's users can look at all that there is, and
        # none of its exporters can be told to open anything.
        return self.roles.get(name, Role.VIEWER)


OPEN = WebPlan()
"""What is true without a web configuration."""


def fingerprint(files: Mapping[Path, bytes | None]) -> str:
    """What *files* hold, in few characters; None is a file that is not there."""
    found = hashlib.sha256()
    for path, raw in sorted(files.items()):
        held = b"-" if raw is None else hashlib.sha256(raw).digest()
        found.update(str(path).encode() + b"\0" + held)
    return found.hexdigest()
