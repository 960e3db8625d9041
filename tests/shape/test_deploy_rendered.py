"""Renders what is deployed and holds it to one image, one shape and hardened pods."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kubernetes_validate
import pytest
import yaml
from annotated_types import Le

from gateway.settings import GatewaySettings
from kit.server import LIVENESS
from kit.settings import MeshSettings, Settings
from tests.metrics import measured
from tests.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = Path(sys.executable).parent
OVERLAYS = ("local", "production")
KUBERNETES = ("1.35", "1.36", "1.37")
"""Versions on which everything is valid."""
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


@cache
def render(
    overlay: str, *components: str, hosts: str = 'PMP_SITE_HOSTS=["shop.example", "www.shop.example"]', address: str = "", cloud: str = ""
) -> str:
    """An overlay as it is applied: production after its operator has named the shop's hosts, and further components if wanted.

    Args:
        overlay: its name.
        components: names of components that are added to its own.
        hosts: the line of `settings.env` with the shop's hosts.
        address: literals of the ConfigMap that names the gateway's host and class.
        cloud: the component `aws`, which Terraform prints.

    Raises:
        CalledProcessError: it can't be rendered; `stderr` says why.
    """
    with TemporaryDirectory() as folder:
        place = shutil.copytree(DEPLOY, Path(folder) / "deploy") / "overlays" / overlay
        settings, kustomization = place / "settings.env", place / "kustomization.yaml"
        if settings.exists():
            settings.write_text(re.sub("^#PMP_SITE_HOSTS=.*", hosts, settings.read_text(), flags=re.MULTILINE))
        if cloud:
            (place / "../../components/aws").mkdir()
            (place / "../../components/aws/kustomization.yaml").write_text(cloud)
        added = "".join(f"  - ../../components/{name}\n" for name in components)
        text = re.sub(r"^components:\n(  - .*\n)+", rf"\g<0>{added}", kustomization.read_text(), flags=re.MULTILINE)
        if address:
            named = f"  - name: gateway-address\n    literals: [{address}]\n"
            text = text.replace("configMapGenerator:\n", f"configMapGenerator:\n{named}", 1)
        kustomization.write_text(text)
        return subprocess.run([TOOLS / "kubectl", "kustomize", place], check=True, capture_output=True, text=True).stdout


def parsed(rendered: str) -> list[Manifest]:
    """The objects of a rendered overlay."""
    return list(yaml.load_all(rendered, Loader=yaml.CSafeLoader))


def complaints(objects: list[Manifest], version: str) -> list[str]:
    """What a version of Kubernetes has against objects, fields that it does not know included; the first of each."""
    found: list[str] = []
    for one in objects:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as refused:
            found.append(f"{one['kind']} {one['metadata']['name']}: {type(refused).__name__} {refused}")
    return found


RENDERED = {overlay: render(overlay) for overlay in OVERLAYS}
OBJECTS: dict[str, list[Manifest]] = {overlay: parsed(text) for overlay, text in RENDERED.items()}


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
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_every_object(overlay: str, version: str) -> None:
    assert complaints(OBJECTS[overlay], version) == []


def test_kubernetes_refuses_a_field_that_it_does_not_know() -> None:
    (first, *_) = objects_of("local", "Deployment")
    assert len(complaints([{**first, "spec": {**first["spec"], "replica": 2}}], KUBERNETES[0])) == 1


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
        assert probe["timeoutSeconds"] >= 5, "on a busy node"


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
def test_a_pod_accepts_its_settings_with_the_secrets_of_a_new_cluster(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = made_secrets()
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


def recorded_calls(script: Path, *arguments: str, answers: str = "exit 1") -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Runs a script with a kubectl that records what it has to do.

    Args:
        script: what is run.
        arguments: its arguments.
        answers: the rest of the recorder, a shell script: by default of a cluster that has nothing and takes nothing.
    """
    with TemporaryDirectory() as folder:
        kubectl = Path(folder) / "kubectl"
        kubectl.write_text(f"#!/bin/sh\n(printf '%s\\037' \"$@\"; echo) >> {folder}/calls\n{answers}\n")
        kubectl.chmod(0o700)
        environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        ran = subprocess.run([script, *arguments], check=False, capture_output=True, text=True, env=environment)
        return ran, [line.split("\037")[:-1] for line in (Path(folder) / "calls").read_text().splitlines()]


@cache
def made_secrets() -> dict[str, dict[str, str]]:
    """The secrets that the local overlay's script creates in a cluster that has none."""
    ran, calls = recorded_calls(DEPLOY / "overlays" / "local" / "secrets.sh", answers='[ "$3" != get ]')
    assert ran.returncode == 0, ran.stderr
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
        *_, program, seconds = pod.main["lifecycle"]["preStop"]["exec"]["command"]
        assert program == "gateway.drain"
        longest_call: Any = [each.le for each in GatewaySettings.model_fields["gateway_timeout_seconds"].metadata if isinstance(each, Le)]
        drained += float(seconds) + longest_call[0]
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


def test_skaffold_deploys_productions_images_and_builds_none() -> None:
    """Its patches remove what the default has for a new cluster on this machine."""
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    (profile,) = skaffold["profiles"]
    assert (profile["name"], profile["manifests"]["kustomize"]["paths"]) == ("production", ["deploy/overlays/production"])
    for patch in profile["patches"]:
        *folders, last = patch["path"].strip("/").split("/")
        section = skaffold
        for folder in folders:
            section = section[folder]
        assert patch["op"] == "remove"
        section.pop(last)
    assert skaffold["build"].keys() == {"local"}
    assert (skaffold["deploy"], "portForward" in skaffold) == ({"kubectl": {}}, False)


def test_manifests_and_workflows_are_written_as_agreed() -> None:
    configuration = ROOT / "tests" / "shape" / "yamllint.yaml"
    files = [DEPLOY, ROOT / ".github", ROOT / "skaffold.yaml"]
    ran = subprocess.run(
        [TOOLS / "yamllint", "--strict", "--config-file", configuration, *files], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


def test_the_dockerfile_is_written_as_agreed() -> None:
    ran = subprocess.run([TOOLS / "hadolint", DEPLOY / "Dockerfile"], check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
