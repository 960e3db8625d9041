"""Secrets in files: where settings come from, and what happens when they change."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pydantic_settings import SettingsError
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from kit.credentials.files import FOLDER, Followed, into_environment, read, secret
from kit.database.engine import Database, open_database
from kit.errors import Unavailable
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.migrate import migrate
from kit.people.keys.rotation import KeyRotation
from kit.people.keys.store import open_keys
from kit.people.keys.wrapping import EnvironmentKeys
from kit.settings import KEYS_DATABASE, MESH_HEADER, Settings
from tests.authority import LOOK_SECONDS, LOOKED, LOOKS, MountedSecrets
from tests.holder import answered, erase, repeated, running_holder
from tests.servers import PrivateMariaDb, PrivateRedis, free_port

VALUES = {
    "PMP_MESH_TOKEN": "old",
    "PMP_VAULT_KEY": "",
    "PMP_KEY_ENCRYPTION_KEYS": "",
    "PMP_DATABASE_URL": "mysql+aiomysql://old:old@db/{service}",
    "PMP_REDIS_URL": "redis://:old@redis",
}


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MountedSecrets:
    monkeypatch.setattr(LOOKS, LOOK_SECONDS)
    monkeypatch.setenv(FOLDER, str(tmp_path / "secrets"))
    return MountedSecrets(tmp_path / "secrets", **VALUES)


def settings() -> Settings:
    return Settings()  # pyright: ignore[reportCallIssue]  (from the environment)


async def follows(look: Callable[[], object], value: object) -> None:
    """Waits until a setting has a value."""
    async with asyncio.timeout(10):
        while look() != value:  # noqa: ASYNC110  (it is looked at as whoever uses it does)
            await asyncio.sleep(0.05)


async def test_settings_come_from_files_and_follow_them(secrets: MountedSecrets) -> None:
    read = settings()
    assert (read.mesh_tokens, read.database("identity"), read.log_url) == (
        ("old",),
        "mysql+aiomysql://old:old@db/identity",
        "redis://:old@redis",
    )
    assert read.keys_database_url == "mysql+aiomysql://old:old@db/subject_keys"
    secrets.put(PMP_MESH_TOKEN="new,old", PMP_DATABASE_URL="mysql+aiomysql://new:new@db/{service}", PMP_REDIS_URL="redis://:new@redis")
    await follows(lambda: read.mesh_tokens, ("new", "old"))
    await follows(lambda: read.database("identity"), "mysql+aiomysql://new:new@db/identity")
    await follows(lambda: read.log_url, "redis://:new@redis")
    assert read.mesh_metadata == ((MESH_HEADER, "new"),)


async def test_a_change_of_no_use_leaves_the_value_before_and_is_not_shown(
    secrets: MountedSecrets, capfd: pytest.CaptureFixture[str]
) -> None:
    read = settings()
    assert read.mesh_tokens == ("old",)
    secrets.put(PMP_MESH_TOKEN="first,,hunter2")
    await asyncio.sleep(LOOKED)
    assert read.mesh_tokens == ("old",)
    logged = capfd.readouterr().out
    assert "changed secret refused" in logged
    assert "hunter2" not in logged
    (secrets.folder / "PMP_MESH_TOKEN").unlink()
    await asyncio.sleep(LOOKED)
    assert read.mesh_tokens == ("old",)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("PMP_DATABASE_URL", "mysql+aiomysql://new:n@w@db/{service}"),
        ("PMP_DATABASE_URL", "mysql+aiomysql://new:new@db:33o6/{service}"),
        ("PMP_DATABASE_URL", "mysql+aiomysql://new:new@db:330611/{service}"),
        ("PMP_DATABASE_URL", "db"),
        ("PMP_REDIS_URL", "redis://:n/ew@redis:6379"),
        ("PMP_REDIS_URL", "redis://:1/ew@redis:6379"),
        ("PMP_REDIS_URL", "redis://:new@redis:63x9"),
        ("PMP_REDIS_URL", "redis:6379"),
    ],
)
async def test_a_url_by_which_nobody_can_connect_changes_nothing(secrets: MountedSecrets, name: str, change: str) -> None:
    current = settings()
    before = current.database("identity"), current.log_url
    secrets.put(**{name: change})
    await asyncio.sleep(LOOKED)
    assert (current.database("identity"), current.log_url) == before


async def test_a_change_that_could_not_be_read_is_read_as_soon_as_it_can(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOOKS, LOOK_SECONDS)
    file, refusals = tmp_path / "secret", [PermissionError, PermissionError]
    file.write_text("old")

    def make() -> str:
        text = read(file)
        if text != "old" and refusals:
            raise refusals.pop()
        return text

    followed = Followed([file], make)
    file.write_text("new")
    for expected in ("old", "old", "new"):
        await asyncio.sleep(LOOKED)
        assert followed.value() == expected
    assert capfd.readouterr().out.count("changed secret refused") == 1


async def test_permissions_are_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOOKS, LOOK_SECONDS)
    file = tmp_path / "secret"
    file.write_text("old")
    made = count(1)
    followed = Followed([file], lambda: next(made))
    file.chmod(0o400)
    await asyncio.sleep(LOOKED)
    assert followed.value() == 2


async def test_a_variable_has_precedence_over_its_file(secrets: MountedSecrets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMP_MESH_TOKEN", "of the environment")
    read = settings()
    assert read.mesh_tokens == ("of the environment",)
    secrets.put(PMP_MESH_TOKEN="new")
    await asyncio.sleep(LOOKED)
    assert read.mesh_tokens == ("of the environment",)
    assert secret("PMP_MESH_TOKEN") == "of the environment"
    assert (secret("PMP_REDIS_URL"), secret("PMP_UNKNOWN")) == ("redis://:old@redis", "")


def test_a_folder_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, "/nonexistent")
    with pytest.raises(SettingsError, match="PMP_SECRETS_DIR: there is no folder /nonexistent"):
        settings()


def test_a_command_has_the_secrets_of_the_folder(secrets: MountedSecrets, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VALUES:
        monkeypatch.setenv(name, "own")
        if name != "PMP_REDIS_URL":
            monkeypatch.delenv(name)
    assert secrets.folder.is_dir()
    into_environment()
    assert {name: os.environ[name] for name in VALUES} == {**VALUES, "PMP_REDIS_URL": "own"}


async def test_the_credential_of_the_mesh_rotates_without_a_failed_call(secrets: MountedSecrets, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service and its caller look at the folder at different moments, as pods do."""
    address = f"127.0.0.1:{free_port()}"
    secrets.put(PMP_LISTEN=address, PMP_SERVICE_ADDRESS=address)
    service, caller = settings(), settings()
    async with running_holder(service):
        async with repeated(lambda: erase(caller)) as answers:
            for tokens in ("old,new", "new,old", "new"):
                secrets.put(PMP_MESH_TOKEN=tokens)
                await follows(lambda: (service.mesh_tokens, caller.mesh_tokens), (tuple(tokens.split(",")),) * 2)
        assert len(answers) > 20
        monkeypatch.setenv("PMP_MESH_TOKEN", "old")
        with pytest.raises(Unavailable, match="UNAUTHENTICATED"):
            await erase(settings())


