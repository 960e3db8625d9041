"""Every component that an operator may add is valid, and does what it is for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from gateway.settings import GatewaySettings
from kit.telemetry.names import MetricName
from tests.shape.test_deploy_rendered import (
    DEPLOY,
    KUBERNETES,
    NOBODY,
    OBJECTS,
    OVERLAYS,
    PODS,
    UNPRIVILEGED,
    Manifest,
    complaints,
    files_of,
    objects_of,
    parsed,
    recorded_calls,
    render,
    settings_of,
)

ADDRESS = "HOST=mesh.example, CLASS=edge"
ADDRESSED = {"ingress", "gateway-api"}
"""Components that need the gateway's host and class."""
CUSTOM = {
    "cert-manager.io/v1": {"Certificate", "Issuer"},
    "external-secrets.io/v1": {"ExternalSecret", "SecretStore"},
    "gateway.networking.k8s.io/v1": {"Gateway", "HTTPRoute"},
    "keda.sh/v1alpha1": {"ScaledObject"},
}
"""Kinds that Kubernetes does not know by itself."""


def _used(overlay: str) -> set[str]:
    listed = yaml.safe_load((DEPLOY / "overlays" / overlay / "kustomization.yaml").read_text())["components"]
    return {Path(path).name for path in listed}


COMPONENTS = {path.parent.name for path in DEPLOY.glob("components/*/kustomization.yaml")}
OPTIONS = sorted(COMPONENTS - {name for overlay in OVERLAYS for name in _used(overlay)})


def rendered_with(name: str) -> list[Manifest]:
    """Production with a component."""
    return parsed(render("production", name, address=ADDRESS if name in ADDRESSED else ""))


def added_by(name: str) -> list[Manifest]:
    """What a component adds to production, or changes in it."""
    return [one for one in rendered_with(name) if one not in OBJECTS["production"]]


def _is_custom(one: Manifest) -> bool:
    return one["kind"] in CUSTOM.get(one["apiVersion"], set())


