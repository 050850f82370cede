"""How long a question of the user's own choice takes: the canary.

The ping tells that the server answers, not that answers are of use: after a plan went
wrong every ping is fine and every page takes a minute. The user names one cheap query
that stands for the reads that matter; when it takes longer than ``slow`` three times in
a row, ``read`` opens. A canary on one table speaks for that table: choose it so.
"""

from typing import Final

from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.reading import NOTHING, Finding, Seen
from pgbreaker.core.units import Seconds, lasting
from pgbreaker.probes.probe import Place, Probe, Rows


def _nothing(_rows: Rows) -> Seen:
    """What it answers is the user's; that it answers is ours."""
    return NOTHING


def _too_slow(_seen: Seen, took: Seconds, limit: Seconds) -> str | None:
    if took < limit:
        return None
    return f"the canary took {lasting(took)}, and {lasting(limit)} is slow"


LATENCY: Final = Probe(
    name="latency",
    says="a canary: a query of your own that stands for reads",
    needs="SELECT on what it reads",
    plan=ProbePlan(interval=5.0, timeout=2.0, limit=0.25),
    reads=_nothing,
    place=Place.FRESH,
    weighs=_too_slow,
    beyond=Finding.SLOW,
    is_usual=False,
)
