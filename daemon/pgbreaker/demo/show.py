"""The demo: a server of its own, a workload, the daemon, and a fault to watch."""

import asyncio
import logging
import signal
import time
from contextlib import AsyncExitStack
from typing import Final

import click

from pgbreaker import app
from pgbreaker.config import for_dsn
from pgbreaker.core.states import State, Transition
from pgbreaker.core.units import Seconds
from pgbreaker.demo.faults import FAULTS, Fault, Stage
from pgbreaker.demo.proxy import Proxy
from pgbreaker.demo.server import Server, find_binaries
from pgbreaker.demo.workload import Workload
from pgbreaker.sinks.hub import Event, Notice

_CALM: Final[Seconds] = 10.0  # before a fault
_RECOVERY: Final[Seconds] = 10.0  # watched after it is mended


class Teller:
    """A sink that tells a terminal what moves, with the time since a mark."""

    def __init__(self) -> None:
        self._mark = time.monotonic()

    def mark(self, text: str) -> None:
        """Start the clock anew, and say at what."""
        self._mark = time.monotonic()
        click.echo()
        click.secho(f"          {text}", bold=True)

    def say(self, text: str, *, at: Seconds | None = None) -> None:
        """Print *text* with the time since the mark."""
        since = (time.monotonic() if at is None else at) - self._mark
        click.echo(f"{since:+8.3f} s  {text}")

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        match event:
            case Transition():
                colour = {State.OPEN: "red", State.CLOSED: "green"}.get(
                    event.after, "yellow"
                )
                after = click.style(event.after.value, fg=colour)
                text = (
                    f"{event.breaker}: {event.before.value} -> {after}: {event.reason}"
                )
                self.say(text, at=event.at)
            case Notice():
                self.say(f"{event.target}: {event.text}", at=event.at)


async def show(fault: str | None, listen: str, seconds: Seconds | None) -> None:
    """Run the demo until Ctrl-C, or for *seconds*, or until the fault is over.

    Args:
        fault: A name of `FAULTS`, or None for a quiet server.
        listen: Host and port for the daemon.

    Raises:
        PgbreakerError: There is no PostgreSQL to start, or the port is taken.
    """
    logging.getLogger("pgbreaker").addHandler(logging.NullHandler())  # told below
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    async with AsyncExitStack() as stack:
        server = await _start_server(stack)
        workload = Workload(server.dsn())
        await workload.prepare()
        working = asyncio.create_task(workload.run())
        stack.push_async_callback(asyncio.wait, [working])
        stack.callback(working.cancel)
        proxy = await stack.enter_async_context(Proxy("127.0.0.1", server.port))
        through = proxy.port if fault and FAULTS[fault].on_the_way else server.port
        config = for_dsn(server.dsn(port=through), name="primary", listen=listen)
        teller = Teller()
        daemon = await stack.enter_async_context(app.running(config, also=[teller]))
        host, port = daemon.address
        click.echo(f"PostgreSQL  {server.dsn()}")
        click.echo(f"page        http://{host}:{port}/")
        click.echo(f"metrics     http://{host}:{port}/metrics")
        click.echo("Ctrl-C ends it and leaves nothing behind.")
        if fault is None:
            await _until(over, seconds)
        else:
            await _demonstrate(FAULTS[fault], Stage(server, proxy), teller, over)
        click.echo()
        click.echo(
            f"the application made {workload.served} calls, {workload.failed} failed"
        )


async def _start_server(stack: AsyncExitStack) -> Server:
    click.echo("starting a PostgreSQL of its own ...")
    settings = {"max_connections": "20", "fsync": "off"}
    server = await asyncio.to_thread(Server.create, find_binaries(), settings=settings)
    stack.callback(server.close)
    await asyncio.to_thread(server.start)
    return server


async def _demonstrate(
    fault: Fault, stage: Stage, teller: Teller, over: asyncio.Event
) -> None:
    click.echo(f"in {_CALM:.0f} s: {fault.what}")
    click.echo(f"to be seen: {fault.expect}")
    if await _until(over, _CALM):
        return
    async with AsyncExitStack() as mend:
        teller.mark(f"0 = {fault.what}")
        await fault.begin(stage, mend)
        if await _until(over, fault.lasts):
            return
        teller.mark("0 = mended")
    await _until(over, _RECOVERY)


async def _until(over: asyncio.Event, seconds: Seconds | None) -> bool:
    """Wait *seconds*, or without end. Returns whether somebody ended the demo."""
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return False
    return True
