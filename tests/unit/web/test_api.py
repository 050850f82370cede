"""What programs ask and order; each answer is held to what the API says of itself."""

import asyncio
import csv
import io
from contextlib import closing
from dataclasses import replace
from itertools import pairwise

import pytest

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.reading import Finding
from pgbreaker.core.reload import Reloaded
from pgbreaker.core.states import Outcome, State
from pgbreaker.errors import ConfigError
from pgbreaker.monitor.desk import Desk
from pgbreaker.sinks.history import History, NotKeptError
from pgbreaker.sinks.hub import Notice
from pgbreaker.sinks.store import Bucket, Counts, Failure
from pgbreaker.sinks.store.file import connect, uri_of
from pgbreaker.web.api.changes import MOST as WAITING
from pgbreaker.web.api.changes import Changes
from pgbreaker.web.api.stream import MOST as STREAMS
from pgbreaker.web.api.stream import Stream
from pgbreaker.web.api.tables import Table, as_csv
from pgbreaker.web.api.timeline import MOST, timeline
from pgbreaker.web.doors.limits import DEFAULT
from pgbreaker.web.server import serve
from pgbreaker.web.views import LastReload, Stored, Views
from support.boards import Scene
from support.described import Described
from support.site import Served, serving
from support.storing import entry, override, storing

BREAKER = "/api/v1/breakers/main/read"
OVERRIDE = f"{BREAKER}/override"
WINDOWS = "/api/v1/maintenance"
FAR = 1_800_000_100.0  # the wall time of a scene


class Asking:
    """Asks what is served, and holds each answer to the description."""

    def __init__(self, served: Served, described: Described) -> None:
        self.served = served
        self.described = described

    async def __call__(self, method: str, path: str, status: int = 200, **more):
        """The body of an answer that has to have this status."""
        return (await self.full(method, path, status, **more))[1]

    async def full(self, method: str, path: str, status: int = 200, **more):
        """The answer and its body."""
        async with self.served.client.request(method, path, **more) as answer:
            is_json = "json" in answer.content_type
            body = await (answer.json() if is_json else answer.text())
            assert answer.status == status, body
        kind = answer.content_type
        self.described.check(method, path, answer.status, kind, body)
        return answer, body


@pytest.fixture
async def ask():
    async with serving() as served:
        described = Described((await served.get("/openapi.json"))[1])
        yield Asking(served, described)


def outage(served: Served, operation: str = "read") -> None:
    """Have a breaker open, and close again a while later."""
    scene = served.scene
    scene.open(operation)
    breaker = scene.board.targets["main"].breakers[operation]
    while breaker.state is not State.CLOSED:
        scene.time.now += 1.0
        for move in breaker.observe(Outcome.SUCCESS, scene.time.now):
            scene.hub.publish(move)


def fields(body) -> dict[str, str]:
    return {error["field"]: error["detail"] for error in body["errors"]}


# -- What is true now ----------------------------------------------------------------


async def test_the_status_tells_of_what_people_did(ask):
    await ask("PUT", OVERRIDE, json={"state": "open", "reason": "failover drill"})
    window = {"targets": ["main"], "reason": "minor upgrade", "for": "2h"}
    await ask("POST", WINDOWS, 201, json=window)

    status = await ask("GET", "/api/v1/status")

    assert status["overrides"] == 1
    assert [window["reason"] for window in status["maintenance"]] == ["minor upgrade"]
    (target,) = status["targets"]
    assert target["maintenance"]["active"]
    (seen,) = [b for b in target["breakers"] if b["name"] == "main/read"]
    assert (seen["state"], seen["computed_state"]) == ("forced_open", "closed")
    assert status["store"] is None
    assert status["reload"] is None


async def test_the_status_tells_how_the_store_is_and_what_became_of_a_reload(ask):
    served = ask.served
    views = Views(
        served.scene.board,
        served.scene.clock,
        "e1",
        stored=lambda: Stored(
            "the disk is full", 4096, "line 2 of the audit log was changed"
        ),
        last_reload=lambda: LastReload(FAR, "pgbreaker.yaml:3:1: no such key"),
    )
    served.scene.read()

    async with also(ask, views=views) as ask:
        status = await ask("GET", "/api/v1/status")

    assert status["store"] == {
        "degraded": True,
        "problem": "the disk is full",
        "size_bytes": 4096,
        "audit_fault": "line 2 of the audit log was changed",
    }
    assert status["reload"]["ok"] is False
    assert status["reload"]["problem"] == "pgbreaker.yaml:3:1: no such key"
    assert status["data_at"] is not None


def also(ask: Asking, **changed):
    """The same served once more, with something *changed*."""
    return _Also(ask, changed)


class _Also:
    def __init__(self, ask: Asking, changed) -> None:
        self._ask = ask
        inside = replace(ask.served.inside, **changed)
        stream = Stream(inside.history, inside.views, inside.clock)
        self._inside = replace(inside, stream=stream)

    async def __aenter__(self) -> Asking:
        plan = HttpPlan(listen=("127.0.0.1", 0))
        self._serving = serve(plan, self._inside)
        _, port = await self._serving.__aenter__()
        self._before = self._ask.served.client
        base = f"http://127.0.0.1:{port}"
        self._ask.served.client = type(self._before)(base)
        return self._ask

    async def __aexit__(self, *error) -> None:
        await self._ask.served.client.close()
        self._ask.served.client = self._before
        await self._serving.__aexit__(*error)


