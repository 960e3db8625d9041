"""Seals values and opens them.

Format: a version byte (2), the key's owner as a digest of 16 bytes, the key's generation as two bytes (big endian), a nonce
of 12 bytes, then ciphertext and tag of AES-256-GCM. All that comes before the nonce, and the context, are authenticated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kit.errors import MeshError

EMAIL_CONTEXT: Final = "email"
"""The context of e-mail addresses: they are passed on sealed, so that all services share it."""
BILLING_CONTEXT: Final = "billing"
"""The context of billing addresses, which are passed on as well."""
VISITOR_CONTEXT: Final = "visitor"
"""The context of what is known of a visitor's browser, which is passed on as well."""
KEY_BYTES: Final = 32
OWNER_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_VERSION: Final = b"\x02"
_HEAD_BYTES: Final = len(_VERSION) + OWNER_BYTES + 2


class Unsealable(MeshError):
    """The sealed value was changed, or belongs to another context."""


class KeyId(NamedTuple):
    """Identifies a key."""

    owner: bytes
    """Digest of an identifier, 16 bytes."""
    generation: int
    """1; higher for a person who registered again after an erasure."""


@dataclass(frozen=True, slots=True)
class Seal:
    """A key that values are sealed under.

    Args:
        key: None if it was destroyed.
    """

    id: KeyId
    key: AESGCM | None

    def seal(self, plain: str, *, context: str) -> bytes:
        """Returns the sealed text, 47 bytes longer than in UTF-8. It opens in the same context only.

        Empty if the key was destroyed: nothing may be kept of this person.
        """
        if self.key is None:
            return b""
        head, nonce = _VERSION + self.id.owner + self.id.generation.to_bytes(2, "big"), os.urandom(_NONCE_BYTES)
        return head + nonce + self.key.encrypt(nonce, plain.encode(), head + context.encode())


@dataclass(frozen=True, slots=True)
class Decryptor:
    """The keys of some sealed values.

    Args:
        keys: those that were not destroyed.
    """

    keys: Mapping[KeyId, AESGCM]

    def open(self, sealed: bytes | None, *, context: str) -> str:
        """Returns the text that was sealed in this context; empty for nothing, and if its key was destroyed.

        Raises:
            Unsealable: The value was changed, or sealed in another context.
        """
        key = self.keys.get(key_id(sealed)) if sealed else None
        if not sealed or key is None:
            return ""
        head, nonce, body = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:][:_NONCE_BYTES], sealed[_HEAD_BYTES + _NONCE_BYTES :]
        try:
            return key.decrypt(nonce, body, head + context.encode()).decode()
        except InvalidTag:
            message = "the sealed value does not open here"
            raise Unsealable(message) from None


def key_id(sealed: bytes) -> KeyId:
    """Returns the id of the key that a value is sealed under.

    Raises:
        Unsealable: It is not a sealed value.
    """
    if sealed[:1] != _VERSION or len(sealed) < _HEAD_BYTES + _NONCE_BYTES + _TAG_BYTES:
        message = "not a sealed value"
        raise Unsealable(message)
    return KeyId(sealed[1 : 1 + OWNER_BYTES], int.from_bytes(sealed[1 + OWNER_BYTES : _HEAD_BYTES], "big"))
