"""Keys that encrypt keys: what stands in the database of persons' keys is of no use without them."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import Final, Protocol

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from kit.errors import Unavailable
from kit.people.vault import InvalidKey
from kit.settings import Settings

_KEY_BYTES: Final = 32


class Wrapping(Protocol):
    """Encrypts keys with keys that it alone has: those of the environment, or a key management service."""

    @property
    def current(self) -> str:
        """Id of the key that wraps from now on; at most 16 characters."""
        ...

    async def wrap(self, key: bytes) -> bytes:
        """The key encrypted under the current one; at most 255 bytes."""
        ...

    async def unwrap(self, wrapped: bytes, by: str) -> bytes:
        """The key.

        Args:
            wrapped: the key, encrypted.
            by: id of the key that it was wrapped by.

        Raises:
            Unavailable: that key is not at hand.
        """
        ...


class EnvironmentKeys:
    """Wraps with keys from the settings (AES key wrap, RFC 3394).

    Args:
        keys: 32 bytes each; the first wraps, all of them unwrap.

    Raises:
        InvalidKey: there is none, or one of another length.
    """

    def __init__(self, *keys: bytes) -> None:
        if not keys or any(len(key) != _KEY_BYTES for key in keys):
            message = "a key that encrypts keys is not 32 bytes"
            raise InvalidKey(message)
        self._keys = {sha256(b"pmp key id" + key).hexdigest()[:16]: key for key in keys}
        self.current = next(iter(self._keys))

    @classmethod
    def from_settings(cls, settings: Settings) -> EnvironmentKeys:
        """The keys under PMP_KEY_ENCRYPTION_KEYS.

        Raises:
            InvalidKey: they are not 32 bytes in base64 each.
        """
        return cls.parse(settings.key_encryption_keys.get_secret_value())

    @classmethod
    def parse(cls, text: str) -> EnvironmentKeys:
        """The keys as PMP_KEY_ENCRYPTION_KEYS has them.

        Raises:
            InvalidKey: they are not 32 bytes in base64 each.
        """
        try:
            return cls(*(b64decode(key, validate=True) for key in text.split(",")))
        except (Base64Error, ValueError, InvalidKey):
            message = "PMP_KEY_ENCRYPTION_KEYS is not 32 bytes in base64, or several such keys with commas between them"
            raise InvalidKey(message) from None

    async def wrap(self, key: bytes) -> bytes:
        """The key encrypted under the first one: 40 bytes."""
        return aes_key_wrap(self._keys[self.current], key)

    async def unwrap(self, wrapped: bytes, by: str) -> bytes:
        """The key.

        Raises:
            Unavailable: the key that it was wrapped by is none of these.
        """
        try:
            return aes_key_unwrap(self._keys[by], wrapped)
        except (KeyError, InvalidUnwrap):
            message = "a person's key is wrapped by none of PMP_KEY_ENCRYPTION_KEYS"
            raise Unavailable(message) from None
