"""What a DSN may look like. No message here ever shows one: it may hold a password."""

import re
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pgbreaker.config.document import did_you_mean, word
from pgbreaker.config.units import quoted
from pgbreaker.postgres.dsn import IGNORED, PARAMETERS, resolve
from pgbreaker.postgres.tls import MODES

# Whatever else stands there is sent to the server as a setting, and a typo is then a
# refused login.
_PARAMETERS: Final = (*PARAMETERS, "options")
_WRITE: Final = "write postgresql://user@host:5432/database"


def wrong_with(dsn: str) -> str | None:
    """Say what is wrong with *dsn*, None when nothing is."""
    scheme, separator, rest = dsn.partition("://")
    if not separator:
        is_libpq = "=" in dsn
        hint = ", not key=value words" if is_libpq else ""
        return f"not a DSN; {_WRITE}{hint}"
    if scheme not in ("postgresql", "postgres"):
        return (
            f"the scheme {word(scheme)!r} is not PostgreSQL's; write postgresql://..."
        )
    wrong = _wrong_with_address(dsn, rest)
    if wrong is not None:
        return wrong
    parts = urlsplit(dsn)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not unquote(parts.hostname or "") and not query.get("host"):
        return f"no host; {_WRITE}"
    return _wrong_with_query(query) or _wrong_together(dsn)


def _wrong_with_address(dsn: str, rest: str) -> str | None:
    netloc = re.split("[/?#]", rest)[0]
    if "#" in rest or rest.count("@") > netloc.count("@") or netloc.count("@") > 1:
        # A password that ends early: its rest would be taken for a host or a database.
        return "an @, /, ? or # within a name or password has to be written %40, %2F, %3F, %23"
    if "," in netloc.rpartition("@")[2]:
        return "several hosts; write a target for each"
    try:
        is_port = urlsplit(dsn).port != 0
    except ValueError:
        is_port = False
    return None if is_port else "the port is not a number from 1 to 65535"


def _wrong_with_query(query: dict[str, str]) -> str | None:
    for name in query:
        if name in IGNORED:
            return f"{name} {IGNORED[name]}; leave it out"
        if name not in _PARAMETERS:
            return f"no parameter is called {word(name)!r}; {did_you_mean(name, _PARAMETERS)}"
    mode = query.get("sslmode", "prefer")
    if mode not in MODES:
        return f"no sslmode is called {quoted(mode)}; {did_you_mean(mode, MODES)}"
    port = query.get("port", "5432")
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        return "the port is not a number from 1 to 65535"
    return None


def _wrong_together(dsn: str) -> str | None:
    """What whoever logs in says of it, with what the environment says besides."""
    try:
        resolve(dsn, password="")  # with one, it looks into no file
    except ValueError as error:
        return str(error)
    except (KeyError, OSError):
        return None  # this user has no name, which need not be so where it runs
    return None


def has_password(dsn: str) -> bool:
    """Whether a password stands in *dsn*."""
    parts = urlsplit(dsn)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    return parts.password is not None or "password" in given
