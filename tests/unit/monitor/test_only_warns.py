"""A forecast warns, and does nothing else."""

import ast
from pathlib import Path

import pytest

from pgbreaker.core.states import State, Transition
from pgbreaker.monitor.feed import Feed
from support.boards import Scene

PACKAGE = Path(__file__).parents[3] / "daemon/pgbreaker"
FORECASTS = sorted(
    path
    for folder in ("core/forecast", "monitor/outlook")
    for path in (PACKAGE / folder).glob("*.py")
)
MOVES = ("core.breaker", "core.ruled", "core.advised", "monitor.desk", "sinks.hub")


@pytest.mark.parametrize("path", FORECASTS, ids=lambda path: path.stem)
def test_no_forecast_has_a_breaker_in_its_hands(path):
    """What cannot reach a breaker, a desk or the hub cannot open one."""
    modules = [
        node.module or ""
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]

    assert [m for m in modules for wrong in MOVES if m == f"pgbreaker.{wrong}"] == []


def test_breakers_stay_closed_under_every_warning():
    """A leak, ids, a sequence and a slot at their ends, all of them warned of: no breaker
    moves until its own probe has seen something."""
    scene, told = Scene(), []
    target = scene.board.targets["main"]
    feed = Feed(target, scene.hub, scene.clock)
    scene.hub.add(told.append)
    for n in range(2400):
        scene.time.now += 2.0
        held = min(n // 50, 41)
        seen = {"active": 5, "idle": 50, "idle_in_transaction": held}
        values = {"slots_used": 55 + held, "slots_usable": 97, **seen}
        feed.judge(scene.reading("saturation", values=values))
        if n % 60 == 0:
            ids = {"xid_age_max": 2e9 + 3e4 * n, "xid_limit": 2.1e9}
            feed.judge(scene.reading("database", values=ids))
            row = {"sequence": "public.id", "ratio": 0.9 + n / 3e4}
            feed.judge(scene.reading("maintenance", values={"sequences": (row,)}))
            slot = {"slot": "old", "retained_bytes": n, "safe_bytes": 3000 - n}
            feed.judge(scene.reading("slots", values={"slots": (slot,)}))

    assert {told.of for told in target.warnings()} == {
        "connections",
        "xid",
        "sequence",
        "slot",
    }
    assert {breaker.state for breaker in target.breakers.values()} == {State.CLOSED}
    assert not [event for event in told if isinstance(event, Transition)]
