"""What Kubernetes says of manifests, without one: its kustomize, its schemas, its rules."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from support.tools import missing, need

try:
    import kubernetes_validate
    from cloudcoil.models.prometheus_operator import v1 as operator
except ImportError:  # told by whoever needs them
    kubernetes_validate = operator = None

Manifest = dict[str, Any]


class _Strict(yaml.SafeLoader):
    """Refuses what Kubernetes would, which takes the last of two equal keys in silence."""

    def construct_mapping(self, node, deep=False):  # type: ignore[no-untyped-def]
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"twice: {sorted(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def parsed(text: str) -> list[Manifest]:
    """The manifests in *text*."""
    return list(yaml.load_all(text, _Strict))


def built(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send of *folder*."""
    done = subprocess.run(
        [need("kubectl", "kubernetes-client"), "kustomize", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def fits(manifest: Manifest, version: str) -> None:
    """Hold a manifest against the schemas of a *version* of Kubernetes, or of Prometheus'
    operator; fails where it differs, also by a key that nobody knows."""
    if kubernetes_validate is None:
        missing("kubernetes-validate, cloudcoil-models-prometheus-operator are missing")
    if manifest["apiVersion"] == "monitoring.coreos.com/v1":
        model = getattr(operator, manifest["kind"]).model_validate(manifest)
        # Its models leave out what they do not know.
        kept = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
        assert kept == manifest, f"it has a key that nobody knows; known are {kept}"
    else:
        kubernetes_validate.validate(manifest, version, strict=True)


# -- Pod security ----------------------------------------------------------------------

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SELINUX = (
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
)
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}


def unrestricted(template: Manifest) -> list[str]:
    """Name every control of the standard "restricted" that a pod's template violates.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    pod = template["spec"]
    return sorted({*_of_pod(template), *_of_volumes(pod), *_of_containers(pod)})


def _of_pod(template: Manifest) -> Iterator[str]:
    pod = template["spec"]
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "Host Namespaces"
    annotations = template.get("metadata", {}).get("annotations", {})
    for key, profile in annotations.items():
        if key.startswith("container.apparmor.security.beta.kubernetes.io/") and not (
            profile == "runtime/default" or profile.startswith("localhost/")
        ):
            yield "AppArmor"
    context = pod.get("securityContext", {})
    yield from _of_context(context)
    if any(s["name"] not in _SYSCTLS for s in context.get("sysctls", ())):
        yield "Sysctls"


def _of_context(context: Mapping[str, Any]) -> Iterator[str]:
    """What is allowed neither to a pod nor to a container."""
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "HostProcess"
    if context.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield "AppArmor"
    options = context.get("seLinuxOptions", {})
    if options.get("type", "") not in _SELINUX or options.keys() & {"user", "role"}:
        yield "SELinux"
    if context.get("runAsUser") == 0:
        yield "Running as Non-root user"
    if context.get("runAsNonRoot") is False:
        yield "Running as Non-root"
    if context.get("seccompProfile", {}).get("type") == "Unconfined":
        yield "Seccomp"


def _of_volumes(pod: Manifest) -> Iterator[str]:
    for volume in pod.get("volumes", ()):
        kinds = volume.keys() - {"name"}
        if "hostPath" in kinds:
            yield "HostPath Volumes"
        if not kinds <= _VOLUMES:
            yield "Volume Types"


def _of_containers(pod: Manifest) -> Iterator[str]:
    around = pod.get("securityContext", {})
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for container in pod.get(key, ()):
            context = container.get("securityContext", {})
            yield from _of_context(context)
            yield from _of_rights(context, around)
            if any(port.get("hostPort") for port in container.get("ports", ())):
                yield "Host Ports"
            if any(_hosts_named(container)):
                yield "Host Probes / Lifecycle Hooks"


def _of_rights(context: Mapping[str, Any], around: Mapping[str, Any]) -> Iterator[str]:
    """What a container has to say, itself or by the pod *around* it."""
    if context.get("privileged"):
        yield "Privileged Containers"
    if context.get("procMount", "Default") != "Default":
        yield "/proc Mount Type"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "Privilege Escalation"
    if not context.get("runAsNonRoot", around.get("runAsNonRoot")):
        yield "Running as Non-root"
    profile = context.get("seccompProfile", around.get("seccompProfile", {}))
    if profile.get("type") not in ("RuntimeDefault", "Localhost"):
        yield "Seccomp"
    capabilities = context.get("capabilities", {})
    has_all_gone = "ALL" in capabilities.get("drop", ())
    if not has_all_gone or set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "Capabilities"


def _hosts_named(container: Manifest) -> Iterator[str]:
    asked = [
        container.get(f"{kind}Probe", {})
        for kind in ("startup", "liveness", "readiness")
    ]
    asked += container.get("lifecycle", {}).values()
    for one in asked:
        for way in ("httpGet", "tcpSocket"):
            yield one.get(way, {}).get("host", "")
