"""Why a breaker is as it is: its rules, their numbers, and the probes behind them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.judge import LOGIN, PING, deciding
from pgbreaker.core.policy import NEVER
from pgbreaker.core.reading import Finding
from pgbreaker.core.states import Cause, State
from pgbreaker.core.units import Seconds, percent
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.sinks.recent import Run, TargetRecent
from pgbreaker.web.page.drawing import Bar
from pgbreaker.web.page.words import neat

_SAMPLES: Final = 3
_IDLE: Final = "counted only while it is closed"
_WELL: Final = (Finding.OK, Finding.SLOW)
_DIM: Final = (Finding.SKIPPED, Finding.ABSENT, Finding.DENIED)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that opens, and what it goes by.

    Attributes:
        says: The rule.
        holds: Whether it is what keeps the breaker from being closed.
        numbers: What was counted.
        bar: The same as a bar. None: it is no share.
        samples: Runs behind the numbers, the newest first.
    """

    says: str
    holds: bool
    numbers: str
    bar: Bar | None
    samples: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A step of a run, as part of a bar of 100."""

    name: str
    x: float
    width: float
    took: Seconds


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run as a line of the table; *at* is wall time."""

    at: float
    probe: str
    finding: str
    tone: str
    took: Seconds
    was_asked: bool
    bars: tuple[Part, ...]
    text: str


def probes_of(target: TargetBoard, operation: str) -> tuple[str, ...]:
    """The probes that decide about *operation*, and those that say how the server is."""
    found = deciding(target.plan.probes).get(operation, ())
    return tuple(dict.fromkeys((*found, PING, LOGIN)))


def rules_of(
    target: TargetBoard, operation: str, recent: TargetRecent | None, now: Seconds
) -> list[Rule]:
    """The rules of *operation*'s breaker, with what each goes by."""
    breaker = target.breakers[operation]
    runs = recent.runs(*probes_of(target, operation)) if recent else []
    opened = breaker.cause if breaker.computed_state is not State.CLOSED else None
    failed = tuple(run for run in runs if run.finding not in (*_WELL, *_DIM))[:_SAMPLES]
    slow = tuple(run for run in runs if run.finding is Finding.SLOW)[:_SAMPLES]
    return list(_rules(breaker, opened, failed, slow, now))


def _rules(
    breaker: Breaker,
    opened: Cause | None,
    failed: tuple[Run, ...],
    slow: tuple[Run, ...],
    now: Seconds,
) -> Iterator[Rule]:
    policy, counts = breaker.policy, breaker.counts(now)
    why, is_closed = breaker.reason, breaker.computed_state is State.CLOSED

    def said(cause: Cause, numbers: str) -> str:
        if opened is cause:
            return why
        return numbers if is_closed else _IDLE

    yield Rule(
        "Two signals agree that it fails",
        opened is Cause.CONFIRMED,
        why
        if opened is Cause.CONFIRMED
        else "a held and a new connection, or a probe asked twice",
        None,
        failed if opened is Cause.CONFIRMED else (),
    )
    if policy.minimum_calls < NEVER:
        rate = percent(policy.failure_rate)
        numbers = f"{counts.failed} of {counts.total} in the last {neat(policy.window)} failed"
        share = counts.failure_ratio if counts.total else 0.0
        enough = counts.total >= policy.minimum_calls
        bar = Bar("failed", share, policy.failure_rate, percent(share), enough)
        yield Rule(
            f"{rate} of at least {policy.minimum_calls} calls fail",
            opened is Cause.FAILURE_RATE,
            said(Cause.FAILURE_RATE, numbers),
            bar if is_closed else None,
            failed if opened is Cause.FAILURE_RATE else (),
        )
    if policy.failure_threshold is not None:
        yield Rule(
            f"{policy.failure_threshold} calls in a row fail",
            opened is Cause.FAILURE_RUN,
            said(Cause.FAILURE_RUN, "whatever the share is"),
            None,
            failed if opened is Cause.FAILURE_RUN else (),
        )
    if policy.slow_rate is not None and policy.slow_call is not None:
        share = counts.slow_ratio if counts.total else 0.0
        numbers = f"{counts.slow} of {counts.total} in the last {neat(policy.window)} were slow"
        enough = counts.total >= policy.minimum_calls
        bar = Bar("slow", share, policy.slow_rate, percent(share), enough)
        yield Rule(
            f"{percent(policy.slow_rate)} of the calls take {neat(policy.slow_call)} or more",
            opened is Cause.SLOW_RATE,
            said(Cause.SLOW_RATE, numbers),
            bar if is_closed else None,
            slow if opened is Cause.SLOW_RATE else (),
        )
    if opened in (Cause.RELAPSED, Cause.EXPIRED, Cause.BARREN, Cause.COOLED):
        yield Rule("A trial fails", opened is not Cause.COOLED, why, None, failed)


def after(breaker: Breaker) -> str:
    """What happens once it is open, in a sentence."""
    policy = breaker.policy
    return (
        f"Once open it waits {neat(policy.timeout)}, each time twice as long, up to"
        f" {neat(policy.max_timeout)}; then {policy.success_threshold} trials in a row"
        " that succeed close it."
    )


def lines_of(runs: Iterable[Run], wall: float) -> list[RunLine]:
    """Write *runs* as lines; *wall* is what wall time is ahead of the monotonic."""
    found = list(runs)
    longest = max((_total(run) for run in found), default=0.0) or 1.0
    return [
        RunLine(
            at=wall + run.at,
            probe=run.probe,
            finding=run.finding.value,
            tone=_tone(run.finding),
            took=run.took,
            was_asked=run.was_asked,
            bars=tuple(_parts(run.steps, longest)),
            text=str(run.evidence) if run.evidence else "",
        )
        for run in found
    ]


def _tone(finding: Finding) -> str:
    if finding is Finding.OK:
        return "good"
    return "warn" if finding is Finding.SLOW or finding in _DIM else "bad"


def _total(run: Run) -> Seconds:
    return sum(took for _, took in run.steps)


def _parts(steps: Sequence[tuple[str, Seconds]], longest: Seconds) -> Iterator[Part]:
    x = 0.0
    for name, took in steps:
        width = 100 * took / longest
        yield Part(name, round(x, 2), round(width, 2), took)
        x += width
