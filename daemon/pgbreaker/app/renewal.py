"""The renewal: the configuration, read anew while the daemon runs."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pgbreaker import config as files
from pgbreaker.clock import Clock
from pgbreaker.core.entry import Kind
from pgbreaker.core.plan import Config
from pgbreaker.core.reload import Reloaded
from pgbreaker.core.units import Seconds, counted, lasting
from pgbreaker.errors import ConfigError
from pgbreaker.sinks.history import History, NotKeptError

log = logging.getLogger(__name__)

_T = TypeVar("_T")

LATER: Final = (*files.LATER, "alertmanager.grafana_url")
"""Keys whose changes only take effect with the next start; of the last, on the pages."""

POLL: Final[Seconds] = 5.0
"""Seconds between two looks at the files."""


_READ_WITHIN: Final[Seconds] = 20.0  # a disk may hang for good
_CLOSE_WITHIN: Final[Seconds] = 2.0


class Source:
    """Where a configuration comes from; to be made before it is read.

    Attributes:
        path: The file.
        listen: ``host:port`` that goes before the file's. None: the file's.
        seen: What tells the files' state by then from every other.
    """

    def __init__(self, path: Path, listen: str | None = None) -> None:
        self.path = path
        self.listen = listen
        self.seen = files.fingerprint(path)

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
        at: Wall time of the last time that it was read anew. None: it never was.
        taken_at: Wall time of the last time that it was taken.
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
        poll: Seconds = POLL,
        within: Seconds = _READ_WITHIN,
    ) -> None:
        """Begin with what is true.

        Args:
            poll: Seconds between two looks at the files.
            within: Seconds that the files may take to be read.
        """
        self.config = config
        self.at: float | None = None
        self.taken_at = clock.wall()
        self.problem: str | None = None
        self._source = source
        self._apply = apply
        self._history = history
        self._clock = clock
        self._poll = poll
        self._within = within
        self._seen = source.seen
        self._reading = asyncio.Lock()
        self._reloads: set[asyncio.Task[Reloaded]] = set()
        self._is_over = False

    async def reload(self, author: str | None = None) -> Reloaded:
        """Read the configuration anew, and make it true.

        Whoever asked may go away: what has begun is done to its end.

        Args:
            author: Who asks. None: nobody, the files have changed.

        Raises:
            ConfigError: It cannot be used, or the daemon stops; nothing has changed.
        """
        if self._is_over:
            raise ConfigError(("nothing is read anew: the daemon stops",))
        reload = asyncio.create_task(self._reload(author), name="reload")
        self._reloads.add(reload)
        reload.add_done_callback(self._end)
        return await asyncio.shield(reload)

    def _end(self, reload: asyncio.Task[Reloaded]) -> None:
        self._reloads.discard(reload)
        if reload.cancelled() or (error := reload.exception()) is None:
            return
        if not isinstance(error, ConfigError):
            log.critical("a reload failed, which is a fault of ours", exc_info=error)

    async def _reload(self, author: str | None) -> Reloaded:
        async with self._reading:
            begun = self._clock.now()
            try:
                read = await self._in_time(self._read)
            except ConfigError as error:
                await self._refuse(error, author, begun)
                raise
            if read.is_other:
                await self._apply(read.config)
            for caution in read.cautions:
                log.warning("%s", caution)
            is_news = read.is_other or author is not None or self.problem is not None
            self.config = read.config
            self.at = self.taken_at = self._clock.wall()
            self.problem = None
            if is_news:
                await self._tell(read.done, author, begun)
            return read.done

    async def _in_time(self, work: Callable[[], _T]) -> _T:
        """Have a thread do *work*, which reads the files.

        Raises:
            ConfigError: It does not come to an end; or *work* raised it.
        """
        try:
            async with asyncio.timeout(self._within):
                return await asyncio.to_thread(work)
        except TimeoutError:
            path, within = self._source.path, lasting(self._within)
            why = f"{path}: cannot be read: the disk has not answered for {within}"
            raise ConfigError((why,)) from None

    def _read(self) -> "_Read":
        """Read it, and say what is another in it than in what is true; in a thread, for
        with a thousand targets this takes a second.

        Raises:
            ConfigError: It cannot be used.
        """
        # What changes while it is read is seen by the next poll.
        self._seen = files.fingerprint(self._source.path)
        new = self._source.read()
        changes = files.diff(self.config, new)
        done = Reloaded(changes, files.later(changes, LATER))
        return _Read(new, new != self.config, done, files.cautions(new))

    async def _refuse(
        self, error: ConfigError, author: str | None, begun: Seconds
    ) -> None:
        self.at, self.problem = self._clock.wall(), str(error)
        for problem in error.problems:
            log.error("configuration refused: %s", problem)
        more = len(error.problems) - 1
        await self._write_down(
            f"configuration refused: {error.problems[0]}"
            + (f" (and {more} more)" if more else ""),
            author,
            {"ok": False, "problems": list(error.problems)},
            begun,
        )

    async def _tell(self, done: Reloaded, author: str | None, begun: Seconds) -> None:
        if not done.changes:
            log.info("configuration read anew, nothing changed")
        for change in done.changes:
            later = " (with the next start)" if change in done.later else ""
            log.info("configuration: %s%s", change, later)
        what = counted(len(done.changes), "change") if done.changes else "no change"
        details = {
            "ok": True,
            "changes": list(done.changes),
            "later": list(done.later),
        }
        await self._write_down(
            f"configuration read anew: {what}", author, details, begun
        )

    async def _write_down(
        self, text: str, author: str | None, details: dict[str, Any], begun: Seconds
    ) -> None:
        details |= {"took_seconds": round(self._clock.now() - begun, 6)}
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
            await asyncio.sleep(self._poll)
            # What went wrong was told; the next change is read again.
            with contextlib.suppress(ConfigError):
                seen = await self._in_time(self._fingerprint)
                if seen != self._seen and not self._reading.locked():
                    await self.reload()

    def _fingerprint(self) -> str:
        return files.fingerprint(self._source.path)

    async def close(self) -> None:
        """Begin no more reloads, and wait for those under way, not for ever."""
        self._is_over = True
        if self._reloads:
            _, late = await asyncio.wait(self._reloads, timeout=_CLOSE_WITHIN)
            for reload in late:
                reload.cancel()


@dataclass(frozen=True, slots=True)
class _Read:
    """A configuration that was read and can be used.

    Attributes:
        is_other: Whether it is another than what is true.
        done: What is another in it.
        cautions: What deserves a word though it can be used.
    """

    config: Config
    is_other: bool
    done: Reloaded
    cautions: tuple[str, ...]
