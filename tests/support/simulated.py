"""PostgreSQL servers on a network of their own, within the process: to be broken by the
thousand.

They speak as much of the protocol as the monitor asks of a server of version 17, and
answer its probes with what a real one answered; what counts up there, counts up here by
the loop's clock. Between them and the monitor there are no sockets, and no threads.
"""

import asyncio
import json
import math
import re
import socket
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pgbreaker.config.load import USUAL
from pgbreaker.probes import PROBES
from pgbreaker.probes.probe import Server
from support.virtual import BEGIN

VERSION = 170010
TEXT, INT4 = 25, 23
WAY = 0.0005  # seconds for a question and its answer, on a good day

_INT = struct.Struct("!i")
_SHORT = struct.Struct("!h")
_HEADER = struct.Struct("!ci")
_COLUMN = struct.Struct("!ihihih")
_SSL_REQUEST, _STARTUP = 80877103, 196608


def _message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + _INT.pack(len(body) + 4) + body


_READY = _message(b"Z", b"I")
_ONE_ROW = _message(b"C", b"SELECT 1\0")
_PARSED, _BOUND, _CLOSED = (_message(kind) for kind in (b"1", b"2", b"3"))
_PARAMETERS = {
    "server_version": "17.10",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "TimeZone": "UTC",
}


def _error(severity: str, sqlstate: str, text: str) -> bytes:
    said = {"S": severity, "V": severity, "C": sqlstate, "M": text}
    fields = (k.encode() + v.encode() + b"\0" for k, v in said.items())
    return _message(b"E", b"".join(fields) + b"\0")


@dataclass(frozen=True, slots=True)
class Question:
    """A statement, read once.

    Attributes:
        probes: Column -> the probe whose rows it is.
        about: What else it asks about; empty: nothing.
        described: The columns, as they are told.
    """

    probes: Mapping[str, str]
    about: str
    described: bytes


def _described(columns: Iterable[tuple[str, int]]) -> bytes:
    told = [
        name.encode() + b"\0" + _COLUMN.pack(0, 0, type_, -1, -1, 0)
        for name, type_ in columns
    ]
    return _message(b"T", _SHORT.pack(len(told)) + b"".join(told))


@lru_cache(maxsize=512)
def read(sql: str) -> Question:
    """Say what *sql* asks."""
    if sql == "SELECT 1":
        return Question({}, "nothing", _described([("?column?", INT4)]))
    if "json_agg(q)" in sql:
        names = re.findall(r"\) AS q\)::text AS (\S+?)(?:,\n|$)", sql)
        probes = {name: name if name in PROBES else _asked(sql) for name in names}
        return Question(probes, "", _described((name, TEXT) for name in names))
    if "'pgbreaker/commit'" in sql:
        columns = (("pid", INT4), ("kind", TEXT), ("event", TEXT), ("sessions", INT4))
        return Question({}, "stalled", _described(columns))
    assert "NOT l.granted" in sql, sql
    columns = (("relation", TEXT), ("blocker", INT4))
    return Question({}, "locked", _described(columns))


def _asked(sql: str) -> str:
    server = Server(VERSION)
    asked = [n for n in USUAL if (text := PROBES[n].asks(server)) and text in sql]
    assert len(asked) == 1, sql
    return asked[0]


