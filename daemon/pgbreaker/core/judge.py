"""What a reading means for each kind of work on its target.

The whole of it is two tables. A success speaks for the one operation that the probe
tries; a failure speaks for as many as it proves dead: a login refused while the held
connection still answers is news of logins alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Outcome

OPERATIONS: Final = ("connect", "read", "write")
"""The kinds of work that have a breaker each on a target."""

PING, LOGIN, COMMIT, IDENTITY = "ping", "login", "commit", "identity"

# The probe that tries the very thing the operation stands for; the first of a row
# that the target has. Without a commit probe, not being in recovery must do.
DECIDING: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "connect": (LOGIN, PING),
        "read": (PING,),
        "write": (COMMIT, IDENTITY, PING),
    }
)

GONE: Final = frozenset(
    (
        Finding.TIMEOUT,
        Finding.REFUSED,
        Finding.LOST,
        Finding.UNRESOLVED,
        Finding.STARTING,
    )
)
"""Findings that mean: no work of this kind is being done."""

# Whatever the probe, these speak for one operation only: a full server still serves
# its sessions (53300), a read-only one still reads (25006).
_NARROW: Final[Mapping[Finding, str]] = MappingProxyType(
    {Finding.FULL: "connect", Finding.WRONG_ROLE: "write"}
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reading says of each operation; operations not named: nothing.

    Attributes:
        outcomes: Operation -> what a call of this kind would have come to.
        confirmed: Whether a failure here opens at once.
        slow: Whether the answer took long enough to count as slow.
    """

    outcomes: Mapping[str, Outcome]
    confirmed: bool = False
    slow: bool = False


def deciding(probes: frozenset[str]) -> Mapping[str, str]:
    """Name the deciding probe of each operation, of those a target has."""
    return {
        operation: next(probe for probe in candidates if probe in probes)
        for operation, candidates in DECIDING.items()
        if not probes.isdisjoint(candidates)
    }


def judge(reading: Reading, decides: Mapping[str, str]) -> Verdict:
    """Say what *reading* means for each operation.

    Args:
        decides: Operation -> name of its deciding probe on this target, as
            `deciding` gives it.
    """
    own = [operation for operation, probe in decides.items() if probe == reading.probe]
    if reading.answered:
        good = dict.fromkeys(own, Outcome.SUCCESS)
        return Verdict(good, slow=reading.finding is Finding.SLOW)
    failed = dict.fromkeys(_failed(reading, own), Outcome.FAILURE)
    # A role is what the server says of itself: there is nothing to confirm.
    certain = reading.confirmed or reading.finding is Finding.WRONG_ROLE
    return Verdict(failed, confirmed=certain)


def _failed(reading: Reading, own: list[str]) -> list[str]:
    finding = reading.finding
    if finding in _NARROW:
        return [_NARROW[finding]]
    if finding in GONE and reading.probe == PING and reading.confirmed:
        return list(OPERATIONS)  # neither an old nor a new connection answers
    if finding in GONE or finding is Finding.SYSTEM:
        return own
    # AUTH is a mistake in a configuration, QUERY one in the question, or our own
    # lock_timeout at work: neither says that others' calls fail.
    return []
