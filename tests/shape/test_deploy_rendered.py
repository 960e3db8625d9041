"""Renders what is deployed and holds it to one image, one shape and hardened pods."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from gateway.settings import GatewaySettings
from kit.server import LIVENESS
from kit.settings import MeshSettings, Settings
from tests.metrics import measured
from tests.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = Path(sys.executable).parent
OVERLAYS = ("local", "production")
ALERTS = "mesh-alerts"
SETTINGS: dict[str, list[type[MeshSettings]]] = {
    "mesh": [Settings, *(role.settings for role in ROLES.values())],
    "gateway": [GatewaySettings],
}
"""Those of each image: every pod of the mesh's own is given the settings of all services."""
NOBODY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
UNPRIVILEGED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

Manifest = dict[str, Any]
"""A Kubernetes object, as YAML has it."""


def render(overlay: str, *components: str, hosts: str = 'PMP_SITE_HOSTS=["shop.example", "www.shop.example"]') -> str:
    """An overlay as it is applied: production after its operator has named the shop's hosts, and further components if wanted.

    Raises:
        CalledProcessError: it can't be rendered; `stderr` says why.
    """
    with TemporaryDirectory() as folder:
        place = shutil.copytree(DEPLOY, Path(folder) / "deploy") / "overlays" / overlay
        settings, kustomization = place / "settings.env", place / "kustomization.yaml"
        if settings.exists():
            settings.write_text(re.sub("^#PMP_SITE_HOSTS=.*", hosts, settings.read_text(), flags=re.MULTILINE))
        added = "".join(["components:\n", *(f"  - ../../components/{name}\n" for name in components)])
        kustomization.write_text(kustomization.read_text().replace("components:\n", added, 1))
        return subprocess.run([TOOLS / "kubectl", "kustomize", place], check=True, capture_output=True, text=True).stdout


RENDERED = {overlay: render(overlay) for overlay in OVERLAYS}
OBJECTS: dict[str, list[Manifest]] = {overlay: list(yaml.safe_load_all(text)) for overlay, text in RENDERED.items()}


def objects_of(overlay: str, *kinds: str) -> list[Manifest]:
    return [one for one in OBJECTS[overlay] if one["kind"] in kinds]


