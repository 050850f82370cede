"""What a DSN may look like. No message here ever shows one: it may hold a password."""

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pgbreaker.config.document import did_you_mean

# Whatever else stands there asyncpg sends to the server as a setting, and a typo is
# then a refused login.
_PARAMETERS: Final = (
    *("host", "port", "user", "password", "passfile", "dbname", "database"),
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
    *("sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"),
    *("target_session_attrs", "krbsrvname", "gsslib", "options"),
)
_WRITE: Final = "write postgresql://user@host:5432/database"
_SSLMODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def wrong_with(dsn: str) -> str | None:
    """Say what is wrong with *dsn*, None when nothing is."""
    scheme, separator, rest = dsn.partition("://")
    if not separator:
        is_libpq = "=" in dsn
        hint = ", not key=value words" if is_libpq else ""
        return f"not a DSN; {_WRITE}{hint}"
    if scheme not in ("postgresql", "postgres"):
        return f"the scheme {scheme!r} is not PostgreSQL's; write postgresql://..."
    if "," in rest.partition("/")[0].rpartition("@")[2]:
        return "several hosts; write a target for each"
    try:
        parts = urlsplit(dsn)
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    if not is_port:
        return "the port is not a number from 1 to 65535"
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not unquote(parts.hostname or "") and not query.get("host"):
        return f"no host; {_WRITE}"
    return _wrong_with_query(query)


def _wrong_with_query(query: dict[str, str]) -> str | None:
    for name in query:
        if name not in _PARAMETERS:
            return f"no parameter is called {name!r}; {did_you_mean(name, _PARAMETERS)}"
    mode = query.get("sslmode", "prefer")
    if mode not in _SSLMODES:
        return f"no sslmode is called {mode!r}; {did_you_mean(mode, _SSLMODES)}"
    port = query.get("port", "5432")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        return "the port is not a number from 1 to 65535"
    return None


def has_password(dsn: str) -> bool:
    """Whether a password stands in *dsn*."""
    parts = urlsplit(dsn)
    return parts.password is not None or "password=" in parts.query
