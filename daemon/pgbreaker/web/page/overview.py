"""What matters first: the verdict, what to know besides, what needs attention."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgbreaker.core.forecast.warning import KINDS
from pgbreaker.core.units import counted, lasting
from pgbreaker.sinks.board import Condition, TargetBoard
from pgbreaker.web.inside import Inside
from pgbreaker.web.page.breakers import (
    BreakerSight,
    bars_of,
    pooler_of,
    sight_of,
    slots_of,
    target_path,
)
from pgbreaker.web.page.drawing import Bar
from pgbreaker.web.page.forecast import Warned, warned
from pgbreaker.web.page.targets import rank_of, slug
from pgbreaker.web.page.words import CONDITIONS, Look

CARDS: Final = 12
"""Targets that are shown in full at the top; the list below has all of them."""

_NAMED: Final = 3  # breakers that the verdict names


@dataclass(frozen=True, slots=True)
class Verdict:
    """How everything is, in one line.

    Attributes:
        tone: ``good``, ``warn`` or ``bad``.
        says: The line.
        more: What there is to add. Empty: nothing.
    """

    tone: str
    says: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Banner:
    """Something to know before anything is done.

    Attributes:
        name: What it is about, in one word.
        tone: ``bad``, ``warn`` or ``hand``.
        says: In one sentence.
        link: Where more is to be seen, below the root. None: nowhere.
    """

    name: str
    tone: str
    says: str
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """A breaker that needs attention, and what it goes by."""

    sight: BreakerSight
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """A target that needs attention.

    Attributes:
        why: Why, in one sentence.
        troubles: Its breakers that are not as usual.
        bars: What of the target itself is measured against a threshold.
        warned: What it is warned of, the most urgent first.
    """

    name: str
    slug: str
    path: str
    look: Look
    rank: int
    why: str
    troubles: tuple[Trouble, ...]
    bars: tuple[Bar, ...]
    warned: tuple[Warned, ...]
    window: str | None

    @property
    def tone(self) -> str:
        """How it stands out."""
        return "warn" if self.warned and self.look.tone == "good" else self.look.tone


class Overview:
    """What is true now of every target, judged for people."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._targets = list(inside.board.targets.values())

    def verdict(self) -> Verdict:
        """How everything is, in one line."""
        in_work = [t for t in self._targets if self._window(t) is not None]
        meant = [t for t in self._targets if self._window(t) is None]
        more = f"{counted(len(in_work), 'target')} in maintenance" if in_work else ""
        if not self._targets:
            return Verdict("warn", "No target is watched")
        shut = [s for t in meant for s in self._shut(t)]
        if shut:
            return self._of_shut(shut, more)
        troubled = [t for t in meant if t.condition is not Condition.UP]
        if troubled:
            return _of_troubled(troubled, more)
        ahead = {t.plan.name: told[0] for t in meant if (told := warned(t))}
        if ahead:
            return _of_warned(ahead, more)
        if not meant:
            return Verdict("warn", f"All {_targets(self._targets)} in maintenance")
        says = (
            f"All {_targets(meant)} healthy" if len(meant) > 1 else "1 target, healthy"
        )
        return Verdict("good", says, more)

    def _shut(self, target: TargetBoard) -> Iterator[BreakerSight]:
        for operation, breaker in target.breakers.items():
            if not breaker.passes:
                yield sight_of(target, operation, self._inside.clock)

    def _of_shut(self, shut: Sequence[BreakerSight], more: str) -> Verdict:
        wall = self._inside.clock.wall()
        if len(shut) == 1:
            one = shut[0]
            since = lasting(max(0.0, wall - one.since))
            says = f"1 breaker {one.look.word}: {one.name} for {since} — {one.why}"
            return Verdict("bad", says, more)
        words: dict[str, int] = {}
        for sight in sorted(shut, key=lambda s: s.look.rank):
            words[sight.look.word] = words.get(sight.look.word, 0) + 1
        names = ", ".join(sight.name for sight in shut[:_NAMED])
        rest = f" and {len(shut) - _NAMED} more" if len(shut) > _NAMED else ""
        if len(words) == 1:
            what = f"{len(shut)} breakers {shut[0].look.word}"
        else:
            counts = ", ".join(f"{count} {word}" for word, count in words.items())
            what = f"{len(shut)} breakers not closed ({counts})"
        # What ails one server ails all that it does: then there is one reason.
        reasons = {sight.why for sight in shut}
        why = f" — {shut[0].why}" if len(reasons) == 1 else ""
        return Verdict("bad", f"{what}: {names}{rest}{why}", more)

    def banners(self) -> Iterator[Banner]:
        """What there is to know before anything is done."""
        inside = self._inside
        overrides = inside.desk.overrides
        if overrides:
            names = ", ".join(list(overrides)[:_NAMED])
            rest = len(overrides) - _NAMED
            more = f" and {rest} more" if rest > 0 else ""
            count = counted(len(overrides), "override")
            says = f"{count} active: {names}{more} — the breaker's own decision does not count there"
            yield Banner("override", "hand", says, "events?kind=override")
        yield from self._maintenance()
        trouble = inside.health()
        if trouble is not None:
            yield Banner("daemon", "bad", f"The daemon itself is unwell: {trouble}")
        waiting = inside.ready()
        if waiting is not None:
            yield Banner("starting", "warn", f"Not ready yet: {waiting}")
        yield from self._refused_reload()
        yield from self._store()
        yield from self._engine()

    def _engine(self) -> Iterator[Banner]:
        circle, why = self._inside.board.circle, self._inside.views.engine_problem()
        if circle is not None and circle.is_alone:
            says = (
                f"The engine that daemons share is lost: {why}. {circle.name} goes on"
                " alone, by what it sees itself"
            )
            yield Banner("engine", "warn", says)

    def _maintenance(self) -> Iterator[Banner]:
        now = self._inside.clock.wall()
        for window in self._inside.desk.windows.values():
            if window.starts <= now < window.ends:
                targets = ", ".join(
                    "all targets" if t == "*" else t for t in window.targets
                )
                left = lasting(window.ends - now)
                says = f"Maintenance of {targets} for another {left}: {window.reason} ({window.author})"
                yield Banner(f"maintenance-{window.id}", "hand", says, "maintenance")

    def _refused_reload(self) -> Iterator[Banner]:
        last = self._inside.views.last_reload()
        if last is not None and last.problem is not None:
            problems = "; ".join(last.problem.splitlines())
            says = f"The configuration on disk is not in force: {problems}"
            yield Banner("reload", "bad", says, "events?kind=reload")

    def _store(self) -> Iterator[Banner]:
        stored = self._inside.views.stored()
        if stored is not None and stored.audit_fault is not None:
            says = f"The audit log is not as it was written: {stored.audit_fault}"
            yield Banner("audit", "bad", says, "events?kind=daemon")
        if stored is not None and stored.degraded is not None:
            says = (
                f"The store cannot be written to: {stored.degraded}. Overrides and"
                " maintenance are refused until it can; probes and breakers go on"
            )
            yield Banner("store", "bad", says)

    def cards(self) -> list[Card]:
        """Targets that need attention, the worst first."""
        found = [card for target in self._targets if (card := self._card(target))]
        return sorted(found, key=lambda card: (card.rank, card.name))

    def _card(self, target: TargetBoard) -> Card | None:
        inside, condition = self._inside, target.condition
        told = warned(target)
        as_usual = all(
            b.override is None and b.computed_passes for b in target.breakers.values()
        )
        sights = [sight_of(target, o, inside.clock) for o in target.breakers]
        as_usual &= not any(sight.is_troubled for sight in sights)
        if condition is Condition.UP and as_usual and not told:
            return None
        troubles = tuple(
            Trouble(s, tuple(bars_of(target, s.operation, inside.clock)))
            for s in sights
            if not s.is_well or s.is_troubled
        )
        bars = tuple(b for b in (slots_of(target), pooler_of(target)) if b)
        window = inside.desk.window_of(target.plan.name)
        return Card(
            name=target.plan.name,
            slug=slug(target.plan.name),
            path=target_path(target.plan.name),
            look=CONDITIONS[condition],
            rank=rank_of(target, condition),
            why=_why(target, troubles),
            troubles=troubles,
            bars=bars,
            warned=told,
            window=None if window is None else window.reason,
        )

    def _window(self, target: TargetBoard) -> object | None:
        return self._inside.desk.window_of(target.plan.name)


