"""What the page says, and what it costs; `tests/acceptance/test_page.py` looks at it."""

import asyncio
import cProfile
import gzip
import pstats
import re
import threading
import time
from dataclasses import replace
from math import inf

import aiohttp
import pytest

from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.forecast.foretold import Foretold, RunsOut
from pgbreaker.core.forecast.runway import NOTHING_LEFT, Left
from pgbreaker.core.forecast.warning import KINDS
from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, Override, State
from pgbreaker.sinks.history import History
from pgbreaker.sinks.recent import Recent
from pgbreaker.sinks.store import Bucket, Counts
from pgbreaker.sinks.store.file import connect
from pgbreaker.web.page import press
from pgbreaker.web.page.asked import Asked
from pgbreaker.web.page.breakers import bars_of
from pgbreaker.web.page.drawing import Bar, line
from pgbreaker.web.page.feed import Filter
from pgbreaker.web.page.forecast import forecast
from pgbreaker.web.page.orders import Order, command, effect, is_risky
from pgbreaker.web.page.overview import Overview
from pgbreaker.web.page.sheet import Sheet, Sheets
from pgbreaker.web.page.targets import row_of
from pgbreaker.web.page.timeline import timeline
from pgbreaker.web.page.words import neat
from pgbreaker.web.server import serve
from pgbreaker.web.views import LastReload, Stored
from support.boards import Scene
from support.figures import tell
from support.foretelling import (
    AGEING,
    CALM,
    FILLING,
    LIKELY,
    REASON,
    TELLING,
    foretell,
)
from support.site import Served, serving
from support.storing import storing, until

HEAVIEST = 60_000
DASH = "\N{EN DASH}"  # there is none


@pytest.fixture
async def served():
    async with serving("main", "other") as served:
        listen(served)
        for name in ("main", "other"):
            read(served, name)
        yield served


def listen(served: Served) -> None:
    served.scene.also(served.metrics, served.history, served.inside.recent)


def read(served: Served, name: str, **more) -> None:
    at = served.scene.time.now
    for probe in ("ping", "login"):
        served.scene.hub.publish(Reading(name, probe, at, 0.002, Finding.OK, **more))


def mark_of(text: str) -> str:
    found = re.search(r'data-mark="([^"]+)"', text)
    assert found is not None
    return found[1]


# What it costs.


def test_all_that_a_page_loads_is_light():
    files = press.statics()

    packed = {name: len(gzip.compress(text)) for name, (text, _) in files.items()}

    loaded = sum(size for name, size in packed.items() if name.endswith(("js", "css")))
    tell("scripts and styles, packed", f"{loaded} bytes", f"{HEAVIEST} bytes")
    assert {"page.css", "page.js", "good.svg"} <= set(files)
    assert loaded <= HEAVIEST


def test_nothing_comes_from_elsewhere_and_nothing_stands_in_the_markup():
    for name, (text, _) in press.statics().items():
        said = text.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in said, name
        assert "https://" not in said, name
        assert "@import" not in said, name
    assert "unsafe" not in press.CSP


async def test_pages_have_neither_script_nor_style_in_them(served):
    served.scene.open("connect")

    for path in ("/", "/targets/main", "/breakers/main/connect", "/events"):
        answer, text = await served.get(path)
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text), path
        assert re.findall(r"<script[^>]*>", text) == [
            f'<script type="module" src="{"../" * (path.count("/") - 1)}static/{press.edition()}/page.js">'
        ]
        assert answer.headers["Content-Security-Policy"] == press.CSP


async def test_what_pages_load_is_kept_for_ever_until_it_is_another(served):
    path = f"/static/{press.edition()}/page.css"

    answer, _ = await served.get(path)
    again, _ = await served.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    old, _ = await served.get("/static/000000000000/page.css")
    none, _ = await served.get(f"/static/{press.edition()}/..%2Ftemplates%2Fbase.html")

    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Content-Encoding"] == "gzip"
    assert again.status == 304
    assert old.headers["Cache-Control"] == "no-cache"
    assert none.status == 404


