"""Our own client against real servers: every way to log in, and what comes back."""

import asyncio
import contextlib
import gc
import os
import shutil
import ssl
import subprocess
import warnings
from pathlib import Path

import pytest

from pgbreaker.postgres.wire import AuthError, ServerError, Wire
from support.pooler import ADMIN, running_pooler
from support.servers import count_connections, psql, running_server
from support.tools import need

ROLES = """
SET password_encryption = 'md5';
CREATE ROLE by_md5 LOGIN PASSWORD '{password}';
SET password_encryption = 'scram-sha-256';
CREATE ROLE by_scram LOGIN PASSWORD '{password}';
CREATE ROLE by_words LOGIN PASSWORD '{password}';
CREATE ROLE by_umlaut LOGIN PASSWORD 'Straße № ½';
CREATE ROLE over_tls LOGIN PASSWORD '{password}';
CREATE ROLE in_clear LOGIN PASSWORD '{password}';
CREATE ROLE by_cert LOGIN;
"""
# What comes first counts.
HBA = """
host all by_md5 all md5
host all by_words all password
host all by_scram all scram-sha-256
hostssl all over_tls all scram-sha-256
host all over_tls all reject
hostnossl all in_clear all scram-sha-256
host all in_clear all reject
hostssl all by_cert all cert
"""
EXTENSIONS = {
    "authority": "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign",
    "localhost": "subjectAltName=DNS:localhost",
    "by_cert": "basicConstraints=CA:FALSE",
}


class Certificates:
    """An authority and what it signed; and another, whom nobody asked."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._program = need("openssl", "openssl")
        self._sign("authority", None)
        self._sign("stranger", None)
        self._sign("localhost", "authority")
        self._sign("by_cert", "authority")

    def path(self, name: str) -> str:
        return str(self.home / name)

    def _sign(self, name: str, authority: str | None) -> None:
        wanted = self.home / f"{name}.ext"
        wanted.write_text(EXTENSIONS.get(name, EXTENSIONS["authority"]), "ascii")
        self._run(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", f"/CN={name}", "-keyout", self.path(f"{name}.key")),
            *("-out", self.path(f"{name}.csr")),
        )
        signer = ["-signkey", self.path(f"{name}.key")]
        if authority is not None:
            signer = ["-CA", self.path(f"{authority}.crt"), "-CAcreateserial"]
            signer += ["-CAkey", self.path(f"{authority}.key")]
        self._run(
            *("x509", "-req", "-days", "2", "-in", self.path(f"{name}.csr"), *signer),
            *("-extfile", str(wanted), "-out", self.path(f"{name}.crt")),
        )

    def _run(self, *words: str) -> None:
        subprocess.run([self._program, *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module", params=[15, 17], ids=["pg15", "pg17"])
def real(request, certificates):
    """A server that knows every way to log in, and TLS."""
    with running_server(request.param) as server:
        owner = os.stat(server.data)
        for ours, its in (
            ("localhost.crt", "server.crt"),
            ("localhost.key", "server.key"),
            ("authority.crt", "ca.crt"),
        ):
            shutil.copy(certificates.path(ours), server.data / its)
            (server.data / its).chmod(0o600)
            os.chown(server.data / its, owner.st_uid, owner.st_gid)
        hba = server.data / "pg_hba.conf"
        hba.write_text(HBA + hba.read_text("utf-8"), "utf-8")
        psql(server, ROLES.format(password=server.password))
        psql(server, "ALTER SYSTEM SET ssl = on")
        psql(server, "ALTER SYSTEM SET ssl_ca_file = 'ca.crt'")
        psql(server, "SELECT pg_reload_conf()")
        yield server


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """A home without a password file and certificates of whoever runs this."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@contextlib.asynccontextmanager
async def session(dsn, password=None, **settings):
    wire = await Wire.connect(dsn, password=password, settings=settings)
    try:
        yield wire
    finally:
        await wire.close()


async def ask(dsn, sql="SELECT current_user AS me", **settings):
    async with session(dsn, **settings) as wire:
        return await wire.query(sql)


