"""The live page in a real browser: seen, read aloud, and used with and without script.

One browser and one loop for all of it: it takes a second to start.
"""

import asyncio
import json
import re
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio

from pgbreaker.core.breaker import Breaker
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.plan import HttpPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, Outcome, State
from pgbreaker.sinks.store import Bucket, Counts, Store
from support.browser import ELSEWHERE, chromium, is_too_wide, tab, violations
from support.figures import tell
from support.foretelling import TELLING, foretell
from support.process import free_port, running
from support.servers import running_server
from support.site import Served, serving
from support.storing import storing

pytestmark = pytest.mark.asyncio(loop_scope="module")

STARTING = Evidence("starting", "the database system is starting up", "57P03", "ping")
EVIL = """<script>hacked=1</script>"'&<b>"""
WELL = "#verdict.good"
ILL = "#verdict.bad"
LOST = "#lost:not([hidden])"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium() as browser:
        yield browser


@asynccontextmanager
async def site(*names: str, seconds: int = 60, store: Store | None = None):
    """A scene that is served, of which some *seconds* are known."""
    plan = HttpPlan(listen=("127.0.0.1", 0), allowed_hosts=(ELSEWHERE,))
    names = names or ("main", "other")
    async with serving(*names, plan=plan, store=store) as served:
        scene = served.scene
        scene.also(served.metrics, served.history, served.inside.recent)
        for _ in range(seconds):
            scene.time.now += 1
            for name in scene.board.targets:
                read(served, name)
        yield served


def read(served: Served, name: str, finding: Finding = Finding.OK, **more) -> None:
    at = served.scene.time.now
    for probe in ("ping", "login"):
        served.scene.hub.publish(Reading(name, probe, at, 0.002, finding, **more))


def fail(served: Served, name: str, *operations: str, seen=STARTING) -> None:
    """Have breakers of *name* open, as an outage does."""
    now = served.scene.time.now
    for operation in operations or ("connect", "read", "write"):
        read(served, name, Finding.STARTING, evidence=seen, confirmed=True)
        for move in breaker(served, f"{name}/{operation}").observe(
            Outcome.FAILURE, now, confirmed=True, evidence=seen
        ):
            served.scene.hub.publish(move)


def breaker(served: Served, name: str) -> Breaker:
    target, operation = served.scene.board.home(name)
    return served.scene.board.targets[target].breakers[operation]


def url(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}"


# What is true now.


async def test_a_move_is_on_the_page_a_tenth_of_a_second_after_the_hub(browser):
    async with site() as served, tab(browser, url(served)) as page:
        await page.goto("/")
        await page.wait_for_selector("#live.streams")

        took = []
        for name in ("main", "other"):
            begun = time.monotonic()
            fail(served, name, "read")
            await page.wait_for_selector(f"[id='card:{name}']")
            took.append(time.monotonic() - begun)

    tell("a move on the page after the hub", f"{min(took) * 1000:.0f} ms", "100 ms")
    assert min(took) < 0.1


async def test_what_happens_is_read_aloud_once(browser):
    async with site() as served, tab(browser, url(served)) as page:
        await page.goto("/")
        await page.wait_for_selector("#live.streams")

        fail(served, "main", "read")
        await page.wait_for_selector(ILL)

        said = await page.text_content("#said")
        assert said == f"main/read: closed to open. {STARTING}"
        assert await page.get_attribute("#said", "aria-live") == "polite"
        assert await page.locator("main [aria-live]").count() == 0


async def test_the_title_the_sign_and_the_words_say_the_same(browser):
    async with site() as served, tab(browser, url(served)) as page:
        await page.goto("/")
        assert await page.title() == "All 2 targets healthy · pgbreaker"

        fail(served, "main", "read")
        await page.reload()

        assert (await page.title()).startswith("1 breaker open: main/read for ")
        assert "57P03 the database system is starting up" in await page.title()
        assert (await page.get_attribute("#icon", "href") or "").endswith("/bad.svg")


