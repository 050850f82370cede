"""The shape of the file: keys, types, what each means. No defaults of behaviour stand
here; those live in the objects that the daemon runs by."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
)

from pgbreaker.config.document import did_you_mean
from pgbreaker.config.dsn import wrong_with
from pgbreaker.config.units import Count, Duration, Part, Size
from pgbreaker.core.judge import LATENCY, OPERATIONS, PING, REPLICATION, SERVED
from pgbreaker.probes import PROBES
from pgbreaker.probes.probe import Place

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_LABEL: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_EXTERNAL_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS: Final = ("auto", "json", "console")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text; put it in quotes if it looks like something else")
    return value


def _name(value: object) -> str:
    name = _text(value)
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name; use 1 to 63 of A-Z a-z 0-9 _ . -")
    return name


def _dsn(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a DSN; write postgresql://user@host:5432/database")
    wrong = wrong_with(value)
    if wrong is not None:
        raise ValueError(wrong)
    return value


def _one_of(words: tuple[str, ...], what: str) -> BeforeValidator:
    def check(value: object) -> object:
        if value not in words:
            shown = value if isinstance(value, str) else str(value)
            raise ValueError(
                f"no {what} is called {shown!r}; {did_you_mean(shown, words)}"
            )
        return value

    return BeforeValidator(check)


def _operations(value: object) -> list[object]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"not a list; write [{', '.join(SERVED)}] or fewer of them")
    for operation in value:
        if value.count(operation) > 1:
            raise ValueError(f"{operation!r} is given twice")
    return value


def _list(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError("not a list; write '- name: ...' and '  query: ...'")
    if len(value) > 20:
        raise ValueError(f"{len(value)} queries; at most 20 are taken")
    return value


def _query(value: object) -> str:
    text = _text(value).strip().removesuffix(";").strip()
    if not text:
        raise ValueError("an empty query")
    if not re.match(r"(?i)(select|with|values|table|show)\b", text):
        raise ValueError("not a question; write one SELECT")
    if ";" in text:
        raise ValueError("several statements; write one, without a semicolon")
    return text


def _subquery(value: object) -> str:
    text = _query(value)
    # It is asked within another, where SHOW cannot stand.
    if re.match(r"(?i)show\b", text):
        raise ValueError("SHOW is no SELECT; write SELECT current_setting('...')")
    return text


def _query_name(value: object) -> str:
    name = _text(value)
    if not _LABEL.fullmatch(name):
        raise ValueError(f"{name!r} is no name; use a-z 0-9 _, beginning with a letter")
    return name


def _off(value: object) -> object:
    if value is False:
        return None
    if value is True or value is None:
        return {}
    if isinstance(value, str):
        raise ValueError(
            f"{value!r} is a word here; write false, or keys such as interval"
        )
    return value


def _labels(value: object) -> dict[str, str]:
    return _labels_like(value, _LABEL, "a-z 0-9 _")


def _labels_like(
    value: object, name: re.Pattern[str], characters: str
) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("not keys and values; write {env: prod}")
    if len(value) > 16:
        raise ValueError(f"{len(value)} labels; at most 16 are taken")
    for key, text in value.items():
        if not name.fullmatch(key):
            raise ValueError(
                f"{key!r} is no label; use {characters}, beginning with a letter"
            )
        if not isinstance(text, str) or len(text) > 128:
            raise ValueError(
                f"the label {key!r} must be a text of up to 128 characters"
            )
    return value


# What an alert says of itself. Prometheus would not put its own in their place either.
_OF_ALERTS: Final = (
    *("alertname", "severity", "job"),
    *("target", "operation", "breaker"),
)
_MOST_URLS: Final = 8


def _external_labels(value: object) -> dict[str, str]:
    # Prometheus takes capitals, too; only what is the same there and here is merged.
    labels = _labels_like(value, _EXTERNAL_LABEL, "A-Z a-z 0-9 _")
    for key in labels:
        if key in _OF_ALERTS:
            raise ValueError(f"{key!r} is a label of every alert already; leave it out")
    return labels


def _job(value: object) -> str:
    text = _text(value)
    if not 0 < len(text) <= 128 or not text.isprintable():
        raise ValueError("not the name of a scrape job; use 1 to 128 characters")
    return text


def _urls(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise ValueError("not a list of addresses; write [http://127.0.0.1:9093]")
    if len(value) > _MOST_URLS:
        raise ValueError(f"{len(value)} addresses; at most {_MOST_URLS} are taken")
    return value


def _each_once(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        if urls.count(url) > 1:
            raise ValueError(f"{url} is given twice")
    return urls


def read_address(value: object) -> tuple[str, int]:
    """Read ``host:port``, the host an address or a name, ``[::1]:9432`` for IPv6.

    Raises:
        ValueError: It is none.
    """
    text = value if isinstance(value, str) else ""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ValueError("not an address; write it like 127.0.0.1:9432")
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare:
        if bare == host:
            raise ValueError(f"put the IPv6 address in brackets: [{bare}]:{port}")
        try:
            ipaddress.IPv6Address(bare)
        except ValueError:
            raise ValueError(f"{bare!r} is no IPv6 address") from None
    return bare or "0.0.0.0", int(port)


def _url_like(example: str) -> BeforeValidator:
    def check(value: object) -> str:
        text = _text(value)
        # An @ anywhere: after a password that has a / in it, it stands in the path.
        if "@" in text:
            raise ValueError(
                f"an address has no user or password in it; write it like {example}"
            )
        if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", text):
            raise ValueError(f"not an address; write it like {example}")
        try:
            parts = urlsplit(text)
            is_port, host = parts.port != 0, parts.hostname
        except ValueError:  # which shows it
            is_port, host = False, None
        if not is_port:
            raise ValueError("the port is not a number from 1 to 65535")
        if not host:
            raise ValueError(f"no host; write it like {example}")
        return text.rstrip("/")

    return BeforeValidator(check)


class Model(BaseModel):
    """Keys that are not there are errors, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BreakerShape(Model):
    failure_rate: Annotated[
        Part | None, Field(description="share of failed calls in the window that opens")
    ] = None
    slow_rate: Annotated[
        Part | None, Field(description="share of slow calls in the window that opens")
    ] = None
    window: Annotated[
        Duration | None, Field(description="length of the sliding window")
    ] = None
    minimum_calls: Annotated[
        Count | None, Field(description="calls in the window below which no rate opens")
    ] = None
    failure_threshold: Annotated[
        Count | None, Field(description="failures in a row that open")
    ] = None
    success_threshold: Annotated[
        Count | None, Field(description="good answers in a row that close")
    ] = None
    timeout: Annotated[
        Duration | None,
        Field(description="shortest opening, counted from the last bad sign"),
    ] = None
    max_timeout: Annotated[
        Duration | None,
        Field(description="longest opening; each flap doubles up to it"),
    ] = None
    jitter: Annotated[
        Part | None,
        Field(description="share of itself by which an opening may be longer"),
    ] = None
    slow_call: Annotated[
        Duration | None, Field(description="time from which a ping counts as slow")
    ] = None


