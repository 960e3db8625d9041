"""`pmp keys`: the key that wraps persons' keys is changed, and nobody's data is lost on the way."""

from __future__ import annotations

import asyncio
import sqlite3
from base64 import b64decode
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from cli.__main__ import app
from cli.folder import DataFolder
from cli.local_secrets import Secrets
from kit.database.engine import open_database
from kit.people.hashing import KeyedHasher
from kit.people.keys.store import Keys, open_keys
from kit.people.keys.wrapping import EnvironmentKeys
from kit.settings import KEYS_DATABASE, Settings


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path)
    folder.create()
    Secrets.load_or_make(folder)
    assert CliRunner().invoke(app, ["migrate", "--data", str(tmp_path)]).exit_code == 0
    return folder


def pmp(folder: DataFolder, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["keys", *arguments, "--data", str(folder.path)])


def settings_of(folder: DataFolder) -> Settings:
    """What a service of a mesh on the folder is started with."""
    secrets = Secrets.load(folder)
    return Settings(
        mesh_token=SecretStr(secrets.mesh_token),
        vault_key=SecretStr(secrets.vault_key),
        key_encryption_keys=SecretStr(",".join(secrets.key_encryption_keys)),
        database_url=folder.database_url(),
        redis_url="redis://127.0.0.1",
    )


def started(folder: DataFolder, *sealed: bytes) -> tuple[list[bytes], list[str]]:
    """What a mesh that is started now seals for three persons, and what it opens of what was sealed before."""

    async def work() -> tuple[list[bytes], list[str]]:
        secrets = Secrets.load(folder)
        wrapping = EnvironmentKeys(*map(b64decode, secrets.key_encryption_keys))
        async with open_database(folder.database_url().replace("{service}", KEYS_DATABASE)) as database:
            keys = Keys(database, KeyedHasher(b64decode(secrets.vault_key)), wrapping)
            decryptor = await keys.decryptor(sealed)
            made = [seal.seal(name, context="c") for name, seal in (await keys.seals(["user:1", "user:2", "user:3"])).items()]
            return made, [decryptor.open(value, context="c") for value in sealed]

    return asyncio.run(work())


def test_what_was_sealed_opens_through_every_step_of_a_rotation(folder: DataFolder) -> None:
    first = Secrets.load(folder).key_encryption_keys
    values, _ = started(folder)
    assert pmp(folder, "new").stdout == "a new key was added: restart the mesh, then run `pmp keys rotate`\n"
    second = Secrets.load(folder).key_encryption_keys
    assert second[1:] == first
    assert folder.secrets.stat().st_mode & 0o777 == 0o600
    assert started(folder, *values)[1] == ["user:1", "user:2", "user:3"]
    refused = pmp(folder, "new")
    assert (refused.exit_code, Secrets.load(folder).key_encryption_keys) == (1, second)
    assert "3 keys are wrapped by an older one: run `pmp keys rotate` first" in refused.stderr
    assert pmp(folder, "rotate").stdout == "3 keys were wrapped anew; all of them are wrapped by the newest key\n"
    assert pmp(folder, "rotate").stdout == "0 keys were wrapped anew; all of them are wrapped by the newest key\n"
    assert pmp(folder, "new").exit_code == 0
    assert Secrets.load(folder).key_encryption_keys[1:] == second[:1], "the first key is of no use any more"
    assert started(folder, *values)[1] == ["user:1", "user:2", "user:3"]


def test_keys_of_another_server_are_migrated_and_rotated_there(folder: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    monkeypatch.setenv("PMP_SUBJECT_KEYS_URL", f"sqlite+aiosqlite:///{elsewhere}")
    assert CliRunner().invoke(app, ["migrate", "--data", str(folder.path)]).exit_code == 0
    settings = settings_of(folder)

    async def seal() -> None:
        async with open_keys(settings) as keys:
            await keys.seals(["user:1"])

    asyncio.run(seal())
    with closing(sqlite3.connect(elsewhere)) as database:
        assert database.execute("SELECT count(*) FROM subject_keys").fetchone() == (1,)
    assert pmp(folder, "new").exit_code == 0
    assert pmp(folder, "rotate").stdout == "1 keys were wrapped anew; all of them are wrapped by the newest key\n"


@pytest.mark.parametrize(("command", "variable"), [("keys rotate", "PMP_KEY_ENCRYPTION_KEYS"), ("audit verify", "PMP_VAULT_KEY")])
def test_a_key_of_the_environment_that_is_invalid_is_reported(folder: DataFolder, command: str, variable: str) -> None:
    refused = CliRunner().invoke(app, [*command.split(), "--data", str(folder.path)], env={variable: "garbage"})
    assert refused.exit_code == 1
    assert f"{variable} is not 32 bytes in base64" in " ".join(refused.stderr.split())


def test_a_folder_without_a_mesh_is_reported(tmp_path: Path) -> None:
    refused = pmp(DataFolder(tmp_path), "rotate")
    assert refused.exit_code == 1
    assert "run `pmp up` first" in refused.stderr
