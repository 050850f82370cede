"""A connection to the engine that is there when it is needed. The importer of redis-py.

redis-py's own clients try again for seconds, and a connection of theirs whose answer was
given up can hand it to the next question. So it is its connections that we use, one
exchange at a time, and one that did not end well is thrown away: nothing is ever asked on
it again. RESP2: what is published comes on a connection that nothing else is asked on.
"""

import asyncio
import inspect
import re
import ssl
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from errno import ECONNREFUSED
from typing import Any, Final, TypeVar

from redis import exceptions
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pgbreaker.core.plan import EnginePlan
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.sinks.peers.address import Address, address_of, context_of, password_of
from pgbreaker.sinks.peers.scripts import Script
from pgbreaker.sinks.peers.talk import EngineLostError

_T = TypeVar("_T")

Command = Sequence[str | bytes | int]

# The library does not give its own name: that takes a command that Redis 6 and 7.0 do
# not have, and that a careful operator has not permitted.
_UNNAMED: Final[dict[str, Any]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)

_LONGEST: Final = 300
_CLOSED: Final = "it is not used any more"

_IDLE: Final = 0.4
"""Part of the timeout after which a subscription that hears nothing asks whether anybody
is there; the rest of it is for the answer."""

# Scripts of Redis 6 bring the code somewhere in their text, others before it.
_CODES: Final = {
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "MOVED",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.AuthenticationError: "WRONGPASS",
}
_CODE: Final = re.compile(
    r"\b(LOADING|READONLY|OOM|MISCONF|NOREPLICAS|BUSY|MASTERDOWN|CLUSTERDOWN|MOVED|"
    r"NOPERM|WRONGPASS|NOAUTH)\b"
)
_MEANINGS: Final = {
    "LOADING": "it was started lately, and is still loading its data",
    "READONLY": "it is a replica, which takes no writes",
    "OOM": "it takes no writes: its memory is full (maxmemory)",
    "MISCONF": "it takes no writes, because it cannot save to disk; its log says why",
    "NOREPLICAS": "it takes no writes, because too few replicas follow it",
    "BUSY": "it is kept busy by a script of somebody",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "CLUSTERDOWN": "its cluster is down",
    "MOVED": "it is a node of a cluster, and another one holds our keys",
    "WRONGPASS": "it does not take this user and password",
    "NOAUTH": "it wants a password, and none is given",
}


class Connection(AbstractConnection):
    """One of redis-py's, over TCP, TLS or a Unix socket.

    TLS trusts the authorities that were named and no others, which redis-py's own does
    not.
    """

    def __init__(self, plan: EnginePlan, address: Address, name: str) -> None:
        self._plan = plan
        self._address = address
        self._transport: asyncio.WriteTransport | None = None
        super().__init__(
            db=address.db,
            username=address.user,
            password=password_of(plan, address),
            client_name=name,
            socket_timeout=None,  # whoever asks has an eye on the time
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            encoding_errors="replace",
            decode_responses=True,
            protocol=2,
            **_UNNAMED,
        )

    async def _connect(self) -> None:
        address = self._address
        if address.path:
            opened = await asyncio.open_unix_connection(address.path)
        else:
            opened = await asyncio.open_connection(
                address.host,
                address.port,
                ssl=context_of(self._plan) if address.is_encrypted else None,
            )
        self._reader, self._writer = opened
        self._transport = opened[1].transport

    def _host_error(self) -> str:
        return str(self._address)

    def repr_pieces(self) -> list[tuple[str, object]]:
        return [("address", self._host_error()), ("db", self.db)]

    async def abandon(self) -> None:
        """End it at once, with whatever has not been sent."""
        if self._transport is not None:
            self._transport.abort()
        await self.disconnect(nowait=True)


