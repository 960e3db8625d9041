"""Keyed hashes: equal values are found again, and only with the key."""

from __future__ import annotations

from base64 import b64encode

import pytest
from pydantic import SecretStr

from kit.people.derivation import InvalidKey, configured_key
from kit.people.hashing import KeyedHasher
from kit.settings import Settings

KEY = bytes(range(32))


@pytest.fixture
def hasher() -> KeyedHasher:
    return KeyedHasher(KEY)


def with_key(key: str) -> Settings:
    return Settings(
        mesh_token=SecretStr("token"),
        vault_key=SecretStr(key),
        key_encryption_keys=SecretStr(""),
        database_url="sqlite+aiosqlite://",
        redis_url="redis://127.0.0.1",
    )


@pytest.mark.parametrize("written", ["ada@example.com", " Ada@Example.COM\n", "\uff21\uff44a\uff20example.com"])
def test_an_address_has_one_fingerprint_however_it_is_written(hasher: KeyedHasher, written: str) -> None:
    assert hasher.fingerprint(written) == hasher.fingerprint("ada@example.com")


def test_composed_and_decomposed_letters_have_one_fingerprint(hasher: KeyedHasher) -> None:
    assert hasher.fingerprint("zoe\u0308@example.com") == hasher.fingerprint("ZO\u00cb@example.com")


def test_other_addresses_and_other_keys_have_other_fingerprints(hasher: KeyedHasher) -> None:
    assert len(hasher.fingerprint("ada@example.com")) == 32
    assert hasher.fingerprint("ada@example.com") != hasher.fingerprint("ada@example.org")
    assert hasher.fingerprint("ada@example.com") != KeyedHasher(bytes(32)).fingerprint("ada@example.com")


def test_a_digest_depends_on_data_purpose_and_key(hasher: KeyedHasher) -> None:
    digest = hasher.digest(b"data", purpose="content")
    assert len(digest) == 16
    assert digest == KeyedHasher(KEY).digest(b"data", purpose="content")
    assert digest != hasher.digest(b"date", purpose="content")
    assert digest != hasher.digest(b"data", purpose="visitor")
    assert digest != KeyedHasher(bytes(32)).digest(b"data", purpose="content")


def test_purposes_of_any_length_are_distinguished(hasher: KeyedHasher) -> None:
    assert hasher.digest(b"data", purpose="visitor " * 9 + "1") != hasher.digest(b"data", purpose="visitor " * 9 + "2")


def test_the_settings_key_makes_what_the_same_key_makes(hasher: KeyedHasher) -> None:
    assert KeyedHasher(configured_key(with_key(b64encode(KEY).decode()))).fingerprint("ada@example.com") == hasher.fingerprint(
        "ada@example.com"
    )


@pytest.mark.parametrize("key", ["", "not base64!", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode(), "é"])
def test_a_wrong_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        configured_key(with_key(key))
    assert str(refused.value) == "PMP_VAULT_KEY is not 32 bytes in base64"
    assert refused.value.__cause__ is None


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidKey, match=r"^the key is not 32 bytes$"):
        KeyedHasher(bytes(16))


def test_what_older_versions_stored_is_still_found(hasher: KeyedHasher) -> None:
    assert hasher.fingerprint("ada@example.com").hex() == "235c0daa561b6f5c3e00d7994b45597c1f5449baf04540135eabcf6346f38052"
    assert hasher.digest(b"data", purpose="content").hex() == "86a15f1f2be2bae6c0481da50738da27"
