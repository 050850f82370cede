"""What somebody asks for by a form: read, checked, said in words, done at the desk."""

import hashlib
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.states import Override, State
from pgbreaker.core.units import Seconds, duration, lasting
from pgbreaker.monitor.desk import LASTS, LONGEST, REASON, RefusedError
from pgbreaker.web.api.asked import SOMEONE
from pgbreaker.web.inside import Inside
from pgbreaker.web.page.words import neat
from pgbreaker.web.problems import UnknownError

VERBS: Final[Mapping[str, State | None]] = {
    "open": State.FORCED_OPEN,
    "close": State.CLOSED,
    "disable": State.DISABLED,
    "auto": None,
}
"""Verb, the same as on the command line -> the state that it asks for; None hands back."""

WORDS: Final = {
    "open": "Force open",
    "close": "Force closed",
    "disable": "Disable",
    "auto": "Hand back",
}

DONE: Final = {"open": "forced open", "close": "forced closed", "disable": "disabled"}

TIMES: Final = ("15m", "30m", "1h", "4h", "24h", "7d")
"""Times that the form offers."""

USUAL: Final = next(time for time in TIMES if duration(time) == LASTS)
"""The one that it proposes."""

UNDO_WITHIN: Final[Seconds] = 10.0
"""How long the undo is offered."""

UNDONE: Final = "taken back at once"


@dataclass(frozen=True, slots=True)
class Order:
    """What a form says.

    Attributes:
        verb: One of `VERBS`.
        lasting: How long it is to hold, as it was written.
        confirm: The breaker's name, typed by hand where that is asked for.
        was: The word that is to be taken back, as `word_of` says it. None: whatever
            there is.
        errors: Field -> what is wrong with it.
    """

    verb: str
    reason: str = ""
    lasting: str = USUAL
    author: str = ""
    confirm: str = ""
    was: str | None = None
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """What is to be done, for a button."""
        return WORDS[self.verb]


@dataclass(frozen=True, slots=True)
class Done:
    """An order that was carried out.

    Attributes:
        says: What is so now.
        path: Where the undo is sent, below the root.
        undo: Fields of the undo's form. None: there is nothing to take back.
    """

    says: str
    path: str
    undo: Mapping[str, str] | None


class Lately:
    """What was carried out a moment ago, for as long as it can be taken back."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Seconds, Done]] = {}

    def keep(self, done: Done, now: Seconds) -> str:
        """Keep *done*; returns the word to find it by."""
        self._kept = {w: kept for w, kept in self._kept.items() if kept[0] > now}
        word = secrets.token_hex(8)
        self._kept[word] = (now + UNDO_WITHIN, done)
        return word

    def find(self, word: str, now: Seconds) -> Done | None:
        """What *word* stands for, None when it is too late."""
        until, done = self._kept.get(word, (now, None))
        return done if until > now else None


def order_of(form: Mapping[str, object], name: str | None) -> Order:
    """Read a form, of somebody whose *name* may be known.

    Raises:
        UnknownError: It asks for what there is not.
    """

    def text(key: str, default: str = "") -> str:
        value = form.get(key, default)
        return value.strip() if isinstance(value, str) else ""

    verb = text("do")
    if verb not in VERBS:
        raise UnknownError("verb", verb, VERBS)
    return Order(
        verb=verb,
        reason=text("reason"),
        lasting=text("for", USUAL),
        author=name or text("author") or SOMEONE,
        confirm=text("confirm"),
        was=text("was") or None,
    )


def word_of(breaker: Breaker) -> str:
    """A word for what stands before the breaker's own decision, to know it again."""
    override = breaker.override
    if override is None:
        return "nothing"
    said = (
        f"{override.state.value} {override.author} {override.reason} {override.until}"
    )
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def is_risky(breaker: Breaker, verb: str) -> bool:
    """Whether *verb* sends calls to a server that fails: that takes a typed name."""
    return verb in ("close", "disable") and not breaker.computed_passes


def effect(breaker: Breaker, verb: str) -> str:
    """What *verb* brings about, in words."""
    operation = breaker.name.rpartition("/")[2]
    work = f"{operation} calls" if operation != "connect" else "new connections"
    address = f"/health/{breaker.name}"
    passes = f"{work} pass whatever the probes see; load balancers that ask {address} get 200"
    match verb:
        case "open":
            return (
                f"Every application that follows this breaker refuses {work} at once,"
                f" and load balancers that ask {address} get 503. Probes go on."
            )
        case "close":
            return f"From now on {passes}. The breaker goes on counting behind it."
        case "disable":
            return f"From now on {passes}, and are not counted."
        case _:
            state = breaker.computed_state.value.replace("_", "-")
            return f"The breaker decides by itself again: by what it saw it is {state}."


def command(breaker: Breaker, order: Order) -> str:
    """The same by the command line."""
    words = ["pgbreaker", order.verb, breaker.name, "--reason", order.reason or "…"]
    if VERBS[order.verb] is not None:
        words += ["--for", order.lasting]
    return shlex.join(words)


async def carry_out(inside: Inside, breaker: Breaker, order: Order, path: str) -> Done:
    """Do what *order* says.

    Raises:
        RefusedError: It is not to be had; the field is named.
        NotKeptError: It could not be written down, and so is not done.
    """
    if is_risky(breaker, order.verb) and order.confirm != breaker.name:
        why = f"type {breaker.name}: it fails, and calls would go to it all the same"
        raise RefusedError("confirm", why)

    def still(there: Breaker) -> bool:
        return order.was in (None, word_of(there))

    before = breaker.override
    state = VERBS[order.verb]
    if state is None:
        await inside.desk.hand_back(
            breaker, reason=order.reason, author=order.author, still=still
        )
        says = f"{breaker.name} decides by itself again"
    else:
        seconds = _seconds(order.lasting)
        await inside.desk.override(
            breaker,
            state,
            reason=order.reason,
            author=order.author,
            lasting=seconds,
            still=still,
        )
        says = f"{breaker.name} is {DONE[order.verb]} for {neat(seconds)}"
    return Done(says, path, _undo(before, breaker, order, inside.clock.now()))


def _seconds(text: str) -> Seconds:
    try:
        seconds = duration(text)
    except ValueError as error:
        raise RefusedError("for", str(error)) from None
    if not 0 < seconds <= LONGEST:
        raise RefusedError("for", f"it is between 0 and {lasting(LONGEST)}")
    return seconds


def _undo(
    before: Override | None, breaker: Breaker, order: Order, now: Seconds
) -> Mapping[str, str] | None:
    """The form that makes it as it was *before*."""
    if order.reason.startswith(UNDONE) or (before is None and order.verb == "auto"):
        return None
    fields = {
        "reason": UNDONE,
        "author": order.author,
        "confirm": breaker.name,
        "was": word_of(breaker),
    }
    if before is None:
        return fields | {"do": "auto"}
    verb = next((v for v, state in VERBS.items() if state is before.state), None)
    if verb is None:
        return None  # by a state that the page has no word for
    left = LASTS if before.until is None else max(1.0, before.until - now)
    back = f"{UNDONE}: {before.reason}"[: REASON[1]]
    return fields | {"do": verb, "reason": back, "for": f"{left:.0f}s"}
