"""What an application tells of its breakers: a report.

It is read strictly where it says who tells and how things are, and otherwise gently: what
is too long is cut, and what is not known here is left out, so that libraries that are newer
than the daemon may say more. A report decides nothing.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from pgbreaker.core.states import SHUT, State
from pgbreaker.core.text import tidy

MOST: Final = 200
"""Breakers that a report has at most."""

OUTCOMES: Final = (
    *("success", "failure", "slow", "ignored", "unreached"),
    *("cut", "released", "rejected", "fallback", "stale"),
)
"""What calls come to, as an application counts them."""

INSTANCE: Final = 120
"""Characters that the name of a process has at most."""

APPLICATION: Final = 60
NAME: Final = 120
REASON: Final = 300

W = TypeVar("W", bound=StrEnum)
D = TypeVar("D")

_COUNT: Final = 2**63  # more calls than anybody makes
_NAMED: Final = 10  # mistakes that are told; who makes more makes the same again


class By(StrEnum):
    """Who holds a breaker that does not let calls pass."""

    CALLS = "calls"  # its own: the process has seen it fail
    ADVICE = "advice"  # the daemon's
    OPERATOR = "operator"


class NoReportError(Exception):
    """It is none.

    Attributes:
        errors: Field, and what is wrong with it.
    """

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {said}" for field, said in errors))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of one breaker of a process.

    Attributes:
        name: Its name in the process.
        follows: The daemon's breaker whose advice it takes. None: none.
        state: What its callers feel.
        computed_state: What it would be without operator and advice.
        by: Who holds it where calls do not pass as a matter of course. None: they do, or
            nobody has a hand in it.
        reason: Why, in one sentence.
        calls: Outcome -> calls that came to it since the process began.
    """

    name: str
    follows: str | None
    state: State
    computed_state: State
    by: By | None
    reason: str
    calls: Mapping[str, int]

    @property
    def held(self) -> By | None:
        """Who keeps calls from passing. None: they pass."""
        if self.state not in SHUT:
            return None
        if self.by is not None:
            return self.by
        return By.OPERATOR if self.state is State.FORCED_OPEN else By.CALLS

    def written(self) -> dict[str, Any]:
        """As it is shown, fit for JSON."""
        return {
            "name": self.name,
            "follows": self.follows,
            "state": self.state.value,
            "computed_state": self.computed_state.value,
            "by": None if self.by is None else self.by.value,
            "reason": self.reason,
            "calls": dict(self.calls),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What one process tells.

    Attributes:
        instance: The process: another for each, also after a restart.
        application: What people call the service. None: they did not say.
        breakers: What it tells of each of its breakers.
    """

    instance: str
    application: str | None
    breakers: tuple[Told, ...]

    def stances(self) -> dict[str, Told]:
        """The daemon's breaker -> of those that follow it, the one that says most: one
        that its own calls hold goes first, for that is what the daemon may not know."""
        found: dict[str, Told] = {}
        for told in self.breakers:
            if told.follows is None:
                continue
            known = found.get(told.follows)
            if known is None or _weight(told) > _weight(known):
                found[told.follows] = told
        return found


_WEIGHTS: Final = {None: 0, By.OPERATOR: 1, By.ADVICE: 2, By.CALLS: 3}


def _weight(told: Told) -> int:
    return _WEIGHTS[told.held]


def report_of(given: Mapping[str, Any]) -> Report:
    """Read a report.

    Raises:
        NoReportError: It is none; all that is wrong with it is told.
    """
    reading = _Reading()
    instance = reading.instance(given)
    application = reading.text(given, "application", APPLICATION, may_lack=True)
    breakers = tuple(reading.breakers(given))
    if reading.errors:
        raise NoReportError(reading.errors[:_NAMED])
    # A thousand processes of one service say the same word.
    return Report(instance, sys.intern(application) or None, breakers)


class _Reading:
    """Reads a report, and notes what is wrong with it."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []

    def wrong(self, field: str, said: str) -> None:
        self.errors.append((field, said))

    def instance(self, given: Mapping[str, Any]) -> str:
        value = given.get("instance")
        # Cut it would be the name of several.
        if not isinstance(value, str) or not 0 < len(value) <= INSTANCE:
            self.wrong("instance", f"is a text of 1 to {INSTANCE} characters")
        elif not value.isprintable():
            self.wrong("instance", "has characters that cannot be printed")
        else:
            return value
        return ""

    def breakers(self, given: Mapping[str, Any]) -> Iterator[Told]:
        value = given.get("breakers")
        if not isinstance(value, list):
            self.wrong("breakers", "is a list, which may be empty")
        elif len(value) > MOST:
            self.wrong("breakers", f"{len(value)} are too many; there may be {MOST}")
        else:
            for place, one in enumerate(value):
                where = f"breakers[{place}]"
                if isinstance(one, dict):
                    yield self._told(one, f"{where}.")
                else:
                    self.wrong(where, "is an object")

    def _told(self, given: Mapping[str, Any], where: str) -> Told:
        state = self._word(given, "state", where, State, State.CLOSED, is_needed=True)
        return Told(
            name=self.text(given, "name", NAME, where),
            follows=self.text(given, "follows", NAME, where, may_lack=True) or None,
            state=state,
            computed_state=self._word(given, "computed_state", where, State, state),
            by=self._word(given, "by", where, By, None),
            reason=self.text(given, "reason", REASON, where, may_lack=True),
            calls=self._calls(given, where),
        )

    def text(
        self,
        given: Mapping[str, Any],
        name: str,
        longest: int,
        where: str = "",
        *,
        may_lack: bool = False,
    ) -> str:
        """A text on one line, cut where it is too long; empty where there is none."""
        value = given.get(name)
        if value is None and may_lack:
            return ""
        if not isinstance(value, str) or not (value or may_lack):
            self.wrong(f"{where}{name}", "is a text")
            return ""
        return tidy(value, longest)

    def _word(
        self,
        given: Mapping[str, Any],
        name: str,
        where: str,
        there_are: type[W],
        default: D,
        *,
        is_needed: bool = False,
    ) -> W | D:
        value = given.get(name)
        if value is None and not is_needed:
            return default
        for word in there_are:
            if word == value:
                return word
        self.wrong(f"{where}{name}", f"is one of {', '.join(there_are)}")
        return default

    def _calls(self, given: Mapping[str, Any], where: str) -> Mapping[str, int]:
        value = given.get("calls")
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(f"{where}calls", "is an object: outcome to count")
            return {}
        counts = {outcome: value[outcome] for outcome in OUTCOMES if outcome in value}
        for outcome, count in counts.items():
            # Not by isinstance: True is an int, too.
            if type(count) is not int or not 0 <= count < _COUNT:
                self.wrong(f"{where}calls.{outcome}", "is a whole number, 0 or more")
        return counts


@dataclass(frozen=True, slots=True)
class Voice:
    """Why one process does not let calls pass.

    Attributes:
        instance: The process.
        application: What people call the service. None: they did not say.
        breaker: Its breaker, by the name that it has there.
        by: Who holds it.
        reason: In one sentence.
    """

    instance: str
    application: str | None
    breaker: str
    by: By
    reason: str

    @property
    def hand(self) -> str:
        """Who holds it, for people."""
        return _HANDS[self.by][1]

    def written(self) -> dict[str, Any]:
        """As it is shown, fit for JSON."""
        return {
            "instance": self.instance,
            "application": self.application,
            "breaker": self.breaker,
            "by": self.by.value,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Crowd:
    """The processes that follow one of the daemon's breakers, and report.

    Attributes:
        processes: How many there are.
        held: Who holds it -> processes in which calls do not pass for that.
        voices: The newest of these, a few, the newest first.
    """

    processes: int
    held: Mapping[By, int]
    voices: tuple[Voice, ...] = ()

    @property
    def open(self) -> int:
        """Processes in which calls do not pass."""
        return sum(self.held.values())

    def written(self) -> dict[str, Any]:
        """As it is shown, fit for JSON; the voices apart."""
        return {
            "processes": self.processes,
            "open": self.open,
            **{f"by_{by.value}": self.held.get(by, 0) for by in By},
            "text": self.text,
        }

    @property
    def is_troubled(self) -> bool:
        """Whether a quarter of them, or more, found out by themselves that it fails."""
        return 0 < self.processes <= 4 * self.held.get(By.CALLS, 0)

    @property
    def text(self) -> str:
        """How many have it open, by whom, and why: one sentence."""
        why = self.voices[0].reason if self.voices else ""
        return self.summary + (f": {why}" if why else "")

    @property
    def summary(self) -> str:
        """How many have it open, and by whom."""
        count, all_ = self.open, self.processes
        if not count:
            if all_ == 1:
                return "the one process that reports does not have it open"
            return f"none of the {all_} processes that report has it open"
        held = {by: self.held[by] for by in By if self.held.get(by)}
        if len(held) == 1:
            by = _HANDS[next(iter(held))][count == 1]
        else:
            by = ", ".join(f"{n} {_HANDS[by][n == 1]}" for by, n in held.items())
        said = f"{count} of {all_} {'process' if all_ == 1 else 'processes'}"
        has = "has" if count == 1 else "have"
        return f"{said} {has} it open, {by}"


_HANDS: Final = {  # of several processes, of one
    By.CALLS: ("by their own calls", "by its own calls"),
    By.ADVICE: ("by advice", "by advice"),
    By.OPERATOR: ("by an operator", "by an operator"),
}
