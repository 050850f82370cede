"""The configuration in force as it is shown, what changed in it, and its schema."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pgbreaker import config
from pgbreaker.config.document import read
from pgbreaker.config.hints import HINTS
from pgbreaker.config.show import redacted, to_yaml
from pgbreaker.config.units import (
    share,
    size,
    written_duration,
    written_share,
    written_size,
)
from pgbreaker.core.units import duration
from pgbreaker.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLES = ("pgbreaker.yaml", "minimal.yaml", "compose/pgbreaker.yaml")
CANARY = "hunter2"
BASE = f"""\
version: 1
targets:
  - name: main
    dsn: postgresql://monitor:{CANARY}@db1/app
    pgbouncer: {{dsn: "postgresql://stats:{CANARY}@db1:6432/pgbouncer"}}
    custom: [{{name: jobs, query: SELECT 1}}]
  - {{name: other, dsn: "postgresql://monitor@db2/app", labels: {{env: prod}}}}
"""


def parsed(text: str, **env: str):
    return config.parse(text.encode(), "x.yml", env=env)


def changed(*swaps: tuple[str, str]) -> tuple[str, ...]:
    text = BASE
    for old, new in swaps:
        assert old in text
        text = text.replace(old, new)
    return config.diff(parsed(BASE), parsed(text))


# -- Showing -----------------------------------------------------------------------


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_shown_is_a_configuration_that_is_the_same(name):
    text = (ROOT / "config" / name).read_text("utf-8")
    before = parsed(text, PGPASSWORD=CANARY)

    again = parsed(config.written(before))

    assert config.shown(again) == config.shown(before)
    assert config.diff(before, replace(again, targets=before.targets)) == ()
    assert json.loads(json.dumps(config.shown(before))) == config.shown(before)


def test_what_is_shown_of_load_balancers_and_poolers_is_read_as_the_same():
    pause = f"""
      pause:
        {{database: "my app", while_open: read, max_time: 1m30s,
         dsn: "postgresql://boss:{CANARY}@db1:6432/pgbouncer"}}"""
    before = parsed(
        BASE.replace(
            f'{{dsn: "postgresql://stats:{CANARY}@db1:6432/pgbouncer"}}',
            f'\n      dsn: "postgresql://stats:{CANARY}@db1:6432/pgbouncer"{pause}',
        )
        + "haproxy: {listen: '[::1]:9433'}\n"
    )

    again = parsed(config.written(before))

    assert CANARY not in config.written(before)
    assert config.shown(again) == config.shown(before)
    assert before.haproxy == again.haproxy
    plan = again.targets[0].pause
    assert plan is not None
    assert (plan.database, plan.while_open, plan.max_time) == ("my app", "read", 90.0)


def test_a_pause_goes_by_the_probes_console_unless_it_has_its_own():
    usual = f'"postgresql://stats:{CANARY}@db1:6432/pgbouncer"'
    plain = parsed(BASE.replace(f"{usual}}}", f"{usual}, pause: {{database: app}}}}"))

    (pooler, pause) = plain.targets[0].probes["pgbouncer"], plain.targets[0].pause

    assert pause is not None
    assert pause.address == pooler.address
    assert pause.max_time == 30.0


def test_a_password_of_a_pause_that_changed_is_said_to_have():
    usual = f'"postgresql://stats:{CANARY}@db1:6432/pgbouncer"'
    own = "pause: {database: app, dsn: 'postgresql://boss:one@db1:6432/pgbouncer'}"
    before = BASE.replace(f"{usual}}}", f"{usual}, {own}}}")
    after = before.replace("boss:one", "boss:two")

    assert config.diff(parsed(before), parsed(after)) == (
        "targets.main.pgbouncer.pause.dsn: changed",
    )
    assert config.later(
        config.diff(parsed(BASE), parsed(f"{BASE}haproxy: {{listen: ':1'}}"))
    ) == ("haproxy: added",)


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://me:hunter2@h:1/a", "postgresql://me@h:1/a"),
        ("postgresql://me@h/a?password=hunter2", "postgresql://me@h/a"),
        ("postgresql://h/a?user=me&sslmode=require", None),
        ("postgresql:///a?host=/run&port=1", None),
        ("postgres://:hunter2@h", "postgres://h"),
        ("postgresql://me:hunter2@[::1]:1/a", "postgresql://me@[::1]:1/a"),
        ("postgresql://h/a?sslpassword=hunter2&sslmode=require", "postgresql://h/a?sslmode=require"),
        ("postgresql://h/a?options=-c%20x%3Dhunter2", "postgresql://h/a"),
        ("postgresql://me:1/hunter2@h/a#hunter2", "postgresql://me@h/a"),
    ],
)  # fmt: skip
def test_of_an_address_only_where_it_leads_is_shown(dsn, shown):
    said = redacted(dsn)

    assert CANARY not in said
    assert said == shown or shown is None and said == dsn  # noqa: RUF021 - as it reads


def test_no_secret_is_shown_anywhere():
    found = parsed(BASE)

    for text in (config.written(found), repr(found), str(config.shown(found))):
        assert CANARY not in text
    assert CANARY not in "".join(changed((CANARY, "other"), ("db1", "db9")))
    assert CANARY not in config.starter(f"postgresql://me:{CANARY}@h/a")


@pytest.mark.parametrize(
    "wrong",
    [
        "log: {level: 'postgresql://me:hunter2@h/a'}",
        "otlp: {endpoint: 'http://me:hunter2@h'}",
        "alertmanager: {urls: ['http://me:hunter2@h']}",
        "password: hunter2",
        "? {dsn: postgresql://me:hunter2@h/a}\n: 1",
        "store: {path: 'host=h password=hunter2'}",
        "http: {listen: 'me:hunter2@h'}",
        "log: {level: '${SECRET}'}",
        "log: {format: 'x${SECRET}y'}",
        "targets: [{name: '${SECRET}!', dsn: '${SECRET}'}]",
        "'dsn:postgresql://me:hunter2@h': 1",
        "x: *hunter2",
        "x: !hunter2 y",
        "x: 'hunter2",
        "include: ['hunter2/*/x']",
    ],
)
def test_no_secret_is_in_a_message(wrong):
    with pytest.raises(ConfigError) as caught:
        parsed(f"version: 1\n{wrong}\n", SECRET=CANARY)

    assert CANARY not in str(caught.value)


_scalars = st.one_of(
    st.text(max_size=30),
    st.integers(-(10**17), 10**17),
    st.booleans(),
    st.floats(0, 1e9),
    st.sampled_from(("1e5", "no", "~", "", "0x10", "1:30", "${A}", "$${A}", "$", "*a")),
)


@given(st.dictionaries(st.from_regex("[a-z]{1,9}", fullmatch=True), _scalars))
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_the_same(data):
    document = read(to_yaml(data).encode(), {"A": "put in"})

    assert document.problems == []
    assert document.data == data


@given(st.floats(1e-6, 3e7))
def test_a_number_is_written_so_that_exactly_it_is_read(number):
    assert duration(written_duration(number)) == number
    part = min(number, 1 / number)
    assert share(written_share(part)) == part
    assert size(written_size(number * 1024)) == number * 1024


# -- Differences -------------------------------------------------------------------


def test_a_change_is_said_with_what_it_was_and_what_it_is():
    log = "log: {level: DEBUG}\nhttp: {listen: 0.0.0.0:80}\nversion"
    window = "dsn: postgresql://monitor:hunter2@db1/app\n    breaker: {window: 30s}"

    said = changed(
        ("name: main", "name: main\n    interval: 2s"),
        ("dsn: postgresql://monitor:hunter2@db1/app", window),
        ("env: prod", "env: dev, team: pay"),
        ("SELECT 1", "SELECT 2"),
        ("version", log),
    )

    assert said == (
        "targets.main.interval: 1s -> 2s",
        "targets.main.breaker.window: 10s -> 30s",
        "targets.main.custom.jobs.query: SELECT 1 -> SELECT 2",
        "targets.other.labels.env: prod -> dev",
        "targets.other.labels.team: added",
        "http.listen: 127.0.0.1:9432 -> 0.0.0.0:80",
        "log.level: INFO -> DEBUG",
    )
    assert config.later(said) == ("http.listen: 127.0.0.1:9432 -> 0.0.0.0:80",)
    assert config.later(said, ("log.level", "targets.other")) == (
        said[3],
        said[4],
        said[6],
    )


def test_what_is_new_or_gone_is_said_by_its_name():
    off = "probes: {login: false}, labels: {env: prod}"

    assert changed(("name: other", "name: third")) == (
        "targets.other: removed",
        "targets.third: added",
    )
    assert changed(("labels: {env: prod}", off)) == (
        "targets.other.probes.login: {interval: 5s, timeout: 1s} -> false",
    )
    assert changed(("version", "store: {path: /tmp/x.db}\nversion")) == (
        "store: added",
    )


def test_a_secret_is_only_said_to_have_changed():
    assert changed((CANARY, "other")) == (
        "targets.main.dsn: changed",
        "targets.main.pgbouncer.dsn: changed",
    )
    assert CANARY not in "".join(changed((CANARY, "x"), ("6432", "6433")))
    assert changed((f"monitor:{CANARY}@db1", "monitor:x@db9")) == (
        "targets.main.dsn: postgresql://monitor@db1/app -> postgresql://monitor@db9/app",
    )


def test_what_changed_in_many_targets_is_said_once():
    many = "".join(f"  - {{name: t{n}, dsn: 'postgresql://h/a'}}\n" for n in range(9))
    before = parsed(f"version: 1\ntargets:\n{many}")
    after = parsed(f"version: 1\ndefaults: {{interval: 3s}}\ntargets:\n{many}")

    assert config.diff(before, after) == ("targets.*.interval: 1s -> 3s (9 targets)",)


def test_one_target_more_changes_nothing_in_many_others():
    def crowd(count: int):
        one = "  - {name: t%d, dsn: 'postgresql://h/a'}\n"
        return parsed("version: 1\ntargets:\n" + "".join(one % n for n in range(count)))

    (slower, *_, new) = config.diff(crowd(150), crowd(151))
    assert slower.endswith(" (150 targets)")
    assert new == "targets.t150: added"
    assert config.diff(crowd(151), crowd(152)) == ("targets.t151: added",)
    assert config.diff(crowd(99), crowd(100)) == ("targets.t99: added",)


def test_nothing_changed_is_no_line_and_another_order_is_one():
    found = parsed(BASE)
    turned = replace(found, targets=found.targets[::-1])

    assert config.diff(found, parsed(BASE)) == ()
    assert config.diff(found, turned) == ("targets: in another order",)


# -- The schema --------------------------------------------------------------------

SCHEMA = config.schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
GOOD = {"name": "a", "dsn": "postgresql://h/a"}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert "$ref" not in json.dumps(SCHEMA)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_schema_takes_what_the_loader_takes(name):
    text = (ROOT / "config" / name).read_text("utf-8")

    assert list(VALIDATOR.iter_errors(yaml.safe_load(text))) == []
    shown = config.shown(parsed(text, PGPASSWORD="x"))
    assert list(VALIDATOR.iter_errors(shown)) == []
    assert list(VALIDATOR.iter_errors(yaml.safe_load(config.starter()))) == []


@pytest.mark.parametrize(
    "more",
    [
        {"interval": 5},
        {"interval": "5 parsecs"},
        {"intervall": "5s"},
        {"breaker": {"failure_rate": "170%"}},
        {"breaker": {"failure_rate": 70}},
        {"breaker": {"minimum_calls": 0}},
        {"operations": ["raed"]},
        {"operations": []},
        {"profile": "quick"},
        {"labels": {"Env": "prod"}},
        {"labels": {"env": 1}},
        {"probes": {"latncy": {"query": "SELECT 1"}}},
        {"probes": {"latency": {"slow": "1s"}}},
        {"probes": {"size": {"capacity": 500}}},
        {"probes": {"ping": False}},
        {"patroni": {"url": "http://me:secret@h"}},
        {"dsn": "mysql://h/a"},
        {"name": "a b"},
    ],
    ids=str,
)
def test_the_schema_refuses_what_is_often_wrong(more):
    file = {"version": 1, "targets": [{**GOOD, **more}]}

    assert list(VALIDATOR.iter_errors(file))
    with pytest.raises(ConfigError):
        parsed(to_yaml(file))


@pytest.mark.parametrize(
    "more",
    [
        {"interval": "${INTERVAL}"},
        {"breaker": {"jitter": 0.5, "window": "1m30s"}},
        {"probes": {"login": False, "commit": True, "identity": {"interval": "2s"}}},
        {"pgbouncer": False},
        {"operations": ["read"]},
    ],
    ids=str,
)
def test_the_schema_takes_what_is_seldom_written(more):
    file = {"version": 1, "targets": [{**GOOD, **more}]}

    assert list(VALIDATOR.iter_errors(file)) == []
    parsed(yaml.safe_dump(file), INTERVAL="5s")


def test_the_schema_says_every_default_and_every_meaning():
    def walk(part, path):
        for key, said in part.get("properties", {}).items():
            assert said.get("description"), f"{path}.{key}"
            for inner in (said, said.get("items", {}), *said.get("anyOf", ())):
                walk(inner, f"{path}.{key}")

    walk(SCHEMA, "")
    target = SCHEMA["properties"]["targets"]["items"]["properties"]
    rules = SCHEMA["properties"]["defaults"]["properties"]["breaker"]["properties"]
    assert rules["max_timeout"]["default"] == "60s"
    assert "default" not in target["breaker"]["properties"]["max_timeout"]
    assert target["operations"]["default"] == ["connect", "read", "write"]
    assert SCHEMA["properties"]["store"]["properties"]["max_size"]["default"] == "256MB"


# -- The first file, and hints -----------------------------------------------------


def uncommented(text: str, key: str) -> str:
    """*text* with the comment that shows *key* made to hold."""
    lines = text.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.strip().startswith(f"# {key}:")]
    lines[at] = lines[at].replace("# ", "", 1)
    return (
        "\n".join(lines)
        .replace("/var/lib/pgbreaker/", "/tmp/")
        .replace("web_config: web.yml", "web_config: /dev/null")
    )


def test_the_first_file_is_good_as_it_is_and_so_is_every_comment_in_it():
    text = config.starter("postgresql://me@db-1:6000/app?sslmode=require")
    (target,) = parsed(text).targets

    assert target.name == "db-1"
    assert target.dsn.reveal() == "postgresql://me@db-1:6000/app?sslmode=require"
    assert "# yaml-language-server" in text
    for key in ("labels", "pgbouncer", "include", "web_config", "store", "otlp"):
        parsed(uncommented(text, key))


def test_the_first_file_refuses_what_is_no_dsn_without_showing_it():
    with pytest.raises(ConfigError) as caught:
        config.starter(f"host=h password={CANARY}")

    assert CANARY not in str(caught.value)


def test_no_hint_is_for_a_key_that_there_is():
    from pgbreaker.config import shape

    places = {
        "": shape.FileShape,
        "defaults": shape.DefaultsShape,
        "targets": shape.TargetShape,
        "breaker": shape.BreakerShape,
        "http": shape.HttpShape,
        "log": shape.LogShape,
        "store": shape.StoreShape,
        "otlp": shape.OtlpShape,
        "pgbouncer": shape.PgbouncerShape,
        "patroni": shape.PatroniShape,
        "alertmanager": shape.AlertmanagerShape,
    }

    assert places.keys() == HINTS.keys()
    for place, model in places.items():
        assert not HINTS[place].keys() & model.model_fields.keys()