async def test_an_account_of_the_database_rotates_without_a_failed_query(secrets: MountedSecrets, mariadb_server: PrivateMariaDb) -> None:
    address = f"127.0.0.1:{mariadb_server.port}/{{service}}"

    def administer(*statements: str) -> None:
        with pymysql.connect(host="127.0.0.1", port=mariadb_server.port, user="root") as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    async def who(database: Database) -> str:
        async with database.sessions.reading() as session:
            return str(await session.scalar(text("SELECT CURRENT_USER()")))

    administer("CREATE USER rotating_old@'%' IDENTIFIED BY 'old'", "CREATE USER rotating_new@'%' IDENTIFIED BY 'new'")
    secrets.put(PMP_DATABASE_URL=f"mysql+aiomysql://rotating_old:old@{address}")
    read = settings()

    def url() -> str:
        return read.database("information_schema")

    async with open_database(url(), pool=5, newest_url=url) as database:
        async with repeated(lambda: who(database)) as answers:
            await asyncio.sleep(0.2)
            secrets.put(PMP_DATABASE_URL=f"mysql+aiomysql://rotating_new:new@{address}")
            await follows(url, f"mysql+aiomysql://rotating_new:new@{address}".replace("{service}", "information_schema"))
            administer("DROP USER rotating_old@'%'")
            await asyncio.sleep(0.2)
        # Connections from before go on; new ones have the new account.
        assert set(answers) == {"rotating_old@%"}
        await database.engine.dispose()
        assert await who(database) == "rotating_new@%"
    async with open_database(f"mysql+aiomysql://rotating_old:old@{address}".replace("{service}", "information_schema")) as old:
        with pytest.raises(OperationalError, match="Access denied"):
            await who(old)
    administer("DROP USER rotating_new@'%'")


