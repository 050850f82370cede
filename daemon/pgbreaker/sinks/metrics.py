"""What Prometheus scrapes: from memory, complete from the first second.

A scrape never waits for a server, and a series never vanishes because one is away: its
age is a series of its own (`pgbreaker_probe_last_success_timestamp_seconds`).
"""

import asyncio
import gzip
import platform
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import (
    generate_latest as generate_openmetrics,
)

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import BY_CALLS, MOVES, State, Transition
from pgbreaker.sinks.board import Board, Condition, TargetBoard
from pgbreaker.sinks.exposition import (
    OPENMETRICS,
    TEXT,
    Family,
    Histogram,
    label,
    line,
    within,
)
from pgbreaker.sinks.hub import Event

_T: Final = ("target",)
_P: Final = ("target", "probe")
_B: Final = ("target", "operation", "breaker")

_PROBE_BOUNDS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
)
_LATE_BOUNDS: Final = (0.005, 0.02, 0.1, 0.5, 2.5)

# What the daemon says of targets, one row a metric; the reference in daemon/METRICS.md
# is made of this table, and a test holds alerts and documents against it.
FAMILIES: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        Family(
            "pgbreaker_target_up",
            "gauge",
            "1 while the server is known to serve somebody, else 0. Never absent.",
            _T,
        ),
        Family(
            "pgbreaker_target_state",
            "gauge",
            "1 for the state that the target is in: up, degraded, down or unknown.",
            (*_T, "state"),
        ),
        Family(
            "pgbreaker_target_info",
            "gauge",
            "Always 1; carries the labels that the configuration gives to the target, prefixed label_.",
            (*_T, "label_*"),
        ),
        Family(
            "pgbreaker_breaker_state",
            "gauge",
            "1 for the state that callers feel.",
            (*_B, "state"),
        ),
        Family(
            "pgbreaker_breaker_computed_state",
            "gauge",
            "1 for the state that the breaker decided itself, whatever an operator says.",
            (*_B, "state"),
        ),
        Family(
            "pgbreaker_breaker_transitions_total",
            "counter",
            "Moves of the breaker.",
            (*_B, "from", "to", "cause"),
        ),
        Family(
            "pgbreaker_breaker_state_since_timestamp_seconds",
            "gauge",
            "Unix time of the last move, or of the start, in seconds.",
            _B,
        ),
        Family(
            "pgbreaker_breaker_failure_ratio",
            "gauge",
            "Share of the window that failed, 0 to 1.",
            _B,
        ),
        Family(
            "pgbreaker_breaker_failure_ratio_threshold",
            "gauge",
            "Share of the window at which it opens, 0 to 1.",
            _B,
        ),
        Family(
            "pgbreaker_breaker_override",
            "gauge",
            "1 for the state that an operator has put before the breaker's own, else 0.",
            (*_B, "state"),
        ),
        Family(
            "pgbreaker_calls_total",
            "counter",
            "What probes found that a call of this kind would come to.",
            (*_B, "outcome"),
        ),
        Family(
            "pgbreaker_probes_total",
            "counter",
            "Runs of the probe, by how they ended.",
            (*_P, "outcome"),
        ),
        Family(
            "pgbreaker_probe_duration_seconds",
            "histogram",
            "Time from asking to the answer, or to giving up, in seconds.",
            _P,
        ),
        Family(
            "pgbreaker_probe_lateness_seconds",
            "histogram",
            "Time by which a run began after it was due, in seconds.",
            _P,
        ),
        Family(
            "pgbreaker_probe_last_success_timestamp_seconds",
            "gauge",
            "Unix time of the last good answer, in seconds; 0 when there was none yet.",
            _P,
        ),
        Family(
            "pgbreaker_probe_last_run_timestamp_seconds",
            "gauge",
            "Unix time at which the last run ended, in seconds; 0 when there was none yet.",
            _P,
        ),
        Family(
            "pgbreaker_probe_interval_seconds",
            "gauge",
            "Time between two runs as configured, in seconds.",
            _P,
        ),
        Family(
            "pgbreaker_probe_connections",
            "gauge",
            "Connections that the daemon has to the server.",
            _T,
        ),
        Family(
            "pgbreaker_slow_call_threshold_seconds",
            "gauge",
            "Time from which a ping counts as slow, in seconds.",
            _T,
        ),
        Family(
            "pgbreaker_notices_total",
            "counter",
            "Things told that moved no breaker: locked_out, let_in, logins_wait, restarted, role, cluster.",
            (*_T, "code"),
        ),
        Family(
            "pgbreaker_server_info",
            "gauge",
            "Always 1; carries what the server says of itself.",
            (*_T, "version", "role", "system_id"),
        ),
        Family(
            "pgbreaker_server_start_time_seconds",
            "gauge",
            "Unix time at which the server started, in seconds.",
            _T,
        ),
        Family(
            "pgbreaker_in_recovery",
            "gauge",
            "1 while the server is in recovery: a replica.",
            _T,
        ),
        Family(
            "pgbreaker_connections",
            "gauge",
            "Client connections at the server, by what they do.",
            (*_T, "state"),
        ),
        Family(
            "pgbreaker_connection_limit",
            "gauge",
            "Connection slots: max, superuser_reserved, reserved, usable.",
            (*_T, "kind"),
        ),
        Family(
            "pgbreaker_connection_saturation_ratio",
            "gauge",
            "Share of the slots that applications can use which is taken; above 1 when reserved ones are.",
            (*_T, "kind"),
        ),
        Family(
            "pgbreaker_transaction_oldest_seconds",
            "gauge",
            "Age of the oldest open transaction, in seconds.",
            _T,
        ),
        Family(
            "pgbreaker_idle_in_transaction_oldest_seconds",
            "gauge",
            "Age of the longest idleness within a transaction, in seconds.",
            _T,
        ),
    )
}

