"""Pages of the history, for the page of events."""

from collections.abc import Collection

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.sinks.history import History


async def page(
    history: History,
    *,
    since: float | None = None,
    before: int | None = None,
    limit: int = 200,
    kinds: Collection[Kind] = (),
    target: str | None = None,
    breaker: str | None = None,
    text: str | None = None,
) -> list[Entry]:
    """The newest entries that are wanted, the oldest first; no *kinds* are all of them."""
    return await history.page(
        since=since,
        before=before,
        limit=limit,
        kinds=kinds or None,
        target=target,
        breaker=breaker,
        text=text,
    )
