"""What daemons say to each other, made by hand."""

from typing import Any

from pgbreaker.core.advice import Opinion
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.condition import Condition
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.states import Evidence, Outcome, State
from pgbreaker.core.view import View

REFUSED = Evidence("refused", "connection refused")
_NOW = 50.0


def memory(state: State = State.CLOSED) -> dict[str, Any]:
    """What a breaker remembers that has moved to *state* a moment ago."""
    breaker = Breaker("main/read", DAEMON, _NOW, draw=lambda: 0.0)
    if state is not State.CLOSED:
        breaker.observe(Outcome.FAILURE, _NOW, confirmed=True, evidence=REFUSED)
    if state is State.HALF_OPEN:
        breaker.advance(breaker.until)
    assert breaker.state is state
    return breaker.memory(max(_NOW, breaker.since))


_MEMORIES = {state: memory(state) for state in (State.CLOSED, State.OPEN)}


def view(
    breaker: str = "main/read",
    opinion: Opinion = Opinion.HEALTHY,
    *,
    at: float = 1_800_000_000.0,
    **more: Any,
) -> View:
    """What a daemon thinks of a breaker."""
    is_open = opinion is Opinion.OPEN
    state = State.OPEN if is_open else State.CLOSED
    given: dict[str, Any] = {
        "state": state,
        "reason": "connection refused" if is_open else "no call has failed yet",
        "sqlstate": None,
        "is_definite": False,
        "condition": Condition.DOWN if is_open else Condition.UP,
        "token": 1,
        "memory": _MEMORIES[state],
    }
    return View(breaker=breaker, opinion=opinion, at=at, **given | more)
