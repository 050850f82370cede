"""Who is told what, by real Alertmanagers with the configuration that is shipped.

`amtool check-config` finds nothing wrong with a template that does not exist, so what
counts here is what a receiver gets.
"""

import asyncio
import json
import re
import subprocess
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
import yaml

from support.alertmanager import (
    FETCHED,
    SHIPPED,
    TEMPLATE,
    Alertmanager,
    alert,
    alertmanager,
    shipped_config,
)
from support.slack import LINK, Message, Slack, lint, looks_resolved, slack
from support.tools import missing, need

RULES = SHIPPED.parent / "pgbreaker.rules.yml"

GRAFANA = "https://grafana.example.org/d/pgbreaker-target?var-target="
RUNBOOK = "https://runbooks.example.org/PgbreakerBreakerOpen.md"
LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Stage(NamedTuple):
    """An Alertmanager, and who it tells."""

    manager: Alertmanager
    receiver: Slack


@asynccontextmanager
async def staged(folder: Path, *command: Path, faster: float = 20):
    """Both of them, the waits of groups divided by *faster*."""
    async with slack() as receiver:
        config = shipped_config(folder, receiver, faster=faster)
        async with alertmanager(config, *command) as manager:
            yield Stage(manager, receiver)


def fetched() -> Path:
    """The newest Alertmanager, which tests/fetch-prometheus brings."""
    program = FETCHED / "bin/prometheus-alertmanager"
    if not program.exists():
        missing(f"{program.name} of Debian sid is missing: run tests/fetch-prometheus")
    return program


