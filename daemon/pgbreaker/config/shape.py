"""The shape of the file: keys, types, what each means. No defaults of behaviour stand
here; those live in the objects that the daemon runs by."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from pgbreaker.config import words
from pgbreaker.config.units import (
    Count,
    Duration,
    Part,
    RecordSize,
    Size,
    StoreSize,
    quoted,
)
from pgbreaker.config.words import enum, listed, one_of, switched
from pgbreaker.core.judge import LATENCY, OPERATIONS, PING, REPLICATION, SERVED
from pgbreaker.core.plan import (
    AdvicePlan,
    EnginePlan,
    PausePlan,
    RecordPlan,
    StorePlan,
)
from pgbreaker.core.secret import Secret
from pgbreaker.probes import PROBES
from pgbreaker.probes.probe import Place

_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
_FORMATS: Final = ("auto", "json", "console")
_PROFILES: Final = ("default", "fast")
_FOLLOWERS: Final = AdvicePlan().followers
_ENGINE: Final = EnginePlan(url=Secret(""))
_PAUSE: Final = PausePlan(address=Secret(""), database="")
_STORED: Final = StorePlan(path=Path()).max_size
_RECORDED: Final = RecordPlan(path=Path()).max_size


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
        words.Query,
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
        words.QueryName,
        Field(description="short name, unique within the target"),
    ]
    query: Annotated[
        words.Subquery,
        Field(description="one SELECT of up to 20 rows"),
    ]


class PauseShape(Model):
    database: Annotated[
        words.Database,
        Field(description="what pgbouncer calls the database; no other is touched"),
    ]
    while_open: Annotated[
        Annotated[str, one_of(SERVED, "operation"), enum(SERVED)],
        Field(description="the operation by whose breaker it goes"),
    ] = _PAUSE.while_open
    max_time: Annotated[
        Duration,
        Field(
            description="time after which it is resumed, whatever the breaker says; up to 10m"
        ),
    ] = _PAUSE.max_time
    dsn: Annotated[
        words.Dsn | None,
        Field(
            description="its console for one of its `admin_users`; unless given, the `dsn` above"
        ),
    ] = None
    password_file: Annotated[
        words.File | None,
        Field(description="file with the password, read each time"),
    ] = None


class PgbouncerShape(ProbeShape):
    dsn: Annotated[
        words.Dsn,
        Field(description="its console: `postgresql://stats@host:6432/pgbouncer`"),
    ]
    password_file: Annotated[
        words.File | None,
        Field(description="file with the password, read at each run"),
    ] = None
    max_wait: Annotated[
        Duration | None,
        Field(description="time that clients may wait before `pool` fails"),
    ] = None
    pause: Annotated[
        PauseShape | None,
        Field(
            description="has clients wait at it while a breaker is open (`PAUSE`, `RESUME`); needs a store"
        ),
    ] = None


class PatroniShape(ProbeShape):
    url: Annotated[
        words.PatroniUrl,
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
        switch = (
            shape if is_ping else Annotated[shape | None, BeforeValidator(switched)]
        )
        switches = "" if is_ping else "; `false` switches it off"
        field = Field(description=f"{probe.says}{switches}")
        fields[name] = (Annotated[switch, field], shape())
    latency = Field(description=PROBES[LATENCY].says)
    canary = Annotated[LatencyShape | None, BeforeValidator(switched)]
    fields[LATENCY] = (Annotated[canary, latency], None)
    return create_model("ProbesShape", __base__=Model, **fields)


ProbesShape: Final = _probes_shape()


def can_be_off(model: type[Model], key: str) -> bool:
    """Whether *key* takes ``false``, and ``true`` for all its defaults."""
    return any(
        isinstance(one, BeforeValidator) and one.func is switched
        for one in model.model_fields[key].metadata
    )


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
    name: Annotated[words.Name, Field(description="short name, unique")]
    dsn: Annotated[
        words.Dsn,
        Field(description="`postgresql://user@host:port/database?sslmode=...`"),
    ]
    password_file: Annotated[
        words.File | None,
        Field(description="file with the password, read at each connect"),
    ] = None
    labels: Annotated[
        words.Labels,
        Field(description="your own words on it, in `pgbreaker_target_info`"),
    ] = {}
    operations: Annotated[
        Annotated[
            tuple[
                Annotated[str, one_of(OPERATIONS, "operation"), enum(OPERATIONS)], ...
            ],
            listed(f"; write [{', '.join(SERVED)}] or fewer of them"),
        ],
        Field(description="the breakers that it has"),
    ] = SERVED
    profile: Annotated[
        Annotated[
            Literal["default", "fast"], one_of(_PROFILES, "profile"), enum(_PROFILES)
        ],
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
        Annotated[tuple[CustomShape, ...], BeforeValidator(words.queries)],
        Field(description="queries of your own, whose numbers become metrics"),
    ] = ()
    pgbouncer: Annotated[
        Annotated[PgbouncerShape | None, BeforeValidator(switched)],
        Field(description="the pooler before it; adds the operation `pool`"),
    ] = None
    patroni: Annotated[
        Annotated[PatroniShape | None, BeforeValidator(switched)],
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
        words.Address,
        Field(description="address to serve on; port 0 takes a free one"),
    ] = ("127.0.0.1", 9432)
    socket: Annotated[
        words.Socket | None,
        Field(
            description="Unix socket to serve on besides, for the command line on the same machine; unless given, `pgbreaker.sock` in `$RUNTIME_DIRECTORY`"
        ),
    ] = None
    web_config: Annotated[
        words.File | None,
        Field(
            description="file with certificates and users, as exporter-toolkit has it; without it, only those on this machine may change anything"
        ),
    ] = None
    allowed_hosts: Annotated[
        Annotated[
            tuple[words.Host, ...],
            listed(" of names; write [pgbreaker.example.net]", may_be_empty=True),
        ],
        Field(
            description="names by which browsers may reach it, besides those of this machine"
        ),
    ] = ()


class HaproxyShape(Model):
    listen: Annotated[
        words.Address,
        Field(
            description="address to answer on, such as `127.0.0.1:9433`; nobody logs in there, and it says no more than `up` or `down`"
        ),
    ]


class AdviceShape(Model):
    followers: Annotated[
        Count, Field(description="applications that may follow at a time")
    ] = _FOLLOWERS
    file: Annotated[
        words.File | None,
        Field(
            description='file that the same advice is written to, for `follow("file://...")` on this machine; its directory has to be there'
        ),
    ] = None


class PeersShape(Model):
    url: Annotated[
        words.EngineUrl,
        Field(
            description="the Redis or Valkey that the daemons share, such as `redis://pgbreaker@redis1:6379/0`; `rediss://...` for TLS, `unix:///PATH` for a socket"
        ),
    ]
    password_file: Annotated[
        words.File | None,
        Field(description="file with its password, read at each connect"),
    ] = None
    ca_file: Annotated[
        words.File | None,
        Field(
            description="certificates that its own is verified by; without it, the system's"
        ),
    ] = None
    cert_file: Annotated[
        words.File | None, Field(description="certificate that is shown to it")
    ] = None
    key_file: Annotated[
        words.File | None, Field(description="the key of `cert_file`")
    ] = None
    prefix: Annotated[
        words.Prefix,
        Field(
            description="first part of every key; the daemons of one prefix are one fleet"
        ),
    ] = _ENGINE.prefix
    name: Annotated[
        words.Name | None,
        Field(
            description="what this daemon is called among them; without it, the name of its host"
        ),
    ] = None
    watchers: Annotated[Count, Field(description="daemons that watch each target")] = 1
    quorum: Annotated[
        Count | None,
        Field(
            description="of these, how many have to see a breaker open; without it, more than half"
        ),
    ] = None
    timeout: Annotated[
        Duration,
        Field(description="time for the engine's answer; without one it is lost"),
    ] = _ENGINE.timeout
    lease: Annotated[
        Duration,
        Field(
            description="time after which others watch what a daemon did that is not heard of"
        ),
    ] = _ENGINE.lease


class StoreShape(Model):
    path: Annotated[
        words.File,
        Field(
            description="database of its history and decisions; its directory has to be there"
        ),
    ]
    max_size: Annotated[
        StoreSize, Field(description="size that it may have; the oldest goes first")
    ] = _STORED


class RecordShape(Model):
    path: Annotated[
        words.File,
        Field(
            description="file that every reading is written to; full ones are kept beside it, compressed"
        ),
    ]
    max_size: Annotated[
        RecordSize,
        Field(
            description="size that all of them may have together; the oldest goes first"
        ),
    ] = _RECORDED


class LogShape(Model):
    format: Annotated[
        Annotated[str, one_of(_FORMATS, "format"), enum(_FORMATS)],
        Field(description="`json`, `console`, or `auto`: console on a terminal"),
    ] = "auto"
    level: Annotated[
        Annotated[str, one_of(_LEVELS, "level"), enum(_LEVELS)],
        Field(description="lowest level shown"),
    ] = "INFO"


class OtlpShape(Model):
    endpoint: Annotated[
        words.Endpoint,
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
            tuple[words.AlertmanagerUrl, ...],
            listed(" of addresses; write [http://127.0.0.1:9093]"),
        ],
        Field(
            description="Alertmanagers, such as `[http://127.0.0.1:9093]`; each is told everything"
        ),
    ]
    job: Annotated[
        words.Job,
        Field(
            description="the `job_name` by which Prometheus scrapes the daemon; where it is another, change it in the rule `PgbreakerDown` too, which else fires for ever"
        ),
    ] = "pgbreaker"
    labels: Annotated[
        words.ExternalLabels,
        Field(description="the `external_labels` of Prometheus"),
    ] = {}
    grafana_url: Annotated[
        words.GrafanaUrl | None,
        Field(description="the Grafana that has the dashboards, for links to it"),
    ] = None
    runbook_url: Annotated[
        words.RunbookUrl | None,
        Field(description="where the runbooks are, for links to them"),
    ] = None
    page_url: Annotated[
        words.PageUrl | None,
        Field(description="where people reach the daemon's page, for links to it"),
    ] = None


def _version(value: object) -> object:
    if value != 1 or isinstance(value, bool):
        raise ValueError(f"this pgbreaker reads version 1, not {quoted(value)}")
    return value


_Version = Annotated[Literal[1], BeforeValidator(_version)]
_Targets = Annotated[
    tuple[TargetShape, ...],
    listed(" of targets; write '- name: ...' and '  dsn: ...'"),
]


class IncludedShape(Model):
    """A file that another includes."""

    version: Annotated[_Version | None, Field(description="of this format: 1")] = None
    targets: Annotated[_Targets, Field(description="further servers to watch")]


class FileShape(Model):
    version: Annotated[_Version, Field(description="of this format: 1")]
    include: Annotated[
        Annotated[
            tuple[words.Included, ...],
            listed(" of files; write [conf.d/*.yaml]", may_be_empty=True),
        ],
        Field(
            description="files with further targets, such as `[conf.d/*.yaml]`; they hold `targets` alone, and are read in the order of their names"
        ),
    ] = ()
    defaults: Annotated[DefaultsShape, Field(description="for every target")] = (
        DefaultsShape()
    )
    targets: Annotated[_Targets, Field(description="the servers to watch")] = ()
    http: Annotated[HttpShape, Field(description="what the daemon serves")] = (
        HttpShape()
    )
    haproxy: Annotated[
        HaproxyShape | None,
        Field(
            description="answers HAProxy's `agent-check`; without it, nothing listens for them"
        ),
    ] = None
    advice: Annotated[
        AdviceShape,
        Field(description="what applications are told that follow it"),
    ] = AdviceShape()
    peers: Annotated[
        PeersShape | None,
        Field(
            description="the daemons that this one shares targets and decisions with, by an engine; without it, it is the only one"
        ),
    ] = None
    store: Annotated[
        StoreShape | None,
        Field(
            description="where history, decisions and states outlive a restart; without it, all is forgotten with the process"
        ),
    ] = None
    record: Annotated[
        RecordShape | None,
        Field(
            description="where readings are recorded, for `pgbreaker simulate` and `pgbreaker backtest`"
        ),
    ] = None
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
