"""The configuration: what is accepted, and exactly what is said of the rest.

Each `tests/bad-config/NAME.yml` has its messages, line by line, in `NAME.txt`.
"""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgbreaker.config import for_dsn, load, parse
from pgbreaker.config.dsn import wrong_with
from pgbreaker.config.load import USUAL
from pgbreaker.config.units import share
from pgbreaker.core.plan import ProbePlan
from pgbreaker.core.policy import DAEMON
from pgbreaker.core.secret import Secret
from pgbreaker.core.units import duration
from pgbreaker.errors import ConfigError

ROOT = Path(__file__).parents[2]
BAD = sorted((ROOT / "tests/bad-config").glob("*.yml"))
MINIMAL = b"""
version: 1
targets:
  - name: main
    dsn: postgresql://monitor@db1/app
"""


def complaints(raw: bytes, name: str = "x.yml", **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(raw, name, env=env)
    return str(caught.value)


def test_there_are_enough_of_them():
    assert len(BAD) >= 60


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_every_bad_configuration_is_told_exactly(path):
    said = complaints(path.read_bytes(), path.name)

    assert said + "\n" == path.with_suffix(".txt").read_text("utf-8")
    assert "hunter2" not in said
    for line in said.splitlines():
        name, row, column, text = line.split(":", 3)
        assert name == path.name
        assert int(row) >= 1
        assert int(column) >= 1
        assert text.strip()


def test_a_minimal_file_has_the_documented_defaults():
    config = parse(MINIMAL, "x.yml")

    (target,) = config.targets
    assert config.http.listen == ("127.0.0.1", 9432)
    assert config.otlp is None
    assert target.operations == ("connect", "read", "write")
    assert target.policy == DAEMON
    assert target.probes == USUAL
    assert target.probes["commit"] == ProbePlan(interval=5.0, timeout=2.0)


def test_what_a_probe_needs_to_know_is_told_to_it():
    config = parse(
        b"""
version: 1
targets:
  - name: main
    dsn: postgresql://monitor@db1/app
    probes:
      replication: {max_lag: 30s}
      latency: {query: "SELECT 1 ;", slow: 100ms, interval: 2s}
    custom:
      - {name: queue, query: "SELECT count(*) AS waiting FROM jobs", interval: 1m}
    pgbouncer: {dsn: "postgresql://stats:hunter2@db1:6432/pgbouncer", max_wait: 3s}
    patroni: {url: "http://db1:8008/"}
""",
        "x.yml",
    )

    (target,) = config.targets
    assert target.operations == ("connect", "read", "write", "pool")
    assert target.probes["replication"].limit == 30.0
    canary = target.probes["latency"]
    assert (canary.query, canary.limit, canary.interval) == ("SELECT 1", 0.1, 2.0)
    assert target.probes["custom.queue"].interval == 60.0
    assert target.probes["pgbouncer"].limit == 3.0
    assert target.probes["patroni"].address == Secret("http://db1:8008")
    assert "hunter2" not in repr(config)


def test_what_is_not_there_unless_given_can_be_switched_off_as_the_rest():
    config = parse(
        MINIMAL
        + b"""
    probes: {login: false, latency: false}
    pgbouncer: false
    patroni: false
""",
        "x.yml",
    )

    (target,) = config.targets
    assert target.operations == ("connect", "read", "write")
    assert target.probes.keys() == USUAL.keys() - {"login"}


def test_a_canary_may_be_whatever_answers_and_a_query_whatever_has_rows():
    config = parse(
        MINIMAL
        + b"""
    probes: {latency: {query: SHOW max_connections}}
    custom:
      - {name: a, query: TABLE jobs}
      - {name: b, query: "SELECT 1 -- note"}
""",
        "x.yml",
    )

    (target,) = config.targets
    assert target.probes["latency"].query == "SHOW max_connections"
    assert target.probes["custom.b"].query == "SELECT 1 -- note"


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("sslnegotiation=direct", "sslnegotiation=direct needs sslmode=require"),
        ("sslnegotiation=direct&sslmode=prefer", "needs sslmode=require"),
        ("sslnegotiation=never", "sslnegotiation is postgres or direct"),
        ("gsslib=gssapi", "gsslib is of Kerberos"),
        ("service=app", "service names an entry of a file"),
    ],
)
def test_a_dsn_that_never_connects_is_told(query, wrong):
    said = wrong_with(f"postgresql://me:hunter2@db1/app?{query}")

    assert wrong in said
    assert "hunter2" not in said
    assert wrong_with("postgresql://db1?sslnegotiation=direct&sslmode=require") is None


