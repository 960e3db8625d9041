"""Whether a database has its newest revisions is known without Alembic."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text

from cli.layout import databases
from cli.revisions import are_newest
from kit.database.engine import open_database
from kit.database.revisions import branches, has_database, is_newest, is_of_later_release, newest
from kit.migrate import migrate
from kit.settings import KEYS_DATABASE, Settings
from tests.servers import PrivateMariaDb, free_port

NAMES = [*databases(), KEYS_DATABASE]


def url_in(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/{{service}}.db"


def execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("name", NAMES)
def test_the_newest_revisions_are_alembics_heads(name: str) -> None:
    config = Config()
    config.set_main_option("script_location", ".")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(str, branches(name).values())))
    assert sorted(newest(name)) == sorted(ScriptDirectory.from_config(config).get_heads())


async def test_a_migrated_database_has_its_newest_revisions_until_one_is_taken_back(database_url: str) -> None:
    url = database_url.replace("{service}", f"ingestion_{uuid4().hex}")
    assert not is_newest("ingestion", url)
    await migrate("ingestion", url)
    assert is_newest("ingestion", url)
    assert not is_newest("gdpr", url)
    async with open_database(url) as database, database.sessions.begin() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'kit_0001' WHERE version_num LIKE 'kit%'"))
    assert not is_newest("ingestion", url)


async def test_a_database_of_a_later_release_stays_as_it_is(database_url: str) -> None:
    url = database_url.replace("{service}", f"ingestion_{uuid4().hex}")
    await migrate("ingestion", url)
    async with open_database(url) as database, database.sessions.begin() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'ingestion_9999' WHERE version_num LIKE 'ingestion%'"))
    assert is_newest("ingestion", url), "nothing is to be migrated"
    await migrate("ingestion", url)
    async with open_database(url) as database, database.sessions.begin() as session:
        found = set((await session.scalars(text("SELECT version_num FROM alembic_version"))).all())
    assert "ingestion_9999" in found


def test_a_later_release_has_a_later_revision_or_one_more_branch() -> None:
    assert not is_of_later_release("ingestion", [])
    assert not is_of_later_release("ingestion", newest("ingestion"))
    assert not is_of_later_release("ingestion", ["kit_0001", "ingestion_0001"])
    assert is_of_later_release("ingestion", ["kit_9999", "ingestion_0001"])
    assert not is_of_later_release("ingestion", ["kit_9999", "gdpr_0001"]), "another database"
    assert is_of_later_release("ingestion", [*newest("ingestion"), "reports_0001"])


async def test_one_database_that_is_missing_makes_a_migration_due(tmp_path: Path) -> None:
    url = url_in(tmp_path)
    for name in NAMES:
        assert not are_newest(url, {})
        await migrate(name, url.replace("{service}", name))
    assert are_newest(url, {})
    assert not are_newest(url, {"PMP_SUBJECT_KEYS_URL": f"sqlite+aiosqlite:///{tmp_path}/elsewhere.db"})


def test_of_what_is_no_database_or_has_no_known_address_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "gdpr.db").write_text("no database")
    execute(tmp_path / "identity.db", "CREATE TABLE something (id)")
    assert not is_newest("gdpr", url_in(tmp_path).replace("{service}", "gdpr"))
    assert not is_newest("identity", url_in(tmp_path).replace("{service}", "identity"))
    assert not is_newest("gdpr", f"mysql+aiomysql://root@127.0.0.1:{free_port()}/gdpr")
    assert not is_newest("gdpr", "mysql+aiomysql://root@/gdpr?unix_socket=/nowhere")
    assert not is_newest("gdpr", "mysql+aiomysql://root@127.0.0.1:port/gdpr")


def test_a_service_may_have_no_database() -> None:
    assert (has_database("identity"), has_database("realtime")) == (True, False)
    with pytest.raises(FileNotFoundError, match="there is no service 'nothing'"):
        has_database("nothing")


def test_nothing_is_migrated_for_a_service_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PMP_DATABASE_URL", raising=False)
    ran = subprocess.run([sys.executable, "-m", "kit.migrate", "realtime"], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout + ran.stderr) == (0, "")


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
async def test_a_migration_waits_for_its_server_and_says_so(settings: Settings, tmp_path: Path) -> None:
    server = PrivateMariaDb(tmp_path)
    server.install()
    server.kill()
    own = settings.model_copy(update={"database_url": server.url, "subject_keys_url": None})
    secrets = {name: getattr(own, name).get_secret_value() for name in ("mesh_token", "vault_key", "key_encryption_keys")}
    values = secrets | {"database_url": own.database_url, "redis_url": own.redis_url}
    environment = os.environ | {f"PMP_{name.upper()}": value for name, value in values.items()}
    migration = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kit.migrate", "identity", env=environment, stdout=PIPE, stderr=STDOUT
    )
    assert migration.stdout is not None
    said = (await asyncio.wait_for(migration.stdout.readline(), 30)).decode()
    assert said.startswith("waiting for the database identity: (2003, \"Can't connect to MySQL server on '127.0.0.1'\")"), said
    server.start()
    try:
        assert await asyncio.wait_for(migration.wait(), 60) == 0, await migration.stdout.read()
        assert is_newest("identity", own.database("identity"))
        assert is_newest(KEYS_DATABASE, own.keys_database_url)
    finally:
        server.kill()
