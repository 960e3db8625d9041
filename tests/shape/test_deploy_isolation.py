"""Who reaches whom and who knows what in the cluster, and how much of it a machine has to have."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import pytest

from kit.settings import Settings
from tests.shape.test_deploy_rendered import (
    JOBS,
    OURS,
    PODS,
    Manifest,
    Pod,
    environment_of,
    every_overlay,
    every_pod_of_ours,
    files_of,
    made_secrets,
    objects_of,
    parsed,
    render,
)

PUBLIC = ("93.184.216.34", "2606:2800:21f::1")
PRIVATE = ("10.0.0.7", "172.20.3.4", "192.168.1.9", "fd12:3456::7")
FORBIDDEN = ("169.254.169.254", "127.0.0.1", "100.100.100.200", "fd00:ec2::254", "fe80::1", "::1")
MONITORING = {"kubernetes.io/metadata.name": "monitoring"}


def _selects(selector: Manifest, labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def _rules(policies: list[Manifest], pod: Pod, direction: str) -> Iterator[Manifest]:
    for policy in policies:
        if direction in policy["spec"]["policyTypes"] and _selects(policy["spec"]["podSelector"], pod.labels):
            yield from policy["spec"].get(direction.lower(), [])


def _contains(block: Manifest, address: str) -> bool:
    parsed = ip_address(address)
    return parsed in ip_network(block["cidr"]) and not any(parsed in ip_network(each) for each in block.get("except", []))


def reaches(policies: list[Manifest], pod: Pod, address: str, port: int) -> bool:
    """Whether a pod may open a connection to an address outside of the cluster."""
    for rule in _rules(policies, pod, "Egress"):
        peers = rule.get("to")
        there = peers is None or any("ipBlock" in peer and _contains(peer["ipBlock"], address) for peer in peers)
        if there and port in [each["port"] for each in rule.get("ports", [{"port": port}])]:
            return True
    return False


def _policies(text: str) -> list[Manifest]:
    return [one for one in parsed(text) if one["kind"] == "NetworkPolicy"]


def _production(name: str) -> Pod:
    return next(pod for pod in (*PODS, *JOBS) if (pod.overlay, pod.name) == ("production", name))


CALLERS = ["comparison", "destinations-service", "exports", "gdpr-service", "rates"]
"""Who calls other systems."""


@pytest.mark.parametrize("name", CALLERS)
def test_who_calls_other_systems_reaches_public_ones_by_https_alone(name: str) -> None:
    policies = objects_of("production", "NetworkPolicy")
    assert [address for address in PUBLIC if not reaches(policies, _production(name), address, 443)] == []
    assert [address for address in (*PRIVATE, *FORBIDDEN) if reaches(policies, _production(name), address, 443)] == []
    assert [address for address in (*PUBLIC, *PRIVATE, *FORBIDDEN) if reaches(policies, _production(name), address, 80)] == []


@pytest.mark.parametrize("name", ["gdpr-service", "comparison", "destinations-service"])
def test_who_calls_the_shop_reaches_it_in_a_private_network_when_that_is_said(name: str) -> None:
    policies, caller = _policies(render("production", "private-systems")), _production(name)
    assert [address for address in (*PUBLIC, *PRIVATE) if not reaches(policies, caller, address, 443)] == []
    assert [address for address in PRIVATE if not reaches(policies, caller, address, 80)] == []
    assert [address for address in PUBLIC if reaches(policies, caller, address, 80)] == []
    assert [address for address in FORBIDDEN for port in (80, 443) if reaches(policies, caller, address, port)] == []


def test_nobody_else_reaches_the_web() -> None:
    policies = _policies(render("production", "private-systems"))
    others = [pod for pod in (*PODS, *JOBS) if pod.overlay == "production" and pod.name not in CALLERS]
    assert len(others) > 5
    assert [
        pod.name for pod in others for address in (*PUBLIC, *PRIVATE) for port in (80, 443) if reaches(policies, pod, address, port)
    ] == []


def test_destinations_alone_submits_mail() -> None:
    policies = objects_of("production", "NetworkPolicy")
    senders = [
        pod.name
        for pod in (*PODS, *JOBS)
        if pod.overlay == "production" and any(reaches(policies, pod, address, port) for address in PUBLIC for port in (465, 587))
    ]
    assert senders == ["destinations-service"]


STREAMS = 50052


def test_the_gateway_alone_reaches_streams_over_http() -> None:
    policies = objects_of("production", "NetworkPolicy")
    by_labels = [
        peer["podSelector"]["matchLabels"]
        for rule in _rules(policies, _production("realtime-service"), "Ingress")
        if STREAMS in [each["port"] for each in rule["ports"]]
        for peer in rule["from"]
    ]
    assert by_labels == [{"app.kubernetes.io/component": "gateway"}]
    callers = [
        pod.name
        for pod in PODS
        if pod.overlay == "production"
        and any(STREAMS in [each["port"] for each in rule.get("ports", [])] for rule in _rules(policies, pod, "Egress"))
    ]
    assert callers == ["gateway"]
    ports = {port["name"]: port["containerPort"] for port in _production("realtime-service").main["ports"]}
    assert ports["streams"] == STREAMS == int(Settings.model_fields["stream_listen"].default.rpartition(":")[2])
    (service,) = [one for one in objects_of("production", "Service") if one["metadata"]["name"] == "realtime-service"]
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]}["streams"] == STREAMS


@pytest.mark.parametrize("name", ["exports", "rates"])
def test_jobs_reach_the_database(name: str) -> None:
    assert reaches(objects_of("production", "NetworkPolicy"), _production(name), "10.0.0.7", 3306)


def test_the_comparison_reaches_the_gateway_and_no_service() -> None:
    rules = _rules(objects_of("production", "NetworkPolicy"), _production("comparison"), "Egress")
    inside = [(peer["podSelector"]["matchLabels"], rule["ports"]) for rule in rules for peer in rule["to"] if "podSelector" in peer]
    (port,) = [port["containerPort"] for port in _production("gateway").main["ports"] if port["name"] == "http"]
    assert inside == [({"app.kubernetes.io/component": "gateway"}, [{"port": port}])]
    (service,) = [one for one in objects_of("production", "Service") if one["metadata"]["name"] == "gateway"]
    assert environment_of(_production("comparison").main)["PMP_URL"] == "http://gateway"
    assert [each["port"] for each in service["spec"]["ports"]] == [80]


@every_pod_of_ours
def test_a_pod_is_scraped_from_monitoring_and_from_nowhere_else(pod: Pod) -> None:
    (port,) = [port["containerPort"] for port in pod.main["ports"] if port["name"] == "metrics"]
    assert environment_of(pod.main)["PMP_METRICS_PORT"] == str(port)
    open_to = [
        peer
        for rule in _rules(objects_of(pod.overlay, "NetworkPolicy"), pod, "Ingress")
        if not rule.get("ports") or {"metrics", port} & {each["port"] for each in rule["ports"]}
        for peer in rule.get("from", ["everybody"])
    ]
    assert open_to == [{"namespaceSelector": {"matchLabels": MONITORING}}]
    annotated = [one["spec"]["template"]["metadata"]["annotations"] for one in objects_of(pod.overlay, "Deployment")]
    assert {(each["prometheus.io/scrape"], each["prometheus.io/port"]) for each in annotated} == {("true", str(port))}


@pytest.mark.parametrize(
    ("hosts", "complaint"),
    [("", "`data.PMP_SITE_HOSTS` is missing"), ("PMP_SITE_HOSTS=", "out of bounds"), ("PMP_SITE_HOSTS=[]", "out of bounds")],
)
def test_nothing_is_rendered_for_production_until_the_shop_is_named(hosts: str, complaint: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render("production", hosts=hosts)
    assert complaint in refused.value.stderr


def _known(pod: Pod, container: Manifest) -> set[str]:
    """The secrets that a container is given, with the key if it is one."""
    whole = {source["secretRef"]["name"] for source in container.get("envFrom", []) if "secretRef" in source}
    keys = [variable["valueFrom"]["secretKeyRef"] for variable in container.get("env", []) if "valueFrom" in variable]
    mounts = {each["name"] for each in container.get("volumeMounts", [])}
    files = [f"{name}/{key}".removesuffix("/") for name, key in files_of(pod)] if "secrets" in mounts else []
    return whole | {f"{key['name']}/{key['key']}" for key in keys} | set(files)


@pytest.mark.parametrize("pod", [*OURS, *JOBS], ids=lambda pod: f"{pod.overlay}-{pod.name}")
def test_a_pod_is_given_no_secret_of_another(pod: Pod) -> None:
    expected = {
        "gateway": {"gateway-secrets", "mesh-secrets/PMP_MESH_TOKEN"},
        "rates": {"purchases-secrets/PMP_DATABASE_URL"},
        "exports": {"exports-secrets", *(f"{name}-secrets/PMP_DATABASE_URL" for name in ("analytics", "ingestion", "purchases"))},
        "comparison": {
            *("comparison-secrets", "gateway-secrets/PMP_API_KEYS", "gateway-secrets/PMP_JWT_SECRETS"),
            "gdpr-secrets/PMP_SITE_ERASURE_SECRET",
        },
    }.get(pod.name, {"mesh-secrets", f"{pod.name.split('-')[0]}-secrets"})
    assert [_known(pod, container) for container in pod.containers] == [expected] * len(pod.containers)
    assert not any("secret" in volume for volume in pod.spec.get("volumes", []))


def test_a_new_cluster_has_an_account_for_each_service() -> None:
    secrets = {name: dict(secret) for name, secret in made_secrets().items()}
    accounts = secrets["mysql-accounts"]
    services = {pod.main["args"][0] for pod in PODS if pod.overlay == "local" and pod.main["name"] == "mesh"}
    assert accounts.keys() == services
    assert len({*accounts.values(), secrets["mysql-secrets"]["MYSQL_ROOT_PASSWORD"]}) == len(services) + 1
    for service in services:
        url = urlsplit(secrets[f"{service}-secrets"].pop("PMP_DATABASE_URL"))
        assert (url.username, url.password, url.path) == (service, accounts[service], "/{service}")
    others = [value for name, secret in secrets.items() if not name.startswith("mysql-") for value in secret.values()]
    assert [value for value in others if value in {*accounts.values(), secrets["mysql-secrets"]["MYSQL_ROOT_PASSWORD"]}] == []


def _cores(container: Manifest) -> float:
    asked: Any = container["resources"]["requests"]["cpu"]
    return float(asked.removesuffix("m")) / 1000 if str(asked).endswith("m") else float(asked)


def _asked(pod: Pod) -> float:
    """What the scheduler keeps free for a pod: for those that stay together, or for the largest that prepares."""
    return max(sum(map(_cores, pod.spec["containers"])), *map(_cores, pod.spec.get("initContainers", [])), 0)


def test_the_local_mesh_fits_a_machine_of_two_cores_with_room() -> None:
    assert sum(_asked(pod) for pod in (*PODS, *JOBS) if pod.overlay == "local") <= 1.5


@every_overlay
def test_no_pod_asks_for_more_to_prepare_than_to_work(overlay: str) -> None:
    assert [pod.name for pod in PODS if pod.overlay == overlay and _asked(pod) > sum(map(_cores, pod.spec["containers"]))] == []
