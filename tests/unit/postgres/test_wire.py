"""Our own client without a server: its messages, its arithmetic, its suspicion."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import hmac
import os
import pickle
import struct

import pytest

from pgbreaker.postgres import scram
from pgbreaker.postgres.dsn import resolve
from pgbreaker.postgres.messages import Answer, Login, Told, query, startup
from pgbreaker.postgres.scram import Scram, ScramError, keys_of, md5_answer, prepare
from pgbreaker.postgres.tls import Tls, context_of
from pgbreaker.postgres.wire import AuthError, ProtocolError, ServerError, Wire


def message(kind, body=b""):
    return kind + struct.pack("!i", len(body) + 4) + body


def auth(method, body=b""):
    return message(b"R", struct.pack("!i", method) + body)


def error(severity="ERROR", code="XX000", text="broken"):
    fields = (("S", "FEHLER"), ("V", severity), ("C", code), ("M", text))
    return message(b"E", b"".join(f"{k}{v}\0".encode() for k, v in fields) + b"\0")


def columns(*names):
    body = b"".join(name.encode() + b"\0" + bytes(18) for name in names)
    return message(b"T", struct.pack("!h", len(names)) + body)


def row(*values):
    cells = (
        struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v
        for v in values
    )
    return message(b"D", struct.pack("!h", len(values)) + b"".join(cells))


READY = message(b"Z", b"I")
DONE = message(b"C", b"SELECT 1\0")
WELCOME = auth(0) + message(b"K", struct.pack("!ii", 42, 7)) + READY


# -- SCRAM and md5 -----------------------------------------------------------------

# https://datatracker.ietf.org/doc/html/rfc7677#section-3
NONCE = "rOprNGfwEbeRWgbNEkqO"
CHALLENGE = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
PROOF = b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SIGNATURE = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_exchange_of_the_rfc():
    exchange = Scram("pencil", nonce=NONCE, user="user")

    assert exchange.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert exchange.answer(CHALLENGE).endswith(b"," + PROOF)
    assert not exchange.is_proven
    exchange.verify(SIGNATURE)
    assert exchange.is_proven


@pytest.mark.parametrize(
    "outcome", [b"", b"v=", b"v=AAAA", b"e=other-error", b"v=\xff", SIGNATURE[:-5]]
)
def test_server_that_does_not_know_the_password(outcome):
    exchange = Scram("pencil", nonce=NONCE, user="user")
    exchange.answer(CHALLENGE)

    with pytest.raises(ScramError):
        exchange.verify(outcome)
    assert not exchange.is_proven


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"\xff\xfe",
        b"r=somebody else,s=W22Z,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4096",  # nothing of the server's own
        b"r=rOprNGfwEbeRWgbNEkqOx,s=!!,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=0",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=-5",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=2147483647",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=" + b"9" * 5000,
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22Z",
    ],
)
def test_challenge_that_is_none(challenge):
    """Two thousand million rounds would hold up the daemon for a quarter of an hour."""
    with pytest.raises(ScramError):
        Scram("pencil", nonce=NONCE).answer(challenge)


def test_keys_are_derived_once(monkeypatch):
    derived = []
    derive = hashlib.pbkdf2_hmac
    monkeypatch.setattr(
        scram.hashlib, "pbkdf2_hmac", lambda *a: derived.append(a) or derive(*a)
    )
    salt = os.urandom(16)

    assert keys_of("secret", salt, 4) is keys_of("secret", salt, 4)
    keys_of("other", salt, 4)

    assert len(derived) == 2
    assert "secret" not in repr(scram._KEPT)


def test_keys_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(scram, "_MOST_KEPT", len(scram._KEPT) + 2)
    salts = [os.urandom(16) for _ in range(9)]

    for salt in salts:
        keys_of("secret", salt, 1)

    assert len(scram._KEPT) == scram._MOST_KEPT


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("plain ASCII \t", "plain ASCII \t"),
        ("I\u00adX", "IX"),  # the examples of RFC 4013
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0627\u0031", "\u0627\u0031"),  # both directions: as it is
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ("\u0080", "\u0080"),  # a control character: as it is
        ("\u00ad", "\u00ad"),  # nothing would be left: as it is
    ],
)
def test_passwords_are_prepared_as_the_server_does(password, prepared):
    assert prepare(password) == prepared


def test_md5():
    """md5(md5(password + user) + salt), see the documentation of the protocol."""
    inner = hashlib.md5(b"secretme").hexdigest().encode()

    expected = b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode()

    assert md5_answer("me", "secret", b"salt") == expected


# -- Messages ----------------------------------------------------------------------


def test_startup_and_query():
    assert startup("me", "db", {"a": "b"}) == (
        b"\0\0\0\x36\0\3\0\0user\0me\0database\0db\0client_encoding\0UTF8\0a\0b\0\0"
    )
    assert query("SELECT 'ä'") == b"Q\0\0\0\x10SELECT '\xc3\xa4'\0"


def test_text_with_nul_cannot_be_sent():
    """It would end the text, and what follows would be another parameter."""
    with pytest.raises(ValueError, match="NUL"):
        startup("me\0options\0-c x=y", "db", {})


ANSWER = (
    message(b"S", b"TimeZone\0UTC\0")
    + columns("a", "b")
    + row(b"1", None)
    + row("ä".encode(), b"")
    + DONE
    + READY
)
ROWS = [{"a": "1", "b": None}, {"a": "ä", "b": ""}]


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(ANSWER)])
def test_answer_in_pieces(size):
    told, buffer = Told(), bytearray()
    answer = Answer(told)

    for at in range(0, len(ANSWER), size):
        buffer += ANSWER[at : at + size]
        assert answer.read(buffer) == b""

    assert (answer.is_done, buffer, answer.rows) == (True, b"", ROWS)
    assert told.parameters == {"TimeZone": "UTC"}


def test_what_follows_the_answer_is_left():
    buffer = bytearray(ANSWER + error())
    answer = Answer(Told())

    answer.read(buffer)

    assert buffer == error()


@pytest.mark.parametrize(
    "bad",
    [
        message(b"D", b""),
        message(b"D", struct.pack("!hi", 1, 100) + b"x"),
        message(b"D", struct.pack("!h", 1)),
        message(b"D", struct.pack("!h", -1) + b"x"),
        row(b"1"),  # a column too few
        row(b"1", b"2") + message(b"D", struct.pack("!hi", 1, 1) + b"xy"),
        message(b"T", struct.pack("!h", 1) + b"no end"),
        message(b"S", b"half"),
        message(b"R", b""),
        message(b"K", b""),
        b"Z\0\0\0\0",
        b"D\xff\xff\xff\xff",
        b"D\x7f\xff\xff\xff",
        b"?\0\0\0\4",
    ],
)
def test_answers_that_make_no_sense(bad):
    with pytest.raises(ProtocolError):
        Answer(Told()).read(bytearray(columns("a", "b") + bad))


def test_login_that_skips_a_step():
    for bad in (READY, message(b"K", bytes(8)), columns("a"), auth(11), auth(12)):
        with pytest.raises(ConnectionError):
            Login(Told(), "me", None).read(bytearray(bad))


def test_errors_survive_pickling():
    original = ServerError("3D000", "FATAL", "no such thing", "a detail")

    copy = pickle.loads(pickle.dumps(original))

    assert (str(copy), copy.sqlstate, copy.severity, copy.detail, copy.is_fatal) == (
        "no such thing",
        "3D000",
        "FATAL",
        "a detail",
        True,
    )


# -- Where a DSN leads -------------------------------------------------------------


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "whoever")
    return tmp_path


def place(dsn):
    found = resolve(dsn)
    return found.socket or (found.host, found.port), found.user, found.database


@pytest.mark.parametrize(
    ("dsn", "found"),
    [
        ("postgresql://h", (("h", 5432), "whoever", "whoever")),
        ("postgres://u@h:7/d", (("h", 7), "u", "d")),
        ("postgresql://u%40x@h/a%20b", (("h", 5432), "u@x", "a b")),
        ("postgresql://u@[::1]:7/", (("::1", 7), "u", "u")),
        ("postgresql://u@[::1]", (("::1", 5432), "u", "u")),
        ("postgresql://u@%2Ftmp%2Fs/d", ("/tmp/s/.s.PGSQL.5432", "u", "d")),
        ("postgresql:///d?host=/tmp&port=7&user=u", ("/tmp/.s.PGSQL.7", "u", "d")),
        ("postgresql:///d?host=h:7&user=u", (("h", 7), "u", "d")),
        ("postgresql://u@h/d?host=x&user=y&dbname=z&port=9", (("h", 5432), "u", "d")),
        ("postgresql://h?user=y&dbname=z", (("h", 5432), "y", "z")),
        ("postgresql://h?user=y&database=z", (("h", 5432), "y", "z")),
    ],
)
def test_where_a_dsn_leads(dsn, found):
    assert place(dsn) == found


def test_environment_comes_after_the_dsn(monkeypatch):
    for name, value in (
        ("PGUSER", "eu"),
        ("PGDATABASE", "ed"),
        ("PGPORT", "7"),
        ("PGPASSWORD", "ep"),
        ("PGSSLMODE", "require"),
    ):
        monkeypatch.setenv(name, value)

    bare, full = (
        resolve("postgresql://h"),
        resolve("postgresql://u:p@h:8/d?sslmode=allow"),
    )

    assert (bare.user, bare.database, bare.port) == ("eu", "ed", 7)
    assert (bare.password.reveal(), bare.tls.mode) == ("ep", "require")
    assert (full.user, full.database, full.port) == ("u", "d", 8)
    assert (full.password.reveal(), full.tls.mode) == ("p", "allow")


def test_only_settings_are_sent():
    dsn = "postgresql://h?sslmode=disable&options=-c%20a=b&target_session_attrs=any&gsslib=x"

    assert resolve(dsn).settings == {"options": "-c a=b"}


@pytest.mark.parametrize(
    "dsn",
    [
        "host=h",
        "postgresql://h:0",
        "postgresql://u:hush@h,i/d",
        "postgresql:///d?host=h,i",
        "postgresql://u:hush@h?sslmode=always",
        "postgresql://u:hush@h?sslnegotiation=direct",
        "postgresql://u:hush@h?sslmode=require&sslnegotiation=never",
    ],
)
def test_dsn_that_leads_nowhere(dsn):
    with pytest.raises(ValueError, match=r"\w") as caught:
        resolve(dsn)

    assert "hush" not in str(caught.value)


def test_secrets_are_not_shown():
    found = resolve("postgresql://u:hush@h?sslpassword=hush")

    assert found.password.reveal() == found.tls.password == "hush"
    assert "hush" not in repr(found)


PASSFILE = R"""
# host:port:database:user:password
h:5432:d:u:first
h:5432:d:u:second
h:*:*:co\:lon:back\\slash\:and:rest
localhost:*:*:sock:of the socket
*:*:*:any:a:b
too:few:fields
"""


@pytest.mark.parametrize(
    ("dsn", "password"),
    [
        ("postgresql://u@h/d", "first"),
        ("postgresql://u@h:7/d", None),
        ("postgresql://u@h/other", None),
        ("postgresql://co%3Alon@h/d", R"back\slash:and:rest"),
        ("postgresql://sock@/d?host=/tmp", "of the socket"),
        ("postgresql://any@elsewhere", "a:b"),
        ("postgresql://u:own@h/d", "own"),
    ],
)
def test_password_file(home, dsn, password):
    file = home / ".pgpass"
    file.write_text(PASSFILE, "utf-8")
    file.chmod(0o600)

    found = resolve(dsn).password

    assert (found and found.reveal()) == password


def test_password_file_of_another_name(home, monkeypatch):
    for name in ("one", "two", "open"):
        (home / name).write_text(f"*:*:*:*:{name}", "utf-8")
        (home / name).chmod(0o644 if name == "open" else 0o600)
    monkeypatch.setenv("PGPASSFILE", str(home / "one"))

    assert resolve("postgresql://u@h").password.reveal() == "one"
    two = resolve(f"postgresql://u@h?passfile={home}/two")
    assert two.password.reveal() == "two"
    # What others can read is no secret.
    assert resolve(f"postgresql://u@h?passfile={home}/open").password is None
    assert resolve(f"postgresql://u@h?passfile={home}/none").password is None


def test_contexts_are_shared_until_a_file_changes(home):
    tls = Tls(mode="require")
    one = context_of(tls)

    assert context_of(Tls(mode="require")) is one
    assert context_of(Tls(mode="require", minimum="TLSv1.3")) is not one
    with pytest.raises(OSError, match="cannot be used for TLS: No such file"):
        context_of(Tls(mode="require", root=str(home / "nosuch")))
    with pytest.raises(ValueError, match="no version of TLS is called 'TLSv9'"):
        context_of(Tls(mode="require", minimum="TLSv9"))


# -- Whoever answers ---------------------------------------------------------------


@contextlib.asynccontextmanager
async def listening(listen):
    """The port of something that does *listen* with each connection, to its end."""
    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await listen(reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield server.sockets[0].getsockname()[1]
        if serving:
            _, left = await asyncio.wait(serving, timeout=5)
            assert not left, "a connection was left open"


@contextlib.asynccontextmanager
async def answering(*parts, closes=True, parameters="?sslmode=disable"):
    """A DSN of something that says the next of *parts* to each thing it hears.

    It fails the test when a connection is still there at the end.
    """

    async def listen(reader, writer):
        for part in parts:
            if not await reader.read(1 << 16):
                return
            writer.write(part)
        while not closes and await reader.read(1 << 16):
            pass

    async with listening(listen) as port:
        yield f"postgresql://me:hush@127.0.0.1:{port}/d{parameters}"


async def connect(dsn):
    async with asyncio.timeout(5):
        return await Wire.connect(dsn, password=None, settings={})


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nBad Request"


@pytest.mark.parametrize(
    "rubbish",
    [
        HTTP,
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"-ERR unknown command\r\n",
        b"ERROR\r\n",
        bytes(range(256)),
        bytes(4096),
        b"R\x7f\xff\xff\xff",
        b"S\x00\x10\x00\x00",  # a setting of a megabyte
        auth(0)[:-1],
        auth(0) + b"Z\0\0",
    ],
)
@pytest.mark.parametrize("parameters", ["?sslmode=disable", "?sslmode=require", ""])
async def test_rubbish(rubbish, parameters):
    async with answering(rubbish, parameters=parameters) as dsn:
        with pytest.raises((OSError, EOFError)) as caught:
            await connect(dsn)

    assert "hush" not in repr(caught.value)
    assert not isinstance(caught.value, TimeoutError)


async def test_http_server_is_told_as_such():
    async with answering(HTTP, closes=False) as dsn:
        with pytest.raises(ProtocolError, match="does not speak PostgreSQL"):
            await connect(dsn)


async def test_hanging_up_without_a_word():
    async with answering() as dsn:
        with pytest.raises((EOFError, ConnectionResetError)):
            await connect(dsn)


async def test_hanging_up_in_a_message():
    async with answering(WELCOME, ANSWER[:-3]) as dsn:
        wire = await connect(dsn)
        with pytest.raises(ProtocolError, match="in the middle of a message"):
            await wire.query("SELECT 1")

        assert not wire.is_open
        with pytest.raises(ProtocolError):
            await wire.query("SELECT 1")


async def test_settings_without_end():
    """Nobody fills our memory before there is a session."""
    flood = b"".join(message(b"S", b"n%d\0%s\0" % (n, b"x" * 9000)) for n in range(200))
    async with answering(auth(0) + flood, closes=False) as dsn:
        with pytest.raises(ProtocolError, match="does not stop answering"):
            await connect(dsn)


async def test_session():
    async with answering(WELCOME, ANSWER, closes=False) as dsn:
        wire = await connect(dsn)
        assert (wire.pid, wire.is_open) == (42, True)
        assert await wire.query("SELECT 1") == ROWS
        await wire.close()

        assert not wire.is_open
        assert repr(wire) == "<Wire ended, pid 42>"


async def test_no_process_could_be_made():
    """The postmaster says so in words of version 2."""
    old = b"Ecould not fork new process for connection: Cannot allocate memory\n\0"
    async with answering(old) as dsn:
        with pytest.raises(ServerError, match="could not fork") as caught:
            await connect(dsn)

    assert caught.value.sqlstate == "53000"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (auth(7), "a method that we lack: GSSAPI"),
        (auth(9), "a method that we lack: SSPI"),
        (auth(2), "a method that we lack: Kerberos 5"),
        (auth(99), "a method that we lack: number 99"),
        (auth(10, b"SCRAM-SHA-256-PLUS\0OAUTHBEARER\0\0"), "by SCRAM-SHA-256-PLUS or"),
    ],
)
async def test_methods_that_we_lack(request_, words):
    async with answering(request_, closes=False) as dsn:
        with pytest.raises(AuthError, match=words) as caught:
            await connect(dsn)

    assert caught.value.sqlstate == "28000"


def scram_server(password, salt=b"salt", rounds=4, *, proves=True):
    """A listener that logs in by SCRAM, and may not know the password itself."""

    async def listen(reader, writer):
        await reader.read(1 << 16)
        writer.write(auth(10, b"SCRAM-SHA-256\0\0"))
        first = (await reader.read(1 << 16)).partition(b"n,,")[2]
        nonce = first.partition(b"r=")[2] + b"more"
        challenge = b"r=%s,s=%s,i=%d" % (nonce, base64.b64encode(salt), rounds)
        writer.write(auth(11, challenge))
        last = (await reader.read(1 << 16))[5:].rpartition(b",p=")[0]
        signed = b"%s,%s,%s" % (first, challenge, last)
        key = keys_of(password, salt, rounds).server
        signature = base64.b64encode(hmac.digest(key, signed, "sha256"))
        writer.write((auth(12, b"v=" + signature) if proves else b"") + WELCOME)
        await reader.read(1 << 16)

    return listen


@pytest.mark.parametrize(
    ("known", "proves", "words"),
    [("wrong", True, "could not prove"), ("hush", False, "without proving who it is")],
)
async def test_impostor_gets_no_session(known, proves, words):
    listen = scram_server(known, proves=proves)
    async with listening(listen) as port:
        with pytest.raises(AuthError, match=words):
            await connect(f"postgresql://me:hush@127.0.0.1:{port}?sslmode=disable")


async def test_words_in_the_clear_are_not_taken_for_words_under_tls():
    async with answering(b"S" + WELCOME, parameters="?sslmode=require") as dsn:
        with pytest.raises(ProtocolError):
            await connect(dsn)


async def test_error_before_tls_is_not_believed():
    """Anybody between us and the server can say it (CVE-2024-10977)."""
    async with answering(error("FATAL", "28P01"), parameters="?sslmode=require") as dsn:
        with pytest.raises(ProtocolError, match="error before TLS"):
            await connect(dsn)


async def test_prefer_goes_on_in_the_clear_when_tls_fails():
    """The first connection is refused TLS in its own way; the second asks for none."""
    answers = iter([b"S", WELCOME])

    async def listen(reader, writer):
        await reader.read(1 << 16)
        writer.write(next(answers))
        if await reader.read(5):
            writer.write(b"no TLS at all")

    async with listening(listen) as port:
        wire = await connect(f"postgresql://me@127.0.0.1:{port}/d")

        assert wire.pid == 42
        wire.abort()


@pytest.mark.parametrize("heard", [(), (auth(0),), (auth(3),), (WELCOME,)])
async def test_cancelled_waiting_leaves_no_connection(heard):
    async with answering(*heard, closes=False) as dsn:

        async def ask():
            wire = await Wire.connect(dsn, password=None, settings={})
            await wire.query("SELECT 1")

        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        gc.collect()  # a transport that is not closed would warn, and warnings are errors


async def test_abort_ends_the_waiting_of_another():
    async with answering(WELCOME, b"", closes=False) as dsn:
        wire = await connect(dsn)
        asking = asyncio.create_task(wire.query("SELECT pg_sleep(9)"))
        await asyncio.sleep(0)
        wire.abort()

        with pytest.raises(ConnectionAbortedError, match="ended from here"):
            await asking


async def test_one_question_at_a_time():
    async with answering(WELCOME, b"", closes=False) as dsn:
        wire = await connect(dsn)
        asking = asyncio.create_task(wire.query("SELECT 1"))
        await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match="one question at a time"):
            await wire.query("SELECT 2")

        asking.cancel()
        await asyncio.wait([asking])


async def test_whoever_takes_nothing_does_not_keep_us_from_leaving():
    """A frozen server's buffers are full: nothing of ours is sent any more."""

    left = asyncio.Event()

    async def listen(reader, writer):
        await reader.read(1 << 16)
        writer.write(WELCOME)
        writer.transport.pause_reading()
        await left.wait()

    async with listening(listen) as port:
        wire = await connect(f"postgresql://me@127.0.0.1:{port}/d?sslmode=disable")
        asking = asyncio.create_task(wire.query("x" * 30_000_000))
        await asyncio.sleep(0.05)
        before = len(os.listdir("/proc/self/fd"))

        await wire.close()

        with pytest.raises(ConnectionAbortedError):
            await asking
        assert len(os.listdir("/proc/self/fd")) == before - 1
        left.set()
