"""From a server that stops to the message in Slack, through a real Alertmanager."""

import asyncio
import re
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

import aiohttp
import pytest

from acceptance.conftest import pgbreaker
from pgbreaker.app import running
from pgbreaker.clock import Clock
from pgbreaker.core.plan import AlertmanagerPlan, Config, HttpPlan, TargetPlan
from pgbreaker.core.secret import Secret
from pgbreaker.core.states import Outcome, State, Transition
from pgbreaker.sinks.push import HOLD, Pace, pushing
from support.alertmanager import (
    SHIPPED,
    Alertmanager,
    alert,
    alertmanager,
    shipped_config,
)
from support.boards import Scene
from support.prometheus import prometheus
from support.servers import one_breakable_server
from support.slack import Slack, lint, looks_resolved, slack
from support.watching import QUICK

RULES = SHIPPED.parent / "pgbreaker.rules.yml"
OWN = ("target", "operation", "breaker")


class Moves:
    """Remembers when a breaker left closed, in wall time; a sink."""

    def __init__(self) -> None:
        self.opened: dict[str, float] = {}
        self._news = asyncio.Event()

    def __call__(self, event) -> None:
        if isinstance(event, Transition) and event.before is State.CLOSED:
            self.opened[event.breaker] = time.time()
            self._news.set()

    async def until_open(self, count: int, within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while len(self.opened) < count:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def told(tmp_path, *, faster: float = 1):
    """Slack, and an Alertmanager that tells it as the shipped configuration says."""
    async with slack() as receiver:
        config = shipped_config(tmp_path, receiver, faster=faster)
        async with alertmanager(config) as telling:
            yield receiver, telling


@asynccontextmanager
async def watching(server, *urls: str):
    """The daemon, on *server*, which pushes to Alertmanagers at *urls*."""
    moves = Moves()
    config = Config(
        targets=(
            TargetPlan(
                name="main", dsn=Secret(server.dsn(user="pgbreaker")), probes=QUICK
            ),
        ),
        http=HttpPlan(listen=("127.0.0.1", 0)),
        alertmanager=AlertmanagerPlan(
            urls=urls,
            grafana_url="https://grafana.test",
            runbook_url="https://runbooks.test",
            page_url="https://pgbreaker.test",
        ),
    )
    async with running(config, also=[moves]) as daemon:
        await come_true(lambda: daemon.board.targets["main"].is_up)
        yield daemon, moves


async def come_true(what, within: float = 15.0) -> None:
    """Wait until *what* holds of the daemon, which tells nobody."""
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.02)


async def breakers_on(telling: Alertmanager, what) -> list[dict]:
    """The alerts of breakers that it holds, once *what* holds of them."""

    async def now() -> list[dict]:
        held = [
            one
            for one in await telling.alerts()
            if one["labels"]["alertname"] == "PgbreakerBreakerOpen"
        ]
        return sorted(held, key=lambda one: one["labels"]["breaker"])

    found = await now()
    async with asyncio.timeout(15.0):
        while not what(found):
            await asyncio.sleep(0.02)
            found = await now()
    return found


def counters(daemon) -> dict[str, float]:
    """What its own counters of pushing say, as a scrape sees them."""
    host, port = daemon.address
    with urlopen(f"http://{host}:{port}/metrics", timeout=5.0) as answer:
        text = answer.read().decode()
    return {
        name: float(value)
        for name, value in re.findall(
            r"(?m)^pgbreaker_alerts_(\w+)_total ([0-9.e+]+)$", text
        )
    }


async def message(receiver: Slack, *words: str):
    """The first message that has *words*."""
    await receiver.until(lambda: bool(receiver.told(*words)), within=10.0)
    return receiver.told(*words)[0]


@one_breakable_server
async def test_a_server_that_stops_is_in_slack_within_a_second(fresh_server, tmp_path):
    async with (
        told(tmp_path) as (receiver, telling),
        watching(fresh_server, telling.url) as (daemon, moves),
    ):
        fresh_server.kill()
        await moves.until_open(3)
        said = await message(receiver, "BreakerOpen")
        found = await breakers_on(telling, lambda found: len(found) == 3)
        seen = await asyncio.to_thread(counters, daemon)

    took = said.arrived - min(moves.opened.values())
    assert took < 1.0
    assert lint(said) == []
    assert said.channel == "#db-critical"
    assert looks_resolved(said) is False
    assert [one["labels"] for one in found] == [
        {
            "alertname": "PgbreakerBreakerOpen",
            "severity": "critical",
            "job": "pgbreaker",
            "target": "main",
            "operation": operation,
            "breaker": f"main/{operation}",
        }
        for operation in ("connect", "read", "write")
    ]
    assert {one["generatorURL"] for one in found} == {"https://pgbreaker.test"}
    assert "refused" in found[0]["annotations"]["description"]
    assert seen == {"pushed": 3.0, "push_failures": 0.0}


