"""The breakers and targets of a process, by name."""

import threading

from pgbreaker.guard.breaker import PostgreSQLCircuitBreaker
from pgbreaker.guard.config import PostgreSQLCircuitBreakerConfig
from pgbreaker.guard.living import join
from pgbreaker.guard.target import Target


class Registry:
    """Gives the same breaker for the same name.

    Breakers that are made by their constructor are not in it.
    """

    def __init__(self) -> None:
        self._breakers: dict[str, PostgreSQLCircuitBreaker] = {}
        self._targets: dict[str, Target] = {}
        self._lock = threading.Lock()
        join(self)

    def disown(self) -> None:
        """In a forked process: nobody holds the lock."""
        self._lock = threading.Lock()

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
        name_of_target, _, kind = name.partition("/")
        with self._lock:
            if name_of_target in self._targets or kind:
                target = self._target(name_of_target, config)
                return target.connect if kind == "connect" else target.breaker(kind)
            found = self._breakers.get(name)
            if found is None:
                found = PostgreSQLCircuitBreaker(name, config)
                self._breakers[name] = found
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
        with self._lock:
            return self._target(name, config)

    def _target(
        self, name: str, config: PostgreSQLCircuitBreakerConfig | None
    ) -> Target:
        if name in self._breakers:
            raise ValueError(
                f"a breaker that stands for itself is called {name!r} already;"
                f" call it '{name}/...' to have it on the target"
            )
        found = self._targets.get(name)
        if found is None:
            found = self._targets[name] = Target(name, config)
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
        with self._lock:
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