async def test_the_last_runs_of_probes_come_with_the_time_of_each_step(ask):
    served = ask.served
    served.scene.also(served.inside.recent)
    served.scene.read("login", steps=(("tcp", 0.25), ("auth", 0.5)))
    served.scene.time.now += 1
    served.scene.read("ping", Finding.TIMEOUT)

    runs = (await ask("GET", "/api/v1/targets/main/probes"))["probes"]
    logins = await ask("GET", "/api/v1/targets/main/probes?probe=login&limit=1")

    assert [(run["probe"], run["outcome"]) for run in runs] == [
        ("ping", "timeout"),
        ("login", "ok"),
    ]
    assert logins["probes"][0]["steps"] == {"tcp": 0.25, "auth": 0.5}


async def test_a_target_that_was_not_asked_yet_has_no_runs(ask):
    assert await ask("GET", "/api/v1/targets/main/probes") == {"probes": []}


async def test_the_configuration_is_shown_where_there_is_one(ask):
    nothing = await ask("GET", "/api/v1/config", 404)
    async with also(ask, config=lambda: {"targets": [{"name": "main"}]}) as ask:
        shown = await ask("GET", "/api/v1/config")

    assert nothing["title"] == "not found"
    assert shown == {"targets": [{"name": "main"}]}


# -- What has moved since ------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/api/v1/status", "/api/v1/targets", "/api/v1/targets/main"),
        *("/api/v1/breakers", BREAKER),
    ],
)
async def test_nothing_is_sent_again_before_something_moves(ask, path):
    answer, _ = await ask.full("GET", path)
    known = {"If-None-Match": answer.headers["ETag"]}
    again, body = await ask.full("GET", path, 304, headers=known)
    ask.served.scene.open("read")
    moved, _ = await ask.full("GET", path, headers=known)

    assert body == ""
    assert again.headers["ETag"] == answer.headers["ETag"]
    assert moved.headers["ETag"] != answer.headers["ETag"]
    index, before = moved.headers["X-Pgbreaker-Index"], answer.headers
    assert int(index) > int(before["X-Pgbreaker-Index"])


async def test_a_target_that_is_ill_before_any_breaker_moves_is_no_304(ask):
    ask.served.scene.read()
    answer, _ = await ask.full("GET", "/api/v1/targets")
    known = {"If-None-Match": f'"other", {answer.headers["ETag"]}'}
    await ask("GET", "/api/v1/targets", 304, headers=known)

    ask.served.scene.read("ping", Finding.REFUSED, confirmed=True)

    (target,) = await ask("GET", "/api/v1/targets", headers=known)
    assert target["state"] == "down"


async def test_who_waits_is_answered_as_soon_as_something_moves(ask):
    answer, _ = await ask.full("GET", "/api/v1/status")
    path = f"{BREAKER}?index={answer.headers['X-Pgbreaker-Index']}&wait=30s"
    waiting = asyncio.create_task(ask("GET", path))
    await until(lambda: ask.served.inside.stream.changes._waiting)

    ask.served.scene.open("read")

    assert (await asyncio.wait_for(waiting, 5))["state"] == "open"


async def test_who_waits_for_an_override_is_shown_it(ask):
    answer, _ = await ask.full("GET", BREAKER)
    path = f"{BREAKER}?index={answer.headers['X-Pgbreaker-Index']}"
    waiting = asyncio.create_task(ask("GET", path))
    await until(lambda: ask.served.inside.stream.changes._waiting)

    await ask("PUT", OVERRIDE, json={"state": "disabled", "reason": "noisy network"})

    assert (await asyncio.wait_for(waiting, 5))["state"] == "disabled"


async def test_who_waits_in_vain_is_told_the_same_index_or_that_all_is_as_it_was(ask):
    answer, _ = await ask.full("GET", BREAKER)
    index = answer.headers["X-Pgbreaker-Index"]
    path = f"{BREAKER}?index={index}&wait=50ms"

    same, _ = await ask.full("GET", path)
    known = {"If-None-Match": answer.headers["ETag"]}
    await ask("GET", path, 304, headers=known)

    assert same.headers["X-Pgbreaker-Index"] == index


async def test_who_has_the_index_of_a_daemon_before_this_one_does_not_wait(ask):
    async with asyncio.timeout(5):
        await ask("GET", f"{BREAKER}?index=1799999999999&wait=5m")


async def test_as_many_wait_as_leave_connections_to_others(ask):
    """Who waits takes a connection for minutes; scrapers of the same address need one."""
    answer, _ = await ask.full("GET", BREAKER)
    index, changes = (
        answer.headers["X-Pgbreaker-Index"],
        ask.served.inside.stream.changes,
    )
    waiting = [
        asyncio.create_task(changes.beyond(int(index), 60.0)) for _ in range(WAITING)
    ]
    await asyncio.sleep(0)

    full, body = await ask.full("GET", f"{BREAKER}?index={index}", 503)
    await ask("GET", BREAKER)
    await ask("GET", f"{BREAKER}?index=1")
    waiting.pop().cancel()
    await asyncio.sleep(0)
    await ask("GET", f"{BREAKER}?index={index}&wait=10ms")
    changes.close()
    await asyncio.gather(*waiting)

    assert (full.headers["Retry-After"], body["title"]) == ("5", "too many wait")
    assert DEFAULT.from_here > WAITING + STREAMS


