"""`pgbreaker probe` and `pgbreaker doctor`, where no server has to be there."""

import asyncio
import json

import pytest

from pgbreaker.web.views import Stored
from support.site import serving
from unit.cli.conftest import answering

NOWHERE = "postgresql://me:hunter2@127.0.0.1:1/app"
CONFIG = f"version: 1\ntargets:\n- name: main\n  dsn: {NOWHERE}\n"
AWAY = ("--url", "http://127.0.0.1:1")


def test_a_configuration_of_the_environment_counts_and_is_named(command):
    done = command("doctor", "--dsn", NOWHERE, PGBREAKER_CONFIG="/etc/there.yaml")

    assert done.exit_code == 2
    assert "besides the DSN, /etc/there.yaml is given (PGBREAKER_CONFIG" in done.stderr


def test_a_probe_of_a_server_that_is_not_there_is_a_failure_with_its_steps(command):
    done = command("probe", NOWHERE, "--debug")

    steps = [line.split()[0] for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert steps[:3] == ["resolve", "addresses", "knock"]
    assert done.stdout.splitlines()[-1] == (
        "127.0.0.1: knock ended refused: connection refused"
    )
    assert "hunter2" not in done.output


def test_a_name_needs_a_configuration_that_has_it(command, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(CONFIG, "utf-8")

    alone = command("probe", "main")
    unknown = command("probe", "mian", "--config", str(path))

    assert (alone.exit_code, unknown.exit_code) == (2, 2)
    assert "say --config FILE" in alone.stderr
    assert "there are main" in unknown.stderr


def test_what_is_wrong_comes_first_and_is_a_failure(command, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(CONFIG, "utf-8")
    path.chmod(0o644)

    done = command("doctor", "--config", str(path), *AWAY)

    lines = done.stdout.splitlines()
    signs = [line[0] for line in lines if line[0] != " "]
    assert done.exit_code == 1
    assert signs == ["x", "x", "!", "1"]
    assert f"chmod 600 {path}" in done.stdout
    assert "we are not let in (refused): connection refused" in done.stdout
    assert lines[-1] == "1 target: 2 things wrong, 1 could be better"
    assert "hunter2" not in done.output


def test_what_doctor_says_is_there_for_programs(command):
    done = command("doctor", "--dsn", NOWHERE, "-o", "json", *AWAY)

    found = {one["code"]: one for one in json.loads(done.stdout)}
    assert found["login_failed"]["level"] == "wrong"
    assert found["login_failed"]["helps"] == ["pgbreaker probe 127.0.0.1 --debug"]
    assert found["daemon"]["level"] == "weak"


async def test_a_daemon_that_watches_something_else_is_told(command, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(CONFIG, "utf-8")

    async with serving("main", "other") as served:
        url = f"http://127.0.0.1:{served.port}"
        words = ("doctor", "--config", str(path), "--url", url, "-o", "json")
        done = await asyncio.to_thread(command, *words)
        served.health = "the sentinel of main has ended"
        served.inside.views.stored = lambda: Stored(None, 1, "line 2 was changed")
        ill = await asyncio.to_thread(command, *words)

    found = {one["code"]: one for one in json.loads(done.stdout)}
    assert found["configuration"]["text"].endswith("other")
    assert "unhealthy" not in found
    assert found["version"]["text"].startswith("the daemon is 1.2.3, and this command ")
    assert "the sentinel of main has ended" in ill.stdout
    assert "the audit log is not as it was written: line 2 was changed" in ill.stdout


def scraped(interval: str = "5s", health: str = "up", job: str = "pgbreaker") -> dict:
    return {
        "labels": {"job": job},
        "scrapeUrl": "http://here:9432/metrics",
        "scrapeInterval": interval,
        "health": health,
        "lastError": "connection refused" if health == "down" else "",
    }


@pytest.mark.parametrize(
    ("targets", "code", "says"),
    [
        ([scraped()], None, ""),
        ([scraped("15s")], None, ""),
        ([scraped("1m")], "scrape_interval", "every 1 min 0 s"),
        ([scraped(health="down")], "not_scraped", "connection refused"),
        ([scraped(job="other")], "not_scraped", "no target of the job 'pgbreaker'"),
        ([], "not_scraped", "no target of the job 'pgbreaker'"),
        (None, "prometheus", "is no Prometheus"),
    ],
)
def test_whether_somebody_scrapes_us_often_enough_is_asked(
    targets, code, says, command
):
    with answering(200, {"data": {"activeTargets": targets}}) as there:
        words = ("--prometheus", there.url, "-o", "json")
        done = command("doctor", "--dsn", NOWHERE, *AWAY, *words)

    assert there.line == "GET /api/v1/targets?state=active"
    codes = {one["code"]: one["text"] for one in json.loads(done.stdout)}
    ours = {"not_scraped", "scrape_interval", "prometheus"} & codes.keys()
    assert ours == ({code} if code else set())
    assert says in codes.get(code, "")
