"""No secret leaves the process: a canary in every place that can hold one, a daemon that
has trouble with each of them, and a look through all that came out.

Each canary is a scenario. What came out is gathered once: what the daemon logged at
DEBUG, answered, streamed, pushed, recorded and stored, and what commands printed.
"""

import base64
import gzip
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import tarfile
import threading
import time
import traceback
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from acceptance.conftest import PROGRAM, pgbreaker
from pgbreaker.cli.daemon import credentials
from pgbreaker.config import for_dsn, load, parse, shown, written
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.secret import Secret
from pgbreaker.errors import ConfigError
from pgbreaker.monitor.doctor import ask
from pgbreaker.monitor.examine import examine
from pgbreaker.postgres.target import Target
from pgbreaker.postgres.wire import Wire
from pgbreaker.probes import PROBES
from pgbreaker.web.doors import hash_password, hash_token
from support.servers import running_server


def canary(name: str) -> str:
    """A secret that stands nowhere else, of characters that no address takes amiss."""
    return f"cnry-{name}-7Qz"


# -- Where secrets stand -----------------------------------------------------------

# Of the daemon: each is in a field of its configuration, its environment or its files.
WATCHED = (
    *("dsn", "encoded", "parameter", "file", "database", "tls", "host", "refused"),
    *("silent", "sslpassword", "options", "pgpass", "whole-variable", "variable"),
    *("pooler", "pooler-file", "passfile-parameter", "reloaded"),
)
# Of the daemon's doors.
DOORS = ("user-password", "wrong-password", "wrong-token", "token", "wrong-user")

# Configurations that are wrong, each in another way, with a secret in them.
TARGET = "version: 1\ntargets:\n- name: main\n  dsn: {dsn}\n"
DSN = TARGET.format(dsn="postgresql://me:{0}@db/app")
WRONG = {
    "scheme": TARGET.format(dsn="mysql://me:{0}@db/app"),
    "port": TARGET.format(dsn="postgresql://me:{0}@db:port/app"),
    "big-port": TARGET.format(dsn="postgresql://me:{0}@db:99999/app"),
    "words": TARGET.format(dsn="host=db user=me password={0}"),
    "no-host": TARGET.format(dsn="postgresql://me:{0}@/app"),
    "several": TARGET.format(dsn="postgresql://me:{0}@a,b/app"),
    "key": TARGET.format(dsn="postgresql://me@db/app?pasword={0}"),
    "mode": TARGET.format(dsn="postgresql://me:{0}@db/app?sslmode=never"),
    "bracket": TARGET.format(dsn="'postgresql://me:{0}@[db/app'"),
    "slash": TARGET.format(dsn="postgresql://me:{0}/x@db/app"),
    "list": TARGET.format(dsn="[postgresql://me:{0}@db/app]"),
    "mapping": TARGET.format(dsn="{{url: postgresql://me:{0}@db/app}}"),
    "twice": DSN + "  password_file: /nowhere\n",
    "extra": DSN + "  pasword: {0}\n",
    "indent": DSN + "   interval: 1s\n",
    "as-file": TARGET.format(dsn="postgresql://db/app") + "  password_file: {0}\n",
    "unset": TARGET.format(dsn="postgresql://me:{0}$(NO)@db/app${{NO_SUCH}}"),
    "pooler-dsn": DSN + "  pgbouncer: {{dsn: 'stats:{0}@db'}}\n",
    "patroni-url": DSN + "  patroni: {{url: 'http://me:{0}@db:8008'}}\n",
    "alertmanager-url": DSN + "alertmanager: {{urls: ['http://me:{0}@db:9093']}}\n",
    "otlp-url": DSN + "otlp: {{endpoint: 'http://me:{0}@db:4318'}}\n",
    "top-key": DSN + "password: {0}\n",
    "duplicate": DSN + "  dsn: postgresql://me:{0}@other/app\n",
}
# Commands that are given one.
COMMANDS = (
    *("probe", "doctor", "init", "run", "url", "environment-url", "env-password"),
    *("env-token", "check-config", "env-dsn", "password-file", "hash"),
)
# Objects that hold one.
OBJECTS = ("plan", "config", "secret", "target", "wire", "header")

