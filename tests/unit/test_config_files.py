"""A configuration of several files, its secrets, and what is watched for changes."""

import os
import stat
from pathlib import Path

import pytest

from pgbreaker import config
from pgbreaker.core.plan import RecordPlan, StorePlan
from pgbreaker.errors import ConfigError

MAIN = """\
version: 1
include: [conf.d/*.yaml]
targets:
  - {name: main, dsn: "postgresql://monitor@db1/app"}
"""
CANARY = "hunter2"


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """A main file that includes what is in ``conf.d`` beside it."""
    (tmp_path / "conf.d").mkdir()
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(MAIN)
    return path


def part(main: Path, name: str, text: str) -> Path:
    path = main.parent / "conf.d" / name
    path.write_text(text)
    return path


def target(name: str, more: str = "") -> str:
    return f"  - {{name: {name}, dsn: 'postgresql://monitor@{name}/app'{more}}}\n"


def complaints(main: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(main, env={})
    return [line.replace(f"{main.parent}/", "") for line in caught.value.problems]


# -- Several files -----------------------------------------------------------------


def test_targets_come_from_every_file_in_the_order_of_their_names(main):
    part(main, "20.yaml", "targets:\n" + target("c") + target("d"))
    part(main, "10.yaml", "version: 1\ntargets:\n" + target("b"))
    part(main, "30.yml", "targets:\n" + target("of-another-ending"))
    part(main, ".half.yaml", "targets:\n" + target("hidden"))

    found = config.load(main, env={})

    assert [plan.name for plan in found.targets] == ["main", "b", "c", "d"]
    assert [path.name for path in config.sources(main)] == [
        "pgbreaker.yaml",
        "10.yaml",
        "20.yaml",
    ]


def test_targets_of_another_file_have_the_defaults_of_the_main_one(main):
    main.write_text(MAIN + "defaults: {interval: 3s, breaker: {window: 30s}}\n")
    part(main, "a.yaml", "targets:\n" + target("other"))

    _, other = config.load(main, env={}).targets

    assert other.probes["ping"].interval == 3.0
    assert other.policy.window == 30.0


def test_a_main_file_may_leave_the_targets_to_the_others(main):
    main.write_text("version: 1\ninclude: [conf.d/*.yaml]\n")

    assert complaints(main) == [
        "pgbreaker.yaml:1:1: targets is missing; there is nobody to watch"
    ]

    part(main, "a.yaml", "targets:\n" + target("only"))

    assert [plan.name for plan in config.load(main, env={}).targets] == ["only"]


def test_a_mistake_is_said_with_the_file_that_it_is_in(main):
    main.write_text(MAIN + "log: {level: loud}\n")
    part(main, "a.yaml", "targets:\n" + target("a", ", intervall: 1s"))
    part(main, "b.yaml", "targets:\n" + target("b") + target("main") + target("a"))
    part(main, "c.yaml", "http: {listen: 127.0.0.1:1}\ntargets: [\n")
    part(main, "d.yaml", "http: {listen: 127.0.0.1:1}\ntargts: []\n")
    part(main, "e.yaml", "")

    assert complaints(main) == [
        (
            "pgbreaker.yaml:5:14: log.level: no level is called 'loud';"
            " there are DEBUG, INFO, WARNING, ERROR"
        ),
        "conf.d/a.yaml:2:50: targets.0.intervall: no such key; did you mean 'interval'?",
        (
            "conf.d/b.yaml:3:12: targets.1.name: another target is called 'main',"
            " in pgbreaker.yaml:4"
        ),
        (
            "conf.d/b.yaml:4:12: targets.2.name: another target is called 'a',"
            " in conf.d/a.yaml:2"
        ),
        (
            "conf.d/c.yaml:3:1: not YAML: while parsing a flow node"
            " expected the node content, but found '<stream end>'"
        ),
        (
            "conf.d/d.yaml:1:1: http: an included file holds targets alone;"
            " write this into the main one"
        ),
        "conf.d/d.yaml:2:1: targts: no such key; did you mean 'targets'?",
        "conf.d/e.yaml:1:1: the file is empty; it needs at least version and targets",
    ]


def test_all_files_together_may_be_only_so_large(main):
    for name in ("a", "b", "c"):
        padding = "#" * 400_000
        part(main, f"{name}.yaml", f"targets:\n{target(name)}{padding}\n")

    (said,) = complaints(main)

    assert said == "conf.d/c.yaml:1:1: the configuration has more than 1048576 bytes"


def test_all_files_together_may_have_only_so_many_values(main):
    many = "    - &b [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n    - &c [" + "*b, " * 400 + "]\n"
    for name in ("a", "b"):
        text = (
            "targets:\n" + target(name) + "custom:\n" + many + "    - [" + "*c, " * 13
        )
        part(main, f"{name}.yaml", text + "]\n")

    said = complaints(main)

    assert said[-1] == (
        "conf.d/b.yaml:1:1: more than 40000 values, aliases counted in full"
    )


def test_all_files_together_may_have_only_so_many_targets(main):
    for name, count in (("a", 1300), ("b", 1200)):
        many = "".join(target(f"{name}{n}") for n in range(count))
        part(main, f"{name}.yaml", f"targets:\n{many}")

    assert complaints(main) == [
        "pgbreaker.yaml:4:3: targets: 2501 targets; at most 2500 are taken"
    ]


def test_the_main_file_does_not_include_itself(main):
    main.write_text(MAIN.replace("conf.d/*.yaml", "'*.yaml'"))
    (main.parent / "others.yaml").write_text("targets:\n" + target("b"))

    assert [plan.name for plan in config.load(main, env={}).targets] == ["main", "b"]
    assert [path.name for path in config.sources(main)] == [main.name, "others.yaml"]


def test_the_name_of_a_file_may_hold_a_variable(main):
    main.write_text(MAIN.replace("conf.d/*.yaml", "'conf.d/${SITE}.yaml'"))
    part(main, "east.yaml", "targets:\n" + target("b"))
    env = {"SITE": "east"}

    assert [plan.name for plan in config.load(main, env=env).targets] == ["main", "b"]
    assert len(config.sources(main, env)) == 2
    assert len(config.sources(main, {"SITE": "west"})) == 1


def test_a_file_that_is_named_has_to_be_there_and_a_pattern_may_be_of_none(main):
    main.write_text(MAIN.replace("conf.d/*.yaml", "conf.d/*.yaml, one.yaml, no/*.yml"))

    assert complaints(main) == ["pgbreaker.yaml:2:26: include.1: there is no such file"]


# -- Changes -----------------------------------------------------------------------


def test_the_fingerprint_is_of_names_and_contents_and_of_nothing_else(main):
    one = part(main, "a.yaml", "targets:\n" + target("a"))
    before = config.fingerprint(main)

    os.utime(one, (1, 1))
    (main.parent / "primary.password").write_text(CANARY)
    assert config.fingerprint(main) == before

    one.write_text("targets:\n" + target("b"))
    changed = config.fingerprint(main)
    one.rename(one.with_name("b.yaml"))
    renamed = config.fingerprint(main)
    part(main, "c.yaml", "")
    added = config.fingerprint(main)
    main.write_text("version: [")
    broken = config.fingerprint(main)
    main.unlink()
    gone = config.fingerprint(main)

    assert len({before, changed, renamed, added, broken, gone}) == 6


def test_the_fingerprint_follows_the_links_that_kubernetes_swaps(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yaml").write_text(MAIN + f"# {name}\n")
    link = tmp_path / "data"
    link.symlink_to("old")
    before = config.fingerprint(link / "x.yaml")

    link.unlink()
    link.symlink_to("new")

    assert config.fingerprint(link / "x.yaml") != before


# -- Paths -------------------------------------------------------------------------


def test_relative_paths_begin_where_the_main_file_is(main):
    (main.parent / "web.yml").write_text("{}")
    (main.parent / "secret").write_text(CANARY)
    more = ", password_file: ./secret"
    main.write_text(
        "version: 1\ntargets:\n"
        + target("main", more)
        + "store: {path: state.db, max_size: 8MB}\n"
        + "record: {path: ../r.jsonl}\n"
        + "http: {web_config: web.yml, socket: a.sock, allowed_hosts: [DB1, '[::1]']}\n"
    )

    found = config.load(main, env={})

    folder = main.parent
    assert found.targets[0].password_file == folder / "secret"
    assert found.store == StorePlan(path=folder / "state.db", max_size=8 * 1024**2)
    assert found.record == RecordPlan(path=folder.parent / "r.jsonl")
    assert found.http.web_config == folder / "web.yml"
    assert found.http.socket == folder / "a.sock"
    assert found.http.allowed_hosts == ("db1", "::1")


def test_a_pipe_is_not_waited_for(main):
    os.mkfifo(main.parent / "pipe")
    more = ", password_file: ./pipe"
    main.write_text("version: 1\ntargets:\n" + target("main", more))

    (said,) = complaints(main)

    assert said.endswith("targets.0.password_file: the file is empty")


# -- Secrets -----------------------------------------------------------------------


def test_a_credential_called_as_the_target_is_its_password(main, tmp_path):
    (tmp_path / "main").write_text(CANARY)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    (found,) = config.load(main, env=env).targets

    assert found.password_file == tmp_path / "main"
    assert config.load(main, env={}).targets[0].password_file is None


def test_a_credential_that_cannot_be_looked_at_is_told_when_it_is_read(main):
    """And is no traceback: a service manager's directory may be closed to us."""
    env = {"CREDENTIALS_DIRECTORY": "/" + "x" * 300}  # too long a name to look at

    (found,) = config.load(main, env=env).targets

    assert found.password_file is not None


def test_a_password_file_goes_before_a_credential_and_so_does_a_dsn(main, tmp_path):
    (tmp_path / "main").write_text(CANARY)
    (tmp_path / "given").write_text(CANARY)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    main.write_text(
        "version: 1\ntargets:\n" + target("main", f", password_file: {tmp_path}/given")
    )
    (by_file,) = config.load(main, env=env).targets
    main.write_text(MAIN.replace("monitor@", f"monitor:{CANARY}@"))
    in_dsn = config.load(main, env=env)

    assert by_file.password_file == tmp_path / "given"
    assert in_dsn.targets[0].password_file is None
    assert config.cautions(in_dsn, env) == (
        (
            "targets.main.dsn: the credential 'main' is not used,"
            " for a password is in the dsn"
        ),
    )


def test_a_secret_that_others_can_read_is_cautioned_of(main, tmp_path):
    secret, noted = tmp_path / "secret", tmp_path / ".pgpass"
    for path in (secret, noted):
        path.write_text(CANARY)
        path.chmod(0o644)
    env = {"HOME": str(tmp_path)}
    main.write_text(
        "version: 1\ntargets:\n"
        + target("a", f", password_file: {secret}")
        + target("b")
        + target("c")
    )
    found = config.load(main, env=env)

    first, *others = config.cautions(found, env)

    assert first.startswith(f"targets.a.password_file: '{secret}' can be read by every")
    assert [line.partition(":")[0] for line in others] == ["targets.b", "targets.c"]
    assert f"chmod 600 {noted}" in others[0]
    for path in (secret, noted):
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert config.cautions(found, env) == ()


def test_what_will_not_be_done_and_who_may_ask_is_cautioned_of(main):
    pooler = "postgresql://boss:x@db1:6432/pgbouncer"
    pause = f", pgbouncer: {{dsn: '{pooler}', pause: {{database: app}}}}"
    text = f"version: 1\ntargets:\n{target('a', pause)}"
    env = {"PGPASSWORD": CANARY}

    def said(more: str, **besides: str) -> list[str]:
        main.write_text(text + more)
        lines = config.cautions(config.load(main, env=env), env | besides)
        return [line.partition(":")[0] for line in lines]

    assert said("haproxy: {listen: 0.0.0.0:9433}\n") == [
        "haproxy.listen",
        "targets.a.pgbouncer.pause",
    ]
    assert said("haproxy: {listen: 127.0.0.1:9433}\n", STATE_DIRECTORY="/var/x") == []
    assert said("haproxy: {listen: localhost:9433}\nstore: {path: s.db}\n") == []
