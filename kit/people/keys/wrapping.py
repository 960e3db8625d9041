"""Key encryption keys: without them, the database of persons' keys is of no use."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from kit.errors import Unavailable
from kit.people.derivation import KEY_BYTES, InvalidKey
from kit.settings import Settings


class Wrapped(NamedTuple):
    """A key that is encrypted with a key encryption key."""

    key: bytes
    """At most 255 bytes."""
    by: str
    """Id of the key encryption key."""


class Wrapping(Protocol):
    """Encrypts keys with key encryption keys: those of the environment, or of a key management service."""

    @property
    def current(self) -> str:
        """Id of the key that new keys are wrapped with; at most 16 characters."""
        ...

    async def wrap(self, key: bytes) -> Wrapped:
        """Encrypts a key with the current key."""
        ...

    async def unwrap(self, wrapped: bytes, by: str) -> bytes:
        """Returns the key, decrypted.

        Args:
            wrapped: The encrypted key.
            by: Id of the key that it was wrapped with.

        Raises:
            Unavailable: That key is not available.
        """
        ...


class EnvironmentKeys:
    """Wraps with keys from the settings (AES key wrap, RFC 3394).

    Args:
        keys: 32 bytes each; the first wraps, all of them unwrap.

    Raises:
        InvalidKey: There is no key, or one of another length.
    """

    def __init__(self, *keys: bytes) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            message = "a key that encrypts keys is not 32 bytes"
            raise InvalidKey(message)
        self._keys = {sha256(b"pmp key id" + key).hexdigest()[:16]: key for key in keys}
        self.current = next(iter(self._keys))

    @classmethod
    def parse(cls, text: str) -> EnvironmentKeys:
        """Parses keys as PMP_KEY_ENCRYPTION_KEYS holds them.

        Raises:
            InvalidKey: They are not 32 bytes in base64 each.
        """
        try:
            return cls(*(b64decode(key, validate=True) for key in text.split(",")))
        except (Base64Error, ValueError, InvalidKey):
            message = "PMP_KEY_ENCRYPTION_KEYS is not 32 bytes in base64, or several such keys with commas between them"
            raise InvalidKey(message) from None

    async def wrap(self, key: bytes) -> Wrapped:
        """Encrypts a key with the first key, to 40 bytes."""
        return Wrapped(aes_key_wrap(self._keys[self.current], key), self.current)

    async def unwrap(self, wrapped: bytes, by: str) -> bytes:
        """Returns the key, decrypted.

        Raises:
            Unavailable: The key that it was wrapped with is not one of these.
        """
        try:
            return aes_key_unwrap(self._keys[by], wrapped)
        except (KeyError, InvalidUnwrap):
            message = "a person's key is wrapped by none of PMP_KEY_ENCRYPTION_KEYS"
            raise Unavailable(message) from None


class FollowedKeys:
    """Wraps with keys that may be replaced while the process runs.

    Args:
        newest: Returns them as they are at the moment of a call.
    """

    def __init__(self, newest: Callable[[], EnvironmentKeys]) -> None:
        self._newest = newest

    @property
    def current(self) -> str:
        """Id of the key that new keys are wrapped with."""
        return self._newest().current

    async def wrap(self, key: bytes) -> Wrapped:
        """Encrypts a key with the first key of this moment."""
        return await self._newest().wrap(key)

    async def unwrap(self, wrapped: bytes, by: str) -> bytes:
        """Returns the key, decrypted.

        Raises:
            Unavailable: The key that it was wrapped with is not one of this moment's.
        """
        return await self._newest().unwrap(wrapped, by)


def configured_wrapping(settings: Settings) -> Wrapping:
    """Wraps with the keys of PMP_KEY_ENCRYPTION_KEYS, and follows its file if they come from one.

    Raises:
        InvalidKey: They are not 32 bytes in base64 each.
    """
    if followed := settings.follow("key_encryption_keys", EnvironmentKeys.parse):
        return FollowedKeys(followed.value)
    return EnvironmentKeys.parse(settings.key_encryption_keys.get_secret_value())