async def test_fifty_browsers_cost_as_much_as_one(served):
    _, text = await served.get("/")
    served.scene.open("read")
    profile = cProfile.Profile()
    with profile:
        answers = await asyncio.gather(
            *(served.get("/", params={"since": mark_of(text)}) for _ in range(50))
        )
    calls = {
        function[2]: count
        for function, (count, *_) in pstats.Stats(profile).stats.items()
        if "web/page/overview.py" in function[0]
    }

    assert len({body for _, body in answers}) == 1
    assert calls["verdict"] == calls["cards"] == 1


# What changed.


async def test_a_browser_that_has_the_page_is_sent_what_changed(served):
    _, text = await served.get("/")
    nothing, _ = await served.get("/", params={"since": mark_of(text)})

    served.scene.open("read")
    served.scene.time.now += 0.5
    answer, body = await served.get("/", params={"since": mark_of(text)})

    assert nothing.status == 204
    assert answer.status == 200
    assert 'id="verdict"' in body
    assert 'id="t:main"' in body
    assert 'id="t:other"' not in body
    assert "<html" not in body
    mark = answer.headers["Pgbreaker-Mark"]
    assert (await served.get("/", params={"since": mark}))[0].status == 204


@pytest.mark.parametrize("mark", ["", "e0-1-1.3", "e1-1-1.x", "e1-1-1.", "."])
async def test_a_browser_with_another_page_is_sent_all_of_it(served, mark):
    await served.get("/")

    answer, body = await served.get("/", params={"since": mark})

    assert body.startswith("<!doctype html>")
    assert "Pgbreaker-Mark" not in answer.headers


async def test_how_old_the_data_are_is_in_every_answer(served):
    served.scene.time.now += 3.0

    answer, _ = await served.get("/")

    now, heard = (int(answer.headers[f"Pgbreaker-{n}"]) for n in ("Now", "Heard"))
    assert now - heard == 2998  # a reading is as old as its end


