"""What users of other programs write, and what that is called here.

Whoever knows Prometheus, an exporter, a driver or another breaker tries its words first;
what an older version of ours took goes here too when it is renamed.
"""

import re
from collections.abc import Mapping
from typing import Final

_DSN: Final = "write it into the dsn: postgresql://user@host:5432/database"
_PASSWORD: Final = "write it into a file, and its path into password_file"
_INTERVAL: Final = "write interval, here or under defaults"
_TIMEOUT: Final = "write timeout, here or under defaults"
_WEB: Final = "write it into a file of its own, and its path into web_config"

_OF_TARGETS: Final = {
    **dict.fromkeys(("host", "hostname", "port", "user", "username"), _DSN),
    **dict.fromkeys(("database", "dbname", "sslmode", "socket", "options"), _DSN),
    **dict.fromkeys(("password", "pass", "pgpassword", "secret"), _PASSWORD),
    **dict.fromkeys(("url", "uri", "connection_string", "conninfo"), "write dsn"),
    **dict.fromkeys(("data_source_name", "conn_str", "static_configs"), "write dsn"),
    "passfile": "add ?passfile=... to the dsn, or use password_file",
    "breakers": "write operations",
    "tags": "write labels",
    "scrape_interval": _INTERVAL,
    "check_interval": _INTERVAL,
    "period": _INTERVAL,
    "scrape_timeout": _TIMEOUT,
    "connect_timeout": _TIMEOUT,
    "job_name": "write name",
    "instance": "write name",
    "alias": "write name",
    "id": "write name",
    "enabled": "leave the target out, or put it into maintenance",
    "queries": "write custom",
    "metrics": "write custom",
    "sql": "write custom, or probes.latency",
    "query": "write probes: {latency: {query: ...}}, or custom",
    "checks": "write probes",
    "circuit_breaker": "write breaker",
}
_OF_BREAKERS: Final = {
    **dict.fromkeys(
        ("recovery_timeout", "reset_timeout", "open_timeout"), "write timeout"
    ),
    **dict.fromkeys(("wait_duration_in_open_state", "cooldown"), "write timeout"),
    **dict.fromkeys(("break_duration", "sleep_window", "recovery"), "write timeout"),
    **dict.fromkeys(
        ("fail_max", "max_failures", "failures"), "write failure_threshold"
    ),
    **dict.fromkeys(("failure_rate_threshold", "error_rate"), "write failure_rate"),
    **dict.fromkeys(("error_threshold_percentage",), "write failure_rate"),
    **dict.fromkeys(("sliding_window_size", "rolling_window"), "write window"),
    **dict.fromkeys(
        ("minimum_number_of_calls", "minimum_throughput"), "write minimum_calls"
    ),
    "request_volume_threshold": "write minimum_calls",
    "slow_call_rate_threshold": "write slow_rate",
    "slow_call_duration_threshold": "write slow_call",
    "permitted_number_of_calls_in_half_open_state": "write success_threshold",
    "half_open_max_calls": "write success_threshold",
    "max_retry_attempts": "it is the library's; the daemon repeats nothing",
}
_OF_HTTP: Final = {
    **dict.fromkeys(
        ("address", "bind", "host", "port", "listen_address"),
        "write listen: 127.0.0.1:9432",
    ),
    **dict.fromkeys(
        ("tls", "tls_server_config", "basic_auth_users", "basic_auth", "auth"), _WEB
    ),
    **dict.fromkeys(("users", "password", "cert_file", "key_file"), _WEB),
    "web_config_file": "write web_config",
    "hosts": "write allowed_hosts",
    "unix_socket": "write socket",
}

HINTS: Final[Mapping[str, Mapping[str, str]]] = {
    "": {
        **dict.fromkeys(
            ("servers", "databases", "endpoints", "instances", "scrape_configs"),
            "write targets",
        ),
        "target": "write targets, a list of them",
        "global": "write defaults",
        "scrape_interval": "write defaults: {interval: ...}; how often Prometheus asks, it says itself",
        "interval": "write defaults: {interval: ...}",
        "timeout": "write defaults: {timeout: ...}",
        "breaker": "write defaults: {breaker: ...}",
        "dsn": "write it under targets: - {name: ..., dsn: ...}",
        "password": _PASSWORD,
        "web": "write http",
        "listen": "write http: {listen: ...}",
        "web_config": "write http: {web_config: ...}",
        "logging": "write log",
        "log_level": "write log: {level: ...}",
        "storage": "write store",
        "database": "write store for the daemon's own, targets for those to watch",
        "alerting": "write alertmanager",
        "alertmanagers": "write alertmanager",
        "rule_files": "rules go to Prometheus: pgbreaker export alerts DIR",
        "tracing": "write otlp",
        "includes": "write include",
        "scrape_config_files": "write include",
    },
    "defaults": {
        "scrape_interval": "write interval",
        "scrape_timeout": "write timeout",
        "evaluation_interval": "rules go to Prometheus; leave it out",
        "external_labels": "write alertmanager: {labels: ...}",
    },
    "targets": _OF_TARGETS,
    "pgbouncer": {
        **dict.fromkeys(("host", "port", "user", "database"), _DSN),
        "password": _PASSWORD,
        "url": "write dsn",
    },
    "patroni": {
        **dict.fromkeys(("host", "port", "dsn", "endpoint"), "write url"),
        "password": "its REST API is asked without one",
    },
    "breaker": _OF_BREAKERS,
    "http": _OF_HTTP,
    "log": {
        "file": "it logs to stderr; the service manager keeps it",
        "output": "it logs to stderr; the service manager keeps it",
    },
    "store": {
        "retention": "write max_size; the oldest goes first",
        "size": "write max_size",
        "file": "write path",
        "type": "there is one kind; leave it out",
    },
    "otlp": {"url": "write endpoint", "ratio": "write sample"},
    "alertmanager": {
        "url": "write urls, a list of them",
        "external_labels": "write labels",
        "static_configs": "write urls, a list of them",
        "slack_webhook": "Alertmanager knows where messages go",
    },
}
"""Name of the mapping -> a key that is not there -> what to do instead."""


def hint(place: str, key: str) -> str | None:
    """What to write instead of *key*. None: that is nothing known.

    Args:
        place: Name of the mapping that it stands in; of the file itself, none.
    """
    return HINTS.get(place, {}).get(_snake(key))


def _snake(key: str) -> str:
    """``scrapeInterval`` and ``scrape-interval`` as ``scrape_interval``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key[:64])
    return parted.replace("-", "_").lower()
