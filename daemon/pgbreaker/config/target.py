"""One target of a file: what it comes to, and what of it does not fit together.

What was wrong with single values is known by then, and something stands in for them;
nothing is said here of a value that was complained of already.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pgbreaker.config import shape
from pgbreaker.config.document import Document
from pgbreaker.config.document import Path as Where
from pgbreaker.config.dsn import has_password
from pgbreaker.config.files import CannotReadError, beside, credential, password_size
from pgbreaker.core.judge import COMMIT, IDENTITY, LATENCY, PGBOUNCER, PING
from pgbreaker.core.plan import PATIENCE, PausePlan, ProbePlan, TargetPlan
from pgbreaker.core.policy import DAEMON, Policy
from pgbreaker.core.secret import Secret
from pgbreaker.core.units import Seconds, percent, shortly
from pgbreaker.probes import PROBES

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

LONGEST_PAUSE: Final[Seconds] = 600.0

_DEFAULTS: Final = "defaults"


@dataclass(frozen=True, slots=True)
class Around:
    """What a target is read with.

    Attributes:
        main: The main file, which the defaults stand in.
        defaults: These.
        targets: How many there are, in all files.
        folder: What relative paths begin from.
        env: The environment.
    """

    main: Document
    defaults: shape.DefaultsShape
    targets: int
    folder: Path
    env: Mapping[str, str]


class Draft:
    """One target of a file, checked against the rest of it."""

    def __init__(
        self,
        around: Around,
        document: Document,
        index: int,
        target: shape.TargetShape,
    ) -> None:
        self._around = around
        self._document = document
        self._shape = target
        self._path: Where = ("targets", index)

    def plan(self) -> TargetPlan:
        """What it comes to. What is wrong with it is noted, and it is then of no use."""
        probes = list(self._probes())
        policy = self._policy()
        self._check(probes)
        target = self._shape
        return TargetPlan(
            name=target.name,
            dsn=Secret(target.dsn),
            password_file=self._password_file(),
            labels=target.labels,
            operations=self._operations(),
            probes={name: plan for name, plan, _ in probes},
            policy=policy,
            pause=self._pause(),
        )

    def _complain(self, text: str, where: Where, *looked_at: Where) -> None:
        """Say that *text* is wrong, unless something looked at for it is so already."""
        if self._is_sound(where, *looked_at):
            self._document_of(where).complain(where, text)

    def _is_sound(self, *paths: Where) -> bool:
        """Whether nothing was said yet of what stands at *paths*."""
        return not any(self._document_of(path).is_spoilt(path) for path in paths)

    def _document_of(self, path: Where) -> Document:
        return self._around.main if path[0] == _DEFAULTS else self._document

    def _own(self, *keys: str | int) -> Where:
        return (*self._path, *keys)

    def _operations(self) -> tuple[str, ...]:
        """Those that are given; with a pooler, its own besides the usual ones."""
        target = self._shape
        is_given = "operations" in target.model_fields_set
        adds_pool = target.pgbouncer is not None and not is_given
        return (*target.operations, POOL) if adds_pool else target.operations

    # -- Probes --------------------------------------------------------------------

    def _probes(self) -> Iterator[tuple[str, ProbePlan, Where]]:
        """Each probe: its name, its plan, where the file says how it asks."""
        target = self._shape
        for name, usual in USUAL.items():
            asked = getattr(target.probes, name)
            if asked is not None:
                base = self._ping() if name == PING else self._in_a_crowd(usual)
                limit = getattr(asked, "max_lag", None)
                capacity = getattr(asked, "capacity", None)
                plan = replace(base, limit=limit, capacity=capacity)
                yield name, _timed(plan, asked), self._own("probes", name)
        if (canary := getattr(target.probes, LATENCY)) is not None:
            usual = PROBES[LATENCY].plan
            plan = replace(
                self._in_a_crowd(usual),
                query=canary.query,
                limit=canary.slow or usual.limit,
            )
            yield LATENCY, _timed(plan, canary), self._own("probes", LATENCY)
        for index, query in enumerate(target.custom):
            plan = self._in_a_crowd(PROBES["custom"].plan)
            plan = _timed(replace(plan, query=query.query), query)
            yield f"custom.{query.name}", plan, self._own("custom", index)
        yield from self._neighbours()

    def _neighbours(self) -> Iterator[tuple[str, ProbePlan, Where]]:
        """What is asked beside the server."""
        if (pooler := self._shape.pgbouncer) is not None:
            usual = PROBES[PGBOUNCER].plan
            plan = replace(
                self._in_a_crowd(usual),
                address=Secret(pooler.dsn),
                password_file=self._beside(pooler.password_file),
                limit=pooler.max_wait or usual.limit,
            )
            yield PGBOUNCER, _timed(plan, pooler), self._own(PGBOUNCER)
        if (manager := self._shape.patroni) is not None:
            plan = self._in_a_crowd(PROBES["patroni"].plan)
            plan = _timed(replace(plan, address=Secret(manager.url)), manager)
            yield "patroni", plan, self._own("patroni")

    def _pause(self) -> PausePlan | None:
        """When the pooler holds its clients back; at its probe's address unless it is
        given its own."""
        pooler = self._shape.pgbouncer
        asked = None if pooler is None else pooler.pause
        if pooler is None or asked is None:
            return None
        alike = pooler if asked.dsn is None else asked
        return PausePlan(
            address=Secret(asked.dsn or pooler.dsn),
            password_file=self._beside(asked.password_file or alike.password_file),
            database=asked.database,
            while_open=asked.while_open,
            max_time=asked.max_time,
        )

    def _in_a_crowd(self, usual: ProbePlan) -> ProbePlan:
        """*usual*, asked less often by a daemon that has many to ask."""
        # In steps: one more target does not change how often all the others are asked.
        crowds = max(1.0, math.ceil(4 * self._around.targets / CROWD) / 4)
        return replace(usual, interval=usual.interval * crowds)

    def _ping(self) -> ProbePlan:
        """The ping's plan: the target's, its profile's, the file's, ours."""
        target, defaults = self._shape, self._around.defaults
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

    # -- Rules ---------------------------------------------------------------------

    def _policy(self) -> Policy:
        rules: dict[str, Any] = {}
        for breaker in (self._around.defaults.breaker, self._shape.breaker):
            rules |= breaker.model_dump(exclude_none=True)
        while True:
            try:
                return replace(DAEMON, **rules)
            except ValueError as error:
                # Its first word is the rule that is broken; without it the others show.
                broken = str(error).split()[0]
                self._complain_of(broken, rules, str(error))

    def _complain_of(self, broken: str, rules: dict[str, Any], text: str) -> None:
        """Say which rule is broken, and take it out of *rules*."""
        of_it = (broken, "timeout") if broken == "max_timeout" else (broken,)
        places = [where for rule in of_it for where in self._places_of(rule)]
        given = [p for p in places if p in self._document_of(p).places]
        self._complain(text, (given or places)[0], *places)
        for rule in of_it:
            rules.pop(rule, None)

    def _places_of(self, rule: str) -> tuple[Where, Where]:
        return self._own("breaker", rule), (_DEFAULTS, "breaker", rule)

    # -- What does not fit together ------------------------------------------------

    def _check(self, probes: list[tuple[str, ProbePlan, Where]]) -> None:
        for name, plan, home in probes:
            self._check_times(name, plan, home)
        self._check_operations({name for name, _, _ in probes})
        self._check_queries()
        self._check_password(self._shape.password_file, self._shape.dsn)
        pooler = self._shape.pgbouncer
        if pooler is not None:
            self._check_password(pooler.password_file, pooler.dsn, PGBOUNCER)
        if pooler is not None and pooler.pause is not None:
            self._check_pause(pooler.pause, pooler.dsn)

    def _check_operations(self, probes: set[str]) -> None:
        target, where = self._shape, self._own("operations")
        if "write" in target.operations and not {COMMIT, IDENTITY} & probes:
            text = "the operation write needs the probe commit or identity"
            looked_at = [self._own("probes", name) for name in (COMMIT, IDENTITY)]
            self._complain(text, where, *looked_at)
        if POOL in target.operations and target.pgbouncer is None:
            text = "the operation pool needs a pgbouncer"
            self._complain(text, where, self._own(PGBOUNCER))

    def _check_pause(self, pause: shape.PauseShape, usual: str) -> None:
        inside = (PGBOUNCER, "pause")
        self._check_password(pause.password_file, pause.dsn or usual, *inside)
        where = self._own(*inside, "while_open")
        if pause.while_open not in self._shape.operations:
            text = f"the target has no operation {pause.while_open}"
            self._complain(text, where, self._own("operations"))
        if pause.max_time > LONGEST_PAUSE:
            text = f"{shortly(pause.max_time)} is too long for clients to wait; at most {shortly(LONGEST_PAUSE)} is taken"
            self._complain(text, self._own(*inside, "max_time"))

    def _check_queries(self) -> None:
        names: set[str] = set()
        for index, query in enumerate(self._shape.custom):
            where = self._own("custom", index, "name")
            if self._document.is_spoilt(where):
                continue
            if query.name in names:
                self._complain(f"another query is called {query.name!r}", where)
            names.add(query.name)

    def _check_times(self, name: str, plan: ProbePlan, home: Where) -> None:
        intervals = self._given(name, home, "interval")
        timeouts = self._given(name, home, "timeout")
        # A fast ping may be given longer than its interval: the next waits.
        if plan.timeout > max(plan.interval, 1.0) * 10:
            text = f"the timeout ({plan.timeout:g} s) is over ten times the interval ({plan.interval:g} s)"
            self._complain(text, *timeouts, *intervals)
        if plan.interval < 0.05:
            text = f"an interval of {plan.interval * 1000:g} ms; 50ms is the shortest"
            self._complain(text, *intervals)
        if name == LATENCY:
            self._check_slow(plan, home, timeouts)

    def _check_slow(
        self, canary: ProbePlan, home: Where, timeouts: tuple[Where, ...]
    ) -> None:
        limit, given = canary.limit, PATIENCE * canary.timeout
        if limit is None or limit < given:
            return
        text = f"slow ({shortly(limit)}) is never seen: the server gives up after {shortly(given)}, {percent(PATIENCE)} of the timeout; raise the timeout or lower slow"
        slow = (*home, "slow")
        where = slow if slow in self._document.places else timeouts[0]
        self._complain(text, where, slow, *timeouts)

    def _given(self, probe: str, home: Where, key: str) -> tuple[Where, ...]:
        """Where *key* of *probe* may be given, first where it is: only the ping's has
        several places."""
        places: list[Where] = [(*home, key)]
        if probe == PING:
            places += [self._own(key), (_DEFAULTS, key)]
        places.sort(key=lambda path: path not in self._document_of(path).places)
        return tuple(places)

    # -- Passwords -----------------------------------------------------------------

    def _password_file(self) -> Path | None:
        """The file that is given; else the credential that is called as the target."""
        target = self._shape
        if target.password_file is not None:
            return self._beside(target.password_file)
        return credential(target.name, target.dsn, self._around.env)

    def _beside(self, path: Path | None) -> Path | None:
        return None if path is None else beside(self._around.folder, path)

    def _check_password(self, path: Path | None, dsn: str, *under: str) -> None:
        if path is None:
            return
        where = self._own(*under, "password_file")
        if not self._is_sound(where):
            return
        if has_password(dsn) and self._is_sound(self._own(*under, "dsn")):
            text = "there is a password in the dsn already; write it in one place"
            self._document.complain(where, text)
        # Whoever takes the key for that of the password itself has it shown nowhere.
        said = f"{str(path)!r}" if "/" in str(path) else "the file"
        try:
            if password_size(beside(self._around.folder, path)) == 0:
                self._document.complain(where, f"{said} is empty")
        except CannotReadError as error:
            self._document.complain(where, f"{said} cannot be read: {error}")


def _timed(plan: ProbePlan, asked: shape.ProbeShape) -> ProbePlan:
    """*plan* with the times that the file gives."""
    return replace(
        plan,
        interval=asked.interval or plan.interval,
        timeout=asked.timeout or plan.timeout,
    )
