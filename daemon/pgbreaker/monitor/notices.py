"""What is worth telling that moves no breaker: locked out, restarted, moved elsewhere."""

from collections.abc import Iterator
from typing import Any, Final

from pgbreaker.core.judge import IDENTITY, LOGIN, PING, SHUT_OUT
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.units import Seconds
from pgbreaker.probes.login import LOGINS_WAIT
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.hub import Notice

# A name can lead to two servers in turn; following it each time would be a storm.
_MOVES_APART: Final[Seconds] = 30.0

_ROLES: Final = {True: "a replica", False: "a primary"}


def notices(board: TargetBoard, reading: Reading) -> Iterator[Notice]:
    """Compare *reading* with what was true until now."""
    for code, text in (*_of_doors(board, reading), *_of_facts(board, reading)):
        yield Notice(reading.target, code, text, reading.at)


def _of_doors(board: TargetBoard, reading: Reading) -> Iterator[tuple[str, str]]:
    last = board.readings.get(reading.probe)
    before = None if last is None else last.finding
    if reading.probe == PING and reading.finding in SHUT_OUT - {before}:
        is_old = reading.finding is Finding.ABSENT
        text = f"the monitor is not let in, which moves no breaker: {reading.evidence}"
        yield ("too_old", str(reading.evidence)) if is_old else ("locked_out", text)
    if reading.probe == PING and before in SHUT_OUT and reading.answered:
        yield "let_in", "the monitor is let in again"
    seen = reading.evidence
    waits = seen is not None and seen.code == LOGINS_WAIT
    if reading.probe == LOGIN and waits and before is not Finding.QUERY:
        yield LOGINS_WAIT, str(seen)
    told = board.notices.get("moved")
    is_news = told is None or reading.at >= told.at + _MOVES_APART
    if (
        reading.probe == LOGIN
        and is_news
        and (other := leads_elsewhere(board, reading))
    ):
        yield "moved", f"a new connection reaches another server: {other}"


def leads_elsewhere(board: TargetBoard, reading: Reading) -> str | None:
    """Say how the server that a new connection reached differs from the one behind the
    held connection, as after a failover; None when it does not.

    Two replicas behind one name are no such case: that is how reads are spread.
    """
    held, seen = board.facts, reading.values
    if "door_started" not in seen or not _is_known(board):
        return None
    if seen["door_system_id"] != held["system_id"]:
        return f"one of the cluster {seen['door_system_id']}, not {held['system_id']}"
    if seen["door_started"] == held["started"]:
        return None  # the same one; it may have been promoted since it was last asked
    role, was = bool(seen["door_in_recovery"]), bool(held["in_recovery"])
    if role is not was:
        return f"{_ROLES[role]}, where {_ROLES[was]} was held"
    another = "another primary of the same cluster, or the same one restarted"
    return None if role else another


def _is_known(board: TargetBoard) -> bool:
    """Whether the server behind the present held connection has said who it is."""
    asked = board.readings.get(IDENTITY)
    is_of_now = asked is not None and asked.answered and asked.at >= board.held_since
    return is_of_now and "started" in board.facts


def _of_facts(board: TargetBoard, reading: Reading) -> Iterator[tuple[str, str]]:
    def changed(fact: str) -> tuple[Any, Any] | None:
        """Old and new value, when both are known and differ."""
        if fact not in board.facts or fact not in reading.values:
            return None
        old, new = board.facts[fact], reading.values[fact]
        return None if old == new else (old, new)

    # A crash makes the server drop its statistics, a clean stop does not; and after the
    # crash of one of its processes the others begin anew under the same postmaster, so
    # that its start time says nothing.
    recovered = changed("counters_since")
    if changed("started"):
        how = ", after a crash: its statistics begin anew" if recovered else ""
        yield "restarted", f"the server was restarted{how}"
    elif recovered and changed("backend_pid"):
        yield "crashed", "one of the server's processes crashed, and all began anew"
    if role := changed("in_recovery"):
        yield "role", f"the server is {_ROLES[bool(role[1])]} now"
    if cluster := changed("system_id"):
        yield "cluster", f"another cluster answers: {cluster[1]}, it was {cluster[0]}"
    is_blind = reading.values.get("is_monitor") is False
    if is_blind and board.facts.get("is_monitor") is not False:
        yield "blind", "the role lacks pg_monitor: what others' sessions do is not seen"
