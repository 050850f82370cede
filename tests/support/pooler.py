"""A real pgbouncer between a test and its server."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg
from psycopg.rows import dict_row

from pgbreaker.demo.server import Server
from support.process import free_port
from support.tools import need

Mode = Literal["session", "transaction"]

USER = "app_user"
ADMIN = "boss"
DATABASE = "app"

_READY_WITHIN = 10.0
_STOP_WITHIN = 5.0

INI = """
[databases]
app = host=127.0.0.1 port={server.port} dbname=app
misnamed = host=127.0.0.1 port={server.port} dbname=nosuch
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {home}/users
admin_users = {admin}
"""

SETTINGS = {
    "pool_mode": "transaction",
    "default_pool_size": "1",
    "query_wait_timeout": "0.2",
    "server_login_retry": "0.1",
    "server_connect_timeout": "2",
}
"""One connection for all, and little patience: what differs is a test's own."""


@dataclass(slots=True)
class Pooler:
    """One pgbouncer, run by a user with no power.

    Attributes:
        server: The server behind it.
        home: Directory of all that is its own; gone when it is closed.
        port: The port that it listens on, on 127.0.0.1 alone.
    """

    server: Server
    home: Path
    port: int
    _program: str
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until its console answers."""
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self.home / "ini")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for us to hear, not for it
                **_demoted(),
            )
        deadline = time.monotonic() + _READY_WITHIN
        while not self._answers():
            assert self.is_running, f"pgbouncer did not start: {self.log()}"
            assert time.monotonic() < deadline, f"pgbouncer is silent: {self.log()}"
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            self.tell("SHOW VERSION")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it at once, and every session with it; waits for the end."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Kill it, by its pid."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        """What it has logged."""
        return (self.home / "log").read_text("utf-8", errors="replace")

    def dsn(
        self,
        *,
        user: str = USER,
        database: str = DATABASE,
        password: str | None = None,
    ) -> str:
        """Say where it is; the password is the server's, None: the right one."""
        return self.server.dsn(
            user=user, database=database, password=password, port=self.port
        )

    def tell(self, command: str) -> list[dict[str, object]]:
        """Give the admin console a command; returns the rows that it shows."""
        dsn = self.dsn(user=ADMIN, database="pgbouncer")
        with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as console:
            cursor = console.execute(command)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def running_pooler(
    server: Server, mode: Mode = "transaction", **settings: str
) -> Iterator[Pooler]:
    """A pgbouncer before *server*, for the time of the block.

    A missing package skips, with its name; in CI, where everything has to be there,
    it fails.

    Args:
        mode: Who keeps a connection of the server's: a session or a transaction.
        settings: Lines of its configuration, besides and instead of `SETTINGS`.
    """
    program = _program()
    home = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir="/tmp"))
    pooler = Pooler(server, home, free_port(), program)
    lines = SETTINGS | {"pool_mode": mode} | settings
    ini = INI.format(server=server, port=pooler.port, home=home, admin=ADMIN)
    try:
        home.chmod(0o755)  # another user has to get through it
        ini += "".join(f"{name} = {value}\n" for name, value in lines.items())
        (home / "ini").write_text(ini, "utf-8")
        users = (f'"{name}" "{server.password}"\n' for name in (USER, ADMIN))
        (home / "users").write_text("".join(users), "utf-8")
        pooler.start()
        yield pooler
    finally:
        pooler.stop()
        shutil.rmtree(home, ignore_errors=True)


def _program() -> str:
    # Debian has it where a user's PATH need not lead.
    found = Path("/usr/sbin/pgbouncer")
    return str(found) if found.exists() else need("pgbouncer", "pgbouncer")


def _demoted() -> dict[str, object]:
    """As whoever we are, or as root somebody with as little power as can be."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
