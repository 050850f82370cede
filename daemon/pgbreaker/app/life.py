"""The life of the process: signals, and the service manager that started it."""

import asyncio
import faulthandler
import gc
import logging
import signal
import time
from contextlib import AsyncExitStack
from typing import Final

from pgbreaker.app.lookups import Crew
from pgbreaker.app.onlooker import Onlooker
from pgbreaker.app.renewal import Source
from pgbreaker.app.running import Daemon, running, settle
from pgbreaker.clock import Clock
from pgbreaker.core.plan import Config, LogPlan
from pgbreaker.core.units import Seconds, counted
from pgbreaker.errors import ConfigError
from pgbreaker.notify import Notifier
from pgbreaker.sinks.log import configure
from pgbreaker.web.api.asked import SOMEONE

log = logging.getLogger(__name__)

_STOP_WITHIN: Final = 9  # seconds; a service manager kills after ten
_LATE: Final[Seconds] = 7.0  # after so long it is said what holds the end up
_LOUD: Final[Seconds] = 600.0
_PATIENCE: Final[Seconds] = 30.0
_ENDS: Final = (signal.SIGTERM, signal.SIGINT)


async def run(config: Config, *, source: Source | None = None) -> None:
    """Run a daemon until the process is told to end.

    Args:
        source: Where *config* was read, to read it anew. None: nowhere.

    Raises:
        PgbreakerError: As `running`.
    """
    asyncio.get_running_loop().set_default_executor(Crew())
    notifier = Notifier()
    process = _Process(notifier, config.log)
    process.listen()
    # What the watchdog of the service manager ends tells where it was.
    faulthandler.enable()
    patience = min(_PATIENCE, notifier.watchdog / 2 or _PATIENCE)
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(
            running(config, source=source, taken=process.take)
        )
        log.info(
            "watching %s, listening on %s:%d",
            counted(len(config.targets), "target"),
            *daemon.address,
        )
        process.daemon = daemon
        onlooker = Onlooker(daemon.pulse, Clock(), patience)
        onlooker.start()
        stack.callback(onlooker.stop)
        telling = asyncio.create_task(
            notifier.keep_telling(lambda: daemon.status, lambda: daemon.trouble)
        )
        process.settle()
        notifier.send("READY=1", f"STATUS={daemon.status}")
        await process.told_to_end.wait()
        telling.cancel()
        notifier.send("STOPPING=1")
        log.info("stopping")


class _Process:
    """What signals have the process do.

    Attributes:
        told_to_end: Set once it is to end.
        daemon: What runs in it. None: it does not yet.
    """

    def __init__(self, notifier: Notifier, plan: LogPlan) -> None:
        self.told_to_end = asyncio.Event()
        self.daemon: Daemon | None = None
        self._loop = asyncio.get_running_loop()
        self._notifier = notifier
        self._plan = plan
        self._quiet: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[None] | None = None
        self._reloads: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Do as signals say from now on."""
        for number in _ENDS:
            self._loop.add_signal_handler(number, self._end)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._loop.add_signal_handler(signal.SIGUSR1, self._dump)
        self._loop.add_signal_handler(signal.SIGUSR2, self._speak_up)

    def settle(self) -> None:
        """Have Python's collector leave alone what is there for good, soon."""
        if self.daemon is None:
            return
        if self._settling is not None:
            self._settling.cancel()
            gc.unfreeze()  # not all of it was for good
        self._settling = self._loop.create_task(settle(self.daemon), name="settling")

    def take(self, config: Config) -> None:
        """Go on as *config* says."""
        self.settle()
        if config.log != self._plan:
            self._plan = config.log
            configure(config.log.format, config.log.level)
            if self._quiet is not None:
                logging.getLogger().setLevel(logging.DEBUG)

    def _end(self) -> None:
        self.told_to_end.set()
        if self._settling is not None:
            self._settling.cancel()
        # From here a second signal ends the process at once, and so does time, also
        # where the loop hangs.
        for number in _ENDS:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(_STOP_WITHIN)
        self._loop.call_later(_LATE, self._dump)

    def _reload(self) -> None:
        reloading = self._loop.create_task(self._reload_now(), name="SIGHUP")
        self._reloads.add(reloading)
        reloading.add_done_callback(self._reloads.discard)

    async def _reload_now(self) -> None:
        if self.daemon is None or self.told_to_end.is_set():
            log.warning("nothing is read anew while the daemon starts, or stops")
            return
        self._notifier.begin_reload()
        try:
            if self.daemon.renewal is None:
                log.warning("nothing to read anew: the daemon was given no file")
            else:
                await self.daemon.renewal.reload(SOMEONE)
        except ConfigError:
            pass  # told already, and the daemon goes on by what was true
        finally:
            self._notifier.send("READY=1")

    def _dump(self) -> None:
        """Write to the log what the daemon is at."""
        tasks = asyncio.all_tasks(self._loop)
        log.info("%s:", counted(len(tasks), "task"))
        for task in sorted(tasks, key=asyncio.Task.get_name):
            log.info("task %s: %s", task.get_name(), _place(task))
        if self.daemon is None:
            return
        now = time.monotonic()
        for target in self.daemon.board.targets.values():
            log.info(
                "target %s: %s: %s",
                target.plan.name,
                target.condition.value,
                target.reason,
            )
            for breaker in target.breakers.values():
                log.info("%s", breaker.explain(now))

    def _speak_up(self) -> None:
        """Log everything for a while; told again, go back at once."""
        root = logging.getLogger()
        if self._quiet is not None:
            self._quiet.cancel()
            self._calm_down()
            return
        root.setLevel(logging.DEBUG)
        log.info("everything is logged for ten minutes, or until SIGUSR2 comes again")
        self._quiet = self._loop.call_later(_LOUD, self._calm_down)

    def _calm_down(self) -> None:
        self._quiet = None
        log.info("logging as it is configured again: %s", self._plan.level)
        logging.getLogger().setLevel(self._plan.level)


def _place(task: "asyncio.Task[object]") -> str:
    """Where a task waits, the innermost place last."""
    at: object = task.get_coro()
    places = []
    while (frame := getattr(at, "cr_frame", None)) is not None:
        file = frame.f_code.co_filename.rpartition("/")[2]
        places.append(f"{frame.f_code.co_name} ({file}:{frame.f_lineno})")
        at = getattr(at, "cr_await", None)
    return " > ".join(places)