async def test_a_decision_that_comes_late_is_waited_for_as_any_other():
    """Its id is smaller than what was told before it."""
    scene = Scene()
    changes = Changes(History(scene.board, scene.clock))
    changes.note(entry(10))
    waiting = asyncio.create_task(changes.beyond(changes.index, 60.0))
    await asyncio.sleep(0)

    changes.note(entry(5))

    await asyncio.wait_for(waiting, 5)
    assert (changes.index, changes.last) == (11, 10)


async def test_nobody_waits_for_a_daemon_that_ends(ask):
    answer, _ = await ask.full("GET", BREAKER)
    path = f"{BREAKER}?index={answer.headers['X-Pgbreaker-Index']}&wait=5m"
    waiting = asyncio.create_task(ask("GET", path))
    await until(lambda: ask.served.inside.stream.changes._waiting)

    await ask.served.inside.stream.close()

    assert (await asyncio.wait_for(waiting, 5))["state"] == "closed"


async def until(what, within: float = 5.0) -> None:
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


# -- Overrides -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "state"),
    [
        ("open", "forced_open"),
        ("closed", "closed"),
        ("disabled", "disabled"),
        ("metrics_only", "metrics_only"),
    ],
)
async def test_an_operators_word_stands_before_a_breakers_own(ask, asked, state):
    order = {"state": asked, "reason": "failover drill", "for": "30m", "author": "ann"}

    done = await ask("PUT", OVERRIDE, json=order)

    assert (done["state"], done["computed_state"]) == (state, "closed")
    assert done["override"] == {
        "state": state,
        "reason": "failover drill",
        "author": "ann",
        "until": "2027-01-15T08:31:40.000Z",
    }
    assert (await ask("GET", BREAKER))["override"] == done["override"]


async def test_it_holds_for_an_hour_unless_it_is_said_how_long(ask):
    order = {"state": "open", "reason": "failover drill"}

    done = await ask("PUT", OVERRIDE, json=order)

    assert done["override"]["until"] == "2027-01-15T09:01:40.000Z"
    assert done["override"]["author"] == "someone on this machine"


async def test_a_breaker_is_handed_back_with_or_without_a_word(ask):
    order = {"state": "open", "reason": "failover drill"}
    await ask("PUT", OVERRIDE, json=order)
    back = await ask("DELETE", OVERRIDE, json={"reason": "drill is over"})
    await ask("PUT", OVERRIDE, json=order)
    await ask("DELETE", OVERRIDE)
    again = await ask("DELETE", OVERRIDE)

    texts = [entry.text for entry in ask.served.history.entries]
    assert back["override"] is None
    assert again["state"] == "closed"
    assert "main/read decides by itself again: drill is over" in texts


@pytest.mark.parametrize(
    ("order", "wrong"),
    [
        (
            {"reasn": "failover drill"},
            {
                "reasn": "unknown (did you mean 'reason'?); there are state, reason,"
                " for, author",
                "state": "missing; it is a text",
                "reason": "missing; it is a text",
            },
        ),
        (
            {"state": "opened", "reason": 5, "for": 30, "author": None},
            {
                "state": "no 'opened' (did you mean 'open'?); there are open, closed,"
                " disabled, metrics_only",
                "reason": "is a text",
                "for": "30 of what? write 30s or 30ms",
                "author": "is a text",
            },
        ),
        (
            {"state": "open", "reason": "no"},
            {"reason": "2 characters are not 5 to 500"},
        ),
        (
            {"state": "open", "reason": "failover drill", "for": "8d"},
            {"for": "691200 s is not between 0 and 7 d 0 h"},
        ),
        (
            {"state": "open", "reason": "failover drill", "for": "1 h"},
            {"for": "'1 h' is no duration; write it like 30m or 1m30s"},
        ),
    ],
)
async def test_all_that_is_wrong_with_an_order_is_told_at_once(ask, order, wrong):
    body = await ask("PUT", OVERRIDE, 422, json=order)

    assert fields(body) == wrong
    assert ask.served.desk.overrides == {}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"state": NaN}', 400),
        (b'{"state": "open", "state": "closed"}', 400),
        (b"[" * 60_000, 400),
        (b"[]", 422),
        (b'"open"', 422),
    ],
)
async def test_what_is_no_json_object_is_no_order(ask, sent, status):
    headers = {"Content-Type": "application/json"}

    body = await ask("PUT", OVERRIDE, status, data=sent, headers=headers)

    assert list(fields(body)) == ["body"]


async def test_a_form_is_no_order(ask):
    await ask("PUT", OVERRIDE, 415, data={"state": "open"})


async def test_a_breaker_that_there_is_not_is_named_with_the_one_that_was_meant(ask):
    body = await ask(
        "PUT", "/api/v1/breakers/main/reed/override", 404, json={"state": "open"}
    )

    assert body["detail"] == (
        "no operation is called 'reed' (did you mean 'read'?); there are connect, read,"
        " write"
    )


