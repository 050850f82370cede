"""Whose the connections are that fill the slots."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from pgbreaker.core.reading import Row, Seen
from pgbreaker.core.units import Seconds

_EVERY: Final[Seconds] = 60.0
_KEPT: Final = 15  # looks: a quarter of an hour, as long as a leak is looked for
_STATES: Final = ("active", "idle", "idle_in_transaction")


class Owners:
    """Who has more connections than a while ago, and in which state they are."""

    def __init__(self) -> None:
        self._users = _Course()
        self._states = _Course()

    def take_users(self, at: Seconds, rows: Iterable[Row]) -> None:
        """Take the connections of each user."""
        self._users.take(
            at,
            {
                str(row["user"]): float(number)
                for row in rows
                if isinstance(number := row.get("connections"), int | float)
            },
        )

    def take_states(self, at: Seconds, seen: Seen) -> None:
        """Take the connections in each state."""
        if self._states.is_due(at):
            numbers = ((state, seen.get(state)) for state in _STATES)
            self._states.take(
                at,
                {s: float(n) for s, n in numbers if isinstance(n, int | float)},
            )

    @property
    def named(self) -> str | None:
        """Whose they are, and what they do: ``app_worker, idle in transaction``. None:
        it is not known."""
        parts = [self._users.grown, self._states.grown]
        return ", ".join(p.replace("_", " ") if p in _STATES else p for p in parts if p)


class _Course:
    """How several numbers went within the last quarter of an hour."""

    def __init__(self) -> None:
        self._seen: deque[Mapping[str, float]] = deque(maxlen=_KEPT)
        self._last: Mapping[str, float] = {}
        self._due: Seconds = 0.0

    def is_due(self, at: Seconds) -> bool:
        return at >= self._due

    def take(self, at: Seconds, numbers: Mapping[str, float]) -> None:
        self._last = numbers
        if at >= self._due:
            self._seen.append(numbers)
            self._due = at + _EVERY

    @property
    def grown(self) -> str | None:
        """The name of what grew most; where nothing grew, of what is largest."""
        if not self._last:
            return None
        before = self._seen[0]
        growth = {name: n - before.get(name, 0.0) for name, n in self._last.items()}
        name = max(growth, key=lambda name: (growth[name], self._last[name]))
        if growth[name] > 0:
            return name
        return max(self._last, key=lambda name: self._last[name])
