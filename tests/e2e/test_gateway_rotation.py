"""Secrets and certificates of the gateway that change while calls go on."""

from __future__ import annotations

import json
import ssl
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import httpx
import psutil
import pytest
from cryptography import x509

from tests.authority import Authority, MountedSecrets
from tests.gateway_probe.processes import (
    API_KEYS,
    EVENT,
    JWT_SECRETS,
    MESH_TOKEN,
    SECRETS,
    Gateway,
    eventually,
    running_gateway,
    running_probe,
    token,
)

TRACK = "/api/v1/events/track"
NEW_KEY = "server-key-that-came-while-it-ran"
NEW_SECRET = "the-secret-that-came-while-it-ran-0123456789"
NEW_TOKEN = "mesh-token-that-is-100%-new"


@dataclass
class Caller:
    """Calls a gateway again and again."""

    gateway: Gateway
    key: str = API_KEYS[0]
    secret: str = JWT_SECRETS[0]
    answers: list[str] = field(default_factory=list[str])
    """What was wrong with each answer; empty for one that was right."""

    def post(self, client: httpx.Client, **other: str) -> httpx.Response:
        credentials = {"key": self.key, "secret": self.secret, **other}
        signed = {"x-api-key": credentials["key"], "authorization": f"Bearer {token(secret=credentials['secret'])}"}
        return client.post(TRACK, json=EVENT, headers=signed)

    def status(self, **other: str) -> int:
        """The status of a call with other credentials, over a new connection."""
        with httpx.Client(base_url=f"http://{self.gateway.address}", timeout=20) as client:
            return self.post(client, **other).status_code

    def is_taken(self, **other: str) -> bool:
        """Whether a call with other credentials is answered."""
        return self.status(**other) == 200

    @contextmanager
    def calling(self) -> Generator[None]:
        """Calls without a pause, and over new connections as well."""
        over = Event()

        def call() -> None:
            while not over.is_set():
                with httpx.Client(base_url=f"http://{self.gateway.address}", timeout=20) as client:
                    for _ in range(10):
                        answer = self.post(client)
                        self.answers.append("" if answer.status_code == 200 else answer.text)
                        over.wait(0.01)

        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(call) for _ in range(2)]
            try:
                yield
            finally:
                over.set()
        for each in calls:
            each.result()


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> MountedSecrets:
    return MountedSecrets(tmp_path_factory.mktemp("mounted") / "secrets", **SECRETS)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("issued") / "certificates"


@pytest.fixture(scope="module")
def authority(certificates: Path) -> Authority:
    authority = Authority()
    authority.issue(certificates)
    return authority


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory, certificates: Path, authority: Authority) -> Iterator[int]:
    """Port of a service that takes calls with a certificate only."""
    assert authority
    with running_probe(tmp_path_factory.mktemp("probe"), certificates=certificates) as port:
        yield port


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory, secrets: MountedSecrets, certificates: Path, probe: int) -> Iterator[Caller]:
    """Of a gateway with secrets in files and a certificate."""
    settings = {"PMP_SECRETS_DIR": str(secrets.folder), "PMP_CERTIFICATES": str(certificates)}
    with running_gateway(tmp_path_factory.mktemp("gateway"), probe, **settings) as gateway:
        caller = Caller(gateway)
        eventually(caller.is_taken)
        yield caller


def log(caller: Caller) -> str:
    return caller.gateway.log.read_text()


def sent(caller: Caller) -> dict[str, str]:
    """What a service is sent with a call, and the serial number of the gateway's certificate."""
    return json.loads(caller.post(caller.gateway.client).json()["event_id"])


def served_serial(probe: int) -> str:
    """The serial number of the certificate that a service shows."""
    shown = ssl.get_server_certificate(("127.0.0.1", probe))
    return str(x509.load_pem_x509_certificate(shown.encode()).serial_number)