# Of the daemon itself, without a target.
OWN: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        Family(
            "pgbreaker_build_info",
            "gauge",
            "Always 1; carries the version.",
            ("version", "python"),
        ),
        Family(
            "pgbreaker_config_last_reload_successful",
            "gauge",
            "1 when the configuration in use is the one in the file.",
        ),
        Family("pgbreaker_targets", "gauge", "Targets configured."),
    )
}

_OUTCOMES: Final = (
    "success",
    "failure",
    "slow",
    "ignored",
    "unreached",
    "cut",
    "released",
    "rejected",
)

# Series of gauges that come from facts: metric -> (fact, further labels). A fact that
# was never seen makes no series.
_FACTS: Final[Mapping[str, tuple[tuple[str, dict[str, str]], ...]]] = {
    "pgbreaker_server_start_time_seconds": (("started", {}),),
    "pgbreaker_in_recovery": (("in_recovery", {}),),
    "pgbreaker_connections": (
        ("active", {"state": "active"}),
        ("idle", {"state": "idle"}),
        ("idle_in_transaction", {"state": "idle_in_transaction"}),
        ("slots_used", {"state": "all"}),
    ),
    "pgbreaker_connection_limit": (
        ("max_connections", {"kind": "max"}),
        ("superuser_reserved_connections", {"kind": "superuser_reserved"}),
        ("reserved_connections", {"kind": "reserved"}),
        ("slots_usable", {"kind": "usable"}),
    ),
    "pgbreaker_connection_saturation_ratio": (("slots_ratio", {"kind": "server"}),),
    "pgbreaker_transaction_oldest_seconds": (("oldest_transaction_seconds", {}),),
    "pgbreaker_idle_in_transaction_oldest_seconds": (
        ("oldest_idle_in_transaction_seconds", {}),
    ),
}

_LINES_AT_A_TIME: Final = 500  # then the loop may run something else
_GZIP_FROM: Final = 1024  # bytes below which compressing is not worth it


