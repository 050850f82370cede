"""What is done beside all else for as long as the daemon runs, and ought not to end."""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from pgbreaker.sinks.log import tell_fall

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
        task.add_done_callback(partial(tell_fall, log))
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