async def until(condition):
    """Wait for what a server does in its own time."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def named(dsn):
    return dsn.replace("127.0.0.1", "localhost")


IS_TLS = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
TLS, CLEAR = [{"ssl": "t"}], [{"ssl": "f"}]


# -- Logging in --------------------------------------------------------------------


async def test_trusted_over_the_socket(real):
    dsn = f"postgresql://postgres@/app?host={real.socket_dir}&port={real.port}"

    assert await ask(dsn) == [{"me": "postgres"}]


@pytest.mark.parametrize("user", ["by_scram", "by_md5", "by_words"])
async def test_each_method_lets_us_in(real, user):
    assert await ask(real.dsn(user=user)) == [{"me": user}]


@pytest.mark.parametrize("user", ["by_scram", "by_md5", "by_words"])
async def test_wrong_password(real, user):
    with pytest.raises(ServerError) as caught:
        await ask(real.dsn(user=user, password="wrong"))

    assert caught.value.sqlstate == "28P01"
    assert caught.value.severity == "FATAL"
    assert str(caught.value) == f'password authentication failed for user "{user}"'


async def test_the_argument_goes_before_the_dsn(real):
    dsn = real.dsn(user="by_scram", password="wrong")

    async with session(dsn, password=real.password) as wire:
        assert wire.is_open


async def test_password_that_is_not_ascii(real):
    """Both sides prepare it: ½ and № are hashed as other characters."""
    dsn = real.dsn(user="by_umlaut", password="x")

    async with session(dsn, password="Straße № ½") as wire:
        assert wire.is_open


async def test_no_password_at_all(real):
    dsn = f"postgresql://by_scram@127.0.0.1:{real.port}/postgres"

    with pytest.raises(AuthError, match="wants a password, and there is none"):
        await ask(dsn)


async def test_password_file(real, home):
    file = home / ".pgpass"
    file.write_text(f"*:{real.port}:*:by_scram:{real.password}\n", "utf-8")
    file.chmod(0o600)

    dsn = f"postgresql://by_scram@127.0.0.1:{real.port}/postgres"

    assert await ask(dsn) == [{"me": "by_scram"}]


async def test_missing_database(real):
    with pytest.raises(ServerError) as caught:
        await ask(real.dsn(database="nosuch"))

    assert caught.value.sqlstate == "3D000"


async def test_settings_begin_with_the_session(real):
    dsn = real.dsn() + "?options=-c%20work_mem%3D123kB"
    sql = "SELECT current_setting('application_name') AS name, current_setting('work_mem') AS mem"

    assert await ask(dsn, sql, application_name="pgbreaker/x") == [
        {"name": "pgbreaker/x", "mem": "123kB"}
    ]


async def test_unknown_setting_is_refused(real):
    with pytest.raises(ServerError) as caught:
        await ask(real.dsn(), nosuch="1")

    assert caught.value.sqlstate == "42704"


async def test_what_the_server_says_of_itself(real):
    async with session(real.dsn()) as wire:
        (row,) = await wire.query("SELECT pg_backend_pid() AS pid")

        assert str(wire.pid) == row["pid"]
        assert wire.parameters["server_version"].split(".")[0] in ("15", "17")
        assert wire.parameters["client_encoding"] == "UTF8"
        assert repr(wire) == f"<Wire open, pid {wire.pid}>"


async def test_nobody_listens(real):
    with pytest.raises(ConnectionRefusedError):
        await ask("postgresql://postgres@127.0.0.1:1/postgres")
    with pytest.raises(FileNotFoundError):
        await ask("postgresql://postgres@/postgres?host=/nowhere")


# -- TLS ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "seen"),
    [("disable", CLEAR), ("allow", CLEAR), ("prefer", TLS), ("require", TLS)],
)
async def test_modes_that_trust_anybody(real, mode, seen):
    assert await ask(f"{real.dsn()}?sslmode={mode}", IS_TLS) == seen


async def test_tls_is_preferred(real):
    assert await ask(real.dsn(), IS_TLS) == TLS


async def test_allow_falls_back_to_tls_where_clear_is_barred(real):
    dsn = real.dsn(user="over_tls")

    assert await ask(f"{dsn}?sslmode=allow", IS_TLS) == TLS
    with pytest.raises(ServerError) as caught:
        await ask(f"{dsn}?sslmode=disable")
    assert caught.value.sqlstate == "28000"


async def test_prefer_falls_back_to_clear_where_tls_is_barred(real):
    dsn = real.dsn(user="in_clear")

    assert await ask(dsn, IS_TLS) == CLEAR
    with pytest.raises(ServerError) as caught:
        await ask(f"{dsn}?sslmode=require")
    assert caught.value.sqlstate == "28000"


@pytest.mark.parametrize("user", ["over_tls", "in_clear"])
@pytest.mark.parametrize("mode", ["allow", "prefer"])
async def test_fallback_does_not_hide_the_wrong_password(real, user, mode):
    dsn = real.dsn(user=user, password="wrong")

    with pytest.raises(ServerError) as caught:
        await ask(f"{dsn}?sslmode={mode}")

    assert caught.value.sqlstate == "28P01"


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_trusted_authority(real, certificates, mode):
    root = certificates.path("authority.crt")

    dsn = f"{named(real.dsn())}?sslmode={mode}&sslrootcert={root}"

    assert await ask(dsn, IS_TLS) == TLS


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_wrong_authority(real, certificates, mode):
    """A file of authorities makes even "require" check them, as with libpq."""
    root = certificates.path("stranger.crt")

    with pytest.raises(ssl.SSLCertVerificationError):
        await ask(f"{named(real.dsn())}?sslmode={mode}&sslrootcert={root}")


async def test_wrong_name(real, certificates):
    root = certificates.path("authority.crt")
    parameters = f"sslrootcert={root}&sslmode="

    assert await ask(f"{real.dsn()}?{parameters}verify-ca", IS_TLS) == TLS
    with pytest.raises(ssl.SSLCertVerificationError):
        await ask(f"{real.dsn()}?{parameters}verify-full")


async def test_authority_in_the_usual_place(real, certificates, home):
    (home / ".postgresql").mkdir()
    dsn = f"{named(real.dsn())}?sslmode=verify-full"
    with pytest.raises(ssl.SSLError, match=r"there is no ~/\.postgresql/root\.crt"):
        await ask(dsn)

    shutil.copy(certificates.path("authority.crt"), home / ".postgresql/root.crt")

    assert await ask(dsn, IS_TLS) == TLS


async def test_own_certificate(real, certificates):
    cert, key = certificates.path("by_cert.crt"), certificates.path("by_cert.key")
    dsn = real.dsn(user="by_cert") + "?sslmode=require"

    assert await ask(f"{dsn}&sslcert={cert}&sslkey={key}") == [{"me": "by_cert"}]
    with pytest.raises(ServerError) as caught:
        await ask(dsn)
    assert caught.value.sqlstate == "28000"


async def test_version_of_tls(real):
    sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

    dsn = real.dsn() + "?sslmode=require&ssl_max_protocol_version=TLSv1.2"

    assert await ask(dsn, sql) == [{"version": "TLSv1.2"}]


async def test_tls_without_asking(real):
    """Only 17 and later know it; an older one takes it for rubbish and hangs up."""
    dsn = real.dsn() + "?sslmode=require&sslnegotiation=direct"

    if psql(real, "SHOW server_version_num") >= "170000":
        assert await ask(dsn, IS_TLS) == TLS
    else:
        with pytest.raises((OSError, EOFError)):
            await ask(dsn)


async def test_server_without_tls(server):
    assert await ask(server.dsn(), IS_TLS) == CLEAR
    with pytest.raises(ConnectionError, match="has no SSL, and sslmode=require needs"):
        await ask(f"{server.dsn()}?sslmode=require")


# -- Asking ------------------------------------------------------------------------


async def test_rows_and_nulls(server):
    sql = "SELECT n, NULL AS nothing, '' AS empty, 'ä\n' AS text FROM generate_series(1, 2) n"

    rows = await ask(server.dsn(), sql)

    assert rows == [
        {"n": n, "nothing": None, "empty": "", "text": "ä\n"} for n in ("1", "2")
    ]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("", []),
        (" -- nothing", []),
        ("SELECT 1 AS a WHERE false", []),
        ("SELECT 1 AS a; SELECT 2 AS b", [{"b": "2"}]),
        ("SELECT 1 AS a; SET lock_timeout = 0", [{"a": "1"}]),
        ("COPY (SELECT 1) TO STDOUT", []),
    ],
)
async def test_what_has_no_rows_or_several_results(server, sql, rows):
    assert await ask(server.dsn(), sql) == rows


async def test_large_answer(server):
    (row,) = await ask(server.dsn(), "SELECT repeat('x', 5000000) AS much")

    assert row["much"] == "x" * 5_000_000


async def test_error_leaves_the_session_usable(server):
    async with session(server.dsn()) as wire:
        with pytest.raises(ServerError) as caught:
            await wire.query("SELECT 1; SELECT 1 / 0")

        assert (caught.value.sqlstate, str(caught.value)) == (
            "22012",
            "division by zero",
        )
        assert await wire.query("SELECT 1 AS one") == [{"one": "1"}]


async def test_error_with_details(server):
    sql = "CREATE TEMP TABLE t (a int UNIQUE); INSERT INTO t VALUES (1), (1)"

    with pytest.raises(ServerError) as caught:
        await ask(server.dsn(), sql)

    assert caught.value.sqlstate == "23505"
    assert caught.value.detail == "Key (a)=(1) already exists."


async def test_copy_from_us_is_refused(server):
    """A server that waits for our data must not wait for ever."""
    sql = "CREATE TEMP TABLE t (a int); COPY t FROM STDIN"

    async with session(server.dsn()) as wire:
        with pytest.raises(ServerError, match="COPY from stdin failed"):
            await wire.query(sql)
        assert await wire.query("SELECT 1 AS one") == [{"one": "1"}]


async def test_last_warning_is_kept(server):
    async with session(server.dsn()) as wire:
        assert wire.notice is None
        await wire.query(
            "DO $$ BEGIN RAISE WARNING 'w' USING ERRCODE = '01001'; END $$"
        )
        await wire.query("DO $$ BEGIN RAISE NOTICE 'n'; END $$")

        assert wire.notice == ("01001", "w")


async def test_sessions_end_is_told_by_the_next_question(server):
    async with session(server.dsn()) as wire:
        psql(server, f"SELECT pg_terminate_backend({wire.pid})")
        await until(lambda: not wire.is_open)

        with pytest.raises(ServerError) as caught:
            await wire.query("SELECT 1")

        assert caught.value.sqlstate == "57P01"


async def test_end_under_a_question(server):
    async with session(server.dsn()) as wire:
        asking = asyncio.create_task(wire.query("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.1)
        psql(server, f"SELECT pg_terminate_backend({wire.pid})")

        with pytest.raises(ServerError, match="terminating connection"):
            await asking

        assert not wire.is_open


@pytest.mark.parametrize("parameters", ["?sslmode=disable", "?sslmode=require"])
async def test_whoever_stops_waiting_leaves_nothing_behind(real, parameters):
    """Cancelled at every moment of a session, it closes its socket each time."""
    dsn = real.dsn(user="by_scram") + parameters
    before = len(os.listdir("/proc/self/fd"))

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for tenths in range(1, 80):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tenths / 10_000):
                    await ask(dsn, "SELECT pg_sleep(0.02)")
            await until(lambda: not count_connections(real, "by_scram"))
        gc.collect()

    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


@pytest.mark.parametrize("parameters", ["?sslmode=disable", "?sslmode=require"])
async def test_leave_is_taken_politely(real, parameters):
    """A session that just drops would be in the server's log."""
    before = real.home.joinpath("log").stat().st_size

    for _ in range(5):
        await ask(real.dsn(user="by_scram") + parameters)
    await until(lambda: not count_connections(real, "by_scram"))

    with real.home.joinpath("log").open("rb") as log:
        log.seek(before)
        assert b"could not receive data" not in log.read()


# -- pgbouncer's console -----------------------------------------------------------


@pytest.mark.parametrize("method", ["plain", "md5", "scram-sha-256"])
async def test_console_of_a_pooler(server, method):
    with running_pooler(server, auth_type=method) as pooler:
        dsn = pooler.dsn(user=ADMIN, database="pgbouncer")
        async with session(dsn, application_name="pgbreaker/pgbouncer") as wire:
            rows = await wire.query("SHOW POOLS")
            with pytest.raises(ServerError, match="invalid command"):
                await wire.query("SHOW NOTHING")
            again = await wire.query("SHOW VERSION")

        assert [(row["database"], row["cl_waiting"]) for row in rows] == [
            ("pgbouncer", "0")
        ]
        assert again[0]["version"].startswith("PgBouncer")
        with pytest.raises(ServerError):
            await ask(pooler.dsn(user=ADMIN, database="pgbouncer", password="wrong"))
