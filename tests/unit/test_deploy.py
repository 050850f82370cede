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
from support.tools import need

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
UNIT = ROOT / "daemon/pgbreaker.service"


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_each_service_is_pinned_and_listens_on_loopback_alone(name):
    service = COMPOSE["services"][name]

    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"])
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_each_mounted_file_is_there(name):
    for mount in COMPOSE["services"][name].get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), source


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
