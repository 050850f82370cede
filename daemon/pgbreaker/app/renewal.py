"""The renewal: the configuration, read anew while the daemon runs."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pgbreaker import config as files
from pgbreaker.clock import Clock
from pgbreaker.core.entry import Kind
from pgbreaker.core.plan import Config
from pgbreaker.core.reload import Reloaded
from pgbreaker.core.units import Seconds, counted
from pgbreaker.errors import ConfigError
from pgbreaker.sinks.history import History, NotKeptError

log = logging.getLogger(__name__)

_POLL: Final[Seconds] = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where a configuration comes from.

    Attributes:
        path: The file.
        listen: ``host:port`` that goes before the file's. None: the file's.
    """

    path: Path
    listen: str | None = None

    def read(self) -> Config:
        """Read it.

        Raises:
            ConfigError: Something is wrong with it.
        """
        return files.load(self.path, listen=self.listen)


Apply = Callable[[Config], Coroutine[Any, Any, None]]
"""Makes a configuration true, but for what only the next start takes over."""


class Renewal:
    """Reads the configuration when it is told to, and when the files have changed.

    A configuration that cannot be used changes nothing: the daemon goes on by the last
    good one, and takes the next good one.

    Attributes:
        config: What is true now, as the file says it: with what only the next start
            takes over.
        at: Wall time of the last time it was read, in seconds since the epoch.
        taken_at: Wall time of the last time it was taken.
        problem: Why the last one could not be used. None: it is what is true.
    """

    def __init__(
        self,
        source: Source,
        config: Config,
        apply: Apply,
        history: History,
        clock: Clock,
        *,
        later: tuple[str, ...],
    ) -> None:
        """Begin with a configuration that is true.

        Args:
            later: Keys whose changes only take effect with the next start.
        """
        self.config = config
        self.at = self.taken_at = clock.wall()
        self.problem: str | None = None
        self._source = source
        self._apply = apply
        self._history = history
        self._clock = clock
        self._later = later
        self._reading = asyncio.Lock()
        self._seen: str | None = None

    async def reload(self, author: str | None = None) -> Reloaded:
        """Read the configuration anew, and make it true.

        Args:
            author: Who asks. None: nobody, the file has changed.

        Raises:
            ConfigError: It cannot be used; nothing has changed.
        """
        async with self._reading:
            # What changes while it is read is seen by the next poll.
            self._seen = await self._fingerprint()
            try:
                new = await asyncio.to_thread(self._source.read)
            except ConfigError as error:
                await self._refuse(error, author)
                raise
            changes = files.diff(self.config, new)
            done = Reloaded(changes, files.later(changes, self._later))
            if changes:
                await self._apply(new)
            for caution in files.cautions(new):
                log.warning("%s", caution)
            self.config = new
            self.at = self.taken_at = self._clock.wall()
            self.problem = None
            await self._tell(done, author)
            return done

    async def _refuse(self, error: ConfigError, author: str | None) -> None:
        self.at, self.problem = self._clock.wall(), str(error)
        for problem in error.problems:
            log.error("configuration refused: %s", problem)
        await self._write_down(
            f"configuration refused: {error.problems[0]}",
            author,
            {"ok": False, "problems": list(error.problems)},
        )

    async def _tell(self, done: Reloaded, author: str | None) -> None:
        if not done.changes and author is None:
            return  # a comment was edited
        for change in done.changes:
            later = " (with the next start)" if change in done.later else ""
            log.info("configuration: %s%s", change, later)
        if not done.changes:
            log.info("configuration read anew, nothing changed")
        text = (
            f"configuration read anew: {counted(len(done.changes), 'change')}"
            if done.changes
            else "configuration read anew, nothing changed"
        )
        details = {
            "ok": True,
            "changes": list(done.changes),
            "later": list(done.later),
        }
        await self._write_down(text, author, details)

    async def _write_down(
        self, text: str, author: str | None, details: dict[str, Any]
    ) -> None:
        try:
            await self._history.decide(
                Kind.RELOAD, text, author=author, details=details
            )
        except NotKeptError as error:
            # A configuration is the file's word, and holds without a store.
            log.warning("%s (%s)", text, error)

    async def watch(self) -> None:
        """Look for changes of the files every few seconds, until cancelled.

        By their content: links that are exchanged, as in a ConfigMap, tell no watcher.
        """
        while True:
            await asyncio.sleep(_POLL)
            seen = await self._fingerprint()
            if seen == self._seen or self._reading.locked():
                continue
            with contextlib.suppress(ConfigError):  # told; the next change is read
                await self.reload()

    async def _fingerprint(self) -> str:
        return await asyncio.to_thread(files.fingerprint, self._source.path)