class Full:
    """A ledger with no room."""

    async def record(self, entries) -> None:
        raise NotKeptError("the disk is full")


async def test_what_cannot_be_written_down_is_not_done(ask):
    scene = ask.served.scene
    history = History(scene.board, scene.clock, Full())
    desk = Desk(scene.board, scene.hub, history, scene.clock)
    order = {"state": "open", "reason": "failover drill"}

    async with also(ask, history=history, desk=desk) as ask:
        body = await ask("PUT", OVERRIDE, 507, json=order)

    assert body["detail"] == (
        "cannot be written down: the disk is full; nothing was done"
    )
    assert desk.overrides == {}


# -- Maintenance and notes -----------------------------------------------------------


async def test_maintenance_is_planned_listed_and_ended(ask):
    order = {
        "targets": ["main"],
        "reason": "minor upgrade",
        "starts": "2027-01-15T10:00:00+01:00",
        "for": "2h",
        "author": "ann",
    }
    answer, window = await ask.full("POST", WINDOWS, 201, json=order)
    listed = await ask("GET", WINDOWS)
    await ask("DELETE", f"{WINDOWS}/{window['id']}", json={"author": "bob"})

    assert window["starts"] == "2027-01-15T09:00:00.000Z"
    assert window["ends"] == "2027-01-15T11:00:00.000Z"
    assert (window["active"], window["author"]) == (False, "ann")
    assert answer.headers["Location"] == f"maintenance/{window['id']}"
    assert listed == {"windows": [window]}
    assert await ask("GET", WINDOWS) == {"windows": []}


@pytest.mark.parametrize(
    ("order", "wrong"),
    [
        ({"for": "2h"}, {"targets", "reason"}),
        ({"targets": "main", "reason": "minor upgrade", "for": "2h"}, {"targets"}),
        ({"targets": [1], "reason": "minor upgrade", "for": "2h"}, {"targets"}),
        ({"targets": ["main"], "reason": "minor upgrade"}, {"ends"}),
        ({"targets": ["nope"], "reason": "minor upgrade", "for": "2h"}, {"targets"}),
        (
            {"targets": ["*"], "reason": "minor upgrade", "ends": "2027-01-15 11:00"},
            {"ends"},
        ),
        (
            {
                "targets": ["*"],
                "reason": "minor upgrade",
                "ends": "2026-02-30T00:00:00Z",
            },
            {"ends"},
        ),
        ({"targets": ["*"], "reason": "minor upgrade", "ends": 5}, {"ends"}),
    ],
)
async def test_a_window_that_cannot_be_is_refused(ask, order, wrong):
    body = await ask("POST", WINDOWS, 422, json=order)

    assert set(fields(body)) == wrong
    assert ask.served.desk.windows == {}


@pytest.mark.parametrize("window", ["5", "x", "9" * 30])
async def test_a_window_that_there_is_not_cannot_be_ended(ask, window):
    await ask("DELETE", f"{WINDOWS}/{window}", 404)


async def test_a_note_is_written_to_an_event(ask):
    ask.served.scene.open("read")
    move = ask.served.history.entries[-1].id

    path = f"/api/v1/events/{move}/notes"
    note = await ask("POST", path, 201, json={"text": "a leak of job runners"})
    await ask("POST", "/api/v1/events/5/notes", 404, json={"text": "of nothing"})
    await ask("POST", path, 422, json={"text": "\u0007 bell it is"})

    assert note["details"] == {"of": move}
    assert note["breaker"] == "main/read"


# -- The past ------------------------------------------------------------------------


async def some_events(ask: Asking) -> list[int]:
    """An outage, a notice, and what somebody did; the ids of it all."""
    served = ask.served
    outage(served)
    served.scene.time.now += 60.0
    now = served.scene.time.now
    served.scene.hub.publish(Notice("main", "restarted", "it was restarted", now))
    order = {"state": "open", "reason": "failover drill", "author": "ann"}
    await ask("PUT", OVERRIDE, json=order)
    return [entry.id for entry in served.history.entries]


async def test_events_come_as_they_happened(ask):
    ids = await some_events(ask)

    events = (await ask("GET", "/api/v1/events"))["events"]

    assert [event["id"] for event in events] == ids
    assert events[0]["time"] == "2027-01-15T08:01:40.000Z"
    assert events[-1]["author"] == "ann"


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("kind=override", ["override"]),
        ("kind=override,notice", ["notice", "override"]),
        ("kind=override&kind=notice", ["notice", "override"]),
        ("since=30s", ["notice", "override"]),
        ("since=2027-01-15T08:02:00Z", ["notice", "override"]),
        ("since=2027-01-15T09:02:00+01:00", ["notice", "override"]),
        ("q=FAILOVER", ["override"]),
        ("q=ann", []),
        ("target=nope", []),
        ("breaker=main/read&limit=1", ["override"]),
        ("since=24h&limit=1", ["transition"]),
    ],
)
async def test_events_can_be_chosen(ask, query, kinds):
    await some_events(ask)

    body = await ask("GET", f"/api/v1/events?{query}")

    assert [event["kind"] for event in body["events"]] == kinds


