"""A certificate is handed to the gateway whole, or not at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cli.errors import CommandFailed
from cli.server.certificate import take_up


def issue(lineage: Path, expires: datetime) -> None:
    """Issues a certificate as certbot leaves it."""
    lineage.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh.example")])
    start = expires - timedelta(days=90)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, start, expires).sign(key, hashes.SHA256())
    (lineage / "fullchain.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (lineage / "privkey.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.fixture
def lineage(tmp_path: Path) -> Path:
    issue(tmp_path / "lineage", datetime.now(UTC) + timedelta(days=90))
    return tmp_path / "lineage"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tls"
    path.mkdir()
    return path


def test_the_gateways_group_alone_reads_the_key(lineage: Path, folder: Path) -> None:
    expires = take_up(lineage, folder)
    assert timedelta(days=89) < expires - datetime.now(UTC) <= timedelta(days=90)
    found = {path.name: path.stat() for path in folder.iterdir()}
    assert found.keys() == {"tls.crt", "tls.key"}
    assert {(stat.st_mode & 0o777, stat.st_gid) for stat in found.values()} == {(0o640, folder.stat().st_gid)}
    assert (folder / "tls.crt").read_bytes() == (lineage / "fullchain.pem").read_bytes()


@pytest.mark.parametrize("fault", ["missing", "no PEM", "another key", "expired"])
def test_what_the_gateway_can_not_use_leaves_what_it_has(lineage: Path, folder: Path, tmp_path: Path, fault: str) -> None:
    take_up(lineage, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    if fault == "missing":
        (lineage / "privkey.pem").unlink()
    elif fault == "no PEM":
        (lineage / "privkey.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    elif fault == "another key":
        issue(tmp_path / "other", datetime.now(UTC) + timedelta(days=90))
        (tmp_path / "other" / "privkey.pem").replace(lineage / "privkey.pem")
    else:
        issue(lineage, datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(CommandFailed, match=r"^the certificate was not taken up: ") as refused:
        take_up(lineage, folder)
    assert "c2VjcmV0" not in str(refused.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_is_missing_is_reported(lineage: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="not taken up"):
        take_up(lineage, tmp_path / "nothing")
