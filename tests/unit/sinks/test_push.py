"""Alerts, as Alertmanagers get them; and Alertmanagers that do not behave."""

import asyncio
import itertools
import json
import logging
import re
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from acceptance.conftest import pgbreaker
from pgbreaker.clock import Clock
from pgbreaker.config import for_alertmanager, parse
from pgbreaker.core.breaker import Breaker
from pgbreaker.core.condition import Condition
from pgbreaker.core.entry import Entry, Kind
from pgbreaker.core.maintenance import Window
from pgbreaker.core.plan import AlertmanagerPlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.states import Outcome, Override, State
from pgbreaker.errors import ConfigError
from pgbreaker.sinks.alertmanager import Answer, lead, posting, session
from pgbreaker.sinks.board import Elsewhere, TargetBoard
from pgbreaker.sinks.push import HOLD, Alerts, Pace, Push, pushing
from pgbreaker.sinks.trial import Sent, send_test
from support.boards import FULL, Scene

RULES = Path(__file__).parents[3] / "alerts/pgbreaker.rules.yml"
ONE = AlertmanagerPlan(urls=("http://one",))
TWO = AlertmanagerPlan(urls=("http://one", "http://two"))
QUICK = Pace(gather=0.02, renew=60.0, within=0.3, again=0.02, rarest=0.08, parting=0.3)
TOOK = Answer(200, "OK")
DOWN = Answer(None, "connection refused")


class Takers:
    """Alertmanagers without a network.

    Attributes:
        posts: What came: the URL and the alerts of each post, taken or not.
        times: When each came.
        answers: URL -> what it answers. None: it does not, until `let_go` is set.
    """

    def __init__(self, **answers: Answer | None) -> None:
        self.posts: list[tuple[str, list[dict]]] = []
        self.times: list[float] = []
        self.let_go = asyncio.Event()
        self.answers = {f"http://{name}": answer for name, answer in answers.items()}
        self._came = asyncio.Event()

    async def __call__(self, url: str, body: bytes) -> Answer:
        self.posts.append((url, json.loads(body)))
        self.times.append(time.monotonic())
        self._came.set()
        answer = self.answers.get(url, TOOK)
        if answer is None:
            await self.let_go.wait()
        return answer or TOOK

    def to(self, name: str) -> list[list[dict]]:
        return [alerts for url, alerts in self.posts if url == f"http://{name}"]

    async def until(self, what, within: float = 5.0) -> None:
        """Wait until *what* holds, looking after each post."""
        async with asyncio.timeout(within):
            while not what():
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def pushed_to(takers: Takers, scene: Scene, plan=ONE, pace=QUICK):
    push = Push(plan, scene.board, scene.clock, takers, pace)
    scene.also(push)
    push.start()
    try:
        yield push
    finally:
        await push.close()


async def settled(what, within: float = 5.0) -> None:
    """Wait until *what* holds, which nobody tells."""
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.005)


def moves(scene: Scene, outcome: Outcome, name: str = "main/read", **more):
    target, _, operation = name.partition("/")
    breaker = scene.board.targets[target].breakers[operation]
    for move in breaker.observe(outcome, scene.time.now, **more):
        scene.hub.publish(move)


def fail(scene: Scene, name: str = "main/read") -> None:
    moves(scene, Outcome.FAILURE, name, confirmed=True, evidence=FULL)


def recover(scene: Scene, name: str = "main/read") -> None:
    """Have it close, a while after."""
    scene.time.now += 1.0
    for _ in range(2):
        scene.time.now += 1.0
        moves(scene, Outcome.SUCCESS, name)


def watched(plan=ONE, **more) -> tuple[Scene, Alerts, list[str]]:
    """Alerts that are told all moves, and the breakers that there was news of."""
    scene = Scene(**more)
    alerts, news = Alerts(plan, scene.board, scene.clock), []

    def take(event) -> None:
        name = alerts.take(event) if hasattr(event, "breaker") else None
        if name is not None:
            news.append(name)

    scene.also(take)
    return scene, alerts, news


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def only(alerts: Alerts) -> dict:
    (alert,) = alerts.written(alerts.names())
    return alert


# What is on, without I/O.


def test_an_opening_is_an_alert_with_its_numbers():
    scene, alerts, _ = watched(
        replace(ONE, page_url="http://db1:9432", labels={"cluster": "eu"})
    )

    fail(scene)

    alert = only(alerts)
    assert alert["labels"] == {
        "alertname": "PgbreakerBreakerOpen",
        "severity": "critical",
        "job": "pgbreaker",
        "target": "main",
        "operation": "read",
        "breaker": "main/read",
        "cluster": "eu",
    }
    assert alert["generatorURL"] == "http://db1:9432"
    described = alert["annotations"]["description"]
    assert described.count("53300 sorry, too many clients already") == 1
    assert seconds(alert["startsAt"]) == scene.clock.wall()
    assert "endsAt" not in alert  # Alertmanager's clock decides


def test_what_was_seen_last_is_told_when_the_reason_does_not_tell_it():
    scene, alerts, _ = watched()
    breaker = scene.board.targets["main"].breakers["read"]
    breaker.force(Override(State.DISABLED, "test", "me"), scene.time.now)
    moves(scene, Outcome.FAILURE, confirmed=True, evidence=FULL)

    move = breaker.resume(scene.time.now, "handed back")
    assert move is not None
    scene.hub.publish(move)

    described = only(alerts)["annotations"]["description"]
    assert described.endswith(
        "Why it opened: handed back."
        " Seen last: 53300 sorry, too many clients already (probe login)."
    )


def test_half_open_is_no_end_and_a_relapse_no_beginning():
    scene, alerts, news = watched()
    fail(scene)
    begun = only(alerts)["startsAt"]

    for _ in range(3):
        scene.time.now += 5.0
        moves(scene, Outcome.SUCCESS)  # half-open
        moves(scene, Outcome.FAILURE, evidence=FULL)  # open again

    assert news == ["main/read"]
    assert only(alerts)["startsAt"] == begun


