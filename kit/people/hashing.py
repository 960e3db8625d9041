"""Keyed hashes, under which personal values are found again without being stored. `kit.people.keys` encrypts the values themselves."""

from __future__ import annotations

import hmac
import unicodedata
from functools import cache, partial
from hashlib import blake2b

from kit.people.derivation import derive


class KeyedHasher:
    """Hashes under keys derived from one key. Equal input gives equal output for the lifetime of that key.

    Args:
        key: 32 bytes.

    Raises:
        InvalidKey: The key has another length.
    """

    def __init__(self, key: bytes) -> None:
        self._fingerprint_key = derive(key, "fingerprint")
        # Keyed once per purpose and then copied: keying it anew costs a third of a digest.
        self._keyed = cache(partial(_keyed, derive(key, "digest")))

    def fingerprint(self, value: str) -> bytes:
        """32 bytes (HMAC-SHA256), the same for every way to write an e-mail address: case, width and outer space do not count."""
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).strip()
        return hmac.digest(self._fingerprint_key, folded.encode(), "sha256")

    def digest(self, data: bytes, *, purpose: str) -> bytes:
        """16 bytes (keyed BLAKE2b) for comparing contents and for pseudonyms; unrelated between purposes."""
        hasher = self._keyed(purpose).copy()
        hasher.update(data)
        return hasher.digest()


def _keyed(key: bytes, purpose: str) -> blake2b:
    person = blake2b(purpose.encode(), digest_size=blake2b.PERSON_SIZE).digest()
    return blake2b(key=key, person=person, digest_size=16)
