"""Somebody who listens to a stream of server-sent events."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Heard:
    """An event of a stream."""

    kind: str
    id: int | None
    data: dict


class Listener:
    """Reads a stream."""

    def __init__(self, answer) -> None:
        self.answer = answer

    async def next(self, within: float = 5.0) -> Heard:
        """The next event; comments and empty ones are no events.

        Raises:
            EOFError: There is none, the stream has ended.
        """
        async with asyncio.timeout(within):
            while True:
                fields = await self._block()
                if "data" in fields:
                    id_ = int(fields["id"]) if "id" in fields else None
                    return Heard(fields["event"], id_, json.loads(fields["data"]))

    async def until(self, kind: str, within: float = 5.0) -> Heard:
        """The next event of a kind, whatever comes before it."""
        async with asyncio.timeout(within):
            while (heard := await self.next()).kind != kind:
                pass
        return heard

    async def _block(self) -> dict[str, str]:
        fields = {}
        while (line := await self.answer.content.readline()) != b"\n":
            if not line:
                raise EOFError
            name, _, value = line.decode().rstrip("\n").partition(": ")
            fields[name] = value
        return fields


@asynccontextmanager
async def listening(client, path: str = "/api/v1/stream", **more):
    """Listen for the time of the block."""
    async with client.get(path, read_bufsize=2**24, **more) as answer:
        assert answer.status == 200, await answer.text()
        yield Listener(answer)
