"""The web configuration that is true now: read anew when its files change."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError
from pgbreaker.web.doors.plan import OPEN, WebPlan, fingerprint
from pgbreaker.web.doors.reading import Reading
from pgbreaker.web.doors.tls import context_of

log = logging.getLogger(__name__)

_LOOK_EVERY: Final[Seconds] = 1.0


class Present:
    """What is true now.

    Attributes:
        plan: What the file says; that of before, while it cannot be used.
        context: For new connections. None: they are not encrypted.
    """

    def __init__(self, path: Path | None) -> None:
        """Read it.

        Args:
            path: The file. None: there is none, and never will be.

        Raises:
            PgbreakerError: It cannot be used.
        """
        self.plan: WebPlan = OPEN
        self.context: ssl.SSLContext | None = None
        self._path = path
        self._seen = ""
        self._files: frozenset[Path] = frozenset()
        if path is not None:
            self._take(Reading(path))

    async def look(self) -> None:
        """Read it anew if any of its files has changed; keep the old one if it is broken."""
        if self._path is None:
            return
        now = await asyncio.to_thread(_held, self._files)
        if now == self._seen:
            return
        reading = Reading(self._path)
        try:
            await asyncio.to_thread(self._take, reading)
        except PgbreakerError as error:
            # Once: it is not read again before it changes again.
            log.warning(
                "the web configuration stays as it was, its new files cannot be used: %s",
                str(error).replace("\n", "; "),
            )
        else:
            log.info("the web configuration %s was read anew", self._path)

    def _take(self, reading: Reading) -> None:
        try:
            plan = reading.result()
            context = None if plan.tls is None else context_of(plan.tls)
            if self._seen and (context is None) != (self.context is None):
                raise PgbreakerError(
                    f"{self._path}: encryption is turned on or off by a restart"
                )
        finally:
            self._files = frozenset(reading.files)
            self._seen = fingerprint(reading.files)
        self.plan, self.context = plan, context

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Look for changes, for the time of the block."""
        looking = asyncio.create_task(self._keep_looking())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def _keep_looking(self) -> None:
        while self._path is not None:
            await asyncio.sleep(_LOOK_EVERY)
            await self.look()


def _held(files: Iterable[Path]) -> str:
    found: dict[Path, bytes | None] = {}
    for path in files:
        try:
            found[path] = path.read_bytes()
        except OSError:
            found[path] = None
    return fingerprint(found)
