"""`pgbreaker simulate`, from a file to a table."""

import json

import pytest

from pgbreaker.core.plan import RecordPlan
from pgbreaker.core.reading import Finding, Reading
from pgbreaker.core.states import Evidence, Outcome
from pgbreaker.sinks.record import Recorder
from support.boards import Scene

CONFIG = """
version: 1
targets:
- name: main
  dsn: postgresql://me@db/app
  operations: [read]
  breaker: {{failure_threshold: {failures}, timeout: 1s}}
"""
LOST = Evidence("timeout", "no answer within 500 ms", None, "ping")


@pytest.fixture
def recording(tmp_path):
    """Three pings that fail, of which the third opened; and three that are answered."""
    path, scene = tmp_path / "readings.jsonl", Scene(operations=("read",))
    plans = [target.plan for target in scene.board.targets.values()]
    recorder = Recorder(RecordPlan(path=path), plans, scene.clock, "1.2.3")
    scene.also(recorder)
    breaker = scene.board.targets["main"].breakers["read"]
    recorder.start()
    for n, good in enumerate((True, False, False, False, True, True, True)):
        scene.time.now = 200.0 + 2 * n
        finding = Finding.OK if good else Finding.TIMEOUT
        evidence = None if good else LOST
        scene.hub.publish(
            Reading(
                *("main", "ping", scene.time.now, 0.0, finding),
                evidence=evidence,
                judged=True,
            )
        )
        outcome = Outcome.SUCCESS if good else Outcome.FAILURE
        for move in breaker.observe(outcome, scene.time.now, evidence=evidence):
            scene.hub.publish(move)
    recorder.close()
    return path


@pytest.fixture
def config(tmp_path):
    def write(failures: int):
        path = tmp_path / f"after{failures}.yaml"
        path.write_text(CONFIG.format(failures=failures), "utf-8")
        return str(path)

    return write


def test_the_same_thresholds_come_to_the_same(command, recording, config):
    done = command("simulate", str(recording), "--config", config(3))

    assert done.exit_code == 0, done.output
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("main/read")]
    assert row.count("opened 1 time, not closed for 4.0 s") == 2
    wheres = [line.split()[2] for line in done.stdout.splitlines()[6:]]
    assert wheres == ["both", "both", "both"]


def test_others_come_to_something_else_and_it_is_shown_beside(
    command, recording, config
):
    stricter = command("simulate", str(recording), "--config", config(1))
    calmer = command("simulate", str(recording), "--config", config(9), "-o", "json")

    # It opens with the first failure, four seconds before.
    assert "opened 1 time, not closed for 8.0 s" in stricter.stdout
    assert " simulated  " in stricter.stdout
    assert " really  " in stricter.stdout
    found = json.loads(calmer.stdout)["breakers"]["main/read"]
    assert found["simulated"]["opened"] == 0
    assert found["really"]["opened"] == 1
    assert found["really"]["transitions"][0]["cause"] == "failure_run"


def test_a_target_that_there_is_not_is_a_wrong_usage(command, recording, config):
    done = command(
        *("simulate", str(recording), "--config", config(1), "--target", "mian")
    )

    assert done.exit_code == 2
    assert "there are main" in done.stderr


def test_what_is_no_recording_is_one_line(command, config, tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"kind": "reading"}\n', "utf-8")

    done = command("simulate", str(path), "--config", config(1))

    assert (done.exit_code, done.stderr) == (
        1,
        f"{path}:1: no recording of pgbreaker\n",
    )


def test_a_file_of_lines_that_are_no_json_is_no_recording_either(
    command, config, tmp_path
):
    path = tmp_path / "other.jsonl"
    path.write_text("version: 1\n", "utf-8")

    done = command("simulate", str(path), "--config", config(1))

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"{path}:1: no recording of pgbreaker\n"


def test_a_recording_of_others_says_that_nothing_of_these_is_in_it(
    command, recording, tmp_path
):
    path = tmp_path / "other.yaml"
    path.write_text(CONFIG.format(failures=1).replace("main", "shop"), "utf-8")

    done = command("simulate", str(recording), "--config", str(path))

    assert done.exit_code == 0
    assert done.stdout == "nothing of these targets was recorded\n"
