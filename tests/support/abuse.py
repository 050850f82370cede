"""Clients that mean no good: what is no HTTP, and what takes for ever."""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from support.process import free_port

HOST = b"Host: localhost\r\n"
_KNOWN_AT_ONCE = 40  # connections of rubbish at a time
_PATIENCE = 0.05  # seconds for an answer to what may be no request yet


@dataclass
class Abused:
    """A daemon of its own process, which watches a server that is not there.

    Attributes:
        pid: Its process.
        port: Where it serves.
        log: What it says, a JSON object a line.
    """

    pid: int
    port: int
    log: Path

    def resident(self) -> float:
        """Megabytes of memory that it has."""
        for line in Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def connections(self) -> int:
        """How many connections it has, to its own address."""
        lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
        ours = f":{self.port:04X}"
        # 01: established, on its side.
        return sum(
            1
            for line in lines
            if line.split()[1].endswith(ours) and line.split()[3] == "01"
        )

    def complaints(self) -> list[str]:
        """What it said of itself, and not of the server that it watches."""
        found = []
        for line in self.log.read_text("utf-8").splitlines():
            try:
                told = json.loads(line)
            except ValueError:
                found.append(line)
                continue
            is_ours = told.get("level") in ("ERROR", "CRITICAL") or "Traceback" in line
            about_web = told.get("logger", "").startswith(("pgbreaker.web", "asyncio"))
            if is_ours or about_web:
                found.append(line)
        return found


@asynccontextmanager
async def abused(home: Path, *more: str) -> AsyncIterator[Abused]:
    """Have such a daemon run for the time of the block."""
    port, log = free_port(), home / "daemon.log"
    command = [
        *(sys.executable, "-m", "pgbreaker", "run", "--listen", f"127.0.0.1:{port}"),
        *("--dsn", "postgresql://nobody@127.0.0.1:1/nothing"),
        *more,
    ]
    with log.open("wb") as told:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=told, stderr=told
        )
    try:
        async with asyncio.timeout(30):
            while await status_of(port) != 200:
                assert process.returncode is None, log.read_text("utf-8")
                await asyncio.sleep(0.05)
        yield Abused(process.pid, port, log)
        assert process.returncode is None, log.read_text("utf-8")
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def status_of(port: int, path: str = "/-/healthy") -> int:
    """Ask well, on a connection of its own. Returns the status, 0: there was none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    try:
        ask = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(ask.encode())
        async with asyncio.timeout(10):
            said = await reader.read()
    except (OSError, TimeoutError):
        return 0
    finally:
        writer.close()
    return int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.") else 0


@asynccontextmanager
async def good_requests(port: int, every: float = 0.02) -> AsyncIterator[list[float]]:
    """Ask well all the while, on new connections. Yields milliseconds that each took."""
    took: list[float] = []

    async def keep_asking() -> None:
        while True:
            began = time.perf_counter()
            status = await status_of(port)
            assert status == 200, f"a good request was answered by {status}"
            took.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(every)

    asking = asyncio.create_task(keep_asking())
    try:
        yield took
    finally:
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking


# -- What is no HTTP --------------------------------------------------------------------

_JSON = b"Content-Type: application/json\r\n"
CORPUS = (
    # Requests that are right, to be made wrong by a mutation.
    b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /metrics HTTP/1.1\r\n" + HOST + b"Accept-Encoding: gzip\r\n\r\n",
    b"GET /api/v1/status?since=1h HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /api/v1/events?limit=5&since=x HTTP/1.0\r\n\r\n",
    b"POST /-/reload HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    b"PUT /api/v1/breakers/target/read/override HTTP/1.1\r\n"
    + HOST
    + _JSON
    + b'Content-Length: 18\r\n\r\n{"state": "opened"}',
    b"POST /api/v1/maintenance HTTP/1.1\r\n"
    + HOST
    + _JSON
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"POST /maintenance HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\ncsrf=x",
    # Two lengths, and other ways to smuggle a request past a proxy.
    b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 9000,
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n" * 3,
    # Lines and fields that are none.
    b"GET / HTTP/1.1\n" + b"Host: localhost\n\n",
    b"GET / HTTP/1.1\r" + b"Host: localhost\r\r",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b" folded: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X\x00: y\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: \x00\x01\x7f\xff\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b": y\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n",
    b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    b"GET / HTTP/2.0\r\n" + HOST + b"\r\n",
    b"GET / FTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /\r\n",
    b"GET  /  HTTP/1.1\r\n" + HOST + b"\r\n",
    b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"\x00\x01\x02\x03\x04\r\n\r\n",
    b"\r\n\r\n\r\n\r\n",
    b"",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 64,
    b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"BREW /coffee HTTP/1.1\r\n" + HOST + b"\r\n",
    # Addresses that are none.
    b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /%00%ff%2e%2e/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /%zz?%zz=%&&==#x HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET http://[::1/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET //evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /\xff\xfe\x80 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /health/%2f/%2f HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    # Too much of everything.
    b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 9000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 300 + b"\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 20_000,
    (b"GET /-/healthy HTTP/1.1\r\n" + HOST + b"\r\n") * 50,
    b"POST /-/reload HTTP/1.1\r\n" + HOST + _JSON + b"Content-Length: 90000\r\n\r\n" + b"{" * 90_000,
    b"PUT /api/v1/breakers/target/read/override HTTP/1.1\r\n"
    + HOST
    + _JSON
    + b"Content-Length: 60000\r\n\r\n"
    + b"[" * 60_000,
    # Words of the protocol that want something.
    b"GET / HTTP/1.1\r\n" + HOST + b"Expect: 200-ok\r\n\r\n",
    b"POST /-/reload HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Range: bytes=0-18446744073709551615\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"If-None-Match: " + b'"a",' * 1500 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Cookie: " + b"a=b; " * 1500 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: Basic \xff\xff=\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Accept: text/html;q=\r\nAccept-Encoding: ;;q=,\r\n\r\n",
    b"GET /api/v1/stream HTTP/1.1\r\n" + HOST + b"Last-Event-ID: 9" + b"9" * 400 + b"\r\n\r\n",
    b"POST /maintenance HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: multipart/form-data\r\nContent-Length: 4\r\n\r\n--x\n",
    b"POST /-/reload HTTP/1.1\r\n" + HOST + b"Content-Type: ;;;=\r\nContent-Length: 2\r\n\r\n{}",
)  # fmt: skip

_BITS = (b"\x00", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\xff", b"%", b"%00", b"?")


def rubbish(count: int, seed: int) -> Iterator[bytes]:
    """The corpus as it is, and then with mutations, *count* in all."""
    draw = random.Random(seed)
    for number in range(count):
        said = CORPUS[number % len(CORPUS)]
        for _ in range(draw.randint(0, 3) if number >= len(CORPUS) else 0):
            said = _mutated(said, draw)
        yield said


def _mutated(said: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(said) + 1)
    to = min(len(said), at + draw.randint(1, 12))
    before, part, after = said[:at], said[at:to], said[to:]
    other = draw.choice(CORPUS)
    ways = (
        before + draw.choice(_BITS) + part + after,
        before + after,
        before,
        before + draw.randbytes(len(part)) + after,
        before + part * draw.randint(2, 20) + after,
        before + other[:200] + part + after,
        said + other[:2000],
    )
    return draw.choice(ways)


@dataclass
class Told:
    """What rubbish was answered by.

    Attributes:
        statuses: Status -> how often; 0: the connection was closed without a word.
        wrong: Answers that are none.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[bytes] = field(default_factory=list)


