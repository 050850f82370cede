"""The files that deploy it say what they should; running them is done elsewhere."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest
import yaml

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


def test_the_image_runs_as_nobody_in_particular():
    text = (ROOT / "daemon/Dockerfile").read_text("utf-8")

    assert "USER 65532:65532" in text
    assert "HEALTHCHECK" in text
    assert 'ENTRYPOINT ["pgbreaker"]' in text
