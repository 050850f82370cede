"""From a server that stops to the message that wakes somebody, and to the panels that
they look at: all of it real, and nothing about it made up."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import pytest_asyncio
import yaml

from support.slack import Message, lint
from support.stage import Stage, stage

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "alerts/pgbreaker.rules.yml").read_text("utf-8"))
BOARDS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in sorted((ROOT / "dashboards").glob("*.json"))
}
# What somebody chooses where all is no choice.
CHOICES = ({"job": "pgbreaker", "target": "main"}, {"target": "replica"})
# What Grafana puts in the place of its own variables, for scrapes a second apart.
OURS = {"__rate_interval": "10s", "__interval": "2s", "__range": "2m"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Outage:
    """A stage on which the server was killed, and came back.

    Attributes:
        stage: What there is to be asked; everything still runs.
        killed: Unix time of the kill.
    """

    stage: Stage
    killed: float


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outage():
    async with stage() as everything:
        prometheus, slack = everything.prometheus, everything.slack
        for seen in (
            'pgbreaker_target_state{state="up"} == 1',
            'rate(pgbreaker_probes_total{target="main", probe="size"}[10s]) > 0',
            'rate(pgbreaker_calls_total{breaker="catalogue"}[10s]) > 0',
            "pgbreaker_statement_mean_seconds_ratio",
            'pgbreaker_runway_seconds{of="xid"}',
        ):
            await prometheus.until(seen, 30)
        everything.server.kill()
        killed = time.time()
        await slack.until(lambda: slack.told("TargetDown"), 60)
        everything.server.start()
        closed = 'sum(pgbreaker_breaker_state{state="closed"} == 0) or vector(0)'
        await prometheus.until(f"({closed}) == 0", 30)
        # For long enough to be in the course of things, whatever the step of it.
        noticed = 'pgbreaker_notices_total{code="restarted"}[10s] offset 3s'
        await prometheus.until(f"increase({noticed}) > 0", 30)
        yield Outage(everything, killed)


async def test_slack_is_told_what_since_when_and_where_to_look(outage):
    slack = outage.stage.slack
    (first, *_) = slack.told("BreakerOpen", "· pgbreaker ·")

    since = re.findall(r"_since (\d+ \w+ [\d:]+) UTC_", first.text)
    # Refused, or reset, as the kernel has it at the moment of a kill.
    (why,) = re.findall(r"Why it opened: (.*connection.*)\.\n", first.text)

    assert first.arrived - outage.killed < 2.0
    assert since
    assert first.payload == {
        "channel": "#db-critical",
        "username": "pgbreaker",
        "attachments": [
            {
                "title": ":red_circle: CRITICAL BreakerOpen on main (3 alerts)",
                "title_link": "https://grafana.test/d/pgbreaker-target?var-target=main",
                "text": "The first: Callers of main/connect are told at once instead of"
                f" waiting, until trials succeed. Why it opened: {why}.\n"
                "*Firing (3)*\n"
                + "\n".join(
                    "• <https://grafana.test/d/pgbreaker-breakers?var-breaker="
                    f"main/{operation}|Breaker main/{operation} opened>"
                    f"  _since {moment} UTC_"
                    for operation, moment in zip(
                        ("connect", "read", "write"), since, strict=True
                    )
                ),
                "fallback": "CRITICAL BreakerOpen on main (3 alerts)",
                "callback_id": "",
                "actions": [
                    {
                        "type": "button",
                        "text": "Runbook",
                        "url": "https://runbooks.test/PgbreakerBreakerOpen.md",
                    },
                    {
                        "type": "button",
                        "text": "Dashboard",
                        "url": "https://grafana.test/d/pgbreaker-target?var-target=main",
                    },
                    {"type": "button", "text": "Query"},
                    {
                        "type": "button",
                        "text": "Silence",
                        "url": "https://alertmanager.test/#/silences/new?filter="
                        "%7Balertname%3D%22PgbreakerBreakerOpen%22%2C%20"
                        "job%3D%22pgbreaker%22%2C%20severity%3D%22critical%22%2C%20"
                        "target%3D%22main%22%7D",
                    },
                ],
                "footer": "PgbreakerBreakerOpen · pgbreaker"
                " · group PgbreakerBreakerOpen, pgbreaker",
                "color": "danger",
                "mrkdwn_in": ["fallback", "pretext", "text"],
            }
        ],
    }


async def test_a_server_that_is_down_is_two_messages_and_no_more(outage):
    """The breakers at once, and then the server, which explains all the rest."""
    told = outage.stage.slack.told("· pgbreaker ·")

    assert [name_of(message) for message in told] == [
        "PgbreakerBreakerOpen",
        "PgbreakerTargetDown",
    ]


def name_of(message: Message) -> str:
    return message.footer.partition(" ")[0]


async def test_no_message_has_anything_wrong_with_it(outage):
    told = outage.stage.slack.to("slack")

    assert {message.title: lint(message) for message in told if lint(message)} == {}
    assert told


async def test_what_is_pushed_and_what_the_rule_says_are_one_alert(outage):
    alerts = await outage.stage.alertmanager.alerts()

    open_ones = [
        alert["labels"]["breaker"]
        for alert in alerts
        if alert["labels"]["alertname"] == "PgbreakerBreakerOpen"
        and alert["labels"]["job"] == "pgbreaker"
    ]
    told = await outage.stage.prometheus.course(
        'ALERTS{alertname="PgbreakerBreakerOpen", job="pgbreaker"}', outage.killed
    )

    assert told
    assert len(open_ones) == len(set(open_ones)) == len(told)


async def test_every_rule_is_evaluated_without_a_complaint(outage):
    groups = (await outage.stage.prometheus.ask("rules"))["groups"]

    wrong = {
        rule["name"]: rule.get("lastError")
        for group in groups
        for rule in group["rules"]
        if rule["health"] != "ok"
    }

    assert wrong == {}
    assert sum(len(group["rules"]) for group in groups) == sum(
        len(group["rules"]) for group in RULES["groups"]
    )


async def test_every_series_that_a_rule_looks_at_is_there(outage):
    """An alert that asks for what nobody exports is quiet for ever."""
    since = outage.killed - 20

    empty = {
        f"{rule.get('alert') or rule['record']}: {selector}"
        for group in RULES["groups"]
        for rule in group["rules"]
        for selector in selectors(promql_parser.parse(rule["expr"]))
        if not await outage.stage.prometheus.course(selector, since)
    }

    assert empty - FROM_A_MINUTE_ON == NOT_ON_STAGE


# Rules of what this outage is not, with what would have to happen.
NOT_ON_STAGE = {
    # Somebody plans maintenance; it would mute what the others here are about.
    "PgbreakerMaintenance: pgbreaker_maintenance{}",
    # There is one daemon, and nothing that it shares; see test_fleet.py.
    "PgbreakerEngineLost: pgbreaker_engine_up{}",
    # The shop goes by itself, and reports to nobody; see test_follow.py.
    "PgbreakerApplicationsDisagree: pgbreaker_application_processes{}",
    'PgbreakerApplicationsDisagree: pgbreaker_application_processes_open{by="calls"}',
    # It is killed at once, which nobody foresees, and a model learns from days.
    *(
        f"Pgbreaker{alert}: pgbreaker_forecast_warning{{{of}}}"
        for alert, of in (
            ("ConnectionExhaustionPredicted", 'of="connections"'),
            ("PoolerExhaustionPredicted", 'of="pool"'),
            ("ReplicaLagPredicted", 'of="lag"'),
            ("RunwayShort", 'of=~"xid|multixact|sequence|slot|archiver|disk"'),
            ("FailurePredicted", 'of="failure"'),
        )
    ),
    "PgbreakerModelStale: pgbreaker_forecast_model_learned_timestamp_seconds{}",
}

# There or not, by how long the stage has played.
FROM_A_MINUTE_ON = {
    "PgbreakerModelStale: pgbreaker_forecast_model_begun_timestamp_seconds{}"
}

EMPTY_ON_STAGE = {
    "pgbreaker-daemon": ("Engine",),
    "pgbreaker-breakers": ("Processes that have it open, of those that report",),
    "pgbreaker-pools": ("Server full in", "Time until a server is full"),
    "pgbreaker-target": (
        *("Time until it is full", "Probability of a failure"),
        *("Came true", "Foreseen", "Last learnt"),  # the latter from a minute on
    ),
}
"""Panels of what is not on the stage."""


def selectors(node: Any) -> Iterator[str]:
    """Each vector selector in an expression, without what moves it in time."""
    if isinstance(node, promql_parser.VectorSelector):
        matchers = [
            f"{m.name}{OPERATORS[str(m.op)]}{json.dumps(m.value)}"
            for m in node.matchers.matchers
        ]
        yield f"{node.name or ''}{{{', '.join(matchers)}}}"
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None:
            yield from selectors(child)
    for child in getattr(node, "args", None) or []:
        yield from selectors(child)


OPERATORS = {
    "MatchOp.Equal": "=",
    "MatchOp.NotEqual": "!=",
    "MatchOp.Re": "=~",
    "MatchOp.NotRe": "!~",
}


@pytest.mark.parametrize("name", BOARDS)
async def test_every_panel_shows_something(outage, name):
    since, prometheus = outage.killed - 20, outage.stage.prometheus

    empty = [
        f"{panel['title']}: {target['expr']}"
        for panel in panels(BOARDS[name]["panels"])
        if panel["title"] not in EMPTY_ON_STAGE.get(BOARDS[name]["uid"], ())
        for target in panel.get("targets", [])
        if not [
            query
            for query in asked(target["expr"], BOARDS[name])
            if await prometheus.course(query, since, step=2.0)
        ]
    ]

    assert not empty, "\n".join(empty)


def asked(query: str, board: dict[str, Any]) -> Iterator[str]:
    """What Grafana asks, for each of the `CHOICES`."""
    listed = board["templating"]["list"]
    every = {v["name"]: v["allValue"] for v in listed if v.get("allValue")}
    for choice in CHOICES:
        yield filled(query, {**CHOICES[0], **choice, **every, **OURS})


def filled(query: str, values: dict[str, str]) -> str:
    """Put *values* in the place of variables; ``$1`` is label_replace's."""
    return re.sub(
        r"\$\{(\w+)(?::\w+)?\}|\$([a-z_]\w*)",
        lambda found: values[found[1] or found[2]],
        query,
    )


def panels(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in listed:
        if panel["type"] == "row":
            yield from panels(panel.get("panels", []))
        else:
            yield panel
