"""From a file to what the daemon runs by; all that is wrong is said at once."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import ValidationError

from pgbreaker.config import shape
from pgbreaker.config.document import Document, did_you_mean, read
from pgbreaker.config.document import Path as Where
from pgbreaker.config.dsn import has_password, wrong_with
from pgbreaker.core.judge import LATENCY, PGBOUNCER, PING
from pgbreaker.core.plan import (
    PATIENCE,
    AlertmanagerPlan,
    Config,
    HttpPlan,
    LogPlan,
    OtlpPlan,
    ProbePlan,
    TargetPlan,
)
from pgbreaker.core.policy import DAEMON, Policy
from pgbreaker.core.secret import Secret
from pgbreaker.core.units import percent, shortly
from pgbreaker.errors import ConfigError
from pgbreaker.probes import PROBES
from pgbreaker.probes.probe import Place

USUAL: Final[Mapping[str, ProbePlan]] = {
    name: probe.plan for name, probe in PROBES.items() if probe.is_usual
}
"""What a target is asked unless the file says otherwise."""

CROWD: Final = 100
"""Targets from which on the intervals that the file does not give grow with their
number, the ping's apart: a daemon asks all of them only so much in a second."""

POOL: Final = "pool"

FAST: Final = ProbePlan(interval=0.1, timeout=0.25)
"""The ping of ``profile: fast``."""

# In the contract, but not built yet: better refused than taken for granted.
_LATER: Final = frozenset(("store", "peers", "web_config", "record"))


def load(
    path: Path, *, listen: str | None = None, env: Mapping[str, str] = os.environ
) -> Config:
    """Read the configuration in *path*.

    Args:
        listen: ``host:port`` that goes before the file's.

    Raises:
        ConfigError: Something is wrong with it; all of it is in there.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError((f"{path}: cannot be read: {reason}",)) from None
    return _listening(parse(raw, str(path), env=env), listen)


def for_dsn(dsn: str, *, name: str | None = None, listen: str | None = None) -> Config:
    """Make the configuration of a daemon that watches this one server.

    Args:
        name: What to call it. None: as its host is called.
        listen: ``host:port`` to serve on. None: the default.

    Raises:
        ConfigError: The DSN, or the address, is none.
    """
    wrong = wrong_with(dsn)
    if wrong is not None:
        raise ConfigError((f"--dsn: {wrong}",))
    host = urlsplit(dsn).hostname or "local"
    known = name or "".join(c if c.isalnum() or c in "._-" else "-" for c in host)[:63]
    plan = TargetPlan(name=known, dsn=Secret(dsn), probes=USUAL)
    return _listening(Config(targets=(plan,)), listen)


def for_alertmanager(url: str) -> AlertmanagerPlan:
    """Make the plan of pushing alerts to this one Alertmanager.

    Raises:
        ConfigError: The address is none.
    """
    try:
        return AlertmanagerPlan(
            **shape.AlertmanagerShape.model_validate({"urls": [url]}).model_dump()
        )
    except ValidationError as error:
        (details,) = error.errors(include_input=False, include_url=False)
        raise ConfigError((f"--url: {details['ctx']['error']}",)) from None


def _listening(config: Config, listen: str | None) -> Config:
    if listen is None:
        return config
    try:
        address = shape.read_address(listen)
        return replace(config, http=replace(config.http, listen=address))
    except ValueError as error:
        raise ConfigError((f"--listen: {error}",)) from None


def parse(raw: bytes, name: str, *, env: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration; *name* is what its problems are said to be in.

    Raises:
        ConfigError: Something is wrong with it; all of it is in there.
    """
    document = read(raw, env)
    config = None if _is_hopeless(document) else _validated(document)
    if document.problems or config is None:
        lines = (
            f"{name}:{p.line}:{p.column}: {p.text}" for p in sorted(document.problems)
        )
        raise ConfigError(tuple(dict.fromkeys(lines)))
    return config


def _is_hopeless(document: Document) -> bool:
    """Whether there is nothing to look at, for want of a document."""
    return bool(document.problems) and not document.data


def _validated(document: Document) -> Config | None:
    try:
        file = shape.FileShape.model_validate(document.data)
    except ValidationError as error:
        for details in error.errors(include_input=False, include_url=False):
            _explain(document, details)
        return None
    targets = [_Target(document, file, index) for index in range(len(file.targets))]
    _check_names(document, file)
    plans = [target.plan() for target in targets]
    if any(plan is None for plan in plans):
        return None
    otlp, alertmanager = file.otlp, file.alertmanager
    return Config(
        targets=tuple(plan for plan in plans if plan is not None),
        http=HttpPlan(listen=file.http.listen),
        log=LogPlan(format=file.log.format, level=file.log.level),
        otlp=None
        if otlp is None
        else OtlpPlan(endpoint=otlp.endpoint, sample=otlp.sample),
        alertmanager=None
        if alertmanager is None
        else AlertmanagerPlan(**alertmanager.model_dump()),
    )


