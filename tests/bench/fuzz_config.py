"""Wrong configurations: 20,000 of them, each told with file, line and column, or taken.

Two sources: real files with their lines, keys and values changed (a grammar of what
people and editors do), and configurations that Hypothesis builds of good and bad values.
What is taken is written as `pgbreaker config show` does, read again, and has to be the
same. No password that was planted is ever seen.

    python tests/bench/fuzz_config.py [COUNT]
"""

import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pgbreaker.config import parse, shown, written
from pgbreaker.core.plan import Config
from pgbreaker.core.secret import Secret
from pgbreaker.errors import ConfigError

ROOT = Path(__file__).parents[2]
COUNT = 20_000
CANARY = "hunter2"
SLOWEST = 1.0
ENV = {"PGPASSWORD": CANARY, "SET": "set", "EMPTY": "", "ODD": "a: b # ${SET}"}
LINE = re.compile(r".+:[1-9][0-9]*:[1-9][0-9]*: \S")

SEEDS = [
    path.read_text("utf-8").replace("pgbreaker@", f"pgbreaker:{CANARY}@")
    for path in (
        ROOT / "config/pgbreaker.yaml",
        ROOT / "config/minimal.yaml",
        ROOT / "config/compose/pgbreaker.yaml",
    )
]
SEEDS.append(
    f"""{SEEDS[1]}
peers:
  url: redis://pgbreaker:{CANARY}@redis1:6379/0
  prefix: shop
  name: eu-1
  watchers: 3
  quorum: 2
  timeout: 250ms
  lease: 2s
"""
)
BAD = [
    path.read_text("utf-8", errors="replace")
    for path in sorted((ROOT / "tests/bad-config").glob("*.yml"))
]
VALUES = (
    *("", "~", "null", "true", "no", "0", "-1", "1.5", "1e999", "9" * 400, "0x10"),
    *("5s", "1:30", "500 ms", "1h30m", "0s", "1e3s", "9999d", "70%", "150%", "0.5"),
    *("64MB", "8MB", "1kB", "[]", "{}", "[a, b]", "{a: b}", "[[[[", "}", '"', "'x"),
    *("|", ">", "&a x", "*a", "!x y", "!!str 5", "@", "`", "%", "a: b", "# x", "- x"),
    *(
        "${SET}",
        "${EMPTY}",
        "${NO}",
        "${NO:-x}",
        "${NO:?why}",
        "${",
        "$${SET}",
        "${ODD}",
    ),
    *('"\\ud800"', '"\\UFFFFFFFF"', '"\\0"', '"\\x07"', "\u2028", "\ufeff", "é", "😀"),
    *("conf.d/*.yaml", "/", "/dev/null", "/dev/zero", "/tmp", "\x85", "x" * 300),
    f"postgresql://me:{CANARY}@h/a",
    f"postgresql://me:{CANARY}@h:0/a?sslmode=x",
    f"postgresql://me:12/{CANARY}@h/a",
    f"host=h password={CANARY}",
    f"http://me:{CANARY}@h",
    f"redis://me:{CANARY}@h/0",
    f"rediss://me:[{CANARY}]@h/0",
    "postgresql:///a?host=/tmp",
    "postgresql://[::1]:1/a",
    "http://h:8008",
    "SELECT 1",
    "SHOW x",
    "now",
)
KEYS = (
    *("name", "dsn", "interval", "timeout", "breaker", "probes", "labels", "custom"),
    *("query", "url", "path", "max_size", "include", "targets", "version", "http"),
    *("listen", "store", "record", "peers", "<<", "?", "password", "operations"),
    *("watchers", "quorum", "lease", "prefix"),
)

