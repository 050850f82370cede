"""Where a DSN leads: what it says, then what the environment says, then the defaults.

The rules are libpq's, as asyncpg reads them, for the parameters that `config.dsn` lets
through. asyncpg has them in private functions only. No message here shows a DSN: it may
hold a password.
"""

import getpass
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pgbreaker.core.secret import Secret
from pgbreaker.postgres.tls import MODES, Tls

_PORT: Final = 5432
_MOST_KEPT: Final = 4096
PARAMETERS: Final = (
    *("host", "port", "user", "password", "passfile", "dbname", "database"),
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
    *("sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"),
)
"""What is read here; others are settings of the session."""

IGNORED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "target_session_attrs": "chooses among several hosts, and a target is one",
        "krbsrvname": "is of Kerberos, which is not spoken here",
        "gsslib": "is of Kerberos, which is not spoken here",
        "service": "names an entry of a file that is not read here",
    }
)
"""What libpq knows and neither we nor a session do: name -> why."""

_NO_SETTINGS: Final = frozenset((*PARAMETERS, *IGNORED))
# Address and port of a host in brackets, or of one without.
_BRACKETED: Final = re.compile(r"\[([^\]]+)\](?::([0-9]+))?")
# Four fields that end in a colon; what follows is the password, whatever stands in it.
_LINE: Final = re.compile(4 * r"((?:\\.|[^:\\])*):" + "(.*)")
_ESCAPED: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to log in, and as whom.

    Attributes:
        host: Name or number; or a directory of Unix sockets, which begins with /.
        port: Port, of the socket's name too.
        user: Role.
        database: Its database; password: its password. None: there is none.
        tls: What is said of TLS.
        settings: Further parameters that the session begins with.
    """

    host: str
    port: int
    user: str
    database: str
    password: Secret | None
    tls: Tls
    settings: Mapping[str, str]

    @property
    def socket(self) -> str | None:
        """Path of the Unix socket. None: it is reached over TCP."""
        if not self.host.startswith("/"):
            return None
        # asyncpg takes the socket itself, too.
        is_whole = ".s.PGSQL." in self.host
        return self.host if is_whole else f"{self.host}/.s.PGSQL.{self.port}"


def password_in(file: Path | None) -> str | None:
    """Read the password that *file* holds; None when none was configured.

    Read anew for each login: secrets are rotated under a running daemon.
    """
    return None if file is None else file.read_text("utf-8").strip("\r\n")


def resolve(dsn: str, password: str | None = None) -> Address:
    """Find out where *dsn* leads.

    Args:
        password: Goes before whatever else knows one.

    Raises:
        ValueError: It leads nowhere.
    """
    said = _said(dsn)
    host = said.get("host") or os.environ.get("PGHOST") or "localhost"
    if "," in host:
        raise ValueError("several hosts; write a target for each")
    port = _port(said.get("port") or os.environ.get("PGPORT") or str(_PORT))
    user = said.get("user") or os.environ.get("PGUSER") or getpass.getuser()
    database = said.get("database") or os.environ.get("PGDATABASE") or user
    if password is None:
        password = said.get("password") or os.environ.get("PGPASSWORD")
    if password is None:
        file = said.get("passfile") or os.environ.get("PGPASSFILE") or "~/.pgpass"
        password = _noted(file, (host, str(port), database, user))
    return Address(
        host=host,
        port=port,
        user=user,
        database=database,
        password=None if password is None else Secret(password),
        tls=_tls(said),
        settings={name: said[name] for name in said.keys() - _NO_SETTINGS},
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError("the port is not a number from 1 to 65535")
    return int(text)


@lru_cache(maxsize=_MOST_KEPT)
def _said(dsn: str) -> Mapping[str, str]:
    """What the DSN itself says, name -> value; never an empty one."""
    parts = urlsplit(dsn)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("not a DSN; write postgresql://user@host:5432/database")
    who, at, where = parts.netloc.partition("@")
    if not at:
        who, where = "", parts.netloc
    user, _, password = who.partition(":")
    said = dict(parse_qsl(parts.query))
    said["database"] = said.pop("dbname", "") or said.get("database", "")
    first = {"user": user, "password": password, "database": parts.path[1:]}
    # Where the address says it, the parameter says nothing.
    said |= {name: unquote(value) for name, value in first.items() if value}
    host, port = map(unquote, _host_and_port(where))
    if not host:
        host, port = _host_and_port(said.get("host", ""))
        port = said.get("port", "") or port
    # With a host in the address, asyncpg does not look at a parameter for the port.
    said |= {"host": host, "port": port}
    return MappingProxyType({name: value for name, value in said.items() if value})


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("/"):
        return text, ""
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        return bracketed[1], bracketed[2] or ""
    host, _, port = text.partition(":")
    return host, port


def _tls(said: Mapping[str, str]) -> Tls:
    def word(name: str, variable: str) -> str | None:
        return said.get(name) or os.environ.get(variable) or None

    mode = word("sslmode", "PGSSLMODE") or "prefer"
    if mode not in MODES:
        raise ValueError(f"no sslmode is called {mode!r}; there are {', '.join(MODES)}")
    negotiation = word("sslnegotiation", "PGSSLNEGOTIATION") or "postgres"
    if negotiation not in ("postgres", "direct"):
        raise ValueError("sslnegotiation is postgres or direct")
    tls = Tls(
        mode=mode,
        is_direct=negotiation == "direct",
        root=word("sslrootcert", "PGSSLROOTCERT"),
        cert=word("sslcert", "PGSSLCERT"),
        key=word("sslkey", "PGSSLKEY"),
        password=said.get("sslpassword"),
        crl=word("sslcrl", "PGSSLCRL"),
        minimum=word("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
        maximum=word("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    )
    if tls.is_direct and not tls.is_at_least("require"):
        raise ValueError(
            "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full"
        )
    return tls


# -- The password file -------------------------------------------------------------


def _noted(file: str, wanted: tuple[str, str, str, str]) -> str | None:
    """Look a password up in a file; None where there is none, or none for this.

    Args:
        wanted: Host, port, database and user.
    """
    for line in _lines(os.path.expanduser(file)):
        fields = _fields(line)
        if fields and _fits(fields[:4], wanted):
            return fields[4]
    return None


def _lines(path: str) -> list[str]:
    try:
        found = os.stat(path)
        # A file that others can read is not one to take a password from.
        is_private = not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if not stat.S_ISREG(found.st_mode) or not is_private:
            return []
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _fields(line: str) -> list[str]:
    found = None if line.startswith("#") else _LINE.fullmatch(line)
    return [_ESCAPED.sub(r"\1", field) for field in found.groups()] if found else []


def _fits(names: list[str], wanted: tuple[str, str, str, str]) -> bool:
    host, *others = wanted
    hosts = (host, "localhost") if host.startswith("/") else (host,)
    return names[0] in ("*", *hosts) and all(
        name in ("*", value) for name, value in zip(names[1:], others, strict=True)
    )
