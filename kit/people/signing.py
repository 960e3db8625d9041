"""Signatures of the mesh, by which a receipt can be verified later and elsewhere."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kit.people.derivation import derive


class Signer:
    """Signs with a key (Ed25519) derived from one key.

    Args:
        key: 32 bytes.

    Raises:
        InvalidKey: The key has another length.
    """

    def __init__(self, key: bytes) -> None:
        self._private_key = Ed25519PrivateKey.from_private_bytes(derive(key, "sign"))

    def sign(self, data: bytes) -> bytes:
        """Returns the signature of the data: 64 bytes."""
        return self._private_key.sign(data)

    def is_signed(self, data: bytes, signature: bytes) -> bool:
        """True when the signature is this mesh's signature of the data."""
        try:
            self._private_key.public_key().verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of the public key, with which signatures can be verified elsewhere."""
        return self._private_key.public_key().public_bytes_raw()
