"""Keyed hashes under which personal values are found again, and signatures. What seals the values themselves is in `kit.people.keys`."""

from __future__ import annotations

import hmac
import unicodedata
from base64 import b64decode
from binascii import Error as Base64Error
from functools import cache, partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kit.errors import MeshError

if TYPE_CHECKING:
    from kit.settings import Settings

_KEY_BYTES = 32


class InvalidKey(MeshError):
    """A key in the settings is not 32 bytes in base64."""


class Vault:
    """Keys for one mesh, each derived from the one in the settings for its own use. They seal nothing, and never change."""

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            message = "the vault's key is not 32 bytes"
            raise InvalidKey(message)
        self._fingerprint = _derive(key, "fingerprint")
        # One that has taken in the key, to be copied: taking it in anew costs a third of a digest.
        self._hasher = cache(partial(_hasher, _derive(key, "digest")))
        self._sign = Ed25519PrivateKey.from_private_bytes(_derive(key, "sign"))

    @classmethod
    def from_settings(cls, settings: Settings) -> Vault:
        """The vault under PMP_VAULT_KEY.

        Raises:
            InvalidKey: It is not 32 bytes in base64.
        """
        return cls.parse(settings.vault_key.get_secret_value())

    @classmethod
    def parse(cls, text: str) -> Vault:
        """The vault of a key as PMP_VAULT_KEY has it.

        Raises:
            InvalidKey: It is not 32 bytes in base64.
        """
        try:
            return cls(b64decode(text, validate=True))
        except (Base64Error, ValueError, InvalidKey):
            message = "PMP_VAULT_KEY is not 32 bytes in base64"
            raise InvalidKey(message) from None

    def fingerprint(self, value: str) -> bytes:
        """32 bytes (HMAC-SHA256), the same for every way to write an e-mail address: case, width and outer space do not count."""
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).strip()
        return hmac.digest(self._fingerprint, folded.encode(), "sha256")

    def digest(self, data: bytes, *, purpose: str) -> bytes:
        """16 bytes (keyed BLAKE2b) for comparing contents and for pseudonyms; unrelated between purposes."""
        hasher = self._hasher(purpose).copy()
        hasher.update(data)
        return hasher.digest()

    def sign(self, data: bytes) -> bytes:
        """64 bytes (Ed25519) by which everybody who has the public key knows that this mesh wrote the data."""
        return self._sign.sign(data)

    def is_signed(self, data: bytes, signature: bytes) -> bool:
        """True when this mesh signed the data."""
        try:
            self._sign.public_key().verify(signature, data)
        except InvalidSignature:
            return False
        return True

    @property
    def public_key(self) -> bytes:
        """32 bytes with which signatures can be checked elsewhere."""
        return self._sign.public_key().public_bytes_raw()


def _hasher(key: bytes, purpose: str) -> blake2b:
    person = blake2b(purpose.encode(), digest_size=blake2b.PERSON_SIZE).digest()
    return blake2b(key=key, person=person, digest_size=16)


def _derive(key: bytes, use: str) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=f"pmp vault 1 {use}".encode()).derive(key)
