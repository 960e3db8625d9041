"""mTLS within the mesh: who has no certificate of its authority is refused, and certificates change while calls go on."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from pydantic import SecretStr

from kit.boundary.boundary import Boundary
from kit.credentials.certificates import Certificates, certificates_in
from kit.credentials.files import AUTHORITY, CERTIFICATE, PRIVATE_KEY
from kit.errors import Unavailable
from kit.server import LIVENESS
from kit.settings import Settings, WrongSetting
from kit.streams.listener import StreamListener
from tests.authority import Authority
from tests.holder import erase, repeated, running_holder
from tests.servers import free_port

TOKEN = "token"


@pytest.fixture
def authority() -> Authority:
    return Authority()


def settings_of(certificates: Path | None, address: str, mesh_token: str = TOKEN) -> Settings:
    return Settings(
        listen=address,
        health_listen=f"127.0.0.1:{free_port()}",
        mesh_token=SecretStr(mesh_token),
        vault_key=SecretStr(""),
        key_encryption_keys=SecretStr(""),
        database_url="sqlite+aiosqlite://",
        redis_url="redis://127.0.0.1",
        service_address=address,
        certificates=certificates,
    )


@pytest.fixture
async def service(tmp_path: Path, authority: Authority) -> AsyncIterator[Settings]:
    """The settings of a service that has a certificate."""
    authority.issue(tmp_path / "service")
    settings = settings_of(tmp_path / "service", f"127.0.0.1:{free_port()}")
    async with running_holder(settings):
        yield settings


async def served_serial(port: int) -> int:
    """The serial number of the certificate that a new connection is shown."""
    shown = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    return x509.load_pem_x509_certificate(shown.encode()).serial_number


async def test_certificates_rotate_without_a_failed_call(service: Settings, tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "caller")
    caller = settings_of(tmp_path / "caller", service.listen)
    port = int(service.listen.rpartition(":")[2])
    async with repeated(lambda: erase(caller)) as answers:
        for folder in ("service", "caller", "service"):
            serial = authority.issue(tmp_path / folder)
            async with asyncio.timeout(10):
                while folder == "service" and await served_serial(port) != serial:
                    pass
    assert len(answers) > 10


async def test_who_has_no_certificate_of_the_authority_is_refused(service: Settings, tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "caller")
    Authority("another authority").issue(tmp_path / "stranger")
    await erase(settings_of(tmp_path / "caller", service.listen))
    # The authority that a stranger trusts is the mesh's, so that only the service can refuse.
    (tmp_path / "caller" / AUTHORITY).replace(tmp_path / "stranger" / AUTHORITY)
    for certificates in (None, tmp_path / "stranger"):
        with pytest.raises(Unavailable, match="identity answers UNAVAILABLE"):
            await erase(settings_of(certificates, service.listen))


async def test_a_service_of_another_authority_is_not_called(service: Settings, tmp_path: Path) -> None:
    Authority("another authority").issue(tmp_path / "caller")
    with pytest.raises(Unavailable, match="identity answers UNAVAILABLE"):
        await erase(settings_of(tmp_path / "caller", service.listen))


async def test_a_certificate_is_no_credential_of_the_mesh(service: Settings) -> None:
    assert service.certificates
    with pytest.raises(Unavailable, match="identity answers UNAUTHENTICATED"):
        await erase(settings_of(service.certificates, service.listen, mesh_token="another"))


async def test_probes_are_answered_without_tls_and_nothing_else_is(service: Settings) -> None:
    assert service.health_listen
    async with grpc.aio.insecure_channel(service.health_listen) as channel:
        health: Any = HealthStub(channel)
        for name in ("", LIVENESS):
            assert (await health.Check(HealthCheckRequest(service=name))).status == HealthCheckResponse.SERVING
    with pytest.raises(Unavailable, match="identity answers UNIMPLEMENTED"):
        await erase(settings_of(None, service.health_listen))
    async with grpc.aio.insecure_channel(service.listen) as channel:
        health = HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await health.Check(HealthCheckRequest())


async def test_a_half_written_change_waits_for_its_other_half(service: Settings, tmp_path: Path, authority: Authority) -> None:
    port = int(service.listen.rpartition(":")[2])
    before = await served_serial(port)
    serial = authority.issue(tmp_path / "next")
    (tmp_path / "next" / PRIVATE_KEY).replace(tmp_path / "service" / PRIVATE_KEY)
    await asyncio.sleep(1.1)
    assert await served_serial(port) == before
    (tmp_path / "next" / CERTIFICATE).replace(tmp_path / "service" / CERTIFICATE)
    await asyncio.sleep(1.1)
    assert await served_serial(port) == serial


@pytest.mark.parametrize("name", [CERTIFICATE, PRIVATE_KEY, AUTHORITY])
def test_certificates_of_no_use_are_named_at_the_start(tmp_path: Path, authority: Authority, name: str) -> None:
    authority.issue(tmp_path / "whole")
    (tmp_path / "whole" / name).unlink()
    with pytest.raises(WrongSetting, match=rf"^PMP_CERTIFICATES: .*{name}"):
        Certificates(tmp_path / "whole")


def test_a_key_of_another_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "one")
    authority.issue(tmp_path / "other")
    (tmp_path / "other" / PRIVATE_KEY).replace(tmp_path / "one" / PRIVATE_KEY)
    with pytest.raises(WrongSetting, match=r"^PMP_CERTIFICATES: tls.key is not the key of tls.crt$"):
        Certificates(tmp_path / "one")


def test_a_key_with_a_password_is_refused(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path)
    key = load_pem_private_key((tmp_path / PRIVATE_KEY).read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    certificates = Certificates(tmp_path)
    (tmp_path / PRIVATE_KEY).write_bytes(locked)
    with pytest.raises(WrongSetting, match=r"^PMP_CERTIFICATES: .*encrypted"):
        Certificates(tmp_path)
    with pytest.raises(ssl.SSLError):
        certificates.of_listener()


def test_a_certificate_with_a_key_of_an_unknown_curve_is_refused(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path)
    made = ["openssl", "ecparam", "-name", "secp112r1", "-genkey", "-noout", "-out", str(tmp_path / PRIVATE_KEY)]
    subprocess.run(made, check=True, capture_output=True)
    with pytest.raises(WrongSetting, match=r"^PMP_CERTIFICATES: Curve .* is not supported$"):
        Certificates(tmp_path)


async def test_streams_over_http_take_callers_with_a_certificate_only(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "service"
    authority.issue(folder)
    listener = StreamListener(Boundary(lambda: ("token",)), [], folder)
    port = await listener.listen(f"127.0.0.1:{free_port()}")

    async def answer(*, with_certificate: bool) -> bytes:
        context = ssl.create_default_context(cafile=folder / AUTHORITY)
        if with_certificate:
            context.load_cert_chain(folder / CERTIFICATE, folder / PRIVATE_KEY)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            with closing(writer):
                writer.write(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n")
                return await reader.read(12)
        except (ssl.SSLError, ConnectionError):
            return b""

    try:
        assert await answer(with_certificate=True) == b"HTTP/1.1 404"
        assert await answer(with_certificate=False) == b""
        serial = authority.issue(folder)
        await asyncio.sleep(1.1)
        assert await served_serial(port) == serial
        assert await answer(with_certificate=True) == b"HTTP/1.1 404"
    finally:
        await listener.close(0)


def test_all_who_ask_for_a_folder_share_its_certificates(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "shared")
    assert certificates_in(tmp_path / "shared") is certificates_in(tmp_path / "shared")
