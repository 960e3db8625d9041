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
    """Issues certificates for this machine, with what RFC 5280 requires: Python 3.13 refuses others."""

    def __init__(self, name: str = "authority of the tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signs = dict.fromkeys(("key_cert_sign", "crl_sign"), True)
        others = ("content_commitment", "data_encipherment", "decipher_only", "digital_signature", "encipher_only", "key_agreement")
        usage = x509.KeyUsage(**signs, **dict.fromkeys((*others, "key_encipherment"), False))
        self._certificate = self._signed(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None), usage)

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

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType) -> x509.Certificate:
        now = datetime.now(UTC)
        unsigned = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        for extension in extensions:
            unsigned = unsigned.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage))
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
