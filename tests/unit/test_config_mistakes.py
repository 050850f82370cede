"""Two hundred mistakes of known kinds, each planted at a known place in a good file, and
found right there; and many of them at once.

A mistake is a change of one line of one of the files below. Where it is to be found is
known from the change itself: the place where the changed word stands.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pytest

from pgbreaker.config import parse
from pgbreaker.errors import ConfigError

ROOT = Path(__file__).parents[2]
COUNT = 200
LONG = """\
version: 1
defaults:
  interval: 2s
  timeout: 400ms
  breaker:
    failure_rate: 60%
    slow_rate: 90%
    window: 20s
    minimum_calls: 6
    timeout: 2s
    max_timeout: 2m
    jitter: 10%
targets:
  - name: primary
    dsn: postgresql://monitor@db1:5432/app?sslmode=verify-full
    labels:
      env: prod
      team: payments
    operations:
      - connect
      - read
      - write
    profile: default
    interval: 1s
    breaker:
      failure_threshold: 4
      slow_call: 200ms
    probes:
      login:
        interval: 10s
        timeout: 2s
      replication:
        max_lag: 30s
      size:
        capacity: 500GB
      latency:
        query: SELECT 1
        slow: 250ms
    custom:
      - name: queue
        query: SELECT count(*) AS waiting FROM jobs
        interval: 1m
      - name: users
        query: SELECT count(*) AS users FROM users
    pgbouncer:
      dsn: postgresql://stats@db1:6432/pgbouncer
      max_wait: 2s
    patroni:
      url: http://db1:8008
  - name: replica
    dsn: postgresql://monitor@db2:5432/app
    operations: [connect, read]
http:
  listen: 127.0.0.1:9432
  allowed_hosts:
    - pgbreaker.example.net
peers:
  url: redis://pgbreaker@redis1:6379/0
  name: eu-1
  watchers: 3
  quorum: 2
  timeout: 250ms
  lease: 2s
store:
  path: /tmp/pgbreaker-state.db
  max_size: 64MB
record:
  path: /tmp/pgbreaker-readings.jsonl
log:
  format: json
  level: INFO
otlp:
  endpoint: http://127.0.0.1:4318
  sample: 5%
alertmanager:
  urls:
    - http://am1:9093
    - http://am2:9093
  job: pgbreaker
