"""Somebody who follows a page word by word, on a machine that is a folder.

What is another than on a reader's machine is all here: `Reader._here` puts the folder
before absolute paths, free ports in the place of the usual ones, and the server of the
tests in that of ``db1``; programs of machine.py stand before their namesakes.
"""

import contextlib
import json
import os
import re
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from pgbreaker.demo.server import Server
from pgbreaker.web.doors import read_web_config
from support.documents import ROOT, SHOWN, Block, commands, dialogue, missing, runnable
from support.machine import (
    AS_OTHER,
    CHECKOUT,
    CONFIG,
    ENDED,
    FOLDERS,
    MONITOR,
    PGBREAKER,
    PLACES,
    REFUSED,
    SETUP,
    SYSTEMCTL,
    TABLES,
    USUAL,
)
from support.pooler import ADMIN, Pooler
from support.process import free_port
from support.servers import psql
from support.tools import need

WITHIN = 30.0  # seconds that a block may take
ASKED_AGAIN = 15.0  # seconds in which an answer may become what the page shows
ASKS = re.compile(
    r"pgbreaker (status|explain|events|check|watch|doctor|backtest)\b|curl |amtool |psql -h 127|redis-cli "
)
RUNS = re.compile(r"^(pgbreaker run|systemctl enable)\b", re.MULTILINE)
ASKS_DAEMON = re.compile(
    r"systemctl (start|stop|restart|reload|disable)|pgbreaker (status|explain|events|check|open|close|disable|auto|maintenance|reload"
    r"|healthcheck|support-bundle)\b(?!-)|:9432/"
)

ASKS_SERVER = re.compile(r"@db\d|psql|CREATE|DROP|" + ASKS_DAEMON.pattern)

# Program of the system's that pages use -> the package that has it.
PACKAGES = {
    "amtool": "prometheus-alertmanager",
    "curl": "curl",
    "openssl": "openssl",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "promtool": "prometheus",
    "redis-cli": "redis-tools",
    "redis-server": "redis-server",
}

ABSOLUTE = re.compile(
    r"(?:^|[\s='\"<>(|])(/[\w.-]+(?:/[\w.-]*)*)(?![=\w])", re.MULTILINE
)
ELSEWHERE = ("/dev/null", "/tmp")  # and where a socket is
PYTHON = """import ast, asyncio, inspect, sys
source = open(sys.argv[1], encoding="utf-8").read()
code = compile(source, sys.argv[2], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
done = eval(code, names)
if inspect.iscoroutine(done):
    asyncio.run(done)
"""


