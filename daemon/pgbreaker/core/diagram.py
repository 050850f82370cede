"""The state machine as a picture, drawn from its table.

``python -m pgbreaker.core.diagram`` prints what the README holds.
"""

import sys

from pgbreaker.core.states import MOVES, OVERRIDES, State


def mermaid() -> str:
    """A Mermaid state diagram of `MOVES` and `OVERRIDES`."""
    causes: dict[tuple[State, State], list[str]] = {}
    for (before, cause), after in MOVES.items():
        causes.setdefault((before, after), []).append(cause.value)
    moves = [
        f"    {before.value} --> {after.value}: {', '.join(words)}"
        for (before, after), words in causes.items()
    ]
    forced = ", ".join(state.value for state in OVERRIDES)
    lines = [
        "stateDiagram-v2",
        f"    [*] --> {State.CLOSED.value}",
        *moves,
        f"    note right of {State.CLOSED.value}",
        f"        an operator may put {forced} before any of them",
        "    end note",
    ]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    sys.stdout.write(mermaid())
