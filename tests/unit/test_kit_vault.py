"""The vault: what must be found is found again, by whoever has its key alone."""

from __future__ import annotations

from base64 import b64encode

import pytest
from pydantic import SecretStr

from kit.people.vault import InvalidKey, Vault
from kit.settings import Settings

KEY = bytes(range(32))


@pytest.fixture
def vault() -> Vault:
    return Vault(KEY)


def with_key(key: str) -> Settings:
    return Settings(
        mesh_token=SecretStr("token"),
        vault_key=SecretStr(key),
        key_encryption_keys=SecretStr(""),
        database_url="sqlite+aiosqlite://",
        redis_url="redis://127.0.0.1",
    )


@pytest.mark.parametrize("written", ["ada@example.com", " Ada@Example.COM\n", "\uff21\uff44a\uff20example.com"])
def test_an_address_has_one_fingerprint_however_it_is_written(vault: Vault, written: str) -> None:
    assert vault.fingerprint(written) == vault.fingerprint("ada@example.com")


def test_composed_and_decomposed_letters_have_one_fingerprint(vault: Vault) -> None:
    assert vault.fingerprint("zoe\u0308@example.com") == vault.fingerprint("ZO\u00cb@example.com")


def test_other_addresses_and_other_keys_have_other_fingerprints(vault: Vault) -> None:
    assert len(vault.fingerprint("ada@example.com")) == 32
    assert vault.fingerprint("ada@example.com") != vault.fingerprint("ada@example.org")
    assert vault.fingerprint("ada@example.com") != Vault(bytes(32)).fingerprint("ada@example.com")


def test_a_digest_depends_on_data_purpose_and_key(vault: Vault) -> None:
    digest = vault.digest(b"data", purpose="content")
    assert len(digest) == 16
    assert digest == Vault(KEY).digest(b"data", purpose="content")
    assert digest != vault.digest(b"date", purpose="content")
    assert digest != vault.digest(b"data", purpose="visitor")
    assert digest != Vault(bytes(32)).digest(b"data", purpose="content")


def test_purposes_of_any_length_are_told_apart(vault: Vault) -> None:
    assert vault.digest(b"data", purpose="visitor " * 9 + "1") != vault.digest(b"data", purpose="visitor " * 9 + "2")


def test_the_settings_key_makes_what_the_same_key_makes(vault: Vault) -> None:
    assert Vault.from_settings(with_key(b64encode(KEY).decode())).fingerprint("ada@example.com") == vault.fingerprint("ada@example.com")


@pytest.mark.parametrize("key", ["", "not base64!", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode(), "é"])
def test_a_wrong_key_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        Vault.from_settings(with_key(key))
    assert str(refused.value) == "PMP_VAULT_KEY is not 32 bytes in base64"
    assert refused.value.__cause__ is None


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidKey, match=r"^the vault's key is not 32 bytes$"):
        Vault(bytes(16))