class _Counts:
    """What one target's events have come to so far."""

    def __init__(self, target: TargetBoard) -> None:
        self.target = target
        self.probes: Counter[tuple[str, Finding]] = Counter()
        self.notices: Counter[str] = Counter()
        self.moves: dict[str, Counter[tuple[str, str, str]]] = {
            operation: Counter(
                {
                    (before.value, after.value, cause.value): 0
                    for (before, cause), after in MOVES.items()
                    if cause not in BY_CALLS
                }
            )
            for operation in target.breakers
        }
        self.took = {probe: Histogram(_PROBE_BOUNDS) for probe in target.plan.probes}
        self.late = {probe: Histogram(_LATE_BOUNDS) for probe in target.plan.probes}
        self.ran = dict.fromkeys(target.plan.probes, 0.0)
        self.version = 0
        self._labels = label(target=target.plan.name)
        self._made: tuple[tuple[int, int], dict[str, str]] | None = None

    def blocks(self) -> dict[str, str]:
        """Its lines, by family; made anew only when something has changed."""
        version = (self.version, self.target.version)
        if self._made is None or self._made[0] != version:
            blocks: defaultdict[str, list[str]] = defaultdict(list)
            for family, text in self._lines():
                blocks[family].append(text)
            joined = {family: "".join(lines) for family, lines in blocks.items()}
            self._made = (version, joined)
        return self._made[1]

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield from self._of_target()
        for operation, breaker in self.target.breakers.items():
            yield from self._of_breaker(operation, breaker)
        for probe in self.target.plan.probes:
            yield from self._of_probe(probe)
        yield from self._of_facts()

    def _of_target(self) -> Iterator[tuple[str, str]]:
        target, labels = self.target, self._labels

        def gauge(name: str, value: float, **more: str) -> tuple[str, str]:
            return name, line(name, within(labels, **more) if more else labels, value)

        yield gauge("pgbreaker_target_up", target.is_up)
        condition = target.condition
        for state in Condition:
            yield gauge("pgbreaker_target_state", state is condition, state=state.value)
        named = {f"label_{k}": v for k, v in target.plan.labels.items()}
        yield gauge("pgbreaker_target_info", 1, **named)
        yield gauge("pgbreaker_probe_connections", target.connections)
        if target.plan.policy.slow_call is not None:
            slow_call = target.plan.policy.slow_call
            yield gauge("pgbreaker_slow_call_threshold_seconds", slow_call)
        for code, count in self.notices.items():
            yield gauge("pgbreaker_notices_total", count, code=code)

    def _of_breaker(
        self, operation: str, breaker: Breaker
    ) -> Iterator[tuple[str, str]]:
        labels = within(self._labels, operation=operation, breaker=breaker.name)

        def sample(name: str, value: float, **more: str) -> tuple[str, str]:
            return name, line(name, within(labels, **more) if more else labels, value)

        override = breaker.override
        for state in State:
            is_now = state is breaker.state
            yield sample("pgbreaker_breaker_state", is_now, state=state.value)
            is_computed = state is breaker.computed_state
            name = "pgbreaker_breaker_computed_state"
            if state in (State.CLOSED, State.OPEN, State.HALF_OPEN):
                yield sample(name, is_computed, state=state.value)
            is_forced = override is not None and override.state is state
            yield sample("pgbreaker_breaker_override", is_forced, state=state.value)
        for (before, after, cause), count in self.moves[operation].items():
            name = "pgbreaker_breaker_transitions_total"
            yield sample(name, count, **{"from": before, "to": after, "cause": cause})
        since = self.target.moved[operation]
        yield sample("pgbreaker_breaker_state_since_timestamp_seconds", since)
        ratio = breaker.window.counts().failure_ratio
        yield sample("pgbreaker_breaker_failure_ratio", ratio)
        threshold = breaker.policy.failure_rate
        yield sample("pgbreaker_breaker_failure_ratio_threshold", threshold)
        totals = breaker.totals
        for outcome in _OUTCOMES:
            yield sample("pgbreaker_calls_total", totals[outcome], outcome=outcome)

    def _of_probe(self, probe: str) -> Iterator[tuple[str, str]]:
        labels = within(self._labels, probe=probe)

        def sample(name: str, value: float) -> tuple[str, str]:
            return name, line(name, labels, value)

        name = "pgbreaker_probes_total"
        for finding in Finding:
            count = self.probes[probe, finding]
            yield name, line(name, within(labels, outcome=finding.value), count)
        for name, histogram in (
            ("pgbreaker_probe_duration_seconds", self.took[probe]),
            ("pgbreaker_probe_lateness_seconds", self.late[probe]),
        ):
            yield name, "".join(histogram.lines(name, labels))
        answered = self.target.answered.get(probe, 0.0)
        yield sample("pgbreaker_probe_last_success_timestamp_seconds", answered)
        yield sample("pgbreaker_probe_last_run_timestamp_seconds", self.ran[probe])
        interval = self.target.plan.probes[probe].interval
        yield sample("pgbreaker_probe_interval_seconds", interval)

    def _of_facts(self) -> Iterator[tuple[str, str]]:
        facts = self.target.facts
        for name, series in _FACTS.items():
            for fact, more in series:
                value = facts.get(fact)
                if isinstance(value, int | float):
                    labels = within(self._labels, **more) if more else self._labels
                    yield name, line(name, labels, float(value))
        if "version" in facts:
            role = "replica" if facts.get("in_recovery") else "primary"
            labels = within(
                self._labels,
                version=str(facts["version"]),
                role=role,
                system_id=str(facts.get("system_id", "")),
            )
            yield "pgbreaker_server_info", line("pgbreaker_server_info", labels, 1)