@dataclass(frozen=True)
class Pod:
    """What a Deployment or StatefulSet starts."""

    overlay: str
    name: str
    labels: dict[str, str]
    spec: Manifest

    @property
    def containers(self) -> list[Manifest]:
        """Those that prepare, then those that stay."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def main(self) -> Manifest:
        """The container that the pod is there for."""
        (container,) = self.spec["containers"]
        return container


def _pods(overlay: str) -> list[Pod]:
    return _started(overlay, [(owner, owner["spec"]) for owner in objects_of(overlay, "Deployment", "StatefulSet")])


def _jobs(overlay: str) -> list[Pod]:
    return _started(overlay, [(owner, owner["spec"]["jobTemplate"]["spec"]) for owner in objects_of(overlay, "CronJob")])


def _started(overlay: str, owners: list[tuple[Manifest, Manifest]]) -> list[Pod]:
    templates = [(owner["metadata"]["name"], spec["template"]) for owner, spec in owners]
    return [Pod(overlay, name, template["metadata"]["labels"], template["spec"]) for name, template in templates]


def _image(container: Manifest) -> str:
    return re.split("[:@]", container["image"])[0]


def settings_of(overlay: str) -> dict[str, str]:
    """What the ConfigMap of an overlay sets; others are for Prometheus and MySQL."""
    settings = [one["data"] for one in objects_of(overlay, "ConfigMap") if one["metadata"]["name"].startswith("mesh-settings")]
    return {name: value for data in settings for name, value in data.items()}


def files_of(pod: Pod) -> list[tuple[str, str]]:
    """The secrets that a pod has as files, each with the one key of it or, if it has all of them, an empty one."""
    sources = [source["secret"] for volume in pod.spec.get("volumes", []) for source in volume.get("projected", {}).get("sources", [])]
    return [(source["name"], key) for source in sources for key in ([each["key"] for each in source.get("items", [])] or [""])]


def environment_of(container: Manifest) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}


PODS = [pod for overlay in OVERLAYS for pod in _pods(overlay)]
JOBS = [pod for overlay in OVERLAYS for pod in _jobs(overlay)]
OURS = [pod for pod in PODS if _image(pod.main) in SETTINGS]


def _id(pod: Pod) -> str:
    return f"{pod.overlay}-{pod.name}"


every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
every_pod = pytest.mark.parametrize("pod", PODS, ids=_id)
every_pod_and_job = pytest.mark.parametrize("pod", [*PODS, *JOBS], ids=_id)
every_pod_of_ours = pytest.mark.parametrize("pod", OURS, ids=_id)


@every_overlay
def test_kubernetes_takes_every_object(overlay: str, tmp_path: Path) -> None:
    rendered = tmp_path / "rendered.yaml"
    rendered.write_text(RENDERED[overlay])
    ran = subprocess.run([TOOLS / "kubernetes-validate", "--strict", rendered], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(" passed ") == len(OBJECTS[overlay])


@every_overlay
def test_every_object_is_of_one_namespace_that_takes_hardened_pods_only(overlay: str) -> None:
    (namespace,) = objects_of(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [one for one in OBJECTS[overlay] if one is not namespace]
    assert {one["metadata"]["namespace"] for one in others} == {namespace["metadata"]["name"]}


@every_overlay
def test_every_process_of_the_mesh_is_one_image_with_its_name_as_arguments(overlay: str) -> None:
    services = {path.parent.name for path in ROOT.glob("services/*/composition.py")}
    workers = {path.parent.name for path in ROOT.glob("services/*/worker.py")}
    pods = {pod.name: pod for pod in _pods(overlay) if _image(pod.main) == "mesh"}
    assert pods.keys() == {f"{name}-service" for name in services} | {f"{name}-worker" for name in workers}
    for name, pod in pods.items():
        service, part = name.split("-")
        assert pod.main["args"] == [service, *([part] if part != "service" else [])]
        assert pod.labels.items() >= {"app.kubernetes.io/name": service, "app.kubernetes.io/component": part}.items()
        (migrate,) = pod.spec["initContainers"]
        assert (migrate["image"], migrate["command"][-1], migrate["args"]) == (pod.main["image"], "kit.migrate", [service])


@every_pod_and_job
def test_a_pod_has_no_privileges(pod: Pod) -> None:
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["securityContext"].items() >= NOBODY.items()
    assert pod.spec["securityContext"]["runAsUser"] > 0
    assert [container["securityContext"] for container in pod.containers] == [UNPRIVILEGED] * len(pod.containers)


@every_pod_and_job
def test_a_pods_memory_is_bounded(pod: Pod) -> None:
    for container in pod.containers:
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
    written = [volume for volume in pod.spec.get("volumes", []) if not volume.keys() & {"configMap", "projected", "secret"}]
    assert [volume for volume in written if "sizeLimit" not in volume["emptyDir"]] == []


@every_pod
def test_a_pod_is_probed(pod: Pod) -> None:
    ports = {port[key] for port in pod.main["ports"] for key in ("name", "containerPort")}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = pod.main[kind]
        asked = probe.get("grpc") or probe.get("httpGet") or probe.get("tcpSocket")
        assert "exec" in probe or asked["port"] in ports


@every_pod_of_ours
def test_a_pod_is_restarted_for_its_own_faults_alone(pod: Pod) -> None:
    """A mesh process is not ready while its database or Redis is down, and a restart would not bring them back."""
    if _image(pod.main) == "mesh":
        assert pod.main["readinessProbe"]["grpc"] == {"port": 50051}
        assert pod.main["livenessProbe"]["grpc"] == {"port": 50051, "service": LIVENESS}


def test_envoy_refuses_requests_before_its_pod_runs_out_of_memory() -> None:
    config = yaml.safe_load((ROOT / "gateway" / "envoy.yaml").read_text())
    monitors = {monitor["name"]: monitor["typed_config"] for monitor in config["overload_manager"]["resource_monitors"]}
    heap = int(monitors["envoy.resource_monitors.fixed_heap"]["max_heap_size_bytes"])
    limits = [pod.main["resources"]["limits"]["memory"] for pod in OURS if pod.name == "gateway"]
    assert [limit for limit in limits if int(limit.removesuffix("Mi")) * 1024**2 < 1.1 * heap] == []


@every_pod_of_ours
def test_a_pods_settings_are_fields_of_its_settings(pod: Pod) -> None:
    for container in pod.containers:
        fields = {f"PMP_{field}".upper() for settings in SETTINGS[_image(container)] for field in settings.model_fields}
        assert [name for name in environment_of(container) if name not in fields and not name.startswith("OTEL_")] == []


@every_overlay
def test_what_an_overlay_sets_is_a_field_of_some_settings(overlay: str) -> None:
    fields = {f"PMP_{field}".upper() for several in SETTINGS.values() for settings in several for field in settings.model_fields}
    assert [name for name in settings_of(overlay) if name not in fields and not name.startswith("OTEL_")] == []


@every_pod_of_ours
def test_a_pod_accepts_its_settings_with_the_secrets_of_a_new_cluster(pod: Pod, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets = made_secrets(tmp_path)
    environment = settings_of(pod.overlay)
    assert not [source for source in pod.main["envFrom"] if "secretRef" in source], "a variable would not follow its secret"
    environment |= environment_of(pod.main)
    (mounted,) = (each for each in pod.main["volumeMounts"] if each["mountPath"] == environment["PMP_SECRETS_DIR"])
    assert mounted["readOnly"]
    folder = tmp_path / "files"
    folder.mkdir()
    for name, key in files_of(pod):
        for file, value in secrets[name].items():
            if key in {"", file}:
                (folder / file).write_text(value)
    environment["PMP_SECRETS_DIR"] = str(folder)
    for name in [name for name in os.environ if name.startswith("PMP_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for settings in SETTINGS[_image(pod.main)]:
        assert settings().mesh_token.get_secret_value()  # pyright: ignore[reportCallIssue]  (from the environment)


def made_secrets(folder: Path) -> dict[str, dict[str, str]]:
    """The secrets that the local overlay's script creates in a cluster that has none."""
    # A kubectl without any secrets that records what it has to create.
    kubectl = folder / "kubectl"
    kubectl.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "if 'get' in sys.argv: sys.exit(1)\n"
        f"with open({str(folder / 'calls')!r}, 'a') as calls: print(json.dumps(sys.argv[1:]), file=calls)\n"
    )
    kubectl.chmod(0o700)
    subprocess.run([DEPLOY / "overlays" / "local" / "secrets.sh"], check=True, env={"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"})
    calls = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    made: dict[str, dict[str, str]] = {}
    for call in calls:
        if "create" in call:
            literals = [argument.removeprefix("--from-literal=").partition("=") for argument in call[6:]]
            made[call[5]] = {key: value for key, _, value in literals}
    return made


