"""Which part of the history is asked for."""

from dataclasses import dataclass

from pgbreaker.core.entry import Entry, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which entries are asked for. None: it does not matter.

    Attributes:
        since: Wall time, in seconds since the epoch; what is as old counts.
        before: Id of the first that is too new.
        after: Id of the last that is too old.
        limit: How many at most: the newest, but with *after* the first that follow.
        kinds: Of these.
        target: Of this target.
        breaker: Of this breaker.
        text: With these words in their text, in small or large letters.
    """

    since: float | None = None
    before: int | None = None
    after: int | None = None
    limit: int = 200
    kinds: frozenset[Kind] | None = None
    target: str | None = None
    breaker: str | None = None
    text: str | None = None

    def matches(self, entry: Entry) -> bool:
        """Whether it asks for *entry*, limit aside."""
        return (
            (self.since is None or entry.at >= self.since)
            and (self.before is None or entry.id < self.before)
            and (self.after is None or entry.id > self.after)
            and (self.kinds is None or entry.kind in self.kinds)
            and self.target in (None, entry.target)
            and self.breaker in (None, entry.breaker)
            and (self.text is None or self.text.lower() in entry.text.lower())
        )

    def cut(self, entries: list[Entry]) -> list[Entry]:
        """As many as it asks for, of *entries* that match and are in their order."""
        if self.after is not None:
            return entries[: self.limit]
        return entries[max(0, len(entries) - self.limit) :]