async def test_the_page_stays_where_its_reader_is(browser):
    """What somebody writes, unfolded or has chosen is theirs, whatever else changes."""
    async with site() as served, tab(browser, url(served)) as page:
        fail(served, "other", "write")
        await page.goto("/")
        await page.wait_for_selector("#live.streams")
        await page.click("#timeline-text summary")
        await page.keyboard.press("j")
        focused = await page.evaluate("document.activeElement.id")

        fail(served, "main", "read")
        await page.wait_for_selector("[id='card:main']")

        assert focused == "t:other"
        assert await page.evaluate("document.activeElement.id") == focused
        assert await page.get_attribute("#timeline-text", "open") is not None


async def test_two_tabs_of_a_browser_take_one_stream_and_both_are_told(browser):
    async with site() as served, tab(browser, url(served)) as first:
        second = await first.context.new_page()
        for page in (first, second):
            await page.goto("/")
            await page.wait_for_selector("#live")
        await first.wait_for_selector("#live.streams")

        fail(served, "main", "read")
        for page in (first, second):
            await page.wait_for_selector(ILL)
        assert streams(served) == 1

        await first.close()  # it led; the other takes over
        await second.wait_for_selector("#live.streams")
        fail(served, "other", "read")
        await second.wait_for_selector("[id='card:other']")
        assert streams(served) == 1


async def test_a_tab_that_is_hidden_for_a_minute_hears_no_more(browser):
    async with site() as served, tab(browser, url(served)) as page:
        await page.clock.install()
        await page.goto("/")
        await page.wait_for_selector("#live.streams")

        await hide(page, "true")
        await page.clock.fast_forward(61_000)
        await until(lambda: streams(served) == 0)
        await hide(page, "false")

        await until(lambda: streams(served) == 1)


async def test_tabs_of_a_page_from_elsewhere_take_one_stream_too(browser):
    """Without TLS browsers have no locks for pages of another machine."""
    async with (
        site() as served,
        tab(browser, f"http://{ELSEWHERE}:{served.port}") as first,
    ):
        second = await first.context.new_page()
        for page in (first, second):
            await page.goto("/")
        assert await first.evaluate("navigator.locks === undefined")
        await first.wait_for_selector("#live.streams")
        await second.wait_for_selector("#live.streams")

        fail(served, "main", "read")
        for page in (first, second):
            await page.wait_for_selector(ILL)
        assert streams(served) == 1


async def test_a_laptop_that_wakes_says_how_old_its_data_are(browser):
    async with site() as served, tab(browser, url(served)) as page:
        await page.clock.install()
        await page.goto("/")
        await page.wait_for_selector("#live.streams")

        await page.context.set_offline(True)
        await page.clock.fast_forward(3_600_000)
        await page.wait_for_selector(LOST)
        words = await page.text_content("#lost")
        assert await violations(page, ["color-contrast"]) == []
        await page.context.set_offline(False)

        assert words == "Connection lost, data is 1 h old"
        await page.wait_for_selector(LOST, state="detached")


async def hide(page, hidden: str) -> None:
    """Headless tabs are never hidden: say so as the browser would."""
    await page.evaluate(
        f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )


def streams(served: Served) -> int:
    return served.inside.stream.listeners


async def until(what, within: float = 5.0) -> None:
    """Wait until *what* holds."""
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - a page does not tell
            await asyncio.sleep(0.02)


# People do something.


async def test_a_breaker_is_taken_over_and_given_back_from_the_page(browser):
    async with site() as served, tab(browser, url(served)) as page:
        one = breaker(served, "main/read")
        await page.goto("/breakers/main/read")

        await page.click("a.open[data-dialog]")
        await page.wait_for_selector("dialog[open] input[name=reason]")
        effect = await page.text_content("dialog .effect") or ""
        await page.fill("input[name=reason]", "no")
        await page.click("dialog button.primary")
        assert one.override is None  # the browser itself finds that too short
        await page.fill("input[name=reason]", "failover in progress")
        await page.fill("input[name=author]", "ana")
        command = await page.text_content("dialog [data-cli]")
        await page.click("dialog button.primary")
        await page.wait_for_selector(".toast")

        assert one.override is not None
        assert (one.state, one.override.author) == (State.FORCED_OPEN, "ana")
        assert "/health/main/read get 503" in effect
        assert command == (
            "pgbreaker open main/read --reason 'failover in progress' --for 1h"
        )

        await page.click(".toast button")  # undo
        await until(lambda: one.override is None)
        texts = [entry.text for entry in served.history.entries]
        assert "taken back at once" in texts[-1]


