"""How probes are put to a connection: together where that works, apart where not."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from pgbreaker.core.judge import IDENTITY
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Seen
from pgbreaker.core.units import Seconds
from pgbreaker.postgres.target import Session, Visit
from pgbreaker.probes import probe_called
from pgbreaker.probes.absent import AbsentError
from pgbreaker.probes.probe import Server
from pgbreaker.probes.statement import rows_of, statement

_GOOD: Final = 10  # answers after which a probe is asked with others again


class Questions:
    """The statements of one target, and which of them have to be asked alone.

    One statement for several probes costs one round trip and one plan. But an error in
    one of its parts fails the whole: then each is asked alone, until it has been
    answered some times.
    """

    def __init__(self) -> None:
        self._alone: dict[str, int] = {}  # probe -> good answers since it failed
        self._direct = False  # known to be: no pooler between us and the server

    def groups(self, probes: Sequence[str]) -> list[tuple[str, ...]]:
        """Say which of *probes* are asked together."""
        together = tuple(probe for probe in probes if probe not in self._alone)
        alone = [(probe,) for probe in probes if probe in self._alone]
        return [*([together] if together else []), *alone]

    def part(self, probes: Sequence[str]) -> None:
        """Ask *probes*, which failed together, alone for some time from now on."""
        self._alone.update(dict.fromkeys(probes, 0))

    async def ask(
        self, session: Session, probes: Sequence[str], within: Seconds
    ) -> Mapping[str, Seen | Exception]:
        """Ask *probes* in one statement on the held connection.

        Returns:
            What each saw, or what was wrong with its rows.

        Raises:
            TimeoutError: No answer within *within* seconds.
            Exception: Whatever asyncpg raises.
        """
        server = Server(session.version, session.in_recovery)
        asked, text = _written(tuple(probes), server)
        found: dict[str, Seen | Exception] = {
            probe: _absent(server) for probe in probes if probe not in asked
        }
        if asked:
            row = await session.fetch(text, within, keep=self._direct)
            found |= {probe: _seen(probe, row or {}) for probe in asked}
        if len(found) == 1:
            self._count(*found)
        identity = found.get(IDENTITY)
        if identity is not None and not isinstance(identity, Exception):
            # A pooler tells its clients a pid of its own making.
            self._direct = identity["backend_pid"] == session.pid
            found[IDENTITY] = {**identity, "through_pooler": not self._direct}
        return found

    def _count(self, probe: str) -> None:
        """Count a good answer of one that is asked alone; some of them are not enough:
        what only fails together would fail every other time."""
        if probe in self._alone:
            self._alone[probe] += 1
            if self._alone[probe] >= _GOOD:
                del self._alone[probe]

    async def ask_visitor(
        self, visit: Visit, probe: str, plan: ProbePlan, within: Seconds
    ) -> Seen:
        """Ask one probe on a connection made for it.

        Raises:
            TimeoutError: No answer within *within* seconds.
            AbsentError: This server has nothing of the kind.
            Exception: Whatever the server, or the way to it, has to say.
        """
        what = probe_called(probe)
        if plan.query is not None and not what.is_dear:
            # A canary is asked as it stands: wrapped, it might be planned otherwise.
            await visit.fetch(plan.query, within)
            return NOTHING
        server = Server(visit.version, visit.in_recovery)
        sql = what.asks(server) if plan.query is None else plan.query
        if sql is None:
            raise _absent(server)
        row = await visit.fetch(statement({"answer": sql}), within)
        return what.reads(rows_of(row or {"answer": None}, "answer"))


@lru_cache(maxsize=512)
def _written(probes: tuple[str, ...], server: Server) -> tuple[tuple[str, ...], str]:
    """Those of *probes* that have something to ask of *server*, and how it is asked."""
    asked = {probe: probe_called(probe).asks(server) for probe in probes}
    sql = {probe: text for probe, text in asked.items() if text is not None}
    return tuple(sql), statement(sql)


def _absent(server: Server) -> AbsentError:
    return AbsentError(f"PostgreSQL {server.major} has nothing of the kind")


def _seen(probe: str, row: Mapping[str, str | None]) -> Seen | Exception:
    try:
        return probe_called(probe).reads(rows_of(row, probe))
    except Exception as error:  # noqa: BLE001 - one's rows are not another's fault
        return error