async def test_pages_of_events_hang_together_both_ways(ask):
    ids = await some_events(ask)

    seen, path = [], "/api/v1/events?limit=2"
    while path is not None:
        page = await ask("GET", path)
        seen = [event["id"] for event in page["events"]] + seen
        path = page["previous"] and f"/api/v1/{page['previous']}"
    upward, path = [], "/api/v1/events?limit=2&since=24h"
    while path is not None:
        page = await ask("GET", path)
        upward += [event["id"] for event in page["events"]]
        path = page["next"] and f"/api/v1/{page['next']}"

    assert seen == upward == ids


@pytest.mark.parametrize(
    ("path", "field", "detail"),
    [
        (
            "events?kinds=notice",
            "kinds",
            (
                "unknown (did you mean 'kind'?); there are since, before, after, limit, kind,"
                " target, breaker, q, format"
            ),
        ),
        (
            "events?kind=notices",
            "kind",
            (
                "no 'notices' (did you mean 'notice'?); there are transition, override,"
                " maintenance, notice, pause, reload, note, daemon"
            ),
        ),
        ("events?limit=1001", "limit", "'1001' is no number from 1 to 1000"),
        ("events?limit=x", "limit", "'x' is no number from 1 to 1000"),
        ("events?limit=1&limit=2", "limit", "given more than once"),
        ("events?q=", "q", "0 characters are not 1 to 200"),
        (
            "events?since=yesterday",
            "since",
            (
                "'yesterday' is no time, age or id of an event; write 2026-11-26T03:12:00Z,"
                " 24h, or the id"
            ),
        ),
        ("incidents?since=2026-13-01T00:00:00Z", "since", None),
        ("incidents?limit=1001", "limit", None),
        ("incidents?before=x", "before", None),
        ("incidents?format=pdf", "format", "no 'pdf'; there are json, csv, md"),
        (
            "status?wait=5s",
            "wait",
            "for what? give the index that you have, too",
        ),
        ("status?index=1&wait=1h", "wait", "'1h' is longer than 5 min 0 s"),
        ("audit?author=ann", "author", "unknown; there are limit, before, verify"),
    ],
)
async def test_a_question_that_is_wrong_says_what_is(ask, path, field, detail):
    body = await ask("GET", f"/api/v1/{path}", 422)

    assert list(fields(body)) == [field]
    assert detail in (None, fields(body)[field])


async def test_an_incident_is_the_time_in_which_calls_do_not_pass(ask):
    ask.served.scene.open("write")
    outage(ask.served)
    first = ask.served.history.entries[1].id
    path = f"/api/v1/events/{first}/notes"
    await ask("POST", path, 201, json={"text": "a leak of job runners"})

    goes_on, over = (await ask("GET", "/api/v1/incidents"))["incidents"]
    ask.served.scene.time.now += 60.0
    recent = (await ask("GET", "/api/v1/incidents?since=30s"))["incidents"]

    assert (goes_on["breaker"], goes_on["ended"]) == ("main/write", None)
    assert (over["breaker"], over["sqlstate"]) == ("main/read", "53300")
    assert over["began"] == "2027-01-15T08:01:40.000Z"
    assert 0 < over["seconds"] < 60
    assert [note["text"] for note in over["notes"]] == ["a leak of job runners"]
    assert [one["breaker"] for one in recent] == ["main/write"]


async def test_of_many_incidents_the_newest_are_told_and_where_the_others_are(ask):
    outage(ask.served)
    ask.served.scene.open("write")

    answer, last = await ask.full("GET", "/api/v1/incidents?limit=1")
    link = last["previous"]
    first = await ask("GET", f"/api/v1/{link}")
    file, text = await ask.full("GET", "/api/v1/incidents?limit=1&format=csv")

    assert [one["breaker"] for one in last["incidents"]] == ["main/write"]
    assert [one["breaker"] for one in first["incidents"]] == ["main/read"]
    assert first["previous"] is None
    assert answer.headers["Link"] == f'<{link}>; rel="previous"'
    assert len(text.splitlines()) == 2
    assert "previous" in file.headers["Link"]


async def test_the_audit_tells_what_people_did_and_nothing_else(ask):
    await some_events(ask)
    await ask("DELETE", OVERRIDE, json={"author": "bob"})

    body = await ask("GET", "/api/v1/audit")

    assert [entry["author"] for entry in body["audit"]] == ["ann", "bob"]
    assert {entry["seal"] for entry in body["audit"]} == {None}


async def test_with_a_store_the_lines_of_the_audit_are_sealed_and_come_in_pages(
    ask, tmp_path
):
    scene = ask.served.scene
    async with storing(tmp_path / "state.db", clock=scene.clock) as store:
        history = History(scene.board, scene.clock, store, archive=store)
        desk = Desk(scene.board, scene.hub, history, scene.clock)
        async with also(ask, history=history, desk=desk) as ask:
            order = {"state": "open", "reason": "failover drill", "author": "ann"}
            await ask("PUT", OVERRIDE, json=order)
            await ask("DELETE", OVERRIDE, json={"author": "bob"})
            last = await ask("GET", "/api/v1/audit?limit=1")
            first = await ask("GET", f"/api/v1/{last['previous']}")

    assert [line["author"] for line in first["audit"]] == ["ann"]
    assert last["audit"][0]["before"] == first["audit"][0]["seal"]