def _why(target: TargetBoard, troubles: Sequence[Trouble]) -> str:
    """What to say of a target as a whole, which its breakers do not say already."""
    sights = [t.sight for t in troubles]
    machine = [s for s in sights if s.override is None and not s.is_troubled]
    reasons = {sight.why for sight in machine}
    if len(reasons) == 1:
        return machine[0].why
    return "" if troubles or target.condition is Condition.UP else target.reason


def _of_troubled(troubled: Sequence[TargetBoard], more: str) -> Verdict:
    if len(troubled) == 1:
        one = troubled[0]
        word = CONDITIONS[one.condition].word
        says = f"No breaker open, but {one.plan.name} is {word}: {one.reason}"
        return Verdict("warn", says, more)
    names = ", ".join(f"{t.plan.name} ({t.condition.value})" for t in troubled[:_NAMED])
    rest = f" and {len(troubled) - _NAMED} more" if len(troubled) > _NAMED else ""
    says = f"No breaker open, but {len(troubled)} targets are not well: {names}{rest}"
    return Verdict("warn", says, more)


def _of_warned(ahead: Mapping[str, Warned], more: str) -> Verdict:
    """Name the target on which something comes first, and what that is."""
    name = min(ahead, key=lambda name: _urgency(ahead[name]))
    who = f"{name} has a warning"
    if len(ahead) > 1:
        who = f"{len(ahead)} targets have warnings, first {name}"
    says = f"No breaker open, but {who}: {ahead[name].reason}"
    return Verdict("warn", says, more)


def _urgency(told: Warned) -> float:
    # What is no question of time is one of a quarter of an hour.
    return KINDS[told.of].within if told.left is None else told.left


def _targets(targets: Sequence[TargetBoard]) -> str:
    return counted(len(targets), "target")