def test_an_alert_stays_as_long_after_the_closing_as_the_rule_holds_it():
    scene, alerts, news = watched()
    fail(scene)

    recover(scene)
    closed = scene.clock.wall()
    scene.time.now += HOLD - 0.1

    assert news == ["main/read"] * 2
    alert = only(alerts)
    assert seconds(alert["endsAt"]) == closed + HOLD
    assert alert["annotations"]["description"].endswith("Trials have succeeded since.")
    assert alerts.renew() == []
    scene.time.now += 0.2
    assert alerts.names() == []


def test_a_flap_within_the_hold_is_one_alert_and_after_it_a_new_one():
    scene, alerts, _ = watched()
    fail(scene)
    first = only(alerts)["startsAt"]
    recover(scene)

    scene.time.now += HOLD - 1.0
    fail(scene)
    again = only(alerts)["startsAt"]
    recover(scene)
    scene.time.now += HOLD + 1.0
    fail(scene)

    assert again == first
    assert seconds(only(alerts)["startsAt"]) == scene.clock.wall()


@pytest.mark.parametrize(
    "state", [State.DISABLED, State.METRICS_ONLY, State.FORCED_OPEN, State.CLOSED]
)
def test_what_callers_do_not_feel_or_somebody_has_asked_for_is_no_alert(state):
    scene, alerts, news = watched()
    breaker = scene.board.targets["main"].breakers["read"]

    scene.hub.publish(breaker.force(Override(state, "test", "me"), scene.time.now))
    fail(scene)

    assert breaker.computed_state is State.OPEN
    assert (news, alerts.names()) == ([], [])


def test_an_operator_who_takes_over_ends_the_alert():
    scene, alerts, news = watched()
    fail(scene)
    breaker = scene.board.targets["main"].breakers["read"]

    took_over = breaker.force(Override(State.DISABLED, "x", "me"), scene.time.now)
    scene.hub.publish(took_over)

    assert news == ["main/read"] * 2
    assert alerts.renew() == []
    assert only(alerts)["annotations"]["description"].endswith(
        " Since then an operator has put it to disabled by me (x)."
    )


def test_an_alert_never_begins_after_its_end_whatever_the_wall_clock_does():
    scene, wall = Scene(), [1_800_000_000.0]
    clock = Clock(now=lambda: scene.time.now, wall=lambda: wall[0])
    alerts = Alerts(ONE, scene.board, clock)
    scene.also(alerts.take)
    fail(scene)

    wall[0] -= 3600.0
    begun = only(alerts)
    recover(scene)
    ended = only(alerts)

    assert seconds(begun["startsAt"]) <= wall[0]
    assert seconds(ended["startsAt"]) < seconds(ended["endsAt"]) <= wall[0] + HOLD


def test_memory_is_bounded_by_the_breakers():
    scene, alerts, _ = watched(names=[f"t{n}" for n in range(20)])

    for _ in range(30):
        for name in scene.board.targets:
            fail(scene, f"{name}/read")
        for name in scene.board.targets:
            recover(scene, f"{name}/read")

    assert len(alerts.names()) <= 20


@pytest.mark.parametrize("ahead", [600.0, -600.0])
def test_an_alert_has_the_times_of_whoever_is_told(ahead):
    scene, alerts, _ = watched()
    fail(scene)
    begun = scene.clock.wall()
    recover(scene)
    closed = scene.clock.wall()

    (alert,) = alerts.written(alerts.names(), ahead=ahead)

    assert seconds(alert["startsAt"]) == begun + ahead
    assert seconds(alert["endsAt"]) == closed + HOLD + ahead


@pytest.mark.parametrize(
    ("date", "known", "found"),
    [
        (None, 0.0, 0.0),
        (None, 40.0, 40.0),
        (1001.5, 0.0, 0.0),
        (1040.0, 39.0, 39.0),
        (1040.0, 0.0, 40.0),
        (960.0, 40.0, -40.0),
        (1000.0, 40.0, 0.0),
    ],
)
def test_the_lead_of_a_clock_changes_only_by_more_than_dates_are_exact(
    date, known, found
):
    answer = Answer(200, "OK", date)

    assert lead(answer, 1000.0, known=known) == pytest.approx(found)


# Maintenance.


def maintained(scene: Scene, lasting: float = 600.0, target: str = "main") -> None:
    """Have work done on a target for a while."""
    wall = scene.clock.wall()
    scene.board.windows[1] = Window(
        id=1,
        targets=(target,),
        reason="a new disk",
        author="mia",
        starts=wall,
        ends=wall + lasting,
    )


def test_an_opening_in_maintenance_is_no_alert_until_that_is_over():
    scene, alerts, news = watched()
    maintained(scene)
    fail(scene)
    opened = scene.clock.wall()

    assert (news, alerts.names(), alerts.renew(), alerts.mute()) == ([], [], [], [])

    scene.time.now += 600.0
    assert alerts.mute() == ["main/read"]
    assert seconds(only(alerts)["startsAt"]) == opened
    assert "endsAt" not in only(alerts)
    assert alerts.renew() == ["main/read"]


def test_what_opens_and_closes_in_maintenance_is_never_told():
    scene, alerts, news = watched()
    maintained(scene)
    fail(scene)
    recover(scene)
    scene.time.now += 600.0

    assert (news, alerts.mute(), alerts.names()) == ([], [], [])


def test_maintenance_ends_an_alert_and_its_end_takes_it_up_again():
    scene, alerts, news = watched()
    fail(scene)
    scene.time.now += 30.0
    maintained(scene)
    begun = scene.clock.wall()

    assert alerts.mute() == ["main/read"]
    assert alerts.mute() == alerts.renew() == []
    scene.time.now += 300.0
    assert seconds(only(alerts)["endsAt"]) == begun

    scene.time.now += 300.0
    assert alerts.mute() == ["main/read"]
    assert "endsAt" not in only(alerts)
    assert news == ["main/read"]


def test_an_alert_that_ended_in_maintenance_stays_ended():
    scene, alerts, news = watched()
    fail(scene)
    maintained(scene)
    begun = scene.clock.wall()
    alerts.mute()
    recover(scene)

    assert news == ["main/read"]
    assert seconds(only(alerts)["endsAt"]) == begun
    scene.time.now += 600.0
    assert (alerts.mute(), alerts.names()) == ([], [])


