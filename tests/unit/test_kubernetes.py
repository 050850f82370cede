"""The manifests are what Kubernetes takes, by its own rules, and what the daemon needs."""

import configparser
import copy
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pgbreaker import config
from pgbreaker.cli import cli
from pgbreaker.export import export
from pgbreaker.shipped import shipped
from support.kubernetes import built, fits, parsed, unrestricted
from support.tools import need

ROOT = Path(__file__).parents[2]
GIVEN = {
    "grafana-url": "https://grafana.corp",
    "runbook-url": "https://wiki.corp/runbooks",
    "image": "registry.corp:5000/pgbreaker:1.2.3",
}
VERSIONS = (
    "1.25",
    "1.37",
)  # of Kubernetes: the oldest and the newest that are promised


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kubernetes")
    export("kubernetes", folder, GIVEN, force=False)
    return folder


@pytest.fixture(scope="module")
def daemon(exported):
    """What `kubectl apply -k` sends for the daemon, by kind."""
    return {manifest["kind"]: manifest for manifest in built(exported)}


@pytest.fixture(scope="module")
def monitoring(exported):
    return built(exported / "monitoring")


@pytest.fixture(scope="module")
def template(daemon):
    return daemon["StatefulSet"]["spec"]["template"]


# -- By Kubernetes' rules --------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schemas(version, daemon, monitoring, exported):
    example = parsed((exported / "secret.example.yaml").read_text("utf-8"))

    for manifest in [*daemon.values(), *monitoring, *example]:
        fits(manifest, version)


@pytest.mark.parametrize(
    ("of", "spec", "says"),
    [
        ("v1 Service", {"portz": []}, "portz"),
        ("apps/v1 StatefulSet", {"replicas": "one"}, "one"),
        (
            "monitoring.coreos.com/v1 ServiceMonitor",
            {"selector": {}, "endpoints": [{"intervall": "5s"}]},
            "nobody knows",
        ),
        (
            "monitoring.coreos.com/v1 PrometheusRule",
            {"groups": [{"name": "a", "interval": "soon"}]},
            "soon",
        ),
    ],
    ids=["unknown key", "wrong type", "operator's key", "operator's duration"],
)
def test_the_schemas_find_what_they_are_for(of, spec, says):
    version, _, kind = of.partition(" ")
    manifest = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}}

    with pytest.raises(Exception, match=says):
        fits(manifest | {"spec": spec}, VERSIONS[-1])


def test_a_key_that_is_there_twice_is_found():
    with pytest.raises(yaml.YAMLError, match="twice"):
        parsed("a: 1\na: 2\n")