@one_breakable_server
async def test_what_prometheus_sends_of_it_too_is_one_alert_and_one_message(
    fresh_server, tmp_path
):
    """
    The rule's alert comes some seconds later, begins later, and is held up longer at
    first; it ends when the rule no longer holds it.
    """
    async with told(tmp_path, faster=60) as (receiver, telling):
        async with watching(fresh_server, telling.url) as (_, moves):
            fresh_server.kill()
            await moves.until_open(3)
            ours = await breakers_on(telling, lambda found: len(found) == 3)
            await message(receiver, "BreakerOpen", "(3)")

            of_rule = [
                alert(
                    "PgbreakerBreakerOpen",
                    starts=time.time(),
                    ends=time.time() + 240,
                    source="https://prometheus.test/graph",
                    annotations={
                        "summary": f"Breaker {one['labels']['breaker']} opened"
                    },
                    severity="critical",
                    job="pgbreaker",
                    **{name: one["labels"][name] for name in OWN},
                )
                for one in ours
            ]
            await telling.post(*of_rule)
            merged = await breakers_on(telling, lambda found: len(found) == 3)
        ended = [
            {**one, "endsAt": alert("x", ends=time.time())["endsAt"]} for one in of_rule
        ]
        await telling.post(*ended)
        await receiver.until(
            lambda: any(map(looks_resolved, receiver.told("BreakerOpen"))), within=10.0
        )

    assert [one["fingerprint"] for one in merged] == [
        one["fingerprint"] for one in ours
    ]
    assert [one["startsAt"] for one in merged] == [one["startsAt"] for one in ours]
    states = [looks_resolved(said) for said in receiver.told("BreakerOpen")]
    assert states == [False, True]


@one_breakable_server
async def test_a_real_prometheus_with_the_rules_makes_no_second_alert(
    fresh_server, tmp_path
):
    async with (
        told(tmp_path, faster=60) as (receiver, telling),
        watching(fresh_server, telling.url) as (daemon, moves),
        prometheus(
            {"pgbreaker": "{}:{}".format(*daemon.address)},
            rules=[RULES],
            alertmanager=telling.url.removeprefix("http://"),
        ) as scraping,
    ):
        await scraping.until('up{job="pgbreaker"} == 1', within=15.0)
        fresh_server.kill()
        await moves.until_open(3)
        ours = await breakers_on(telling, lambda found: len(found) == 3)
        both = await breakers_on(
            telling,
            lambda found: all("/graph?" in one["generatorURL"] for one in found),
        )
        # A dead man's switch is told about once a second here, as often as groups are
        # looked at: by its third word, a second message of ours would be there.
        await telling.post(alert("PgbreakerWatchdog", severity="none"))
        await receiver.until(lambda: len(receiver.to("watchdog")) == 3, within=15.0)

    assert [one["fingerprint"] for one in both] == [one["fingerprint"] for one in ours]
    assert [one["startsAt"] for one in both] == [one["startsAt"] for one in ours]
    assert [one["labels"] for one in both] == [one["labels"] for one in ours]
    (said,) = receiver.told("BreakerOpen")
    assert said.arrived - min(moves.opened.values()) < 1.0


@one_breakable_server
@pytest.mark.parametrize("how", ["is not there", "hangs"])
async def test_one_of_two_alertmanagers_delays_neither_alerts_nor_probes_nor_the_end(
    how, fresh_server, tmp_path
):
    accepted: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(
        lambda _, writer: accepted.append(writer), "127.0.0.1", 0
    )
    port = silent.sockets[0].getsockname()[1] if how == "hangs" else 1
    async with told(tmp_path) as (receiver, telling):
        urls = (f"http://127.0.0.1:{port}", telling.url)
        async with watching(fresh_server, *urls) as (daemon, moves):
            killed = time.time()
            await asyncio.to_thread(fresh_server.kill)
            await moves.until_open(3)
            said = await message(receiver, "BreakerOpen")
            seen = await asyncio.to_thread(counters, daemon)
            begun = time.monotonic()
        ending = time.monotonic() - begun
    silent.close()
    for writer in accepted:
        writer.close()

    assert bool(accepted) == (how == "hangs")
    assert max(moves.opened.values()) - killed < 2.0
    assert said.arrived - min(moves.opened.values()) < 1.0
    assert seen == {"pushed": 3.0, "push_failures": 0.0}
    assert ending < 3.0


@one_breakable_server
async def test_a_breaker_that_closes_again_leaves_its_alert_for_a_while(
    fresh_server, tmp_path
):
    async with (
        told(tmp_path) as (receiver, telling),
        watching(fresh_server, telling.url) as (daemon, moves),
    ):
        fresh_server.kill()
        await moves.until_open(3)
        await message(receiver, "BreakerOpen")
        await asyncio.to_thread(fresh_server.start)
        await come_true(lambda: daemon.status == "1 target, all breakers closed")
        closed = time.time()
        found = await breakers_on(
            telling,
            lambda found: all(
                one["annotations"]["description"].endswith("succeeded since.")
                for one in found
            ),
        )

    assert [one["status"]["state"] for one in found] == ["active"] * 3
    ends = [instant(one["endsAt"]) for one in found]
    assert all(closed + HOLD - 5.0 < end <= closed + HOLD for end in ends)


