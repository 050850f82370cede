"""The rules, held against Prometheus' own tool and the daemon's own metrics."""

import subprocess
from pathlib import Path

import pytest

from pgbreaker.sinks.metrics import Metrics
from support.boards import Scene
from support.tools import need

ROOT = Path(__file__).parents[2]


@pytest.fixture
def promtool():
    found = need("promtool", "prometheus")

    def run(*arguments: str, **more) -> str:
        done = subprocess.run(
            [found, *arguments], capture_output=True, text=True, check=False, **more
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_rules_are_well_formed(promtool):
    rules = sorted(str(path) for path in (ROOT / "alerts").glob("*.rules.yml"))

    assert rules
    promtool("check", "rules", "--lint=all", "--lint-fatal", *rules)


def test_the_rules_fire_when_they_should_and_stay_quiet_when_they_should(promtool):
    tests = Path(__file__).parent / "pgbreaker.rules.test.yml"

    assert "SUCCESS" in promtool("test", "rules", str(tests))


async def test_our_metrics_are_what_prometheus_recommends(promtool):
    scene = Scene(("a", "b"), labels={"env": "prod"})
    metrics = Metrics(scene.board, "1.2.3")

    promtool("check", "metrics", input=await metrics.render())


def test_prometheus_takes_the_configuration(promtool, tmp_path):
    text = (ROOT / "config/prometheus/prometheus.yml").read_text("utf-8")
    (tmp_path / "alerts").symlink_to(ROOT / "alerts")
    (tmp_path / "prometheus.yml").write_text(text, "utf-8")

    promtool("check", "config", str(tmp_path / "prometheus.yml"))