class ProbeShape(Model):
    interval: Annotated[Duration | None, Field(description="time between two runs")] = (
        None
    )
    timeout: Annotated[
        Duration | None, Field(description="time for the answer, connecting included")
    ] = None


class HeldShape(ProbeShape):
    timeout: Annotated[
        Duration | None,
        Field(description="time for the answer; of more than the ping's, the ping's"),
    ] = None


class LatencyShape(ProbeShape):
    query: Annotated[
        Annotated[str, BeforeValidator(_query)],
        Field(description="the canary: one SELECT that stands for reads"),
    ]
    slow: Annotated[
        Duration | None,
        Field(description="time from which its answer counts as failed"),
    ] = None


class ReplicationShape(HeldShape):
    max_lag: Annotated[
        Duration | None,
        Field(description="age of a replica's data from which `read` fails"),
    ] = None


class SizeShape(ProbeShape):
    capacity: Annotated[
        Size | None,
        Field(description="size of the disk that holds data and WAL, such as `500GB`"),
    ] = None


class CustomShape(ProbeShape):
    name: Annotated[
        Annotated[str, BeforeValidator(_query_name)],
        Field(description="short name, unique within the target"),
    ]
    query: Annotated[
        Annotated[str, BeforeValidator(_subquery)],
        Field(description="one SELECT of up to 20 rows"),
    ]


