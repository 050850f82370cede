"""The ballot: what several daemons think of one breaker, counted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pgbreaker.core.advice import Opinion
from pgbreaker.core.view import View


@dataclass(frozen=True, slots=True)
class Ballot:
    """What came of it.

    Attributes:
        opinion: What holds for the fleet.
        views: Daemon -> what it thinks, of those that have looked.
        need: How many have to think that it is open.
        voters: How many watch it, and could.
        passes: Whether time alone may change it: somebody has not looked yet, or it is
            what one thought last who is gone.
    """

    opinion: Opinion
    views: Mapping[str, View] = field(default_factory=dict)
    need: int = 1
    voters: int = 0
    passes: bool = True

    def has(self, opinion: Opinion) -> bool:
        """Whether somebody thinks so who has looked."""
        return any(view.opinion is opinion for view in self.views.values())

    @property
    def opens(self) -> tuple[str, ...]:
        """The daemons that think that it is open."""
        return self._who(Opinion.OPEN)

    @property
    def minority(self) -> tuple[str, ...]:
        """The daemons that think otherwise than what holds."""
        other = Opinion.HEALTHY if self.opinion is Opinion.OPEN else Opinion.OPEN
        return self._who(other)

    def _who(self, opinion: Opinion) -> tuple[str, ...]:
        return tuple(name for name, v in self.views.items() if v.opinion is opinion)

    @property
    def speaker(self) -> View | None:
        """The first of those who think what holds. None: nobody does."""
        return next((v for v in self.views.values() if v.opinion is self.opinion), None)

    def told(self) -> str:
        """Say in half a sentence how it came out."""
        seen = f"{len(self.opens)} of {self.voters} daemons see it open"
        return seen if self.need <= 1 else f"{seen} ({self.need} needed)"


def count(
    views: Mapping[str, View], voters: int, abstaining: int, quorum: int
) -> Ballot:
    """Count views.

    Args:
        views: Daemon -> what it thinks, of those whose word counts; the first choice first.
        voters: How many watch.
        abstaining: How many of these have not been able to look for so long that nobody
            waits for them.
        quorum: How many have to think that it is open, of those who do not abstain.
    """
    known = {n: v for n, v in views.items() if v.opinion is not Opinion.UNKNOWN}
    need = max(1, min(quorum, voters - abstaining))
    opens = sum(view.opinion is Opinion.OPEN for view in known.values())
    if opens >= need:
        opinion = Opinion.OPEN
    elif opens < len(known):
        opinion = Opinion.HEALTHY
    else:  # too few see it open, and nobody sees it well
        opinion = Opinion.UNKNOWN
    all_know = len(known) == len(views) >= voters
    return Ballot(opinion, known, need, max(voters, len(known)), not all_know)
