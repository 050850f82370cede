"""What a reading means for each kind of work on its target.

The whole of it is two tables. A success speaks for the one operation that the probe
tries; a failure speaks for as many as it proves dead: a login refused while the held
connection still answers is news of logins alone.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, Outcome

SERVED: Final = ("connect", "read", "write")
"""The kinds of work that a server itself does."""

OPERATIONS: Final = (*SERVED, "pool")
"""The kinds of work that have a breaker each on a target; ``pool`` is getting a
connection from its pooler."""

PING, LOGIN, COMMIT, IDENTITY = "ping", "login", "commit", "identity"
LATENCY, REPLICATION, PGBOUNCER = "latency", "replication", "pgbouncer"
SATURATION: Final = "saturation"

# The probe that tries the very thing the operation stands for; the first of a row
# that the target has. Without a commit probe, not being in recovery must do.
DECIDING: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "connect": (LOGIN, PING),
        "read": (PING,),
        "write": (COMMIT, IDENTITY, PING),
        "pool": (PGBOUNCER,),
    }
)

# Probes that decide besides, where the user said how bad their answer may be: a read
# that is slow or stale is no read.
DECIDES_BESIDES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"read": (LATENCY, REPLICATION)}
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

SHUT_OUT: Final = frozenset((Finding.AUTH, Finding.ABSENT))
"""Findings of a ping that mean: the monitor cannot look, whatever it does for others."""

_BAD: Final = GONE | {
    Finding.FULL,
    Finding.SYSTEM,
    Finding.LAGGING,
    Finding.WAITING,
    Finding.SYNC_REP,
}
"""Findings that speak against what the probe stands for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reading says of each operation; operations not named: nothing.

    Attributes:
        outcomes: Operation -> what a call of this kind would have come to.
        confirmed: Whether a failure here opens at once.
        slow: Whether the answer took long enough to count as slow.
        evidence: What was seen, for a failure.
    """

    outcomes: Mapping[str, Outcome]
    confirmed: bool = False
    slow: bool = False
    evidence: Evidence | None = None


def deciding(
    probes: Mapping[str, ProbePlan], mute: Container[str] = ()
) -> Mapping[str, tuple[str, ...]]:
    """Name the deciding probes of each operation, of those that a target has.

    Args:
        mute: Probes that cannot tell just now: a login that our own role's limit keeps
            out, a commit that we may not make. Where there is another, it decides.
    """
    return {
        operation: found
        for operation in OPERATIONS
        if (found := tuple(_deciding(operation, probes, mute)))
    }


def _deciding(
    operation: str, probes: Mapping[str, ProbePlan], mute: Container[str]
) -> Iterator[str]:
    there = [probe for probe in DECIDING[operation] if probe in probes]
    yield from ([probe for probe in there if probe not in mute] or there)[:1]
    for probe in DECIDES_BESIDES.get(operation, ()):
        if probe in probes and probes[probe].limit is not None:
            yield probe


def is_bad(reading: Reading) -> bool:
    """Whether *reading* speaks against the server, or against what the probe stands
    for. Other readings without an answer only say that there was nothing to see."""
    return reading.finding in _BAD or _is_too_slow(reading)


def is_of_role(evidence: Evidence | None) -> bool:
    """Whether a breaker opens, or is open, by what the server says of itself: that is no
    trouble, and can last for ever."""
    return evidence is not None and evidence.code == Finding.WRONG_ROLE


def is_mute(reading: Reading) -> bool:
    """Whether *reading* says nothing, neither good nor bad, of what its probe tries."""
    is_telling = reading.answered or is_bad(reading)
    return not is_telling and reading.finding is not Finding.WRONG_ROLE


def judge(reading: Reading, decides: Mapping[str, tuple[str, ...]]) -> Verdict:
    """Say what *reading* means for each operation.

    Args:
        decides: Operation -> names of its deciding probes on this target, as
            `deciding` gives them.
    """
    own = [
        operation for operation, probes in decides.items() if reading.probe in probes
    ]
    if reading.answered and not _is_too_slow(reading):
        return _judge_answer(reading, own)
    failed = dict.fromkeys(_failed(reading, own), Outcome.FAILURE)
    # A role is what the server says of itself: there is nothing to confirm.
    certain = reading.confirmed or reading.finding is Finding.WRONG_ROLE
    return Verdict(failed, confirmed=certain, evidence=reading.evidence)


def _judge_answer(reading: Reading, own: list[str]) -> Verdict:
    is_replica = reading.probe == IDENTITY and reading.values.get("in_recovery")
    if is_replica and "write" in own:
        why = "the server is in recovery: it takes no writes"
        evidence = Evidence(Finding.WRONG_ROLE.value, why, "25006", IDENTITY)
        failed = {"write": Outcome.FAILURE}
        return Verdict(failed, confirmed=True, evidence=evidence)
    good = dict.fromkeys(own, Outcome.SUCCESS)
    return Verdict(good, slow=reading.finding is Finding.SLOW)


def _is_too_slow(reading: Reading) -> bool:
    """Whether it answered later than its user has use for it. A slow ping is for the
    window to weigh; of a canary there are too few for a window."""
    return reading.probe == LATENCY and reading.finding is Finding.SLOW


def _failed(reading: Reading, own: list[str]) -> list[str]:
    finding = reading.finding
    if finding is Finding.FULL and reading.probe != PGBOUNCER:
        return ["connect"]  # whatever was asked: who is in is still served (53300)
    if finding is Finding.WRONG_ROLE:
        # Reads go on (25006). Any other probe's session is read-only by our own doing.
        return [operation for operation in own if operation == "write"]
    if finding in GONE and reading.probe == PING and reading.confirmed:
        return list(SERVED)  # neither an old nor a new connection answers
    # AUTH is a mistake in a configuration, QUERY one in the question, or our own
    # lock_timeout at work; DENIED and ABSENT say that there is nothing to see. None
    # says that others' calls fail.
    return own if is_bad(reading) else []