def test_maintenance_of_another_target_changes_nothing():
    scene, alerts, news = watched(names=("main", "other"))
    maintained(scene, target="other")
    fail(scene)

    assert (news, alerts.mute()) == (["main/read"], [])


def test_of_a_target_that_others_watch_they_tell():
    scene, alerts, _ = watched()
    target = scene.board.targets["main"]
    fail(scene)
    assert alerts.renew() == ["main/read"]

    target.elsewhere = Elsewhere(("b",), Condition.DOWN)
    alerts.mute()
    assert alerts.renew() == []

    # It has closed there, as is known here without a move, and is watched here again.
    breaker = target.breakers["read"]
    breaker.recall(Breaker("main/read", DAEMON, 0.0).memory(0.0), scene.time.now)
    alerts.mute()
    target.elsewhere = None
    alerts.mute()
    assert alerts.renew() == []


def test_what_was_open_elsewhere_is_told_by_who_watches_it_next():
    scene, alerts, _ = watched()
    other = Scene()
    fail(other)
    memory = other.board.targets["main"].breakers["read"].memory(other.time.now)
    target = scene.board.targets["main"]
    target.elsewhere = Elsewhere(("b",), Condition.DOWN)
    target.breakers["read"].recall(memory, scene.time.now)
    assert alerts.take_up() == []

    target.elsewhere = None

    assert alerts.mute() == ["main/read"]
    assert alerts.renew() == ["main/read"]


def test_the_alert_of_a_target_that_is_removed_ends_with_it():
    scene, alerts, _ = watched(names=("main", "other"))
    fail(scene)
    breaker = scene.board.targets["main"].breakers["read"]
    scene.board.remove("main")

    assert alerts.mute() == ["main/read"]
    assert only(alerts)["labels"]["operation"] == "read"
    assert "endsAt" in only(alerts)
    scene.time.now += 1.0
    for move in breaker.observe(Outcome.FAILURE, scene.time.now):
        assert alerts.take(move) is None
    scene.time.now += HOLD
    assert alerts.names() == []


def test_what_was_open_when_the_process_began_is_taken_up_from_when_it_opened():
    before, _, _ = watched()
    fail(before)
    opened = before.clock.wall()
    memory = before.board.targets["main"].breakers["read"].memory(before.time.now)
    scene = Scene()
    scene.time.now = 400.0
    old = scene.board.targets["main"]
    old.breakers["read"].recall(memory, 400.0, away=300.0)
    scene.board.add(TargetBoard(old.plan, old.breakers, scene.clock))
    alerts = Alerts(ONE, scene.board, scene.clock)

    assert alerts.take_up() == ["main/read"]

    alert = only(alerts)
    assert seconds(alert["startsAt"]) == opened
    assert "53300" in alert["annotations"]["description"]
    assert alerts.take_up() == []


async def test_maintenance_is_heeded_at_once():
    scene, takers = Scene(), Takers()
    async with pushed_to(takers, scene) as push:
        fail(scene)
        await takers.until(lambda: len(takers.posts) == 1)

        entry = Entry(id=1, at=0.0, kind=Kind.MAINTENANCE, text="begins")
        push.heed(entry)
        maintained(scene)  # is done right after it was told
        await takers.until(lambda: len(takers.posts) == 2)

    (told,) = takers.to("one")[1]
    assert seconds(told["endsAt"]) == scene.clock.wall()


# The rule's alert and ours are one.


def the_rule() -> dict:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    (rule,) = [
        rule
        for group in groups
        for rule in group["rules"]
        if rule.get("alert") == "PgbreakerBreakerOpen"
    ]
    return rule


def rendered(template: str, labels: dict[str, str]) -> str:
    """What Prometheus makes of a template that has labels alone in it."""
    text = re.sub(
        r"\{\{ *\$labels\.(\w+) *\}\}", lambda found: labels[found[1]], template
    )
    assert "{{" not in text, template
    return text


def test_the_rule_and_the_push_give_the_same_labels():
    scene, alerts, _ = watched(replace(ONE, job="watch"))
    rule = the_rule()
    by = re.findall(r"by \(([^)]*)\)", rule["expr"])
    assert by
    (kept,) = {tuple(sorted(names.split(", "))) for names in by}

    fail(scene)

    labels = only(alerts)["labels"]
    assert labels.keys() == {"alertname", *kept, *rule["labels"]}
    assert labels["alertname"] == rule["alert"]
    assert rule["labels"].items() <= labels.items()
    assert labels["job"] == "watch"


def test_the_rule_and_the_push_say_the_same_and_lead_to_the_same():
    scene, alerts, _ = watched(
        replace(
            ONE,
            grafana_url="https://grafana.example.org",
            runbook_url="https://runbooks.example.org",
        )
    )
    rule = the_rule()

    fail(scene)

    alert = only(alerts)
    for annotation in ("summary", "dashboard_url", "runbook_url"):
        theirs = rendered(rule["annotations"][annotation], alert["labels"])
        assert alert["annotations"][annotation] == theirs
    assert rule["keep_firing_for"] == f"{HOLD / 60:g}m"


def test_without_addresses_an_alert_has_no_links():
    scene, alerts, _ = watched()

    fail(scene)

    alert = only(alerts)
    assert alert["annotations"].keys() == {"summary", "description"}
    assert "generatorURL" not in alert


# Telling it.


async def test_what_opens_together_is_one_post():
    scene, takers = Scene(names=[f"t{n}" for n in range(50)]), Takers()

    async with pushed_to(takers, scene) as push:
        for name in scene.board.targets:
            for operation in ("connect", "read", "write"):
                fail(scene, f"{name}/{operation}")
        await settled(lambda: push.pushed == 150)

    (alerts,) = takers.to("one")
    assert len({alert["labels"]["breaker"] for alert in alerts}) == 150
    assert push.failures == 0