EVERY = (
    *(f"watched-{name}" for name in WATCHED),
    *(f"door-{name}" for name in DOORS),
    *(f"wrong-{name}" for name in WRONG),
    *(f"command-{name}" for name in COMMANDS),
    *(f"object-{name}" for name in OBJECTS),
)


def forms(secret: str) -> list[bytes]:
    """How a secret could look where it came out."""
    found = [secret.encode(), quote(secret, safe="").encode()]
    # In a header it is a part of something, so that its letters may stand anywhere.
    for before in ("", "x", "xx"):
        told = base64.b64encode(before.encode() + secret.encode())
        found.append(told[4:-4])
    return found


def test_there_are_as_many_scenarios_as_are_promised():
    assert len(EVERY) == len(set(EVERY)) >= 60


@pytest.mark.parametrize("before", ["", "me:", "user:"])
def test_the_look_finds_what_it_is_for(before):
    secret = canary("watched-dsn")
    header = base64.b64encode(f"{before}{secret}".encode())

    assert any(form in header for form in forms(secret))
    assert any(
        form in f"postgresql://me:{secret}@db".encode() for form in forms(secret)
    )


# -- What the daemon lets out ------------------------------------------------------


class Catcher:
    """Takes traces and alerts, and keeps what came.

    Attributes:
        url: Where.
        came: Everything.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.came: list[bytes] = []


@contextmanager
def catching():
    """A collector and an Alertmanager in one."""

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            packed = self.headers.get("Content-Encoding") == "gzip"
            head = f"{self.path} {dict(self.headers)}".encode()
            catcher.came += [head, gzip.decompress(raw) if packed else raw]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET = _take

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        catcher = Catcher(server.server_port)
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        try:
            yield catcher
        finally:
            server.shutdown()
            serving.join()


def written_config(folder: Path, server, silent: int, catcher: Catcher) -> Path:
    """A configuration that has a canary in every field that can hold a secret."""
    good = f"127.0.0.1:{server.port}"

    def secret(name: str) -> str:
        return canary(f"watched-{name}")

    def file(name: str, text: str | None = None) -> Path:
        path = folder / name
        path.write_text(f"{text or secret(name)}\n", "utf-8")
        path.chmod(0o600)
        return path

    odd = quote(f"@:/{secret('encoded')}", safe="")
    right = file("right", server.password)
    away = "127.0.0.1:1"
    targets = {
        "good": (f"pgbreaker@{good}/postgres", f"password_file: {right}"),
        "dsn": (f"pgbreaker:{secret('dsn')}@{good}/postgres", ""),
        "encoded": (f"pgbreaker:{odd}@{good}/postgres", ""),
        "parameter": (f"pgbreaker@{good}/postgres?password={secret('parameter')}", ""),
        "file": (f"pgbreaker@{good}/postgres", f"password_file: {file('file')}"),
        "database": (f"pgbreaker:{secret('database')}@{good}/nowhere", ""),
        "tls": (f"me:{secret('tls')}@{good}/postgres?sslmode=require", ""),
        "host": (f"me:{secret('host')}@nobody.invalid/app", ""),
        "refused": (f"me:{secret('refused')}@{away}/app", ""),
        "silent": (f"me:{secret('silent')}@127.0.0.1:{silent}/app", ""),
        "sslpassword": (
            (
                f"me@{away}/app?sslmode=require&sslcert={right}"
                f"&sslpassword={secret('sslpassword')}"
            ),
            "",
        ),
        "options": (
            f"pgbreaker@{good}/postgres?options=-cx.y%3D{secret('options')}",
            f"password_file: {right}",
        ),
        "pgpass": (f"pgpass@{good}/postgres", ""),
        "passfile-parameter": (
            f"pgbreaker@{good}/postgres?passfile="
            + str(file("own-pgpass", f"*:*:*:*:{secret('passfile-parameter')}")),
            "",
        ),
        "variable": (f"me:${{CANARY_PASSWORD}}@{good}/postgres", ""),
        "reloaded": (f"me:{canary('watched-reloaded')}-1@{away}/app", ""),
        "pooler": (
            f"me@{away}/app",
            f"pgbouncer: {{dsn: 'postgresql://stats:{secret('pooler')}@{away}/p'}}",
        ),
        "pooler-file": (
            f"me@{away}/app",
            (
                f"pgbouncer: {{dsn: 'postgresql://stats@{good}/pgbouncer',"
                f" password_file: {file('pooler-file')}}}"
            ),
        ),
    }
    lines = [
        f"- name: {name}\n  dsn: 'postgresql://{dsn}'\n  {more}".rstrip()
        for name, (dsn, more) in targets.items()
    ]
    lines.append("- name: whole-variable\n  dsn: ${CANARY_DSN}")
    web = folder / "web.yml"
    password, token = canary("door-user-password"), canary("door-token")
    web.write_text(
        f"basic_auth_users: {{alice: '{hash_password(password)}'}}\n"
        "pgbreaker:\n"
        f"  tokens: {{robot: '{hash_token(token)}'}}\n"
        "  roles: {alice: admin, robot: viewer}\n",
        "utf-8",
    )
    path = folder / "pgbreaker.yaml"
    path.write_text(
        "version: 1\nlog: {level: DEBUG}\n"
        f"http: {{web_config: {web}}}\n"
        f"store: {{path: {folder / 'state.db'}}}\n"
        f"record: {{path: {folder / 'readings.jsonl'}}}\n"
        f"otlp: {{endpoint: '{catcher.url}', sample: 100%}}\n"
        f"alertmanager: {{urls: ['{catcher.url}']}}\n"
        "targets:\n" + "\n".join(lines) + "\n",
        "utf-8",
    )
    return path


ADDRESSES = (
    *("/", "/metrics", "/-/healthy", "/-/ready", "/openapi.json", "/nowhere"),
    *("/api/v1/status", "/api/v1/targets", "/api/v1/breakers", "/api/v1/config"),
    *("/api/v1/events?limit=1000", "/api/v1/audit", "/api/v1/maintenance"),
    *(
        "/api/v1/incidents",
        "/api/v1/incidents?format=csv",
        "/api/v1/incidents?format=md",
    ),
    *("/events", "/targets", "/health/dsn/read", "/api/v1/events?format=csv"),
)


class Talk:
    """Asks the daemon, and keeps all that it answers.

    Attributes:
        said: Name of an output -> what came out there.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.said: dict[str, bytes] = {}

    def ask(self, path: str, header: str, *, method: str = "GET", body=None) -> int:
        request = urllib.request.Request(self._url + path, method=method)
        request.add_header("Authorization", header)
        raw = None
        if body is not None:
            raw = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            answer = urllib.request.urlopen(request, raw, timeout=5)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            told = str(answer.headers).encode() + answer.read()
        self.said[f"{method} {path} {len(self.said)}"] = told
        return answer.status

    def stream(self, header: str, seconds: float) -> None:
        """Follow the stream for a while."""
        request = urllib.request.Request(self._url + "/api/v1/stream")
        request.add_header("Authorization", header)
        came, ends = b"", time.monotonic() + seconds
        with (
            suppress(TimeoutError),  # it says nothing for a while
            urllib.request.urlopen(request, timeout=seconds) as answer,
        ):
            while time.monotonic() < ends and (line := answer.readline()):
                came += line
        self.said["stream"] = came


