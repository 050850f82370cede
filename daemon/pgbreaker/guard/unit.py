"""One unit of work: a connection from being asked of a pool until it is given back.

It has exactly one outcome. A failure counts at once, and once, whatever else follows
from it; a success only when the connection is back, for a commit can still fail. What
the server answers to the caller's own mistakes ends nothing: a savepoint may mend it.

Between its statements a unit is the application's, for as long as that likes. So it is
among the calls that are expected back only while the server has been asked something.
"""

from pgbreaker.core.flights import Slice
from pgbreaker.core.states import FAILURES, Outcome
from pgbreaker.core.units import Seconds
from pgbreaker.errors import PgbreakerError
from pgbreaker.guard.outcomes import Judgement, judge
from pgbreaker.guard.target import Target
from pgbreaker.postgres.classify import Phase
from pgbreaker.postgres.sqlstates import Scope


class SessionLostError(PgbreakerError):
    """A session has ended while nothing was asked on it, so that no driver said so.

    It is counted, and not raised: the driver's own complaint is.
    """

    sqlstate = "08003"  # connection_does_not_exist


class Unit:
    """A unit of work on a target.

    Attributes:
        breaker: The breaker that let it in.
        phase: What is being done; at first, waiting for the pool.
        made_at: Moment at which its connection was made, None while that is not known.
        is_over: Whether its outcome has been counted.
    """

    __slots__ = (
        "_begun",
        "_flight",
        "_flights",
        "_now",
        "_out",
        "_rested",
        "_target",
        "breaker",
        "is_over",
        "made_at",
        "phase",
    )

    def __init__(self, target: Target, operation: str | None = None) -> None:
        """
        Args:
            operation: The kind of work. None: what `operation` says.

        Raises:
            CircuitOpenError: It is refused; no connection has been touched.
        """
        self._target = target
        self.breaker = breaker = target.breaker(operation)
        self._begun, flight = breaker.acquire()
        flight.gone += 1
        self._flight = Slice(flight.era, flight.above)
        # At hand, for what is rarely done is slow in every step.
        self._flights, self._now = breaker.core.flights, breaker.clock.now
        self._rested = self._begun
        self._out: Slice | None = None
        self.phase = Phase.ACQUIRE
        self.made_at: Seconds | None = None
        self.is_over = False

    def ask(self, phase: Phase = Phase.STATEMENT) -> None:
        """What follows is the server's time."""
        self.phase = phase
        if self._out is None:
            self._begun += self._now() - self._rested
            self._out = out = self._flights.slice
            out.started += 1

    def rest(self) -> None:
        """The server has answered; what follows is not its time."""
        out = self._out
        if out is not None:
            out.gone += 1
            self._out = None
            self._rested = self._now()
            # Connections work: that is all that the whole server's trial was about,
            # and it is not kept up by what the application does with this one.
            if self._flight.above is not None:
                self.breaker.pass_above(self._flight)

    def _pause(self) -> None:
        if self._out is not None:
            self._out.gone += 1
            self._out = None
            self._rested = self._now()

    def fail(self, error: BaseException) -> Judgement:
        """Report an error; what it means depends on the phase.

        Returns:
            What is made of it.
        """
        self._pause()
        took = self._rested - self._begun
        slow_call = self.breaker.config.slow_call
        judgement = judge(error, took, slow_call, self.phase, strict=True)
        if not self.is_over and judgement.outcome is not Outcome.IGNORED:
            self.is_over = True
            self._count(judgement)
        return judgement

    def _count(self, judgement: Judgement) -> None:
        found = judgement.classification
        is_loss = (
            judgement.outcome in FAILURES
            and found is not None
            and found.poisoned
            and found.scope is Scope.TARGET
            and self.phase is not Phase.CONNECT
        )
        stale = (
            is_loss
            and self.made_at is not None
            and self._target.wave.is_stale(self.made_at, self._rested)
        )
        self.breaker.count(self._begun, self._flight, judgement, stale=stale)

    def drop(self) -> None:
        """Report that nothing came of it, and that this says nothing of the server."""
        self._pause()
        if not self.is_over:
            self.is_over = True
            self.breaker.drop(self._begun, self._flight)

    def end(self) -> None:
        """Report that the connection is back."""
        self._pause()
        if not self.is_over:
            self.is_over = True
            # The time since the last answer was the application's.
            begun = self._begun + self._now() - self._rested
            self.breaker.leave(begun, self._flight)
