"""The Alertmanagers that are told. With another configuration they are others."""

from contextlib import AsyncExitStack

from pgbreaker.clock import Clock
from pgbreaker.core.entry import Entry
from pgbreaker.core.plan import AlertmanagerPlan
from pgbreaker.sinks.board import Board
from pgbreaker.sinks.hub import Event
from pgbreaker.sinks.push import Push, pushing


class Alerting:
    """Pushes alerts as it is configured now, if it is; a sink."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._plan: AlertmanagerPlan | None = None
        self._push: Push | None = None
        self._stack = AsyncExitStack()
        self._before = (0, 0)  # pushed, failed, by those who went

    @property
    def pushed(self) -> int:
        """Alerts that an Alertmanager took."""
        return self._before[0] + (0 if self._push is None else self._push.pushed)

    @property
    def failures(self) -> int:
        """Posts that none took."""
        return self._before[1] + (0 if self._push is None else self._push.failures)

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        if self._push is not None:
            self._push(event)

    def heed(self, entry: Entry) -> None:
        """Take an entry of the history."""
        if self._push is not None:
            self._push.heed(entry)

    def look(self) -> None:
        """See which targets are there, and which are in maintenance."""
        if self._push is not None:
            self._push.look()

    async def take(self, plan: AlertmanagerPlan | None) -> None:
        """Push as *plan* says from now on; None: nowhere."""
        if plan == self._plan:
            return
        stack = AsyncExitStack()
        push = None
        if plan is not None:
            push = await stack.enter_async_context(
                pushing(plan, self._board, self._clock)
            )
        # They overlap for no event: nothing waits between one and the other.
        self._before = (self.pushed, self.failures)
        self._plan, self._push = plan, push
        if push is not None:
            push.take_up()
        before, self._stack = self._stack, stack
        await before.aclose()

    async def close(self) -> None:
        """Tell what is still to be told, as far as that goes in a short time."""
        await self._stack.aclose()
