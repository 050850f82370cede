"""One breaker, as people are shown it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from pgbreaker.clock import Clock
from pgbreaker.core.advice import Opinion
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.policy import NEVER
from pgbreaker.core.report import Crowd
from pgbreaker.core.ruled import RuledBreaker
from pgbreaker.core.states import Override, State
from pgbreaker.core.units import percent
from pgbreaker.sinks.board import TargetBoard
from pgbreaker.web.page.drawing import Bar
from pgbreaker.web.page.orders import VERBS
from pgbreaker.web.page.words import FORCED_CLOSED, STATES, Look, neat

FULL: Final = 0.9
"""Share of the connection slots from where on they are nearly gone; the alerts' too."""


@dataclass(frozen=True, slots=True)
class BreakerSight:
    """A breaker as it is shown.

    Attributes:
        name: ``target/operation``.
        path: Its page, below the root.
        look: What callers feel.
        computed: What the machine decided; other than `look` where somebody put their
            word before it.
        since: Wall time of the last move, in seconds since the epoch.
        why: Why it is so, in one sentence.
        trial: Wall time of the next trial. None: there is none to wait for.
        progress: How far the trials have come. None: none are made.
        override: Somebody's word. None: it decides by itself.
        override_ends: Wall time at which that ends. None: only by hand.
        verbs: What can be done to it.
        daemons: What several daemons think of it, a line each. Empty: there is one.
        crowd: What applications report of it. None: none does.
    """

    name: str
    target: str
    operation: str
    path: str
    look: Look
    computed: Look
    since: float
    why: str
    trial: float | None
    progress: str | None
    override: Override | None
    override_ends: float | None
    verbs: tuple[str, ...]
    crowd: Crowd | None
    daemons: tuple[str, ...] = ()

    @property
    def is_troubled(self) -> bool:
        """Whether applications find that it fails, though the daemon does not."""
        return (
            self.look is STATES[State.CLOSED]
            and self.crowd is not None
            and self.crowd.is_troubled
        )

    @property
    def is_well(self) -> bool:
        """Whether there is nothing to say about it."""
        return self.look is STATES[State.CLOSED] and self.override is None


def look_of(breaker: Breaker) -> Look:
    """What callers feel of *breaker*."""
    override = breaker.override
    if override is not None and override.state is State.CLOSED:
        return FORCED_CLOSED
    return STATES[breaker.state]


def sight_of(target: TargetBoard, operation: str, clock: Clock) -> BreakerSight:
    """Look at the breaker of *operation*."""
    breaker = target.breakers[operation]
    now, override = clock.now(), breaker.override
    wall = clock.wall() - now
    is_open = breaker.computed_state is State.OPEN
    policy, tried = breaker.policy, breaker.computed_state is State.HALF_OPEN
    until = None if override is None or override.until is None else override.until
    return BreakerSight(
        name=breaker.name,
        target=target.plan.name,
        operation=operation,
        path=path_of(target.plan.name, operation),
        look=look_of(breaker),
        computed=STATES[breaker.computed_state],
        since=target.moved[operation],
        why=why(breaker),
        trial=wall + breaker.until if is_open else None,
        progress=f"{breaker.good_trials} of {policy.success_threshold} trials succeeded"
        if tried
        else None,
        override=override,
        override_ends=None if until is None else wall + until,
        verbs=tuple(_verbs(breaker)),
        daemons=tuple(_daemons(target, operation)),
        crowd=target.crowd(operation),
    )


def path_of(target: str, operation: str) -> str:
    """The page of a breaker, below the root."""
    return f"breakers/{quote(target, safe='')}/{quote(operation, safe='')}"


def target_path(target: str) -> str:
    """The page of a target, below the root."""
    return f"targets/{quote(target, safe='')}"


def why(breaker: Breaker) -> str:
    """Why *breaker* is as it is: what it saw, or what somebody wrote."""
    override = breaker.override
    if override is not None:
        return f"{override.reason} ({override.author})"
    ruling = breaker.ruling if isinstance(breaker, RuledBreaker) else None
    if ruling is not None and ruling.state is not breaker.computed_state:
        return ruling.because
    if breaker.computed_state is State.CLOSED:
        counts = breaker.counts()
        return f"{counts.failed} of {counts.total} calls failed lately"
    return breaker.reason


def _daemons(target: TargetBoard, operation: str) -> Iterator[str]:
    """What each of several daemons thinks of a breaker, and what holds."""
    ballot = target.ballot(operation)
    if ballot is None or (ballot.voters < 2 and target.elsewhere is None):
        return
    yield ballot.told()
    for daemon, view in ballot.views.items():
        why_ = f": {view.reason}" if view.opinion is Opinion.OPEN else ""
        differs = " (of another mind)" if daemon in ballot.minority else ""
        yield f"{daemon} sees it {view.opinion.value}{differs}{why_}"


def _verbs(breaker: Breaker) -> Iterator[str]:
    """What can be done to it, the most likely first."""
    override = breaker.override
    if override is not None:
        yield "auto"
    done = None if override is None else override.state
    for verb, state in VERBS.items():
        if state is not None and done is not state:
            yield verb


def bars_of(target: TargetBoard, operation: str, clock: Clock) -> list[Bar]:
    """What *operation*'s breaker goes by, each against its threshold. Nothing unless it
    is closed: what happens after that is not counted, and the window runs empty."""
    breaker = target.breakers[operation]
    if breaker.computed_state is not State.CLOSED:
        return []
    counts, policy = breaker.counts(clock.now()), breaker.policy
    bars = []
    enough = counts.total >= policy.minimum_calls
    if counts.total and policy.minimum_calls < NEVER:
        said = f"{counts.failed} of {counts.total} in {neat(policy.window)}"
        bars.append(
            Bar("failed", counts.failure_ratio, policy.failure_rate, said, enough)
        )
    if counts.slow and policy.slow_rate is not None and policy.slow_call:
        said = f"{counts.slow} of {counts.total} took {neat(policy.slow_call)}"
        bars.append(Bar("slow", counts.slow_ratio, policy.slow_rate, said, enough))
    return bars


def slots_of(target: TargetBoard) -> Bar | None:
    """Connection slots at the server, None when nobody has counted them."""
    used, usable = number(target, "slots_used"), number(target, "slots_usable")
    if used is None or not usable:
        return None
    return Bar("connections", used / usable, FULL, f"{used:.0f} of {usable:.0f}")


def pooler_of(target: TargetBoard) -> Bar | None:
    """Clients at the pooler, None where there is none."""
    ratio = number(target, "pooler_client_ratio")
    return None if ratio is None else Bar("pooler", ratio, FULL, percent(ratio))


def number(target: TargetBoard, fact: str) -> float | None:
    """A fact that is a number, None when it is not known."""
    value = target.facts.get(fact)
    return float(value) if isinstance(value, int | float) else None
