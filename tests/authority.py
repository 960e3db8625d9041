"""An authority of the tests, and a folder of secrets that changes as one of Kubernetes does."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from kit.credentials.files import AUTHORITY, CERTIFICATE, PRIVATE_KEY


class Authority:
    """Issues certificates for this machine."""

    def __init__(self, name: str = "authority of the tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._signed(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))

    def issue(self, folder: Path) -> int:
        """Issues a certificate and moves it, with its key and this authority, into a folder; returns its serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        local = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate = self._signed(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key.public_key(), x509.SubjectAlternativeName(local)
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        folder.mkdir(exist_ok=True)
        files = {
            AUTHORITY: self._certificate.public_bytes(Encoding.PEM),
            PRIVATE_KEY: private,
            CERTIFICATE: certificate.public_bytes(Encoding.PEM),
        }
        for name, content in files.items():
            written = folder.with_suffix(".new")
            written.write_bytes(content)
            written.replace(folder / name)
        return certificate.serial_number

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType) -> x509.Certificate:
        now = datetime.now(UTC)
        unsigned = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(extension, critical=False)
        )
        return unsigned.sign(self._key, hashes.SHA256())


LOOKS = "kit.credentials.files._LOOK_SECONDS"
"""The interval at which secrets are looked at, which tests make shorter."""
LOOK_SECONDS = 0.1
"""What they make it."""
LOOKED = 0.3
"""Seconds after which a changed secret is used."""


class MountedSecrets:
    """A folder of secrets whose files are replaced all at once, by the link that they all lead through."""

    def __init__(self, folder: Path, **values: str) -> None:
        self.folder = folder
        self._values: dict[str, str] = {}
        self._versions = count(1)
        folder.mkdir()
        self.put(**values)

    def put(self, **values: str) -> None:
        """Changes secrets, or adds some."""
        self._values |= values
        version = self.folder / f"..{next(self._versions)}"
        version.mkdir()
        for name, value in self._values.items():
            (version / name).write_text(f"{value}\n")
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.replace(self.folder / "..data")
        for name in self._values:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data") / name)