async def test_an_alert_that_is_on_is_renewed_and_one_that_is_not_no_more():
    scene, takers = Scene(), Takers()

    async with pushed_to(takers, scene, pace=replace(QUICK, renew=0.05)) as push:
        fail(scene, "main/read")
        fail(scene, "main/write")
        await takers.until(lambda: len(takers.posts) >= 3)
        recover(scene, "main/read")
        ended = scene.clock.wall() + HOLD
        await takers.until(lambda: breakers(takers)[-1] == {"main/write"})
        seen = len(takers.posts)
        await takers.until(lambda: len(takers.posts) >= seen + 3)

    assert set(map(frozenset, breakers(takers)[seen:])) == {frozenset({"main/write"})}
    last = [a for a in flat(takers) if a["labels"]["breaker"] == "main/read"][-1]
    assert seconds(last["endsAt"]) == ended
    assert push.pushed >= 8


def breakers(takers: Takers) -> list[set[str]]:
    return [{a["labels"]["breaker"] for a in alerts} for _, alerts in takers.posts]


def flat(takers: Takers) -> list[dict]:
    return [alert for _, alerts in takers.posts for alert in alerts]


async def test_with_nothing_on_nothing_is_sent():
    scene, takers = Scene(), Takers()

    async with pushed_to(takers, scene, pace=replace(QUICK, renew=0.02)):
        for _ in range(10):
            scene.read()
            await asyncio.sleep(0.01)

    assert takers.posts == []


async def test_after_an_outage_all_that_is_on_is_told_and_nothing_that_is_over(caplog):
    caplog.set_level(logging.INFO)
    scene, takers = Scene(), Takers(one=DOWN)

    async with pushed_to(takers, scene) as push:
        fail(scene, "main/read")
        await settled(lambda: push.failures >= 2)
        recover(scene, "main/read")
        scene.time.now += HOLD
        fail(scene, "main/write")
        fail(scene, "main/connect")
        await settled(lambda: push.failures >= 6)
        failures = push.failures
        takers.answers.clear()
        await settled(lambda: push.pushed == 2)
        fail(scene, "main/read")
        await settled(lambda: push.pushed == 3)

    assert breakers(takers)[-2:] == [{"main/write", "main/connect"}, {"main/read"}]
    assert push.failures - failures <= 1
    assert [r.getMessage() for r in caplog.records] == [
        "Alertmanager http://one takes no alerts: connection refused",
        f"Alertmanager http://one takes alerts again, after {HOLD / 60:.0f} min 3 s",
    ]


async def test_one_that_was_away_is_told_again_what_it_had_taken_before():
    """It may have been restarted, and keeps no alerts over that."""
    scene, takers = Scene(), Takers()

    async with pushed_to(takers, scene) as push:
        fail(scene, "main/read")
        await settled(lambda: push.pushed == 1)
        takers.answers = {"http://one": DOWN}
        fail(scene, "main/write")
        await settled(lambda: push.failures > 0)
        takers.answers.clear()
        await settled(lambda: push.pushed == 2)

    assert breakers(takers)[-1] == {"main/read", "main/write"}


async def test_every_outage_is_told_of_anew_and_news_after_one_goes_at_once(caplog):
    scene, takers = Scene(), Takers()
    pace = replace(QUICK, again=0.5)

    async with pushed_to(takers, scene, pace=pace) as push:
        for number, name in enumerate(("main/read", "main/write")):
            takers.answers = {"http://one": DOWN}
            fail(scene, name)
            await settled(lambda wanted=number + 1: push.failures == wanted)
            takers.answers.clear()
            await settled(lambda wanted=number + 1: push.pushed >= wanted)
        begun = time.monotonic()
        fail(scene, "main/connect")
        await settled(lambda: breakers(takers)[-1] == {"main/connect"})
        took = time.monotonic() - begun

    assert took < 0.45
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "Alertmanager http://one takes no alerts: connection refused"
    ] * 2


async def test_an_outage_is_one_even_when_nothing_is_on_for_a_while(caplog):
    caplog.set_level(logging.INFO)
    scene, takers = Scene(), Takers(one=DOWN)
    pace = replace(QUICK, again=0.05, rarest=0.2)

    async with pushed_to(takers, scene, pace=pace) as push:
        fail(scene, "main/read")
        await settled(lambda: push.failures >= 3)
        recover(scene, "main/read")
        scene.time.now += HOLD
        seen = len(takers.posts)
        await asyncio.sleep(2.5 * pace.rarest)  # it would have been asked by now
        idle = len(takers.posts) - seen
        fail(scene, "main/write")
        await takers.until(lambda: breakers(takers)[-1] == {"main/write"})
        begun = time.monotonic()
        await takers.until(lambda: len(takers.posts) >= seen + idle + 2)
        paused = time.monotonic() - begun
        takers.answers.clear()
        await settled(lambda: push.pushed == 1)

    assert idle <= 1  # it may have been under way
    assert paused >= 0.15  # not the first pause of all
    said = [r.getMessage() for r in caplog.records]
    assert [line.partition(", ")[0] for line in said] == [
        "Alertmanager http://one takes no alerts: connection refused",
        "Alertmanager http://one takes alerts again",
    ]


async def test_the_clock_of_an_alertmanager_is_its_own_business(caplog):
    scene, takers = Scene(), Takers()
    far = scene.clock.wall() - 180.0
    takers.answers = {"http://one": replace(TOOK, date=far)}

    async with pushed_to(takers, scene, pace=replace(QUICK, renew=0.05)) as push:
        fail(scene)
        await settled(lambda: push.pushed >= 3)
        recover(scene)
        closed = scene.clock.wall()
        await takers.until(lambda: "endsAt" in flat(takers)[-1])

    assert seconds(flat(takers)[-1]["endsAt"]) == closed - 180.0 + HOLD
    assert [r.getMessage() for r in caplog.records] == [
        "the clock of Alertmanager http://one is 3 min 0 s behind ours; alerts have its times"
    ]