class Reader:
    """One reader of one page.

    Args:
        page: What is read.
        blocks: What is in it.
        server: The server that the page calls ``db1``.
        pooler: What stands before it.
    """

    def __init__(
        self, page: Path, blocks: list[Block], server: Server, pooler: Pooler
    ) -> None:
        self.page = page
        self._blocks = blocks
        self._text = "".join(block.text for block in blocks)
        self._server = server
        self._pooler = pooler
        # Not below a folder that another user, whom PostgreSQL runs as, cannot enter.
        self.root = Path(tempfile.mkdtemp(prefix="reader-", dir="/tmp"))
        self.root.chmod(0o777)
        self._ports = {usual: free_port() for usual in USUAL}
        self._shell: subprocess.Popen[bytes] | None = None
        self._python: list[Block] = []
        self._ran = 0

    def __enter__(self) -> Self:
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True)
        home = self.root / "home"
        home.chmod(0o777)
        for there in CHECKOUT:  # a page's shell begins in a checkout
            (home / there).symlink_to(ROOT / there)
        self._wrap()
        if ASKS_SERVER.search(self._text):
            self._prepare_server()
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.root / "home",
            env=self._environment(),
            start_new_session=True,
            umask=0,  # another user writes in the folders that a page makes, too
        )
        if ASKS_DAEMON.search(self._text) and not RUNS.search(self._text):
            self._write("/etc/pgbreaker/pgbreaker.yaml", CONFIG)
            self._run("pgbreaker run --config /etc/pgbreaker/pgbreaker.yaml")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for left in self.root.glob("home/*/*/postmaster.pid"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(left.read_text("ascii").split()[0]), signal.SIGQUIT)
        if self._shell is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()
            for pipe in (self._shell.stdin, self._shell.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def follow(self) -> None:
        """Do what each block says, in order. Skips when a program is missing.

        Raises:
            AssertionError: One of them does not hold; it says which, and why.
        """
        for program, package in PACKAGES.items():
            if re.search(rf"^(\$ )?{program} ", self._text, re.MULTILINE):
                need(program, package)
        last = [b for b in self._blocks if b.kind == "python" and b.file is None][-1:]
        for block in self._blocks:
            with _at(block.where):
                if block.file is not None:
                    self._write(block.file, block.text)
                if block.kind not in SHOWN:
                    KINDS[block.kind](self, block)
            if block in last:
                with _at(block.where):
                    self._run_python()

    # By their kinds.

    def _sh(self, block: Block) -> None:
        script = "".join(runnable(command) for command in commands(block.text))
        self._run(script)

    def _console(self, block: Block) -> None:
        for line, command, expected in dialogue(block):
            with _at(f"{block.page.relative_to(ROOT)}:{line}"):
                self._answers(runnable(command), expected)

    def _answers(self, command: str, expected: list[str]) -> None:
        """Run *command*; one that only asks is asked again until it says what it should."""
        if command.strip() == ":":
            return
        deadline = time.monotonic() + ASKED_AGAIN
        wanted = [self._here(line) for line in expected]
        while True:
            said = self._run(command, is_strict=False)
            lacks = missing(wanted, said)
            if lacks is None:
                return
            again = ASKS.match(command) and time.monotonic() < deadline
            assert again, f"it does not say\n  {lacks}\nbut\n{said}"
            time.sleep(0.1)

    def _sql(self, block: Block) -> None:
        psql(self._server, block.text.replace("'...'", self._quoted()), database="app")

    def _collect(self, block: Block) -> None:
        if block.file is None:
            self._python.append(block)
        else:
            self._run(f"python {block.file}")

    def _run_python(self) -> None:
        """Run what has no file of its own as one program, with the page's own lines."""
        lines: list[str] = []
        for block in self._python:
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.text.splitlines()
        program = self.root / "page.py"
        program.write_text("\n".join(lines) + "\n", "utf-8")
        (self.root / "run.py").write_text(PYTHON, "utf-8")
        self._run(f"python {self.root}/run.py {program} {self.page.name}")

    def _yaml(self, block: Block) -> None:
        path = self._file_of(block, ".yaml")
        documents = list(yaml.safe_load_all(path.read_text("utf-8")))
        for document in documents:
            assert isinstance(document, (dict, list)), "neither keys nor a list"
        first = documents[0]
        keys = set(first) if isinstance(first, dict) else {"-"}
        if {"scrape_configs", "rule_files"} & keys:
            _passes(need("promtool", "prometheus"), "check", "config", str(path))
        elif {"route", "receivers"} & keys:
            _passes(
                need("amtool", "prometheus-alertmanager"), "check-config", str(path)
            )
        elif {"basic_auth_users", "tls_server_config"} & keys:
            self._check_web_config(path)
        elif "apiVersion" in keys:
            assert all(
                {"apiVersion", "kind", "metadata"} <= d.keys() for d in documents
            )
        else:
            self._check_config(path, first)

    def _check_web_config(self, path: Path) -> None:
        text = path.read_text("utf-8").replace("$2y$10$...", "$2y$10$" + "a" * 53)
        path.write_text(text.replace("sha256:...", "sha256:" + "0" * 64), "utf-8")
        pair = re.search(
            r"cert_file: ([^\s,}]+).*?key_file: ([^\s,}]+)", text, re.DOTALL
        )
        if pair and not (path.parent / pair.group(1)).exists():
            certificate, key = (path.parent / name for name in pair.groups())
            make = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {certificate}"
            self._run(make)
        read_web_config(path)

    def _check_config(self, path: Path, found: object) -> None:
        """A configuration of ours, or a part of one, which is completed."""
        part = {"targets": found} if isinstance(found, list) else found
        assert isinstance(part, dict)
        target = {"name": "primary", "dsn": "postgresql://pgbreaker@127.0.0.1/app"}
        whole = {"version": 1, "targets": [target], **part}
        if whole != found:
            path = path.with_name(f"whole-{path.name}")
            path.write_text(json.dumps(whole), "utf-8")
        self._run(f"pgbreaker check-config {path}")

    def _haproxy(self, block: Block) -> None:
        path = self._file_of(block, ".cfg")
        _passes(need("haproxy", "haproxy"), "-c", "-f", str(path))

    def _unit(self, block: Block) -> None:
        """Lines for the shipped unit, which systemd reads beside it."""
        folder = self.root / "units"
        more = folder / "pgbreaker.service.d"
        more.mkdir(parents=True, exist_ok=True)
        unit = (ROOT / "daemon/pgbreaker.service").read_text("utf-8")
        there = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit)
        (folder / "pgbreaker.service").write_text(there, "utf-8")
        (more / "more.conf").write_text(block.text, "utf-8")
        said = subprocess.run(
            [
                need("systemd-analyze", "systemd"),
                "verify",
                "--man=no",
                "--recursive-errors=no",
                folder / "pgbreaker.service",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "more.conf" not in said.stderr, said.stderr

    # What is another here.

    def _here(self, text: str) -> str:
        server = f"127.0.0.1:{self._server.port}"
        text = re.sub(r"(?<=@)db\d(?::5432)?(?=/)", server, text)
        pooler = f"{ADMIN}@127.0.0.1:{self._pooler.port}"
        text = re.sub(r"(?<=//)\w+@db\d:6432(?=/)", pooler, text)
        text = text.replace("127.0.0.1:5432", server)
        text = text.replace("?sslmode=verify-full", "")  # the tests' server has no TLS
        for usual, port in self._ports.items():
            text = re.sub(rf"(?<![\d.]){usual}\b(?!\.)", str(port), text)
        return re.sub(rf"(?<![\w./])/(?=(?:{PLACES})/)", f"{self.root}/", text)

    def _write(self, name: str, text: str) -> None:
        path = self.root / "home" / self._here(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        assert path.resolve().is_relative_to(self.root), f"it would write {path}"
        path.write_text(self._here(text), "utf-8")

    def _file_of(self, block: Block, suffix: str) -> Path:
        name = block.file or f"block-{block.line}{suffix}"
        self._write(name, block.text)
        return self.root / "home" / self._here(name)

    def _quoted(self) -> str:
        return f"'{self._server.password}'"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.root}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": f"{self.root}/home",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "100",
            "PGPASSWORD": self._server.password,
            "PGHOST": self._server.socket_dir,
            "PGPORT": str(self._server.port),
            "PGUSER": "postgres",
            "PGDATABASE": "app",
            "DATABASE_URL": self._server.dsn(user="shop", database="app"),
            "PGBREAKER_URL": f"http://127.0.0.1:{self._ports[9432]}",
        }

    def _wrap(self) -> None:
        program = Path(sys.executable).with_name("pgbreaker")
        made = {
            "pgbreaker": PGBREAKER.format(
                program=program, root=self.root, port=self._ports[9432]
            ),
            "systemctl": SYSTEMCTL.format(root=self.root),
            "sudo": '#!/bin/bash\nexec "$@"\n',
            "make": '#!/bin/bash\nexec /usr/bin/make -n "$@"\n',
            **dict.fromkeys(REFUSED, '#!/bin/bash\necho "$0 is not run"; exit 1\n'),
        }
        user = os.stat(self._server.data).st_uid
        for name in ("initdb", "pg_ctl"):
            made[name] = AS_OTHER.format(
                binaries=self._server.binaries, user=user, name=name
            )
        for name, text in made.items():
            path = self.root / "bin" / name
            path.write_text(text, "utf-8")
            path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        for folder in self.root.glob("opt/*/bin"):
            (folder / "pgbreaker").symlink_to(self.root / "bin/pgbreaker")

    def _prepare_server(self) -> None:
        psql(self._server, "DROP DATABASE IF EXISTS app WITH (FORCE)")
        psql(self._server, ENDED)
        roles = SETUP if "CREATE ROLE pgbreaker" in self._text else SETUP + MONITOR
        psql(self._server, roles.format(password=self._server.password))
        psql(self._server, "CREATE DATABASE app OWNER shop")
        psql(self._server, TABLES, database="app")

    def _run(self, script: str, *, is_strict: bool = True) -> str:
        """Run *script* in the page's shell, which keeps its variables and its folder."""
        self._stays_here(script)
        self._ran += 1
        file = self.root / f"script-{self._ran}"
        strict = "set -e\n" if is_strict else ""
        file.write_text(f"{strict}{self._here(script)}\nset +e\n", "utf-8")
        mark = secrets.token_hex(8)
        shell = self._shell
        assert shell is not None
        assert shell.stdin is not None
        shell.stdin.write(f". {file} </dev/null; echo; echo {mark} $?\n".encode())
        shell.stdin.flush()
        said = self._hear(mark)
        before, found, after = said.partition(f"\n{mark} ")
        assert found, f"it failed; it said\n{before}"
        assert is_strict or after.strip() == "0", f"it ended with {after}: {before}"
        return before

    def _stays_here(self, script: str) -> None:
        """No page may touch what is not its reader's."""
        known = (str(self.root), *ELSEWHERE)
        away = [
            path
            for path in ABSOLUTE.findall(self._here(script))
            if not path.startswith(known)
        ]
        assert not away, f"it touches {away}"

    def _hear(self, mark: str) -> str:
        """What the shell says until *mark*, or until its end."""
        shell = self._shell
        assert shell is not None
        assert shell.stdout is not None
        said, deadline = b"", time.monotonic() + WITHIN
        while not re.search(rf"^{mark} \d+$".encode(), said, re.MULTILINE):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([shell.stdout], [], [], max(left, 0.0))
            assert ready, f"not over after {WITHIN:g} s; it said\n{said.decode()}"
            more = os.read(shell.stdout.fileno(), 65536)
            if not more:
                break
            said += more
        return said.decode(errors="replace")


KINDS: dict[str, Callable[[Reader, Block], None]] = {
    "sh": Reader._sh,
    "console": Reader._console,
    "sql": Reader._sql,
    "python": Reader._collect,
    "yaml": Reader._yaml,
    "haproxy": Reader._haproxy,
    "ini": Reader._unit,
}
"""Kind -> how a block of it is held to its word. A block of another kind is refused."""


def _passes(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Whatever fails in the block says where it stands."""
    try:
        yield
    except AssertionError as error:
        if str(error).startswith(str(where).split(":")[0]):
            raise
        raise AssertionError(f"{where}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