class PgbouncerShape(ProbeShape):
    dsn: Annotated[
        Annotated[str, BeforeValidator(_dsn)],
        Field(description="its console: `postgresql://stats@host:6432/pgbouncer`"),
    ]
    password_file: Annotated[
        Annotated[Path, BeforeValidator(_text)] | None,
        Field(description="file with the password, read at each run"),
    ] = None
    max_wait: Annotated[
        Duration | None,
        Field(description="time that clients may wait before `pool` fails"),
    ] = None


class PatroniShape(ProbeShape):
    url: Annotated[
        Annotated[str, _url_like("http://db1:8008")],
        Field(description="its REST API, such as `http://db1:8008`"),
    ]


def _probes_shape() -> type[Model]:
    """A key for each probe that there is, from the probes' own words."""
    fields: dict[str, Any] = {}
    shapes: dict[str, type[ProbeShape]] = {
        REPLICATION: ReplicationShape,
        "size": SizeShape,
    }
    for name, probe in PROBES.items():
        if not probe.is_usual:
            continue
        is_ping = name == PING
        is_held = probe.place is Place.HELD and not is_ping
        shape = shapes.get(name, HeldShape if is_held else ProbeShape)
        switch = shape if is_ping else Annotated[shape | None, BeforeValidator(_off)]
        switches = "" if is_ping else "; `false` switches it off"
        field = Field(description=f"{probe.says}{switches}")
        fields[name] = (Annotated[switch, field], shape())
    latency = Field(description=PROBES[LATENCY].says)
    canary = Annotated[LatencyShape | None, BeforeValidator(_off)]
    fields[LATENCY] = (Annotated[canary, latency], None)
    return create_model("ProbesShape", __base__=Model, **fields)


ProbesShape: Final = _probes_shape()


def inner(model: type[Model], key: str) -> type[Model] | None:
    """The shape of what stands under *key*. None: a value, or nothing of the kind."""
    field = model.model_fields.get(key)
    return None if field is None else _model_in(field.annotation)


def _model_in(annotation: object) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)


class TargetShape(Model):
    name: Annotated[
        Annotated[str, BeforeValidator(_name)], Field(description="short name, unique")
    ]
    dsn: Annotated[
        Annotated[str, BeforeValidator(_dsn)],
        Field(description="`postgresql://user@host:port/database?sslmode=...`"),
    ]
    password_file: Annotated[
        Annotated[Path, BeforeValidator(_text)] | None,
        Field(description="file with the password, read at each connect"),
    ] = None
    labels: Annotated[
        Annotated[dict[str, str], BeforeValidator(_labels)],
        Field(description="your own words on it, in `pgbreaker_target_info`"),
    ] = {}
    operations: Annotated[
        Annotated[
            tuple[Annotated[str, _one_of(OPERATIONS, "operation")], ...],
            BeforeValidator(_operations),
        ],
        Field(description="the breakers that it has"),
    ] = SERVED
    profile: Annotated[
        Annotated[Literal["default", "fast"], _one_of(("default", "fast"), "profile")],
        Field(description="`fast` pings every 100 ms with a deadline of 250 ms"),
    ] = "default"
    interval: Annotated[
        Duration | None, Field(description="of the ping; else that of `defaults`")
    ] = None
    timeout: Annotated[
        Duration | None, Field(description="of the ping; else that of `defaults`")
    ] = None
    breaker: Annotated[
        BreakerShape, Field(description="what differs from `defaults.breaker`")
    ] = BreakerShape()
    probes: Annotated[
        ProbesShape,  # type: ignore[valid-type] # made of the probes that there are
        Field(
            description="what differs from the probes' defaults; those on the held connection wait no longer for an answer than the ping, whatever their `timeout`"
        ),
    ] = ProbesShape()
    custom: Annotated[
        Annotated[tuple[CustomShape, ...], BeforeValidator(_list)],
        Field(description="queries of your own, whose numbers become metrics"),
    ] = ()
    pgbouncer: Annotated[
        Annotated[PgbouncerShape | None, BeforeValidator(_off)],
        Field(description="the pooler before it; adds the operation `pool`"),
    ] = None
    patroni: Annotated[
        Annotated[PatroniShape | None, BeforeValidator(_off)],
        Field(description="the Patroni that manages it"),
    ] = None


