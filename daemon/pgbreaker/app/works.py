"""What is done beside all else: for as long as the daemon runs, or once."""

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
        self._tasks: list[asyncio.Task[None]] = []  # that ought not to end
        self._once: list[asyncio.Task[None]] = []

    def begin(
        self, stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]
    ) -> None:
        """Have *work* done until *stack* comes to it."""
        self._tasks.append(self._start(stack, name, work))

    def do(
        self, stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]
    ) -> None:
        """Have *work* done once: that it ends is as it should be."""
        self._once.append(self._start(stack, name, work))

    def _start(
        self, stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(partial(tell_fall, log))

        async def end() -> None:
            task.cancel()
            await asyncio.wait([task])

        stack.push_async_callback(end)
        return task

    @property
    def trouble(self) -> str | None:
        """Which one fell. None: none did."""
        for task in (*self._tasks, *self._once):
            if not task.done() or task.cancelled():
                continue
            if task in self._tasks or task.exception() is not None:
                return f"the {task.get_name()} fell"
        return None
