"""What is shipped beside the code, handed out with the addresses of others."""

import json
import os
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pgbreaker.cli import cli
from pgbreaker.errors import PgbreakerError
from pgbreaker.export import export, filled
from pgbreaker.shipped import KINDS, shipped

ROOT = Path(__file__).parents[2]
_STAND = {"systemd": "daemon", "kubernetes": "config/kubernetes", "role": "config"}
GIVEN = {
    "grafana-url": "https://grafana.corp/g/",
    "runbook-url": "https://wiki.corp/runbooks",
}
ALL = GIVEN | {
    "watchdog-url": "https://dead.corp/x?y=1",
    "email": "night@corp.test",
    "smtp": "mail.corp:25",
}
IMAGE = {"image": "registry.corp:5000/pgbreaker:1.2.3"}


def test_the_unit_is_handed_out_as_it_is(tmp_path):
    assert export("systemd", tmp_path, {}, force=False) == 1

    unit = ROOT / "daemon/pgbreaker.service"
    assert texts(tmp_path) == {"pgbreaker.service": unit.read_text("utf-8")}


def texts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text("utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("given", [GIVEN, ALL], ids=["what has to be", "all"])
@pytest.mark.parametrize("kind", ["alerts", "dashboards", "kubernetes"])
def test_nothing_of_ours_is_left_in_what_is_handed_out(kind, given, tmp_path):
    count = export(kind, tmp_path / "new", given | IMAGE, force=False)

    made = texts(tmp_path / "new")
    assert len(made) == count > 5
    assert not [path for path, text in made.items() if "example.org" in text]
    assert not [path for path, text in made.items() if "# begin:" in text]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wheel_has_all_that_is_handed_out(kind):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    stand = _STAND.get(kind, kind)

    handed_out = [path for path, _ in shipped(kind)]
    assert handed_out
    assert [p for p in handed_out if not _is_in(wheel, stand, kind, p)] == []


def _is_in(wheel: dict[str, str], stand: str, kind: str, path: str) -> bool:
    """Whether the file is put where `shipped` looks for it, itself or with its folder."""
    from_, to = Path(stand, path), Path("pgbreaker/share", kind, path)
    pairs = zip((from_, *from_.parents), (to, *to.parents), strict=False)
    return any(wheel.get(str(a)) == str(b) for a, b in pairs)


def test_alerts_come_with_their_runbooks_routes_and_messages(tmp_path):
    export("alerts", tmp_path, ALL, force=False)

    made = texts(tmp_path)
    rules = yaml.safe_load(made["pgbreaker.rules.yml"])
    alerts = [
        rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule
    ]
    routes = yaml.safe_load(made["alertmanager.yml"])
    assert {"slack.tmpl"} < made.keys()
    assert routes["route"]["routes"]
    for alert in alerts:
        runbook, dashboard = (
            alert["annotations"][name] for name in ("runbook_url", "dashboard_url")
        )
        assert runbook == f"https://wiki.corp/runbooks/{alert['alert']}.md"
        assert dashboard.startswith("https://grafana.corp/g/d/")
        assert f"runbooks/{alert['alert']}.md" in made


def test_dashboards_are_the_documents_that_grafana_takes(tmp_path):
    export("dashboards", tmp_path, GIVEN, force=False)

    made = texts(tmp_path)
    assert all(path.endswith(".json") for path in made)
    assert {json.loads(text)["uid"] for text in made.values()} == {
        f"pgbreaker-{name}"
        for name in ("overview", "target", "breakers", "pools", "slo", "daemon")
    }


def test_a_receiver_without_an_address_stays_and_tells_nobody(tmp_path):
    export("alerts", tmp_path / "with", ALL, force=False)
    export("alerts", tmp_path / "without", GIVEN, force=False)

    with_, without = (
        {
            receiver["name"]: set(receiver) - {"name"}
            for receiver in yaml.safe_load(
                (tmp_path / folder / "alertmanager.yml").read_text("utf-8")
            )["receivers"]
        }
        for folder in ("with", "without")
    )
    assert with_.keys() == without.keys()
    assert {name for name in with_ if with_[name] != without[name]} == {
        "watchdog",
        "email",
    }


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("grafana-url", "grafana.example.org is left in"),
        ("runbook-url", "say --runbook-url"),
        ("smtp", "say --smtp"),
    ],
)
def test_what_is_left_is_refused_with_its_place_and_what_helps(missing, says, tmp_path):
    given = {name: text for name, text in ALL.items() if name != missing}

    with pytest.raises(PgbreakerError, match=says) as caught:
        export("alerts", tmp_path / "new", given, force=False)

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("grafana-url", "grafana.corp"),
        ("runbook-url", 'https://wiki.corp/"x'),
        ("watchdog-url", "https://x.corp/{{ a }}"),
        ("grafana-url", "https://g.corp/?orgId=2"),
        ("grafana-url", "https://me:secret@g.corp"),
        ("runbook-url", "https://wiki.corp/#runbooks"),
        ("watchdog-url", "https://me:secret@x.corp/"),
        ("email", "me at corp"),
        ("email", "a:b@c:"),
        ("smtp", "mail corp"),
        ("smtp", "mail.corp"),
        ("image", "registry.corp/pgbreaker"),
        ("image", "registry.corp/pgbreaker:latest"),
        ("image", "registry.corp/pgbreaker@sha256:1234"),
        ("image", "registry.corp/pg breaker:1"),
    ],
)
def test_what_is_no_address_is_refused(option, text, tmp_path):
    with pytest.raises(PgbreakerError, match=f"--{option}"):
        export("alerts", tmp_path, ALL | {option: text}, force=False)