async def test_an_alert_of_its_future_is_offered_anew_by_its_own_clock():
    """Alertmanager refuses what begins after it would end."""
    scene, takers = Scene(), Takers(one=DOWN)
    theirs = scene.clock.wall() - 600.0

    async with pushed_to(takers, scene):
        fail(scene)
        await takers.until(lambda: takers.posts)
        scene.time.now += 10.0
        takers.answers = {"http://one": Answer(400, "Bad Request", theirs + 10.0)}
        await takers.until(lambda: len(takers.posts) == 3)

    first, refused, corrected = flat(takers)[:3]
    assert "startsAt" not in first
    assert seconds(refused["startsAt"]) == theirs + 600.0
    assert seconds(corrected["startsAt"]) == theirs


class Faulty(Takers):
    """One of which is told by code with a fault, for as long as *is_faulty*."""

    is_faulty = True

    async def __call__(self, url: str, body: bytes) -> Answer:
        if self.is_faulty and url == "http://one":
            self.posts.append((url, json.loads(body)))
            raise RuntimeError("boom")
        return await super().__call__(url, body)


async def test_a_fault_of_ours_is_a_failure_that_is_told_and_tried_again(caplog):
    scene, takers = Scene(), Faulty()

    async with pushed_to(takers, scene) as push:
        fail(scene)
        await settled(lambda: push.failures >= 3)
        takers.is_faulty = False
        await settled(lambda: push.pushed == 1)

    (fault,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert fault.exc_info is not None
    assert isinstance(fault.exc_info[1], RuntimeError)
    assert "http://one" in fault.getMessage()
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.getMessage().endswith("takes no alerts: RuntimeError: boom")


async def test_a_fault_of_ours_at_the_end_leaves_the_others_their_last_post():
    scene, takers = Scene(), Faulty()

    async with pushed_to(takers, scene, TWO, replace(QUICK, gather=60.0)) as push:
        fail(scene)

    assert len(takers.to("two")) == 1
    assert (push.pushed, push.failures) == (1, 0)


async def test_a_clock_that_fails_at_the_end_does_not_end_the_end(caplog):
    scene, takers, is_broken = Scene(), Takers(), False

    def now() -> float:
        if is_broken:
            raise RuntimeError("no clock")
        return scene.time.now

    push = Push(TWO, scene.board, Clock(now=now), takers, replace(QUICK, gather=60.0))
    scene.also(push)
    push.start()
    fail(scene)
    recover(scene)
    is_broken = True
    await push.close()

    said = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert [r.getMessage().partition(",")[0] for r in said] == [
        f"parting from Alertmanager http://{name} failed" for name in ("one", "two")
    ]
    assert all(r.exc_info is not None for r in said)


def test_what_prometheus_says_has_ended_is_on_again_before_groups_are_looked_at():
    """It says so each minute, and each minute Alertmanager looks at a group."""
    assert Pace().renew <= 10.0


async def test_retries_come_ever_more_seldom_and_news_does_not_wait_for_them():
    scene, takers = Scene(), Takers(one=DOWN)
    pace = replace(QUICK, rarest=30.0)

    async with pushed_to(takers, scene, pace=pace):
        fail(scene, "main/read")
        await takers.until(lambda: len(takers.posts) == 6)
        gaps = [b - a for a, b in itertools.pairwise(takers.times)]
        begun = time.monotonic()
        fail(scene, "main/write")
        await takers.until(lambda: len(takers.posts) == 7)
        took = time.monotonic() - begun

    pauses = (0.02, 0.04, 0.08, 0.16, 0.32)
    assert all(gap >= pause for gap, pause in zip(gaps, pauses, strict=True))
    assert breakers(takers)[6] == {"main/read", "main/write"}
    assert took < 0.5  # where the next retry would come after 0.64


async def test_one_of_two_that_is_down_is_no_failure_and_gets_it_later(caplog):
    scene, takers = Scene(), Takers(two=Answer(503, "Service Unavailable"))

    async with pushed_to(takers, scene, TWO) as push:
        fail(scene)
        await settled(lambda: len(takers.to("two")) >= 3)
        assert (push.pushed, push.failures, len(takers.to("one"))) == (1, 0, 1)
        takers.answers.clear()
        seen = len(takers.to("two"))
        await settled(lambda: len(takers.to("two")) > seen)

    assert (push.pushed, push.failures) == (1, 0)
    (warning,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert warning.getMessage() == (
        "Alertmanager http://two takes no alerts: it answered 503 Service Unavailable"
    )


async def test_two_that_are_away_one_after_the_other_are_no_failure():
    scene, takers = Scene(), Takers(one=DOWN)

    async with pushed_to(takers, scene, TWO, replace(QUICK, gather=0.1)) as push:
        fail(scene, "main/read")
        await settled(lambda: len(takers.posts) == 2)
        takers.answers.clear()
        await settled(lambda: len(takers.posts) == 3)
        takers.answers = {"http://two": DOWN}
        fail(scene, "main/write")
        await settled(lambda: push.pushed == 2 and len(takers.to("two")) >= 2)

    assert push.failures == 0


async def test_when_all_are_down_that_is_one_failure_each_time():
    scene, takers = Scene(), Takers(one=DOWN, two=DOWN)
    pace = replace(QUICK, again=60.0)

    async with pushed_to(takers, scene, TWO, pace) as push:
        fail(scene)
        await settled(lambda: len(takers.posts) == 2 and push.failures > 0)

    # The last attempt, at the end, fails as well.
    assert (push.failures, len(takers.posts)) == (2, 4)


async def test_one_that_hangs_delays_neither_the_other_nor_whoever_tells():
    scene, takers = Scene(), Takers(two=None)

    async with pushed_to(takers, scene, TWO, replace(QUICK, within=5.0)):
        fail(scene, "main/read")
        await takers.until(lambda: takers.to("two"))
        begun = time.monotonic()
        fail(scene, "main/write")
        told = time.monotonic() - begun
        await settled(lambda: len(takers.to("one")) == 2)
        took = time.monotonic() - begun

    assert told < 0.1
    assert took < 2.0  # less than the other is waited for


@pytest.mark.parametrize("takes", [True, False], ids=["which is taken", "which is not"])
async def test_what_moves_while_a_post_is_under_way_is_told_after_it(takes):
    scene, takers = Scene(), Takers(one=None)
    pace = replace(QUICK, within=5.0 if takes else 0.1)

    async with pushed_to(takers, scene, pace=pace) as push:
        fail(scene)
        await takers.until(lambda: takers.posts)
        recover(scene)
        takers.answers.clear()
        if takes:
            takers.let_go.set()
        await settled(lambda: push.pushed >= 1 and len(takers.posts) == 2)

    assert push.failures == (not takes)
    assert seconds(flat(takers)[-1]["endsAt"]) == scene.clock.wall() + HOLD


async def test_at_the_end_what_is_still_owed_is_told():
    scene, takers = Scene(), Takers()

    async with pushed_to(takers, scene, pace=replace(QUICK, gather=60.0)) as push:
        fail(scene)
        await asyncio.sleep(0.05)
        assert takers.posts == []

    assert breakers(takers) == [{"main/read"}]
    assert push.pushed == 1


async def test_the_end_does_not_wait_for_one_that_hangs():
    scene, takers = Scene(), Takers(one=None, two=None)
    push = Push(TWO, scene.board, scene.clock, takers)  # at its real pace
    scene.also(push)
    push.start()
    fail(scene)
    await takers.until(lambda: len(takers.posts) == 2)

    begun = time.monotonic()
    await push.close()

    assert time.monotonic() - begun < 1.5
    assert push.failures == 1


async def test_a_thousand_targets_that_go_at_once_do_not_hold_the_loop():
    scene, takers = Scene(names=[f"t{n}" for n in range(1000)]), Takers()
    longest, running = 0.0, True

    async def beat() -> None:
        nonlocal longest
        while running:
            begun = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - begun)

    async with pushed_to(takers, scene) as push:
        for name in scene.board.targets:
            for operation in ("connect", "read", "write"):
                fail(scene, f"{name}/{operation}")
        beating = asyncio.create_task(beat())
        await settled(lambda: push.pushed == 3000)
        running = False
        await beating

    assert longest < 0.25
    assert [len(alerts) for _, alerts in takers.posts] == [500] * 6


async def test_all_that_is_owed_is_told_at_the_end_in_however_many_posts():
    scene, takers = Scene(names=[f"t{n}" for n in range(600)]), Takers()

    async with pushed_to(takers, scene, pace=replace(QUICK, gather=60.0)):
        for name in scene.board.targets:
            fail(scene, f"{name}/read")

    assert len(set().union(*breakers(takers))) == 600


# What is configured.

TARGET = b"""
version: 1
targets:
  - {name: main, dsn: postgresql://monitor@db1/app}
"""


def test_what_the_file_says_is_what_is_pushed_by():
    config = parse(
        TARGET
        + b"""
alertmanager:
  urls: ["http://127.0.0.1:9093/", "https://am.example.net/prefix"]
  job: watch
  labels: {Cluster: eu-1, replica: ""}
  grafana_url: https://grafana.example.net/
  runbook_url: https://example.net/runbooks
  page_url: http://db1:9432
""",
        "x.yml",
    )

    assert config.alertmanager == AlertmanagerPlan(
        urls=("http://127.0.0.1:9093", "https://am.example.net/prefix"),
        job="watch",
        labels={"Cluster": "eu-1", "replica": ""},
        grafana_url="https://grafana.example.net",
        runbook_url="https://example.net/runbooks",
        page_url="http://db1:9432",
    )


def test_the_defaults_are_those_of_the_plan_and_nothing_is_pushed_without_the_key():
    with_urls = parse(TARGET + b"alertmanager: {urls: ['http://one']}\n", "x.yml")

    assert with_urls.alertmanager == ONE == for_alertmanager("http://one")
    assert parse(TARGET, "x.yml").alertmanager is None


def test_an_address_of_the_command_line_is_told_as_one_of_the_file():
    with pytest.raises(ConfigError) as caught:
        for_alertmanager("http://me:hunter2@am:9093")

    assert str(caught.value) == (
        "--url: an address has no user or password in it;"
        " write it like http://127.0.0.1:9093"
    )


# By HTTP, on loopback.


@asynccontextmanager
async def serving(handler):
    """Somebody who takes posts for Alertmanager's API, for the time of the block."""
    app = web.Application()
    app.router.add_post("/am/api/v2/alerts", handler)
    app.router.add_get("/elsewhere", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/am"
    finally:
        await runner.cleanup()


async def test_alerts_arrive_over_one_connection_that_is_kept():
    came, ports = [], set()

    async def take(request: web.Request) -> web.Response:
        came.extend(await request.json())
        ports.add(request.transport.get_extra_info("peername")[1])
        assert request.content_type == "application/json"
        assert request.headers["User-Agent"].startswith("pgbreaker/")
        return web.Response()

    async with serving(take) as url:
        scene = Scene()
        plan = AlertmanagerPlan(urls=(url,))
        async with pushing(plan, scene.board, scene.clock, QUICK) as push:
            scene.also(push)
            for number, name in enumerate(("main/read", "main/write", "main/connect")):
                fail(scene, name)
                await settled(lambda wanted=number + 1: push.pushed == wanted)

    assert [alert["labels"]["breaker"] for alert in came] == [
        *("main/read", "main/write", "main/connect")
    ]
    assert len(ports) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "", "it answered 200 OK"),
        (400, '"bad label"\nmore', 'it answered 400 Bad Request: "bad label"'),
        (503, "\x1b[31mno\x00", "it answered 503 Service Unavailable: [31mno"),
        (302, "", "it answered 302 Found"),
        (500, "x" * 5000, None),
    ],
)
async def test_an_answer_is_told_in_one_line(status, body, said):
    async def answer(request: web.Request) -> web.Response:
        assert request.method == "POST", "nothing is sent elsewhere"
        headers = {"Location": "/elsewhere"} if status == 302 else {}
        return web.Response(status=status, text=body, headers=headers)

    async with serving(answer) as url, session() as http:
        answered = await posting(http)(url, b"[]")

    assert answered.took == (status == 200)
    assert len(answered.text) <= 200
    assert str(answered) == said or said is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "connection refused"),
        ("http://no-such-host.invalid", "the host's name has no address"),
    ],
)
async def test_nobody_there_is_told_in_words(url, said):
    async with session() as http:
        answered = await posting(http)(url, b"[]")

    assert answered.status is None
    assert answered.text.startswith(said)