TARGET = "version: 1\ntargets:\n  - name: a\n    dsn: postgresql://h/a\n"
# What takes longest, each at a limit or at something that goes by the square.
WORST = {
    "deep": "a: " + "[" * 500_000,
    "deep maps": "{a: " * 200_000,
    "deep blocks": "\n".join(" " * depth + "a:" for depth in range(1200)),
    "laughs": "a: &a [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"{n}: &a [{','.join(['*a'] * 9)}]\n" for n in "bcdefghijklmnop"),
    "a cycle": "a: &a [*a, *a, *a]\n",
    "digits": f"{TARGET}    interval: {'1' * 900_000}\n",
    "a text of digits": f"{TARGET}    interval: '{'1' * 900_000}'\n",
    "a share of digits": f"{TARGET}    breaker: {{failure_rate: '{'1' * 900_000}%'}}\n",
    "a large port": f"{TARGET}http: {{listen: 'a:{'1' * 5_000}'}}\n",
    "begun variables": f"{TARGET}    labels: {{a: '{'${a:-' * 180_000}'}}\n",
    "unknown keys": TARGET + "".join(f"intervall{n}: 1\n" for n in range(19_000)),
    "bad items": f"version: 1\ntargets: [{'[],' * 39_000}]\n",
    "the same item": f"{TARGET}    operations: [{'read,' * 39_000}]\n",
    "a long address": f"{TARGET}otlp: {{endpoint: 'http://{'a/' * 450_000} '}}\n",
    "brackets": TARGET.replace("//h", "//" + "[" * 900_000),
    "nothing but lines": "\n" * 1_000_000,
    "a directive of digits": "%YAML " + "1" * 900_000 + ".1\n---\na: 1\n",
    "beyond Unicode": 'a: "\\UFFFFFFFF"\n',
    "half a character": TARGET + '    labels: {a: "\\ud800"}\n',
    "half a key": TARGET + '    labels: {"\\ud800": a}\n',
    "a pipe of zeros": f"{TARGET}    password_file: /dev/zero\n",
}


@dataclass
class Tally:
    """What came of the configurations so far.

    Attributes:
        slowest: Seconds of processor that the slowest took.
        failures: What should not have happened, with the configuration that did it.
    """

    taken: int = 0
    told: int = 0
    slowest: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    example: dict[str, bytes] = field(default_factory=dict)

    def fail(self, what: str, raw: bytes) -> None:
        self.failures[what] += 1
        self.example.setdefault(what, raw)


def verify(raw: bytes, tally: Tally) -> None:
    """Read *raw*, and look at what comes of it."""
    began = time.process_time()
    try:
        config = parse(raw, "x.yml", env=ENV)
        tally.taken += 1
        _verify_taken(config, raw, tally)
    except ConfigError as error:
        tally.told += 1
        if not error.problems or not all(map(LINE.match, error.problems)):
            tally.fail("told without a place", raw)
        if CANARY in str(error):
            tally.fail("a password in a message", raw)
    except Exception:
        tally.fail(traceback.format_exc(limit=-2), raw)
    took = time.process_time() - began
    tally.slowest = max(tally.slowest, took)
    if took > SLOWEST:
        tally.fail(f"longer than {SLOWEST:g} s", raw)


def _verify_taken(config: Config, raw: bytes, tally: Tally) -> None:
    text = written(config)
    if CANARY in f"{text}{config!r}":
        tally.fail("a password is shown", raw)
    try:
        again = parse(text.encode(), "y.yml", env={})
    except ConfigError as error:
        tally.fail(f"not taken when written: {error}", raw)
        return
    if shown(again) != shown(config) or _bare(again) != _bare(config):
        tally.fail("not the same when written and read again", raw)


def _bare(config: Config) -> Config:
    """The configuration without what is secret in it."""
    nothing = Secret("")
    targets = [
        replace(
            plan,
            dsn=nothing,
            probes={
                name: probe
                if probe.address is None
                else replace(probe, address=nothing)
                for name, probe in plan.probes.items()
            },
        )
        for plan in config.targets
    ]
    peers = config.peers
    if peers is not None:
        peers = replace(peers, engine=replace(peers.engine, url=nothing))
    return replace(config, targets=tuple(targets), peers=peers)


# -- Real files, changed -----------------------------------------------------------


def mutated(draw: random.Random) -> bytes:
    """A real file after one to six changes."""
    text = draw.choice(SEEDS) if draw.random() < 0.8 else draw.choice(BAD)
    lines = text.splitlines() or [""]
    for _ in range(draw.randint(1, 6)):
        lines = draw.choice(CHANGES)(lines, draw) or [""]
    raw = "\n".join(lines).encode("utf-8", "surrogatepass")
    return _with_bytes(raw, draw) if draw.random() < 0.2 else raw


