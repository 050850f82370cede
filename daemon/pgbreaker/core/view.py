"""Views: what one daemon thinks of one breaker, as it tells the others.

What a daemon told holds while its lease does, without being said again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pgbreaker.core import memory as memories
from pgbreaker.core.advice import Opinion
from pgbreaker.core.condition import Condition
from pgbreaker.core.remembered import number, reading, text, whole
from pgbreaker.core.states import State

_LONGEST: Final = 500  # characters of a text


def target_of(breaker: str) -> str:
    """The target of a daemon's breaker, by its name."""
    return breaker.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one daemon thinks of one breaker.

    Attributes:
        breaker: Its name, ``TARGET/OPERATION``.
        opinion: What is thought of the work that it stands for.
        state: What its machine decided.
        reason: Why, in one sentence.
        sqlstate: What the server itself said of it. None: it did not speak.
        is_definite: Whether the server said so itself, as `Advice.is_definite` has it.
        condition: How the target is.
        token: Number of the daemon's lease when it was said.
        at: Wall time of the engine at which it was said, in seconds.
        memory: What the breaker remembers: whoever takes the target over goes on there.
    """

    breaker: str
    opinion: Opinion
    state: State
    reason: str
    sqlstate: str | None
    is_definite: bool
    condition: Condition
    token: int
    at: float
    memory: Mapping[str, Any]

    @property
    def target(self) -> str:
        """Name of the target."""
        return target_of(self.breaker)

    def written(self) -> dict[str, Any]:
        """Write it, fit for JSON."""
        return {
            "breaker": self.breaker,
            "opinion": self.opinion.value,
            "state": self.state.value,
            "reason": self.reason[:_LONGEST],
            "sqlstate": self.sqlstate,
            "authoritative": self.is_definite,
            "condition": self.condition.value,
            "token": self.token,
            "at": round(self.at, 6),
            "memory": self.memory,
        }


@reading("view")
def read(written: object) -> View:
    """Read what `View.written` wrote, by whatever daemon.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(written, Mapping):
        raise TypeError(f"it is a {type(written).__name__}")
    sqlstate = written["sqlstate"]
    view = View(
        breaker=_text(written, "breaker"),
        opinion=Opinion(written["opinion"]),
        state=State(written["state"]),
        reason=_text(written, "reason"),
        sqlstate=None if sqlstate is None else _text(written, "sqlstate"),
        is_definite=written["authoritative"] is True,
        condition=Condition(written["condition"]),
        token=whole(written["token"], "token"),
        at=number(written["at"], "at"),
        memory=written["memory"],
    )
    memories.read(view.memory)  # whoever takes it over must be able to
    return view


def _text(of: Mapping[str, Any], name: str) -> str:
    return text(of[name], name)[:_LONGEST]
