"""How single values are read: names, addresses, queries, paths. What is wrong with one
is a `ValueError`, whose message pydantic hands on.

Each type says besides how an editor may check it, for the JSON Schema.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, WithJsonSchema

from pgbreaker.config.document import did_you_mean
from pgbreaker.config.dsn import wrong_with
from pgbreaker.config.units import quoted

_NAME: Final = "[A-Za-z0-9_.-]{1,63}"
_LABEL: Final = "[a-z_][a-z0-9_]{0,62}"
_EXTERNAL_LABEL: Final = "[A-Za-z_][A-Za-z0-9_]{0,62}"
_HOST: Final = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})"
_ASKS: Final = "(select|with|values|table|show)"

# What Linux takes for the name of a Unix socket, without the zero at its end.
_LONGEST_SOCKET: Final = 107


def pattern(regex: str) -> WithJsonSchema:
    """The JSON Schema of a text: *regex* from end to end, or anything that has a
    variable in it, which an editor cannot know."""
    return WithJsonSchema(
        {"type": "string", "pattern": rf"^({regex})$|\$\{{"}, mode="validation"
    )


def enum(words: tuple[str, ...]) -> WithJsonSchema:
    """The JSON Schema of one of *words*, or of anything that has a variable in it."""
    variable = {"type": "string", "pattern": r"\$\{"}
    return WithJsonSchema({"anyOf": [{"enum": list(words)}, variable]})


def text(value: object) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise ValueError("not a text; put it in quotes if it looks like something else")
    return value


def _name(value: object) -> str:
    name = text(value)
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{quoted(name)} is no name; use 1 to 63 of A-Z a-z 0-9 _ . -")
    return name


def _query_name(value: object) -> str:
    name = text(value)
    if not re.fullmatch(_LABEL, name):
        raise ValueError(
            f"{quoted(name)} is no name; use a-z 0-9 _, beginning with a letter"
        )
    return name


def _dsn(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a DSN; write postgresql://user@host:5432/database")
    wrong = wrong_with(value)
    if wrong is not None:
        raise ValueError(wrong)
    return value


def one_of(words: tuple[str, ...], what: str) -> BeforeValidator:
    """Read one of *words*, each of which is a *what*."""

    def check(value: object) -> object:
        if value not in words:
            named = value if isinstance(value, str) else "this"
            said = quoted(named) if isinstance(value, str) else named
            raise ValueError(
                f"no {what} is called {said}; {did_you_mean(named, words)}"
            )
        return value

    return BeforeValidator(check)


def _query(value: object) -> str:
    query = text(value).strip().removesuffix(";").strip()
    if not query:
        raise ValueError("an empty query")
    if not re.match(rf"(?i){_ASKS}\b", query):
        raise ValueError("not a question; write one SELECT")
    if ";" in query:
        raise ValueError("several statements; write one, without a semicolon")
    return query


def _subquery(value: object) -> str:
    query = _query(value)
    # It is asked within another, where SHOW cannot stand.
    if re.match(r"(?i)show\b", query):
        raise ValueError("SHOW is no SELECT; write SELECT current_setting('...')")
    return query


def switched(value: object) -> object:
    """Read ``false`` as nothing, ``true`` and nothing as all defaults."""
    if value is False:
        return None
    if value is True or value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(
            f"{quoted(value)} is a word here; write false, or keys such as interval"
            if isinstance(value, str)
            else "not keys and values"
        )
    return value


def listed(example: str, *, may_be_empty: bool = False) -> BeforeValidator:
    """Read a list; of one thing or more unless it *may_be_empty*."""

    def check(value: object) -> object:
        if not isinstance(value, list) or not (value or may_be_empty):
            raise ValueError(f"not a list{example}")
        return value

    return BeforeValidator(check)


def queries(value: object) -> object:
    """Read a list of queries, or of none."""
    if not isinstance(value, list):
        raise ValueError("not a list; write '- name: ...' and '  query: ...'")
    return value


# -- Labels ------------------------------------------------------------------------

# What an alert says of itself. Prometheus would not put its own in their place either.
_OF_ALERTS: Final = (
    *("alertname", "severity", "job"),
    *("target", "operation", "breaker"),
)


def _labels(value: object) -> object:
    if not isinstance(value, dict):
        raise ValueError("not keys and values; write {env: prod}")
    return value


def _label(value: object) -> str:
    return _label_like(value, _LABEL, "a-z 0-9 _")


def _external_label(value: object) -> str:
    # Prometheus takes capitals, too; only what is the same there and here is merged.
    label = _label_like(value, _EXTERNAL_LABEL, "A-Z a-z 0-9 _")
    if label in _OF_ALERTS:
        raise ValueError(f"{label!r} is a label of every alert already; leave it out")
    return label


def _label_like(value: object, regex: str, characters: str) -> str:
    label = text(value)
    if not re.fullmatch(regex, label):
        raise ValueError(
            f"{quoted(label)} is no label; use {characters}, beginning with a letter"
        )
    return label


def _label_text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 128:
        raise ValueError(
            "a label is a text of up to 128 characters; put what looks like something"
            " else in quotes"
        )
    return value


# -- Addresses ---------------------------------------------------------------------


def read_address(value: object) -> tuple[str, int]:
    """Read ``host:port``, the host an address or a name, ``[::1]:9432`` for IPv6.

    Raises:
        ValueError: It is none.
    """
    given = value if isinstance(value, str) else ""
    host, separator, port = given.rpartition(":")
    if not separator or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("not an address; write it like 127.0.0.1:9432")
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare:
        if bare == host:
            raise ValueError(f"put the IPv6 address in brackets: [{bare}]:{port}")
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise ValueError(f"{quoted(bare)} is no IPv6 address") from None
    elif bare and not re.fullmatch(_HOST, bare):
        raise ValueError("not an address; write it like 127.0.0.1:9432")
    return bare or "0.0.0.0", int(port)


def _host(value: object) -> str:
    name = text(value).lower()
    if "://" in name or "/" in name:
        raise ValueError("a name alone, without scheme and path: db1.example.net")
    if "*" in name:
        raise ValueError("a * would let every page on the net ask; write the names out")
    bare = name.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if ":" in name:
        raise ValueError("a name alone, without the port: db1.example.net")
    if not re.fullmatch(_HOST, name):
        raise ValueError(f"{quoted(name)} is no name of a host")
    return name


def url_like(example: str) -> BeforeValidator:
    """Read the base URL of something that speaks HTTP."""

    def check(value: object) -> str:
        url = text(value)
        # An @ anywhere: after a password that has a / in it, it stands in the path.
        if "@" in url:
            raise ValueError(
                f"an address has no user or password in it; write it like {example}"
            )
        if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
            raise ValueError(f"not an address; write it like {example}")
        try:
            parts = urlsplit(url)
            is_port, host = parts.port != 0, parts.hostname
        except ValueError:  # which shows it
            is_port, host = False, None
        if not is_port:
            raise ValueError("the port is not a number from 1 to 65535")
        if not host:
            raise ValueError(f"no host; write it like {example}")
        return url.rstrip("/")

    return BeforeValidator(check)


def _database(value: object) -> str:
    name = text(value)
    if not 0 < len(name.encode()) <= 63 or not name.isprintable():
        raise ValueError("not the name of a database; use 1 to 63 bytes")
    if name == "pgbouncer":
        raise ValueError("that is its console, which cannot be paused")
    return name


def _job(value: object) -> str:
    job = text(value)
    if not 0 < len(job) <= 128 or not job.isprintable():
        raise ValueError("not the name of a scrape job; use 1 to 128 characters")
    return job


_ENGINE: Final = (
    r"rediss?://([^\s/?#@:]*(:[^\s/?#@]*)?@)?(\[[0-9A-Fa-f:.]+\]|[^\s/?#@:,\[\]]+)"
    r"(:[0-9]{1,5})?(/[0-9]{0,5})?|unix:///[^\s?#]+(\?db=[0-9]{1,5})?"
)
_PREFIX: Final = "[A-Za-z0-9_.:-]{1,63}"


def _engine(value: object) -> str:
    url = text(value)
    try:
        where = urlsplit(url).netloc if re.fullmatch(_ENGINE, url) else None
    except ValueError:  # brackets, or letters that stand for several
        where = None
    if where is None:  # nor is it shown, or why: a password may be in it
        raise ValueError(
            "not an engine's address; write it like redis://redis1:6379/0, rediss://..."
            " for TLS, or unix:///PATH"
        )
    port = where.rpartition("@")[2].rpartition("]")[2].rpartition(":")[2]
    if port.isdecimal() and not 0 < int(port) < 65536:
        raise ValueError("the port is not a number from 1 to 65535")
    return url


def _prefix(value: object) -> str:
    prefix = text(value)
    if not re.fullmatch(_PREFIX, prefix):
        raise ValueError(
            f"{quoted(prefix)} is no prefix of keys; use 1 to 63 of A-Z a-z 0-9 _ . : -"
        )
    return prefix


# -- Files -------------------------------------------------------------------------


def _file(value: object) -> Path:
    path = text(value)
    if not path or "\0" in path or len(path) > 4096:
        raise ValueError("not a path")
    return Path(path)


def _socket(value: object) -> Path:
    path = _file(value)
    if len(str(path).encode()) > _LONGEST_SOCKET:
        raise ValueError(
            f"too long for a socket; at most {_LONGEST_SOCKET} bytes are taken"
        )
    return path


def _included(value: object) -> str:
    name = str(_file(value))
    if re.search(r"[*?\[]", name.rpartition("/")[0]):
        raise ValueError(
            "a * may stand in the last part of a path alone: conf.d/*.yaml"
        )
    return name


# -- Types -------------------------------------------------------------------------

_URL: Final = pattern(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")

Name: TypeAlias = Annotated[str, BeforeValidator(_name), pattern(_NAME)]
QueryName: TypeAlias = Annotated[str, BeforeValidator(_query_name), pattern(_LABEL)]
Dsn: TypeAlias = Annotated[
    str, BeforeValidator(_dsn), pattern(r"postgres(ql)?://[^\s]+")
]
Query: TypeAlias = Annotated[
    str, BeforeValidator(_query), WithJsonSchema({"type": "string", "minLength": 4})
]
Subquery: TypeAlias = Annotated[
    str, BeforeValidator(_subquery), WithJsonSchema({"type": "string", "minLength": 4})
]
LabelText: TypeAlias = Annotated[
    str,
    BeforeValidator(_label_text),
    WithJsonSchema({"type": "string", "maxLength": 128}),
]
Labels: TypeAlias = Annotated[
    dict[Annotated[str, BeforeValidator(_label), pattern(_LABEL)], LabelText],
    BeforeValidator(_labels),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{_LABEL}$"},
            "additionalProperties": {"type": "string", "maxLength": 128},
            "maxProperties": 16,
        }
    ),
]
ExternalLabels: TypeAlias = Annotated[
    dict[Annotated[str, BeforeValidator(_external_label)], LabelText],
    BeforeValidator(_labels),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {
                "pattern": f"^{_EXTERNAL_LABEL}$",
                "not": {"enum": list(_OF_ALERTS)},
            },
            "additionalProperties": {"type": "string", "maxLength": 128},
            "maxProperties": 16,
        }
    ),
]
Address: TypeAlias = Annotated[
    tuple[str, int],
    BeforeValidator(read_address),
    pattern(r"[^\s/]*:[0-9]{1,5}"),
]
Host: TypeAlias = Annotated[str, BeforeValidator(_host), pattern(r"[^\s/*]+")]
EngineUrl: TypeAlias = Annotated[str, BeforeValidator(_engine), pattern(_ENGINE)]
Prefix: TypeAlias = Annotated[str, BeforeValidator(_prefix), pattern(_PREFIX)]
Database: TypeAlias = Annotated[
    str,
    BeforeValidator(_database),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 63}),
]
Job: TypeAlias = Annotated[
    str,
    BeforeValidator(_job),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 128}),
]
File: TypeAlias = Annotated[
    Path, BeforeValidator(_file), WithJsonSchema({"type": "string", "minLength": 1})
]
Socket: TypeAlias = Annotated[
    Path,
    BeforeValidator(_socket),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": _LONGEST_SOCKET}),
]
Included: TypeAlias = Annotated[
    str, BeforeValidator(_included), pattern(r"([^*?\[]*/)?[^/]+")
]
Endpoint: TypeAlias = Annotated[str, url_like("http://127.0.0.1:4318"), _URL]
AlertmanagerUrl: TypeAlias = Annotated[str, url_like("http://127.0.0.1:9093"), _URL]
GrafanaUrl: TypeAlias = Annotated[str, url_like("https://grafana.example.net"), _URL]
RunbookUrl: TypeAlias = Annotated[str, url_like("https://example.net/runbooks"), _URL]
PageUrl: TypeAlias = Annotated[str, url_like("http://db1:9432"), _URL]
PatroniUrl: TypeAlias = Annotated[str, url_like("http://db1:8008"), _URL]
