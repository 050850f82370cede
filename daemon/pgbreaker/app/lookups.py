"""Where the names of hosts are looked up: in threads that nobody else waits for.

Looking a name up blocks a thread, for half a minute when no name server answers. In the
loop's usual threads such lookups would soon be all that goes on: neither a scrape nor a
reload would get one, and the process could not end.
"""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MOST: Final = 128  # threads; each is one name that does not come back


class Crew(ThreadPoolExecutor):
    """The usual threads of a loop, with others for lookups."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="crew")
        self._lookups = Lookups()

    def submit(
        self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Future[_T]:
        """Have *fn* done in a thread."""
        # What `loop.getaddrinfo` asks for.
        if fn is socket.getaddrinfo:
            return self._lookups.begin(args)
        return super().submit(fn, *args, **kwargs)


class Lookups:
    """Looks names up, each once at a time, however many ask for it."""

    def __init__(
        self, look_up: Callable[..., Any] = socket.getaddrinfo, most: int = _MOST
    ) -> None:
        self._look_up = look_up
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[tuple[Any, ...], list[Future[Any]]] = {}
        self._queue: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._threads = 0
        self._idle = 0

    def begin(self, name: tuple[Any, ...]) -> Future[Any]:
        """Look up what `socket.getaddrinfo` does by the arguments *name*."""
        future: Future[Any] = Future()
        with self._lock:
            others = self._waiting.setdefault(name, [])
            others.append(future)
            if len(others) > 1:
                return future  # under way already
            self._queue.put(name)
            if self._idle >= self._queue.qsize() or self._threads >= self._most:
                return future
            self._threads += 1
        # Nobody joins it: a name that does not come back holds no process up.
        threading.Thread(target=self._work, name="lookup", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            name = self._queue.get()
            with self._lock:
                self._idle -= 1
            try:
                found, error = self._look_up(*name), None
            except Exception as failed:  # noqa: BLE001 - it is whose who asked
                found, error = None, failed
            with self._lock:
                asked = self._waiting.pop(name)
            for future in asked:
                if future.set_running_or_notify_cancel():
                    _settle(future, found, error)


def _settle(future: Future[Any], found: object, error: Exception | None) -> None:
    if error is None:
        future.set_result(found)
    else:
        future.set_exception(error)
