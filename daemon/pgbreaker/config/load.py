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
from pgbreaker.core.plan import Config, LogPlan, OtlpPlan, ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON, Policy
from pgbreaker.core.secret import Secret
from pgbreaker.errors import ConfigError

PROBES: Final[Mapping[str, ProbePlan]] = {
    "ping": ProbePlan(interval=1.0, timeout=0.5),
    "login": ProbePlan(interval=5.0, timeout=1.0),
    "commit": ProbePlan(interval=10.0, timeout=2.0),
    "identity": ProbePlan(interval=2.0, timeout=0.5),
    "saturation": ProbePlan(interval=2.0, timeout=0.5),
}
"""What a target is asked unless the file says otherwise."""

FAST: Final = ProbePlan(interval=0.1, timeout=0.25)
"""The ping of ``profile: fast``."""

# In the contract, but not built yet: better refused than taken for granted.
_LATER: Final = frozenset(
    ("store", "alertmanager", "peers", "web_config", "pgbouncer", "latency", "record")
)


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
    plan = TargetPlan(name=known, dsn=Secret(dsn), probes=PROBES)
    return _listening(Config(targets=(plan,)), listen)


def _listening(config: Config, listen: str | None) -> Config:
    if listen is None:
        return config
    try:
        return replace(config, http=shape.read_address(listen))
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
    otlp = file.otlp
    return Config(
        targets=tuple(plan for plan in plans if plan is not None),
        http=file.http.listen,
        log=LogPlan(format=file.log.format, level=file.log.level),
        otlp=None
        if otlp is None
        else OtlpPlan(endpoint=otlp.endpoint, sample=otlp.sample),
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
    steps: dict[str, type[shape.Model]] = {
        "defaults": shape.DefaultsShape,
        "targets": shape.TargetShape,
        "breaker": shape.BreakerShape,
        "probes": shape.ProbesShape,
        "http": shape.HttpShape,
        "log": shape.LogShape,
        "otlp": shape.OtlpShape,
    }
    for part in path:
        if isinstance(part, str):
            model = steps.get(part, shape.ProbeShape)
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
            operations=target.operations,
            probes=probes,
            policy=policy,
        )

    def _complain(self, text: str, *keys: str) -> None:
        self._document.complain((*self._path, *keys), text)

    def _probes(self) -> Iterator[tuple[str, ProbePlan]]:
        for name, usual in PROBES.items():
            asked: shape.ProbeShape | None = getattr(self._shape.probes, name)
            if asked is None:
                continue
            base = self._ping() if name == "ping" else usual
            yield (
                name,
                ProbePlan(
                    interval=asked.interval or base.interval,
                    timeout=asked.timeout or base.timeout,
                ),
            )

    def _ping(self) -> ProbePlan:
        """The ping's plan: the target's, its profile's, the file's, ours."""
        target, defaults = self._shape, self._defaults
        usual = PROBES["ping"]
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
        for name, plan in probes.items():
            # A fast ping may be given longer than its interval: the next waits.
            if plan.timeout > max(plan.interval, 1.0) * 10:
                text = f"the timeout ({plan.timeout:g} s) is over ten times the interval ({plan.interval:g} s)"
                self._complain(text, "probes", name)
            if plan.interval < 0.05:
                text = (
                    f"an interval of {plan.interval * 1000:g} ms; 50ms is the shortest"
                )
                self._complain(text, "probes", name, "interval")
        if "write" in target.operations and not {"commit", "identity"} & probes.keys():
            text = "the operation write needs the probe commit or identity"
            self._complain(text, "operations")
        if target.password_file is not None:
            self._check_password(target.password_file, target.dsn)

    def _given(self, probe: str, key: str) -> Where:
        """Where *key* of *probe* is given: only the ping's has several places."""
        own = (*self._path, "probes", probe, key)
        places: tuple[Where, ...] = (own, (*self._path, key), ("defaults", key))
        return next((p for p in places if p in self._document.places), own)

    def _check_password(self, path: Path, dsn: str) -> None:
        if has_password(dsn):
            text = "there is a password in the dsn already; write it in one place"
            self._complain(text, "password_file")
        try:
            is_empty = not path.read_bytes().strip()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            self._complain(f"{str(path)!r} cannot be read: {reason}", "password_file")
            return
        if is_empty:
            self._complain(f"{str(path)!r} is empty", "password_file")
