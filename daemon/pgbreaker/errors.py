"""What pgbreaker raises, one base for all of it."""

from typing import TYPE_CHECKING, Self

from pgbreaker.core.states import Evidence, State
from pgbreaker.core.units import Seconds, lasting


class PgbreakerError(Exception):
    """Anything that pgbreaker itself complains about."""


class ConfigError(PgbreakerError):
    """The configuration cannot be used.

    Attributes:
        problems: One line each, ``file:line:column: what is wrong``, in the
            order of the file. Never holds a secret.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class CircuitOpenError(PgbreakerError):
    """A breaker refused the call; the server was not asked.

    It is made anew for each refusal and holds no exception of anybody else's: a
    stored one grows by a traceback entry each time it is raised.

    Attributes:
        breaker: Name of the breaker.
        state: The state that refuses: open, half_open, forced_open; or closed, while it
            recovers and lets calls in by lot.
        reason: One sentence with its numbers.
        retry_after: Seconds after which asking again makes sense.
        opened_at: Unix time since which calls are refused, in seconds.
        last_error: The last failure that the breaker saw, None when there was none.
    """

    # Read out of `args`, with no `__init__` of its own: six assignments take as long as
    # raising it does, and a refusal has to be cheap.
    if TYPE_CHECKING:

        def __init__(
            self,
            breaker: str,
            state: State,
            reason: str,
            retry_after: Seconds,
            opened_at: float,
            last_error: Evidence | None = None,
            /,
        ) -> None: ...

    @property
    def breaker(self) -> str:
        found: str = self.args[0]
        return found

    @property
    def state(self) -> State:
        found: State = self.args[1]
        return found

    @property
    def reason(self) -> str:
        found: str = self.args[2]
        return found

    @property
    def retry_after(self) -> Seconds:
        found: Seconds = self.args[3]
        return found

    @property
    def opened_at(self) -> float:
        found: float = self.args[4]
        return found

    @property
    def last_error(self) -> Evidence | None:
        found: Evidence | None = self.args[5] if len(self.args) > 5 else None
        return found

    def __str__(self) -> str:
        recovers = self.state is State.CLOSED
        state = "recovering" if recovers else self.state.value.replace("_", "-")
        again = (
            f"; try again in {lasting(self.retry_after)}" if self.retry_after else ""
        )
        return f"breaker {self.breaker!r} is {state}: {self.reason}{again}"


class BulkheadFullError(PgbreakerError):
    """Too many calls of this kind are in flight; the server was not asked.

    Attributes:
        bulkhead: Name of the bulkhead, which is its breaker's.
        limit: Calls that may be in flight at once.
        waited: Seconds that the call waited for its turn.
    """

    def __init__(self, bulkhead: str, limit: int, waited: Seconds) -> None:
        super().__init__(bulkhead, limit, waited)
        self.bulkhead = bulkhead
        self.limit = limit
        self.waited = waited

    def __str__(self) -> str:
        return (
            f"{self.limit} calls of {self.bulkhead!r} are in flight already;"
            f" waited {lasting(self.waited)} for one to end"
        )


class CallTimeoutError(PgbreakerError, TimeoutError):
    """A call did not come back within its ``timeout=``, and was cut.

    What became of the work is not known: the server may still do it.

    Attributes:
        call: Name of the breaker that the call was made under.
        after: Seconds that it was given.
    """

    def __init__(self, call: str, after: Seconds) -> None:
        # One argument: of two, an OSError takes the first for its errno.
        super().__init__(
            f"a call of {call!r} did not come back within {lasting(after)}"
        )
        self.call = call
        self.after = after

    def __reduce__(self) -> tuple[type[Self], tuple[str, Seconds]]:
        return type(self), (self.call, self.after)