def test_a_crowd_is_asked_less_often_unless_the_file_says_how_often():
    given = b"    probes: {commit: {interval: 5s}}\n"
    one = b"  - name: t%d\n    dsn: postgresql://h/a\n"
    many = b"".join(one % n + (given if n == 0 else b"") for n in range(400))

    first, *others = parse(b"version: 1\ntargets:\n" + many, "x.yml").targets

    assert first.probes["commit"].interval == 5.0
    for target in (first, *others):
        assert target.probes["ping"].interval == 1.0  # never slower
        assert target.probes["identity"].interval == 8.0
    assert others[0].probes["commit"].interval == 20.0


def test_a_target_goes_before_the_defaults_and_the_defaults_before_ours():
    config = parse(
        b"""
version: 1
defaults:
  interval: 2s
  breaker: {failure_rate: 60%, window: 20s}
targets:
  - {name: a, dsn: "postgresql://h/a"}
  - name: b
    dsn: postgresql://h/b
    interval: 3s
    breaker: {failure_rate: 0.7}
    probes: {commit: false, login: {interval: 30s}}
""",
        "x.yml",
    )

    a, b = config.targets
    assert (a.probes["ping"].interval, b.probes["ping"].interval) == (2.0, 3.0)
    assert (a.policy.failure_rate, b.policy.failure_rate) == (0.6, 0.7)
    assert a.policy.window == b.policy.window == 20.0
    assert a.policy.minimum_calls == DAEMON.minimum_calls
    assert "commit" not in b.probes
    assert b.probes["login"] == ProbePlan(interval=30.0, timeout=1.0)


def test_the_fast_profile_is_a_faster_ping_unless_said_otherwise():
    text = MINIMAL + b"    profile: fast\n"

    (fast,) = parse(text, "x.yml").targets
    (slower,) = parse(text + b"    interval: 200ms\n", "x.yml").targets

    assert fast.probes["ping"] == ProbePlan(interval=0.1, timeout=0.25)
    assert slower.probes["ping"] == ProbePlan(interval=0.2, timeout=0.25)


def test_variables_are_put_in_after_parsing():
    text = MINIMAL.replace(b"db1", b"${HOST:-db9}").replace(b"app", b"${NAME:?which}")

    (target,) = parse(text, "x.yml", env={"NAME": "a: b, [c"}).targets

    assert target.dsn == Secret("postgresql://monitor@db9/a: b, [c")


def test_words_that_yaml_1_1_reads_as_booleans_stay_words():
    (target,) = parse(MINIMAL + b"    labels: {country: no, power: on}\n", "x").targets

    assert target.labels == {"country": "no", "power": "on"}


def test_a_dsn_alone_is_a_configuration_named_after_its_host():
    config = for_dsn(
        "postgresql://me:hunter2@db-1.example.org:6000/app", listen="[::1]:0"
    )

    assert config.targets[0].name == "db-1.example.org"
    assert config.http.listen == ("::1", 0)
    assert "hunter2" not in repr(config)


def test_a_dsn_that_is_none_is_told_without_showing_it():
    with pytest.raises(ConfigError) as caught:
        for_dsn("host=db1 password=hunter2")

    assert str(caught.value) == (
        "--dsn: not a DSN; write postgresql://user@host:5432/database, not key=value words"
    )


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: no such file or directory"):
        load(tmp_path / "none.yml")


def test_a_secret_is_never_shown():
    secret = Secret("hunter2")

    assert "hunter2" not in f"{secret} {secret!r} {secret!s:>40}"
    assert secret.reveal() == "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@given(st.floats(0.001, 86400.0, allow_nan=False))
def test_a_duration_reads_back_what_was_written(seconds):
    assert duration(f"{seconds:.6f}s") == pytest.approx(seconds, abs=1e-6)
    assert duration(f"{seconds * 1000:.3f}ms") == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m30s", 90), ("2h", 7200), ("1d", 86400), ("1.5s", 1.5), ("250ms", 0.25)],
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@given(st.integers(0, 100))
def test_a_share_reads_alike_both_ways(percent):
    assert share(f"{percent}%") == pytest.approx(share(percent / 100))


@given(st.text(max_size=20))
def test_no_text_whatever_makes_a_unit_fail_otherwise_than_by_valueerror(text):
    for read in (duration, share):
        try:
            assert read(text) >= 0
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either is fine


@pytest.mark.parametrize(
    "name", ["pgbreaker.yaml", "minimal.yaml", "compose/pgbreaker.yaml"]
)
def test_the_examples_are_good(name):
    parse((ROOT / "config" / name).read_bytes(), name, env={"PGPASSWORD": "x"})