class Logging:
    """A daemon that logs into a file, which is never full.

    Attributes:
        process: It.
        log: The file.
        url: Where it serves.
    """

    def __init__(self, config: Path, log: Path, **env: str) -> None:
        self.log = log
        with log.open("wb") as told:
            self.process = subprocess.Popen(
                [*PROGRAM, "run", "--listen", "127.0.0.1:0", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stderr=told,
                env={**os.environ, **env},
            )
        found = self.until(r"listening on ([\w.]+:\d+)")
        self.url = f"http://{found[1]}"

    def until(self, pattern: str, within: float = 15.0) -> re.Match[str]:
        """Wait until the log has *pattern*."""
        ends = time.monotonic() + within
        while time.monotonic() < ends and self.process.poll() is None:
            text = self.log.read_text("utf-8")
            if found := re.search(pattern, text):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} was not said; it said {text[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) == 0

    def close(self) -> None:
        """End it, however it is."""
        self.process.kill()
        self.process.wait()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def of_daemon(folder: Path, server) -> dict[str, bytes]:
    """Everything that a daemon in trouble with all of its targets lets out."""
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        catcher = stack.enter_context(catching())
        config = written_config(folder, server, silent.getsockname()[1], catcher)
        pgpass = folder / "pgpass"
        pgpass.write_text(f"*:*:*:pgpass:{canary('watched-pgpass')}\n", "utf-8")
        pgpass.chmod(0o600)
        env = {
            "PGPASSFILE": str(pgpass),
            "CANARY_PASSWORD": canary("watched-variable"),
            "CANARY_DSN": f"postgresql://me:{canary('watched-whole-variable')}"
            f"@127.0.0.1:{server.port}/postgres",
        }
        daemon = Logging(config, folder / "daemon.log", **env)
        stack.callback(daemon.close)
        talk = Talk(daemon.url)
        alice = basic("alice", canary("door-user-password"))
        assert talk.ask("/api/v1/status", alice) == 200
        _wait_until_all_were_asked(daemon.url, alice)
        for path in ADDRESSES:
            talk.ask(path, alice)
        for target in ("dsn", "tls", "pooler", "options"):
            for path in (f"/api/v1/targets/{target}", f"/targets/{target}"):
                talk.ask(path, alice)
            talk.ask(f"/api/v1/targets/{target}/probes", alice)
        assert talk.ask("/metrics", f"Bearer {canary('door-token')}") == 200
        wrong = canary("door-wrong-password")
        assert talk.ask("/api/v1/status", basic("alice", wrong)) == 401
        talk.ask("/api/v1/status", basic(canary("door-wrong-user"), "x"))
        talk.ask("/api/v1/status", f"Bearer {canary('door-wrong-token')}")
        order = {"state": "open", "reason": "looking for canaries", "for": "5m"}
        address = "/api/v1/breakers/good/read/override"
        talk.ask(address, alice, method="PUT", body=order)
        # A password that is rotated, and one that is mistyped.
        text = config.read_text("utf-8")
        secret = canary("watched-reloaded")
        config.write_text(text.replace(f"{secret}-1", f"{secret}-2"), "utf-8")
        talk.ask("/-/reload", alice, method="POST", body={})
        config.write_text(text.replace(f"{secret}-1@", f"{secret}-3@["), "utf-8")
        talk.ask("/-/reload", alice, method="POST", body={})
        config.write_text(text, "utf-8")
        talk.stream(alice, 0.5)
        talk.said["bundle"] = bundle(folder, config, daemon, env)
        daemon.process.send_signal(signal.SIGUSR1)
        daemon.until("task")
        daemon.stop()
        talk.said["log"] = daemon.log.read_bytes()
        talk.said["pushed"] = b"\n".join(catcher.came)
        for left in ("state.db", "state.db-wal", "readings.jsonl"):
            path = folder / left
            talk.said[left] = path.read_bytes() if path.exists() else b""
        return talk.said


def _wait_until_all_were_asked(url: str, header: str) -> None:
    """Wait until every target has come to something."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        request = urllib.request.Request(url + "/api/v1/status")
        request.add_header("Authorization", header)
        with urllib.request.urlopen(request, timeout=5) as answer:
            targets = json.load(answer)["targets"]
        pings = [p for t in targets for p in t["probes"] if p["name"] == "ping"]
        if all(ping["last"] is not None for ping in pings):
            return
        time.sleep(0.05)
    raise AssertionError("not every target came to something")


def bundle(folder: Path, config: Path, daemon: Logging, env: dict[str, str]) -> bytes:
    """All files of a support bundle, one after the other."""
    file = folder / "bundle.tar.gz"
    password = folder / "alice"
    password.write_text(canary("door-user-password"), "utf-8")
    done = pgbreaker(
        *("support-bundle", str(file), "--url", daemon.url, "--log", str(daemon.log)),
        *("--config", str(config)),
        PGBREAKER_USER="alice",
        PGBREAKER_PASSWORD_FILE=str(password),
        PGBREAKER_DSN=f"postgresql://me:{canary('command-env-dsn')}@db/app",
        **env,
    )
    assert done.returncode == 0, done.stderr
    came = done.stdout.encode() + done.stderr.encode()
    with tarfile.open(file) as archive:
        names = archive.getnames()
        for name in names:
            member = archive.extractfile(name)
            assert member is not None
            came += member.read()
    assert any(name.endswith("config.json") for name in names)
    assert b"PGBREAKER_DSN\n" in came  # its name, not its value
    return came


# -- What commands and objects let out ---------------------------------------------


def of_wrong(_: Path) -> dict[str, bytes]:
    """What is said of configurations that are wrong."""
    said = {}
    for name, text in WRONG.items():
        raw = text.format(canary(f"wrong-{name}")).encode()
        try:
            parse(raw, "pgbreaker.yaml", env={})
        except ConfigError as error:
            told = [str(error), repr(error), *traceback.format_exception(error)]
            said[f"wrong {name}"] = "\n".join(told).encode()
        else:
            raise AssertionError(f"{name} was taken")
    return said


def of_commands(folder: Path, run, port: int) -> dict[str, bytes]:
    """What commands print that are given a secret."""

    def dsn(name: str, address: str = f"127.0.0.1:{port}") -> str:
        return f"postgresql://pgbreaker:{canary(f'command-{name}')}@{address}/postgres"

    def token_of(name: str) -> str:
        return canary(f"command-{name}")

    path = folder / "of-commands.yaml"
    path.write_text(TARGET.format(dsn=dsn("check-config")), "utf-8")
    file = folder / "of-commands.password"
    file.write_text(token_of("password-file"), "utf-8")
    away = ("--url", "http://127.0.0.1:1")
    done = {
        "probe": run("probe", dsn("probe"), "--debug"),
        "doctor": run("doctor", "--dsn", dsn("doctor"), "-o", "json", *away),
        "init": run("init", str(folder / "new.yaml"), "--from-dsn", dsn("init")),
        "run": run("run", "--dsn", dsn("run", "[broken")),
        "url": run("status", "--url", f"http://me:{token_of('url')}@127.0.0.1:1"),
        "environment-url": run(
            "status", PGBREAKER_URL=f"http://me:{token_of('environment-url')}@x"
        ),
        "env-password": run(
            *("status", "-v", *away),
            PGBREAKER_USER="me",
            PGBREAKER_PASSWORD=token_of("env-password"),
        ),
        "env-token": run(
            *("open", "a/b", "--reason", "a test", "-y", *away),
            PGBREAKER_TOKEN=token_of("env-token"),
        ),
        "check-config": run("check-config", str(path), "--connect"),
        "config show": run("config", "show", "--config", str(path)),
        "env-dsn": run("config", "show", PGBREAKER_DSN=dsn("env-dsn")),
        "password-file": run(
            *("status", *away), PGBREAKER_USER="me", PGBREAKER_PASSWORD_FILE=str(file)
        ),
        "hash": run("hash-password", typed=f"{token_of('hash')}\n"),
    }
    for name, result in done.items():
        # A failure of ours is an exception, and no line.
        assert isinstance(result.exception, SystemExit | None), (name, result)
    said = {
        f"command {name}": result.output.encode()
        + b"".join(map(str.encode, traceback.format_exception(*result.exc_info)))
        for name, result in done.items()
    }
    said["command init's file"] = (folder / "new.yaml").read_bytes()
    return said


async def of_objects(port: int) -> dict[str, bytes]:
    """What objects say of themselves, and what their failures do."""

    def dsn(name: str) -> str:
        return f"postgresql://pgbreaker:{canary(f'object-{name}')}@127.0.0.1:{port}/app"

    probes = {"ping": PROBES["ping"].plan}
    plan = TargetPlan(name="main", dsn=Secret(dsn("plan")), probes=probes)
    config = for_dsn(dsn("config"))
    secret = Secret(canary("object-secret"))
    target = Target(TargetPlan(name="main", dsn=Secret(dsn("target")), probes=probes))
    header = credentials({"PGBREAKER_TOKEN": canary("object-header")})
    told = [
        f"{one!r} {one} {one!s:>5}" for one in (plan, config, secret, target, header)
    ]
    told += [json.dumps(shown(config)), written(config)]
    told += [str(await examine(plan)), str(await ask(plan))]
    for trying in (
        target.connect(2.0, limit=1.0),
        target.visit("login", 2.0, limit=1.0),
        Wire.connect(dsn("wire")),
    ):
        try:
            await trying
        except Exception as error:
            told += [repr(error), *traceback.format_exception(error)]
        else:
            raise AssertionError("it was let in")
    try:
        told.append(str(pickle.dumps(config)))
    except TypeError as error:
        told.append(str(error))
    return {"objects": "\n".join(told).encode()}


# -- The look ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def server_of_all():
    with running_server(17) as server:
        yield server


@pytest.fixture(scope="module")
def outputs(server_of_all, tmp_path_factory):
    """Name of each output -> what came out there."""
    import asyncio

    from click.testing import CliRunner

    from pgbreaker.cli import cli

    def run(*words: str, typed: str | None = None, **env: str):
        clean = {name: None for name in os.environ if name.startswith("PGBREAKER_")}
        return CliRunner(env={**clean, **env}).invoke(cli, words, input=typed)

    folder = tmp_path_factory.mktemp("secrets")
    server = server_of_all
    said = of_daemon(folder, server)
    said |= of_wrong(folder)
    said |= of_commands(folder, run, server.port)
    said |= asyncio.run(of_objects(server.port))
    return said


@pytest.mark.parametrize("name", EVERY)
def test_a_secret_is_in_none_of_all_that_came_out(name, outputs):
    looks = forms(canary(name))

    found = [
        output
        for output, said in outputs.items()
        if any(look in said for look in looks)
    ]

    assert found == []


def test_the_right_password_is_not_in_it_either(server_of_all, outputs):
    password = server_of_all.password.encode()

    assert [output for output, said in outputs.items() if password in said] == []


def test_the_hashes_of_the_web_configuration_are_not_in_it(outputs):
    token = hash_token(canary("door-token")).partition(":")[2].encode()

    for look in (b"$2b$", b"$scrypt$", token):
        found = {output for output, said in outputs.items() if look in said}
        assert found <= {"command hash"}


def test_what_is_to_come_out_did(outputs):
    """Every output is one: where nothing came out, nothing could be found."""
    log = outputs["log"]

    assert b"password authentication failed" in log
    assert b"good" in outputs["pushed"]
    for name in ("log", "stream", "bundle", "pushed", "readings.jsonl", "state.db"):
        assert len(outputs[name]) > 500, name
    for path in ADDRESSES:
        assert any(path in output for output in outputs)


def test_a_configuration_with_a_canary_is_read(tmp_path):
    """The fields that are looked at are those that there are."""
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(DSN.format(canary("wrong-x")), "utf-8")

    plan = load(path).targets[0]

    assert canary("wrong-x") in plan.dsn.reveal()