def _without(lines: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(lines))
    return lines[:at] + lines[at + draw.randint(1, 3) :]


def _twice(lines: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(lines))
    upto = at + draw.randint(1, 5)
    return lines[:upto] + lines[at:upto] + lines[upto:]


def _swapped(lines: list[str], draw: random.Random) -> list[str]:
    a, b = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return lines


def _indented(lines: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(lines))
    by = draw.choice((" ", "  ", "    ", "\t", "- ", ""))
    lines[at] = by + lines[at] if by else lines[at].lstrip()
    return lines


def _other_value(lines: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(lines))
    key, colon, _ = lines[at].partition(": ")
    lines[at] = f"{key}{colon}{draw.choice(VALUES)}"
    return lines


def _other_key(lines: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(lines))
    key, colon, rest = lines[at].partition(":")
    indent = key[: len(key) - len(key.lstrip(" -"))]
    word = draw.choice(KEYS) if draw.random() < 0.5 else _misspelt(key, draw)
    lines[at] = f"{indent}{word}{colon}{rest}"
    return lines


def _misspelt(key: str, draw: random.Random) -> str:
    letters = list(key.strip(" -"))
    if letters:
        at = draw.randrange(len(letters))
        letters[at : at + 1] = draw.choice((["x"], [], letters[at : at + 1] * 2))
    return "".join(letters)


def _new_line(lines: list[str], draw: random.Random) -> list[str]:
    at = draw.randrange(len(lines) + 1)
    indent = " " * draw.choice((0, 2, 4, 6, 8))
    return [
        *lines[:at],
        f"{indent}{draw.choice(KEYS)}: {draw.choice(VALUES)}",
        *lines[at:],
    ]


def _spliced(lines: list[str], draw: random.Random) -> list[str]:
    others = draw.choice(SEEDS + BAD).splitlines()
    begin = draw.randrange(len(others) or 1)
    at = draw.randrange(len(lines) + 1)
    return lines[:at] + others[begin : begin + draw.randint(1, 8)] + lines[at:]


CHANGES: tuple[Callable[[list[str], random.Random], list[str]], ...] = (
    *(_without, _twice, _swapped, _indented, _spliced, _new_line),
    *(_other_value, _other_value, _other_key),
)


def _with_bytes(raw: bytes, draw: random.Random) -> bytes:
    changed = bytearray(raw or b"x")
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(changed))
        changed[at : at + draw.randint(0, 2)] = bytes([draw.randrange(256)])
    return bytes(changed)


# -- Built of good and bad values --------------------------------------------------

_odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(VALUES),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def _mostly(good: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.integers(0, 80).flatmap(lambda n: good if n else _odd)


def _keys(**given_: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.fixed_dictionaries(
        {}, optional={key: _mostly(one) for key, one in given_.items()}
    )


_duration = st.one_of(
    st.integers(1, 59).map("{}s".format),
    st.integers(50, 5000).map("{}ms".format),
    st.floats(0.05, 9.0).map(lambda x: f"{x:.6f}s"),
)
_share = st.one_of(
    st.integers(1, 100).map("{}%".format), st.floats(0, 1, exclude_min=True)
)
_size = st.integers(8, 2000).map("{}MB".format)
_word = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
_times = {"interval": _duration, "timeout": _duration}
_breaker = _keys(
    failure_rate=_share,
    slow_rate=_share,
    jitter=_share,
    window=_duration,
    slow_call=_duration,
    minimum_calls=st.integers(1, 10**6),
    failure_threshold=st.integers(1, 100),
)
_dsn = st.builds(
    "postgresql://{}:{}@{}:{}/{}{}".format,
    _word,
    st.just(CANARY),
    st.sampled_from(("db1", "10.0.0.1", "[::1]")),
    st.integers(1, 65535),
    _word,
    st.sampled_from(("", "?sslmode=require", f"?password={CANARY}", "?options=-c%20x")),
)
_probes = _keys(
    login=st.one_of(st.booleans(), _keys(**_times)),
    identity=_keys(**_times),
    replication=_keys(max_lag=_duration),
    size=_keys(capacity=_size, **_times),
    latency=st.fixed_dictionaries({"query": st.just("SELECT 1")}),
)
_target = st.builds(
    lambda must, may: {**must, **may},
    st.fixed_dictionaries({"name": _word, "dsn": _dsn}),
    _keys(
        labels=st.dictionaries(_word, st.text(max_size=20), max_size=3),
        profile=st.sampled_from(("default", "fast")),
        breaker=_breaker,
        probes=_probes,
        custom=st.lists(
            st.fixed_dictionaries({"name": _word, "query": st.just("SELECT 2")}),
            max_size=3,
        ),
        pgbouncer=st.fixed_dictionaries({"dsn": _dsn}),
        patroni=st.just({"url": "http://h:8008/"}),
        **_times,
    ),
)
_file = st.builds(
    lambda must, may: {**must, **may},
    st.fixed_dictionaries(
        {
            "version": st.just(1),
            "targets": st.lists(
                _target, min_size=1, max_size=3, unique_by=lambda t: str(t["name"])
            ),
        }
    ),
    _keys(
        defaults=_keys(breaker=_breaker, **_times),
        http=_keys(
            listen=st.sampled_from(("127.0.0.1:9432", ":0", "[::1]:1")),
            allowed_hosts=st.lists(_word, max_size=3, unique=True),
            socket=st.just("/tmp/x.sock"),
        ),
        store=st.fixed_dictionaries(
            {"path": st.just("/tmp/pgbreaker-none.db"), "max_size": _size}
        ),
        record=st.fixed_dictionaries({"path": st.just("/tmp/pgbreaker-none.jsonl")}),
        log=_keys(level=st.sampled_from(("DEBUG", "INFO"))),
        otlp=st.fixed_dictionaries(
            {"endpoint": st.just("http://127.0.0.1:4318"), "sample": _share}
        ),
        alertmanager=st.fixed_dictionaries(
            {
                "urls": st.just(["http://am:9093"]),
                "labels": st.dictionaries(_word, st.text(max_size=9), max_size=2),
            }
        ),
    ),
)


def build(count: int, tally: Tally, seed: int) -> None:
    """Verify *count* configurations that Hypothesis builds."""
    done = 0

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=seed == 0,
    )
    @given(_file)
    def one(file: object) -> None:
        nonlocal done
        done += 1
        raw = yaml.safe_dump(file, sort_keys=False, allow_unicode=True)
        verify(raw.encode("utf-8", "surrogatepass"), tally)

    one()


def mutate(count: int, tally: Tally, seed: int) -> None:
    """Verify *count* real files that were changed."""
    draw = random.Random(seed)
    for _ in range(count):
        verify(mutated(draw), tally)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    # First: what Hypothesis leaves in memory is looked through by the collector.
    hard = Tally()
    for text in WORST.values():
        verify(text.encode("utf-8", "surrogatepass"), hard)
    tally, began = Tally(), time.monotonic()
    built = count * 3 // 10
    mutate(count - built, tally, 20261127)
    changed = tally.taken + tally.told
    build(built, tally, 0)
    total = tally.taken + tally.told
    missed = sum(tally.failures.values())
    print(
        f"configurations: {total} ({changed} changed, {total - changed} built),"
        f" {tally.told} told with their place, {tally.taken} taken and the same when"
        f" written and read again   goal {count}{'' if total >= count else '   MISSED'}"
    )
    print(
        f"crashes, tracebacks, secrets: {missed}   goal 0{'   MISSED' if missed else ''}"
    )
    print(
        f"slowest: {tally.slowest * 1000:.0f} ms of the processor   goal"
        f" <= {SLOWEST * 1000:.0f} ms; all in {time.monotonic() - began:.0f} s"
    )
    print(
        f"the {len(WORST)} worst there are: slowest {hard.slowest * 1000:.0f} ms   goal"
        f" <= {SLOWEST * 1000:.0f} ms{'   MISSED' if hard.failures else ''}"
    )
    tally.failures += hard.failures
    tally.example |= hard.example
    for what, times in tally.failures.most_common(5):
        print(f"\n{times} times: {what}\n{tally.example[what][:500]!r}")
    sys.exit(bool(tally.failures))


if __name__ == "__main__":
    main()
