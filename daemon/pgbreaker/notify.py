"""Tells systemd how we are, by its one-datagram protocol; nothing without systemd.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

from pgbreaker.core.units import Seconds

_LOOK_EVERY: Final[Seconds] = 1.0


class Notifier:
    """The way to the service manager that started us, if one did.

    Attributes:
        watchdog: Seconds after which it ends who has not fed its watchdog; 0 when it
            set none, or set it for another process.
    """

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self._path = env.get("NOTIFY_SOCKET", "")
        ours = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(env.get("WATCHDOG_USEC", "0")) / 1e6 if ours else 0.0

    def send(self, *lines: str) -> None:
        """Tell systemd *lines*, such as ``READY=1``."""
        if not self._path:
            return
        # A leading @ stands for the zero byte of an abstract address.
        address = "\0" + self._path[1:] if self._path[0] == "@" else self._path
        # A service manager that is gone is not a reason to go, too.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.sendto("\n".join(lines).encode(), address)

    def begin_reload(self) -> None:
        """Tell systemd that the configuration is being read; ``READY=1`` ends that."""
        at = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={at}")

    async def keep_telling(
        self, status: Callable[[], str], trouble: Callable[[], str | None]
    ) -> None:
        """Feed the watchdog as long as nothing is in *trouble*, and say what is new of
        the *status*, until cancelled.

        A hung probe loop must not look alive, so it is the patrols that decide,
        not the mere fact that this loop still turns.
        """
        pause = min(_LOOK_EVERY, self.watchdog / 2 or _LOOK_EVERY)
        told = None
        while self._path:
            wrong = trouble()
            says = status() if wrong is None else wrong
            lines = ["WATCHDOG=1"] if self.watchdog and wrong is None else []
            if says != told:
                lines.append(f"STATUS={says}")
            if lines:
                self.send(*lines)
            told = says
            await asyncio.sleep(pause)
