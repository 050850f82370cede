"""What is done beside all else for as long as the daemon runs, and ought not to end."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

log = logging.getLogger(__name__)


class Works:
    """Begins works, and knows of one that fell: without it the daemon is not well."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def begin(
        self, stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]
    ) -> None:
        """Have *work* done until *stack* comes to it."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_tell_fall)
        self._tasks.append(task)

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        stack.push_async_callback(end)

    @property
    def trouble(self) -> str | None:
        """Which one fell. None: none did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                return f"the {task.get_name()} fell"
        return None


def _tell_fall(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical(
            "the %s fell, which is a fault of ours", task.get_name(), exc_info=error
        )