class Lines:
    """Makes connections to the engine, and words for what goes wrong with them."""

    def __init__(self, plan: EnginePlan, name: str) -> None:
        self._plan = plan
        self._address = address_of(plan)
        self._name = name
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def connect(self) -> Connection:
        """Connect and log in."""
        if self._is_closed:
            raise EngineLostError(_CLOSED)
        connection = Connection(self._plan, self._address, f"pgbreaker:{self._name}")
        self._open.add(connection)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await self.drop(connection)
            raise
        return connection

    async def drop(self, connection: Connection) -> None:
        """Be rid of a connection, whatever state it is in."""
        self._open.discard(connection)
        await connection.abandon()

    async def within(
        self, work: Coroutine[Any, Any, _T], script: Script | None = None
    ) -> _T:
        """Wait for *work* for as long as a command may take, and no longer.

        It is a task of its own: so we are back in time whatever becomes of it, and what
        has come while our own loop stood still counts as come.

        Raises:
            EngineLostError: It was not done by then, or failed.
        """
        if self._is_closed:  # a connection that was ended would connect anew
            work.close()
            raise EngineLostError(_CLOSED)
        task = self.begin(work)
        try:
            await asyncio.wait((task,), timeout=self._plan.timeout)
        except BaseException:
            task.cancel()
            raise
        if not task.done():
            task.cancel()
            raise EngineLostError(self.silence)
        if task.cancelled():
            raise EngineLostError(_CLOSED)
        try:
            return task.result()
        except exceptions.ResponseError as error:
            raise EngineLostError(self._why(error, script)) from None
        except (exceptions.RedisError, OSError, ValueError) as error:
            raise EngineLostError(self._why(error)) from None

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Begin *work*, which is ended at the latest when all is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # of one that was given up, nobody asks

    @property
    def silence(self) -> str:
        """What is said of an engine that does not answer."""
        return f"no answer within {lasting(self._plan.timeout)}"

    @property
    def idle(self) -> Seconds:
        """Seconds after which a silent subscription is looked after."""
        return self._plan.timeout * _IDLE

    @property
    def patience(self) -> Seconds:
        """Seconds that it has then to answer."""
        return self._plan.timeout * (1 - _IDLE)

    async def close(self) -> None:
        """End every connection; whoever waits for an answer is told."""
        self._is_closed = True
        tasks = tuple(self._tasks)
        for connection in tuple(self._open):
            await self.drop(connection)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self._plan.timeout)

    def _why(self, error: BaseException, script: Script | None = None) -> str:
        """Say in one line what went wrong."""
        below = error if isinstance(error, OSError) else _below(error)
        if below is not None:
            return self._of_system(below)
        if isinstance(error, ValueError | exceptions.InvalidResponse):
            return f"what answers on {self._address} is no Redis"
        # After these words a server shows what it was sent, the password too.
        text = str(error).partition(", with args")[0]
        if "closed by server" in text:
            return self._hung_up()
        code = _code_of(error, text)
        if code == "NOPERM":
            return self._not_permitted(text, script)
        return _MEANINGS.get(code) or _line(text)

    def _not_permitted(self, text: str, script: Script | None) -> str:
        of_ours = "{" + self._plan.prefix + "}:*"
        needs = f"; its user needs &{of_ours}" if "channel" in text else ""
        if re.search(r"\bkeys?\b", text):
            needs = f"; its user needs ~{of_ours}"
        # Redis before 7.2 says in which line of a script, but not which command.
        place = re.search(r"user_script:(\d+)", text)
        if place and script and not needs and "'" not in text.replace("can't", ""):
            return (
                f"not permitted: its user may not run '{script.command(int(place[1]))}'"
            )
        said = re.sub(r" script: \w+, on @user_script.*|.*@user_script:\S+ ", "", text)
        return f"not permitted: {_line(said)}{needs}"

    def _hung_up(self) -> str:
        if self._address.is_encrypted and self._plan.cert_file is None:
            return "it closed the connection, as one that wants a certificate of ours"
        return "it closed the connection"

    def _of_system(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLError):
            return f"TLS: {_of_tls(error)}"
        if error.filename is not None:
            return _line(f"{error.filename}: {error.strerror}")
        numbers = {*re.findall(r"\[Errno (\d+)\]", str(error))}
        if isinstance(error, ConnectionRefusedError) or numbers == {str(ECONNREFUSED)}:
            return f"nobody listens on {self._address}"
        if isinstance(error, ConnectionResetError | BrokenPipeError):
            return self._hung_up()
        said = error.strerror or str(error) or type(error).__name__
        return _line(f"{self._address}: {said}")


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    reason = getattr(error, "reason", None) or str(error)
    if "CERTIFICATE_REQUIRED" in reason:
        return "it wants a certificate of ours"
    return _line(reason)


def _code_of(error: BaseException, text: str) -> str:
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            is_missing = code == "WRONGPASS" and "required" in text
            return "NOAUTH" if is_missing else code
    # What a script may not do is told without the code.
    found = _CODE.search(text)
    if found:
        return found[1]
    is_refused = "ACL failure" in text or "user executing the script can't" in text
    return "NOPERM" if is_refused else ""