async def test_one_that_talks_something_else_is_told_in_words():
    async def talk(_reader, writer) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, session() as http:
        answered = await posting(http)(f"http://127.0.0.1:{port}", b"[]")

    assert answered.status is None
    assert answered.text
    assert "\n" not in answered.text


async def test_one_that_accepts_and_never_answers_holds_up_neither_alerts_nor_the_end():
    accepted = []
    silent = await asyncio.start_server(
        lambda _, writer: accepted.append(writer), "127.0.0.1", 0
    )
    port = silent.sockets[0].getsockname()[1]
    came = asyncio.Event()

    async def take(_: web.Request) -> web.Response:
        came.set()
        return web.Response()

    async with serving(take) as url:
        scene = Scene()
        plan = AlertmanagerPlan(urls=(f"http://127.0.0.1:{port}", url))
        async with pushing(plan, scene.board, scene.clock) as push:
            scene.also(push)
            fail(scene)
            async with asyncio.timeout(1.0):
                await came.wait()
            begun = time.monotonic()
        took = time.monotonic() - begun
    silent.close()
    for writer in accepted:
        writer.close()

    assert accepted
    assert took < 1.5
    assert (push.pushed, push.failures) == (1, 0)


# The command.


async def tried(*arguments: str):
    return await asyncio.to_thread(pgbreaker, "alerts", "test", *arguments)