def test_an_api_key_rotates_without_a_failed_call(caller: Caller, secrets: MountedSecrets) -> None:
    with caller.calling():
        secrets.put(PMP_API_KEYS=json.dumps([API_KEYS[0], NEW_KEY]))
        eventually(lambda: caller.is_taken(key=NEW_KEY))
        caller.key = NEW_KEY
        secrets.put(PMP_API_KEYS=json.dumps([NEW_KEY]))
        eventually(lambda: not caller.is_taken(key=API_KEYS[0]))
    assert len(caller.answers) > 20
    assert set(caller.answers) == {""}


def test_a_secret_of_tokens_rotates_without_a_failed_call(caller: Caller, secrets: MountedSecrets) -> None:
    with caller.calling():
        secrets.put(PMP_JWT_SECRETS=json.dumps([JWT_SECRETS[0], NEW_SECRET]))
        eventually(lambda: caller.is_taken(secret=NEW_SECRET))
        caller.secret = NEW_SECRET
        secrets.put(PMP_JWT_SECRETS=json.dumps([NEW_SECRET]))
        eventually(lambda: not caller.is_taken(secret=JWT_SECRETS[0]))
    assert set(caller.answers) == {""}


def test_calls_carry_the_newest_credential_of_the_mesh(caller: Caller, secrets: MountedSecrets) -> None:
    assert sent(caller)["x-pmp-mesh-token"] == MESH_TOKEN
    with caller.calling():
        secrets.put(PMP_MESH_TOKEN=f"{NEW_TOKEN},{MESH_TOKEN}")
        eventually(lambda: sent(caller)["x-pmp-mesh-token"] == NEW_TOKEN)
    assert set(caller.answers) == {""}


def test_secrets_of_no_use_leave_those_before_in_place_and_are_not_shown(caller: Caller, secrets: MountedSecrets) -> None:
    secrets.put(PMP_API_KEYS='["too short"]', PMP_MESH_TOKEN="one,too,many")
    eventually(lambda: "changed secrets refused" in log(caller))
    assert caller.is_taken()
    line = next(json.loads(line) for line in log(caller).splitlines() if "changed secrets refused" in line)
    assert line["names"] == ["PMP_API_KEYS.0", "PMP_MESH_TOKEN"]
    secrets.put(PMP_API_KEYS=json.dumps([caller.key]), PMP_MESH_TOKEN=NEW_TOKEN)
    for secret in ("too short", "too,many", NEW_KEY, NEW_TOKEN, NEW_SECRET, *API_KEYS, *JWT_SECRETS, MESH_TOKEN):
        assert secret not in log(caller)


def test_secrets_are_for_the_gateways_user_alone(caller: Caller) -> None:
    assert [name for name in psutil.Process(caller.gateway.pid).environ() if name.startswith("PMP_")] == []
    folder = Path(caller.gateway.admin).with_suffix(".secrets")
    files = list(folder.iterdir())
    assert len(files) == 3
    assert ({file.stat().st_mode & 0o777 for file in files}, folder.stat().st_mode & 0o777) == ({0o600}, 0o700)


def test_a_certificate_rotates_without_a_failed_call(caller: Caller, certificates: Path, authority: Authority, probe: int) -> None:
    before = sent(caller)["peer-serial"]
    with caller.calling():
        serial = str(authority.issue(certificates))
        assert serial != before
        eventually(lambda: sent(caller)["peer-serial"] == serial)
        eventually(lambda: served_serial(probe) == serial)
    assert set(caller.answers) == {""}


def test_a_gateway_without_a_certificate_reaches_no_service(tmp_path: Path, caller: Caller, secrets: MountedSecrets, probe: int) -> None:
    with running_gateway(tmp_path, probe, PMP_SECRETS_DIR=str(secrets.folder)) as gateway:
        (follower,) = psutil.Process(gateway.pid).children()
        eventually(lambda: Caller(gateway, caller.key, caller.secret).status() == 503)
    eventually(lambda: not follower.is_running() or follower.status() == psutil.STATUS_ZOMBIE)