async def test_whoever_asks_is_told_whether_the_audit_is_as_it_was_written(
    ask, tmp_path
):
    path, scene = tmp_path / "state.db", ask.served.scene
    async with storing(path, clock=scene.clock) as store:
        await store.record([override(1), override(2)])
        async with also(ask, store=store) as ask:
            unasked = await ask("GET", "/api/v1/audit")
            whole = await ask("GET", "/api/v1/audit?verify=true")
            with closing(connect(uri_of(path, "mode=rw"))) as connection:
                connection.execute("UPDATE audit SET author = 'eve' WHERE number = 2")
            changed = await ask("GET", "/api/v1/audit?verify=true")
    nothing = await ask("GET", "/api/v1/audit?verify=true", 404)

    assert (unasked["verified"], unasked["fault"]) == (False, None)
    assert (whole["verified"], whole["fault"]) == (True, None)
    assert changed["fault"] == "line 2 of the audit log was changed"
    assert nothing["title"] == "no store"


# -- What the store keeps of a target -------------------------------------------------

MINUTE = 1_800_000_060  # the full minute before the wall time of a scene
TARGET = "/api/v1/targets/main"


@pytest.fixture
async def kept(ask, tmp_path):
    """Asks a daemon with a store: of main two minutes with the reader shut in one, and
    three bad readings, one of which began as a spreadsheet's formula does."""
    scene = ask.served.scene
    async with storing(tmp_path / "state.db", clock=scene.clock) as store:
        store.count(
            Counts(
                {
                    ("main", MINUTE - 60): Bucket(MINUTE - 60, 60, 0.12, 0.004, 0),
                    ("main", MINUTE): Bucket(MINUTE, 0, 0.0, 0.0, 40),
                },
                {("main/read", MINUTE): 25.0},
                [
                    Failure("main", MINUTE + at, "ping", "refused", 0.01, None, text)
                    for at, text in enumerate(("nobody listens", "=1+1", None))
                ],
            )
        )
    path = tmp_path / "state.db"
    async with (
        storing(path, clock=scene.clock) as store,
        also(ask, store=store) as asking,
    ):
        yield asking


async def test_a_target_by_the_minute_has_its_pings_and_when_it_was_shut(kept):
    body = await kept("GET", f"{TARGET}/rollup")
    hours = await kept("GET", f"{TARGET}/rollup?by=hour&since=90d")

    first, second = body["rollup"]
    assert first["start"] == "2027-01-15T08:00:00.000Z"
    assert first["pings"] == {
        "count": 60,
        "mean_seconds": 0.002,
        "max_seconds": 0.004,
        "bad": 0,
    }
    assert first["shut_seconds"] == {"connect": 0.0, "read": 0.0, "write": 0.0}
    assert second["pings"]["mean_seconds"] is None
    assert second["shut_seconds"]["read"] == 25.0
    assert [(h["pings"]["count"], h["pings"]["bad"]) for h in hours["rollup"]] == [
        (60, 40)
    ]


async def test_a_part_of_the_past_can_be_asked_for(kept):
    since, ends = "2027-01-15T08:00:30Z", "2027-01-15T08:01:00Z"

    late = await kept("GET", f"{TARGET}/rollup?since={since}")
    none = await kept("GET", f"{TARGET}/rollup?since={since}&until={ends}")

    assert [line["pings"]["bad"] for line in late["rollup"]] == [40]
    assert none["rollup"] == []


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("since=7d", "since", "7 d 0 h by the minute are 10080 rows, and 2500"),
        ("by=day", "by", "no 'day'; there are minute, hour"),
        ("format=md", "format", "there are json, csv"),
        ("form=csv", "form", "there are since, until, by, format"),
    ],
)
async def test_a_past_that_is_not_told_is_refused_with_what_is(
    kept, query, field, says
):
    body = await kept("GET", f"{TARGET}/rollup?{query}", 422)

    assert says in fields(body)[field]


async def test_a_target_by_the_minute_as_csv_is_what_a_spreadsheet_reads(kept):
    answer, text = await kept.full("GET", f"{TARGET}/rollup?format=csv")
    _, failures = await kept.full("GET", f"{TARGET}/failures?format=csv")

    head, first, second = csv.reader(io.StringIO(text))
    assert head[:5] == ["start", "pings", "mean_seconds", "max_seconds", "bad"]
    assert head[5:] == [f"{o}_shut_seconds" for o in ("connect", "read", "write")]
    assert first[1:] == ["60", "0.002", "0.004", "0", "0.0", "0.0", "0.0"]
    assert second[1:] == ["0", "", "", "40", "0.0", "25.0", "0.0"]
    assert "pgbreaker-rollup.csv" in answer.headers["Content-Disposition"]
    assert "'=1+1" in failures


async def test_a_target_in_sum_is_of_the_time_in_which_it_was_seen(kept):
    spans = (await kept("GET", f"{TARGET}/summary"))["spans"]

    assert [span["span"] for span in spans] == ["24h", "7d", "90d"]
    for span in spans:
        assert span["seen_seconds"] == 100.0
        assert span["pings"]["count"] == 60
        assert span["breakers"]["read"] == {"shut_seconds": 25.0, "passed_ratio": 0.75}
        assert span["breakers"]["write"]["passed_ratio"] == 1.0


