"""A double of PayPal: signs webhooks, and serves its certificates over HTTPS."""

from __future__ import annotations

import json
import ssl
import zlib
from base64 import b64decode, b64encode
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.destinations.received.certificates import NAME

_START = datetime(2026, 1, 1, tzinfo=UTC)
_END = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class PayPalDouble:
    """PayPal on this machine."""

    host: str
    """Where its certificates are, with the port."""
    roots: Path
    """The root that its certificates lead to."""
    key: rsa.RSAPrivateKey
    webhook_id: str = "WH-OF-THE-TESTS"
    fetched: int = 0
    """How often a certificate was asked for."""
    tokens: int = 0
    """How often a token was asked for."""
    down: bool = False
    """It answers 503."""
    verdict: int = 200
    """The status of its answers about signatures."""

    def sign(self, body: bytes, at: datetime, *, certificate: str = "cert.pem", transmission: str = "t-1") -> dict[str, str]:
        """The headers of a webhook."""
        sent_at = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        content = f"{transmission}|{sent_at}|{self.webhook_id}|{zlib.crc32(body)}".encode()
        return {
            "paypal-auth-algo": "SHA256withRSA",
            "paypal-transmission-id": transmission,
            "paypal-transmission-time": sent_at,
            "paypal-transmission-sig": b64encode(self.key.sign(content, PKCS1v15(), SHA256())).decode(),
            "paypal-cert-url": f"https://{self.host}/{certificate}",
        }


class _Authority:
    """A certification authority with one intermediate certificate."""

    def __init__(self) -> None:
        self._root_key, self._key = _new_key(), _new_key()
        self.root = _certificate("A root", self._root_key, "A root", self._root_key, authority=1)
        self.intermediate = _certificate("An intermediate", self._key, "A root", self._root_key, authority=0)

    def issue(self, name: str, key: Any, *, end: datetime = _END) -> bytes:
        """A certificate for a key, with the chain, in PEM."""
        leaf = _certificate(name, key, "An intermediate", self._key, end=end)
        return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (leaf, self.intermediate))


@contextmanager
def running_paypal(folder: Path) -> Generator[PayPalDouble]:
    """A double with a certification authority of its own."""
    authority, key = _Authority(), _new_key()
    own = _certificate(NAME, key, NAME, key).public_bytes(serialization.Encoding.PEM)
    published = {
        "/cert.pem": authority.issue(NAME, key),
        "/other-name.pem": authority.issue("www.paypal.com", key),
        "/expired.pem": authority.issue(NAME, key, end=_START + timedelta(days=1)),
        "/self-signed.pem": own,
        "/garbage.pem": b"no certificate",
        "/huge.pem": authority.issue(NAME, key) + b"\n" * 100_000,
        "/elliptic.pem": authority.issue(NAME, ec.generate_private_key(ec.SECP256R1())),
    }
    roots, server_key = folder / "roots.pem", _new_key()
    roots.write_bytes(authority.root.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(
        authority.issue("127.0.0.1", server_key)
        + server_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    double = PayPalDouble("", roots, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(published, double)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        double.host = f"127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield double
        finally:
            server.shutdown()
            thread.join()


def _handler(published: Mapping[str, bytes], double: PayPalDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            double.fetched += 1
            content = published.get(self.path)
            self._answer(503 if double.down else 404 if content is None else 200, content or b"")

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            authorization = self.headers["authorization"]
            if double.down:
                self._answer(503, b"")
            elif self.path == "/v1/oauth2/token" and content == b"grant_type=client_credentials":
                double.tokens += 1
                is_known = authorization == f"Basic {b64encode(b'app:secret').decode()}"
                self._answer(200 if is_known else 401, b'{"access_token": "a-token", "expires_in": 3600}' if is_known else b"{}")
            elif self.path == "/v1/notifications/verify-webhook-signature" and authorization == "Bearer a-token":
                self._answer(
                    double.verdict, json.dumps({"verification_status": "SUCCESS" if _is_own(double, content) else "FAILURE"}).encode()
                )
            else:
                self._answer(404, b"")

        def _answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            """Logs nothing."""

    return Handler


def _is_own(double: PayPalDouble, question: bytes) -> bool:
    """Whether a signature is the double's: of the event as it stands in the question."""
    asked, event = json.loads(question), question.partition(b'"webhook_event":')[2][:-1]
    content = f"{asked['transmission_id']}|{asked['transmission_time']}|{asked['webhook_id']}|{zlib.crc32(event)}".encode()
    try:
        double.key.public_key().verify(b64decode(asked["transmission_sig"]), content, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return asked["auth_algo"] == "SHA256withRSA" and asked["webhook_id"] == double.webhook_id


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _certificate(
    name: str, key: Any, issuer: str, issuer_key: rsa.RSAPrivateKey, *, authority: int | None = None, end: datetime = _END
) -> x509.Certificate:
    is_authority = authority is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_START)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(_usage(is_authority=is_authority), critical=True)
    )
    if not is_authority:
        address = x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(issuer_key, SHA256())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