@pytest.mark.parametrize("ahead", [-600.0, 180.0, 600.0])
async def test_a_daemon_whose_clock_is_wrong_is_heard_and_ends_its_alert_in_time(
    ahead, tmp_path
):
    scene = Scene()
    clock = Clock(now=lambda: scene.time.now, wall=lambda: time.time() + ahead)
    async with told(tmp_path) as (receiver, telling):
        plan = AlertmanagerPlan(urls=(telling.url,))
        async with pushing(plan, scene.board, clock, Pace(renew=0.2)) as push:
            scene.also(push)
            begun = time.time()
            observe(scene, Outcome.FAILURE, confirmed=True)
            said = await message(receiver, "BreakerOpen")
            corrected = await breakers_on(
                telling, lambda found: abs(instant(found[0]["startsAt"]) - begun) < 5.0
            )
            for _ in range(2):
                scene.time.now += 1.0
                observe(scene, Outcome.SUCCESS)
            closed = time.time()
            ended = await breakers_on(
                telling,
                lambda found: abs(instant(found[0]["endsAt"]) - closed - HOLD) < 5.0,
            )

    assert said.arrived - begun < 2.0
    assert looks_resolved(said) is False
    assert len(corrected) == len(ended) == 1
    assert ended[0]["status"]["state"] == "active"


def observe(scene: Scene, outcome: Outcome, **more) -> None:
    breaker = scene.board.targets["main"].breakers["read"]
    for move in breaker.observe(outcome, scene.time.now, **more):
        scene.hub.publish(move)


def instant(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


async def try_once(telling: Alertmanager, receiver: Slack, severity: str):
    """Test it once: what came of the command, and the message."""
    seen = len(receiver.told("PgbreakerTest"))
    done = await asyncio.to_thread(
        pgbreaker,
        *("alerts", "test", "--url", telling.url, "--severity", severity, "--wait"),
    )
    await receiver.until(
        lambda: len(receiver.told("PgbreakerTest")) > seen, within=10.0
    )
    return done, receiver.told("PgbreakerTest")[seen]


@pytest.mark.parametrize("severity", ["critical", "warning"])
async def test_a_test_alert_arrives_where_alerts_of_its_severity_do(severity, tmp_path):
    """And so does the next one, which is not a part of the first one's group."""
    async with told(tmp_path, faster=10) as (receiver, telling):
        done, said = await try_once(telling, receiver, severity)
        _, again = await try_once(telling, receiver, severity)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{telling.url}: took it, for slack-{severity}, a message went out by slack",
        f"PgbreakerTest takes the route of severity {severity}, job pgbreaker: look there for a message; the alert ends by itself in a minute",
    ]
    assert (
        said.channel
        == {"critical": "#db-critical", "warning": "#db-warnings"}[severity]
    )
    assert said.title.endswith("This is a test of pgbreaker's alerts")
    assert again.title == said.title
    assert again.footer != said.footer  # which names the group
    assert lint(said) == []
    assert "Sent by pgbreaker alerts test on " in said.text


async def test_slack_that_refuses_is_told_by_who_tests(tmp_path):
    """Whatever goes out elsewhere meanwhile, such as a dead man's switch."""
    async with told(tmp_path, faster=30) as (receiver, telling):
        receiver.refuse(404)
        await telling.post(alert("PgbreakerWatchdog", severity="none"))
        await receiver.until(lambda: len(receiver.to("watchdog")) == 2, within=10.0)
        trying = asyncio.create_task(
            asyncio.to_thread(
                pgbreaker,
                *("alerts", "test", "--url", telling.url, "--wait"),
                timeout=90,
            )
        )
        await receiver.until(lambda: bool(receiver.refused), within=20.0)
        done = await trying
        beats = len(receiver.to("watchdog"))

    assert done.returncode == 1
    assert beats > 2
    assert done.stdout.startswith(
        f"{telling.url}: took it, for slack-critical,"
        " no message went out by slack: its log says why\n"
    )


async def test_a_test_that_a_silence_mutes_is_told_as_such(tmp_path):
    async with told(tmp_path, faster=10) as (receiver, telling):
        await silence(telling, alertname="PgbreakerTest")
        done = await asyncio.to_thread(
            pgbreaker, *("alerts", "test", "--url", telling.url, "--wait")
        )

    assert done.returncode == 1
    assert done.stdout.startswith(
        f"{telling.url}: took it, for slack-critical,"
        " which are not told: a silence or another alert mutes it\n"
    )
    assert receiver.messages == []


async def silence(telling: Alertmanager, **labels: str) -> None:
    """Silence alerts with *labels* for a while."""
    now = datetime.now(UTC)
    body = {
        "matchers": [
            {"name": name, "value": value, "isRegex": False}
            for name, value in labels.items()
        ],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "a test",
        "comment": "to see it muted",
    }
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{telling.url}/api/v2/silences", json=body) as answer,
    ):
        assert answer.status == 200, await answer.text()