@pytest.fixture
def amtool():
    found = need("amtool", "prometheus-alertmanager")

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [found, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
async def stage(tmp_path):
    """Debian's Alertmanager, with waits that are twenty times shorter."""
    async with staged(tmp_path) as stage:
        yield stage


@pytest.fixture(params=["packaged", "newest"])
async def each_stage(request, tmp_path):
    """Debian's Alertmanager and the newest, in turn; a minute takes a second."""
    command = [fetched()] if request.param == "newest" else []
    async with staged(tmp_path, *command, faster=60) as stage:
        yield stage


def rules() -> list[dict]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


SEVERITIES = {rule["alert"]: rule["labels"]["severity"] for rule in rules()}


def of(name: str, **labels: str) -> dict:
    """An alert of ours that fires, with the severity that its rule gives it."""
    full = f"Pgbreaker{name}"
    return alert(full, **{"severity": SEVERITIES[full], **labels})


def opened(target: str, **more) -> dict:
    """BreakerOpen of the operation read of *target*, with all that rules give it."""
    annotations = {
        "summary": f"Breaker {target}/read opened",
        "description": f"7 of 10 calls of {target} failed in 10 s, last with 57P03.",
        "runbook_url": RUNBOOK,
        "dashboard_url": f"{GRAFANA}{target}",
    }
    labels = {"target": target, "operation": "read", "breaker": f"{target}/read"}
    labels = {"severity": "critical", "job": "pgbreaker"} | labels
    made = {
        "annotations": annotations,
        "source": "http://prometheus.test/graph?g0.expr=x",
    }
    return alert("PgbreakerBreakerOpen", **(made | labels | more))


def named(message: Message) -> str:
    """Name of the alerts that a Slack message is about, without our prefix."""
    return message.footer.partition(" · ")[0].removeprefix("Pgbreaker")


# What a message looks like.

SILENCE = (
    "https://alertmanager.test/#/silences/new?filter=%7Balertname%3D%22PgbreakerBreakerOpen%22"
    "{}%2C%20job%3D%22pgbreaker%22{}%2C%20severity%3D%22critical%22{}%7D"
)


def payload(color: str, title: str, link: str, text: str, silence: str) -> dict:
    """What Slack gets of BreakerOpen."""
    sign, _, rest = title.partition(" ")
    return {
        "channel": "#db-critical",
        "username": "pgbreaker",
        "attachments": [
            {
                "title": f"{sign} {rest}",
                "title_link": link,
                "text": text,
                "fallback": rest,
                "callback_id": "",
                "actions": [
                    {"type": "button", "text": "Runbook", "url": RUNBOOK},
                    {"type": "button", "text": "Dashboard", "url": link},
                    {
                        "type": "button",
                        "text": "Query",
                        "url": "http://prometheus.test/graph?g0.expr=x",
                    },
                    {"type": "button", "text": "Silence", "url": silence},
                ],
                "footer": "PgbreakerBreakerOpen · pgbreaker"
                " · group PgbreakerBreakerOpen, pgbreaker",
                "color": color,
                "mrkdwn_in": ["fallback", "pretext", "text"],
            }
        ],
    }


SILENCE_ORDERS = SILENCE.format(
    "%2C%20breaker%3D%22orders%2Fread%22",
    "%2C%20operation%3D%22read%22",
    "%2C%20target%3D%22orders%22",
)


async def test_one_alert_says_what_how_bad_since_when_and_that_it_is_over(each_stage):
    manager, receiver = each_stage
    starts = LONG_AGO.timestamp()

    await manager.post(opened("orders", starts=starts))
    await receiver.until(lambda: len(receiver.messages) == 1, within=5)
    await manager.post(opened("orders", starts=starts, ends=starts + 125))
    await receiver.until(lambda: len(receiver.messages) == 2, within=5)

    firing, resolved = receiver.messages
    assert firing.payload == payload(
        "danger",
        ":red_circle: CRITICAL Breaker orders/read opened",
        f"{GRAFANA}orders",
        "7 of 10 calls of orders failed in 10 s, last with 57P03.\n_since 2 Jan 03:04:05 UTC_",
        SILENCE_ORDERS,
    )
    assert resolved.payload == payload(
        "good",
        ":white_check_mark: RESOLVED Breaker orders/read opened",
        f"{GRAFANA}orders",
        "_since 2 Jan 03:04:05, until 2 Jan 03:06:10 UTC_",
        SILENCE_ORDERS,
    )
    assert lint(firing) + lint(resolved) == []


async def test_many_alerts_are_one_message_that_lists_eight(each_stage):
    manager, receiver = each_stage
    names = [f"orders{number:02}" for number in range(12)]
    # Of a group that is new, an alert that began before its wait is told at once, alone.
    starts = datetime.now(UTC) + timedelta(seconds=5)

    await manager.post(*(opened(name, starts=starts.timestamp()) for name in names))
    await receiver.until(lambda: len(receiver.messages) == 1, within=5)

    since = f"_since {starts.day} {starts:%b %H:%M:%S} UTC_"
    listed = "".join(
        f"\n• <{GRAFANA}{name}|Breaker {name}/read opened>  {since}"
        for name in names[:8]
    )
    (message,) = receiver.messages
    assert message.payload == payload(
        "danger",
        ":red_circle: CRITICAL BreakerOpen on 12 targets",
        "https://grafana.example.org/d/pgbreaker-overview",
        "The first: 7 of 10 calls of orders00 failed in 10 s, last with 57P03.\n"
        f"*Firing (12)*{listed}\nand 4 more",
        SILENCE.format("", "%2C%20operation%3D%22read%22", ""),
    )
    assert lint(message) == []


def shaped(rule: dict, **more) -> dict:
    """An alert as *rule* makes it, with `sample` for whatever Prometheus fills in."""
    said = rule["annotations"]
    names = re.findall(r"\$labels\.(\w+)", " ".join(said.values()))
    labels = dict.fromkeys(names, "sample") | {"severity": rule["labels"]["severity"]}
    filled = {key: re.sub(r"{{.*?}}", "sample", text) for key, text in said.items()}
    labels["job"] = f"shape-{rule['alert']}"  # so that none mutes another
    source = "http://prometheus.test/graph?g0.expr=up%7Bjob%3D%22x%22%7D"
    return alert(rule["alert"], annotations=filled, source=source, **(labels | more))


async def test_every_alert_of_the_rules_makes_a_good_message(each_stage):
    manager, receiver = each_stage
    for_slack = [
        rule
        for rule in rules()
        if rule["labels"]["severity"] != "none"
        and rule["alert"] != "PgbreakerNotificationsFailing"
    ]
    assert len(for_slack) >= 20

    await manager.post(*map(shaped, for_slack))
    await receiver.until(lambda: len(receiver.messages) == len(for_slack), within=10)
    over = time.time()
    await manager.post(*(shaped(rule, ends=over) for rule in for_slack))
    await receiver.until(
        lambda: len(receiver.messages) == 2 * len(for_slack), within=10
    )

    assert {m.title: lint(m) for m in receiver.messages if lint(m)} == {}
    began, ended = (
        receiver.messages[: len(for_slack)],
        receiver.messages[len(for_slack) :],
    )
    assert not any(map(looks_resolved, began))
    assert all(map(looks_resolved, ended))
    assert all(len(message.buttons) == 4 for message in receiver.messages)


@pytest.mark.parametrize(
    ("sign", "tail", "is_linked"),
    [
        ("s", "", True),
        ("s", "z" * 400, False),
        ("<", "&a", True),  # escaped, it has 119 characters of 120
        ("&", "&&&", False),
        ('"', '"', False),
    ],
    ids=["linked", "long link", "escaped", "long once escaped", "quoted"],
)
async def test_five_hundred_alerts_with_long_words_are_a_message_that_slack_takes(
    tmp_path, sign, tail, is_linked
):
    names = [f"{number:03}" + "x" * 60 for number in range(500)]
    words = {
        "summary": "Breaker " + sign * 200,
        "description": "d" + sign * 900,
        "runbook_url": RUNBOOK,
    }

    def alerts(ends: float | None = None) -> list[dict]:
        return [
            opened(
                name,
                annotations=words | {"dashboard_url": GRAFANA + name + tail},
                ends=ends,
            )
            for name in names
        ]

    async with staged(tmp_path, faster=60) as (manager, receiver):
        await manager.post(*alerts())
        await receiver.until(lambda: receiver.told("*Firing"), within=10)
        await manager.post(*alerts(time.time()))
        await receiver.until(lambda: receiver.told("RESOLVED", "(500)"), within=10)

    assert {m.title: lint(m) for m in receiver.messages if lint(m)} == {}
    last = receiver.messages[-1]
    assert last.title == ":white_check_mark: RESOLVED BreakerOpen on 500 targets"
    assert len(LINK.findall(last.text)) == (8 if is_linked else 0)


ODD = 'a<b> & "c"|d\\E( *'


@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
async def test_nothing_that_names_hold_breaks_a_message(stage, several):
    manager, receiver = stage
    annotations = {"summary": f"Breaker {ODD}\nopened", "description": ODD}
    names = [ODD, f"{ODD}2"] if several else [ODD]

    await manager.post(
        *(
            of("BreakerOpen", job="app", breaker=name) | {"annotations": annotations}
            for name in names
        )
    )
    await receiver.until(lambda: receiver.messages, within=5)

    (message,) = receiver.messages
    assert lint(message) == []
    assert 'a&lt;b&gt; &amp; "c"|d\\E( *' in message.text
    assert "\n" not in message.title
    assert list(message.buttons) == ["Silence"]
    if not several:
        assert message.buttons["Silence"].endswith(
            "/#/silences/new?filter=" + quote(MATCHERS, safe="")
        )


# As Alertmanager's own page writes them into its address.
MATCHERS = (
    '{alertname="PgbreakerBreakerOpen", breaker="a<b> & \\"c\\"|d\\\\E( *", job="app", '
    'severity="critical"}'
)


async def test_an_alert_that_says_nothing_of_itself_is_told_all_the_same(stage):
    manager, receiver = stage

    await manager.post(of("RecoverySlow", job="app", breaker="main"))
    await receiver.until(lambda: receiver.messages, within=5)

    (message,) = receiver.messages
    assert message.title == ":red_circle: CRITICAL RecoverySlow"
    assert lint(message) == []


@pytest.mark.parametrize(("count", "rest"), [(8, ""), (9, "\nand 1 more")])
async def test_what_is_not_listed_is_counted(stage, count, rest):
    manager, receiver = stage

    await manager.post(*(opened(f"db{number}") for number in range(count)))
    await receiver.until(lambda: receiver.messages, within=5)

    (message,) = receiver.messages
    assert message.text.count("\n•") == 8
    assert message.text.rpartition("UTC_")[2] == rest


async def test_breakers_of_one_target_are_counted_as_one(stage):
    manager, receiver = stage

    await manager.post(
        *(opened("orders", operation=kind, breaker=f"orders/{kind}") for kind in "abc")
    )
    await receiver.until(lambda: receiver.messages, within=5)

    (message,) = receiver.messages
    assert message.title == ":red_circle: CRITICAL BreakerOpen on orders (3 alerts)"
    assert lint(message) == []


async def test_what_is_over_is_told_beside_what_goes_on(tmp_path):
    async with staged(tmp_path, faster=60) as (manager, receiver):
        await manager.post(opened("orders"), opened("users"))
        await receiver.until(lambda: receiver.told("on 2 targets"), within=5)
        await manager.post(opened("users", ends=time.time()))
        await receiver.until(lambda: len(receiver.messages) == 2, within=10)

    message = receiver.messages[-1]
    assert message.title == ":red_circle: CRITICAL Breaker orders/read opened"
    assert "*Firing (1)*" in message.text
    assert message.text.endswith("*Resolved (1)*")
    assert lint(message) == []


# Who is told.


class Way(NamedTuple):
    labels: dict[str, str]
    receiver: str
    came: str | None  # a channel or a path


WAYS = [
    Way({"alertname": "PgbreakerWatchdog", "severity": "none"}, "watchdog", "watchdog"),
    Way(
        {"alertname": "PgbreakerNotificationsFailing", "severity": "critical"},
        "email",
        "email",
    ),
    Way(
        {"alertname": "PgbreakerBreakerOpen", "severity": "critical"},
        "slack-critical",
        "#db-critical",
    ),
    Way(
        {"alertname": "PgbreakerTargetDown", "severity": "critical"},
        "slack-critical",
        "#db-critical",
    ),
    Way(
        {"alertname": "PgbreakerQuerySlow", "severity": "warning"},
        "slack-warning",
        "#db-warnings",
    ),
    Way({"alertname": "PgbreakerOther", "severity": "none"}, "nowhere", None),
    Way({"alertname": "PgbreakerOther", "severity": "info"}, "nowhere", None),
    Way({"alertname": "PgbreakerOther"}, "nowhere", None),
]


def test_the_routes_are_those_of_the_table(amtool):
    for way in WAYS:
        labels = [f"{name}={value}" for name, value in way.labels.items()]
        amtool(
            *("config", "routes", "test", f"--config.file={SHIPPED}"),
            *(f"--verify.receivers={way.receiver}", *labels),
        )


async def test_each_is_told_where_the_table_says_and_nobody_else(stage):
    manager, receiver = stage
    for number, way in enumerate(WAYS):
        labels = way.labels | {"job": f"way-{number}"}
        await manager.post({"labels": labels, "annotations": {"summary": "-"}})

    await settled(stage, "end")

    for number, way in enumerate(WAYS):
        came = [m for m in receiver.messages if f"way-{number}" in str(m.payload)]
        where = {m.channel if m.path == "slack" else m.path for m in came}
        assert where == ({way.came} if way.came else set()), way


async def settled(stage: Stage, job: str) -> None:
    """Wait until all that was posted before has been told, or never will be.

    An alert that waits the longest and that nothing mutes is told; then another, so
    that what was to go at the same moment as the first has gone too.
    """
    for round_ in ("first", "second"):
        mark = f"settled-{job}-{round_}"
        await stage.manager.post(alert("Settled", severity="warning", job=mark))
        await stage.receiver.until(lambda: stage.receiver.told(mark), within=10)  # noqa: B023


async def test_the_dead_mans_switch_gets_a_word_a_minute(tmp_path):
    """With a second for a minute."""
    async with staged(tmp_path, faster=60) as (manager, receiver):
        watchdog = of("Watchdog", ends=time.time() + 60)
        await manager.post(watchdog)
        await receiver.until(lambda: len(receiver.to("watchdog")) >= 4, within=10)

    first, *_, last = receiver.to("watchdog")[:4]
    assert 2.5 < last.arrived - first.arrived < 3.5
    assert first.payload["alerts"][0]["labels"]["alertname"] == "PgbreakerWatchdog"


# What is not told, because something else explains it.


class Case(NamedTuple):
    claim: str
    explains: list[dict]  # posted first
    others: list[dict]
    told: set[str]


DB = {"target": "orders"}
READ = DB | {"operation": "read", "breaker": "orders/read"}
OTHER = {"target": "users", "operation": "read", "breaker": "users/read"}
LIB = {"breaker": "main"}  # of an application: no target
LIB2 = {"breaker": "reports"}

CASES = [
    Case(
        "a dead daemon explains all that it said, and its switch goes on",
        [of("Down")],
        [of("BreakerOpen", **READ), of("TargetDown", **DB), of("LocksPiledUp", **DB)],
        {"Down"},
    ),
    Case(
        "a dead daemon says nothing of the breakers of applications",
        [of("Down")],
        [of("BreakerOpen", **LIB, job="-app"), of("PoolExhausted", **LIB, job="-app")],
        {"Down", "BreakerOpen", "PoolExhausted"},
    ),
    Case(
        "who works on a target knows all that is said of it",
        [of("Maintenance", **DB)],
        [
            *(of(name, **DB) for name in ("TargetDown", "LocksPiledUp", "RunwayShort")),
            *(of(name, **READ) for name in ("BreakerOpen", "RecoverySlow")),
            *(of(name, **READ) for name in ("FailureRateHigh", "OverrideLong")),
            of("ProbeStale", **DB, probe="ping"),
        ],
        set(),
    ),
    Case(
        "work on a target says nothing of another, of applications and of the daemon",
        [of("Maintenance", **DB)],
        [of("BreakerOpen", **OTHER), of("PoolExhausted", **LIB), of("StoreDegraded")],
        {"BreakerOpen", "PoolExhausted", "StoreDegraded"},
    ),
    Case(
        "work on a target says nothing of its namesake elsewhere",
        [of("Maintenance", **DB)],
        [of("TargetDown", **DB, job="-staging")],
        {"TargetDown"},
    ),
    Case(
        "a target that is down explains all that works with it",
        [of("TargetDown", **DB)],
        [
            *(of(name, **READ) for name in ("BreakerOpen", "FailureRateHigh")),
            *(of(name, **READ) for name in ("RecoverySlow", "ErrorBudgetBurnFast")),
            of("ErrorBudgetBurnSlow", **READ),
            *(of(name, **DB) for name in ("ConnectionsExhausted", "ConnectionsHigh")),
            of("ConnectionExhaustionPredicted", **DB),
            of("PoolerExhausted", **DB, database="app", user="shop"),
            *(of(name, **DB) for name in ("QuerySlow", "FailurePredicted")),
            of("PoolerExhaustionPredicted", **DB),
            of("ProbeStale", **DB, probe="ping"),
        ],
        {"TargetDown"},
    ),
    Case(
        "a target that is down says nothing of another, nor of what has no target",
        [of("TargetDown", **DB)],
        [of("BreakerOpen", **OTHER), of("RecoverySlow", **LIB)],
        {"TargetDown", "BreakerOpen", "RecoverySlow"},
    ),
    Case(
        "a target that is down says nothing of its namesake elsewhere",
        [of("TargetDown", **DB)],
        [of("BreakerOpen", **READ, job="-staging")],
        {"TargetDown", "BreakerOpen"},
    ),
    Case(
        "a target that is down leaves what is not a matter of calls",
        [of("TargetDown", **DB)],
        [of("RunwayShort", **DB), of("BreakerFlapping", **READ)],
        {"TargetDown", "RunwayShort", "BreakerFlapping"},
    ),
    Case(
        "a monitor that is not let in cannot say that the server is down",
        [of("LockedOut", **DB)],
        [of("TargetDown", **DB)],
        {"LockedOut"},
    ),
    Case(
        "a stale probe explains warnings of the target, and nothing critical",
        [of("ProbeStale", **DB, probe="ping")],
        [
            *(of(name, **DB) for name in ("RunwayShort", "LocksPiledUp", "QuerySlow")),
            of("BreakerOpen", **READ),
        ],
        {"ProbeStale", "BreakerOpen"},
    ),
    Case(
        "a stale probe says nothing of other targets and of applications",
        [of("ProbeStale", **DB, probe="ping")],
        [of("RunwayShort", target="users"), of("PoolSaturated", **LIB)],
        {"ProbeStale", "RunwayShort", "PoolSaturated"},
    ),
    Case(
        "a slow recovery explains that its breaker is open and flaps",
        [of("RecoverySlow", **READ)],
        [of("BreakerOpen", **READ), of("BreakerFlapping", **READ)],
        {"RecoverySlow"},
    ),
    Case(
        "a slow recovery in an application explains its own breaker",
        [of("RecoverySlow", **LIB)],
        [of("BreakerOpen", **LIB), of("BreakerFlapping", **LIB2)],
        {"RecoverySlow", "BreakerFlapping"},
    ),
    Case(
        "an open breaker explains failures, slowness and the budget, of its own",
        [of("BreakerOpen", **READ)],
        [
            of("FailureRateHigh", **READ),
            of("QuerySlow", **READ),
            of("ErrorBudgetBurnFast", **READ),
            of("ErrorBudgetBurnSlow", **READ),
            of("QuerySlow", **DB),
        ],
        {"BreakerOpen"},
    ),
    Case(
        "an open breaker is what was foretold of its target, and not of another",
        [of("BreakerOpen", **READ)],
        [
            of("FailurePredicted", **DB),
            of("ModelStale", target="users"),
        ],
        {"BreakerOpen", "ModelStale"},
    ),
    Case(
        "while a breaker is open its target's model learns nothing",
        [of("RecoverySlow", **READ)],
        [of("ModelStale", **DB), of("FailurePredicted", target="users")],
        {"RecoverySlow", "FailurePredicted"},
    ),
    Case(
        "an open breaker is not what runs out",
        [of("BreakerOpen", **READ)],
        [of("ConnectionExhaustionPredicted", **DB)],
        {"BreakerOpen", "ConnectionExhaustionPredicted"},
    ),
    Case(
        "an open breaker says nothing of the calls of another of its target",
        [of("BreakerOpen", **READ)],
        [of("FailureRateHigh", target="orders", breaker="orders/write")],
        {"BreakerOpen", "FailureRateHigh"},
    ),
    Case(
        "an open breaker says nothing of queries on another target",
        [of("BreakerOpen", **READ)],
        [of("QuerySlow", target="users")],
        {"BreakerOpen", "QuerySlow"},
    ),
    Case(
        "an open breaker says nothing of queries on its target's namesake elsewhere",
        [of("BreakerOpen", **READ)],
        [of("QuerySlow", **DB, job="-staging")],
        {"BreakerOpen", "QuerySlow"},
    ),
    Case(
        "an open breaker of an application explains its calls, not another's",
        [of("BreakerOpen", **LIB)],
        [
            of("ErrorBudgetBurnFast", **LIB),
            of("FailureRateHigh", **LIB2),
            of("QuerySlow", **LIB2),
        ],
        {"BreakerOpen", "FailureRateHigh", "QuerySlow"},
    ),
    Case(
        "an open breaker of an application says nothing of what has neither label",
        [of("BreakerOpen", **LIB)],
        [of("QuerySlow")],
        {"BreakerOpen", "QuerySlow"},
    ),
    Case(
        "an exhausted pool explains that it was filling, not that another is",
        [of("PoolExhausted", **LIB)],
        [of("PoolSaturated", **LIB), of("PoolExhaustionPredicted", **LIB2)],
        {"PoolExhausted", "PoolExhaustionPredicted"},
    ),
    Case(
        "exhausted slots explain that they were filling, not those of another server",
        [of("ConnectionsExhausted", **DB)],
        [
            of("ConnectionsHigh", **DB),
            of("ConnectionExhaustionPredicted", target="users"),
        ],
        {"ConnectionsExhausted", "ConnectionExhaustionPredicted"},
    ),
    Case(
        "an exhausted pooler was coming, another stale replica was not",
        [
            of("PoolerExhausted", **DB, database="app", user="shop"),
            of("ReplicaStale", target="users"),
        ],
        [
            of("PoolerExhaustionPredicted", **DB),
            of("ReplicaLagPredicted", **DB),
        ],
        {"PoolerExhausted", "ReplicaStale", "ReplicaLagPredicted"},
    ),
    Case(
        "a stale replica was coming, the pooler before another target was not",
        [
            of("PoolerExhausted", target="users", database="app", user="shop"),
            of("ReplicaStale", **DB),
        ],
        [
            of("PoolerExhaustionPredicted", **DB),
            of("ReplicaLagPredicted", **DB),
        ],
        {"PoolerExhausted", "ReplicaStale", "PoolerExhaustionPredicted"},
    ),
    Case(
        "exhausted slots say nothing of its namesake elsewhere",
        [of("ConnectionsExhausted", **DB)],
        [of("ConnectionsHigh", **DB, job="-staging")],
        {"ConnectionsExhausted", "ConnectionsHigh"},
    ),
    Case(
        "a fast burn explains the slow one of the same breaker",
        [of("ErrorBudgetBurnFast", **LIB), of("ErrorBudgetBurnFast", **READ)],
        [of("ErrorBudgetBurnSlow", **LIB), of("ErrorBudgetBurnSlow", **READ)],
        {"ErrorBudgetBurnFast"},
    ),
    Case(
        "a fast burn says nothing of another breaker",
        [of("ErrorBudgetBurnFast", **LIB)],
        [of("ErrorBudgetBurnSlow", **LIB2)],
        {"ErrorBudgetBurnFast", "ErrorBudgetBurnSlow"},
    ),
    Case(
        "a fast burn says nothing of the same breaker of another application",
        [of("ErrorBudgetBurnFast", **LIB)],
        [of("ErrorBudgetBurnSlow", **LIB, job="-other")],
        {"ErrorBudgetBurnFast", "ErrorBudgetBurnSlow"},
    ),
]


async def test_what_something_explains_is_not_told_and_all_else_is(stage):
    manager, receiver = stage

    for step in ("explains", "others"):
        posted = [
            entry
            for number, case in enumerate(CASES)
            for entry in in_jobs(getattr(case, step), f"case{number}.")
        ]
        await manager.post(*posted)
        await holds(manager, posted)
    await settled(stage, "end")

    wrong = {
        case.claim: sorted(told ^ case.told)
        for number, case in enumerate(CASES)
        if (told := set(map(named, receiver.told(f"· case{number}.")))) != case.told
    }
    assert wrong == {}


def in_jobs(alerts: list[dict], job: str) -> list[dict]:
    """*alerts* under a job of their own; what they have as job is appended to it."""
    return [
        entry
        | {"labels": entry["labels"] | {"job": job + entry["labels"].get("job", "")}}
        for entry in alerts
    ]


async def holds(manager: Alertmanager, posted: list[dict]) -> None:
    """Wait until *manager* has all of *posted*, and has seen what mutes what."""
    wanted = {tuple(sorted(entry["labels"].items())) for entry in posted}
    async with asyncio.timeout(10):
        while True:
            held = {tuple(sorted(a["labels"].items())) for a in await manager.alerts()}
            if wanted <= held:
                return
            await asyncio.sleep(0.02)


# How many messages.


async def test_fifty_targets_that_go_down_are_two_messages(tmp_path):
    """
    Their 150 breakers open within a second and are pushed as they open; that the
    targets are down follows 15 s later by the rules. With a twentieth of the times.
    """
    names = [f"db{number:02}" for number in range(50)]
    breakers = [
        opened(name, operation=kind, breaker=f"{name}/{kind}", ends=time.time() + 60)
        for kind in ("connect", "read", "write")
        for name in names
    ]
    down = [of("TargetDown", job="pgbreaker", target=name) for name in names]
    async with staged(tmp_path) as (manager, receiver):
        began = time.monotonic()
        for at in range(0, 150, 15):
            await manager.post(*breakers[at : at + 15])
            await asyncio.sleep(0.03)  # the last ones come when the first are told
        await asyncio.sleep(began + 15 / 20 - time.monotonic())
        await manager.post(*down)
        await receiver.until(lambda: receiver.told("TargetDown"), within=5)
        # Each group has another look, three seconds after its first.
        await asyncio.sleep(began + (15 + 1.5 * 60) / 20 - time.monotonic())
        await settled(Stage(manager, receiver), "end")

    told = [m.title for m in receiver.told("pgbreaker") if named(m) != "Settled"]
    assert len(told) == 2, told
    assert told[0].startswith(":red_circle: CRITICAL BreakerOpen on ")
    assert told[1] == ":red_circle: CRITICAL TargetDown on 50 targets"


FLAP = 0.2  # seconds that one takes: 12 s where FASTER does not divide
FASTER = 60


async def as_prometheus(manager: Alertmanager, job: str) -> None:
    """Ten flaps, as a rule with keep_firing_for tells them: on, two minutes more, off."""
    starts = time.time()
    over = starts + 10 * FLAP + 120 / FASTER
    while (now := time.time()) < over:
        ends = now + 4 * 60 / FASTER
        await manager.post(opened("orders", job=job, starts=starts, ends=ends))
        await asyncio.sleep(5 / FASTER)
    for _ in range(3):  # what is over is sent for a quarter of an hour
        await manager.post(opened("orders", job=job, starts=starts, ends=over))
        await asyncio.sleep(5 / FASTER)


async def as_the_daemon(manager: Alertmanager, job: str) -> None:
    """Ten flaps, as the daemon pushes them: two minutes more from each, never off."""
    starts = time.time()
    for _ in range(10):
        ends = time.time() + 120 / FASTER
        await manager.post(opened("orders", job=job, starts=starts, ends=ends))
        await asyncio.sleep(FLAP)


async def test_ten_flaps_are_two_messages_whoever_tells_them(tmp_path):
    async with staged(tmp_path, faster=FASTER) as (manager, receiver):
        await asyncio.gather(
            as_prometheus(manager, "rule"),
            as_the_daemon(manager, "push"),
            as_prometheus(manager, "both"),
            as_the_daemon(manager, "both"),
        )
        jobs = ("rule", "push", "both")
        await receiver.until(
            lambda: all(receiver.told("RESOLVED", f"· {job} ·") for job in jobs),
            within=10,
        )
        await asyncio.sleep(1.5 * 60 / FASTER)  # another look at each group

    for job in jobs:
        told = [looks_resolved(message) for message in receiver.told(f"· {job} ·")]
        assert told == [False, True], job


async def test_a_breaker_that_opens_again_after_an_outage_is_told_again(tmp_path):
    """
    What ends while it is muted is neither told as resolved nor told anew for as long as
    it would not be repeated; so what mutes must end first, or at once with it.
    """
    outage = [opened("orders"), of("TargetDown", job="pgbreaker", target="orders")]
    async with staged(tmp_path, faster=60) as (manager, receiver):
        for entry in outage:
            await manager.post(entry)
            await receiver.until(lambda: receiver.messages, within=5)
        await receiver.until(lambda: receiver.told("TargetDown"), within=5)
        over = datetime.now(UTC).isoformat()
        await manager.post(*(entry | {"endsAt": over} for entry in outage))
        await receiver.until(lambda: receiver.told("RESOLVED", "BreakerOpen"), within=5)

        await manager.post(opened("orders"))
        await receiver.until(
            lambda: len(receiver.told("CRITICAL", "read")) == 2, within=5
        )


# How soon, and when Slack does not take it.


async def test_a_breaker_that_opened_is_told_within_half_a_second(tmp_path):
    """With the waits as shipped."""
    late = []
    async with staged(tmp_path, faster=1) as (manager, receiver):
        for number in range(12):
            job = f"job{number}"
            began = time.time()
            await manager.post(opened("orders", job=job, starts=began))
            await receiver.until(lambda: receiver.told(f"· {job} ·"), within=5)  # noqa: B023
            late.append(receiver.messages[-1].arrived - began)

    assert max(late) <= 0.5, sorted(late)


async def test_errors_of_slack_cost_seconds(stage):
    manager, receiver = stage
    receiver.refuse(500, times=2)

    await manager.post(opened("orders"))
    await receiver.until(lambda: receiver.told("orders"), within=5)

    assert [status for status, _ in receiver.refused] == [500, 500]
    assert len(receiver.messages) == 1


async def test_a_refusal_because_of_the_rate_costs_a_group_interval(stage):
    """Alertmanager does not try again by itself; with waits twenty times shorter."""
    manager, receiver = stage
    receiver.refuse(429, times=1)

    await manager.post(opened("orders"))
    await receiver.until(lambda: receiver.told("orders"), within=10)

    ((status, refused),) = receiver.refused
    assert status == 429
    assert receiver.messages[0].arrived - refused == pytest.approx(60 / 20, abs=1)


# The files.


def test_the_tool_takes_the_file_and_finds_every_alerts_receiver(amtool):
    assert "SUCCESS" in amtool("check-config", SHIPPED)

    ways = {
        "PgbreakerWatchdog": "watchdog",
        "PgbreakerNotificationsFailing": "email",
    }
    by_severity = {
        "critical": "slack-critical",
        "warning": "slack-warning",
        "none": "nowhere",
    }
    for name, severity in SEVERITIES.items():
        receiver = ways.get(name) or by_severity[severity]
        amtool(
            *("config", "routes", "test", f"--config.file={SHIPPED}"),
            *(f"--verify.receivers={receiver}", f"alertname={name}"),
            f"severity={severity}",
        )


def test_the_newest_tool_takes_the_file(tmp_path):
    program = fetched().with_name("amtool")

    done = subprocess.run(
        [program, "check-config", SHIPPED], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_however_fast_a_group_waits_for_what_is_posted_at_once(tmp_path):
    """Or tests of one message would hang on luck."""
    written = shipped_config(tmp_path, Slack(), faster=1000).read_text("utf-8")

    waits = re.findall(r"group_wait: (\d+)ms", written)
    assert set(map(int, waits)) == {0, 100}  # the dead man's switch waits for nothing


@pytest.mark.parametrize("block", ["watchdog", "email"])
def test_without_a_block_the_file_is_good(amtool, tmp_path, block):
    text, dropped = re.subn(
        rf"(?ms)^ *# begin: {block}\n.*?^ *# end: {block}\n",
        "",
        SHIPPED.read_text("utf-8"),
    )
    (tmp_path / "alertmanager.yml").write_text(text, "utf-8")
    (tmp_path / TEMPLATE.name).write_bytes(TEMPLATE.read_bytes())

    amtool("check-config", tmp_path / "alertmanager.yml")

    assert dropped
    assert {"name": block} in yaml.safe_load(text)["receivers"]


def test_a_receivers_placeholders_are_those_that_the_export_knows():
    text = SHIPPED.read_text("utf-8") + TEMPLATE.read_text("utf-8")

    assert set(re.findall(r"[\w.@:/-]*\bexample\.org[\w/:]*", text)) <= {
        "example.org",  # in the head of the file
        "https://deadman.example.org/pgbreaker",
        "smtp.example.org:587",
        "oncall@example.org",
    }


def test_a_mail_says_what_slack_says(amtool, tmp_path):
    data = tmp_path / "data.json"
    entry = opened("orders", starts=LONG_AGO.timestamp())
    data.write_text(
        json.dumps(
            {
                "status": "firing",
                "externalURL": "https://alertmanager.test",
                "commonLabels": entry["labels"],
                "alerts": [entry | {"status": "firing"}],
            }
        ),
        "utf-8",
    )

    def rendered(part: str) -> str:
        text = f'{{{{ template "pgbreaker.email.{part}" . }}}}'
        return amtool(
            *("template", "render", f"--template.glob={TEMPLATE}"),
            *(f"--template.data={data}", f"--template.text={text}"),
        )

    assert rendered("subject").strip() == "CRITICAL PgbreakerBreakerOpen (1)"
    assert rendered("text").splitlines()[:6] == [
        "FIRING Breaker orders/read opened",
        "7 of 10 calls of orders failed in 10 s, last with 57P03.",
        "since 2026-01-02 03:04:05 UTC",
        f"Runbook: {RUNBOOK}",
        f"Dashboard: {GRAFANA}orders",
        "Query: http://prometheus.test/graph?g0.expr=x",
    ]