async def throw(port: int, count: int, seed: int) -> Told:
    """Throw so much rubbish, from a process of its own: it is not to hold up others here."""
    apart = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with apart:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(apart, _throw, port, count, seed)


def _throw(port: int, count: int, seed: int) -> Told:
    return asyncio.run(_throw_all(port, rubbish(count, seed), seed))


async def _throw_all(port: int, sayings: Iterator[bytes], seed: int) -> Told:
    """Say it all, each on a connection of its own, in pieces, with and without an end."""
    told, draw = Told(), random.Random(seed)

    async def keep_throwing() -> None:
        for said in sayings:
            answer = await _say(port, said, draw)
            if not answer:
                told.statuses[0] += 1
            elif answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
                told.statuses[int(answer[9:12])] += 1
            else:
                told.wrong.append(answer)

    await asyncio.gather(*(keep_throwing() for _ in range(_KNOWN_AT_ONCE)))
    return told


async def _say(port: int, said: bytes, draw: random.Random) -> bytes:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return b""
    try:
        cut = draw.randrange(len(said) + 1) if draw.random() < 0.3 else len(said)
        writer.write(said[:cut])
        if cut < len(said):
            await asyncio.sleep(0)
            writer.write(said[cut:])
        if draw.random() < 0.3:
            writer.write_eof()
        async with asyncio.timeout(_PATIENCE):
            return await reader.read(64)
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.transport.abort()


# -- What takes for ever ----------------------------------------------------------------

_BODY = 100 * 1024 * 1024


class Slow:
    """Clients that take for ever, in a process of their own.

    Args:
        headers: How many never come to the end of a header.
        readers: How many never read what they asked for.
        bodies: How many send a hundred megabytes, whatever they are told.
    """

    def __init__(self, port: int, *, headers: int, readers: int, bodies: int) -> None:
        self._words = [str(number) for number in (port, headers, readers, bodies)]

    async def __aenter__(self) -> "Slow":
        """Begin; all of them are connected by then, once."""
        here = str(Path(__file__).parents[1])
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "support.abuse", *self._words),
            cwd=here,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert await self._answer() > 0
        return self

    async def opened(self) -> int:
        """How many connections were opened so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self._answer()

    async def _answer(self) -> int:
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            return int(await self._process.stdout.readline())

    async def __aexit__(self, *_: object) -> None:
        """End them all."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


class _Crowd:
    """The clients themselves."""

    def __init__(self, port: int) -> None:
        self.opened = 0
        self._port = port

    async def keep(self, way: Callable[..., Awaitable[None]]) -> None:
        """Be one of them, and again each time that it is hung up on."""
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                self.opened += 1
                try:
                    await way(reader, writer)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.5 + random.random())


async def _header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET / HTTP/1.1\r\n" + HOST)
    while not reader.at_eof() and not reader.exception():
        writer.write(b"X: y\r\n")
        await asyncio.sleep(0.5 + random.random())


async def _reader(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()
    path, count = random.choice(((b"/api/v1/stream", 1), (b"/metrics", 20)))
    writer.write((b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n") * count)
    while not reader.exception() and not writer.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(1.0)


async def _body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"POST /-/reload HTTP/1.1\r\n" + HOST + _JSON)
    writer.write(b"Content-Length: %d\r\n\r\n" % _BODY)
    piece = b"x" * 65536
    for _ in range(_BODY // len(piece)):
        writer.write(piece)
        await writer.drain()


async def _be_slow(port: int, headers: int, readers: int, bodies: int) -> None:
    crowd = _Crowd(port)
    ways = [(_header, headers), (_reader, readers), (_body, bodies)]
    async with asyncio.TaskGroup() as group:
        for way, count in ways:
            for _ in range(count):
                group.create_task(crowd.keep(way))
        while crowd.opened < headers + readers + bodies:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
        while True:
            sys.stdout.write(f"{crowd.opened}\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_be_slow(*(int(word) for word in sys.argv[1:])))
