"""What is foretold, by the API: all of it, as it is described."""

import json
from dataclasses import replace

from pgbreaker.core.forecast.foretold import Foretold
from pgbreaker.core.forecast.score import Score
from pgbreaker.core.forecast.telling import UNSEEN, tally
from pgbreaker.monitor.feed import Feed
from support.described import Described
from support.foretelling import AGEING, LIKELY, REASON, TELLING, foretell
from support.site import Served, serving

TARGET = "/api/v1/targets/main"


async def ask(served: Served, path: str):
    """What is answered, once it is as the API's own description has it."""
    described = Described((await served.get("/openapi.json"))[1])
    answer, body = await served.get(path)
    described.check("GET", path, answer.status, answer.content_type, body)
    json.dumps(body, allow_nan=False)
    return body


async def test_all_that_is_foretold_of_a_target_is_in_its_answer():
    async with serving("main", "other") as served:
        foretell(served.scene.board.targets["main"], replace(TELLING, model=LIKELY))
        told = (await ask(served, TARGET))["forecast"]

    assert told["warnings"][0] == {
        "of": "connections",
        "since": "2027-01-15T08:00:40.000Z",
        "seconds": 1260.0,
        "soonest_seconds": 1020.0,
        "latest_seconds": 1680.0,
        "probability": None,
        "reason": REASON,
    }
    assert told["runways"][3] == {
        "of": "sequence",
        "what": "a sequence",
        "name": "order_id",
        "seconds": 9e6,
        "soonest_seconds": 8e6,
        "latest_seconds": 1e7,
    }
    assert (told["failure_probability"], told["silent_because"]) == (0.31, None)
    assert told["reasons"] == [
        "waits for locks grow",
        "statements take twice as long",
    ]
    assert told["model"] == {
        "openings": 7,
        "begun": "2027-01-15T06:36:40.000Z",
        "learned": "2027-01-15T08:00:20.000Z",
    }
    assert told["changes"][0]["usual"] == 0.02
    assert told["record"]["connections"] == {
        "warnings": 4,
        "came": 3,
        "late": 0,
        "false": 1,
        "missed": 1,
        "precision": 0.75,
        "recall": 0.75,
        "lead_seconds": 900.0,
        "text": "3 of 4 such warnings came true, 1 failure came unannounced",
    }


async def test_what_may_never_come_is_null_at_the_latest():
    """JSON knows no infinity, and what Python writes for it nobody else reads."""
    async with serving() as served:
        foretell(served.scene.board.targets["main"], TELLING)
        told = (await ask(served, TARGET))["forecast"]

    assert told["warnings"][1]["latest_seconds"] is None
    assert told["warnings"][1]["soonest_seconds"] == 3 * 86400.0


async def test_a_target_that_others_watch_has_no_forecast_here():
    async with serving() as served:
        target = served.scene.board.targets["main"]
        foretell(target, TELLING)
        target.rest()

        assert (await ask(served, TARGET))["forecast"] is None
        assert (await ask(served, "/api/v1/status"))["warnings"] == []


async def test_the_status_has_the_warnings_that_stand_and_no_more():
    async with serving("main", "other") as served:
        foretell(served.scene.board.targets["other"], TELLING)
        told = await ask(served, "/api/v1/status")

    assert [(one["target"], one["of"]) for one in told["warnings"]] == [
        ("other", "connections"),
        ("other", "xid"),
    ]
    assert told["warnings"][1]["reason"] == AGEING.reason
    assert all("forecast" not in target for target in told["targets"])


async def test_what_a_watcher_foretells_is_told_from_when_it_does():
    """By the same readings that it shows: nobody has to be told of a warning."""
    async with serving() as served:
        scene = served.scene
        feed = Feed(scene.board.targets["main"], scene.hub, scene.clock)
        calm = await ask(served, "/api/v1/status")
        for minute in range(40):
            scene.time.now += 60
            values = {"xid_age_max": 2e9 + minute * 2e6, "xid_limit": 2.1e9}
            feed.show(scene.reading("database", values=values))
        told = await ask(served, "/api/v1/status")
        whole = await ask(served, TARGET)

    assert calm["warnings"] == []
    (warning,) = told["warnings"]
    assert warning["of"] == "xid"
    assert warning["reason"] == whole["forecast"]["warnings"][0]["reason"]


async def test_a_target_of_which_nothing_is_known_yet_answers_as_described():
    async with serving() as served:
        foretell(served.scene.board.targets["main"], Foretold())
        told = (await ask(served, TARGET))["forecast"]

    assert told["model"] == {"openings": 0, "begun": None, "learned": None}


def test_a_record_is_told_without_boasting():
    assert tally(Score()) == UNSEEN
    assert tally(Score(missed=2)) == f"{UNSEEN}, 2 failures came unannounced"
    assert tally(Score(came=1, late=1)) == (
        "1 of 1 such warnings came true, 1 came less than a minute before"
    )
