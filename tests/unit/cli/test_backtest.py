"""`pgbreaker backtest`, from a recording to a table."""

import json

import pytest

from pgbreaker.cli.backtesting import shown
from pgbreaker.monitor.backtest import Backtested, Bin, TargetRecord
from support.recordings import USABLE, Recording, leaking

CONFIG = """
version: 1
targets:
- name: main
  dsn: postgresql://me@db/app
  probes: {size: {capacity: 1GB}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory with the recordings of two daemons, one of which saw a leak."""
    folder = tmp_path_factory.mktemp("recordings")
    leaking(folder / "one.jsonl")
    with Recording(folder / "two.jsonl", names=("other",)) as recording:
        for at in range(0, 5400, 60):
            recording.slots(at, 0.85 * USABLE if at == 600 else 20)
            recording.heard("ping", at + 1, target="other")
    return folder


@pytest.fixture(scope="module")
def recording(folder):
    return folder / "one.jsonl"


def row(output: str, *words: str) -> list[str]:
    """The cells of the row that begins with these words."""
    (found,) = [
        line
        for line in output.splitlines()
        if tuple(line.split()[: len(words)]) == words
    ]
    return found.split()[len(words) :]


def test_forecasts_and_threshold_are_shown_side_by_side(command, recording):
    done = command("backtest", str(recording))

    assert done.exit_code == 0, done.output
    ours = row(done.stdout, "main", "connections", "forecast")
    plain = row(done.stdout, "main", "connections", "80", "%", "taken")
    # Days, failures, in time.
    assert ours[:4] == plain[:4] == ["0.04", "1", "1", "(100"]
    assert "main: not looked at, for want of what it needs: pool (" in done.stdout
    assert "  failure  foreseen, " in done.stdout
    assert "missed" in done.stdout  # the breaker, which the model is silent of
    assert all(line == line.rstrip() for line in done.stdout.splitlines())


def test_the_threshold_may_be_another(command, recording):
    done = command("backtest", str(recording), "--threshold", "90%")
    wrong = command("backtest", str(recording), "--threshold", "90")
    none = command("backtest", str(recording), "--threshold", "0%")

    assert row(done.stdout, "main", "connections", "90", "%", "taken")
    assert (wrong.exit_code, none.exit_code) == (2, 2)
    assert "write it like 70% or 0.7" in wrong.stderr


def test_programs_are_told_the_same(command, folder):
    done = command("backtest", str(folder), "-o", "json")

    told = json.loads(done.stdout)
    assert told.keys() == {
        *("began", "ended", "readings", "overridden", "threshold", "unread"),
        *("targets", "events"),
    }
    assert set(told["targets"]) == {"main", "other"}
    target = told["targets"]["main"]
    assert target.keys() == {
        *("seen_seconds", "readings", "in_configuration", "kinds", "not_looked_at"),
        "model",
    }
    assert set(target["kinds"]["connections"]) == {"forecast", "threshold"}
    ours = target["kinds"]["connections"]["forecast"]
    assert (ours["failures"], ours["in_time"], ours["recall"]) == (1, 1, 1.0)
    assert ours["lead_seconds"]["median"] == ours["lead_seconds"]["nine_of_ten"] > 60
    assert target["model"].keys() == {"silent_because", "bins"}
    assert target["model"]["bins"] == []
    failures = [event for event in told["events"] if event["what"] == "failure"]
    assert {event["of"] for event in failures} == {"connections", "failure"}
    assert all(event["time"] <= told["ended"] for event in told["events"])


def test_one_target_of_a_directory(command, folder):
    one = command("backtest", str(folder), "--target", "other")
    none = command("backtest", str(folder), "--target", "ohter")

    assert one.exit_code == 0
    assert "main " not in one.stdout
    assert "other: no failure in 1 h 29 min: recall cannot be told" in one.stdout
    assert "other: no warning in 1 h 29 min: precision cannot be told" in one.stdout
    assert none.exit_code == 2
    assert "there are main, other" in none.stderr


def test_a_configuration_tells_what_a_recording_may_not(command, recording, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(CONFIG, "utf-8")
    other = tmp_path / "other.yaml"
    other.write_text(CONFIG.replace("main", "shop"), "utf-8")

    known = command("backtest", str(recording), "--config", str(path))
    unknown = command("backtest", str(recording), "--config", str(other))

    assert known.exit_code == unknown.exit_code == 0
    assert "not in the configuration" not in known.stdout
    assert "main: it is not in the configuration" in unknown.stdout


def test_a_short_recording_says_what_it_cannot_tell(command, tmp_path):
    path = tmp_path / "short.jsonl"
    with Recording(path) as recording:
        recording.slots(0, 20)
        recording.slots(60, 0.9 * USABLE)

    done = command("backtest", str(path))

    assert done.exit_code == 0
    assert (
        "main: seen for 1 min 0 s: too short for a warning to be false" in done.stdout
    )
    assert row(done.stdout, "main", "connections", "80", "%", "taken") == [
        *("0.00", "0", "0", "0", "0", "1", "0"),
        *("-", "-", "-", "-"),
    ]
    assert "warning  untold, stands" in done.stdout


def test_a_recording_of_nothing_says_so(command, tmp_path):
    path = tmp_path / "empty.jsonl"
    with Recording(path) as recording:
        recording.opened(1.0)

    done = command("backtest", str(path))

    assert (done.exit_code, done.stdout) == (0, "nothing was recorded\n")


def test_what_the_model_said_stands_beside_what_came():
    """Of the minutes in which it said 80 %, four of five should have come."""
    spoke = TargetRecord(
        seen=86_400.0,
        readings=1440,
        bins=[Bin(0.0, 0.1, 900, 9, 18.0), Bin(0.8, 0.9, 20, 15, 16.6)],
    )
    silent = TargetRecord(
        seen=86_400.0, readings=1440, silent_because="has seen no opening"
    )
    done = Backtested(targets={"main": spoke, "other": silent})

    told = list(shown(done, 0.8))

    begin = told.index("TARGET  PROBABILITY  MINUTES  SAID  CAME")
    assert "how often a breaker opened in 15 min 0 s" in told[begin - 1]
    assert told[begin + 1 : begin + 3] == [
        "main    0 to 10 %    900      2 %   1 %",
        "main    80 to 90 %   20       83 %  75 %",
    ]
    assert (
        "other: the model of failures is silent at the end: has seen no opening" in told
    )
    assert not any(line.startswith("main: the model") for line in told)


def test_what_is_damaged_is_told(command, recording, tmp_path):
    path = tmp_path / "damaged.jsonl"
    lines = recording.read_bytes().splitlines(keepends=True)
    lines[50] = lines[50][:5] + b"\n"
    path.write_bytes(b"".join(lines))

    done = command("backtest", str(path))

    assert done.exit_code == 0
    assert f"damaged from {path}:51 on: " in done.stdout


@pytest.mark.parametrize("text", ['{"kind": "reading"}\n', "version: 1\n"])
def test_what_is_no_recording_is_one_line(command, tmp_path, text):
    path = tmp_path / "other.jsonl"
    path.write_text(text, "utf-8")

    one, all_ = command("backtest", str(path)), command("backtest", str(tmp_path))

    assert (one.exit_code, one.stdout) == (1, "")
    assert one.stderr == f"{path}:1: no recording of pgbreaker\n"
    assert (all_.exit_code, all_.stdout) == (1, "")
    assert all_.stderr == f"{tmp_path}: no recording of pgbreaker in it\n"


def test_what_there_is_not_is_a_wrong_usage(command, tmp_path):
    assert command("backtest", str(tmp_path / "none.jsonl")).exit_code == 2