class DefaultsShape(Model):
    interval: Annotated[
        Duration | None, Field(description="of the ping of every target")
    ] = None
    timeout: Annotated[
        Duration | None, Field(description="of the ping of every target")
    ] = None
    breaker: Annotated[BreakerShape, Field(description="of every target")] = (
        BreakerShape()
    )


class HttpShape(Model):
    listen: Annotated[
        Annotated[tuple[str, int], BeforeValidator(read_address)],
        Field(description="address to serve on; port 0 takes a free one"),
    ] = ("127.0.0.1", 9432)


class LogShape(Model):
    format: Annotated[
        Annotated[str, _one_of(_FORMATS, "format")],
        Field(description="`json`, `console`, or `auto`: console on a terminal"),
    ] = "auto"
    level: Annotated[
        Annotated[str, _one_of(_LEVELS, "level")],
        Field(description="lowest level shown"),
    ] = "INFO"


class OtlpShape(Model):
    endpoint: Annotated[
        Annotated[str, _url_like("http://127.0.0.1:4318")],
        Field(
            description="a collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`"
        ),
    ]
    sample: Annotated[
        Part,
        Field(
            description="share of the spans of good probes that is sent; the others always are"
        ),
    ] = 0.01


class AlertmanagerShape(Model):
    urls: Annotated[
        Annotated[
            tuple[Annotated[str, _url_like("http://127.0.0.1:9093")], ...],
            BeforeValidator(_urls),
            AfterValidator(_each_once),
        ],
        Field(
            description="Alertmanagers, such as `[http://127.0.0.1:9093]`; each is told everything"
        ),
    ]
    job: Annotated[
        Annotated[str, BeforeValidator(_job)],
        Field(
            description="the `job_name` by which Prometheus scrapes the daemon; where it is another, change it in the rule `PgbreakerDown` too, which else fires for ever"
        ),
    ] = "pgbreaker"
    labels: Annotated[
        Annotated[dict[str, str], BeforeValidator(_external_labels)],
        Field(description="the `external_labels` of Prometheus"),
    ] = {}
    grafana_url: Annotated[
        Annotated[str, _url_like("https://grafana.example.net")] | None,
        Field(description="the Grafana that has the dashboards, for links to it"),
    ] = None
    runbook_url: Annotated[
        Annotated[str, _url_like("https://example.net/runbooks")] | None,
        Field(description="where the runbooks are, for links to them"),
    ] = None
    page_url: Annotated[
        Annotated[str, _url_like("http://db1:9432")] | None,
        Field(description="where people reach the daemon's page, for links to it"),
    ] = None


def _version(value: object) -> object:
    if value != 1 or isinstance(value, bool):
        raise ValueError(f"this pgbreaker reads version 1, not {value!r}")
    return value


def _targets(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise ValueError("not a list of targets; write '- name: ...' and '  dsn: ...'")
    return value


class FileShape(Model):
    version: Annotated[
        Annotated[Literal[1], BeforeValidator(_version)],
        Field(description="of this format: 1"),
    ]
    defaults: Annotated[DefaultsShape, Field(description="for every target")] = (
        DefaultsShape()
    )
    targets: Annotated[
        Annotated[tuple[TargetShape, ...], BeforeValidator(_targets)],
        Field(description="the servers to watch"),
    ]
    http: Annotated[HttpShape, Field(description="what the daemon serves")] = (
        HttpShape()
    )
    log: Annotated[LogShape, Field(description="what it logs")] = LogShape()
    otlp: Annotated[
        OtlpShape | None, Field(description="traces; without it there are none")
    ] = None
    alertmanager: Annotated[
        AlertmanagerShape | None,
        Field(
            description="where alerts of breakers are pushed at once; without it, Prometheus alone sends them"
        ),
    ] = None
