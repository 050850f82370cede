"""Commands that write, check and show files."""

import json
import re
import stat

import pytest

from pgbreaker.cli.starting import password_of
from pgbreaker.config import load, shown

NOWHERE = "postgresql://me:hunter2@127.0.0.1:1/app?sslmode=require"


# -- init --------------------------------------------------------------------------


def test_what_is_written_to_begin_with_can_be_used(command, tmp_path):
    path = tmp_path / "pgbreaker.yaml"

    done = command("init", str(path))

    assert done.exit_code == 0, done.output
    assert command("check-config", str(path)).exit_code == 0
    assert load(path).targets[0].name == "primary"


def test_a_password_in_the_dsn_goes_into_a_file_of_its_own(command, tmp_path):
    path = tmp_path / "pgbreaker.yaml"

    done = command("init", str(path), "--from-dsn", NOWHERE)

    beside = tmp_path / "127.0.0.1.password"
    assert done.exit_code == 0, done.output
    assert "hunter2" not in path.read_text("utf-8") + done.output
    assert beside.read_text("utf-8") == "hunter2\n"
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    assert "which was not met" in done.output
    plan = load(path).targets[0]
    assert (plan.name, plan.password_file) == ("127.0.0.1", beside)


def test_what_is_there_is_overwritten_only_when_told_to(command, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text("mine", "utf-8")

    refused = command("init", str(path))
    before = path.read_text("utf-8")
    forced = command("init", str(path), "--force")

    assert (refused.exit_code, before) == (1, "mine")
    assert refused.stderr == f"{path} is there already; --force overwrites it\n"
    assert forced.exit_code == 0
    assert path.read_text("utf-8") != "mine"


def test_a_place_that_cannot_be_written_to_is_one_line(command, tmp_path):
    done = command("init", str(tmp_path / "no/pgbreaker.yaml"))

    assert done.exit_code == 1
    assert done.stderr.endswith("cannot be written: no such file or directory\n")


@pytest.mark.parametrize(
    ("dsn", "password"),
    [
        ("postgresql://me@h/d", None),
        ("postgresql://me:p%40ss@h:1/d", "p@ss"),
        ("postgresql:///d?host=/run&user=me&password=a%26b", "a&b"),
    ],
)
def test_a_password_is_found_wherever_in_a_dsn_it_stands(dsn, password):
    assert password_of(dsn) == password


# -- check-config ------------------------------------------------------------------

WRONG = (
    "version: 1\ntargets:\n- name: main\n  dsn: postgresql://db/app\n  intervall: 5s\n"
)


def test_what_is_wrong_is_told_with_its_place_to_people_and_programs(command, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(WRONG, "utf-8")

    told = command("check-config", str(path))
    for_programs = command("check-config", str(path), "-o", "json")

    assert (told.exit_code, for_programs.exit_code) == (78, 78)
    assert f"{path}:5:3: " in told.stderr
    assert "did you mean" in told.stderr
    found = json.loads(for_programs.stdout)
    assert found == {"ok": False, "problems": told.stderr.splitlines()}


def test_a_target_that_does_not_answer_is_a_failure_where_we_are_to_connect(
    command, tmp_path
):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(f"version: 1\ntargets:\n- name: main\n  dsn: {NOWHERE}\n", "utf-8")

    told = command("check-config", str(path), "--connect")
    for_programs = command("check-config", str(path), "--connect", "-o", "json")

    assert (told.exit_code, for_programs.exit_code) == (1, 1)
    assert "main: knock ended refused: connection refused" in told.stdout
    (report,) = json.loads(for_programs.stdout)["reports"]
    assert report["steps"][-1]["outcome"] == "refused"
    assert "hunter2" not in told.output + for_programs.output


# -- schema, config show -----------------------------------------------------------


def test_the_schema_is_one_that_editors_take(command):
    from jsonschema import Draft202012Validator

    done = command("schema")

    schema = json.loads(done.stdout)
    Draft202012Validator.check_schema(schema)
    assert "targets" in schema["properties"]


def test_what_is_in_force_is_shown_without_secrets(command, tmp_path):
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(f"version: 1\ntargets:\n- name: main\n  dsn: {NOWHERE}\n", "utf-8")

    of_file = command("config", "show", "--config", str(path))
    of_dsn = command("config", "show", "--dsn", NOWHERE)

    for done in (of_file, of_dsn):
        assert done.exit_code == 0, done.output
        assert "hunter2" not in done.stdout
        assert "127.0.0.1" in done.stdout
    again = tmp_path / "again.yaml"
    again.write_text(of_file.stdout, "utf-8")
    told = json.loads(
        command("config", "show", "--config", str(path), "-o", "json").stdout
    )
    assert told == shown(load(again))


# -- hash-password, export ---------------------------------------------------------


def test_a_password_is_hashed_and_not_repeated(command):
    done = command("hash-password", typed="hunter2\n")

    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"\$(2b|scrypt)\$\S{40,}\n", done.stdout)
    assert "hunter2" not in done.stdout


def test_an_empty_password_is_none(command):
    done = command("hash-password", typed="\n")

    assert (done.exit_code, done.stderr) == (2, "an empty password is none\n")


def test_a_token_comes_with_its_hash(command):
    first, second = (command("hash-password", "--token").stdout for _ in range(2))

    assert re.fullmatch(r"token  \S{30,}\nhash   \S{30,}\n", first)
    assert first != second


def test_the_unit_is_written_with_what_to_do_next(command, tmp_path):
    done = command("export", "systemd", str(tmp_path))

    assert done.exit_code == 0
    assert "systemctl daemon-reload" in done.stdout
    assert (tmp_path / "pgbreaker.service").is_file()