def _object(objects: list[Manifest], kind: str, name: str) -> Any:
    (found,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


@pytest.mark.parametrize("name", OPTIONS)
def test_kubernetes_takes_what_a_component_adds(name: str) -> None:
    added = added_by(name)
    assert added
    assert {one["metadata"]["namespace"] for one in added} == {"pmp"}
    known = [one for one in added if not _is_custom(one)]
    assert [complaint for version in KUBERNETES for complaint in complaints(known, version)] == []


def test_every_component_is_part_of_an_overlay_or_documented_as_an_option() -> None:
    documented = "".join(path.read_text() for path in (DEPLOY.parent / "docs").glob("*.md"))
    assert [name for name in OPTIONS if f"components/{name}" not in documented] == []


@pytest.mark.parametrize("name", sorted(ADDRESSED))
def test_the_edge_has_the_host_that_was_named_and_leads_to_the_gateway(name: str) -> None:
    added = added_by(name)
    text = yaml.safe_dump([one for one in added if one["kind"] != "ConfigMap"])
    assert "mesh.example" in text
    assert "edge" in text
    assert not re.search(r": (host|class)$", text, re.MULTILINE)
    if name == "ingress":
        spec = _object(added, "Ingress", "gateway")["spec"]
        assert spec["tls"] == [{"hosts": [rule["host"] for rule in spec["rules"]], "secretName": "gateway-tls"}]
        backends = [path["backend"]["service"] for rule in spec["rules"] for path in rule["http"]["paths"]]
        assert backends == [{"name": "gateway", "port": {"name": "http"}}]
    else:
        spec = _object(added, "Gateway", "edge")["spec"]
        assert {each["name"]: (each["port"], each["hostname"]) for each in spec["listeners"]} == {
            "http": (80, "mesh.example"),
            "https": (443, "mesh.example"),
        }
        routes = {one["metadata"]["name"]: one["spec"] for one in added if one["kind"] == "HTTPRoute"}
        assert {name: route["parentRefs"] for name, route in routes.items()} == {
            "redirect": [{"name": "edge", "sectionName": "http"}],
            "gateway": [{"name": "edge", "sectionName": "https"}],
        }
        assert routes["gateway"]["rules"][0]["backendRefs"] == [{"name": "gateway", "port": 80}]


@pytest.mark.parametrize("name", sorted(ADDRESSED))
def test_no_edge_is_rendered_without_a_host(name: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render("production", name)
    assert "gateway-address" in refused.value.stderr


def _asked() -> set[str]:
    """The secrets that pods of production need."""
    return {name for pod in PODS if pod.overlay == "production" for name, _ in files_of(pod)}


def test_external_secrets_are_those_that_pods_ask_for() -> None:
    added = added_by("external-secrets")
    taken = {one["metadata"]["name"]: one["spec"] for one in added if one["kind"] == "ExternalSecret"}
    assert taken.keys() == _asked()
    assert {name: spec["dataFrom"] for name, spec in taken.items()} == {name: [{"extract": {"key": name}}] for name in taken}
    assert {spec["target"]["deletionPolicy"] for spec in taken.values()} == {"Retain"}
    store = _object(added, "SecretStore", "mesh")
    assert {spec["secretStoreRef"]["name"] for spec in taken.values()} == {store["metadata"]["name"]}
    account = store["spec"]["provider"]["aws"]["auth"]["jwt"]["serviceAccountRef"]["name"]
    assert _object(added, "ServiceAccount", account)


def test_what_terraform_prints_is_a_component_of_production() -> None:
    template = (DEPLOY / "terraform" / "component.yaml.tftpl").read_text()
    values = {"region": "eu-west-1", "prefix": "shop/", "role": "arn:aws:iam::1:role/shop-secrets"}
    objects = parsed(render("production", "aws", cloud=Template(template).substitute(values)))
    aws = _object(objects, "SecretStore", "mesh")["spec"]["provider"]["aws"]
    assert (aws["region"], aws["prefix"]) == ("eu-west-1", "shop/")
    annotations = _object(objects, "ServiceAccount", "external-secrets")["metadata"]["annotations"]
    assert annotations == {"eks.amazonaws.com/role-arn": values["role"]}


def _windows(behavior: Manifest) -> tuple[int, int]:
    return behavior["scaleUp"]["stabilizationWindowSeconds"], behavior["scaleDown"]["stabilizationWindowSeconds"]


def test_what_a_replica_costs_at_rest_or_at_its_start_adds_no_other() -> None:
    for one in objects_of("production", "HorizontalPodAutoscaler"):
        (metric,) = one["spec"]["metrics"]
        target = metric["resource"]["target"]
        assert target["type"] == "AverageValue", "a share of the request follows the cost of rest, and is unknown while a pod has none"
        assert int(target["averageValue"].removesuffix("m")) >= 500
        up, down = _windows(one["spec"]["behavior"])
        assert up >= 60
        assert down >= 600


def test_keda_scales_everything_on_its_own_work_and_nothing_on_processor_time() -> None:
    objects = rendered_with("keda")
    deployments = {one["metadata"]["name"]: one["metadata"]["labels"] for one in objects if one["kind"] == "Deployment"}
    scaled = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "ScaledObject"}
    assert scaled.keys() == deployments.keys()
    assert [one for one in objects if one["kind"] == "HorizontalPodAutoscaler"] == []
    before = {one["metadata"]["name"]: one["spec"] for one in objects_of("production", "HorizontalPodAutoscaler")}
    for name, spec in scaled.items():
        assert spec["scaleTargetRef"] == before[name]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (before[name]["minReplicas"], before[name]["maxReplicas"])
        assert _windows(spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"])[1] >= 600
        (trigger,) = spec["triggers"]
        assert trigger["type"] == "prometheus"
        assert int(trigger["metadata"]["threshold"]) > 0
        labels = deployments[name]
        query = trigger["metadata"]["query"]
        (asked,) = re.findall(r'=~"(.*)"', query) or [None]
        if labels["app.kubernetes.io/component"] == "worker":
            assert f"{MetricName.LOG_LAG.replace('.', '_')}{{workload=" in query
            assert re.fullmatch(asked, name)
        elif name != "gateway":
            assert "envoy_cluster_upstream_rq_active{envoy_cluster_name=" in query
            assert re.fullmatch(asked, labels["app.kubernetes.io/name"])
        others = {other["app.kubernetes.io/name"] for other in deployments.values()} - {labels["app.kubernetes.io/name"]}
        assert asked is None or [other for other in (*others, *(f"{other}-worker" for other in others)) if re.fullmatch(asked, other)] == []


def test_the_limits_of_all_gateways_are_those_of_each(tmp_path: Path) -> None:
    added = added_by("ratelimit")
    (gateway,) = _object(added, "Deployment", "gateway")["spec"]["template"]["spec"]["containers"]
    address = next(each["value"] for each in gateway["env"] if each["name"] == "PMP_RATE_LIMITS_ADDRESS")
    assert "rate_limits_address" in GatewaySettings.model_fields
    service = _object(added, "Service", address.partition(":")[0])["spec"]
    assert [str(port["port"]) for port in service["ports"]] == [address.partition(":")[2]]

    pod = _object(added, "Deployment", "ratelimit")["spec"]["template"]["spec"]
    (limits,), (counter,) = pod["initContainers"], pod["containers"]
    assert (limits["image"], limits["envFrom"]) == (gateway["image"], gateway["envFrom"])
    environment = {each["name"]: each["value"] for each in counter["env"]}
    assert (
        Path(limits["command"][-1]).parent == Path(environment["RUNTIME_ROOT"]) / "config" == Path(limits["volumeMounts"][0]["mountPath"])
    )
    assert limits["volumeMounts"] == counter["volumeMounts"]
    written = tmp_path / "limits.yaml"
    settings = {**settings_of("production"), "PMP_RATE_USER_PER_HOUR": "77"}
    subprocess.run([sys.executable, *limits["command"][1:-1], written], env={**os.environ, **settings}, check=True)
    site, person, signed = yaml.safe_load(written.read_text())["descriptors"]
    assert (site["value"], site["rate_limit"]) == ("site", {"unit": "second", "requests_per_unit": 2000})
    assert [(each["key"], each["rate_limit"]) for each in person["descriptors"]] == [
        ("user", {"unit": "hour", "requests_per_unit": 77}),
        ("remote_address", {"unit": "hour", "requests_per_unit": 77}),
    ]
    assert (signed["value"], len(signed["descriptors"])) == ("signed", 1)


def test_who_counts_for_all_gateways_is_hardened_and_reached_by_them_alone() -> None:
    added = added_by("ratelimit")
    assert _reached(added, "gateway-ratelimit") == {("ratelimit", 8081)}
    assert _reached(added, "ratelimit") == {("ratelimit-redis", 6379)}
    for name in ("ratelimit", "ratelimit-redis"):
        pod = _object(added, "Deployment", name)["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"].items() >= NOBODY.items()
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert container["securityContext"] == UNPRIVILEGED
            assert "memory" in container["resources"]["limits"]
        ports = {port["name"] for port in pod["containers"][0]["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = pod["containers"][0][probe]
            assert (asked.get("httpGet") or asked["tcpSocket"])["port"] in ports
        policy = _object(added, "NetworkPolicy", name)["spec"]
        assert policy["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == name
        assert "Ingress" in policy["policyTypes"]
    (store,) = _object(added, "Deployment", "ratelimit-redis")["spec"]["template"]["spec"]["containers"]
    assert {"--maxmemory", "volatile-ttl"} <= {*store["args"]}


def _reached(objects: list[Manifest], policy: str) -> set[tuple[str, int]]:
    """Names of pods and their ports that a policy opens."""
    rules = _object(objects, "NetworkPolicy", policy)["spec"]["egress"]
    return {
        (peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"], port["port"])
        for rule in rules
        for peer in rule["to"]
        for port in rule["ports"]
    }


CLUSTER = """case "$*" in
*jsonpath*) echo 'mesh-secrets gateway-secrets mesh-secrets' ;;
*'get secret gateway-secrets'*) exit "$LACKING" ;;
*'--output name'*) echo deployment.apps/gateway ;;
esac
"""


def test_one_command_creates_secrets_then_objects_and_waits_for_the_pods() -> None:
    ran, calls = recorded_calls(DEPLOY / "apply", "local", answers=CLUSTER.replace('"$LACKING"', "0"))
    assert ran.returncode == 0, ran.stderr
    steps = [call for call in calls if {"apply", "kustomize", "rollout"} & {*call}]
    assert [call[0] for call in steps] == ["kustomize", "apply", "apply", "--namespace"]
    assert steps[1][-1].endswith("namespace.yaml"), "secrets.sh creates the namespace"
    assert steps[2] == ["apply", "--kustomize", steps[0][1]]
    assert steps[3][2:] == ["rollout", "status", "deployment.apps/gateway", "--timeout=10m"]


def test_it_names_the_secrets_that_are_missing() -> None:
    ran, calls = recorded_calls(DEPLOY / "apply", "production", answers=CLUSTER.replace('"$LACKING"', "1"))
    assert ran.returncode == 1
    assert "missing secrets: gateway-secrets (" in ran.stderr
    assert [call for call in calls if "rollout" in call] == []
