"""The breakers and targets of a process, by name."""

from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.target import Target


class Registry:
    """Gives the same breaker for the same name.

    Breakers that are made by their constructor are not in it.
    """

    def __init__(self) -> None:
        # No lock: a breaker that is made may tell its listeners, and these may ask
        # here. Of two that are made at once, the first is everybody's.
        self._breakers: dict[str, PostgreSQLCircuitBreaker] = {}
        self._targets: dict[str, Target] = {}

    def breaker(
        self, name: str, config: PostgreSQLCircuitBreakerConfig | None = None
    ) -> PostgreSQLCircuitBreaker:
        """The breaker called *name*, made when it is asked for first.

        ``NAME/OPERATION`` is the breaker of one kind of work on a target.

        Args:
            config: Its rules; None: as they are, or the defaults.

        Raises:
            ValueError: It exists, and goes by other rules.
        """
        name_of_target, _, operation = name.partition("/")
        if name_of_target in self._targets or operation:
            target = self.target(name_of_target, config)
            is_above = operation == "connect"
            return target.connect if is_above else target.breaker(operation or None)
        found = self._breakers.get(name)
        if found is None:
            made = PostgreSQLCircuitBreaker(name, config)
            found = self._breakers.setdefault(name, made)
        _agree(name, found.config, config)
        return found

    def target(
        self, name: str, config: PostgreSQLCircuitBreakerConfig | None = None
    ) -> Target:
        """The target called *name*, made when it is asked for first.

        Raises:
            ValueError: It exists, and goes by other rules; or a breaker that stands
                for itself has the name.
        """
        if name in self._breakers:
            raise ValueError(
                f"a breaker that stands for itself is called {name!r} already;"
                f" call it '{name}/...' to have it on the target"
            )
        found = self._targets.get(name)
        if found is None:
            found = self._targets.setdefault(name, Target(name, config))
        _agree(name, found.config, config)
        return found

    def breakers(self) -> tuple[PostgreSQLCircuitBreaker, ...]:
        """Every breaker in it, in the order they were made, those of targets last."""
        targets = tuple(self._targets.values())
        return (
            *self._breakers.values(),
            *(breaker for target in targets for breaker in target.breakers),
        )

    def clear(self) -> None:
        """Forget all; for tests."""
        self._breakers.clear()
        self._targets.clear()


def _agree(
    name: str,
    there: PostgreSQLCircuitBreakerConfig,
    asked: PostgreSQLCircuitBreakerConfig | None,
) -> None:
    if asked is not None and asked != there:
        raise ValueError(
            f"breaker {name!r} exists already, with other rules; give them once"
        )


REGISTRY = Registry()
"""The one that decorators and plugins use."""