async def test_bad_readings_are_told_over_restarts_the_newest_first(kept):
    failures = (await kept("GET", f"{TARGET}/failures"))["failures"]

    assert [one["text"] for one in failures] == [None, "=1+1", "nobody listens"]
    assert failures[0]["outcome"] == "refused"
    assert failures[0]["at"] == "2027-01-15T08:01:02.000Z"


@pytest.mark.parametrize("kind", ["rollup", "summary", "failures"])
async def test_where_nothing_is_kept_that_is_said(ask, kind):
    body = await ask("GET", f"{TARGET}/{kind}", 404)

    assert body["title"] == "no store"
    assert "names no store" in body["detail"]


@pytest.mark.parametrize("kind", ["rollup", "summary", "failures"])
async def test_a_store_that_cannot_be_read_is_a_problem(kept, tmp_path, kind):
    for file in tmp_path.glob("state.db*"):
        file.unlink()

    body = await kept("GET", f"{TARGET}/{kind}", 503)

    assert body["detail"].startswith("the store cannot be read: ")


async def test_a_timeline_has_no_gaps_and_tells_both_states(ask):
    await some_events(ask)
    ask.served.scene.time.now += 10.0

    body = await ask("GET", f"{BREAKER}/timeline?since=1h")

    spans = body["spans"]
    assert [(span["state"], span["computed_state"]) for span in spans] == [
        ("open", "open"),
        ("half_open", "half_open"),
        ("closed", "closed"),
        ("forced_open", "closed"),
    ]
    ends = [span["ended"] for span in spans]
    assert ends == [*(span["began"] for span in spans[1:]), None]
    assert spans[0]["cause"] == "confirmed"
    assert spans[-1]["seconds"] == 10.0


async def test_a_timeline_tells_when_no_daemon_ran(ask):
    scene = ask.served.scene
    now = scene.clock.wall()
    details = {"phase": "start", "watched_until": now - 7200.0}
    told = {"kind": Kind.DAEMON, "breaker": None, "target": None, "details": details}
    ask.served.history.entries.append(entry(int((now - 60) * 1000), **told))

    body = await ask("GET", f"{BREAKER}/timeline?since=1h")

    assert body["unwatched"] == [
        {"began": body["since"], "ended": "2027-01-15T08:00:40.000Z"}
    ]


async def test_a_move_behind_an_override_does_not_end_it(ask):
    await ask("PUT", OVERRIDE, json={"state": "closed", "reason": "failover drill"})
    ask.served.scene.time.now += 10.0
    ask.served.scene.open("read")
    ask.served.scene.time.now += 10.0

    body = await ask("GET", f"{BREAKER}/timeline?since=1h")

    assert [(s["state"], s["computed_state"]) for s in body["spans"][-2:]] == [
        ("closed", "closed"),
        ("closed", "open"),
    ]


async def test_a_timeline_begins_with_what_was_so_before(ask):
    await some_events(ask)
    ask.served.scene.time.now += 3600.0
    await ask("DELETE", OVERRIDE)

    path = f"{BREAKER}/timeline?since=10m"
    begins, ends = (await ask("GET", path))["spans"]

    assert (begins["state"], begins["computed_state"]) == ("forced_open", "closed")
    assert begins["seconds"] == 600.0
    assert ends["seconds"] == 0.0


class Book:
    """An archive of moves that a server made which was away for a month."""

    def __init__(self, moves: int) -> None:
        self.read = 0
        ends = ("open", "half_open")
        self._moves = [
            entry(n, details={"from": ends[n % 2], "to": ends[not n % 2]})
            for n in range(1, moves + 1)
        ]

    async def entries(self, wanted) -> list[Entry]:
        found = wanted.cut([e for e in self._moves if wanted.matches(e)])
        self.read += len(found)
        return found


async def test_a_timeline_has_an_end_and_the_newest_are_told():
    """A hundred thousand moves would hold the loop for seconds, and probes with it."""
    scene, book = Scene(), Book(MOST + 500)
    history = History(scene.board, scene.clock, archive=book, last=MOST + 500)
    breaker = scene.board.targets["main"].breakers["read"]

    spans = await timeline(history, breaker, 0.0, 0.0)

    assert len(spans) == MOST
    assert (spans[0].entry, spans[-1].entry) == (501, MOST + 500)
    assert spans[0].began == 0.501
    assert all(a.ended == b.began for a, b in pairwise(spans))
    assert book.read <= MOST + 2


# -- Export --------------------------------------------------------------------------


async def test_events_as_csv_are_what_a_spreadsheet_reads_and_no_formula(ask):
    await some_events(ask)
    order = {"state": "open", "reason": "=cmd|'/c calc'!A0", "author": '@ann, "bob"'}
    await ask("PUT", OVERRIDE, json=order)
    last = ask.served.history.entries[-1].id
    await ask(
        "POST",
        f"/api/v1/events/{last}/notes",
        201,
        json={"text": '=HYPERLINK("http://evil")'},
    )

    answer, text = await ask.full("GET", "/api/v1/events?format=csv")

    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert answer.headers["Content-Disposition"].endswith('events.csv"')
    assert text.count("\r\n") == len(rows) + 1
    assert rows[-2]["author"] == '\'@ann, "bob"'
    assert rows[-1]["text"] == '\'=HYPERLINK("http://evil")'
    assert rows[0]["breaker"] == "main/read"


