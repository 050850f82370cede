"""The rules, held against Prometheus' own tool and the daemon's own metrics.

Their behaviour is the table in rules/table.py.
"""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from integration.rules.promtool import write, write_recorded
from integration.rules.table import RATIOS, ROWS
from pgbreaker.sinks.metrics import Metrics
from support.boards import Scene
from support.tools import missing, need

ROOT = Path(__file__).parents[2]
RULES = ROOT / "alerts" / "pgbreaker.rules.yml"
RUNBOOKS = ROOT / "alerts" / "runbooks"
NEWER = ROOT / ".venv" / "servers" / "prometheus-3" / "usr" / "bin" / "promtool"

HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Silence when"]

GROUPS = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
ALL = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in ALL if "alert" in rule}
TOLD = {n: rule for n, rule in ALERTS.items() if rule["labels"]["severity"] != "none"}

every_alert = pytest.mark.parametrize("name", ALERTS)


# The system's, which on Debian 12 is a 2.42, and a 3.x.
@pytest.fixture(params=["system's", "newer"])
def promtool(request):
    if request.param == "system's":
        found = need("promtool", "prometheus")
    elif NEWER.exists():
        found = str(NEWER)
    else:
        missing("Prometheus 3 is missing: tests/fetch-prometheus")

    def run(*arguments: str, **more) -> str:
        done = subprocess.run(
            [found, *arguments], capture_output=True, text=True, check=False, **more
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


# -- By promtool -----------------------------------------------------------------------


def test_the_rules_are_well_formed(promtool):
    rules = sorted(str(path) for path in (ROOT / "alerts").glob("*.rules.yml"))

    assert rules
    promtool("check", "rules", "--lint=all", "--lint-fatal", *rules)


def test_the_rules_fire_when_they_should_and_stay_quiet_when_they_should(
    promtool, tmp_path
):
    tests = write(ROWS, RULES, tmp_path)

    said = promtool("test", "rules", *map(str, tests))

    assert said.count("SUCCESS") == len(tests)


def test_what_is_recorded_is_what_it_is_called(promtool, tmp_path):
    tests = write_recorded(RULES, tmp_path)

    said = promtool("test", "rules", *map(str, tests))

    assert said.count("SUCCESS") == len(tests)


async def test_our_metrics_are_what_prometheus_recommends(promtool):
    scene = Scene(("a", "b"), labels={"env": "prod"})
    metrics = Metrics(scene.board, "1.2.3")

    promtool("check", "metrics", input=await metrics.render())


def test_prometheus_takes_the_configuration(promtool, tmp_path):
    text = (ROOT / "config/prometheus/prometheus.yml").read_text("utf-8")
    (tmp_path / "alerts").symlink_to(ROOT / "alerts")
    (tmp_path / "prometheus.yml").write_text(text, "utf-8")

    promtool("check", "config", str(tmp_path / "prometheus.yml"))


# -- The table is whole ----------------------------------------------------------------


def test_every_alert_has_its_rows_and_no_row_is_of_another():
    named = {row.name for row in ROWS}

    assert named == set(ALERTS)
    assert {f"Pgbreaker{alert}" for alert in RATIOS} <= named


# Down is of no series of its own, so that nobody stands beside whom it is told of.
@pytest.mark.parametrize(
    "name", sorted(set(ALERTS) - {"PgbreakerWatchdog", "PgbreakerDown"})
)
def test_every_alert_is_tried_just_below_and_just_above_and_beside_one_that_is_well(
    name,
):
    cast = [
        row
        for row in ROWS
        if row.name == name
        and {"bad", "over"} <= set(row.says)
        and {"good", "under"} <= set(row.actors) - set(row.says)
    ]

    assert cast


@every_alert
def test_every_test_waits_and_keeps_as_long_as_its_rule_says(name):
    rule = ALERTS[name]

    for row in ROWS:
        if row.name == name:
            assert row.waits == rule.get("for", "0s")
            assert row.keeps == rule.get("keep_firing_for")


@pytest.mark.parametrize("alert", RATIOS)
def test_a_share_is_tried_without_traffic_and_with_one_failed_call(alert):
    quiet = {
        actor
        for row in ROWS
        if row.alert == alert
        for actor in set(row.actors) - set(row.says)
    }

    assert {"idle", "once"} <= quiet


# -- What is told ----------------------------------------------------------------------


@every_alert
def test_what_is_told_leads_to_its_runbook_and_to_a_dashboard(name):
    told = ALERTS[name]["annotations"]

    assert set(told) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert told["runbook_url"] == f"https://runbooks.example.org/{name}.md"
    assert told["dashboard_url"].startswith("https://grafana.example.org/d/")
    assert len(told["summary"]) <= 120


@every_alert
def test_every_label_that_is_told_is_one_that_the_alert_has(name):
    has = {label for row in ROWS if row.name == name for label in row.labels}
    told = " ".join(ALERTS[name]["annotations"].values())

    assert set(re.findall(r"\$labels\.(\w+)", told)) <= has


@every_alert
def test_no_number_is_told_raw(name):
    told = " ".join(ALERTS[name]["annotations"].values())

    assert not re.search(r"{{\s*\$value\s*}}|\| value\s*}}", told)


@pytest.mark.parametrize("name", TOLD)
def test_every_alert_has_a_severity_and_does_not_end_at_once(name):
    rule = ALERTS[name]

    assert rule["labels"]["severity"] in ("critical", "warning")
    assert "for" in rule
    assert "keep_firing_for" in rule


def test_no_name_is_told_twice_and_what_is_recorded_comes_first():
    kinds = [{"alert" in rule for rule in group["rules"]} for group in GROUPS]

    assert len([rule for rule in ALL if "alert" in rule]) == len(ALERTS)
    assert all(len(kind) == 1 for kind in kinds)
    assert kinds == sorted(kinds, key=lambda kind: kind == {True})


def test_every_range_is_long_enough_for_four_scrapes():
    """Of 5 s each; Prometheus 3 leaves out the left end of a range."""
    texts = [rule["expr"] for rule in ALL]
    texts += [text for rule in ALERTS.values() for text in rule["annotations"].values()]
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    ranges = {found for text in texts for found in re.findall(r"\[(\d+)(\w)\]", text)}

    assert ranges
    assert all(int(number) * units[unit] >= 20 for number, unit in ranges)


def test_the_error_budget_is_said_once():
    assert [r["expr"] for r in ALL if r.get("record") == "pgbreaker:error_budget:ratio"]
    assert RULES.read_text("utf-8").count("0.001") == 1


# -- Runbooks --------------------------------------------------------------------------


def _sections(path: Path) -> dict[str, str]:
    """Heading -> what is below it."""
    parts = re.split(r"^## (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(ALERTS)


@every_alert
def test_a_runbook_has_its_five_sections_and_says_what_to_type(name):
    sections = _sections(RUNBOOKS / f"{name}.md")

    assert list(sections) == HEADINGS
    assert all(text.strip() for text in sections.values())
    assert re.search(
        r"^```(sh|sql|promql)\n.+?^```$", sections["Diagnosis"], re.M | re.S
    )


@every_alert
def test_the_readme_leads_to_every_runbook(name):
    readme = (ROOT / "alerts" / "README.md").read_text("utf-8")
    severity = ALERTS[name]["labels"]["severity"]

    assert re.search(
        rf"^\| \[{name}\]\(runbooks/{name}\.md\) \| {severity} \| .+ \|$", readme, re.M
    )
