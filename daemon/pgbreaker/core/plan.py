"""What the daemon was told to do, as plain objects; the file's shape is `config`'s."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pgbreaker.core.policy import DAEMON, Policy
from pgbreaker.core.secret import Secret
from pgbreaker.core.units import Seconds, Share

PATIENCE: Final[Share] = 0.8
"""Part of a timeout after which the server itself gives the question up: then it says
so, and the session survives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """How often a probe asks, and how long it waits for the answer.

    Attributes:
        interval: Seconds between two beginnings.
        timeout: Seconds for the answer, connecting included.
        limit: Seconds beyond which what the probe measures counts as bad. None: it
            never does.
        capacity: Bytes that the disk below has, for all that the probe measures. None:
            that is not known.
        query: The user's own question, for the probes that ask one.
        address: Where a probe asks that does not ask the server itself.
        password_file: File that holds the password for there.
    """

    interval: Seconds
    timeout: Seconds
    limit: Seconds | None = None
    capacity: float | None = None
    query: str | None = None
    address: Secret | None = None
    password_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PausePlan:
    """When pgbouncer holds its clients back, and how it is told.

    Attributes:
        address: Its console, as one of its ``admin_users``.
        password_file: File that holds the password for there.
        database: What it calls the database.
        while_open: Operation whose breaker has it done by being open.
        max_time: Seconds after which it is over, whatever the breaker says.
    """

    address: Secret
    password_file: Path | None = None
    database: str
    while_open: str = "write"
    max_time: Seconds = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetPlan:
    """One server to watch.

    Attributes:
        name: Short name, ``[A-Za-z0-9_.-]``, unique.
        dsn: Address of the form ``postgresql://``; may hold a password.
        password_file: File that holds the password, read at each connect.
        labels: The user's own words on it, for metrics and messages.
        operations: Kinds of work with a breaker each.
        probes: Name -> plan, of the probes that run on it.
        policy: Rules of its breakers.
        pause: When the pooler before it holds its clients back. None: never.
    """

    name: str
    dsn: Secret
    password_file: Path | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[str, ...] = ("connect", "read", "write")
    probes: Mapping[str, ProbePlan]
    policy: Policy = DAEMON
    pause: PausePlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlan:
    """How to log.

    Attributes:
        format: ``json``, ``console``, or ``auto``: console on a terminal.
        level: Name of the lowest level shown, such as ``INFO``.
    """

    format: str = "auto"
    level: str = "INFO"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpPlan:
    """Where traces go.

    Attributes:
        endpoint: Base URL of a collector that takes OTLP over HTTP.
        sample: Share of the spans of healthy probes that are sent.
    """

    endpoint: str
    sample: Share = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertmanagerPlan:
    """Where alerts go that do not wait for Prometheus, and what they say.

    Attributes:
        urls: Base URLs of Alertmanagers; each is told everything.
        job: Name of the daemon's scrape job in Prometheus.
        labels: What Prometheus puts on its alerts besides: its ``external_labels``.
        grafana_url: Base URL of the Grafana that has the dashboards. None: alerts name
            no dashboard.
        runbook_url: Base URL of the runbooks. None: alerts name none.
        page_url: Where people reach the daemon's page. None: alerts do not lead there.
    """

    urls: tuple[str, ...]
    job: str = "pgbreaker"
    labels: Mapping[str, str] = field(default_factory=dict)
    grafana_url: str | None = None
    runbook_url: str | None = None
    page_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPlan:
    """What the daemon serves.

    Attributes:
        listen: Host and port; port 0 takes a free one.
        socket: Unix socket to listen on besides, for the command line on the same
            machine. None: none, unless the service manager made a directory for it.
        web_config: The web configuration: certificates, users. None: nobody has to log
            in, and only those on this machine may change anything.
        allowed_hosts: Names by which it is reached besides those of this machine.
    """

    listen: tuple[str, int] = ("127.0.0.1", 9432)
    socket: Path | None = None
    web_config: Path | None = None
    allowed_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HaproxyPlan:
    """Where HAProxy's agent checks are answered.

    Attributes:
        listen: Host and port; port 0 takes a free one.
    """

    listen: tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvicePlan:
    """How applications are advised.

    Attributes:
        followers: How many may follow at a time.
        file: File that the same is written to, for those on this machine. None: none.
    """

    followers: int = 5000
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlan:
    """Where the daemon remembers.

    Attributes:
        path: The database; its directory has to be there.
        max_size: Bytes that it may take; the oldest goes first.
    """

    path: Path
    max_size: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPlan:
    """Where every reading is written, for `pgbreaker simulate` and `pgbreaker backtest`.

    Attributes:
        path: The file; full ones are kept beside it, compressed.
        max_size: Bytes that all of them may take together; the oldest goes first.
    """

    path: Path
    max_size: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """Where daemons share what they know: Redis, or what speaks its protocol.

    Attributes:
        url: ``redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]``, ``rediss://`` with TLS, or
            ``unix:///PATH?db=0``; may hold a password.
        password_file: File that holds the password, read at each connect.
        ca_file: Certificates that are trusted. None: those that the system trusts.
        cert_file: Certificate that is shown to the engine. None: none.
        key_file: Its key. None: it is in the same file.
        prefix: First word of every key, in the braces that keep all in one slot.
        timeout: Seconds for a command, connecting included.
        lease: Seconds, by the engine's clock, for which a daemon counts as there.
    """

    url: Secret
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    prefix: str = "pgbreaker"
    timeout: Seconds = 0.25
    lease: Seconds = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersPlan:
    """How this daemon shares what it knows with others.

    Attributes:
        engine: What they share it by.
        name: What it is called among them.
        watchers: Daemons that watch each target.
        quorum: Of these, how many have to see a breaker open. None: more than half.
    """

    engine: EnginePlan
    name: str
    watchers: int = 1
    quorum: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that the daemon was told.

    Attributes:
        targets: Servers to watch, in the order of the file.
        http: What it serves.
        haproxy: Where HAProxy's agent checks are answered. None: nowhere.
        advice: How applications are advised.
        peers: The daemons that it is one of. None: it is the only one.
        store: Where it remembers. None: nowhere, with the process all is forgotten.
        record: Where readings are recorded. None: nowhere.
        log: How to log.
        otlp: Where traces go. None: nowhere.
        alertmanager: Where alerts are pushed. None: they come from Prometheus alone.
    """

    targets: tuple[TargetPlan, ...]
    http: HttpPlan = HttpPlan()
    haproxy: HaproxyPlan | None = None
    advice: AdvicePlan = AdvicePlan()
    peers: PeersPlan | None = None
    store: StorePlan | None = None
    record: RecordPlan | None = None
    log: LogPlan = LogPlan()
    otlp: OtlpPlan | None = None
    alertmanager: AlertmanagerPlan | None = None
