"""Derives a key for each use from the one key of the mesh, PMP_VAULT_KEY."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kit.errors import MeshError

if TYPE_CHECKING:
    from kit.settings import Settings

KEY_BYTES: Final = 32


class InvalidKey(MeshError, ValueError):
    """A key in the settings is not 32 bytes in base64."""


def configured_key(settings: Settings) -> bytes:
    """Returns the key under PMP_VAULT_KEY.

    Raises:
        InvalidKey: It is not 32 bytes in base64.
    """
    return parse_key(settings.vault_key.get_secret_value())


def parse_key(text: str) -> bytes:
    """Parses a key as PMP_VAULT_KEY holds it.

    Raises:
        InvalidKey: It is not 32 bytes in base64.
    """
    try:
        key = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        message = "PMP_VAULT_KEY is not 32 bytes in base64"
        raise InvalidKey(message)
    return key


def derive(key: bytes, use: str) -> bytes:
    """Derives 32 bytes for one use (HKDF with SHA-256); keys of different uses are unrelated.

    Raises:
        InvalidKey: The key is not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        message = "the key is not 32 bytes"
        raise InvalidKey(message)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"pmp vault 1 {use}".encode()).derive(key)
