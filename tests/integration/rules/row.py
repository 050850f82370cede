"""One row of the table of alerts, and what promtool is asked about it.

A row is a little play. Several actors (targets, breakers, daemons) are well at first,
are in trouble for a while, each in its own way, and are well again. The row says which
of them are told of, in which words, after how long, and for how long after the end.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

GRAFANA: Final = "https://grafana.example.org/d/"
RUNBOOKS: Final = "https://runbooks.example.org/"

# Who a series is of: what alerts are told by. `$t` is the actor's name.
TARGET: Final = {"job": "pgbreaker", "target": "$t"}
BREAKER: Final = {**TARGET, "operation": "read", "breaker": "$t/read"}
LIBRARY: Final = {"job": "shop", "breaker": "$t"}
JOB: Final = {"job": "$t"}

_OWNERS: Final = {"$T": TARGET, "$B": BREAKER, "$L": LIBRARY, "$J": JOB}
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """Read a duration such as 1m30s."""
    parts = re.findall(r"(\d+)([smhd])", text)
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


class Once(NamedTuple):
    """A counter grows by so much when trouble begins, and no more."""

    by: float


class Rising(NamedTuple):
    """A gauge begins with a value, and grows by so much in a second."""

    start: float
    by: float


class Halted(NamedTuple):
    """A clock stands still."""


Amount: TypeAlias = float | Once | Rising | Halted | None
"""What a series shows: the value of a gauge, the growth of a counter in a second; None:
it is not there."""

Said: TypeAlias = str | tuple[str, ...]


class Act(NamedTuple):
    """Numbers of samples before, in and after trouble, and seconds between them."""

    before: int
    during: int
    after: int
    step: int


@dataclass(frozen=True, slots=True)
class Series:
    """One series of every actor.

    Attributes:
        name: With labels, in which $T, $B, $L and $J stand for those of the owner.
        kind: ``gauge``, ``counter`` or ``clock``.
        good: What it shows while all is well.
        trouble: Actor -> what it shows in trouble; of actors not named: `good`.
    """

    name: str
    kind: str
    good: Amount
    trouble: Mapping[str, Amount]

    def of(self, actor: str) -> str:
        """The name, with the labels that it has for *actor*."""
        name = self.name
        for word, labels in _OWNERS.items():
            owner = {**labels, "instance": "one"}
            matchers = ", ".join(f'{k}="{v}"' for k, v in owner.items())
            name = name.replace(word, matchers)
        return name.replace("$t", actor)

    def values(self, actor: str, act: Act) -> str:
        """Its samples, in promtool's words."""
        amount = self.trouble.get(actor, self.good)
        if isinstance(amount, Once):
            # From 3 and not from 0, which increase() knows to be the beginning.
            grown = f"{3 + amount.by:g}x{act.during + act.after - 1}"
            return f"3x{act.before - 1} {grown}"
        runs = ((act.before, self.good), (act.during, amount), (act.after, self.good))
        show = {"gauge": _gauge, "counter": _counter, "clock": _clock}[self.kind]
        return " ".join(show(runs, act.step))


_Runs: TypeAlias = tuple[tuple[int, Amount], ...]


def _gauge(runs: _Runs, step: int) -> Iterator[str]:
    for count, value in runs:
        match value:
            case None:
                yield f"stale _x{count - 1}" if count > 1 else "stale"
            case Rising(start, by):
                yield f"{start:.12g}+{by * step:.12g}x{count - 1}"
            case float() | int():
                yield f"{value:.12g}x{count - 1}"


def _counter(runs: _Runs, step: int) -> Iterator[str]:
    last: float | None = None
    for count, rate in runs:
        assert isinstance(rate, float | int)
        grows = rate * step
        # A hair more: promtool adds up floats, and what falls by one bit was reset.
        first = 0.0 if last is None else math.ceil((last + grows) * 1000) / 1000
        yield f"{first:.12g}+{grows:.12g}x{count - 1}"
        last = first + grows * (count - 1)


def _clock(runs: _Runs, step: int) -> Iterator[str]:
    at = 0
    for count, value in runs:
        runs_on = not isinstance(value, Halted)
        yield f"{at}+{step}x{count - 1}" if runs_on else f"{at - step}x{count - 1}"
        at += count * step


def gauge(name: str, good: Amount, **trouble: Amount) -> Series:
    """A value."""
    return Series(name, "gauge", good, trouble)


def counter(name: str, good: float = 0.0, **trouble: Amount) -> Series:
    """What grows by so much in a second."""
    return Series(name, "counter", good, trouble)


def clock(name: str, **trouble: Halted) -> Series:
    """A Unix time that is now, unless halted."""
    return Series(name, "clock", 0.0, trouble)