def _explain(document: Document, details: Mapping[str, Any]) -> None:
    """Say one of pydantic's errors in our words, at its place."""
    path: Where = tuple(details["loc"])
    if document.has_complaint(path):
        return  # what it complains of is the echo of that
    match details["type"]:
        case "extra_forbidden":
            text = _unknown(document, path)
            document.complain(path, text, at_key=True)
        case "missing":
            document.complain(path[:-1], f"{path[-1]} is missing")
        case "value_error":
            document.complain(path, str(details["ctx"]["error"]))
        case _:
            document.complain(path, "not keys and values")


def _unknown(document: Document, path: Where) -> str:
    key = str(path[-1])
    if key in _LATER:
        return "not supported by this version"
    if key == "<<":
        return "merge keys are not supported; write the keys out"
    words = _keys_at(path[:-1])
    if len(path) > 1 and path[-2] == "probes":
        return f"no probe is called {key!r}; there are {', '.join(words)}"
    return f"no such key; {did_you_mean(key, words)}"


def _keys_at(path: Where) -> list[str]:
    """The keys that there are in the mapping at *path*."""
    model: type[shape.Model] = shape.FileShape
    for part in path:
        if isinstance(part, str):
            model = shape.inner(model, part) or model
    return list(model.model_fields)


def _check_names(document: Document, file: shape.FileShape) -> None:
    first: dict[str, int] = {}
    for index, target in enumerate(file.targets):
        if target.name in first:
            line = document.places["targets", first[target.name], "name"][0]
            text = f"another target is called {target.name!r}, in line {line}"
            document.complain(("targets", index, "name"), text)
        first.setdefault(target.name, index)