async def test_a_failing_breaker_is_forced_closed_only_by_its_name(browser):
    async with site() as served, tab(browser, url(served)) as page:
        fail(served, "main", "read")
        await page.goto("/breakers/main/read")
        await page.click("a.close[data-dialog]")
        await page.fill("dialog input[name=reason]", "the probe is wrong")
        button = page.locator("dialog button.primary")

        assert await button.is_disabled()
        await page.fill("dialog input[name=confirm]", "main/read")
        await button.click()
        await page.wait_for_selector(".toast")

        assert breaker(served, "main/read").state is State.CLOSED
        assert breaker(served, "main/read").computed_state is State.OPEN
        await page.wait_for_selector("#head .state.bad")  # by itself it is open


async def test_without_the_token_of_the_form_nothing_is_done(browser):
    async with site() as served:
        said = {"do": "open", "reason": "because I can", "for": "1h"}
        path = "/breakers/main/read/act"

        forged = await served.client.post(path, data=said)
        _, form = await served.get(f"{path}?do=open")
        found = re.search(r'name="csrf" value="([^"]+)"', form)
        assert found is not None
        real = await served.client.post(path, data=said | {"csrf": found[1]})

        assert (forged.status, real.status) == (403, 200)


async def test_everything_can_be_done_by_the_keyboard(browser):
    async with site() as served, tab(browser, url(served)) as page:
        fail(served, "other", "write")
        await page.goto("/")
        press = page.keyboard.press

        await press("?")
        assert await page.is_visible("#help")
        await press("Escape")
        await press("/")
        assert await page.evaluate("document.activeElement.id") == "search"
        await page.keyboard.type("main")
        assert await page.is_hidden("[id='t:other']")
        await press("Escape")
        assert await page.is_visible("[id='t:other']")
        await press("t")
        assert await page.evaluate("document.activeElement.id") == "timeline"
        await press("j")
        await press("j")
        await press("k")
        assert await page.evaluate("document.activeElement.id") == "t:other"
        await press("o")
        await page.wait_for_selector("dialog[open] input[name=reason]")
        assert "other/write" in (await page.text_content("#dialog-title") or "")
        await press("Escape")
        assert await page.evaluate("document.activeElement.id") == "t:other"
        await press("Enter")
        await page.wait_for_url("**/targets/other")


async def test_without_script_it_is_read_and_used_all_the_same(browser):
    more = {"java_script_enabled": False}
    async with site() as served, tab(browser, url(served), **more) as page:
        fail(served, "main", "read")
        await page.goto("/")
        await page.click("text=Not well")
        rows = await page.locator("#rows [role=row]").count()
        again = await page.locator("noscript").count()

        await page.click("[id='t:main'] a.op.bad")
        await page.click("a.open[data-dialog]")
        await page.fill("input[name=reason]", "by hand, without script")
        await page.click("button.primary")
        state = breaker(served, "main/read").state
        told = await page.text_content("#done")
        await page.click("#done button")

        assert (rows, state) == (1, State.FORCED_OPEN)
        assert again >= 1
        assert "main/read is forced open for 1 h." in (told or "")
        assert breaker(served, "main/read").override is None


async def test_maintenance_is_planned_and_ended_from_the_page(browser):
    async with site() as served, tab(browser, url(served)) as page:
        await page.goto("/maintenance?target=other")
        await page.fill("input[name=reason]", "a new disk")
        await page.click("text=Plan it")
        await page.wait_for_selector("#windows table")

        (window,) = served.desk.windows.values()
        await page.goto("/")
        banner = await page.text_content("#banners") or ""
        await page.goto("/maintenance")
        await page.click("#windows a.button")
        await page.click("dialog button.primary")
        await page.wait_for_selector("#windows p")

        assert window.targets == ("other",)
        assert "Maintenance of other" in banner
        assert not served.desk.windows


