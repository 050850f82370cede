"""Whose the connections are that fill the slots."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from pgbreaker.core.reading import Row, Seen
from pgbreaker.core.units import Seconds, Share
from pgbreaker.monitor.outlook.values import number

_EVERY: Final[Seconds] = 60.0
_KEPT: Final = 6  # looks: whoever came before that has no part in it
_MOST: Final[Share] = 0.5  # of the growth
_STATES: Final = ("active", "idle", "idle_in_transaction")


class Owners:
    """Who has more connections than some minutes ago, and in which state they are."""

    def __init__(self) -> None:
        self._users = _Course()
        self._states = _Course()

    def take_users(self, at: Seconds, rows: Iterable[Row]) -> None:
        """Take the connections of each user."""
        self._users.take(
            at,
            {
                str(row.get("user")): count
                for row in rows
                if (count := number(row, "connections")) is not None
            },
        )

    def take_states(self, at: Seconds, seen: Seen) -> None:
        """Take the connections in each state."""
        if self._states.is_due(at):
            counts = ((state, number(seen, state)) for state in _STATES)
            self._states.take(at, {s: n for s, n in counts if n is not None})

    @property
    def named(self) -> str | None:
        """Whose most of the new ones are, and what they do: ``app_worker, idle in
        transaction``. None: they are no one's in particular."""
        user, state = self._users.grown, self._states.grown
        if user is None:
            return None
        return user if state is None else f"{user}, {state.replace('_', ' ')}"


class _Course:
    """How several numbers went within the last minutes."""

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
        """The name of what most of the growth is. None: there is none, or no such."""
        if not self._last:
            return None
        before = self._seen[0]
        growth = {name: n - before.get(name, 0.0) for name, n in self._last.items()}
        name = max(growth, key=lambda name: growth[name])
        gained = sum(more for more in growth.values() if more > 0)
        return name if growth[name] > _MOST * gained else None