class Slow:
    """An archive that never comes back to whoever asks first."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()

    async def entries(self, wanted) -> list[Entry]:
        if not self.is_asked.is_set():
            self.is_asked.set()
            await asyncio.Event().wait()
        return []


@pytest.mark.parametrize("path", ["/", "/targets/main", "/breakers/main/read"])
async def test_who_goes_away_in_the_middle_leaves_no_half_of_a_page(path):
    """The next reader of the same quarter of a second is shown all of it."""
    served, archive = Served("main"), Slow()
    scene = served.scene
    history = History(scene.board, scene.clock, archive=archive)
    inside = replace(served.inside, history=history)
    plan = HttpPlan(listen=("127.0.0.1", 0))
    async with (
        serve(plan, inside) as (host, port),
        aiohttp.ClientSession(f"http://{host}:{port}") as client,
    ):
        served.client = client
        first = asyncio.create_task(served.get(path))
        await asyncio.wait_for(archive.is_asked.wait(), 5.0)
        first.cancel()

        answer, text = await served.get(path)

    assert answer.status == 200
    assert 'id="timeline"' in text


def test_a_sheet_tells_what_changed_and_nothing_else():
    sheet = Sheet("e1")
    sheet.put("a", 1, press.Markup("<p>a</p>"))
    sheet.put("b", 1, press.Markup("<p>b</p>"))
    version = sheet.version

    sheet.put("a", 2, press.Markup("<p>a</p>"))
    sheet.put("b", 2, press.Markup("<p>B</p>"))

    assert list(sheet.since(version)) == ["<p>B</p>"]
    assert sheet.is_due("a", 3)
    assert not sheet.is_due("a", 2)


def test_sheets_that_nobody_looks_at_are_given_up():
    sheets = Sheets()
    first = sheets.of(("/", 0), "e1")

    for number in range(1000):
        sheets.of(("/", number % 999 + 1), "e1")

    assert sheets.of(("/", 0), "e1") is not first


# Who may do what.


async def test_who_may_only_look_is_shown_nothing_to_press(served):
    """Somebody comes by a proxy, and nobody has said who that may be."""
    served.scene.open("read")
    proxied = {"X-Forwarded-For": "10.0.0.1"}

    for path in ("/", "/breakers/main/read", "/events", "/maintenance"):
        _, text = await served.get(path, headers=proxied)
        assert "data-dialog" not in text, path
        assert '<form class="order"' not in text, path
    answer, _ = await served.get("/breakers/main/read/act?do=open", headers=proxied)

    assert answer.status == 403


async def test_a_refused_order_is_shown_again_with_what_is_wrong(served):
    path = "/breakers/main/read/act"
    _, form = await served.get(f"{path}?do=open")
    token = re.findall(r'name="csrf" value="([^"]+)"', form)[0]

    answer = await served.client.post(
        path, data={"csrf": token, "do": "open", "reason": " x ", "for": "1h"}
    )
    text = await answer.text()

    assert answer.status == 422
    assert 'aria-invalid="true"' in text
    assert served.desk.overrides == {}


async def test_an_undo_brings_back_the_word_that_was_there_before(served):
    breaker = served.scene.board.targets["main"].breakers["read"]
    await served.desk.override(
        breaker, State.FORCED_OPEN, reason="failover", author="ana"
    )
    _, form = await served.get("/breakers/main/read/act?do=auto&part=1")
    token = re.findall(r'name="csrf" value="([^"]+)"', form)[0]

    said = {"csrf": token, "do": "auto", "reason": "it is over"}
    answer = await served.client.post("/breakers/main/read/act?part=1", data=said)
    toast = await answer.text()
    assert breaker.override is None
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', toast))
    await served.client.post("/breakers/main/read/act?part=1", data=fields)

    assert breaker.override is not None
    assert breaker.override.state is State.FORCED_OPEN
    assert "failover" in breaker.override.reason


async def test_an_undo_takes_back_nothing_that_somebody_decided_since(served):
    breaker = served.scene.board.targets["main"].breakers["read"]
    path = "/breakers/main/read/act?part=1"
    _, form = await served.get(f"{path}&do=open")
    token = re.findall(r'name="csrf" value="([^"]+)"', form)[0]
    said = {"csrf": token, "do": "open", "reason": "failover", "for": "1h"}
    toast = await (await served.client.post(path, data=said)).text()
    fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', toast))

    await served.desk.override(
        breaker, State.DISABLED, reason="no, it is needed", author="bo"
    )
    answer = await served.client.post(path, data=fields)

    assert answer.status == 422
    assert "somebody has decided something else since" in await answer.text()
    assert breaker.state is State.DISABLED


async def test_a_form_that_asks_for_nothing_we_know_changes_nothing(served):
    breaker = served.scene.board.targets["main"].breakers["read"]
    await served.desk.override(
        breaker, State.FORCED_OPEN, reason="failover", author="ana"
    )
    _, form = await served.get("/breakers/main/read/act?do=auto&part=1")
    token = re.findall(r'name="csrf" value="([^"]+)"', form)[0]

    answer = await served.client.post(
        "/breakers/main/read/act", data={"csrf": token, "reason": "just so"}
    )

    assert answer.status == 404
    assert breaker.state is State.FORCED_OPEN


async def test_a_note_is_written_to_an_event_and_shown_with_it(served):
    served.scene.open("read")
    entry = served.history.entries[-1].id
    _, form = await served.get(f"/events/{entry}/note?part=1")
    token = re.findall(r'name="csrf" value="([^"]+)"', form)[0]

    said = {"csrf": token, "text": "the switch was replaced", "author": "ana"}
    answer = await served.client.post(f"/events/{entry}/note", data=said)

    assert str(answer.url).endswith("/events")
    assert 'class="note">the switch was replaced' in await answer.text()
    assert (await served.get("/events/17/note"))[0].status == 404


def test_the_effect_and_the_command_are_said_before_anything_is_done():
    breaker = Scene().board.targets["main"].breakers["read"]
    order = Order("open", reason="it's broken", lasting="30m")

    assert "/health/main/read get 503" in effect(breaker, "open")
    assert command(breaker, order) == (
        """pgbreaker open main/read --reason 'it'"'"'s broken' --for 30m"""
    )


def test_only_what_sends_calls_to_a_failing_server_is_risky():
    scene = Scene()
    breaker = scene.board.targets["main"].breakers["connect"]
    assert not any(is_risky(breaker, verb) for verb in ("open", "close", "auto"))

    scene.open("connect")

    assert is_risky(breaker, "close")
    assert is_risky(breaker, "disable")
    assert not is_risky(breaker, "open")


# What it says.


async def test_the_verdict_names_what_is_wrong_with_its_numbers(served):
    overview = Overview(served.inside)
    assert overview.verdict().says == "All 2 targets healthy"

    served.scene.open("connect")
    served.scene.time.now += 192

    verdict = Overview(served.inside).verdict()
    assert verdict.tone == "bad"
    assert verdict.says == (
        "1 breaker open: main/connect for 3 min 12 s"
        " — 53300 sorry, too many clients already"
    )


async def test_a_verdict_on_several_names_them_and_their_one_reason(served):
    for operation in ("connect", "read"):
        served.scene.open(operation)

    verdict = Overview(served.inside).verdict()
    await served.desk.override(
        served.scene.board.targets["other"].breakers["write"],
        State.FORCED_OPEN,
        reason="moving it",
        author="ana",
    )

    assert verdict.says == (
        "2 breakers open: main/connect, main/read — 53300 sorry, too many clients already"
    )
    assert Overview(served.inside).verdict().says == (
        "3 breakers not closed (2 open, 1 forced open): main/connect, main/read, other/write"
    )


async def test_what_is_warned_of_is_in_the_verdict_though_all_is_well(served):
    targets = served.scene.board.targets
    foretell(targets["main"], TELLING)

    verdict = Overview(served.inside).verdict()
    (card,) = Overview(served.inside).cards()
    foretell(targets["other"], replace(TELLING, warnings=(AGEING,)))
    both = Overview(served.inside).verdict()

    assert verdict.tone == "warn"
    assert verdict.says == f"No breaker open, but main has a warning: {REASON}"
    assert (card.name, [told.of for told in card.warned]) == ("main", ["connections", "xid"])  # fmt: skip
    assert both.says == (
        f"No breaker open, but 2 targets have warnings, first main: {REASON}"
    )


async def test_a_warning_is_told_with_its_age_and_how_often_such_came_true(served):
    foretell(served.scene.board.targets["main"], TELLING)

    _, text = await served.get("/")
    card = text.partition('id="card:main"')[2].partition("</article>")[0]

    assert REASON in card
    assert "3 of 4 such warnings came true, 1 failure came unannounced" in card
    assert "such warnings are not counted: there are days to avert it" in card
    assert re.search(r"Warned for <time [^>]*>1 min</time>", card)


async def test_where_nothing_stands_nobody_is_asked_what_is_foretold(served):
    """The overview shows five hundred targets, four times a second."""
    target = served.scene.board.targets["main"]
    asked = []
    foretell(target, CALM)
    target.foretold = lambda: asked.append(1) or CALM

    await served.get("/")
    await served.get("/api/v1/status")

    assert asked == []


async def test_of_many_targets_those_that_are_warned_of_are_found(served):
    foretell(served.scene.board.targets["other"], TELLING)

    rows = [row_of(served.inside, t) for t in served.scene.board.targets.values()]
    ((_, found),) = Asked.of({"show": "warned"}).arrange(rows)

    assert [row.name for row in found] == ["other"]


async def test_a_target_in_maintenance_alarms_nobody_and_is_not_hidden(served):
    served.scene.open("connect")
    await served.desk.begin(
        ["main"],
        reason="a new disk",
        author="bo",
        ends=served.scene.clock.wall() + 600,
    )

    overview = Overview(served.inside)

    assert overview.verdict().tone == "good"
    assert overview.verdict().more == "1 target in maintenance"
    assert [banner.name.split("-")[0] for banner in overview.banners()] == [
        "maintenance"
    ]
    assert [card.name for card in overview.cards()] == ["main"]


async def test_the_breakers_page_says_which_rule_holds_and_what_was_seen(served):
    served.scene.open("connect")

    _, text = await served.get("/breakers/main/connect")

    holds = re.findall(r'<li class="holds">.*?<strong>(.*?)</strong>', text, re.DOTALL)
    assert holds == ["Two signals agree that it fails"]
    assert "login ended full after 2.0 ms" in text
    assert "<code>53300</code>" in text
    assert "pgbreaker open main/connect" in text
    assert "pgbreaker_breaker_state{breaker=&#34;main/connect&#34;}" in text


async def test_while_a_breaker_is_open_nothing_is_said_of_what_it_does_not_count(
    served,
):
    served.scene.open("connect")

    _, text = await served.get("/breakers/main/connect")

    assert "counted only while it is closed" in text
    assert "in the last 10 s failed" not in text
    assert bars_of(served.scene.board.targets["main"], "connect", served.scene.clock) == []  # fmt: skip


async def test_what_was_told_without_asking_the_server_is_told_as_that(served):
    at = served.scene.time.now
    refused = Evidence("refused", "connection refused")
    for probe, took in (("ping", 0.0004), ("login", 0.000002)):
        served.scene.hub.publish(
            Reading("main", probe, at, took, Finding.REFUSED, evidence=refused)
        )

    _, text = await served.get("/targets/main")

    ping, login = re.findall(r'<tr class="bad">(.*?)</tr>', text, re.DOTALL)
    assert "not asked" in login
    assert "0.0 ms" not in login
    assert "0.4 ms" in ping
    assert "on the held connection" not in login + ping


async def test_each_thing_that_is_wrong_with_the_file_is_told_apart(served):
    problem = "a.yaml:1:1: this\na.yaml:2:1: that"
    served.inside.views.last_reload = lambda: LastReload(1.0, problem)

    (banner,) = Overview(served.inside).banners()

    assert banner.says.endswith("a.yaml:1:1: this; a.yaml:2:1: that")


def foretold(of: Foretold):
    """What the page shows of that."""
    target = Scene().board.targets["main"]
    foretell(target, of)
    return forecast(target)


def test_what_runs_out_in_a_hundred_years_has_no_end_in_sight():
    far = RunsOut(of="xid", left=Left(5e9, 4e9, inf))

    first = foretold(Foretold(runways=(far,))).endings[0]

    assert (first.says, first.when, first.is_watched) == (
        "transaction ids",
        "no end in sight",
        True,
    )


def test_what_has_run_out_has_done_so_now_and_not_in_no_seconds():
    full = RunsOut(of="connections", left=NOTHING_LEFT, is_short=True)

    assert foretold(Foretold(runways=(full,))).endings[0].when == "now"


def test_a_forecast_says_what_is_missing_where_it_cannot_be_told():
    seen = foretold(TELLING)

    assert [(end.says, end.when) for end in seen.endings[:4]] == [
        ("connection slots", "in 21 min (17 to 28 min)"),
        ("transaction ids", "in 4 d (at the soonest 3 d)"),
        ("a sequence (order_id)", "in 104 d (93 to 116 d)"),
        ("multixact ids", "no end in sight"),
    ]
    known = {end.says: end.is_watched for end in seen.endings}
    assert len(known) == len(KINDS) - 1
    assert not known["disk, by all that is on it"]


def test_a_warning_whose_reason_is_gone_says_so():
    """It stands for a while, so that it does not come and go."""
    over = replace(TELLING, warnings=(FILLING,), runways=(RunsOut(of="connections"),))

    assert [told.is_fading for told in foretold(TELLING).warned] == [False, False]
    assert foretold(over).warned[0].is_fading


async def test_the_forecast_of_a_target_is_whole_on_its_page_and_its_breakers(served):
    foretell(served.scene.board.targets["main"], replace(TELLING, model=LIKELY))

    for path in ("/targets/main", "/breakers/main/read"):
        _, text = await served.get(path)
        part = text.partition('id="forecast"')[2].partition("</section>")[0]
        assert "It only warns: no breaker opens by it" in part
        assert "31 % likely, by 7 openings before" in part
        assert "<li>waits for locks grow</li>" in part
        assert "usually 20 ms at this hour" in part
        rows = re.findall(
            r"<tr><th scope=\"row\">([^<]*)</th><td>(.*?)</td></tr>", part
        )
        assert rows[-2:] == [
            ("connection slots", "3 of 4</td><td>0</td><td>1</td><td>15 min"),
            ("a breaker that opens", f"{DASH}</td><td>1</td><td>0</td><td>{DASH}"),
        ]


async def test_a_model_that_is_silent_says_why_and_no_record_says_so(served):
    foretell(served.scene.board.targets["main"], CALM)

    _, text = await served.get("/targets/main")
    _, unwatched = await served.get("/targets/other")

    assert "the model is silent: has seen 2 of the 5 openings that it needs" in text
    assert "No warning has been seen to its end yet" in text
    assert "this daemon does not watch the target" in unwatched


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, ["b", "a", "c"]),
        ({"sort": "name"}, ["a", "b", "c"]),
        ({"q": "ENV=<PROD> degraded"}, ["b"]),
        ({"show": "trouble"}, ["b"]),
        ({"show": "nonsense", "sort": "nonsense"}, ["b", "a", "c"]),
        ({"q": "B"}, ["b"]),
    ],
)
def test_the_list_is_searched_and_sorted_by_the_address_too(query, names):
    rows = _rows()

    found = Asked.of(query).arrange(rows)

    assert [row.name for _, group in found for row in group] == names


def _rows():
    served = Served("a", "b", "c")
    served.scene.also(served.inside.recent)
    for name in ("a", "b", "c"):
        read(served, name)
    served.scene.board.targets["b"].breakers["read"].force(
        Override(State.FORCED_OPEN, "why not", "ana", 900.0), 100.0
    )
    targets = served.scene.board.targets.values()
    return [row_of(served.inside, target) for target in targets]


def test_rows_stand_below_their_label_where_that_is_asked_for():
    rows = _rows()

    ((heading, group),) = Asked.of({"group": "1"}).arrange(rows)

    assert heading == "env=<prod>"
    assert len(group) == 3


# What happened.

NOW = 1_800_000_100.0


def moved(at: float, before: str, after: str, **more) -> Entry:
    return Entry(
        id=int(at),
        at=at,
        kind=Kind.TRANSITION,
        text="57P03 starting up",
        target="main",
        breaker="main/read",
        details={"from": before, "to": after, "override": None, **more},
    )


def drawn(*entries: Entry, watched: float = NOW - 7200):
    board = Scene().board
    found = timeline(board, entries, span="1h", now=NOW, watched=watched)
    return next(track for track in found.tracks if track.breaker == "main/read")


def test_bands_are_as_wide_as_the_state_lasted_and_say_why_it_began():
    track = drawn(
        moved(NOW - 1800, "closed", "open"), moved(NOW - 900, "open", "closed")
    )

    assert [(b.look.word, b.x, b.width) for b in track.bands] == [
        ("closed", 0.0, 500.0),
        ("open", 500.0, 250.0),
        ("closed", 750.0, 250.0),
    ]
    assert track.bands[1].cause == "57P03 starting up"
    assert track.openings == 1


def test_a_moment_is_seen_however_short_it_was():
    track = drawn(
        moved(NOW - 1800, "closed", "open"), moved(NOW - 1799.9, "open", "closed")
    )

    assert track.bands[1].width == 2.0


def test_before_anybody_watched_there_is_nothing():
    track = drawn(watched=NOW - 900)

    assert [(band.x, band.width) for band in track.bands] == [(750.0, 250.0)]


def start(at: float, watched_until: float | None) -> Entry:
    details = {"phase": "start", "watched_until": watched_until}
    text = "pgbreaker 1.2.3 starts, watching 1 target"
    return Entry(id=int(at), at=at, kind=Kind.DAEMON, text=text, details=details)


def test_times_in_which_no_daemon_ran_are_marked():
    entries = [
        moved(NOW - 3000, "closed", "open"),
        start(NOW - 3500, NOW - 7200),  # began before what is shown
        start(NOW - 1800, NOW - 2700),
        start(NOW - 900, NOW - 900.5),
        start(NOW - 600, None),  # the first there was
        start(NOW - 300, NOW - 200),  # the wall clock went back
    ]

    found = timeline(Scene().board, entries, span="1h", now=NOW, watched=NOW - 300)

    assert [(gap.x, gap.width) for gap in found.gaps] == [
        (0.0, 27.78),
        (250.0, 250.0),
        (749.86, 2.0),
    ]
    assert [gap.lasted for gap in found.gaps] == [3700.0, 900.0, 0.5]


async def test_a_time_in_which_no_daemon_ran_is_said_in_words_too(served):
    now = served.scene.clock.wall()
    served.history.entries.append(start(now - 60, now - 245))

    _, text = await served.get("/targets/main")

    says = "Not watched for 3 min 5 s, from 2027-01-15 07:57:35 UTC: the daemon did not run"
    assert f'<p class="dim">{says}</p>' in text
    assert text.count(f"<title>{says}</title>") == 3


def test_what_was_remembered_over_a_restart_is_drawn_as_it_was():
    scene = Scene()
    scene.board.targets["main"].moved["read"] = NOW - 1800

    found = timeline(scene.board, (), span="1h", now=NOW, watched=NOW - 60)

    track = next(track for track in found.tracks if track.breaker == "main/read")
    assert [(band.x, band.width) for band in track.bands] == [(500.0, 500.0)]


def test_a_word_that_stands_before_the_machines_hides_its_moves():
    word = Entry(
        id=1,
        at=NOW - 1800,
        kind=Kind.OVERRIDE,
        text="failover",
        target="main",
        breaker="main/read",
        author="ana",
        details={"state": "forced_open"},
    )

    track = drawn(word, moved(NOW - 900, "closed", "open", override="forced_open"))

    assert [band.look.word for band in track.bands] == ["closed", "forced open"]
    assert track.bands[1].cause == "failover (ana)"


@pytest.mark.parametrize(
    "query", [{"before": "x"}, {"before": "9" * 40}, {"target": ""}, {"q": ""}]
)
def test_a_filter_that_says_nothing_filters_nothing(query):
    assert Filter.of(query, ["nonsense"]) == Filter()


def test_a_filter_leads_back_to_itself():
    chosen = Filter((Kind.NOTE, Kind.RELOAD), "main", None, "disk full", 17)

    assert chosen.address() == (
        "?kind=note&kind=reload&target=main&q=disk+full&before=17"
    )


async def test_what_can_be_taken_away_is_there(served):
    served.scene.open("read")
    _, text = await served.get("/events?kind=transition&target=main&q=clients")

    found = re.findall(r'<a href="(api/[^"]+)" download>', text)

    assert len(found) == 4
    for address in found:
        answer, body = await served.get("/" + address.replace("&amp;", "&"))
        assert answer.status == 200, (address, body)
        assert "main/read" in body


# What became of a target.


def cells(text: str) -> dict[str, list[str]]:
    """The table of a target's past: head of the row -> its cells."""
    (table,) = re.findall(r'<section class="past".*?</section>', text, re.S)
    found = {}
    for row in re.findall(r"<tr>(.*?)</tr>", table, re.S):
        head, *rest = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
        found[head] = [re.sub(r"<[^>]+>", "", cell) for cell in rest]
    return found