"""
FILES = {
    "long": LONG,
    "pgbreaker": (ROOT / "config/pgbreaker.yaml").read_text("utf-8"),
    "minimal": (ROOT / "config/minimal.yaml").read_text("utf-8"),
    "compose": (ROOT / "config/compose/pgbreaker.yaml").read_text("utf-8"),
}
ENV = {"PGPASSWORD": "x"}
DURATIONS = ("interval", "timeout", "window", "max_timeout", "slow_call", "max_wait")
DURATIONS += ("slow", "max_lag", "lease")
SHARES = ("failure_rate", "slow_rate", "jitter", "sample")
COUNTS = ("minimum_calls", "failure_threshold", "success_threshold", "watchers")
COUNTS += ("quorum",)
SIZES = ("capacity", "max_size")
# A key misspelt -> what was meant. Each is more like it than like any of its neighbours.
TYPOS = {
    "interval": ("intervall", "intervl", "Interval"),
    "timeout": ("timout", "time_out", "timeouts"),
    "failure_rate": ("failure-rate", "failurerate", "failure_rte"),
    "minimum_calls": ("minimum_cals", "minimumcalls"),
    "max_timeout": ("max_timout", "maxtimeout"),
    "max_wait": ("maxwait", "max_wiat"),
    "operations": ("operation", "opperations"),
    "labels": ("label", "lables"),
    "listen": ("listn", "lissten"),
    "level": ("levl", "leve"),
    "sample": ("sampel", "samples"),
    "max_size": ("maxsize", "max_sise"),
    "profile": ("profil", "profiles"),
    "patroni": ("patron", "patronii"),
    "custom": ("customs", "costum"),
    "endpoint": ("endpont", "end_point"),
    "allowed_hosts": ("allowed_host", "allow_hosts"),
    "defaults": ("default", "defualts"),
    "dsn": ("dns",),
    "name": ("nam", "nmae"),
    "query": ("qurey", "querry"),
}
HINTED = {
    "dsn": {"url": "write dsn", "host": "write it into the dsn"},
    "listen": {"port": "write listen: 127.0.0.1:9432"},
    "window": {"sliding_window_size": "write window"},
    "minimum_calls": {"minimum_number_of_calls": "write minimum_calls"},
    "max_size": {"retention": "write max_size"},
    "endpoint": {"url": "write endpoint"},
}


@dataclass(frozen=True)
class Line:
    """One line of a file that says ``key: value``.

    Attributes:
        number: From 0.
        start: Column of the key, from 0; value: column of the value.
    """

    number: int
    start: int
    key: str
    value: int
    text: str


@dataclass(frozen=True)
class Mistake:
    """A change of a line.

    Attributes:
        line: Line, from 0, that is changed.
        old: What it said.
        new: What it says, None where it is gone.
        column: Column, from 1, where the mistake is to be found.
        says: What has to be said of it.
    """

    kind: str
    line: int
    old: str
    new: str
    column: int
    says: str


def lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines()):
        bare = line.partition(" #")[0].rstrip()
        stripped = bare.lstrip(" -")
        key, colon, _ = stripped.partition(": ")
        if not colon or not key.isidentifier() or line.lstrip().startswith("#"):
            continue
        start = len(bare) - len(stripped)
        yield Line(number, start, key, start + len(key) + 2, line)


def of_value(kind: str, line: Line, value: str, says: str) -> Mistake:
    new = line.text[: line.value] + value
    return Mistake(kind, line.number, line.text, new, line.value + 1, says)


def of_key(kind: str, line: Line, key: str, says: str) -> Mistake:
    rest = line.text[line.start + len(line.key) :]
    new = line.text[: line.start] + key + rest
    return Mistake(kind, line.number, line.text, new, line.start + 1, says)


def plain(line: Line) -> bool:
    """Whether the value is a word or a number, and not a mapping or a list."""
    return line.text[line.value :][:1] not in ("{", "[")


def mistakes(text: str) -> Iterator[Mistake]:
    """Every mistake that is known how to make in *text*."""
    for line in lines(text):
        key = line.key
        yield from misspelt(line)
        if key in DURATIONS and plain(line):
            yield of_value("unit", line, "10", "10 of what? write 10s or 10ms")
            yield of_value("unit", line, "5 fortnights", "is no duration")
            yield of_value("sexagesimal", line, "1:30", "'1:30' is no duration")
            yield of_value("range", line, "0s", "it must be more than 0s")
            yield of_value("range", line, "400d", "is longer than a year")
            yield of_value("type", line, "[1s]", "not a duration")
        if key in SHARES:
            yield of_value("range", line, "150%", "is not between 0% and 100%")
            yield of_value("unit", line, "70", "write 70% or a share up to 1")
            yield of_value("type", line, "{a: 1}", "not a share")
        if key in COUNTS:
            yield of_value("range", line, "0", "is too few; it must be 1 or more")
            yield of_value("type", line, "2.5", "is not a whole number")
        if key in SIZES:
            yield of_value("unit", line, "64MiB", "is no size")
            yield of_value("type", line, "64", "64 is no size")
        yield from wrong_words(line)
        yield from wrong_dsn(line)
        yield from variables(line)


def misspelt(line: Line) -> Iterator[Mistake]:
    for typo in TYPOS.get(line.key, ()):
        yield of_key("typo", line, typo, f"did you mean {line.key!r}?")
    for other, says in HINTED.get(line.key, {}).items():
        yield of_key("hint", line, other, says)
    if plain(line) and line.key not in ("version",):
        indent = " " * line.start
        twice = f"{line.text}\n{indent}{line.key}: again"
        says = f"given twice, first in line {line.number + 1}"
        yield Mistake("twice", line.number, line.text, twice, line.start + 1, says)


WORDS = {
    "level": [("word", "warn", "did you mean 'WARNING'?")],
    "format": [("word", "jsn", "did you mean 'json'?")],
    "profile": [("word", "fst", "did you mean 'fast'?")],
    "version": [
        ("range", "2", "reads version 1, not 2"),
        ("type", "'1'", "reads version 1, not '1'"),
    ],
    "query": [
        ("query", "DELETE FROM jobs", "not a question"),
        ("query", "SELECT 1; SELECT 2", "several statements"),
    ],
    "listen": [
        ("address", "9432", "not an address"),
        ("address", "127.0.0.1:99999", "not an address"),
    ],
    "url": [
        ("address", "db1:8008", "address; write it like"),
        ("address", "ftp://db1", "address; write it like"),
    ],
    "endpoint": [("address", "http://db1:0", "the port is not a number")],
    "env": [("type", "1", "a label is a text")],
    "team": [("type", "[a]", "a label is a text")],
    "path": [
        ("path", "/nonexistent/x/y", "there is no directory"),
        ("path", "/tmp", "is there already"),
    ],
    "max_size": [("range", "1kB", "is too little")],
    "job": [("type", "7", "not a text")],
}
KEYS = {
    "login": [("probe", "loginn", "no probe is called 'loginn'")],
    "commit": [("probe", "comit", "no probe is called 'comit'")],
    "latency": [("probe", "latncy", "did you mean 'latency'?")],
    "env": [("label", "Big", "'Big' is no label")],
}


def wrong_words(line: Line) -> Iterator[Mistake]:
    for kind, value, says in WORDS.get(line.key, ()):
        yield of_value(kind, line, value, says)
    for kind, key, says in KEYS.get(line.key, ()):
        yield of_key(kind, line, key, says)


def wrong_dsn(line: Line) -> Iterator[Mistake]:
    if line.key == "name" and "custom" not in line.text:
        yield of_value("name", line, "a b", "is no name")
        yield of_value("type", line, "12", "not a text")
    if line.key != "dsn":
        return
    yield of_value("dsn", line, "host=db1 dbname=app", "not key=value words")
    yield of_value("dsn", line, "mysql://db1/app", "the scheme 'mysql'")
    yield of_value("dsn", line, "postgresql://db1:x/app", "the port is not")
    yield of_value(
        "dsn", line, "postgresql://db1/a?sslmoed=x", "did you mean 'sslmode'?"
    )
    yield of_value("dsn", line, "postgresql:///app", "no host")
    yield of_value("dsn", line, "postgresql://a,b/app", "several hosts")


def variables(line: Line) -> Iterator[Mistake]:
    if line.key in ("dsn", "level", "url", "listen", "interval") and plain(line):
        yield of_value(
            "variable", line, "${NOWHERE}", "the variable NOWHERE is not set"
        )
        yield of_value("variable", line, "${NO:?tell me}", "NO is not set: tell me")
        yield of_value("variable", line, "${OPEN", "a ${ that is no variable")
        yield of_value("alias", line, "*nobody", "an alias (*...) of nothing")
        yield of_value("tag", line, "!secret x", "tags are not supported")


def chosen() -> list[tuple[str, Mistake]]:
    """Two hundred of them, of every kind in turn, always the same ones."""
    by_kind: dict[str, list[tuple[str, Mistake]]] = {}
    for name, text in FILES.items():
        for mistake in mistakes(text):
            by_kind.setdefault(mistake.kind, []).append((name, mistake))
    draw = random.Random(20261127)
    for found in by_kind.values():
        draw.shuffle(found)
    taken: list[tuple[str, Mistake]] = []
    for kind in islice(cycle(sorted(by_kind)), 10_000):
        if by_kind[kind] and len(taken) < COUNT:
            taken.append(by_kind[kind].pop())
    return taken


CHOSEN = chosen()


def told(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), "x.yml", env=ENV)
    return list(caught.value.problems)


def planted(text: str, *made: Mistake) -> str:
    rows = text.splitlines()
    for mistake in made:
        assert rows[mistake.line] == mistake.old
        rows[mistake.line] = mistake.new
    return "\n".join(rows) + "\n"


def row(mistake: Mistake) -> int:
    """The line, from 1, that it is to be found in."""
    return mistake.line + 1 + mistake.new.count("\n")


def test_there_are_two_hundred_of_many_kinds():
    assert len(CHOSEN) == COUNT
    assert len({mistake.kind for _, mistake in CHOSEN}) >= 18


def test_the_files_are_good_before():
    for name, text in FILES.items():
        parse(text.encode(), name, env=ENV)


@pytest.mark.parametrize(
    ("name", "mistake"),
    CHOSEN,
    ids=[f"{m.kind}-{name}-{m.line}-{n}" for n, (name, m) in enumerate(CHOSEN)],
)
def test_a_mistake_is_found_where_it_is_and_nothing_else_is(name, mistake):
    said = told(planted(FILES[name], mistake))

    assert len(said) == 1, said
    assert said[0].startswith(f"x.yml:{row(mistake)}:{mistake.column}: "), said
    assert mistake.says in said[0]


def test_many_at_once_are_all_found_in_their_order():
    """
    A dozen in one file, in fifty draws; none hides another. Not those that stop YAML
    itself from being read, nor two in one line.
    """
    stop = ("alias", "twice")
    usable = [m for m in mistakes(LONG) if m.kind not in stop]
    draw = random.Random(20261128)
    for _ in range(50):
        draw.shuffle(usable)
        by_line = {mistake.line: mistake for mistake in usable}
        made = sorted(islice(by_line.values(), 12), key=lambda m: m.line)

        said = told(planted(LONG, *made))

        expected = [f"x.yml:{row(m)}:{m.column}: " for m in made]
        found = [next((s for s in said if s.startswith(e)), e) for e in expected]
        assert found == said, (made, said)
        for mistake, line in zip(made, said, strict=True):
            assert mistake.says in line
