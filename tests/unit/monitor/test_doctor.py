"""What `pgbreaker doctor` says where nobody has to be asked for it."""

from pathlib import Path

import pytest

from pgbreaker.config.load import USUAL
from pgbreaker.core.plan import TargetPlan
from pgbreaker.core.secret import Secret
from pgbreaker.monitor.doctor import Level, _limit_of, look_around


@pytest.fixture(autouse=True)
def _no_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGPASSFILE", "PGPASSWORD", "PGSSLMODE", "PGHOST"):
        monkeypatch.delenv(name, raising=False)


def plan_of(dsn: str, **more) -> TargetPlan:
    return TargetPlan(name="main", dsn=Secret(dsn), probes=USUAL, **more)


def codes(plan: TargetPlan, config: Path | None = None) -> dict[str, Level]:
    return {one.code: one.level for one in look_around([plan], config)}


def secret_file(path: Path, mode: int) -> Path:
    path.write_text("hunter2\n", "utf-8")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        (0o600, {}),
        (0o640, {"file_mode": Level.WEAK}),
        (0o644, {"file_mode": Level.WRONG}),
    ],
)
def test_a_password_file_that_others_can_read_is_told(mode, found, tmp_path):
    path = secret_file(tmp_path / "secret", mode)
    plan = plan_of("postgresql://me@localhost/app", password_file=path)

    assert codes(plan) == found


def test_what_is_said_to_help_helps(tmp_path):
    path = secret_file(tmp_path / "secret", 0o644)
    plan = plan_of("postgresql://me@localhost/app", password_file=path)
    (complaint,) = look_around([plan], None)

    assert complaint.helps == (f"chmod 600 {path}",)
    path.chmod(0o600)
    assert look_around([plan], None) == []


def test_a_pgpass_that_others_can_read_is_not_read_at_all(tmp_path):
    secret_file(tmp_path / ".pgpass", 0o640)

    (complaint,) = look_around([plan_of("postgresql://me@localhost/app")], None)

    assert complaint.level is Level.WRONG
    assert complaint.text.endswith("and so it is not read at all")


def test_a_configuration_with_a_password_is_as_secret_as_one(tmp_path):
    path = secret_file(tmp_path / "pgbreaker.yaml", 0o644)
    with_one = plan_of("postgresql://me:hunter2@localhost/app")
    without = plan_of("postgresql://me@localhost/app")

    assert codes(with_one, path) == {"file_mode": Level.WRONG}
    assert codes(without, path) == {}


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("postgresql://me@db1/app", "can be read on the way"),
        ("postgresql://me@db1/app?sslmode=require", "can pass for the server"),
        ("postgresql://me@db1/app?sslmode=verify-ca", "can pass for the server"),
        ("postgresql://me@db1/app?sslmode=verify-full", None),
        ("postgresql://me@localhost/app", None),
        ("postgresql:///app?host=/run/postgresql&user=me", None),
    ],
)
def test_a_way_that_others_share_is_to_be_safe(dsn, says):
    found = look_around([plan_of(dsn)], None)

    assert [says in one.text for one in found] == ([True] if says else [])


def test_nothing_of_a_password_is_told(tmp_path):
    path = secret_file(tmp_path / "pgbreaker.yaml", 0o644)
    plan = plan_of("postgresql://me:hunter2@db1/app?sslmode=never")

    found = look_around([plan], path)

    assert {one.code for one in found} == {"file_mode", "address"}
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        (None, "0"),
        ("work_mem=4MB", "0"),
        ("lock_timeout=1s\nlock_timeout=2s", "2s"),  # the more special comes later
        ("search_path=a=b", "0"),
    ],
)
def test_a_limit_is_the_most_special_one(settings, limit):
    assert _limit_of(settings, "lock_timeout", "0") == limit
