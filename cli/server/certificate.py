"""`pmp service certificate`: hands a certificate that certbot obtained or renewed to the gateway, which reads it without a restart."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from cli.errors import CommandFailed
from gateway.settings import CERTIFICATE, PRIVATE_KEY


def take_up(lineage: Path, folder: Path) -> datetime:
    """Moves copies of `privkey.pem` and `fullchain.pem` into the gateway's folder, readable by that folder's group.

    Args:
        lineage: a folder of certbot's, such as `/etc/letsencrypt/live/mesh.example`.
        folder: the setting `gateway_certificates`.

    Returns:
        When the certificate expires.

    Raises:
        CommandFailed: a file is missing or none of its kind, they don't belong together, the certificate has expired, or the folder
            can't be written. The gateway keeps what it has.
    """
    try:
        key, chain = ((lineage / name).read_bytes() for name in ("privkey.pem", "fullchain.pem"))
        expires = _checked(chain, key)
        for name, content in ((PRIVATE_KEY, key), (CERTIFICATE, chain)):
            _move_into(folder, name, content)
    except OSError as error:
        raise CommandFailed(f"the certificate was not taken up: {error}") from error
    return expires


def _checked(chain: bytes, key: bytes) -> datetime:
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        # The cause could show a part of the key.
        raise CommandFailed(
            "the certificate was not taken up: the files are no PEM of a certificate and of a key without a password"
        ) from None
    forms = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*forms) != private.public_key().public_bytes(*forms):
        raise CommandFailed("the certificate was not taken up: the key is another certificate's")
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise CommandFailed(f"the certificate was not taken up: it expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    return certificate.not_valid_after_utc


def _move_into(folder: Path, name: str, content: bytes) -> None:
    """Replaces a file of the folder by a move, on which the gateway reads it."""
    descriptor, partial = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchown(file.fileno(), -1, folder.stat().st_gid)
            os.fchmod(file.fileno(), 0o640)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(folder / name)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
