"""What is worth telling that moves no breaker: locked out, restarted, another role."""

from collections.abc import Iterator
from typing import Final

from pgbreaker.core.judge import LOGIN, PING
from pgbreaker.core.reading import Finding, Reading, Value
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.hub import Notice

_ROLES: Final = {True: "a replica", False: "a primary"}


def notices(board: TargetBoard, reading: Reading) -> Iterator[Notice]:
    """Compare *reading* with what was true until now."""
    for code, text in (*_of_doors(board, reading), *_of_facts(board, reading)):
        yield Notice(reading.target, code, text, reading.at)


def _of_doors(board: TargetBoard, reading: Reading) -> Iterator[tuple[str, str]]:
    last = board.readings.get(reading.probe)
    before = None if last is None else last.finding
    if reading.probe == PING and reading.finding is Finding.AUTH is not before:
        text = f"the monitor is not let in, which moves no breaker: {reading.evidence}"
        yield "locked_out", text
    if reading.probe == PING and before is Finding.AUTH and reading.answered:
        yield "let_in", "the monitor is let in again"
    if reading.probe == LOGIN and reading.finding is Finding.QUERY is not before:
        yield "logins_wait", str(reading.evidence)


def _of_facts(board: TargetBoard, reading: Reading) -> Iterator[tuple[str, str]]:
    def changed(fact: str) -> tuple[Value, Value] | None:
        """Old and new value, when both are known and differ."""
        if fact not in board.facts or fact not in reading.values:
            return None
        old, new = board.facts[fact], reading.values[fact]
        return None if old == new else (old, new)

    if changed("started"):
        yield "restarted", "the server was restarted"
    if role := changed("in_recovery"):
        yield "role", f"the server is {_ROLES[bool(role[1])]} now"
    if cluster := changed("system_id"):
        yield "cluster", f"another cluster answers: {cluster[1]}, it was {cluster[0]}"
