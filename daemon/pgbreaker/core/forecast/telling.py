"""What is foretold, in words: the same on the page, in the API and in `explain`."""

from math import inf
from typing import Final

from pgbreaker.core.forecast.runway import Left
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.forecast.warning import KINDS
from pgbreaker.core.units import counted, roughly

UNSEEN: Final = "none has been seen to its end yet"
"""What there is to say of warnings as long as nothing is known of them."""


def span(left: Left) -> str:
    """Say how long something lasts, with its interval: ``21 min (17 to 28 min)``."""
    said, soonest = roughly(left.seconds), roughly(left.soonest)
    if left.latest == inf:
        return said if soonest == said else f"{said} (at the soonest {soonest})"
    latest = roughly(left.latest)
    if soonest == latest:
        return said
    number, _, unit = soonest.partition(" ")
    return f"{said} ({number if latest.endswith(f' {unit}') else soonest} to {latest})"


def tally(score: Score) -> str:
    """Say how often warnings came true: ``3 of 4 such warnings came true, 1 failure came
    unannounced``."""
    told = score.came + score.false
    said = [f"{score.came} of {told} such warnings came true" if told else UNSEEN]
    if score.late:
        said.append(f"{score.late} came less than a minute before")
    if score.missed:
        said.append(f"{counted(score.missed, 'failure')} came unannounced")
    return ", ".join(said)


def uncounted(of: str) -> str:
    """Say why there is no record of a kind's warnings. Empty: there is one."""
    if KINDS[of].is_scored:
        return ""
    return "such warnings are not counted: there are days to avert it"