async def test_an_override_is_said_on_every_overview_until_it_ends(browser):
    async with site() as served, tab(browser, url(served)) as page:
        await served.desk.override(
            breaker(served, "main/read"),
            State.FORCED_OPEN,
            reason="moving it",
            author="ana",
        )

        await page.goto("/")

        banner = await page.text_content("#banner-override") or ""
        assert banner.startswith("1 override active: main/read")
        assert "moving it (ana)" in (await page.text_content("#attention") or "")


# For everybody.

PAGES = (
    "/",
    "/targets/main",
    "/breakers/main/read",
    "/breakers/main/read/act?do=close",
    "/events",
    "/maintenance",
    "/runbooks/",
)


@asynccontextmanager
async def troubled(*names: str):
    """A site of which there is something to see: now, and of the time before."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = await stack.enter_async_context(storing(folder / "state.db"))
        minute = 1_800_000_000
        bucket = Bucket(minute, 60, 0.12, 0.004, 0)
        store.count(Counts({("main", minute): bucket}, {("main/read", minute): 3.0}))
        served = await stack.enter_async_context(site(*names, store=store))
        begun = served.scene.clock.wall() - 600
        details = {"phase": "start", "watched_until": begun - 240}
        served.history.entries.append(
            Entry(
                id=int(begun * 1000),
                at=begun,
                kind=Kind.DAEMON,
                text="pgbreaker 1.2.3 starts, watching 2 targets",
                details=details,
            )
        )
        fail(served, "main")
        facts = served.scene.board.targets["other"].facts
        facts |= {"slots_used": 91.0, "slots_usable": 97.0, "version": 170004.0}
        facts |= {"in_recovery": True}
        foretell(served.scene.board.targets["other"], TELLING)
        await served.desk.override(
            breaker(served, "other/write"),
            State.FORCED_OPEN,
            reason="moving it",
            author="ana",
        )
        ends = served.scene.clock.wall() + 600
        await served.desk.begin(["other"], reason="a new disk", author="bo", ends=ends)
        yield served


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong(browser, scheme):
    more = {"color_scheme": scheme}
    async with troubled() as served, tab(browser, url(served), **more) as page:
        # What differs by the scheme is the contrast; the rest is looked at once.
        only = ["color-contrast"] if scheme == "dark" else None
        for path in PAGES:
            await page.goto(path)
            assert await violations(page, only) == [], path

        await page.goto("/")
        await page.click("a.close[data-dialog] >> nth=0")
        await page.wait_for_selector("dialog[open] input[name=reason]")
        assert await violations(page) == []


async def test_a_phone_needs_no_scrolling_sideways(browser):
    more = {"viewport": {"width": 320, "height": 640}}
    names = ("main", "other", "replica-of-the-west")
    async with troubled(*names) as served, tab(browser, url(served), **more) as page:
        for path in PAGES:
            await page.goto(path)
            assert not await is_too_wide(page), path

        await page.goto("/")
        # Names of a usual length are not broken.
        heights = "found => found.map(name => name.clientHeight)"
        assert max(await page.eval_on_selector_all(".names a", heights)) < 30
        await page.click("a.close[data-dialog] >> nth=0")
        await page.wait_for_selector("dialog[open] input[name=reason]")
        assert not await is_too_wide(page)


async def test_who_wants_no_motion_sees_none(browser):
    more = {"reduced_motion": "reduce", "forced_colors": "active"}
    async with troubled() as served, tab(browser, url(served), **more) as page:
        await page.goto("/")
        await page.wait_for_selector("#live.streams")

        moving = await page.evaluate("document.getAnimations().length")

        assert moving == 0


async def test_names_reasons_and_errors_are_only_text(browser):
    seen = Evidence("query", f"said {EVIL}", "57P03", "ping")
    async with site("main", EVIL) as served, tab(browser, url(served)) as page:
        fail(served, EVIL, seen=seen)
        await served.desk.override(
            breaker(served, f"{EVIL}/read"),
            State.FORCED_OPEN,
            reason=f"why {EVIL}",
            author=EVIL,
        )
        name = quote(EVIL, safe="")
        for path in (
            "/",
            f"/targets/{name}",
            f"/breakers/{name}/read",
            f"/breakers/{name}/read/act?do=close",
            "/events",
            "/maintenance",
        ):
            await page.goto(path)
            assert EVIL in await page.inner_text("body"), path
            assert await page.evaluate("typeof hacked") == "undefined", path
            assert await page.locator("main b").count() == 0, path


async def test_five_hundred_targets_come_at_once_and_are_searched_at_once(browser):
    names = [f"db-{number:03}" for number in range(500)]
    async with site(*names, seconds=3) as served, tab(browser, url(served)) as page:
        begun = time.monotonic()
        await page.goto("/")
        loaded = time.monotonic() - begun
        await page.wait_for_selector("#live.streams")

        searched = await page.evaluate(
            """() => {
                const search = document.getElementById("search");
                const begun = performance.now();
                search.value = "db-49";
                search.dispatchEvent(new Event("input"));
                document.getElementById("rows").offsetHeight;
                return performance.now() - begun;
            }"""
        )
        shown = await page.locator("#rows [role=row]:visible").count()

        tell("500 targets, loaded", f"{loaded:.2f} s", "3 s")
        tell("500 targets, searched", f"{searched:.0f} ms", "250 ms")
        assert shown == 10
        assert loaded < 3
        assert searched < 250


async def test_the_first_content_is_there_in_three_tenths_of_a_second(browser):
    async with site() as served, tab(browser, url(served)) as page:
        took = []
        for _ in range(3):
            await page.goto("/")
            took.append(
                await page.evaluate(
                    """() => new Promise((done) => new PerformanceObserver((list) => {
                        for (const entry of list.getEntries())
                            if (entry.name === "first-contentful-paint") done(entry.startTime);
                    }).observe({ type: "paint", buffered: true }))"""
                )
            )

    tell("first content", f"{min(took):.0f} ms", "300 ms")
    assert min(took) < 300


# With a real server, and a real daemon.


class Daemon:
    """A daemon as a process, on a port that stays the same.

    Attributes:
        url: Where it serves.
    """

    def __init__(self, dsn: str, log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self._command = (
            *(sys.executable, "-m", "pgbreaker", "run", "--dsn", dsn),
            *("--listen", f"127.0.0.1:{port}"),
        )
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        process = running(*self._command, url=self.url, log=self._log)
        await self._stack.enter_async_context(process)

    async def stop(self) -> None:
        """End it, if it runs."""
        await self._stack.aclose()


@asynccontextmanager
async def watched(log: Path):
    """A real server, and a daemon that watches it."""
    with running_server(17) as server:
        daemon = Daemon(server.dsn(user="pgbreaker"), log)
        try:
            await daemon.start()
            yield server, daemon
        finally:
            await daemon.stop()


WATCH = """() => new Promise((done) => {
    const look = () => document.querySelector("#verdict.bad") && done(Date.now());
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true});
    look();
})"""


async def test_an_outage_is_on_the_page_within_a_second_and_the_page_outlives_us(
    browser, tmp_path
):
    """A server is killed; then the daemon itself is stopped, and started again."""
    log = tmp_path / "daemon.log"
    async with watched(log) as (server, daemon), tab(browser, daemon.url) as page:
        await page.goto("/")
        await page.wait_for_selector(WELL, timeout=10_000)
        seeing = asyncio.ensure_future(page.evaluate(WATCH))

        server.kill()
        seen = await asyncio.wait_for(seeing, 10) / 1000
        opened = await opening(daemon)
        tell("an outage on the page after OPEN", f"{seen - opened:.3f} s", "1 s")
        assert seen - opened < 1
        server.start()

        await daemon.stop()
        await page.wait_for_selector(LOST, timeout=12_000)
        words = await page.text_content("#lost") or ""
        await daemon.start()
        await page.wait_for_selector(LOST, state="detached", timeout=10_000)
        await page.wait_for_selector(WELL, timeout=10_000)
        await page.wait_for_selector("#live.streams", timeout=10_000)

    assert re.fullmatch(r"Connection lost, data is \d+ s old", words)


async def opening(daemon: Daemon) -> float:
    """Wall time of the first move from closed to open."""
    async with (
        aiohttp.ClientSession(daemon.url) as client,
        client.get("/api/v1/breakers") as answer,
    ):
        told = json.loads(await answer.text())
    moments = [one["since"] for one in told if one["state"] != "closed"]
    return min(time_of(moment) for moment in moments)


def time_of(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()
