"""Operators' words, which all daemons of an engine shall have before their breakers.

Of one breaker the last word holds, whoever heard it: each has a version, and the larger
one wins everywhere, in whatever order they come. That a word was taken back is one, too.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from pgbreaker.core.entry import Entry
from pgbreaker.core.states import OVERRIDES, State

# Seconds that a word is known: no older one that somebody has not heard it after
# holds for so long.
_KEPT: Final = 31 * 86400.0
_LONGEST: Final = 500  # characters of a text

Version: TypeAlias = tuple[int, str]
"""Milliseconds of the engine's wall time, and the daemon that was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetWord:
    """What an operator has decided about one breaker, for all daemons.

    Attributes:
        breaker: Its name.
        version: The larger one holds.
        state: What stands before its own. None: nothing any more.
        reason: Why.
        author: Who.
        until: Wall time of the engine at which it ends by itself, in seconds.
    """

    breaker: str
    version: Version
    state: State | None
    reason: str
    author: str
    until: float

    @property
    def daemon(self) -> str:
        """Who was asked."""
        return self.version[1]

    def is_over(self, now: float) -> bool:
        """Whether neither it nor an older one can still hold anywhere."""
        return max(self.until, self.version[0] / 1000 + _KEPT) <= now

    def written(self) -> str:
        """Write it, as JSON."""
        return json.dumps(
            {
                "version": list(self.version),
                "breaker": self.breaker,
                "state": None if self.state is None else self.state.value,
                "reason": self.reason,
                "author": self.author,
                "until": round(self.until, 3),
            },
            separators=(",", ":"),
        )


def read(text: str) -> FleetWord:
    """Read what `FleetWord.written` wrote.

    Raises:
        ValueError: It is none.
    """
    try:
        written = json.loads(text)
        ms, daemon = written["version"]
        state = None if written["state"] is None else State(written["state"])
        until = float(written["until"])
        texts = [written[name] for name in ("breaker", "reason", "author")]
    except (KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no word: {error!r}") from None
    is_read = isinstance(ms, int) and not isinstance(ms, bool) and 0 <= ms < 2**53
    if not is_read or not math.isfinite(until):
        raise ValueError(f"no word: version {ms!r}, until {until!r}")
    if not all(isinstance(text, str) for text in (daemon, *texts)):
        raise ValueError("no word: a text is none")
    if state is not None and state not in OVERRIDES:
        raise ValueError(f"no word: nobody can ask for {state.value}")
    breaker, reason, author = (text[:_LONGEST] for text in texts)
    return FleetWord(
        breaker=breaker,
        version=(ms, daemon[:_LONGEST]),
        state=state,
        reason=reason,
        author=author,
        until=until,
    )


class Words:
    """The last word of each breaker, as far as this daemon has heard.

    Args:
        name: The daemon's own.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._known: dict[str, FleetWord] = {}
        self._untold: set[str] = set()

    def of(self, breaker: str) -> FleetWord | None:
        """The last word of a breaker. None: nothing was heard of one."""
        return self._known.get(breaker)

    def note(self, entry: Entry, now: float, ahead: float) -> None:
        """Take what was decided here.

        Args:
            entry: Of the history: somebody took a breaker over, or handed it back.
            now: Wall time of the engine.
            ahead: Seconds that this is ahead of the wall time of entries.
        """
        breaker, asked = entry.breaker, entry.details.get("state")
        # That one ran out, each daemon finds by itself.
        if breaker is None or (asked is None and entry.author is None):
            return
        until = entry.details.get("until")
        self._take(
            FleetWord(
                breaker=breaker,
                version=(self._next(breaker, now), self._name),
                state=None if asked is None else State(asked),
                reason=str(entry.details.get("reason", "")),
                author=entry.author or "",
                until=now + _KEPT if until is None else float(until) + ahead,
            )
        )
        self._untold.add(breaker)

    def _next(self, breaker: str, now: float) -> int:
        # Who heard of a later one decides after it, whatever the clocks say.
        known = self._known.get(breaker)
        return max(int(now * 1000), 0 if known is None else known.version[0] + 1)

    def restore(self, written: Mapping[str, Mapping[str, Any]], ahead: float) -> None:
        """Know again what was decided before the process began: breaker -> state, reason,
        author, since when (``at``) and ``until``, in wall time of entries."""
        for breaker, one in written.items():
            try:
                word = FleetWord(
                    breaker=breaker,
                    version=(int((float(one["at"]) + ahead) * 1000), self._name),
                    state=State(one["state"]),
                    reason=str(one["reason"]),
                    author=str(one["author"]),
                    until=float(one["until"]) + ahead,
                )
            except (KeyError, TypeError, ValueError, OverflowError):
                continue  # who restores it to the breaker says so
            known = self._known.get(breaker)
            if known is None or known.version < word.version:
                self._take(word)

    def hear(self, word: FleetWord) -> bool:
        """Take a word of another daemon. Returns whether it is the last one, and news."""
        known = self._known.get(word.breaker)
        if known is not None and known.version >= word.version:
            return False
        self._take(word)
        self._untold.discard(word.breaker)
        return True

    def _take(self, word: FleetWord) -> None:
        self._known[word.breaker] = word

    def tell_all(self, now: float) -> None:
        """Have every word told anew: the engine may have lost them. Also one that has run
        out, for somebody may have heard only what it took the place of."""
        over = [name for name, word in self._known.items() if word.is_over(now)]
        for name in over:
            del self._known[name]
        self._untold = set(self._known)

    def untold(self) -> list[FleetWord]:
        """What is to be told to the others."""
        return [self._known[name] for name in sorted(self._untold)]

    def are_told(self, told: list[FleetWord]) -> None:
        """Know that these were told; one that came meanwhile was not."""
        for word in told:
            if self._known.get(word.breaker) is word:
                self._untold.discard(word.breaker)