class Machine:
    """One server.

    Attributes:
        address: Where it is.
        is_up: Whether it runs; is_frozen: whether it answers nothing.
        way: Seconds for a question and its answer.
        is_full: Whether it lets nobody in any more.
        is_barred: Whether it takes the monitor's password for wrong.
        is_read_only: Whether its sessions cannot write.
        is_alone: Whether commits wait for a standby that is not there.
    """

    def __init__(self, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.is_up, self.is_frozen = True, False
        self.way = WAY
        self.is_full = self.is_barred = self.is_read_only = self.is_alone = False
        self.timeline = 1
        self.system_id = str(7_000_000_000_000_000_000 + zlib.crc32(address.encode()))
        self.started = BEGIN + loop.time() - 3600.0
        self._loop = loop
        self.links: set[Link] = set()
        self._stuck: list[tuple[float, Link]] = []  # commits that wait, and since when
        self._pids = 0
        self._moving = {
            "identity": self._identity,
            "login": self._login,
            "commit": self._commit,
            "saturation": self._saturation,
            "database": self._database,
            "wal_ckpt": self._wal,
            "size": self._size,
        }

    async def connect(self, protocol: asyncio.Protocol) -> "Link":
        await asyncio.sleep(self.way)
        if not self.is_up:
            raise ConnectionRefusedError(111, f"Connect call failed {self.address!r}")
        self._pids += 1
        link = Link(self, protocol, self._pids, self._loop)
        self.links.add(link)
        protocol.connection_made(link)
        return link

    # What is done to it.

    def crash(self) -> None:
        """End it, with all who are in."""
        self.is_up = False
        self._stuck.clear()
        for link in tuple(self.links):
            link.lose(ConnectionResetError("connection reset by peer"))

    def start(self) -> None:
        self.is_up = True
        self.started = BEGIN + self._loop.time()

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        """Go on with what came meanwhile."""
        self.is_frozen = False
        for link in tuple(self.links):
            link.arrive()

    def terminate(self) -> None:
        """Have an operator end every session."""
        end = _error(
            "FATAL", "57P01", "terminating connection due to administrator command"
        )
        for link in tuple(self.links):
            if link.is_in:
                link.dismiss(end)

    def wait_for_standby(self) -> None:
        self.is_alone = True

    def let_go(self) -> None:
        """A standby is there: what waited is written."""
        self.is_alone = False
        stuck, self._stuck = self._stuck, []
        for _, link in stuck:
            link.answer_commit()

    # What it says.

    def stick(self, link: "Link") -> None:
        self._stuck.append((self._loop.time(), link))

    def values(self, probe: str, pid: int) -> str | None:
        """What *probe* sees, as the JSON of its rows."""
        saying = self._moving.get(probe)
        return _STILL[probe] if saying is None else saying(pid)

    def _identity(self, pid: int) -> str:
        now = self._loop.time()
        return (
            f'[{{"in_recovery":false,"started":{self.started:.6f},'
            f'"version":{VERSION},"system_id":"{self.system_id}",'
            f'"timeline":{self.timeline},'
            f'"checkpoint_at":{BEGIN + now // 300 * 300:.0f},'
            f'"counters_since":{self.started - 1:.6f},"is_monitor":true,'
            f'"backend_pid":{pid}}}]'
        )

    def _login(self, _pid: int) -> str:
        return (
            f'[{{"door_in_recovery":false,"door_started":{self.started:.6f},'
            f'"door_system_id":"{self.system_id}"}}]'
        )

    def _commit(self, _pid: int) -> str:
        is_read_only = "true" if self.is_read_only else "false"
        return (
            f'[{{"read_only":{is_read_only},"in_recovery":false,'
            '"written":"0/1865FC8"}]'
        )

    def _saturation(self, _pid: int) -> str:
        waves = 40 + 20 * math.sin(self._loop.time() / 600)
        return _saturation(97 if self.is_full else round(waves))

    def _database(self, _pid: int) -> str:
        return _database(int(self._ran * 10), int(self._loop.time() * 3))

    def _wal(self, _pid: int) -> str:
        ran = self._ran
        return _wal(int(ran * 5000), int(ran // 300), ran % 300)

    def _size(self, _pid: int) -> str:
        return _size(7_000_000 + int(self._loop.time() * 100))

    @property
    def _ran(self) -> float:
        return BEGIN + self._loop.time() - self.started

    def about(self, what: str) -> list[bytes | None] | None:
        """The one row of an answer that is no probe's; None: there is none."""
        if what == "nothing":
            return [_INT.pack(1)]
        if what == "stalled" and self._stuck:
            count = len(self._stuck)
            return [_INT.pack(1), b"IPC", b"SyncRep", _INT.pack(count)]
        return None


_STILL: Mapping[str, str | None] = {
    "ping": '[{"?column?":1}]',
    "blocking": '[{"lock_waiters":0,"lock_wait_oldest_seconds":0,"pile":null}]',
    "replication": (
        '[{"is_replica":false,"sync_names":"","hidden":0,"sync_present":0,'
        '"standbys":null,"has_receiver":false,"receiver_status":null,'
        '"receiver_silence":null,"receiver_timeout":60,"receiver_wanted":false,'
        '"behind":null,"commit_age":0.509569,"is_paused":null}]'
    ),
    "slots": (
        '[{"replication_slots_used":0,"replication_slots_limit":10,'
        '"replication_slots_lost":0,"slots":null}]'
    ),
    "statements": None,
    "maintenance": (
        '[{"tables":null,"vacuums_running":0,"vacuums":null,"sequences_hidden":0,'
        '"sequences":null,"xmin_age":0,"xmin_holder":null,"prepared_transactions":0,'
        '"prepared_oldest_seconds":0}]'
    ),
}


@lru_cache(maxsize=128)
def _saturation(used: int) -> str:
    waiting = {f"waiting_{of}": 0 for of in ("lock", "lwlock", "io", "ipc", "other")}
    ages = ("transaction", "query", "idle_in_transaction")
    row = {
        "max_connections": 100,
        "superuser_reserved_connections": 3,
        "reserved_connections": 0,
        "slots_usable": 97,
        "slots_used": used,
        "slots_ratio": used / 97,
        "active": 1,
        "idle": used - 1,
        "idle_in_transaction": 0,
        **{f"oldest_{of}_seconds": 0 for of in ages},
        **waiting,
    }
    return json.dumps([row])


def _database(commits: int, ids: int) -> str:
    counted = {"deadlocks": 0, "conflicts": None, "temp_bytes": 0}
    row = {
        "databases": [
            {
                "database": name,
                "commits": commits,
                "rollbacks": commits // 100,
                "sessions": commits // 10,
                **counted,
            }
            for name in ("app", "postgres")
        ],
        "ages": [
            {
                "database": name,
                "xid_age_ratio": ids % 10**8 / 2**31,
                "multixact_age_ratio": 0.0,
            }
            for name in ("template1", "template0", "postgres", "app")
        ],
        "connections_by_database": [
            {"database": "app", "state": "active", "connections": 1}
        ],
        "connections_by_user": [{"user": "pgbreaker", "connections": 1}],
        "sessions_abandoned": 0,
        "sessions_fatal": 0,
        "sessions_killed": 0,
        "xid_age_max": ids % 10**8,
        "mxid_age_max": 0,
        "xid_limit": 2144483648,
        "database_limit": None,
        "role_limit": 4,
    }
    return json.dumps([row])


def _wal(written: int, checkpoints: int, age: float) -> str:
    row = {
        "wal_bytes": written,
        "archiving": False,
        "archiver_archived": 0,
        "archiver_failed": 0,
        "last_archived_age_seconds": None,
        "archiver_pending": None,
        "wal_segment_bytes": 16777216,
        "checkpoints_timed": checkpoints,
        "checkpoints_requested": 0,
        "checkpoint_write_seconds": checkpoints * 2.0,
        "checkpoint_sync_seconds": checkpoints * 0.1,
        "checkpoint_age_seconds": age,
    }
    return json.dumps([row])


def _size(bytes_: int) -> str:
    row = {
        "sizes": [
            {"database": "app", "bytes": bytes_},
            {"database": "postgres", "bytes": 7419571},
        ],
        "wal_directory_bytes": 16777216,
        "temp_directory_bytes": 0,
    }
    return json.dumps([row])


class Link(asyncio.Transport):
    """One connection to a server: the transport of who connects, and the session.

    Attributes:
        is_in: Whether it was let in.
    """

    def __init__(
        self,
        machine: Machine,
        protocol: asyncio.Protocol,
        pid: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__()
        self.is_in = False
        self._machine = machine
        self._protocol = protocol
        self._pid = pid
        self._loop = loop
        self._inbox = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._statements: dict[bytes, str] = {}
        self._bound = ""  # what is executed next
        self._waits = False  # for a commit

    # The transport.

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._is_closed

    def is_reading(self) -> bool:
        return not self._is_closed

    def pause_reading(self) -> None:
        """Nobody here sends so much."""

    def resume_reading(self) -> None:
        """Nobody here was paused."""

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closed:
            return
        self._inbox += data
        if self._timer is None:
            self._timer = self._loop.call_later(self._machine.way, self.arrive)

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.lose(None)

    def abort(self) -> None:
        self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """End it, because of *error* or because somebody wants to."""
        if self._is_closed:
            return
        self._is_closed = True
        self._machine.links.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._loop.call_soon(self._protocol.connection_lost, error)

    def dismiss(self, last: bytes) -> None:
        """Have the server say *last*, and hang up."""
        self._tell(last)
        if not self._is_closed:
            self._protocol.eof_received()
            self.lose(None)

    # The session.

    def _tell(self, data: bytes) -> None:
        if data and not self._is_closed:
            self._protocol.data_received(data)

    def arrive(self) -> None:
        """What was sent is there."""
        self._timer = None
        if self._machine.is_frozen or self._is_closed or self._waits:
            return
        if not self.is_in and not self._begin():
            return
        self._tell(b"".join(self._answers()))

    def _begin(self) -> bool:
        """Let somebody in; returns whether there may be questions now."""
        if len(self._inbox) < 8:
            return False
        length, code = struct.unpack_from("!ii", self._inbox)
        if code == _SSL_REQUEST:
            del self._inbox[:length]
            self._tell(b"N")
            return False
        assert code == _STARTUP, code
        if len(self._inbox) < length:
            return False
        del self._inbox[:length]
        machine = self._machine
        if machine.is_barred:
            text = 'password authentication failed for user "pgbreaker"'
            self.dismiss(_error("FATAL", "28P01", text))
            return False
        if machine.is_full:
            text = "sorry, too many clients already"
            self.dismiss(_error("FATAL", "53300", text))
            return False
        self.is_in = True
        told = {**_PARAMETERS, "in_hot_standby": "off"}
        parameters = (
            _message(b"S", f"{name}\0{value}\0".encode())
            for name, value in told.items()
        )
        key = _message(b"K", struct.pack("!ii", self._pid, 0))
        self._tell(_message(b"R", _INT.pack(0)) + b"".join(parameters) + key + _READY)
        return True

    def _answers(self) -> Iterable[bytes]:
        while len(self._inbox) >= 5 and not self._waits:
            kind, length = _HEADER.unpack_from(self._inbox)
            if len(self._inbox) < length + 1:
                return
            body = bytes(self._inbox[5 : length + 1])
            del self._inbox[: length + 1]
            yield from self._answer(kind, body)

    def _answer(self, kind: bytes, body: bytes) -> Iterable[bytes]:
        match kind:
            case b"Q":
                self._bound = body[:-1].decode()
                if not self._has_to_wait():
                    yield self._whole()
            case b"P":
                name, sql, _ = body.split(b"\0", 2)
                self._statements[name] = sql.decode()
                yield _PARSED
            case b"D":
                question = read(self._statements[body[1:-1]])
                yield _message(b"t", _SHORT.pack(0)) + question.described
            case b"B":
                self._bound = self._statements[body.split(b"\0", 2)[1]]
                yield _BOUND
            case b"E":
                yield from self._rows(as_text=False)
            case b"C":
                self._statements.pop(body[1:-1], None)
                yield _CLOSED
            case b"S":
                yield _READY
            case b"X":
                self.lose(None)

    def _whole(self) -> bytes:
        """The whole answer to a question of the simple protocol."""
        rows = b"".join(self._rows(as_text=True))
        return read(self._bound).described + rows + _READY

    def _has_to_wait(self) -> bool:
        """Whether it is a commit that waits for a standby."""
        if self._machine.is_alone and "pg_logical_emit_message" in self._bound:
            self._machine.stick(self)
            self._waits = True
        return self._waits

    def answer_commit(self) -> None:
        """The commit that waited is written."""
        self._waits = False
        self._tell(self._whole())
        self.arrive()

    def _rows(self, *, as_text: bool) -> Iterable[bytes]:
        question = read(self._bound)
        if question.about:
            row = self._machine.about(question.about)
            if row is not None and as_text:
                assert question.about == "nothing"
                row = [b"1"]
        else:
            row = [
                None
                if (seen := self._machine.values(p, self._pid)) is None
                else seen.encode()
                for p in question.probes.values()
            ]
        if row is not None:
            cells = (
                _INT.pack(-1) if cell is None else _INT.pack(len(cell)) + cell
                for cell in row
            )
            yield _message(b"D", _SHORT.pack(len(row)) + b"".join(cells))
        yield _ONE_ROW


@dataclass
class Site:
    """A server as its clients know it: by a name, which can lead to another machine.

    Attributes:
        host: The name.
        machines: Those that it can lead to; the first is where it leads now.
        is_lost: Whether nobody knows the name.
    """

    host: str
    machines: list[Machine]
    is_lost: bool = False

    @property
    def machine(self) -> Machine:
        return self.machines[0]

    def fail_over(self) -> None:
        """Have the name lead to the other machine, which is the primary from now on."""
        self.machines.reverse()
        self.machine.timeline = self.machines[1].timeline + 1
        if not self.machine.is_up:
            self.machine.start()


@dataclass
class Sites:
    """The network: names and addresses of simulated servers.

    Attributes:
        sites: Name -> where it leads.
    """

    loop: asyncio.AbstractEventLoop
    sites: dict[str, Site] = field(default_factory=dict)
    _machines: dict[str, Machine] = field(default_factory=dict)

    def add(self, host: str) -> Site:
        """A site of two machines that follow each other."""
        number = len(self._machines)
        machines = [
            Machine(f"10.0.{(number + n) // 200}.{(number + n) % 200 + 1}", self.loop)
            for n in range(2)
        ]
        machines[1].system_id = machines[0].system_id
        site = self.sites[host] = Site(host, machines)
        self._machines |= {machine.address: machine for machine in machines}
        return site

    async def look_up(self, host: str) -> str | None:
        if host in self._machines:
            return host
        site = self.sites.get(host)
        if site is None:
            return None
        await asyncio.sleep(WAY)
        if site.is_lost:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return site.machine.address

    async def connect(
        self, protocol: asyncio.Protocol, address: str
    ) -> asyncio.Transport | None:
        machine = self._machines.get(address)
        return None if machine is None else await machine.connect(protocol)
