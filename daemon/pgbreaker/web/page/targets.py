"""One target, as a row of the list and as the head of its page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from pgbreaker.core.judge import PING
from pgbreaker.core.report import Crowd
from pgbreaker.core.units import Seconds, lasting, server_version
from pgbreaker.sinks.board import Condition, TargetBoard
from pgbreaker.web.inside import Inside
from pgbreaker.web.page.breakers import (
    BreakerSight,
    look_of,
    number,
    pooler_of,
    sight_of,
    slots_of,
    target_path,
)
from pgbreaker.web.page.drawing import Bar, Line, line
from pgbreaker.web.page.forecast import Warned, warned
from pgbreaker.web.page.words import CONDITIONS, Look


@dataclass(frozen=True, slots=True)
class Replication:
    """How replication is, in a word."""

    tone: str
    sign: str
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A target as it is shown.

    Attributes:
        slug: Its name, fit for an ``id``.
        rank: Its place when the worst comes first.
        interval: Seconds between two pings.
        changed: Wall time of the last move of any of its breakers.
        window: Whether maintenance is done on it now.
        group: What it is grouped by: its first label. Empty where it has none.
        warned: What it is warned of, the most urgent first.
        watchers: The daemons that watch it. None: this one does.
    """

    name: str
    slug: str
    path: str
    look: Look
    rank: int
    reason: str
    labels: Mapping[str, str]
    group: str
    breakers: tuple[BreakerSight, ...]
    replication: Replication | None
    line: Line
    slots: Bar | None
    pooler: Bar | None
    interval: Seconds
    version: str | None
    role: str | None
    changed: float
    window: bool
    warned: tuple[Warned, ...]
    watchers: tuple[str, ...] | None = None

    @property
    def overridden(self) -> bool:
        """Whether somebody's word stands before one of its breakers."""
        return any(sight.override is not None for sight in self.breakers)

    @property
    def worst(self) -> str:
        """The page of the breaker that is worst, below the root."""
        return min(self.breakers, key=lambda sight: sight.look.rank).path

    @property
    def tags(self) -> frozenset[str]:
        """What it is shown by."""
        tags = {self.look.word}
        if self.rank < CONDITIONS[Condition.UP].rank:
            tags.add("trouble")
        if self.warned:
            tags.add("warned")
        if self.overridden:
            tags.add("override")
        if self.window:
            tags.add("maintenance")
        return frozenset(tags)

    @property
    def words(self) -> str:
        """What it is found by."""
        labels = (f"{label}={value}" for label, value in self.labels.items())
        parts = (self.name, self.look.word, self.role or "", *labels)
        return " ".join(filter(None, parts)).lower()


def row_of(inside: Inside, target: TargetBoard) -> Row:
    """Look at *target*."""
    name, recent = target.plan.name, inside.recent.targets.get(target.plan.name)
    sights = tuple(sight_of(target, o, inside.clock) for o in target.breakers)
    condition = target.condition
    return Row(
        name=name,
        slug=slug(name),
        path=target_path(name),
        look=CONDITIONS[condition],
        rank=rank_of(target, condition),
        reason=target.reason,
        labels=target.plan.labels,
        group=group_of(target),
        breakers=sights,
        replication=_replication(target),
        line=line(recent.course if recent else None, inside.clock.now()),
        slots=slots_of(target),
        pooler=pooler_of(target),
        interval=target.plan.probes[PING].interval
        if PING in target.plan.probes
        else min(p.interval for p in target.plan.probes.values()),
        version=_version(target),
        role=_role(target),
        changed=max(target.moved.values(), default=0.0),
        window=inside.desk.window_of(name) is not None,
        warned=warned(target),
        watchers=None if target.elsewhere is None else target.elsewhere.daemons,
    )


def slug(name: str) -> str:
    """A name, fit for an ``id``: these take no spaces."""
    return quote(name, safe="")


def group_of(target: TargetBoard) -> str:
    """What a target is grouped by: its first label."""
    for label, value in target.plan.labels.items():
        return f"{label}={value}"
    return ""


def rank_of(target: TargetBoard, condition: Condition) -> int:
    """The place of *target* when the worst comes first."""
    looks = [look_of(breaker).rank for breaker in target.breakers.values()]
    return min([CONDITIONS[condition].rank, *looks])


def stamp_of(inside: Inside, target: TargetBoard) -> tuple[object, ...]:
    """What of a target is shown at once when it changes; the rest has time."""
    return (
        target.condition,
        *((b.state, b.computed_state, b.era) for b in target.breakers.values()),
        inside.desk.window_of(target.plan.name) is not None,
        target.elsewhere,
        *target.forewarnings,
        *(crowd and (crowd.open, crowd.processes) for crowd in _crowds(target)),
    )


def _crowds(target: TargetBoard) -> Iterator[Crowd | None]:
    return map(target.crowd, target.breakers)


def _version(target: TargetBoard) -> str | None:
    number_ = number(target, "version")
    return None if number_ is None else server_version(int(number_))


def _role(target: TargetBoard) -> str | None:
    match target.facts.get("in_recovery"):
        case None:
            return None
        case 0 | False:
            return "primary"
        case _:
            return "replica"


def _replication(target: TargetBoard) -> Replication | None:
    facts = target.facts
    standbys = facts.get("standbys")
    if "wal_receiver_up" in facts:
        age = number(target, "replay_age_seconds")
        if (
            not facts["wal_receiver_up"]
            and facts.get("wal_receiver_wanted") is not False
        ):
            return Replication("bad", "cross", "not streaming")
        if facts.get("replay_paused"):
            return Replication("warn", "triangle", "replay paused")
        word = "streaming" if age is None else f"{lasting(age)} behind"
        return Replication("good", "check", word)
    if isinstance(standbys, tuple) and standbys:
        count = len(standbys)
        streaming = sum(row.get("state") == "streaming" for row in standbys)
        if streaming == count:
            return Replication("good", "check", f"{count} streaming")
        return Replication("warn", "triangle", f"{streaming} of {count} streaming")
    return None
