"""The stall: a commit of ours that has not come back, as the held connection sees it.

A commit that waits for the disk or for a standby notices neither that its client has
hung up nor a ``statement_timeout``: its session stays at the server until it is served.
So while there is one, no other is sent after it, or there would be one more each time.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from pgbreaker.core.reading import Finding
from pgbreaker.core.states import Evidence
from pgbreaker.core.units import Seconds, Share
from pgbreaker.probes.commit import COMMIT, stalled

Row: TypeAlias = Mapping[str, Any]
Consult: TypeAlias = Callable[[str], Awaitable[Row | None]]
"""Asks the held connection for one row, None when there is none.

Raises `UnheardError` when it cannot be asked, or does not answer."""

# What a commit has waited by the time that it is looked for, of its deadline: it began
# a little after we did.
_WAITED: Final[Share] = 0.75


class UnheardError(Exception):
    """The held connection could not be asked, or gave no answer."""


class Stall:
    """Whether a commit of ours is stuck.

    Attributes:
        sessions: Sessions of ours that were stuck when last looked at.
    """

    def __init__(self, consult: Consult, timeout: Seconds) -> None:
        self.sessions = 0
        self._consult = consult
        self._sql = stalled(timeout * _WAITED)
        self._row: Row | None = None

    @property
    def is_on(self) -> bool:
        """Whether one is stuck, as far as anybody has told us."""
        return self.sessions > 0

    async def look(self) -> bool:
        """Look for one; what cannot be looked at stays as it was."""
        try:
            self._row = await self._consult(self._sql)
        except UnheardError:
            return self.is_on
        self.sessions = 0 if self._row is None else self._row["sessions"]
        return self.is_on

    def told(self) -> tuple[Finding, Evidence]:
        """Say what it waits for."""
        row = self._row or {}
        is_standby = row.get("event") == "SyncRep"
        finding = Finding.SYNC_REP if is_standby else Finding.TIMEOUT
        where = "/".join(filter(None, (row.get("kind"), row.get("event"))))
        what = "a synchronous standby" if is_standby else where or "the server"
        text = f"a commit waits for {what} (pid {row.get('pid')})"
        return finding, Evidence(finding.value, text, probe=COMMIT.name)
