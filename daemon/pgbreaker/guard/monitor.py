"""What an application can tell of its breakers, at any time and without asking anybody."""

from dataclasses import asdict
from typing import Any, TypedDict

from pgbreaker.core.states import State, Transition
from pgbreaker.guard import events
from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.pools import uses
from pgbreaker.guard.target import Target


class Status(TypedDict):
    """Everything at once, fit for JSON.

    Keys:
        status: ``pass`` when every breaker lets calls pass, ``warn`` when one of an
            operation does not, ``fail`` when the whole server is given up.
        target: Name of the server.
        enabled: Whether breakers refuse calls at all, or only measure.
        breakers: Name -> `PostgreSQLCircuitBreaker.snapshot`, the one above first.
        pool: `Use` of the target's connection pools, all together; empty where there
            is none that is open.
        retries: What was spent of the budget for retries.
        events: The last transitions, trials and retries, oldest first.
    """

    status: str
    target: str
    enabled: bool
    breakers: dict[str, dict[str, Any]]
    pool: dict[str, Any]
    retries: dict[str, Any]
    events: list[dict[str, Any]]


class Monitor:
    """Tells of the breakers of one target.

    Attributes:
        target: The server.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    async def get_comprehensive_status(self) -> Status:
        """Everything at once. From memory: it never waits for the server."""
        return self.status()

    def status(self) -> Status:
        """The same, for those who cannot await."""
        budget = self.target.connect.budget
        use = uses().get(self.target.name)
        return Status(
            status=self.health(),
            target=self.target.name,
            enabled=self.target.is_enabled,
            breakers={b.name: b.snapshot() for b in self.target.breakers},
            pool={} if use is None else asdict(use),
            retries={
                "spent": budget.spent,
                "denied": budget.denied,
                "ratio": budget.ratio,
            },
            events=[_plain(event) for event in self.events()],
        )

    def health(self) -> str:
        """``pass``, ``warn`` or ``fail``."""
        if not self.target.connect.passes:
            return "fail"
        is_all_well = all(breaker.passes for breaker in self.target.breakers)
        return "pass" if is_all_well else "warn"

    def explain(self, name: str | None = None) -> str:
        """Say in a sentence what a breaker does and why.

        Args:
            name: Of the breaker, or only of its operation. None: the one above.

        Raises:
            KeyError: The target has no such breaker.
        """
        return self._find(name).explain()

    def _find(self, name: str | None) -> PostgreSQLCircuitBreaker:
        if name is None:
            return self.target.connect
        for breaker in self.target.breakers:
            if name in (breaker.name, breaker.operation):
                return breaker
        there_are = ", ".join(breaker.name for breaker in self.target.breakers)
        raise KeyError(f"no breaker is called {name!r}; there are {there_are}")

    def events(self) -> tuple[events.Event, ...]:
        """The last transitions, trials and retries of the target, oldest first."""
        names = {breaker.name for breaker in self.target.breakers}
        # Not by tuple(), which can let other threads in between, and fail then.
        return tuple(e for e in events.recent.copy() if e.breaker in names)


def _plain(event: events.Event) -> dict[str, Any]:
    kind = (
        "transition" if isinstance(event, Transition) else type(event).__name__.lower()
    )
    values = {
        key: value.value if isinstance(value, State) else value
        for key, value in asdict(event).items()
    }
    return {"kind": kind} | {
        key: getattr(value, "value", value) for key, value in values.items()
    }
