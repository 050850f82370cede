"""What drivers' errors mean to a probe; the real ones are raised in tests/integration."""

import errno
import socket
import ssl

import asyncpg
import pytest
from asyncpg.exceptions import ClientConfigurationError

from pgbreaker.core.reading import Finding
from pgbreaker.postgres.failures import read_failure, tidy
from pgbreaker.postgres.target import TooOldError


def server_says(sqlstate: str, text: str = "as the server says") -> Exception:
    return asyncpg.PostgresError.new({"C": sqlstate, "M": text, "S": "FATAL"})


CONNECTING = [
    ("53300", Finding.FULL),
    ("28P01", Finding.AUTH),
    ("28000", Finding.AUTH),
    ("3D000", Finding.AUTH),
    ("42501", Finding.AUTH),
    ("55000", Finding.AUTH),
    ("57P01", Finding.STARTING),
    ("57P03", Finding.STARTING),
]
ASKING = [
    ("25006", Finding.WRONG_ROLE),
    ("53100", Finding.SYSTEM),
    ("53200", Finding.SYSTEM),
    ("58030", Finding.SYSTEM),
    ("XX000", Finding.SYSTEM),
    ("55P03", Finding.QUERY),
    ("57014", Finding.QUERY),
    ("42501", Finding.DENIED),
    ("55000", Finding.ABSENT),
    ("54000", Finding.QUERY),
    ("40001", Finding.QUERY),
    ("42P01", Finding.QUERY),
    ("57P01", Finding.LOST),
    ("57P02", Finding.LOST),
    ("08006", Finding.LOST),
]


@pytest.mark.parametrize(("sqlstate", "finding"), CONNECTING)
def test_what_the_server_says_at_the_door(sqlstate, finding):
    seen, evidence = read_failure(server_says(sqlstate), probe="login", connecting=True)

    assert (seen, evidence.sqlstate, evidence.probe) == (finding, sqlstate, "login")


@pytest.mark.parametrize(("sqlstate", "finding"), ASKING)
def test_what_the_server_says_to_a_question(sqlstate, finding):
    seen, _ = read_failure(server_says(sqlstate), probe="ping", connecting=False)

    assert seen is finding


def test_a_server_without_transaction_ids_is_ill():
    text = "database is not accepting commands that assign new XIDs to avoid wraparound"

    seen, _ = read_failure(server_says("54000", text), probe="commit", connecting=False)

    assert seen is Finding.SYSTEM


def test_an_error_of_ours_says_itself_what_it_means():
    seen, evidence = read_failure(TooOldError(130004), probe="ping", connecting=True)

    assert seen is Finding.ABSENT
    assert evidence.text.startswith("PostgreSQL 13 is not watched: 14 is the oldest")


def test_the_limit_of_our_own_role_is_not_a_full_server():
    error = server_says("53300", 'too many connections for role "pgbreaker"')

    finding, _ = read_failure(error, probe="login", connecting=True)

    assert finding is Finding.QUERY


def test_the_innermost_sqlstate_counts():
    """asyncpg hides the server's words behind 08003."""
    error = asyncpg.ConnectionDoesNotExistError("connection was closed")
    error.__cause__ = server_says("53100", "no space left")

    finding, evidence = read_failure(error, probe="commit", connecting=False)

    assert (finding, evidence.sqlstate) == (Finding.SYSTEM, "53100")


def test_our_own_deadline_goes_before_what_the_driver_says_of_it():
    error = TimeoutError("no answer within 500 ms")
    error.__cause__ = asyncpg.ConnectionDoesNotExistError("connection was closed")

    finding, evidence = read_failure(error, probe="ping", connecting=False)

    assert (finding, evidence.text) == (Finding.TIMEOUT, "no answer within 500 ms")


@pytest.mark.parametrize(
    ("error", "finding", "text"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "x"),
            Finding.REFUSED,
            "connection refused",
        ),
        (
            FileNotFoundError(errno.ENOENT, "x"),
            Finding.REFUSED,
            "no such file or directory",
        ),
        (
            ConnectionResetError(errno.ECONNRESET, "x"),
            Finding.LOST,
            "connection reset by peer",
        ),
        (OSError(errno.EHOSTUNREACH, "x"), Finding.REFUSED, "no route to host"),
        (TimeoutError(errno.ETIMEDOUT, "x"), Finding.TIMEOUT, "connection timed out"),
        (OSError(errno.EMFILE, "x"), Finding.QUERY, "too many open files"),
        (OSError("Multiple exceptions: [Errno 111] ..."), Finding.REFUSED, None),
        (
            ConnectionError("PostgreSQL server at x rejected SSL upgrade"),
            Finding.AUTH,
            None,
        ),
        (ssl.SSLCertVerificationError("certificate has expired"), Finding.AUTH, None),
        (EOFError("closed"), Finding.LOST, "closed"),
        (asyncpg.InterfaceError("connection is closed"), Finding.LOST, None),
        (asyncpg.InternalClientError("cannot switch to state 12"), Finding.LOST, None),
        (ClientConfigurationError("root certificate file ..."), Finding.AUTH, None),
        (ValueError("a fault of ours"), Finding.QUERY, "a fault of ours"),
    ],
)
def test_errors_without_a_sqlstate(error, finding, text):
    seen, evidence = read_failure(error, probe="ping", connecting=True)

    assert seen is finding
    assert evidence.sqlstate is None
    assert text is None or evidence.text == text


def test_a_name_without_an_address():
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    finding, evidence = read_failure(error, probe="ping", connecting=True)

    assert finding is Finding.UNRESOLVED
    assert evidence.text == "the host's name has no address: name or service not known"


def test_a_servers_words_are_kept_to_one_short_line():
    text = tidy("line\none\x00\x1b[31m " + "x" * 1000)

    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) == 200
