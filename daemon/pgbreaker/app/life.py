"""The process: its signals, its service manager, and what happens when it hangs."""

import asyncio
import faulthandler
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pgbreaker.app.renewal import Source
from pgbreaker.app.running import Daemon, running
from pgbreaker.core.plan import Config, StorePlan
from pgbreaker.core.units import Seconds, counted
from pgbreaker.errors import ConfigError
from pgbreaker.notify import Notifier

log = logging.getLogger(__name__)

_SETTLED: Final[Seconds] = 15.0  # after the first pings: all was asked once by then
_STOP_WITHIN: Final[Seconds] = 9.0  # a service manager kills after ten
_DEBUG_FOR: Final[Seconds] = 600.0
_HUNG: Final[Seconds] = 30.0  # as long as the unit file's watchdog waits
_REWIND: Final[Seconds] = 5.0


async def run(
    config: Config,
    *,
    source: Source | None = None,
    env: Mapping[str, str] = os.environ,
) -> None:
    """Run a daemon until the process is told to end.

    Args:
        source: Where *config* came from, and comes from when it changes.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    notifier = Notifier()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(
            running(_with_store(config, env), source=source)
        )
        log.info(
            "watching %s, listening on %s:%d",
            counted(len(config.targets), "target"),
            *daemon.address,
        )
        tasks = {
            asyncio.create_task(
                notifier.keep_telling(lambda: daemon.status, lambda: daemon.trouble)
            ),
            asyncio.create_task(settle(daemon)),
            asyncio.create_task(_say_where_it_hangs()),
        }
        _listen(daemon, notifier, tasks)
        notifier.send("READY=1", f"STATUS={daemon.status}")
        await stop.wait()
        for task in tasks:
            task.cancel()
        faulthandler.cancel_dump_traceback_later()
        notifier.send("STOPPING=1")
        log.info("stopping")
        # From here a second signal ends the process at once, and so does time.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        loop.call_later(_STOP_WITHIN, signal.raise_signal, signal.SIGTERM)


def _with_store(config: Config, env: Mapping[str, str]) -> Config:
    """*config*, with a store where the service manager has made room for one.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#RuntimeDirectory=
    """
    room = env.get("STATE_DIRECTORY", "").partition(":")[0]
    if config.store is not None or not room:
        return config
    return replace(config, store=StorePlan(path=Path(room) / "state.db"))


async def settle(daemon: Daemon) -> None:
    """Have Python's collector leave alone what is there for good, once it is there.

    With a thousand targets that is a quarter of a million objects: looking at all of
    them, a few times a minute, would hold the loop for more than a tenth of a second.
    """
    while daemon.unready:  # noqa: ASYNC110 - nobody tells us, and it is no hurry
        await asyncio.sleep(1.0)
    await asyncio.sleep(_SETTLED)
    gc.collect()
    gc.freeze()


async def _say_where_it_hangs() -> None:
    """Have every stack written to stderr when the loop hangs: nobody else can say it.

    That does not wait for the loop; a service manager's watchdog then ends the process.
    """
    while True:
        faulthandler.dump_traceback_later(_HUNG)
        await asyncio.sleep(_REWIND)


# Signals.


def _listen(daemon: Daemon, notifier: Notifier, tasks: set[asyncio.Task[None]]) -> None:
    """Do what the other signals ask for."""
    loop = asyncio.get_running_loop()

    def begin(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, lambda: begin(_reload(daemon, notifier)))
    loop.add_signal_handler(signal.SIGUSR1, lambda: tell_all(daemon))
    loop.add_signal_handler(signal.SIGUSR2, _toggle_debug())


async def _reload(daemon: Daemon, notifier: Notifier) -> None:
    if daemon.renewal is None:
        log.warning("SIGHUP: the daemon was given no file to read")
        return
    notifier.begin_reload()
    try:
        await daemon.renewal.reload("SIGHUP")
    except ConfigError:
        pass  # told already, and the daemon goes on by what was true
    finally:
        notifier.send("READY=1", f"STATUS={daemon.status}")


def tell_all(daemon: Daemon) -> None:
    """Write to the log what the daemon is at: its state, and where each task waits.

    Where, and not with what: values may be secret.
    """
    log.warning("state: %s", daemon.status)
    for target in daemon.board.targets.values():
        log.warning(
            "state of %s: %s (%s)", target.plan.name, target.condition, target.reason
        )
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        at = " < ".join(
            f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
            for frame in reversed(task.get_stack(limit=5))
        )
        log.warning("task %s: %s", task.get_name(), at or "done")


def _toggle_debug() -> Callable[[], None]:
    """What turns debugging on, for ten minutes, and off."""
    root = logging.getLogger()
    ends: list[asyncio.TimerHandle] = []
    usual = root.level

    def off() -> None:
        ends.pop().cancel()
        root.setLevel(usual)
        log.warning("the log is as before")

    def toggle() -> None:
        nonlocal usual
        if ends:
            off()
            return
        usual = root.level
        root.setLevel(logging.DEBUG)
        ends.append(asyncio.get_running_loop().call_later(_DEBUG_FOR, off))
        log.warning("the log tells everything for ten minutes; SIGUSR2 ends that")

    return toggle
