"""The component `mtls` gives every pod of the mesh a certificate of its own authority, and leaves the rest as it is."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.settings import GatewaySettings
from kit.server import LIVENESS
from kit.settings import Settings
from tests.shape.test_deploy_rendered import TOOLS, environment_of, objects_of, render

CERT_MANAGER = {"Certificate", "Issuer"}


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(render("production", "mtls")))


def _named(rendered: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in rendered if each["kind"] == kind}


def test_what_it_renders_is_valid(rendered: list[dict[str, Any]], tmp_path: Path) -> None:
    known = [each for each in rendered if each["kind"] not in CERT_MANAGER]  # whose schemas are those of Kubernetes
    (tmp_path / "rendered.yaml").write_text(yaml.safe_dump_all(known))
    ran = subprocess.run(
        [TOOLS / "kubernetes-validate", "--strict", tmp_path / "rendered.yaml"], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_key_of_the_mesh_goes_to_its_own_pods_alone() -> None:
    pods = [each for each in yaml.safe_load_all(render("production", "monitoring", "mtls")) if each["kind"] == "Deployment"]
    given = {each["metadata"]["name"] for each in pods if "mesh-certificate" in str(each)}
    assert {each["metadata"]["name"] for each in pods} - given == {"collector"}


def test_every_pod_has_the_certificate_that_its_authority_issues_for_their_names(rendered: list[dict[str, Any]]) -> None:
    certificates, issuers = _named(rendered, "Certificate"), _named(rendered, "Issuer")
    issued, authority = certificates["mesh"]["spec"], certificates["mesh-authority"]["spec"]
    assert issuers[issued["issuerRef"]["name"]]["spec"] == {"ca": {"secretName": authority["secretName"]}}
    assert {"server auth", "client auth"} <= set(issued["usages"])
    assert authority["privateKey"]["rotationPolicy"] == "Never", "what it issued stays valid when it is renewed"
    (name,) = issued["dnsNames"]
    deployments = _named(rendered, "Deployment")
    services = _named(rendered, "Service")
    for deployment in deployments.values():
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        environment = environment_of(container)
        mounted = next(each for each in container["volumeMounts"] if each["mountPath"] == environment["PMP_CERTIFICATES"])
        (volume,) = (each for each in spec["volumes"] if each["name"] == mounted["name"])
        assert (mounted["readOnly"], volume["secret"]["secretName"]) == (True, issued["secretName"])
        host = environment["PMP_SERVICE_ADDRESS"].replace("{service}", "identity").rpartition(":")[0]
        assert host.split(".")[0] in services
        assert host.partition(".")[2] == name.removeprefix("*.")
        assert {each["metadata"]["namespace"] for each in rendered if "namespace" in each["metadata"]} == {host.split(".")[1]}
        assert environment["PMP_STREAM_ADDRESS"] == environment["PMP_SERVICE_ADDRESS"].replace("50051", "50052")
        fields = {f"PMP_{field}".upper() for settings in (Settings, GatewaySettings) for field in settings.model_fields}
        assert {each for each in environment if each.startswith("PMP_")} <= fields


def test_probes_ask_at_a_port_without_tls(rendered: list[dict[str, Any]]) -> None:
    processes = {name: each for name, each in _named(rendered, "Deployment").items() if name != "gateway"}
    assert len(processes) > 5
    for deployment in processes.values():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        (port,) = (each["containerPort"] for each in container["ports"] if each["name"] == "health")
        assert environment_of(container)["PMP_HEALTH_LISTEN"] == f"0.0.0.0:{port}"
        asked = {kind: container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")}
        assert {each["port"] for each in asked.values()} == {port}
        assert {kind: each.get("service", "") for kind, each in asked.items()} == {
            "startup": LIVENESS,
            "readiness": "",
            "liveness": LIVENESS,
        }


def test_nothing_else_changes(rendered: list[dict[str, Any]]) -> None:
    after = {(each["kind"], each["metadata"]["name"]): each for each in rendered}
    before = {(each["kind"], each["metadata"]["name"]): each for each in objects_of("production", *{kind for kind, _ in after})}
    assert {kind for kind, _ in after.keys() - before.keys()} == CERT_MANAGER
    assert {kind for kind, name in before if after[kind, name] != before[kind, name]} == {"Deployment"}
