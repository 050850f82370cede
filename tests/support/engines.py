"""Real engines that daemons share, a Redis each, and what tests do to them."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgbreaker.core.plan import EnginePlan
from pgbreaker.core.secret import Secret
from support.authority import Authority
from support.process import free_port
from support.tools import missing, need

_READY_WITHIN = 10.0
_STOP_WITHIN = 5.0

SETTINGS = {"bind": "127.0.0.1", "save": '""', "appendonly": "no"}
"""Kept in memory, unless a test wants it otherwise."""


@dataclass(slots=True)
class RedisServer:
    """One redis-server, run by a user with no power.

    Attributes:
        home: Directory of all that is its own; gone when it is closed.
        port: The port that it listens on, on 127.0.0.1 alone; 0 when it speaks TLS.
        tls_port: The port on which it speaks TLS; 0 when it does not.
        settings: Lines of its configuration, besides and instead of `SETTINGS`.
        env: What it is started with, besides our own environment.
    """

    home: Path
    port: int
    tls_port: int
    settings: dict[str, str]
    env: Mapping[str, str]
    _program: str
    _process: "subprocess.Popen[bytes] | None" = None
    _console: Any = field(default=None)

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.home / "socket"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, until: str = "PONG") -> None:
        """Start it, and wait until it answers so to a ping."""
        assert not self.is_running
        own = {"dir": str(self.home), "unixsocket": str(self.socket)}
        lines = SETTINGS | own | {"port": str(self.port)} | self.settings
        text = "".join(f"{name} {value}\n" for name, value in lines.items())
        (self.home / "conf").write_text(text, "utf-8")
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self.home / "conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**os.environ, **self.env},
                start_new_session=True,  # Ctrl-C is for us to hear, not for it
                **_demoted(),
            )
        deadline = time.monotonic() + _READY_WITHIN
        while until not in (said := self._pinged()):
            assert self.is_running, f"redis-server did not start: {self.log()}"
            assert time.monotonic() < deadline, f"{said!r} is not {until}: {self.log()}"
            time.sleep(0.002)

    def _pinged(self) -> str:
        try:
            return "PONG" if self.tell("PING") else ""
        except _errors() as error:
            return f"{type(error).__name__} {error}"

    def tell(self, *words: str | int) -> Any:
        """Give it a command as the user that may do everything; returns its answer."""
        if self._console is None:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            self._console = redis.Redis(
                unix_socket_path=str(self.socket),
                decode_responses=True,
                socket_timeout=_READY_WITHIN,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
            )
            self._console.response_callbacks.clear()  # as the engine says it
        return self._console.execute_command(*words)

    def clients(self, name: str) -> int:
        """Connections that it has of a client of that name."""
        return self.tell("CLIENT", "LIST").count(f" name={name} ")

    def permit(self, user: str, password: str, *rules: str) -> None:
        """Make a user anew, who may do what *rules* say and no more."""
        self.tell("ACL", "SETUSER", user, "reset", "on", f">{password}", *rules)

    def freeze(self) -> None:
        """Stop it in its tracks; its connections stay."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it as ``kill -9`` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._forget_console()

    def stop(self) -> None:
        """End it, and wait for the end; what it has is written when it saves at all."""
        if self._process is None:
            return
        self.thaw()
        self._process.terminate()
        try:
            self._process.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None
        self._forget_console()

    def _forget_console(self) -> None:
        if self._console is not None:
            self._console.close()
            self._console = None

    def lose(self) -> None:
        """Remove what it has written; it is not running."""
        assert not self.is_running
        for name in ("dump.rdb", "appendonlydir"):
            path = self.home / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def log(self) -> str:
        """What it has logged."""
        return (self.home / "log").read_text("utf-8", errors="replace")

    def url(self, user: str = "", password: str = "", db: int = 0) -> str:
        """Say where it is."""
        login = f"{user}:{password}@" if user or password else ""
        if self.tls_port:
            return f"rediss://{login}localhost:{self.tls_port}/{db}"
        return f"redis://{login}127.0.0.1:{self.port}/{db}"

    def plan(self, **more: Any) -> EnginePlan:
        """A plan that leads here; *more* of it, or another."""
        return EnginePlan(**{"url": Secret(self.url()), **more})


@contextlib.contextmanager
def running_redis(
    *,
    authority: Authority | None = None,
    env: Mapping[str, str] | None = None,
    **settings: str,
) -> Iterator[RedisServer]:
    """A redis-server for the time of the block.

    A missing package skips, with its name; in CI, where everything has to be there,
    it fails.

    Args:
        authority: Who signed its certificate and signs those of its clients; it speaks
            TLS alone then.
        env: What it is started with, besides our own environment.
        settings: Lines of its configuration, with _ for -.
    """
    program = need("redis-server", "redis-server")
    need_client()
    home = Path(tempfile.mkdtemp(prefix="redis-", dir="/tmp"))
    own = {name.replace("_", "-"): value for name, value in settings.items()}
    port, tls_port = (free_port(), 0) if authority is None else (0, free_port())
    server = RedisServer(home, port, tls_port, own, env or {}, program)
    try:
        if authority is not None:
            own |= _certified(authority, home) | {"tls-port": str(tls_port)}
        home.chmod(0o755)
        if os.geteuid() == 0:
            for path in (home, *home.iterdir()):
                os.chown(path, **_ids())
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def need_client() -> None:
    """Skip without redis-py; in CI, where everything has to be there, fail."""
    if importlib.util.find_spec("redis") is None:
        missing("redis is missing: pip install redis")


def _certified(authority: Authority, home: Path) -> dict[str, str]:
    """Put its certificates into *home*; returns the settings that name them."""
    names = {"cert": "server.crt", "key": "server.key", "ca-cert": "root.crt"}
    for name in names.values():
        shutil.copy(authority.home / name, home / name)
    return {f"tls-{what}-file": str(home / name) for what, name in names.items()}


def _errors() -> tuple[type[Exception], ...]:
    import redis

    return (redis.RedisError,)


def _ids() -> dict[str, int]:
    entry = pwd.getpwnam("nobody")
    return {"uid": entry.pw_uid, "gid": entry.pw_gid}


def _demoted() -> dict[str, Any]:
    """As whoever we are, or as root somebody with as little power as can be."""
    if os.geteuid() != 0:
        return {}
    ids = _ids()
    return {"user": ids["uid"], "group": ids["gid"], "extra_groups": []}
