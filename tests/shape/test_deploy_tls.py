"""The component `tls` opens a port with TLS at the gateway, and changes nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.settings import GatewaySettings
from kit.credentials.files import CERTIFICATE, PRIVATE_KEY
from tests.shape.test_deploy_rendered import objects_of, parsed, render


@pytest.fixture(scope="module")
def rendered() -> str:
    return render("production", "tls")


def _object(rendered: str, kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in parsed(rendered) if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def test_the_gateway_serves_tls_with_the_certificate_of_a_secret(rendered: str) -> None:
    spec = _object(rendered, "Deployment", "gateway")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    mounted = next(each for each in container["volumeMounts"] if each["mountPath"] == environment["PMP_GATEWAY_CERTIFICATES"])
    (volume,) = (each for each in spec["volumes"] if each["name"] == mounted["name"])
    assert mounted["readOnly"]
    assert volume["secret"]["secretName"] == "gateway-tls"
    assert (CERTIFICATE, PRIVATE_KEY) == ("tls.crt", "tls.key")
    assert {name.removeprefix("PMP_").lower() for name in environment} <= GatewaySettings.model_fields.keys()
    (https,) = (each for each in container["ports"] if each["name"] == "https")
    assert str(https["containerPort"]) == environment["PMP_GATEWAY_TLS_LISTEN"].rpartition(":")[2]
    assert {each["name"]: each["port"] for each in _object(rendered, "Service", "gateway")["spec"]["ports"]} == {"http": 80, "https": 443}
    assert _object(rendered, "NetworkPolicy", "gateway-tls")["spec"]["ingress"] == [{"ports": [{"port": "https"}]}]


def test_nothing_else_changes(rendered: str) -> None:
    after = {(each["kind"], each["metadata"]["name"]): each for each in parsed(rendered)}
    before = {(each["kind"], each["metadata"]["name"]): each for each in objects_of("production", *{kind for kind, _ in after})}
    assert after.keys() - before.keys() == {("NetworkPolicy", "gateway-tls")}
    assert {key for key in before if after[key] != before[key]} == {("Deployment", "gateway"), ("Service", "gateway")}
