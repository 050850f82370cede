"""The breaker's specification once more, slow and obvious, to hold the fast one against.

It keeps every call of the window in a list, and counts by walking it. Nothing is shared
with `pgbreaker.core.breaker` but the words. Times are multiples of 1/64 s and bucket
widths powers of two, so that no float is ever rounded.
"""

from dataclasses import dataclass, field

from pgbreaker.core.policy import Policy
from pgbreaker.core.states import Cause, Outcome, Override, State

BAD = (Outcome.FAILURE, Outcome.CUT)


@dataclass
class Model:
    """What a breaker has to be after each step.

    Attributes:
        draws: What the breaker's ``draw`` will give, in turn.
    """

    policy: Policy
    now: float
    draws: list[float]
    state: State = State.CLOSED
    override: Override | None = None
    since: float = 0.0
    until: float = 0.0
    wait: float = 0.0
    round: int = 0
    era: int = 1  # told apart only by being the same or not
    calls: list[tuple[int, bool, bool]] = field(default_factory=list)
    anchor: float = 0.0
    bucket: int = 0
    run: int = 0
    good: int = 0
    barren: int = 0
    trials: dict[int, float] = field(default_factory=dict)
    ramping: bool = False
    rejected: int = 0
    stale: int = 0
    totals: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("success", "failure", "cut", "slow", "ignored", "unreached", "released"), 0
        )
    )

    def __post_init__(self) -> None:
        self.since = self.until = self.anchor = self.now

    # The window.

    @property
    def width(self) -> float:
        return self.policy.window / self.policy.buckets

    def forget(self) -> None:
        self.calls.clear()
        self.anchor = self.now
        self.bucket = 0

    def turn(self) -> None:
        bucket = int((self.now - self.anchor) // self.width)
        if bucket - self.bucket >= self.policy.buckets:
            self.forget()
        else:
            self.bucket = bucket
            oldest = bucket - self.policy.buckets + 1
            self.calls = [call for call in self.calls if call[0] >= oldest]

    def counts(self) -> tuple[int, int, int]:
        failed = sum(call[1] for call in self.calls)
        return len(self.calls), failed, sum(call[2] for call in self.calls)

    # The machine.

    def move(self, cause: Cause, after: State) -> tuple[State, State, Cause]:
        before, self.state = self.state, after
        if after is State.OPEN:
            if before is State.CLOSED:
                healthy = int((self.now - self.since) / self.policy.window)
                self.round = max(0, self.round - healthy)
            self.round += 1
            longest = self.policy.max_timeout
            wait = min(self.policy.timeout * 2 ** (self.round - 1), longest)
            self.wait = wait * (1 + self.policy.jitter * self.draws.pop())
            self.until = self.now + self.wait
        if after is State.CLOSED:
            self.forget()
            self.run = 0
        self.ramping = (
            after is State.CLOSED and self.policy.ramp > 0 and not self.override
        )
        self.trials.clear()
        self.good = self.barren = 0
        self.era += 1
        self.since = self.now
        return before, after, cause

    def tally(self, outcome: Outcome, slow: bool) -> None:
        self.totals[outcome.value] += 1
        if outcome is Outcome.SUCCESS or outcome in BAD:
            self.totals["slow"] += slow

    def count(self, outcome: Outcome, slow: bool):
        self.turn()
        self.tally(outcome, slow)
        if outcome is not Outcome.SUCCESS and outcome not in BAD:
            return None
        self.calls.append((self.bucket, outcome in BAD, slow))
        self.run = self.run + 1 if outcome in BAD else 0
        return self.weigh(outcome, slow) if outcome in BAD or slow else None

    def weigh(self, outcome: Outcome, slow: bool):
        policy = self.policy
        total, failed, slows = self.counts()
        if policy.failure_threshold and self.run >= policy.failure_threshold:
            return self.move(Cause.FAILURE_RUN, State.OPEN)
        if total < policy.minimum_calls:
            return None
        if outcome in BAD and failed >= policy.failure_rate * total:
            return self.move(Cause.FAILURE_RATE, State.OPEN)
        if slow and slows >= policy.slow_rate * total:
            return self.move(Cause.SLOW_RATE, State.OPEN)
        return None

    def try_(self, outcome: Outcome, slow: bool):
        if outcome in BAD or (slow and outcome is Outcome.SUCCESS):
            return self.move(Cause.RELAPSED, State.OPEN)
        if outcome is Outcome.SUCCESS:
            self.barren = 0
            self.good += 1
            if self.good >= self.policy.success_threshold:
                return self.move(Cause.RECOVERED, State.CLOSED)
        elif outcome is not Outcome.IGNORED:
            self.barren += 1
            if self.barren >= max(self.policy.success_threshold, 3):
                return self.move(Cause.BARREN, State.OPEN)
        return None

    # What is asked of it.

    def advance(self):
        ended = self.end_override()
        if ended:
            return ended
        if self.state is State.OPEN and self.now >= self.until:
            return self.move(Cause.COOLED, State.HALF_OPEN)
        if any(deadline <= self.now for deadline in self.trials.values()):
            return self.move(Cause.EXPIRED, State.OPEN)
        return None

    def end_override(self):
        until = self.override.until if self.override else None
        if until is None or self.now < until:
            return None
        return self.resume()

    def force(self, override: Override):
        before = self.effective
        self.override = override
        self.ramping = False
        return before, self.effective, Cause.OVERRIDDEN

    def resume(self):
        if not self.override:
            return None
        before, self.override = self.effective, None
        return before, self.effective, Cause.RESUMED

    @property
    def effective(self) -> State:
        return self.override.state if self.override else self.state

    def admit(self):  # noqa: PLR0911 - the specification, case by case
        """Returns what kind of answer, and the move."""
        if self.gate_is_open:
            return "call", None
        move = self.advance()
        forced = self.override.state if self.override else None
        if forced is State.FORCED_OPEN:
            self.rejected += 1
            return "refusal", move
        if forced is State.DISABLED:
            return "pass", move
        if self.state is State.CLOSED and (forced or self.lets_in()):
            return "call", move
        if self.state is State.HALF_OPEN and len(self.trials) < self.policy.trials:
            return "trial", move
        if forced:
            return "unweighed", move
        self.rejected += 1
        return "refusal", move

    @property
    def gate_is_open(self) -> bool:
        return self.state is State.CLOSED and not self.override and not self.ramping

    def lets_in(self) -> bool:
        if not self.ramping:
            return True
        elapsed = self.now - self.since
        if elapsed >= self.policy.ramp:
            self.ramping = False
            return True
        return self.draws.pop() < 0.1 + 0.9 * elapsed / self.policy.ramp

    def begin_trial(self, token: int) -> None:
        lease = self.policy.trial_deadline or max(
            2 * (self.policy.slow_call or 0), 10.0
        )
        self.trials[token] = self.now + lease

    def settle(self, kind: str, era: int, token: int, outcome: Outcome, slow: bool):
        if kind == "pass":
            return None
        if kind == "unweighed":
            self.tally(outcome, slow)
            return None
        if token in self.trials:
            del self.trials[token]
            self.tally(outcome, slow)
            return self.try_(outcome, slow)
        if kind == "trial" or era != self.era or self.state is not State.CLOSED:
            self.stale += 1
            return None
        return self.count(outcome, slow)

    def observe(self, outcome: Outcome, slow: bool, confirmed: bool):
        moves = [self.end_override()]
        if self.state is State.OPEN:
            self.tally(outcome, slow)
            if outcome in BAD:
                self.until = max(self.until, self.now + self.wait)
            elif outcome is Outcome.SUCCESS and not slow and self.now >= self.until:
                moves.append(self.move(Cause.COOLED, State.HALF_OPEN))
                moves.append(self.try_(outcome, slow))
        elif self.state is State.HALF_OPEN:
            self.tally(outcome, slow)
            moves.append(self.try_(outcome, slow))
        elif confirmed and outcome in BAD:
            self.turn()
            self.tally(outcome, slow)
            self.calls.append((self.bucket, True, slow))
            self.run += 1
            moves.append(self.move(Cause.CONFIRMED, State.OPEN))
        else:
            moves.append(self.count(outcome, slow))
        self.ramping = False
        return [move for move in moves if move]