class Metrics:
    """Counts what the hub tells, and writes it for a scrape; a sink."""

    def __init__(self, board: Board, version: str) -> None:
        self._board = board
        self._counts = {n: _Counts(t) for n, t in board.targets.items()}
        self._version = version
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def __call__(self, event: Event) -> None:
        """Take an event from the hub."""
        match event:
            case Reading():
                self._take(event)
            case Transition():
                target, operation = self._board.home(event.breaker)
                counts = self._counts[target]
                move = (event.before.value, event.after.value, event.cause.value)
                counts.moves[operation][move] += 1
                counts.version += 1
            case _:
                counts = self._counts[event.target]
                counts.notices[event.code] += 1
                counts.version += 1

    def _take(self, reading: Reading) -> None:
        counts = self._counts[reading.target]
        counts.probes[reading.probe, reading.finding] += 1
        counts.took[reading.probe].observe(reading.took)
        counts.late[reading.probe].observe(reading.late)
        counts.ran[reading.probe] = self._board.wall_of(reading.at + reading.took)
        counts.version += 1

    async def render(self, *, openmetrics: bool = False) -> str:
        """Write everything, letting the loop run others now and then."""
        parts: list[str] = []
        since_pause = 0
        # Every target's blocks first: families must be in one piece each.
        blocks = []
        for counts in self._counts.values():
            block = counts.blocks()
            blocks.append(block)
            since_pause += sum(text.count("\n") for text in block.values())
            if since_pause >= _LINES_AT_A_TIME:
                since_pause = 0
                await asyncio.sleep(0)
        for name, family in FAMILIES.items():
            texts = [block[name] for block in blocks if name in block]
            if texts:
                parts.append(family.head(openmetrics=openmetrics))
                parts += texts
        parts += self._own(openmetrics=openmetrics)
        generate = generate_openmetrics if openmetrics else generate_latest
        parts.append(
            generate(self._process).decode()
        )  # ends with # EOF, if openmetrics
        return "".join(parts)

    def _own(self, *, openmetrics: bool) -> Iterator[str]:
        build = label(version=self._version, python=platform.python_version())
        values = {
            "pgbreaker_build_info": (build, 1),
            "pgbreaker_config_last_reload_successful": ("", 1),
            "pgbreaker_targets": ("", len(self._counts)),
        }
        for name, family in OWN.items():
            yield family.head(openmetrics=openmetrics)
            yield line(name, *values[name])

    async def scrape(self, accept: str, encoding: str) -> tuple[bytes, dict[str, str]]:
        """Answer a scrape.

        Args:
            accept: The request's ``Accept``.
            encoding: The request's ``Accept-Encoding``.

        Returns:
            The body, and the headers that describe it.
        """
        openmetrics = "application/openmetrics-text" in accept
        body = (await self.render(openmetrics=openmetrics)).encode()
        headers = {
            "Content-Type": OPENMETRICS if openmetrics else TEXT,
            "Vary": "Accept, Accept-Encoding",
        }
        if "gzip" in encoding and len(body) >= _GZIP_FROM:
            # In a thread: zlib lets go of the GIL.
            body = await asyncio.to_thread(gzip.compress, body, 1)
            headers["Content-Encoding"] = "gzip"
        return body, headers
