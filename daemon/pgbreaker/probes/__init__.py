"""The probes, one a file. To add one: write the file, add the line.

Floor 2. A probe is one function that asks a connection one question and returns
what it saw. It does not judge, time, log or retry.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from pgbreaker.core.reading import Value
from pgbreaker.postgres.target import Connection
from pgbreaker.probes.commit import commit
from pgbreaker.probes.identity import identity
from pgbreaker.probes.login import login
from pgbreaker.probes.ping import ping
from pgbreaker.probes.saturation import saturation

Probe: TypeAlias = Callable[[Connection], Awaitable[Mapping[str, Value]]]

PROBES: Final[Mapping[str, Probe]] = {
    "ping": ping,
    "login": login,
    "commit": commit,
    "identity": identity,
    "saturation": saturation,
}

FRESH: Final = frozenset(("login", "commit"))
"""Probes that ask on a new connection of their own, not on the held one."""

WRITING: Final = frozenset(("commit",))
"""Probes that write, and so must not be held to read-only transactions."""
