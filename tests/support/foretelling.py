"""A forecast made by hand, for tests of what is shown of it."""

from dataclasses import replace
from math import inf

from pgbreaker.core.forecast.foretold import Change, Foretold, Model, RunsOut
from pgbreaker.core.forecast.runway import Left
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.forecast.warning import Forewarning
from pgbreaker.sinks.board import TargetBoard

LEFT = Left(1260.0, 1020.0, 1680.0, 900.0)
REASON = (
    "at this rate the 97 slots are full in 21 min (17 to 28 min); owner: app_worker,"
    " idle in transaction"
)
FILLING = Forewarning(of="connections", since=40.0, left=LEFT, reason=REASON)
AGEING = Forewarning(
    of="xid",
    since=10.0,
    left=Left(4 * 86400.0, 3 * 86400.0, inf, 86400.0),
    reason="at this rate its transaction ids are used up in 4 d (at the soonest 3 d)",
)
RECORD = {
    "connections": Score(came=3, false=1, missed=1, _leads=[1200.0, 600.0, 900.0]),
    "pool": Score(),
    "failure": Score(late=1),
}
CHANGE = Change(
    signal="latency",
    since=1_800_000_040.0,
    now=0.08,
    usual=0.02,
    text="the latency is 80 ms, usually 20 ms at this hour",
)
SILENT = Model(silent_because="has seen 2 of the 5 openings that it needs")
LIKELY = Model(
    probability=0.31,
    reasons=("waits for locks grow", "statements take twice as long"),
    openings=7,
    begun=-5000.0,
    learned=20.0,
)

TELLING = Foretold(
    warnings=(FILLING, AGEING),
    runways=(
        RunsOut(of="connections", left=LEFT, is_short=True),
        RunsOut(of="xid", left=AGEING.left, is_short=True),
        RunsOut(of="multixact"),
        RunsOut(of="sequence", name="order_id", left=Left(9e6, 8e6, 1e7)),
    ),
    model=SILENT,
    changes=(CHANGE,),
    record=RECORD,
)
"""Something of everything."""

CALM = replace(TELLING, warnings=(), changes=(), record={}, runways=TELLING.runways[2:])
"""Nothing to look at."""


def foretell(target: TargetBoard, foretold: Foretold) -> None:
    """Have that be foretold of a target."""
    target.foretold = lambda: foretold
    target.forewarnings = {told.of: told for told in foretold.warnings}