@pytest.mark.parametrize(
    "text", ["pgbreaker:1", "r.corp:5000/a/b:v1.2-x", f"r.corp/b@sha256:{'0a' * 32}"]
)
def test_an_image_is_named_with_what_never_changes(text, tmp_path):
    given = GIVEN | {"image": text}

    assert export("kubernetes", tmp_path, given, force=False)


def test_a_server_for_mail_is_nothing_without_somebody_to_write_to(tmp_path):
    with pytest.raises(PgbreakerError, match="--email"):
        export("alerts", tmp_path, GIVEN | {"smtp": "mail.corp:25"}, force=False)


def test_a_slash_at_the_end_is_the_dead_mans_own(tmp_path):
    given = GIVEN | {"watchdog-url": "https://dead.corp/x/"}

    export("alerts", tmp_path, given, force=False)

    made = (tmp_path / "alertmanager.yml").read_text("utf-8")
    assert "url: https://dead.corp/x/\n" in made


def test_a_host_that_only_begins_like_a_placeholder_is_an_address(tmp_path):
    given = GIVEN | {"grafana-url": "https://g.example.organics.corp"}

    assert export("alerts", tmp_path, given, force=False)


def test_our_own_placeholder_is_no_address_either(tmp_path):
    given = GIVEN | {"grafana-url": "https://grafana.example.org"}

    with pytest.raises(PgbreakerError, match="is left in"):
        export("alerts", tmp_path, given, force=False)


def test_what_somebody_changed_is_overwritten_only_when_told_to(tmp_path):
    export("alerts", tmp_path, GIVEN, force=False)
    export("alerts", tmp_path, GIVEN, force=False)  # the same again is no change
    edited = tmp_path / "alertmanager.yml"
    edited.write_text("mine", "utf-8")

    with pytest.raises(PgbreakerError, match=r"alertmanager\.yml would be overwritten"):
        export("alerts", tmp_path, ALL, force=False)
    assert edited.read_text("utf-8") == "mine"

    export("alerts", tmp_path, ALL, force=True)
    assert "night@corp.test" in edited.read_text("utf-8")


def test_what_is_there_and_is_no_text_is_not_overwritten_either(tmp_path):
    (tmp_path / "slack.tmpl").write_bytes(b"\xff\xfe")

    with pytest.raises(PgbreakerError, match=r"slack\.tmpl would be overwritten"):
        export("alerts", tmp_path, GIVEN, force=False)


def test_others_may_read_it_whatever_the_mask_of_who_wrote_it(tmp_path):
    before = os.umask(0o077)
    try:
        export("alerts", tmp_path / "new", GIVEN, force=False)
    finally:
        os.umask(before)

    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*")}
    assert modes == {0o644, 0o755}
    assert not list((tmp_path / "new").rglob(".*"))


def test_who_fails_in_the_middle_says_where(tmp_path):
    (tmp_path / "runbooks/PgbreakerDown.md").mkdir(parents=True)

    with pytest.raises(PgbreakerError, match=r"cannot write .*PgbreakerDown\.md"):
        export("alerts", tmp_path, GIVEN, force=True)


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("", "utf-8")

    with pytest.raises(PgbreakerError, match=r"cannot write .*below"):
        export("alerts", tmp_path / "file/below", GIVEN, force=False)


def test_a_block_goes_when_nobody_has_an_address_for_it():
    text = "a\n  # begin: email\n  to: oncall@example.org\n  # end: email\nb\n"

    assert filled(text, {}) == "a\nb\n"
    assert filled(text, {"email": "me@corp"}) == "a\n  to: me@corp\nb\n"


def test_the_command_says_what_it_wrote_and_what_nobody_hears(tmp_path):
    urls = ("--grafana-url", "https://g.corp", "--runbook-url", "https://r.corp")

    done = CliRunner().invoke(cli, ["export", "alerts", str(tmp_path), *urls])

    assert done.exit_code == 0, done.output
    assert f"{tmp_path}: " in done.output
    assert "--watchdog-url" in done.output


def test_the_command_says_what_is_to_be_done_with_manifests(tmp_path):
    urls = ("--grafana-url", "https://g.corp", "--runbook-url", "https://r.corp")
    image = ("--image", "r.corp/pgbreaker:1")

    without = CliRunner().invoke(cli, ["export", "kubernetes", str(tmp_path), *urls])
    done = CliRunner().invoke(
        cli, ["export", "kubernetes", str(tmp_path), *urls, *image]
    )

    assert "say --image" in without.stderr
    assert done.exit_code == 0, done.output
    assert f"kubectl apply -k {tmp_path}" in done.output
