"""A service manager, as far as the daemon knows it: a socket that it tells."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Manager:
    """Hears what a daemon tells its service manager.

    Attributes:
        path: The socket, for ``NOTIFY_SOCKET``.
        heard: When each datagram came, by the monotonic clock, and its lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.heard: list[tuple[float, list[str]]] = []
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(0.05)
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                said = self._socket.recv(4096).decode()
            except TimeoutError:
                continue
            self.heard.append((time.monotonic(), said.splitlines()))

    def lines(self, since: int = 0) -> list[str]:
        """All that was said, from datagram *since* on."""
        return [line for _, lines in self.heard[since:] for line in lines]

    def fed_at(self) -> list[float]:
        """When the watchdog was fed."""
        return [at for at, lines in self.heard if "WATCHDOG=1" in lines]

    def until(self, line: str, within: float = 5.0, since: int = 0) -> None:
        """Wait until *line* was said, after the first *since* datagrams."""
        end = time.monotonic() + within
        while line not in self.lines(since):
            assert time.monotonic() < end, self.heard
            time.sleep(0.01)

    def close(self) -> None:
        self._over.set()
        self._listening.join()
        self._socket.close()


@contextmanager
def managing(folder: Path) -> Iterator[Manager]:
    """Be a service manager for the time of the block."""
    manager = Manager(folder / "notify")
    try:
        yield manager
    finally:
        manager.close()