def histogram(name: str, **bounds: Mapping[str, float | Once]) -> tuple[Series, ...]:
    """A histogram of one observation in a second.

    Args:
        bounds: Upper bound, as le_0_25 -> actor -> share of its observations at or
            below it; "good" for those not named, 1 unless it is.
    """
    made = []
    for bound, shares in bounds.items():
        le = bound.removeprefix("le_").replace("_", ".").replace("inf", "+Inf")
        labelled = name.replace("{", f'_bucket{{le="{le}", ', 1)
        good = shares.get("good", 1.0)
        assert isinstance(good, float | int)
        trouble = {actor: share for actor, share in shares.items() if actor != "good"}
        made.append(counter(labelled, good, **trouble))
    return tuple(made)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One alert, and what happens.

    Attributes:
        alert: Its name, without the house's.
        title: What this row is of, where an alert has several.
        series: What there is to see.
        labels: Those of the alert, apart from its severity; $t is the actor.
        says: Actor -> what its text says in place of {0}, {1}; whoever is not named is
            not told of.
        waits: Time for which it has to be true, as the rule says.
        keeps: Time for which it goes on after that, as the rule says. None: it never
            ends.
        sees: Time from the beginning of trouble until the first actor is seen in it.
        by: Time from the beginning until all are told of. None: when the rule says so.
        lasts: Length of the trouble. None: a minute, or two steps, more than that.
        lingers: Time for which trouble is seen after it is over.
        begins: Time of health before it.
        slack: How exactly all this is held.
        step: Time between scrapes, and between evaluations.
        alone: Whether there is but one actor, called "bad".
        twice: Whether there is another process to which all of them are well, and
            whose word does not count against the first one's.
    """

    alert: str
    title: str = ""
    series: tuple[Series, ...]
    labels: Mapping[str, str]
    severity: str
    summary: str = ""
    description: str = ""
    board: str = ""
    says: Mapping[str, Said] = field(default_factory=lambda: {"bad": (), "over": ()})
    waits: str
    keeps: str | None
    sees: str = "0s"
    by: str | None = None
    lasts: str | None = None
    lingers: str = "0s"
    begins: str = "5m"
    slack: str = "15s"
    step: str = "15s"
    alone: bool = False
    twice: bool = False

    @property
    def name(self) -> str:
        """The alert's name, as the rules have it."""
        return f"Pgbreaker{self.alert}"

    @property
    def actors(self) -> tuple[str, ...]:
        """Who is there; "good" is never in trouble."""
        if self.alone:
            return ("bad",)
        named = {actor for one in self.series for actor in one.trouble}
        return tuple(sorted(named | {"bad", "good", "under", "over"}))

    def test(self) -> dict[str, Any]:
        """What promtool is asked: every actor's samples, and who is told of when."""
        begins, step, slack = map(seconds, (self.begins, self.step, self.slack))
        early = begins + seconds(self.sees) + seconds(self.waits) - slack
        told = begins + self._told
        end = begins + self._lasts + seconds(self.lingers) + seconds(self.keeps or "0s")
        is_told = bool(self.says)
        return {
            "name": f"{self.name} {self.title}".strip(),
            "interval": self.step,
            "input_series": list(self._samples(end + 2 * slack + step)),
            "alert_rule_test": [
                *([] if self.keeps is None else [self._check(early, ())]),
                self._check(told, self.says),
                *([] if is_told else [self._check(end, ())]),
            ],
            "promql_expr_test": [
                *([self._asks(end - slack, fires=True)] if is_told else []),
                *([] if self.keeps is None else [self._asks(end + slack, fires=False)]),
            ],
        }

    @property
    def _is_timed(self) -> bool:
        """Whether trouble is a yes or no: then what is just under is just too short."""
        return not any("under" in one.trouble for one in self.series)

    @property
    def _told(self) -> int:
        """Seconds from the beginning of trouble until all are told of."""
        if self.by is not None:
            return seconds(self.by)
        return seconds(self.sees) + seconds(self.waits) + seconds(self.slack)

    @property
    def _lasts(self) -> int:
        more = max(60, 2 * seconds(self.step))
        return self._told + more if self.lasts is None else seconds(self.lasts)

    def _samples(self, until: int) -> Iterator[dict[str, str]]:
        step, begins = seconds(self.step), seconds(self.begins)
        seen: set[str] = set()
        for actor in self.actors:
            lasts, shows = self._lasts, actor
            if self._is_timed and actor in ("under", "over"):
                edge = seconds(self.slack) * (1 if actor == "over" else -1)
                lasts, shows = max(step, seconds(self.waits) + edge), "bad"
            after = max(1, (until - begins - lasts) // step)
            act = Act(begins // step, lasts // step, after, step)
            for one in self.series:
                name = one.of(actor)
                shown = {name: one.values(shows, act)}
                if self.twice:
                    other = name.replace('instance="one"', 'instance="two"')
                    shown.setdefault(other, one.values("good", act))
                for each in shown.keys() - seen:
                    seen.add(each)
                    yield {"series": each, "values": shown[each]}

    def _check(self, at: int, told: Mapping[str, Said] | tuple[()]) -> dict[str, Any]:
        alerts = [self._alert(actor, self.says[actor]) for actor in told]
        return {"eval_time": f"{at}s", "alertname": self.name, "exp_alerts": alerts}

    def _alert(self, actor: str, said: Said) -> dict[str, Any]:
        words = (said,) if isinstance(said, str) else said

        def text(pattern: str) -> str:
            return pattern.format(*words).replace("$t", actor)

        return {
            "exp_labels": self._labels(actor),
            "exp_annotations": {
                "summary": text(self.summary),
                "description": text(self.description),
                "runbook_url": f"{RUNBOOKS}{self.name}.md",
                "dashboard_url": GRAFANA + text(self.board),
            },
        }

    def _labels(self, actor: str) -> dict[str, str]:
        own = {name: text.replace("$t", actor) for name, text in self.labels.items()}
        return {"severity": self.severity, **own}

    def _asks(self, at: int, *, fires: bool) -> dict[str, Any]:
        """Whether it still fires is asked of ALERTS, which knows nothing of the text:
        what it said last depends on the very moment at which it ended."""
        # Between two evaluations further apart than 5 minutes nothing is there to see.
        assert at % seconds(self.step) == 0, f"{self.name}: {at} s is no evaluation"
        labels = {"alertname": self.name, **self._labels("bad")}
        sample = {"labels": _alerts({**labels, "alertstate": "firing"}), "value": 1}
        return {
            "expr": _alerts(labels),
            "eval_time": f"{at}s",
            "exp_samples": [sample] if fires else [],
        }


def _alerts(labels: Mapping[str, str]) -> str:
    return "ALERTS{" + ", ".join(f'{k}="{v}"' for k, v in labels.items()) + "}"
