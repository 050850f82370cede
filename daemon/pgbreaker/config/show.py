"""The configuration that is really in force, written as a file would have it.

Defaults are filled in and secrets left out; but for these, the daemon that is given what
is written here does the same.
"""

import re
from collections.abc import Mapping
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode

import yaml

from pgbreaker.config import shape
from pgbreaker.config.document import escaped, resolved
from pgbreaker.config.peers import shown_url
from pgbreaker.config.target import USUAL
from pgbreaker.config.units import written_duration, written_share, written_size
from pgbreaker.core.judge import LATENCY, PGBOUNCER, PING
from pgbreaker.core.plan import (
    AdvicePlan,
    AlertmanagerPlan,
    Config,
    HttpPlan,
    LogPlan,
    OtlpPlan,
    PausePlan,
    PeersPlan,
    ProbePlan,
    TargetPlan,
)
from pgbreaker.core.policy import Policy

Shown: TypeAlias = "str | int | float | bool | list[Shown] | dict[str, Shown]"

_BREAKS: Final = frozenset("\x85\u2028\u2029")
_CUSTOM: Final = "custom."
_SHARES: Final = frozenset(("failure_rate", "slow_rate", "jitter"))
# Of a DSN's parameters: where it leads. Any other may hold anything.
_SHOWN: Final = frozenset(
    ("host", "port", "user", "dbname", "database", "sslmode", "sslnegotiation")
)


def shown(config: Config) -> dict[str, Shown]:
    """The configuration in force, as plain data that JSON takes; no secret in it."""
    found: dict[str, Shown] = {
        "version": 1,
        "targets": [shown_target(plan) for plan in config.targets],
        "http": _http(config.http),
    }
    if config.haproxy is not None:
        found["haproxy"] = {"listen": _address(*config.haproxy.listen)}
    found["advice"] = _advice(config.advice)
    if config.peers is not None:
        found["peers"] = _peers(config.peers)
    for name, plan in (("store", config.store), ("record", config.record)):
        if plan is not None:
            found[name] = {
                "path": str(plan.path),
                "max_size": written_size(plan.max_size),
            }
    found["log"] = _log(config.log)
    if config.otlp is not None:
        found["otlp"] = _otlp(config.otlp)
    if config.alertmanager is not None:
        found["alertmanager"] = _alertmanager(config.alertmanager)
    return found


def written(config: Config) -> str:
    """The configuration in force, as a file that can be read again."""
    return "# What is in force, secrets left out.\n" + to_yaml(shown(config))


def redacted(dsn: str) -> str:
    """A DSN without its password, and without parameters that may hold one."""
    scheme, _, rest = dsn.partition("://")
    # By the last @: of an address that was never checked, too much is left out.
    who, at, where = rest.partition("#")[0].rpartition("@")
    user = re.split("[:@/?]", who)[0]
    address, _, query = where.partition("?")
    kept = [(key, value) for key, value in parse_qsl(query) if key in _SHOWN]
    parameters = f"?{urlencode(kept, quote_via=quote, safe='/')}" if kept else ""
    return f"{scheme}://{user}{at if user else ''}{address}{parameters}"


# -- Targets -----------------------------------------------------------------------


def shown_target(plan: TargetPlan) -> dict[str, Shown]:
    """One target as `shown` has it."""
    found: dict[str, Shown] = {"name": plan.name, "dsn": redacted(plan.dsn.reveal())}
    if plan.password_file is not None:
        found["password_file"] = str(plan.password_file)
    if plan.labels:
        found["labels"] = dict(plan.labels)
    found["operations"] = list(plan.operations)
    ping = plan.probes[PING]
    found |= _times(ping)
    found["breaker"] = _breaker(plan.policy)
    found["probes"] = {
        name: _probe(name, plan.probes[name]) if name in plan.probes else False
        for name in (*USUAL, LATENCY)
        if name != PING
    }
    custom = [
        {
            "name": name.removeprefix(_CUSTOM),
            "query": probe.query or "",
            **_times(probe),
        }
        for name, probe in plan.probes.items()
        if name.startswith(_CUSTOM)
    ]
    if custom:
        found["custom"] = list[Shown](custom)
    return found | _neighbours(plan.probes, plan.pause)


