"""TLS at the gateway: the same rules as without, certificates that change while it runs, and the redirect of plain HTTP."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from cli.server.certificate import take_up
from gateway.settings import GatewaySettings
from tests.gateway_probe.processes import EVENT, Gateway, eventually, headers, running_gateway, running_probe
from tests.servers import free_port

TRACK = "/api/v1/events/track"


class Secure(NamedTuple):
    """A gateway with TLS."""

    gateway: Gateway
    certificates: Path
    port: int
    redirect: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def serial(self) -> str:
        """The serial number of the certificate that a new connection is shown."""
        shown = ssl.get_server_certificate(("127.0.0.1", self.port))
        return subprocess.run(["openssl", "x509", "-noout", "-serial"], input=shown, check=True, capture_output=True, text=True).stdout


def issue(folder: Path, days: int = 2) -> None:
    """Issues a certificate as certbot's hook or a Kubernetes secret replaces one: the files are moved into the folder."""
    new = folder.parent / "new"
    new.mkdir(exist_ok=True)
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", str(days), *names]
    subprocess.run([*made, "-keyout", new / "tls.key", "-out", new / "tls.crt"], check=True, capture_output=True)
    for name in ("tls.key", "tls.crt"):
        (new / name).replace(folder / name)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    certificates = folder / "certificates"
    certificates.mkdir()
    issue(certificates)
    port, redirect = free_port(), free_port()
    settings = {
        "PMP_GATEWAY_TLS_LISTEN": f"127.0.0.1:{port}",
        "PMP_GATEWAY_CERTIFICATES": str(certificates),
        "PMP_GATEWAY_REDIRECT_LISTEN": f"127.0.0.1:{redirect}",
    }
    with running_probe(folder) as probe, running_gateway(folder, probe, **settings) as gateway:
        yield Secure(gateway, certificates, port, redirect)


def test_a_certificate_that_certbot_renewed_is_taken_up_without_a_restart(secure: Secure, tmp_path: Path) -> None:
    lineage = tmp_path / "lineage"
    lineage.mkdir()
    issue(lineage)
    for name, known in (("tls.key", "privkey.pem"), ("tls.crt", "fullchain.pem")):
        (lineage / name).rename(lineage / known)
    before = secure.serial()
    take_up(lineage, secure.certificates)
    eventually(lambda: secure.serial() != before)
    with client(secure) as caller:
        assert caller.post(TRACK, json=EVENT, headers=headers()).status_code == 200


def client(secure: Secure) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=secure.certificates / "tls.crt")
    return httpx.Client(base_url=secure.url, verify=trusted, timeout=20)


def statistic(secure: Secure, name: str) -> int:
    with httpx.Client(base_url="http://gateway", transport=httpx.HTTPTransport(uds=secure.gateway.admin)) as admin:
        return int(admin.get("/stats", params={"filter": f"^{name}$"}).text.rpartition(": ")[2])


def test_a_call_over_tls_is_served_by_the_same_rules(secure: Secure) -> None:
    with client(secure) as caller:
        served = caller.post(TRACK, json=EVENT, headers=headers())
        refused = caller.post(TRACK, json=EVENT)
    assert (served.status_code, refused.status_code) == (200, 401)
    assert served.headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in secure.gateway.track().headers


@pytest.mark.parametrize(("version", "is_served"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_old_versions_of_tls_are_refused(secure: Secure, version: str, *, is_served: bool) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{secure.port}", "-alpn", "h2", version, "-cipher", "DEFAULT:@SECLEVEL=0"]
    answer = subprocess.run(command, input="", check=False, capture_output=True, text=True, timeout=20)
    assert ("ALPN protocol: h2" in answer.stdout) == is_served, answer.stdout


def test_a_certificate_that_was_replaced_is_served_without_a_failed_call(secure: Secure) -> None:
    before = secure.serial()
    old = ssl.create_default_context(cafile=secure.certificates / "tls.crt")
    with httpx.Client(base_url=secure.url, verify=old, timeout=20) as connected:
        assert connected.post(TRACK, json=EVENT, headers=headers()).status_code == 200
        issue(secure.certificates)
        eventually(lambda: secure.serial() != before)
        # The connection from before goes on.
        assert connected.post(TRACK, json=EVENT, headers=headers()).status_code == 200
    with client(secure) as caller:
        assert caller.post(TRACK, json=EVENT, headers=headers()).status_code == 200


def test_a_damaged_certificate_leaves_the_one_before_in_place(secure: Secure) -> None:
    before, whole = secure.serial(), (secure.certificates / "tls.crt").read_bytes()
    failed = statistic(secure, "sds.gateway.key_rotation_failed")
    damaged = secure.certificates.parent / "damaged"
    damaged.write_text("no certificate")
    damaged.replace(secure.certificates / "tls.crt")
    eventually(lambda: statistic(secure, "sds.gateway.key_rotation_failed") > failed)
    assert secure.serial() == before
    assert statistic(secure, "server.days_until_first_cert_expiring") in {1, 2}
    damaged.write_bytes(whole)
    damaged.replace(secure.certificates / "tls.crt")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_plain_http_is_redirected_with_its_method(secure: Secure, method: str) -> None:
    answer = httpx.request(method, f"http://localhost:{secure.redirect}/docs?lang=de", timeout=20)
    assert (answer.status_code, answer.headers["location"]) == (308, f"{secure.url}/docs?lang=de")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"PMP_GATEWAY_TLS_LISTEN": "0.0.0.0:443"}, "belong together"),
        ({"PMP_GATEWAY_REDIRECT_LISTEN": "0.0.0.0:80"}, "needs gateway_tls_listen"),
        ({"PMP_GATEWAY_TLS_LISTEN": "0.0.0.0:443", "PMP_GATEWAY_CERTIFICATES": "/nonexistent"}, "no tls.crt and no tls.key"),
    ],
)
def test_half_of_the_settings_is_refused(settings: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    required = {
        "PMP_MESH_TOKEN": "token",
        "PMP_API_KEYS": '["0123456789abcdef"]',
        "PMP_JWT_SECRETS": '["0123456789abcdef0123456789abcdef"]',
    }
    for name, value in (required | settings).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=problem):
        GatewaySettings()  # pyright: ignore[reportCallIssue]  (the required fields come from the environment)