def test_a_namespace_that_enforces_restricted_takes_the_pod(daemon, template):
    labels = daemon["Namespace"]["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert unrestricted(template) == []


POD = "spec"
CONTAINER = "spec.containers.0"
VIOLATIONS = [
    ("HostProcess", f"{POD}.securityContext.windowsOptions", {"hostProcess": True}),
    ("Host Namespaces", f"{POD}.hostNetwork", True),
    ("Privileged Containers", f"{CONTAINER}.securityContext.privileged", True),
    ("Capabilities", f"{CONTAINER}.securityContext.capabilities.add", ["SYS_PTRACE"]),
    ("Capabilities", f"{CONTAINER}.securityContext.capabilities.drop", ["KILL"]),
    ("HostPath Volumes", f"{POD}.volumes.0.hostPath", {"path": "/"}),
    ("Volume Types", f"{POD}.volumes.0.nfs", {"server": "a", "path": "/"}),
    ("Host Ports", f"{CONTAINER}.ports.0.hostPort", 9432),
    ("Host Probes / Lifecycle Hooks", f"{CONTAINER}.livenessProbe.httpGet.host", "a"),
    ("AppArmor", f"{POD}.securityContext.appArmorProfile", {"type": "Unconfined"}),
    ("SELinux", f"{POD}.securityContext.seLinuxOptions", {"type": "spc_t"}),
    ("/proc Mount Type", f"{CONTAINER}.securityContext.procMount", "Unmasked"),
    ("Seccomp", f"{POD}.securityContext.seccompProfile", {"type": "Unconfined"}),
    ("Seccomp", f"{POD}.securityContext.seccompProfile", {}),
    ("Sysctls", f"{POD}.securityContext.sysctls", [{"name": "kernel.msgmax"}]),
    (
        "Privilege Escalation",
        f"{CONTAINER}.securityContext.allowPrivilegeEscalation",
        None,
    ),
    ("Running as Non-root", f"{POD}.securityContext.runAsNonRoot", None),
    ("Running as Non-root user", f"{CONTAINER}.securityContext.runAsUser", 0),
]


@pytest.mark.parametrize(
    ("control", "place", "value"), VIOLATIONS, ids=[v[1] for v in VIOLATIONS]
)
def test_each_control_of_restricted_is_looked_at(control, place, value, template):
    changed = copy.deepcopy(template)
    at = changed
    *steps, last = [int(s) if s.isdigit() else s for s in place.split(".")]
    for step in steps:
        at = at[step]
    at[last] = value

    assert control in unrestricted(changed)


# -- By what the daemon needs ----------------------------------------------------------


def test_its_parts_know_each_other_by_the_same_names(daemon, template, exported):
    pod, service = template["spec"], daemon["Service"]
    container = pod["containers"][0]
    secret = parsed((exported / "secret.example.yaml").read_text("utf-8"))[0]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claims = daemon["StatefulSet"]["spec"]["volumeClaimTemplates"]
    claimed = {claim["metadata"]["name"] for claim in claims}
    labels = template["metadata"]["labels"]

    assert service["spec"]["selector"].items() <= labels.items()
    assert service["metadata"]["name"] == daemon["StatefulSet"]["spec"]["serviceName"]
    asked = daemon["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert asked.items() <= labels.items()
    assert pod["serviceAccountName"] == daemon["ServiceAccount"]["metadata"]["name"]
    config_map = volumes["config"]["configMap"]["name"]
    assert config_map == daemon["ConfigMap"]["metadata"]["name"]
    assert volumes["credentials"]["secret"]["secretName"] == secret["metadata"]["name"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == volumes.keys() | claimed
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert env == {
        "CREDENTIALS_DIRECTORY": mounted["credentials"],
        "STATE_DIRECTORY": mounted["store"],
        "RUNTIME_DIRECTORY": mounted["runtime"],
    }
    assert container["args"][-1] == f"{mounted['config']}/pgbreaker.yaml"


def test_the_configuration_is_one_and_what_probes_reach(daemon, template, tmp_path):
    port = template["spec"]["containers"][0]["ports"][0]["containerPort"]
    path = tmp_path / "pgbreaker.yaml"
    path.write_text(daemon["ConfigMap"]["data"]["pgbreaker.yaml"], "utf-8")

    found = config.load(path)

    assert found.http.listen == ("0.0.0.0", port)
    # What is there to be switched on is right, too.
    text = path.read_text("utf-8")
    lines = [
        re.sub("^# ", "", line) if re.match(r"# ( |alertmanager)", line) else line
        for line in text.splitlines()
    ]
    path.write_text("\n".join(lines), "utf-8")
    assert config.load(path).alertmanager is not None


def test_a_change_of_the_configuration_ends_no_pod(daemon):
    """The daemon follows the file by itself: a name that is made of the content, or a sum
    in an annotation, would end it for what it reads anyway."""
    assert daemon["ConfigMap"]["metadata"]["name"] == "pgbreaker"
    metadata = daemon["StatefulSet"]["spec"]["template"]["metadata"]
    assert "annotations" not in metadata


def test_it_is_given_the_same_time_and_room_as_by_systemd(template):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # its keys have capitals
    unit.read(ROOT / "daemon/pgbreaker.service")
    service, pod = unit["Service"], template["spec"]
    container = pod["containers"][0]
    liveness = container["livenessProbe"]

    patience = liveness["periodSeconds"] * liveness["failureThreshold"]
    assert patience == int(service["WatchdogSec"])
    grace = pod["terminationGracePeriodSeconds"]
    assert grace == int(service["TimeoutStopSec"])
    assert container["resources"]["limits"]["memory"] == f"{service['MemoryMax']}i"


# -- By Prometheus and Grafana ---------------------------------------------------------


def test_the_rules_are_those_that_are_shipped(exported, monitoring, tmp_path):
    """But for blank lines that newer kustomizes put into expressions."""
    given = {option: GIVEN[option] for option in ("grafana-url", "runbook-url")}
    export("alerts", tmp_path, given, force=False)
    made = (tmp_path / "pgbreaker.rules.yml").read_text("utf-8")
    told = (exported / "monitoring/prometheusrule.yaml").read_text("utf-8")
    rule = next(m for m in monitoring if m["kind"] == "PrometheusRule")
    path = tmp_path / "sent.yml"
    path.write_text(yaml.safe_dump(rule["spec"]), "utf-8")

    checked = subprocess.run(
        [need("promtool", "prometheus"), "check", "rules", "--lint=all", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert parsed(told)[0]["spec"] == yaml.safe_load(made)
    assert list(_rules(rule["spec"])) == list(_rules(yaml.safe_load(made)))
    assert checked.returncode == 0, checked.stderr


def _rules(spec):
    for group in spec["groups"]:
        for rule in group["rules"]:
            yield group["name"], rule | {"expr": rule["expr"].split()}


def test_prometheus_finds_the_daemon_under_the_name_that_rules_ask_for(
    monitoring, daemon
):
    monitor = next(m for m in monitoring if m["kind"] == "ServiceMonitor")
    service = daemon["Service"]
    rules = dict(shipped("alerts"))["pgbreaker.rules.yml"]
    labels = service["metadata"]["labels"]

    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = [port["name"] for port in service["spec"]["ports"]]
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ports
    job = labels[monitor["spec"]["jobLabel"]]
    assert f'up{{job="{job}"}}' in rules


def test_every_dashboard_is_what_grafanas_sidecar_takes(monitoring):
    maps = [m for m in monitoring if m["kind"] == "ConfigMap"]
    found = {}
    for one in maps:
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        found |= {path: json.loads(text) for path, text in one["data"].items()}

    assert found.keys() == {path for path, _ in shipped("dashboards")}


def test_nothing_is_larger_than_kubectl_can_apply(daemon, monitoring):
    """It keeps what it applied in an annotation; all of them have 256 KiB."""
    for manifest in [*daemon.values(), *monitoring]:
        assert len(json.dumps(manifest)) < 256 * 1024, manifest["metadata"]["name"]


# -- As it is handed out ---------------------------------------------------------------


def test_each_file_that_is_handed_out_is_used_or_an_example(exported):
    used = {"kustomization.yaml", "monitoring/kustomization.yaml"}
    for name in list(used):
        folder = Path(name).parent
        kustomization = parsed((exported / name).read_text("utf-8"))[0]
        used |= {str(folder / path) for path in kustomization["resources"]}
        for generator in kustomization["configMapGenerator"]:
            used |= {str(folder / path) for path in generator["files"]}

    files = {str(p.relative_to(exported)) for p in exported.rglob("*") if p.is_file()}
    assert files - used == {"secret.example.yaml"}


def test_a_configuration_that_is_there_is_theirs(tmp_path):
    export("kubernetes", tmp_path, GIVEN, force=False)
    path = tmp_path / "pgbreaker.yaml"
    path.write_text("mine", "utf-8")

    export("kubernetes", tmp_path, GIVEN, force=False)
    export("kubernetes", tmp_path, GIVEN | {"image": "a/b:2"}, force=True)

    assert path.read_text("utf-8") == "mine"
    assert "image: a/b:2\n" in (tmp_path / "statefulset.yaml").read_text("utf-8")


def test_the_commands_of_its_readme_do_what_it_says(tmp_path, monkeypatch):
    """Those that need no cluster; of the others, what they would send."""
    monkeypatch.chdir(tmp_path)
    Path("primary.password").write_text("hunter2", "utf-8")
    text = (ROOT / "config/kubernetes/README.md").read_text("utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    begins = ("pgbreaker", "export", "kubernetes")
    exports = [words[1:] for words in commands if tuple(words[:3]) == begins]
    secrets = [words for words in commands if "secret" in words]

    for words in exports:
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
    checked = CliRunner().invoke(cli, ["check-config", "deploy/pgbreaker.yaml"])
    dry = ("--dry-run=client", "--output=json")
    made = subprocess.run(
        [need("kubectl", "kubernetes-client"), *secrets[0][1:], *dry],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ["pgbreaker", "check-config", "deploy/pgbreaker.yaml"] in commands
    assert checked.exit_code == 0, checked.output
    assert len(exports) == 2
    assert "pgbreaker:0.2.0" in Path("deploy/statefulset.yaml").read_text("utf-8")
    secret = json.loads(made.stdout)
    example = parsed(Path("deploy/secret.example.yaml").read_text("utf-8"))[0]
    for key in ("name", "namespace"):
        assert secret["metadata"][key] == example["metadata"][key]
    assert secret["data"].keys() == example["stringData"].keys()