MINUTE = 1_800_000_060


async def test_a_targets_page_says_how_much_of_the_time_seen_calls_passed(tmp_path):
    path = tmp_path / "state.db"
    async with storing(path) as store:
        minute = Bucket(MINUTE - 3540, 60, 0.12, 0.004, 0)
        starts = range(MINUTE - 3540, MINUTE, 60)
        counts = Counts({("main", at): replace(minute, start=at) for at in starts})
        counts.shut["main/read", MINUTE - 60] = 0.3
        store.count(counts)
    async with storing(path) as store, serving(store=store) as served:
        _, text = await served.get("/targets/main")
        exports = re.findall(r'<a href="(../api/[^"]+)" download>', text)
        taken = [
            (await served.get("/targets/" + address.replace("&amp;", "&")))[0].status
            for address in exports
        ]

    past = cells(text)
    assert past["Of the last"] == ["24 h", "7 d", "90 d"]
    assert past["connect"] == ["100 %"] * 3
    # Never said to be more than it is.
    assert past["read"] == ["99.99 % shut for 300 ms"] * 3
    assert past["an answer took"] == ["2.0 ms at most 4.0 ms"] * 3
    assert past["seen"] == ["59 min 0 s"] * 3
    assert taken == [200, 200, 200]


async def test_a_targets_page_waits_for_no_disk_and_reads_once_a_minute(tmp_path):
    answers, opened = threading.Event(), []

    def hanging(uri: str):
        if "mode=ro" in uri:
            opened.append(uri)
            answers.wait(10.0)
        return connect(uri)

    def past(text: str) -> str:
        return re.sub(r"<[^>]+>|\s+", " ", text.partition('id="past"')[2])

    answers.set()
    async with (
        storing(tmp_path / "state.db", connect=hanging) as store,
        serving(store=store) as served,
    ):
        await store.looked_through()
        opened.clear()
        answers.clear()
        begun = time.perf_counter()
        _, early = await served.get("/targets/main")
        took = time.perf_counter() - begun
        answers.set()
        late = early
        while "It is being read." in past(late):
            served.scene.time.now += 0.5
            assert served.scene.time.now < 150.0
            _, late = await served.get("/targets/main")
        for _ in range(5):
            served.scene.time.now += 0.5
            await served.get("/targets/main")
        reads_of_a_minute = len(opened)
        served.scene.time.now += 60.0
        await served.get("/targets/main")
        await until(lambda: len(opened) == 2)

    assert took < 5.0
    assert "It is being read." in past(early)
    assert "none of it" in past(late)
    assert reads_of_a_minute == 1


