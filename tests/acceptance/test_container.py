"""The image, made of this tree, run by podman as the documents say: with no power, and
nothing to write to but its volume."""

import json
from pathlib import Path

import pytest
import yaml

from pgbreaker import __version__
from pgbreaker.web.doors import hash_password
from support.containers import (
    BASE,
    IMAGE,
    ROOT,
    inspected,
    made,
    once,
    podman,
    running,
    volume,
)
from support.servers import running_server

MOST = 150_000_000  # bytes over the base
HOME = "/var/lib/pgbreaker"
# Nobody can run a shell in it, so that what works does without.
NO_SHELL = (
    "--volume",
    "/dev/null:/usr/bin/dash:ro",
    "--volume=/dev/null:/usr/bin/bash:ro",
)

# Within the container: everything that whoever runs there can write to. What belongs to
# the kernel is not looked at, nor /dev, where the engine puts memory.
WRITABLE = """
import json, os
found = []
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {"proc", "sys", "dev"}
    for path in (folder, *(os.path.join(folder, name) for name in files)):
        is_kept = os.path.isfile(path) or os.path.isdir(path)
        if is_kept and not os.path.islink(path) and os.access(path, os.W_OK):
            found.append(path)
print(json.dumps(found))
"""
# And what an installer or compiler is known by.
BUILDERS = """
import importlib.util, json, os, shutil
modules = ["pip", "setuptools", "wheel", "ensurepip", "hatchling", "pkg_resources"]
programs = ["pip", "pip3", "gcc", "cc", "c++", "make", "ld", "as", "git"]
found = [name for name in modules if importlib.util.find_spec(name)]
found += [name for name in programs if shutil.which(name)]
for folder, _, files in os.walk("/opt"):
    found += [f"{folder}/{name}" for name in files if name == "direct_url.json"]
    for name in files:
        with open(os.path.join(folder, name), "rb") as file:
            if any(word in file.read() for word in (b"/src/daemon", b"/wheel/")):
                found.append(f"{folder}/{name}")
print(json.dumps([*found, *os.listdir("/opt/pgbreaker/bin")]))
"""


@pytest.fixture(scope="module")
def server():
    with running_server(17) as server:
        yield server


def at(server) -> tuple[str, ...]:
    """How a container gets to a server: by its socket, which needs no network."""
    dsn = f"postgresql://pgbreaker@/app?host=/run/db&port={server.port}"
    mount = f"{server.socket_dir}:/run/db"
    return ("--volume", mount, "--env", f"PGBREAKER_DSN={dsn}")


@pytest.fixture(scope="module")
def container(server):
    with running(*NO_SHELL, *at(server)) as container:
        container.until('pgbreaker_target_up{target="local"} 1\n')
        yield container


def test_a_dsn_is_all_that_it_needs(container):
    """What it sees can be scraped from outside; none of its shells can be run."""
    metrics = container.get("/metrics")

    assert f'pgbreaker_build_info{{version="{__version__}"' in metrics
    assert "pgbreaker_store_degraded 0\n" in metrics
    for shell in ("sh", "bash"):
        assert container.exec(shell, "-c", "true", fails=True).returncode != 0


def test_it_is_nobody_and_has_no_power(container):
    status = container.exec("cat", "/proc/1/status").stdout
    said = dict(line.split(":\t", 1) for line in status.splitlines())

    assert said["Uid"].split() == said["Gid"].split() == ["65532"] * 4
    for powers in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(said[powers], 16) == 0, powers
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")


def test_nothing_is_writable_but_its_volume(container):
    found = json.loads(container.exec("python3", "-c", WRITABLE).stdout)

    assert HOME in found
    assert {path for path in found if not path.startswith(HOME)} == set()


def test_its_health_is_the_daemons_own(container):
    container.until_healthy()

    container.signal("STOP")
    try:
        frozen = container.health()
    finally:
        container.signal("CONT")

    assert frozen == (1, "unhealthy")


def test_what_was_decided_outlives_the_container(server):
    with volume() as kept:
        mount = ("--volume", f"{kept}:{HOME}")
        with running(*mount, *at(server)) as first:
            first.until('pgbreaker_target_up{target="local"} 1\n')
            first.exec(
                "pgbreaker", "open", "local/read", "--reason=a new disk", "--yes"
            )

            code = first.stop()
            words = first.log()

        with running(*mount, *at(server)) as second:
            second.until('pgbreaker_target_up{target="local"} 1\n')
            status = second.get("/api/v1/breakers/local/read")

    assert code == 0
    assert "stopping" in words
    assert "Traceback" not in words
    breaker = json.loads(status)
    assert breaker["state"] == "forced_open"
    assert breaker["override"]["reason"] == "a new disk"


def test_users_and_another_address_do_not_hide_it_from_its_health_check(
    server, tmp_path: Path
):
    """A file is named by PGBREAKER_CONFIG. Whatever address it says, the one that can be
    published is listened on; whoever has to log in there, those within need not."""
    web = {"basic_auth_users": {"alice": hash_password("hunter2")}}
    web["pgbreaker"] = {"roles": {"alice": "admin"}, "anonymous": "none"}
    dsn = f"postgresql://pgbreaker@/app?host=/run/db&port={server.port}"
    config = {
        "version": 1,
        "targets": [{"name": "main", "dsn": dsn}],
        "http": {"listen": "127.0.0.1:9000", "web_config": "web.yml"},
    }
    (tmp_path / "pgbreaker.yaml").write_text(yaml.safe_dump(config), "utf-8")
    (tmp_path / "web.yml").write_text(yaml.safe_dump(web), "utf-8")
    tmp_path.chmod(0o755)
    named = ("--env", "PGBREAKER_CONFIG=/etc/pgbreaker/pgbreaker.yaml")
    mounts = ("--volume", f"{tmp_path}:/etc/pgbreaker:ro")

    with running(*named, *mounts, "--volume", f"{server.socket_dir}:/run/db") as one:
        one.until("ok", "/-/healthy")
        one.until_healthy()
        refused = one.refused("/metrics")
        status = one.exec("pgbreaker", "status").stdout

    assert refused == 401
    assert "main" in status


def test_a_wrong_configuration_is_one_line_and_78():
    done = once("--env", "PGBREAKER_DSN=mysql://pgbreaker:hunter2@db1/app")

    ours = [line for line in done.stderr.splitlines() if not line.startswith("time=")]
    assert done.returncode == 78
    assert ours == [
        "--dsn: the scheme 'mysql' is not PostgreSQL's; write postgresql://..."
    ]


def test_the_image_holds_what_runs_and_nothing_that_made_it():
    made("pgbreaker")
    image, base = inspected("image", IMAGE), inspected("image", BASE)
    config = image["Config"]
    history = podman("history", "--no-trunc", "--format={{.CreatedBy}}", IMAGE).stdout
    found = json.loads(once("--entrypoint=python3", command=("-c", BUILDERS)).stdout)

    assert image["Size"] - base["Size"] < MOST
    assert sorted(found) == ["pgbreaker", "python", "python3", "python3.11"]
    assert {entry.split("=")[0] for entry in config["Env"]} == {
        *("PATH", "HOME", "STATE_DIRECTORY", "RUNTIME_DIRECTORY"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"),
    }
    assert str(ROOT) not in history + json.dumps(config)
    assert (config["User"], config["StopSignal"]) == ("65532:65532", "SIGTERM")
    assert list(config["Volumes"]) == [HOME]
    assert image["Healthcheck"]["Test"] == ["CMD", "pgbreaker", "healthcheck"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"] in BASE