def _neighbours(
    probes: Mapping[str, ProbePlan], pause: PausePlan | None
) -> dict[str, Shown]:
    found: dict[str, Shown] = {}
    if (pooler := probes.get(PGBOUNCER)) is not None:
        assert pooler.address is not None
        inside: dict[str, Shown] = {"dsn": redacted(pooler.address.reveal())}
        if pooler.password_file is not None:
            inside["password_file"] = str(pooler.password_file)
        if pooler.limit is not None:
            inside["max_wait"] = written_duration(pooler.limit)
        if pause is not None:
            inside["pause"] = _pause(pause)
        found[PGBOUNCER] = inside | _times(pooler)
    if (manager := probes.get("patroni")) is not None:
        assert manager.address is not None
        found["patroni"] = {"url": manager.address.reveal(), **_times(manager)}
    return found


def _pause(plan: PausePlan) -> dict[str, Shown]:
    found: dict[str, Shown] = {
        "database": plan.database,
        "while_open": plan.while_open,
        "max_time": written_duration(plan.max_time),
        "dsn": redacted(plan.address.reveal()),
    }
    if plan.password_file is not None:
        found["password_file"] = str(plan.password_file)
    return found


def _times(plan: ProbePlan) -> dict[str, Shown]:
    return {
        "interval": written_duration(plan.interval),
        "timeout": written_duration(plan.timeout),
    }


def _probe(name: str, plan: ProbePlan) -> dict[str, Shown]:
    found = _times(plan)
    if plan.query is not None:
        found["query"] = plan.query
    if plan.limit is not None:
        key = "slow" if name == LATENCY else "max_lag"
        found[key] = written_duration(plan.limit)
    if plan.capacity is not None:
        found["capacity"] = written_size(plan.capacity)
    return found


def _breaker(policy: Policy) -> dict[str, Shown]:
    found: dict[str, Shown] = {}
    for name in shape.BreakerShape.model_fields:
        value = getattr(policy, name)
        if value is None:
            continue
        if isinstance(value, int):
            found[name] = value
        elif name in _SHARES:
            found[name] = written_share(value)
        else:
            found[name] = written_duration(value)
    return found


# -- What stands beside the targets ------------------------------------------------


def _http(plan: HttpPlan) -> dict[str, Shown]:
    found: dict[str, Shown] = {"listen": _address(*plan.listen)}
    for name, path in (("socket", plan.socket), ("web_config", plan.web_config)):
        if path is not None:
            found[name] = str(path)
    if plan.allowed_hosts:
        found["allowed_hosts"] = list(plan.allowed_hosts)
    return found


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _advice(plan: AdvicePlan) -> dict[str, Shown]:
    found: dict[str, Shown] = {"followers": plan.followers}
    if plan.file is not None:
        found["file"] = str(plan.file)
    return found


def _peers(plan: PeersPlan) -> dict[str, Shown]:
    engine = plan.engine
    found: dict[str, Shown] = {"url": shown_url(engine.url.reveal())}
    for name in ("password_file", "ca_file", "cert_file", "key_file"):
        path = getattr(engine, name)
        if path is not None:
            found[name] = str(path)
    found |= {"prefix": engine.prefix, "name": plan.name, "watchers": plan.watchers}
    if plan.quorum is not None:
        found["quorum"] = plan.quorum
    for name in ("timeout", "lease"):
        found[name] = written_duration(getattr(engine, name))
    return found


def _log(plan: LogPlan) -> dict[str, Shown]:
    return {"format": plan.format, "level": plan.level}


def _otlp(plan: OtlpPlan) -> dict[str, Shown]:
    return {"endpoint": plan.endpoint, "sample": written_share(plan.sample)}


def _alertmanager(plan: AlertmanagerPlan) -> dict[str, Shown]:
    found: dict[str, Shown] = {"urls": list(plan.urls), "job": plan.job}
    if plan.labels:
        found["labels"] = dict(plan.labels)
    for name in ("grafana_url", "runbook_url", "page_url"):
        url = getattr(plan, name)
        if url is not None:
            found[name] = url
    return found


# -- YAML --------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes texts so that our reader reads the same: it goes by YAML 1.2."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    style = None if isinstance(resolved(text), str) else "'"
    if _BREAKS & set(text):  # which PyYAML folds away in any other style
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped(text), style)


_Dumper.add_representer(str, _text)


def to_yaml(data: Shown, *, flow: bool = False) -> str:
    """Write plain data so that `document.read` reads the same.

    Args:
        flow: Whether in one line.
    """
    written_: str = yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=flow,
        width=1_000_000 if flow else 100,
    )
    return written_.strip().removesuffix("\n...") if flow else written_
