"""The files that deploy it say what they should; running them is done elsewhere."""

import configparser
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from pgbreaker import __version__
from pgbreaker.config import parse
from support.tools import need

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
UNIT = ROOT / "daemon/pgbreaker.service"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_each_service_is_pinned_and_published_on_loopback_alone(name):
    service = COMPOSE["services"][name]

    # Of another registry, by its name: podman knows no other way.
    assert re.fullmatch(
        r"(docker\.io/[\w-]+/[\w-]+|pgbreaker):v?\d+\.\d+[\w.-]*", service["image"]
    )
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_each_service_has_bounds_and_no_power(name):
    """What it may take of the machine and write to its log ends; it can gain nothing."""
    service = COMPOSE["services"][name]

    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "devices", "pid", "ipc"}
    assert service.get("network_mode") in (None, "none")


LASTING = [name for name, one in COMPOSE["services"].items() if one["restart"] != "no"]


@pytest.mark.parametrize("name", LASTING)
def test_what_goes_on_is_started_again_and_says_whether_it_is_well(name):
    service = COMPOSE["services"][name]

    assert service["restart"] == "unless-stopped"
    kind, *command = service["healthcheck"]["test"]
    assert kind == "CMD", "an image may have no shell"
    assert command


def test_nothing_waits_for_the_database():
    """The daemon and the shop are there for when it is not."""
    for service in COMPOSE["services"].values():
        waits = service.get("depends_on", {})
        assert waits in (
            {},
            {"prepare": {"condition": "service_completed_successfully"}},
        )


def test_up_brings_all_but_the_faults():
    profiles = {
        name: service["profiles"]
        for name, service in COMPOSE["services"].items()
        if "profiles" in service
    }

    assert profiles == {"fill": ["faults"], "lock": ["faults"]}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_each_mounted_file_is_there(name):
    for mount in COMPOSE["services"][name].get("volumes", []):
        source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", mount).split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).is_file() or (ROOT / source).is_dir(), source
        else:
            assert source in COMPOSE["volumes"]


def test_grafana_leads_from_a_slow_bucket_to_its_trace_and_back():
    folder = ROOT / "config/grafana/provisioning/datasources"
    prometheus, tempo = (
        yaml.safe_load((folder / f"{name}.yaml").read_text("utf-8"))["datasources"][0]
        for name in ("prometheus", "tempo")
    )

    (there,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert there == {"name": "trace_id", "datasourceUid": tempo["uid"]}
    assert tempo["jsonData"]["tracesToMetrics"]["datasourceUid"] == prometheus["uid"]
    assert tempo["url"] == "http://tempo:3200"
    config = yaml.safe_load((ROOT / "config/compose/tempo.yaml").read_text("utf-8"))
    assert config["server"]["http_listen_port"] == 3200


def test_traces_and_alerts_go_where_somebody_listens():
    text = (ROOT / "config/compose/pgbreaker.yaml").read_text("utf-8")
    config = parse(text.encode(), "pgbreaker.yaml", env={})
    tempo = yaml.safe_load((ROOT / "config/compose/tempo.yaml").read_text("utf-8"))
    receivers = tempo["distributor"]["receivers"]["otlp"]["protocols"]

    assert config.otlp.endpoint == "http://tempo:4318"
    assert receivers["http"]["endpoint"] == "0.0.0.0:4318"
    assert config.alertmanager.urls == ("http://alertmanager:9093",)
    assert config.http.allowed_hosts == ("pgbreaker",)
    address = (ROOT / "config/compose/slack-webhook-url").read_text("utf-8")
    assert address.startswith("http://slack:9095/services/")


def test_the_unit_is_tied_to_progress_and_hardened():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # its keys have capitals
    unit.read(UNIT)
    service = unit["Service"]

    assert service["Type"] == "notify"
    assert service["WatchdogSec"] == "30"
    assert "78" in service["RestartPreventExitStatus"].split()
    for key in ("DynamicUser", "NoNewPrivileges", "MemoryDenyWriteExecute"):
        assert service[key] == "yes"


def test_the_unit_is_exposed_as_little_as_promised():
    tool = need("systemd-analyze", "systemd")
    done = subprocess.run(
        [tool, "security", "--offline=true", "--threshold=15", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-500:]


def test_the_unit_says_why_of_everything_that_is_still_open():
    tool = need("systemd-analyze", "systemd")
    command = [tool, "security", "--offline=true", "--json=short", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = UNIT.read_text("utf-8").splitlines()
    words = " ".join(line for line in lines if line.startswith("# "))

    found = {
        finding["name"].split("=")[0]
        for finding in json.loads(done.stdout)
        if not finding["set"] and finding["exposure"]
    }

    assert "PrivateNetwork" in found  # it speaks to servers, so there is something
    assert {name for name in found if name not in words} == set()


def test_the_image_is_of_this_version():
    text = (ROOT / "daemon/Dockerfile").read_text("utf-8")

    assert re.findall(r"^ARG VERSION=(.+)$", text, re.MULTILINE) == [__version__]
    assert set(re.findall(r"pgbreaker:(\d[\d.]*)", text)) == {__version__}


def test_the_image_is_given_all_that_the_wheel_is_made_of():
    """What is not let into the build is missed there at once, and not here."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = built["tool"]["hatch"]["build"]["targets"]["wheel"]
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    given = tuple(line.removeprefix("!") for line in lines if line.startswith("!"))

    wanted = [*wheel["packages"], *wheel["force-include"], "daemon/requirements.lock"]
    astray = [path for path in wanted if not path.startswith(given)]
    assert astray == []
