"""What is remembered of a breaker while no process has it, fit for JSON.

Moments are of one process's clock and mean nothing to the next, so they are written as
how long ago, or how far ahead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgbreaker.core.remembered import (
    number,
    number_or_none,
    reading,
    text,
    whole,
    wholes,
)
from pgbreaker.core.states import MOVES, Cause, Evidence, State
from pgbreaker.core.units import Seconds

VERSION: Final = 1
"""Of what is written: another one is not read."""

Bucket = tuple[int, int, int]
"""Successes, failures, slow calls."""

_LEADS_TO: Final = {(cause, after) for (_, cause), after in MOVES.items()}
_MOST: Final = 2**32 - 1  # calls that a bucket of the window can count
_SLACK: Final[Seconds] = 1e-3  # of sums of floats that began equal


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowMemory:
    """What a window held.

    Attributes:
        length: Seconds that it covered.
        edge_in: Seconds until its current bucket ended; below 0 when it had.
        buckets: Its buckets, the oldest first, the current one last.
        past: What it had forgotten, since the beginning.
    """

    length: Seconds
    edge_in: Seconds
    buckets: tuple[Bucket, ...]
    past: Bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered of one breaker. Its operator's word is not: who gave it knows.

    Attributes:
        since_ago: Seconds since the machine moved last.
        left_closed_ago: Seconds since calls last ceased to pass. None: never.
        heard_ago: Seconds since a success was last heard of.
        until_in: Seconds until the opening ended; below 0 when it had.
        counted: Name -> calls since the beginning, of those that no window sees.

    The others are as the breaker has them.
    """

    state: State
    cause: Cause | None
    reason: str
    evidence: Evidence | None
    since_ago: Seconds
    left_closed_ago: Seconds | None
    heard_ago: Seconds
    until_in: Seconds
    wait: Seconds
    round: int
    run: int
    starved: int
    good: int
    barren: int
    local: bool
    ramping: bool
    counted: Mapping[str, int]
    window: WindowMemory

    def written(self) -> dict[str, Any]:
        """Write it, fit for JSON."""
        seen, window = self.evidence, self.window
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {
            "version": VERSION,
            "state": self.state.value,
            "cause": None if self.cause is None else self.cause.value,
            "reason": self.reason,
            "evidence": None
            if seen is None
            else {
                "code": seen.code,
                "text": seen.text,
                "sqlstate": seen.sqlstate,
                "probe": seen.probe,
                "hint": seen.hint,
            },
            **plain,
            "counted": dict(self.counted),
            "window": {
                "length": window.length,
                "edge_in": window.edge_in,
                "buckets": [list(bucket) for bucket in window.buckets],
                "past": list(window.past),
            },
        }


_AGES: Final = ("since_ago", "heard_ago", "wait")
_COUNTS: Final = ("round", "run", "starved", "good", "barren")
_FACTS: Final = ("local", "ramping")
_PLAIN: Final = (*_AGES, "until_in", "left_closed_ago", *_COUNTS, *_FACTS)

COUNTED: Final = ("rejected", "late", "cut", "ignored", "unreached", "released")
"""The names of `Memory.counted`."""


@reading("memory of a breaker")
def read(memory: Mapping[str, Any]) -> Memory:
    """Read what `Memory.written` wrote.

    Raises:
        ValueError: It did not write this, or another version did.
    """
    if memory["version"] != VERSION:
        raise ValueError(f"version {memory['version']!r} of memory is not {VERSION}")
    state = State(memory["state"])
    cause = None if memory["cause"] is None else Cause(memory["cause"])
    is_new = cause is None and state is State.CLOSED
    if not is_new and (cause, state) not in _LEADS_TO:
        raise ValueError(f"cause {memory['cause']!r} does not lead to {state.value}")
    known = Memory(
        state=state,
        cause=cause,
        reason=text(memory["reason"], "reason"),
        evidence=_evidence(memory["evidence"]),
        left_closed_ago=number_or_none(
            memory["left_closed_ago"], "left_closed_ago", 0.0
        ),
        until_in=number(memory["until_in"], "until_in"),
        counted={name: whole(memory["counted"][name], name) for name in COUNTED},
        window=_window(memory["window"]),
        **{name: number(memory[name], name, 0.0) for name in _AGES},  # type: ignore[arg-type]
        **{name: whole(memory[name], name) for name in _COUNTS},  # type: ignore[arg-type]
        **{name: _fact(memory, name) for name in _FACTS},
    )
    if known.until_in > known.wait + _SLACK:
        raise ValueError(f"until_in {known.until_in:g} is longer than the opening")
    return known


def _evidence(seen: Mapping[str, Any] | None) -> Evidence | None:
    if seen is None:
        return None
    return Evidence(
        text(seen["code"], "code"),
        text(seen["text"], "text"),
        None if seen["sqlstate"] is None else text(seen["sqlstate"], "sqlstate"),
        None if seen["probe"] is None else text(seen["probe"], "probe"),
        number(seen["hint"], "hint", 0.0),
    )


def _window(window: Mapping[str, Any]) -> WindowMemory:
    buckets = tuple(_bucket(bucket, _MOST) for bucket in window["buckets"])
    length = number(window["length"], "length", 0.0)
    edge_in = number(window["edge_in"], "edge_in")
    if not buckets or edge_in > length / len(buckets) + _SLACK:
        raise ValueError("the window is none")
    return WindowMemory(
        length=length,
        edge_in=edge_in,
        buckets=buckets,
        past=_bucket(window["past"], 2**63),
    )


def _bucket(bucket: object, most: int) -> Bucket:
    ok, failed, slow = wholes(bucket, "bucket", 3, 0, most)
    if slow > ok + failed:
        raise ValueError(f"bucket {bucket!r} has more slow calls than calls")
    return ok, failed, slow


def _fact(of: Mapping[str, Any], name: str) -> bool:
    fact = of[name]
    if not isinstance(fact, bool):
        raise TypeError(f"{name} {fact!r} is neither true nor false")
    return fact