class _Target:
    """One target of the file, checked against the rest of it."""

    def __init__(self, document: Document, file: shape.FileShape, index: int) -> None:
        self._document = document
        self._defaults = file.defaults
        self._targets = len(file.targets)
        self._shape = file.targets[index]
        self._path: Where = ("targets", index)

    def plan(self) -> TargetPlan | None:
        """What it comes to. None when something is wrong, which is then noted."""
        before = len(self._document.problems)
        probes = dict(self._probes())
        policy = self._policy()
        self._check(probes)
        if policy is None or len(self._document.problems) > before:
            return None
        target = self._shape
        return TargetPlan(
            name=target.name,
            dsn=Secret(target.dsn),
            password_file=target.password_file,
            labels=target.labels,
            operations=self._operations(),
            probes=probes,
            policy=policy,
        )

    def _complain(self, text: str, *keys: str) -> None:
        self._document.complain((*self._path, *keys), text)

    def _operations(self) -> tuple[str, ...]:
        """Those that are given; with a pooler, its own besides the usual ones."""
        target = self._shape
        is_given = "operations" in target.model_fields_set
        adds_pool = target.pgbouncer is not None and not is_given
        return (*target.operations, POOL) if adds_pool else target.operations

    def _probes(self) -> Iterator[tuple[str, ProbePlan]]:
        target = self._shape
        for name, usual in USUAL.items():
            asked = getattr(target.probes, name)
            if asked is not None:
                base = self._ping() if name == PING else self._in_a_crowd(usual)
                limit = getattr(asked, "max_lag", None)
                capacity = getattr(asked, "capacity", None)
                plan = replace(base, limit=limit, capacity=capacity)
                yield name, _timed(plan, asked)
        if (canary := getattr(target.probes, LATENCY)) is not None:
            usual = PROBES[LATENCY].plan
            plan = replace(
                self._in_a_crowd(usual),
                query=canary.query,
                limit=canary.slow or usual.limit,
            )
            yield LATENCY, _timed(plan, canary)
        for query in target.custom:
            plan = self._in_a_crowd(PROBES["custom"].plan)
            yield (
                f"custom.{query.name}",
                _timed(replace(plan, query=query.query), query),
            )
        yield from self._neighbours()

    def _neighbours(self) -> Iterator[tuple[str, ProbePlan]]:
        """What is asked beside the server."""
        if (pooler := self._shape.pgbouncer) is not None:
            usual = PROBES[PGBOUNCER].plan
            plan = replace(
                self._in_a_crowd(usual),
                address=Secret(pooler.dsn),
                password_file=pooler.password_file,
                limit=pooler.max_wait or usual.limit,
            )
            yield PGBOUNCER, _timed(plan, pooler)
        if (manager := self._shape.patroni) is not None:
            plan = self._in_a_crowd(PROBES["patroni"].plan)
            yield "patroni", _timed(replace(plan, address=Secret(manager.url)), manager)

    def _in_a_crowd(self, usual: ProbePlan) -> ProbePlan:
        """*usual*, asked less often by a daemon that has many to ask."""
        return replace(usual, interval=usual.interval * max(1.0, self._targets / CROWD))

    def _ping(self) -> ProbePlan:
        """The ping's plan: the target's, its profile's, the file's, ours."""
        target, defaults = self._shape, self._defaults
        usual = USUAL[PING]
        if target.profile == "fast":
            given = FAST
        else:
            interval = defaults.interval or usual.interval
            given = ProbePlan(
                interval=interval, timeout=defaults.timeout or usual.timeout
            )
        return ProbePlan(
            interval=target.interval or given.interval,
            timeout=target.timeout or given.timeout,
        )

    def _policy(self) -> Policy | None:
        rules: dict[str, Any] = {}
        for breaker in (self._defaults.breaker, self._shape.breaker):
            rules |= breaker.model_dump(exclude_none=True)
        try:
            return replace(DAEMON, **rules)
        except ValueError as error:
            rule = str(error).split()[0]
            own = (*self._path, "breaker", rule)
            inherited = ("defaults", "breaker", rule)
            where = own if own in self._document.places else inherited
            self._document.complain(where, str(error))
            return None

    def _check(self, probes: Mapping[str, ProbePlan]) -> None:
        target = self._shape
        self._check_times(probes)
        if "write" in target.operations and not {"commit", "identity"} & probes.keys():
            text = "the operation write needs the probe commit or identity"
            self._complain(text, "operations")
        if POOL in target.operations and target.pgbouncer is None:
            self._complain("the operation pool needs a pgbouncer", "operations")
        names = [query.name for query in target.custom]
        for index, name in enumerate(names):
            if name in names[:index]:
                text = f"another query is called {name!r}"
                self._document.complain((*self._path, "custom", index, "name"), text)
        if target.password_file is not None:
            self._check_password(target.password_file, target.dsn)
        pooler = target.pgbouncer
        if pooler is not None and pooler.password_file is not None:
            self._check_password(pooler.password_file, pooler.dsn, "pgbouncer")

    def _check_times(self, probes: Mapping[str, ProbePlan]) -> None:
        for name, plan in probes.items():
            # A fast ping may be given longer than its interval: the next waits.
            if plan.timeout > max(plan.interval, 1.0) * 10:
                text = f"the timeout ({plan.timeout:g} s) is over ten times the interval ({plan.interval:g} s)"
                self._document.complain(self._given(name, "timeout"), text)
            if plan.interval < 0.05:
                text = (
                    f"an interval of {plan.interval * 1000:g} ms; 50ms is the shortest"
                )
                self._document.complain(self._given(name, "interval"), text)
        if LATENCY in probes:
            self._check_slow(probes[LATENCY])

    def _check_slow(self, canary: ProbePlan) -> None:
        limit, given = canary.limit, PATIENCE * canary.timeout
        if limit is None or limit < given:
            return
        text = f"slow ({shortly(limit)}) is never seen: the server gives up after {shortly(given)}, {percent(PATIENCE)} of the timeout; raise the timeout or lower slow"
        slow = self._given(LATENCY, "slow")
        is_given = slow in self._document.places
        self._document.complain(
            slow if is_given else self._given(LATENCY, "timeout"), text
        )

    def _given(self, probe: str, key: str) -> Where:
        """Where *key* of *probe* is given: only the ping's has several places."""
        own = (*self._home(probe), key)
        places: list[Where] = [own]
        if probe == PING:
            places += [(*self._path, key), ("defaults", key)]
        return next((p for p in places if p in self._document.places), own)

    def _home(self, probe: str) -> Where:
        """Where the file says how *probe* asks."""
        kind, _, query = probe.partition(".")
        if kind == "custom":
            names = [known.name for known in self._shape.custom]
            return (*self._path, kind, names.index(query))
        is_neighbour = PROBES[probe].place is Place.APART
        return (*self._path, probe) if is_neighbour else (*self._path, "probes", probe)

    def _check_password(self, path: Path, dsn: str, *under: str) -> None:
        keys = (*under, "password_file")
        if has_password(dsn):
            text = "there is a password in the dsn already; write it in one place"
            self._complain(text, *keys)
        try:
            is_empty = not path.read_bytes().strip()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._complain(f"{str(path)!r} cannot be read: {reason}", *keys)
            return
        if is_empty:
            self._complain(f"{str(path)!r} is empty", *keys)


def _timed(plan: ProbePlan, asked: shape.ProbeShape) -> ProbePlan:
    """*plan* with the times that the file gives."""
    return replace(
        plan,
        interval=asked.interval or plan.interval,
        timeout=asked.timeout or plan.timeout,
    )
