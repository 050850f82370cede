"""What a driver's error means to a probe.

The class of an error is not the truth: asyncpg raises `ConnectionDoesNotExistError`
for most sessions that the server ended, with the server's own words in ``__cause__``.
So: the innermost SQLSTATE first, then the class, then the errno.

The codes are those of https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from pgbreaker.core.reading import Finding
from pgbreaker.core.states import Evidence
from pgbreaker.core.text import tidy, words_of
from pgbreaker.postgres import answers
from pgbreaker.postgres.sqlstates import Category

# Exact codes before classes. While connecting, and afterwards.
_BY_CODE: Final = {
    "25006": Finding.WRONG_ROLE,  # read_only_sql_transaction
    "3D000": Finding.AUTH,  # invalid_catalog_name: no such database
    "42501": Finding.DENIED,  # insufficient_privilege
    "54000": Finding.QUERY,  # program_limit_exceeded; but see _of_sqlstate
    "55000": Finding.ABSENT,  # object_not_in_prerequisite_state: not preloaded
    "53300": Finding.FULL,  # too_many_connections
    "53400": Finding.QUERY,  # configuration_limit_exceeded: temp_file_limit
    "55P03": Finding.QUERY,  # lock_not_available: our own lock_timeout
    "57014": Finding.QUERY,  # query_canceled: our own statement_timeout
    "57P01": Finding.LOST,  # admin_shutdown: also a session ended by hand
    "57P02": Finding.LOST,  # crash_shutdown
    "57P03": Finding.STARTING,  # cannot_connect_now
    "57P04": Finding.AUTH,  # database_dropped
    "57P05": Finding.LOST,  # idle_session_timeout
}
_BY_CLASS: Final = {
    "08": Finding.LOST,  # connection exception
    "28": Finding.AUTH,  # invalid authorization
    "53": Finding.SYSTEM,  # insufficient resources: disk full, out of memory
    "58": Finding.SYSTEM,  # system error, external to PostgreSQL
    "XX": Finding.SYSTEM,  # internal error, corrupted data
    "F0": Finding.SYSTEM,  # configuration file error
}
# The same code is a wrong question later, but a wrong door while connecting.
_AT_THE_DOOR: Final = {
    "42501": Finding.AUTH,  # insufficient_privilege: no CONNECT on the database
    "55000": Finding.AUTH,  # the database accepts no connections
    "42704": Finding.AUTH,  # undefined_object: a setting the server has not
    "57P01": Finding.STARTING,
    "57P02": Finding.STARTING,
}
_BY_ERRNO: Final = {
    errno.ECONNREFUSED: Finding.REFUSED,
    errno.ENOENT: Finding.REFUSED,  # no socket file: nobody listens
    errno.EHOSTUNREACH: Finding.REFUSED,
    errno.ENETUNREACH: Finding.REFUSED,
    errno.EHOSTDOWN: Finding.REFUSED,
    errno.ECONNRESET: Finding.LOST,
    errno.ECONNABORTED: Finding.LOST,
    errno.EPIPE: Finding.LOST,
    errno.ETIMEDOUT: Finding.TIMEOUT,
    # Our own machine is out of something: no news of the server.
    errno.EMFILE: Finding.QUERY,
    errno.ENFILE: Finding.QUERY,
    errno.EADDRNOTAVAIL: Finding.QUERY,
    errno.EACCES: Finding.QUERY,
}


def read_failure(
    error: BaseException, *, probe: str, connecting: bool
) -> tuple[Finding, Evidence]:
    """Say how a probe ended that raised *error*, and what was seen.

    Args:
        connecting: Whether the connection was still being made; the same
            SQLSTATE can mean something else then.
    """
    if isinstance(error, TimeoutError) and error.errno is None:
        # Our own deadline, which ends the connection: what the driver says of that
        # is only the echo.
        finding = Finding.TIMEOUT
        return finding, Evidence(finding.value, str(error) or "no answer", None, probe)
    named = getattr(error, "finding", None)
    if isinstance(named, Finding):  # one of ours, which knows what it means
        sqlstate = getattr(error, "sqlstate", None)
        return named, Evidence(named.value, str(error), sqlstate, probe)
    for cause in _innermost_first(error):
        sqlstate = getattr(cause, "sqlstate", None)
        if isinstance(sqlstate, str) and len(sqlstate) == 5:
            finding = _of_sqlstate(sqlstate, str(cause), connecting=connecting)
            return finding, Evidence(finding.value, tidy(str(cause)), sqlstate, probe)
    finding = _of_class(error, connecting=connecting)
    return finding, Evidence(finding.value, words_of(error), None, probe)


def _innermost_first(error: BaseException) -> Iterator[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return reversed(chain)


def _of_sqlstate(sqlstate: str, text: str, *, connecting: bool) -> Finding:
    if sqlstate == "53300" and 'for role "' in text:
        return Finding.QUERY  # the CONNECTION LIMIT of our own role, not the server's
    if sqlstate == "54000" and "not accepting commands" in text:
        return Finding.SYSTEM  # no transaction ids are left to give
    if sqlstate == "08P01":
        return _of_pooler(text)
    if connecting and sqlstate in _AT_THE_DOOR:
        return _AT_THE_DOOR[sqlstate]
    by_class = _BY_CLASS.get(sqlstate[:2], Finding.QUERY)
    return _BY_CODE.get(sqlstate, by_class)


def _of_pooler(text: str) -> Finding:
    """Read what pgbouncer says: it has one SQLSTATE for all, and words."""
    said = answers.of_words(text)
    if said is answers.FULL:
        return Finding.FULL
    is_barred = said is not None and said.category is Category.PERSISTENT
    return Finding.AUTH if is_barred else Finding.LOST


def _of_class(error: BaseException, *, connecting: bool) -> Finding:
    match error:
        case socket.gaierror():
            return Finding.UNRESOLVED
        case ssl.SSLError():
            return Finding.AUTH
        case OSError():
            return _of_oserror(error, connecting=connecting)
        case EOFError():
            return Finding.LOST
    if type(error).__name__ == "ClientConfigurationError":
        return Finding.AUTH  # asyncpg's, of the DSN, and of files that it names
    # InterfaceError "connection is closed", InternalClientError "cannot switch to
    # state": a session that died at the moment it was used.
    is_asyncpg = type(error).__module__.startswith("asyncpg.")
    return Finding.LOST if is_asyncpg else Finding.QUERY


def _of_oserror(error: OSError, *, connecting: bool) -> Finding:
    if error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    if not connecting:
        return Finding.LOST
    # asyncio's "Multiple exceptions: ..." for a host of several addresses has no
    # errno; asyncpg's "rejected SSL upgrade" is a bare ConnectionError.
    return Finding.AUTH if "SSL" in str(error) else Finding.REFUSED
