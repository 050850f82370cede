"""How states look and read: a tone, a sign and a word; never a colour alone."""

from dataclasses import dataclass
from typing import Final

from pgbreaker.core.entry import Kind
from pgbreaker.core.states import State
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.sinks.board import Condition


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown.

    Attributes:
        word: What it is called.
        tone: ``good``, ``bad``, ``warn``, ``hand`` (somebody's word) or ``dim``.
        sign: Name of its shape.
        rank: Its place when the worst comes first.
    """

    word: str
    tone: str
    sign: str
    rank: int


STATES: Final = {
    State.OPEN: Look("open", "bad", "cross", 0),
    State.FORCED_OPEN: Look("forced open", "hand", "bar", 1),
    State.HALF_OPEN: Look("half-open", "warn", "half", 2),
    State.DISABLED: Look("disabled", "hand", "ring", 5),
    State.METRICS_ONLY: Look("metrics only", "hand", "eye", 5),
    State.CLOSED: Look("closed", "good", "check", 9),
}

FORCED_CLOSED: Final = Look("forced closed", "hand", "lock", 5)

CONDITIONS: Final = {
    Condition.DOWN: Look("down", "bad", "cross", 0),
    Condition.DEGRADED: Look("degraded", "warn", "triangle", 3),
    Condition.UNKNOWN: Look("unknown", "dim", "question", 4),
    Condition.UP: Look("up", "good", "check", 9),
}


def neat(seconds: Seconds) -> str:
    """A duration that somebody has set: ``10 s``, not ``10.0 s``."""
    if 1 <= seconds < 60:
        return f"{seconds:g} s"
    return lasting(seconds).removesuffix(" 0 s").removesuffix(" 0 min")


KINDS: Final = {
    Kind.TRANSITION: "transitions",
    Kind.OVERRIDE: "overrides",
    Kind.MAINTENANCE: "maintenance",
    Kind.NOTICE: "notices",
    Kind.PAUSE: "pauses",
    Kind.RELOAD: "reloads",
    Kind.NOTE: "notes",
    Kind.DAEMON: "daemon",
}
"""Kinds of entries, as the filter names them."""
