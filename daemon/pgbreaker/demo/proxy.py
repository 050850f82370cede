"""A TCP proxy that can do what networks do to a connection."""

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards a port of 127.0.0.1 to *host* and *port*, until told otherwise.

    Attributes:
        port: The port that it listens on.
        accepted: Connections taken since the beginning.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.accepted = 0
        self._to = (host, port)
        self._open: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._resetting = False
        self._delay = 0.0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self._flowing.set()
        self._drop(reset=False)
        if self._serving:
            await asyncio.wait(self._serving)

    # Faults, and their end.

    def blackhole(self) -> None:
        """Take everything, new connections too, and pass nothing on."""
        self._flowing.clear()

    def reset(self) -> None:
        """Answer every connection, now and from now on, with RST."""
        self._resetting = True
        self._drop(reset=True)

    def delay(self, seconds: float) -> None:
        """Hold every piece of data back for *seconds*, each way."""
        self._delay = seconds

    def restore(self) -> None:
        """End the faults; what a black hole swallowed is lost with its connections."""
        if not self._flowing.is_set():
            self._drop(reset=True)
        self._resetting = False
        self._delay = 0.0
        self._flowing.set()

    # Forwarding.

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.accepted += 1
        if self._resetting:
            _abort(writer, reset=True)
            return
        await self._flowing.wait()
        try:
            onward, out = await asyncio.open_connection(*self._to)
        except OSError:
            _abort(writer, reset=True)
            return
        pair = (writer, out)
        self._open.add(pair)
        pumps = [
            asyncio.ensure_future(self._pump(reader, out)),
            asyncio.ensure_future(self._pump(onward, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(pair)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            for end in pair:
                _abort(end, reset=False)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(65536):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # the other pump ends with it

    def _drop(self, *, reset: bool) -> None:
        for pair in list(self._open):
            for writer in pair:
                _abort(writer, reset=reset)


def _abort(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    sock = writer.get_extra_info("socket")
    if reset and sock is not None and sock.fileno() >= 0:
        # Lingering for no time at all is what makes the kernel send RST.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