async def test_the_password_of_redis_rotates_without_a_failed_call(secrets: MountedSecrets, redis_server: PrivateRedis) -> None:
    address = redis_server.url.removeprefix("redis://")
    async with Redis.from_url(redis_server.url) as admin:
        users: Any = admin
        await users.execute_command("ACL", "SETUSER", "rotating", "on", ">old", "~*", "&*", "+@all")
        secrets.put(PMP_REDIS_URL=f"redis://rotating:old@{address}")
        read = settings()
        async with open_log(read.log_url, newest_url=lambda: read.log_url) as log:
            async with repeated(log.check):
                await asyncio.sleep(0.1)
                await users.execute_command("ACL", "SETUSER", "rotating", ">new")
                secrets.put(PMP_REDIS_URL=f"redis://rotating:new@{address}")
                await follows(lambda: read.log_url, f"redis://rotating:new@{address}")
                await users.execute_command("ACL", "SETUSER", "rotating", "<old")
                await asyncio.sleep(0.1)
            await _reconnected(log)
            await log.check()
        async with open_log(f"redis://rotating:old@{address}") as old:
            with pytest.raises(AuthenticationError):
                await old.check()
        await users.execute_command("ACL", "DELUSER", "rotating")


async def test_the_key_that_wraps_keys_of_persons_rotates_without_a_failed_call(secrets: MountedSecrets, tmp_path: Path) -> None:
    """Two processes look at the folder at different moments, and each opens what the other has sealed."""
    old, new, hashing = (b64encode(bytes([number]) * 32).decode() for number in range(3))
    database_url = f"sqlite+aiosqlite:///{tmp_path}/{{service}}.db"
    secrets.put(PMP_KEY_ENCRYPTION_KEYS=old, PMP_VAULT_KEY=hashing, PMP_DATABASE_URL=database_url)
    await migrate(KEYS_DATABASE, settings().keys_database_url)
    numbers, sealed = count(), dict[str, bytes]()
    async with open_keys(settings()) as one, open_keys(settings()) as other, open_database(settings().keys_database_url) as database:

        async def exchange() -> None:
            person = f"user:{next(numbers)}"
            sealed[person] = (await one.seals([person]))[person].seal(person, context="c")
            assert (await other.decryptor([sealed[person]])).open(sealed[person], context="c") == person

        async with repeated(exchange) as answers:
            for keys in (f"{old},{new}", f"{new},{old}"):
                secrets.put(PMP_KEY_ENCRYPTION_KEYS=keys)
                await asyncio.sleep(LOOKED)
                await answered(answers)
            rotation = KeyRotation(database, EnvironmentKeys.parse(f"{new},{old}"))
            assert 0 < sum([done async for done in rotation.run()]) < len(answers)
            secrets.put(PMP_KEY_ENCRYPTION_KEYS=new)
            await asyncio.sleep(LOOKED)
            await answered(answers)
        assert await rotation.stale() == 0
    async with open_keys(settings()) as later:
        opener = await later.decryptor(sealed.values())
        assert [person for person, each in sealed.items() if opener.open(each, context="c") != person] == []


async def _reconnected(log: RedisLog) -> None:
    """Closes the connections; later calls make new ones."""
    pool: Any = log.redis.connection_pool
    await pool.disconnect()