def _below(error: BaseException | None) -> OSError | None:
    """Find what the system said, below what redis-py made of it."""
    seen = error
    while seen is not None:
        seen = seen.__cause__ or seen.__context__
        if isinstance(seen, OSError):
            return seen
    return None


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST].rstrip(".")


class Line:
    """One connection at most, on which one after the other is asked."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._turn = asyncio.Lock()
        self._connection: Connection | None = None
        self._run = ""
        self._attempts = 0

    async def ask(self, *commands: Command) -> list[Any]:
        """Ask all of *commands* at once; returns their answers."""
        return await self._lines.within(self._ask(commands))

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        async with self._turn:
            return await self._exchange(lambda: commands)

    async def run(
        self, script: Script, keys: Sequence[str], args: Command
    ) -> list[Any]:
        """Run *script*, which is told the engine's process and how often we have run
        one."""
        return await self._lines.within(self._run_it(script, keys, args), script)

    async def _run_it(
        self, script: Script, keys: Sequence[str], args: Command
    ) -> list[Any]:
        def called(name: str, text: str) -> list[Command]:
            self._attempts += 1
            return [(name, text, len(keys), *keys, self._run, self._attempts, *args)]

        async with self._turn:
            try:
                answers = await self._exchange(lambda: called("EVALSHA", script.sha))
            except exceptions.NoScriptError:
                answers = await self._exchange(lambda: called("EVAL", script.text))
            found: list[Any] = answers[0]
            return found

    async def _exchange(self, asked: Callable[[], Sequence[Command]]) -> list[Any]:
        """Ask, and read the answer to each; once more where the connection had ended
        while there was no use for it. To do twice what we ask for does no harm."""
        if self._connection is not None:
            try:
                return await self._answers(self._connection, asked())
            except exceptions.ConnectionError:
                pass  # it is not to be told from one that ends just now
        connection = await self._lines.connect()
        (known,) = await self._answers(connection, [("INFO", "server")])
        found = re.search(r"^run_id:(\w+)", str(known), re.MULTILINE)
        self._run = found[1] if found else "unknown"
        return await self._answers(connection, asked())

    async def _answers(
        self, connection: Connection, commands: Sequence[Command]
    ) -> list[Any]:
        """Send *commands*, and read an answer to each; only then it is kept."""
        self._connection = None
        try:
            packed = connection.pack_commands(commands)
            await connection.send_packed_command(packed, check_health=False)
            answers = [await _answer(connection) for _ in commands]
        except BaseException:
            await self._lines.drop(connection)
            raise
        self._connection = connection
        for answer in answers:
            if isinstance(answer, exceptions.ResponseError):
                if not isinstance(answer, exceptions.NoScriptError):
                    # Of a primary that was demoted, say: its name leads elsewhere by now.
                    self._connection = None
                    await self._lines.drop(connection)
                raise answer
        return answers


async def _answer(connection: Connection) -> Any:  # noqa: ANN401 - whatever was asked for
    try:
        return await connection.read_response()
    except exceptions.ResponseError as error:
        return error  # the others' answers are yet to be read


async def published(lines: Lines, channel: str) -> AsyncGenerator[str]:
    """What is published on *channel*, after an empty text once it is subscribed to.

    Raises:
        EngineLostError: The connection was lost, or nobody is at its other end.
    """
    connection = await lines.within(_subscribed(lines, channel))
    reading: asyncio.Task[Any] | None = None
    try:
        yield ""
        is_asked = False
        while True:
            if reading is None:
                reading = lines.begin(connection.read_response())
            rest = lines.patience if is_asked else lines.idle
            await asyncio.wait((reading,), timeout=rest)
            if reading.done():
                answer = await lines.within(_done(reading))
                reading, is_asked = None, False
                if answer[0] == "message":
                    yield answer[2]
            elif is_asked:
                raise EngineLostError(lines.silence)
            else:
                await lines.within(connection.send_command("PING", check_health=False))
                is_asked = True
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.wait((reading,), timeout=lines.patience)
        await lines.drop(connection)


async def _subscribed(lines: Lines, channel: str) -> Connection:
    connection = await lines.connect()
    try:
        await connection.send_command("SUBSCRIBE", channel, check_health=False)
        await connection.read_response()
    except BaseException:
        await lines.drop(connection)
        raise
    return connection


async def _done(task: asyncio.Task[_T]) -> _T:
    return await task