@pytest.mark.parametrize("first", [*"=+-@\t\uff1d\uff0b\uff0d\uff20"])
def test_no_cell_begins_as_a_formula_does(first):
    told = as_csv(Table("Events", ("text",), [(f"{first}1+1",)]))

    assert told == f"text\r\n'{first}1+1\r\n"


async def test_incidents_as_markdown_are_a_table_in_which_nobody_writes_markup(ask):
    outage(ask.served)
    first = ask.served.history.entries[0].id
    path = f"/api/v1/events/{first}/notes"
    evil = "<img src=x> | [here](http://evil) `rm`"
    await ask("POST", path, 201, json={"text": evil, "author": "**ann**"})

    answer, text = await ask.full("GET", "/api/v1/incidents?format=md")

    lines = text.splitlines()
    assert answer.content_type == "text/markdown"
    assert lines[0].startswith("# Incidents since ")
    assert lines[2].count("|") == lines[4].replace("\\|", "").count("|") == 11
    assert "&lt;img src=x&gt; \\| \\[here\\](http://evil) \\`rm\\`" in text
    assert "\\*\\*ann\\*\\*" in text
    assert "<img" not in text
    assert "[here]" not in text.replace("\\[", "").replace("\\]", "")
    assert "## Notes" in lines


async def test_no_incidents_are_no_empty_table(ask):
    assert "There were none." in await ask("GET", "/api/v1/incidents?format=md")


async def test_incidents_as_csv_have_a_row_each(ask):
    outage(ask.served)

    text = await ask("GET", "/api/v1/incidents?format=csv")

    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["breaker"], row["sqlstate"]) == ("main/read", "53300")
    assert float(row["seconds"]) > 0


# -- The daemon itself ---------------------------------------------------------------


async def test_a_reload_tells_what_changed_and_who_asked_is_known(ask):
    asked = []

    async def reload(author) -> Reloaded:
        asked.append(author)
        return Reloaded(("targets.main.interval: 1s -> 2s",), ())

    async with also(ask, reload=reload) as ask:
        done = await ask("POST", "/-/reload", json={"author": "ann"})
        await ask("POST", "/-/reload")

    assert done == {"changes": ["targets.main.interval: 1s -> 2s"], "later": []}
    assert asked == ["ann", "someone on this machine"]


@pytest.mark.parametrize(
    ("author", "why"),
    [
        ("\ud800", "holds a character that cannot be shown: '\\ud800'"),
        ("ann\x1b[31m", "holds a character that cannot be shown: '\\x1b'"),
        ("ann \u202edaor", "holds a character that cannot be shown: '\\u202e'"),
        (" \r\n ", "0 characters are not 1 to 100"),
    ],
)
async def test_who_reloads_has_a_name_that_can_be_shown(ask, author, why):
    """Half a character would have every page and every table fail that shows it."""
    asked = []

    async def reload(by) -> Reloaded:
        asked.append(by)
        return Reloaded((), ())

    async with also(ask, reload=reload) as ask:
        body = await ask("POST", "/-/reload", 422, json={"author": author})
        await ask("POST", "/-/reload", json={"author": "ann\r\nroot"})

    assert fields(body) == {"author": why}
    assert asked == ["ann root"]


async def test_a_configuration_that_is_refused_says_where_it_is_wrong(ask):
    async def reload(_author) -> Reloaded:
        raise ConfigError(("a.yaml:3:1: no such key", "a.yaml:9:5: no duration"))

    async with also(ask, reload=reload) as ask:
        body = await ask("POST", "/-/reload", 422)

    assert fields(body) == {"a.yaml:3:1": "no such key", "a.yaml:9:5": "no duration"}


async def test_where_there_is_no_file_there_is_nothing_to_reload(ask):
    await ask("POST", "/-/reload", 409)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("POST", "/api/v1/status", 405),
        ("DELETE", "/api/v1/stream", 405),
        ("PUT", OVERRIDE, 413),
        ("GET", "/api/v1/status?" + "x" * 9000, 414),
    ],
)
async def test_whatever_goes_wrong_is_a_problem(ask, method, path, status):
    more = {"json": {"reason": "x" * 70_000}} if status == 413 else {}

    async with ask.served.client.request(method, path, **more) as answer:
        body = await answer.json(content_type="application/problem+json")

    assert (answer.status, body["status"]) == (status, status)
    assert set(body) == {"type", "title", "status", "detail"}


async def test_no_read_changes_anything(ask):
    await some_events(ask)
    before = [repr(b) for b in ask.served.scene.board.targets["main"].breakers.values()]
    entries = list(ask.served.history.entries)

    for path in ask.described.document["paths"]:
        named = path.replace("{target}", "main").replace("{operation}", "read")
        if not path.endswith("/stream") and "{id}" not in path:
            await ask.served.get(named)

    after = [repr(b) for b in ask.served.scene.board.targets["main"].breakers.values()]
    assert (before, entries) == (after, list(ask.served.history.entries))
    assert {entry.kind for entry in entries} == {
        Kind.TRANSITION,
        Kind.NOTICE,
        Kind.OVERRIDE,
    }