def test_production_alerts_for_what_the_mesh_measures_and_before_the_law_is_broken() -> None:
    (rendered,) = [one["data"] for one in objects_of("production", "ConfigMap") if one["metadata"]["name"] == ALERTS]
    rules = [rule for group in yaml.safe_load(rendered["alerts.yaml"])["groups"] for rule in group["rules"]]
    assert all(rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"} for rule in rules)
    asked = {name for rule in rules for name in re.findall(r"\bpmp_\w+(?=[ {])", rule["expr"])}
    assert {f"pmp_{name}" for name in ("books", "log_lag", "dead_letters", "gdpr_steps_overdue")} <= asked <= measured()
    left = [int(days) for rule in rules for days in re.findall(r"pmp_gdpr_request_left_seconds < (\d+) \* 86400", rule["expr"])]
    assert left == [7, 2]


@every_pod_of_ours
def test_a_pod_is_given_the_time_it_takes_to_drain(pod: Pod) -> None:
    environment = environment_of(pod.main)
    drained = sum(float(environment.get(setting, 0)) for setting in ("PMP_DRAIN_DELAY_SECONDS", "PMP_DRAIN_SECONDS"))
    if "lifecycle" in pod.main:
        script = pod.main["lifecycle"]["preStop"]["exec"]["command"][-1]
        drained += sum(float(seconds) for seconds in re.findall(r"time\.sleep\((\d+)\)", script))
    assert 15 <= drained < pod.spec["terminationGracePeriodSeconds"]


@every_overlay
def test_a_service_reaches_the_pods_of_its_name_alone(overlay: str) -> None:
    for service in objects_of(overlay, "Service"):
        selector = service["spec"]["selector"].items()
        assert [pod.name for pod in _pods(overlay) if selector <= pod.labels.items()] == [service["metadata"]["name"]]


@every_overlay
def test_every_reference_leads_somewhere(overlay: str) -> None:
    deployments = {one["metadata"]["name"] for one in objects_of(overlay, "Deployment")}
    accounts = {one["metadata"]["name"] for one in objects_of(overlay, "ServiceAccount")}
    configs = {one["metadata"]["name"] for one in objects_of(overlay, "ConfigMap")}
    assert {one["spec"]["scaleTargetRef"]["name"] for one in objects_of(overlay, "HorizontalPodAutoscaler")} <= deployments
    assert {one["metadata"]["name"] for one in objects_of(overlay, "PodDisruptionBudget")} == deployments
    for pod in _pods(overlay):
        assert pod.spec.get("serviceAccountName", "") in {*accounts, ""}
        sources = [source for container in pod.containers for source in container.get("envFrom", [])]
        assert {source["configMapRef"]["name"] for source in sources if "configMapRef" in source} <= configs


def test_production_scales_every_deployment_and_names_images_by_digest() -> None:
    deployments = {one["metadata"]["name"] for one in objects_of("production", "Deployment")}
    scaled = {one["metadata"]["name"]: one["spec"] for one in objects_of("production", "HorizontalPodAutoscaler")}
    assert scaled.keys() == deployments
    assert [name for name, spec in scaled.items() if spec["minReplicas"] < 2] == []
    images = {container["image"] for pod in (*_pods("production"), *_jobs("production")) for container in pod.containers}
    assert [image for image in images if not re.fullmatch(r".+@sha256:[0-9a-f]{64}", image)] == []


@every_overlay
def test_everything_is_refused_that_no_policy_allows(overlay: str) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in objects_of(overlay, "NetworkPolicy")}
    assert policies.pop("default-deny") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies


def test_the_local_redis_forgets_nothing_and_keeps_room_to_drain() -> None:
    (arguments,) = [pod.main["args"] for pod in _pods("local") if pod.name == "redis"]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    maxmemory = int(options["--maxmemory"].removesuffix("mb")) * 1024**2
    assert int(settings_of("local")["PMP_LOG_MAX_BYTES"]) <= 0.6 * maxmemory


def test_skaffold_builds_both_images_and_nothing_else() -> None:
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    built = {artifact["image"]: artifact["docker"] for artifact in skaffold["build"]["artifacts"]}
    assert built == {image: {"dockerfile": "deploy/Dockerfile", "target": image} for image in SETTINGS}
    assert [path for path in skaffold["manifests"]["kustomize"]["paths"] if not (ROOT / path / "kustomization.yaml").exists()] == []


def test_the_dockerfile_is_written_as_agreed() -> None:
    ran = subprocess.run([TOOLS / "hadolint", DEPLOY / "Dockerfile"], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