async def test_each_alertmanager_is_told_of_in_a_line(tmp_path):
    came = []

    async def take(request: web.Request) -> web.Response:
        came.extend(await request.json())
        return web.Response()

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=400, text="no such tenant")

    async with serving(take) as good, serving(refuse) as bad:
        path = tmp_path / "pgbreaker.yaml"
        alertmanagers = (
            f"{{urls: ['{good}', '{bad}'], job: watch, labels: {{cluster: eu}}}}"
        )
        path.write_bytes(TARGET + f"alertmanager: {alertmanagers}\n".encode())
        done = await tried("--config", str(path), "--severity", "warning")

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        f"{good}: took it",
        f"{bad}: refused it: 400 Bad Request: no such tenant",
        "PgbreakerTest takes the route of severity warning, job watch: look there for a message; the alert ends by itself in a minute",
    ]
    (alert,) = came
    mark = alert["labels"].pop("test")
    assert len(mark) == 8
    assert alert["labels"] == {
        "alertname": "PgbreakerTest",
        "severity": "warning",
        "job": "watch",
        "cluster": "eu",
    }
    assert seconds(alert["endsAt"]) - seconds(alert["startsAt"]) == 60.0


async def test_one_that_is_not_there_goes_before_one_that_refuses():
    done = await tried("--url", "http://127.0.0.1:1")

    assert done.returncode == 69
    # And nothing of where to look for a message.
    assert done.stdout == "http://127.0.0.1:1: does not answer: connection refused\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "say --config FILE, or --url URL"),
        (("--url", "am:9093"), 78, "--url: not an address; write it like http"),
        (("--config", "FILE"), 78, "is configured; add its urls, or say --url URL"),
        (("--config", "FILE", "--url", "http://127.0.0.1:1"), 69, ""),
    ],
    ids=["nothing", "no address", "nothing configured", "an address besides"],
)
async def test_what_is_not_to_be_tried_is_said(arguments, code, said, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_bytes(TARGET)

    done = await tried(*(str(path) if a == "FILE" else a for a in arguments))

    assert done.returncode == code
    assert said in done.stderr


# What became of the test.

# As Alertmanager writes it out.
RECEIVERS = """\
global:
  resolve_timeout: 5m
receivers:
- name: nowhere
- name: to-slack
  slack_configs:
  - channel: '#a'
    actions:
    - name: more
      discord_configs: no
- name: "to-both"
  labels:
    name: to-both
  email_configs:
  - to: b
    text: |
      One line.

      pushover_configs: of a text
  slack_configs:
  - channel: '#a'
- name: to-hook
  webhook_configs:
  - url: c
- name: watchdog
  webhook_configs:
  - url: d
templates: []
webex_configs: of nobody
"""
FURTHER_IN = re.sub(r"(?m)^(?=[- ])", "    ", RECEIVERS)


def page(*counts: tuple[str, int, int]) -> str:
    """Counts as they are on /metrics: labels, tries, and tries that failed."""
    return "".join(
        f"alertmanager_notification_requests_total{{{labels}}} {tries}\n"
        f"alertmanager_notification_requests_failed_total{{{labels}}} {failures}\n"
        f'alertmanager_notifications_failed_total{{{labels},reason="other"}} 7\n'
        for labels, tries, failures in counts
    )


SLACK, EMAIL, HOOK = (f'integration="{name}"' for name in ("slack", "email", "webhook"))
NAMED = f'{HOOK},receiver_name="{{}}"'
BEFORE = page((SLACK, 3, 1), (EMAIL, 2, 0), (HOOK, 5, 0))


@asynccontextmanager
async def saying(*pages: str, receiver="to-slack", state="active", config=RECEIVERS):
    """An Alertmanager that takes all, and says so of itself.

    Args:
        pages: Its /metrics at each look, the last one from then on.
    """
    looks = itertools.chain(pages, itertools.repeat(pages[-1] if pages else ""))

    async def answer(request: web.Request) -> web.Response:
        match request.method, request.path:
            case "GET", "/api/v2/status":
                return web.json_response({"config": {"original": config}})
            case "GET", "/api/v2/alerts":
                routed = {"receivers": [{"name": receiver}], "status": {"state": state}}
                return web.json_response([routed])
            case "GET", "/metrics" if pages:
                return web.Response(text=next(looks))
            case "POST", "/api/v2/alerts":
                return web.Response()
        return web.Response(status=404)

    async with elsewhere(answer) as url:
        yield url


@asynccontextmanager
async def elsewhere(answer):
    """Somebody who answers whatever is asked, for the time of the block."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def sent_to(url: str, patience: float = 0.5):
    """What comes of a test alert there."""
    plan = AlertmanagerPlan(urls=(url,))
    (one,) = await send_test(
        plan, "critical", sender="me", clock=Clock(), mark="x", patience=patience
    )
    return one


async def test_a_message_that_goes_out_is_seen_to():
    after = page((SLACK, 4, 1), (EMAIL, 2, 0), (HOOK, 6, 0))
    async with saying(BEFORE, after) as url:
        one = await sent_to(url, patience=30.0)

    assert one.receivers == ("to-slack",)
    assert (one.sent, one.doubt, one.is_sent) == ({"slack": Sent(1, 0)}, "", True)


async def test_a_configuration_that_is_further_in_is_read_as_well():
    after = page((SLACK, 4, 1), (EMAIL, 3, 0))
    async with saying(BEFORE, after, receiver="to-both", config=FURTHER_IN) as url:
        one = await sent_to(url, patience=30.0)

    assert one.sent == {"email": Sent(1, 0), "slack": Sent(1, 0)}
    assert one.is_sent


@pytest.mark.parametrize(
    ("receiver", "after", "sent"),
    [
        ("to-slack", page((SLACK, 3, 1), (HOOK, 9, 0)), {"slack": Sent(0, 0)}),
        ("to-slack", page((SLACK, 5, 3), (HOOK, 9, 0)), {"slack": Sent(0, 2)}),
        ("to-slack", page((SLACK, 5, 2)), {"slack": Sent(1, 1)}),
        ("to-slack", page((SLACK, 0, 0)), {"slack": Sent(0, 0)}),
        ("to-slack", "", {"slack": Sent(0, 0)}),
        (
            "to-both",
            page((SLACK, 4, 1), (EMAIL, 2, 0)),
            {"email": Sent(0, 0), "slack": Sent(1, 0)},
        ),
        ("nowhere", page((SLACK, 4, 1), (HOOK, 9, 0)), {}),
    ],
    ids=[
        *("of others", "failed", "failed at first", "restarted", "gone"),
        *("by one of two", "nowhere"),
    ],
)
async def test_what_is_not_sent_or_failed_meanwhile_is_never_sent(
    receiver, after, sent
):
    async with saying(BEFORE, after, receiver=receiver) as url:
        one = await sent_to(url)

    assert (one.sent, one.doubt, one.is_sent) == (sent, "", False)


async def test_a_failure_that_is_counted_after_its_try_is_none_the_less():
    tries = [page((SLACK, *count)) for count in ((0, 0), (1, 0), (1, 1))]
    async with saying(*tries) as url:
        one = await sent_to(url)

    assert (one.sent, one.is_sent) == ({"slack": Sent(0, 1)}, False)


@pytest.mark.parametrize(
    ("pages", "more", "doubt"),
    [
        ((), {}, "it serves no /metrics"),
        ((BEFORE,), {"config": "{"}, "it does not say by what its receivers send"),
        ((BEFORE,), {"receiver": "x"}, "it does not say by what its receivers send"),
        (
            (BEFORE, page((HOOK, 6, 0))),
            {"receiver": "to-hook"},
            "its /metrics count the webhooks of all receivers together",
        ),
    ],
)
async def test_what_is_not_known_is_not_taken_for_sent(pages, more, doubt):
    async with saying(*pages, **more) as url:
        one = await sent_to(url)

    assert (one.sent, one.doubt, one.is_sent) == (None, doubt, False)


@pytest.mark.parametrize("ours", [0, 1])
async def test_receivers_that_are_told_apart_are_not_taken_for_each_other(ours):
    pages = [
        page((NAMED.format("to-hook"), count, 0), (NAMED.format("watchdog"), beat, 0))
        for count, beat in ((2, 5), (2 + ours, 6))
    ]
    async with saying(*pages, receiver="to-hook") as url:
        one = await sent_to(url)

    assert (one.sent, one.is_sent) == ({"webhook": Sent(ours, 0)}, bool(ours))


async def test_a_test_has_the_times_of_whoever_is_told():
    came = []
    theirs = time.time() - 600.0

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            came.extend(await request.json())
        date = format_datetime(datetime.fromtimestamp(theirs, UTC), usegmt=True)
        return web.Response(headers={"Date": date})

    async with elsewhere(answer) as url:
        await sent_to(url, patience=0.0)

    (alert,) = came
    assert abs(seconds(alert["startsAt"]) - theirs) < 2.0
    assert seconds(alert["endsAt"]) - seconds(alert["startsAt"]) == 60.0


@pytest.mark.parametrize(
    ("more", "arguments", "code", "said"),
    [
        (
            {"state": "suppressed"},
            ("--wait",),
            1,
            "for to-slack, which are not told: a silence or another alert mutes it",
        ),
        (
            {"state": "suppressed"},
            (),
            0,
            "for to-slack, which are not told: a silence or another alert mutes it",
        ),
        (
            {},
            ("--wait",),
            1,
            "for to-slack, whether a message went out is not known: it serves no /metrics",
        ),
        ({}, (), 0, "for to-slack"),
    ],
    ids=["muted, waited for", "muted", "not known, waited for", "not known"],
)
async def test_who_waits_is_not_told_that_all_is_well_when_that_is_not_known(
    more, arguments, code, said
):
    async with saying(**more) as url:
        done = await tried("--url", url, *arguments)

    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines()[0] == f"{url}: took it, {said}"


async def test_a_message_beside_a_failure_is_told_as_both():
    async with saying(BEFORE, page((SLACK, 5, 2)), receiver="to-slack") as url:
        done = await tried("--url", url, "--wait")

    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == (
        f"{url}: took it, for to-slack, a message went out by slack, beside 1 failure:"
        " its log says why"
    )


async def test_a_receiver_that_sends_nothing_is_told_as_such():
    async with saying(BEFORE, receiver="nowhere") as url:
        done = await tried("--url", url, "--wait")

    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == (
        f"{url}: took it, for nowhere, by which nothing is sent"
    )