async def test_without_a_store_a_targets_page_says_that_nothing_is_kept(served):
    _, text = await served.get("/targets/main")

    assert "Not kept: the configuration names no store" in text


async def test_an_audit_log_that_somebody_changed_is_a_banner(served):
    fault = "line 2 of the audit log was changed"
    served.inside.views.stored = lambda: Stored(None, 4096, fault)

    _, text = await served.get("/")

    assert f"The audit log is not as it was written: {fault}" in text


# How it is drawn.


def test_a_line_has_gaps_where_nothing_answered_and_marks_where_something_failed():
    recent = Recent()
    for second in range(300):
        if 100 <= second < 130:
            continue
        finding = Finding.TIMEOUT if second == 200 else Finding.OK
        seen = Evidence("timeout") if finding is Finding.TIMEOUT else None
        recent(Reading("main", "ping", float(second), 0.002, finding, evidence=seen))

    drawn_line = line(recent.targets["main"].course, 299.0)

    assert len(drawn_line.paths) == 2
    assert drawn_line.failed == (80,)
    assert drawn_line.band is not None
    assert "failures in 1 of 60 parts" in drawn_line.says


def test_a_share_of_too_few_calls_is_no_alarm():
    assert Bar("failed", 1.0, 0.5, "5 of 5").is_over
    assert not Bar("failed", 1.0, 0.5, "1 of 1", counts=False).is_over


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.25, "250 ms"),
        (10.0, "10 s"),
        (1.5, "1.5 s"),
        (60.0, "1 min"),
        (3600.0, "1 h"),
    ],
)
def test_what_somebody_has_set_is_said_without_zeros(seconds, said):
    assert neat(seconds) == said
