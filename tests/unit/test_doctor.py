"""What `pmp doctor` finds in databases on servers and in files, by accounts that may read some of them only."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest
from pydantic import SecretStr
from rich.console import Console

from cli.doctor import clocks, databases
from cli.doctor.databases import problems
from cli.doctor.examination import run
from cli.doctor.findings import Report
from cli.doctor.printing import print_report
from cli.doctor.subject import Subject, examined
from cli.folder import DataFolder
from cli.layout import databases as names
from kit.database.engine import Database, open_database
from kit.log.redis_log import RedisLog
from kit.settings import MeshSettings
from tests.servers import PrivateMariaDb


def examining(log: RedisLog, database: Database) -> Subject:
    return Subject(
        local=None,
        settings=MeshSettings(mesh_token=SecretStr("the mesh's own")),
        vault_key="",
        key_encryption_keys="",
        redis_url="",
        log_max_bytes=0,
        log=log,
        databases={"journeys": database},
        denied=(),
        keys=database,
    )


@contextmanager
def root(server: PrivateMariaDb) -> Generator[pymysql.cursors.Cursor]:
    with pymysql.connect(host="127.0.0.1", port=server.port, user="root") as connection, connection.cursor() as cursor:
        yield cursor


@asynccontextmanager
async def on(server: PrivateMariaDb, log: RedisLog, charset: str = "utf8mb4") -> AsyncGenerator[Subject]:
    """A subject with a database on the server."""
    name = f"doctor_{charset}"
    with root(server) as cursor:
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET {charset}")
    async with open_database(server.url.replace("{service}", name)) as database:
        yield examining(log, database)


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("innodb_flush_log_at_trx_commit", "2", "does not write every commit to disk"),
        ("max_allowed_packet", "4194304", "accepts statements of less than 16 MiB"),
    ],
)
async def test_settings_of_a_server_that_lose_data_are_found(
    mariadb_server: PrivateMariaDb, log: RedisLog, variable: str, value: str, what: str
) -> None:
    with root(mariadb_server) as cursor:
        cursor.execute(f"SELECT @@GLOBAL.{variable}")
        before = (cursor.fetchone() or ("",))[0]
        cursor.execute(f"SET GLOBAL {variable} = {value}")
        try:
            async with on(mariadb_server, log) as subject:
                checked = await run("databases", databases.configuration, subject)
        finally:
            cursor.execute(f"SET GLOBAL {variable} = {before}")
    (finding,) = checked.findings
    assert what in finding.what
    assert variable in finding.action


async def test_a_database_with_another_character_set_is_found(mariadb_server: PrivateMariaDb, log: RedisLog) -> None:
    async with on(mariadb_server, log) as subject:
        assert (await run("databases", databases.configuration, subject)).findings == []
    async with on(mariadb_server, log, "latin1") as subject:
        (finding, _) = (await run("databases", databases.configuration, subject)).findings
    assert finding.what == "the database of journeys has the character set latin1: new tables can't hold every text"


async def test_a_binary_log_that_the_mesh_can_not_use_is_found(mariadb_server: PrivateMariaDb, log: RedisLog) -> None:
    async with on(mariadb_server, log) as subject:
        found = await databases.variables(subject.keys)
    assert list(problems("journeys", "db", found)) == []
    logged = {**found, "log_bin": 1, "sync_binlog": 0, "binlog_format": "STATEMENT", "innodb_doublewrite": 0}
    assert [finding.what.partition(" (")[2].partition(")")[0] for finding in problems("journeys", "db", logged)] == [
        "innodb_doublewrite",
        "sync_binlog",
        "binlog_format",
    ]


async def test_the_clock_of_a_database_server_is_compared(mariadb_server: PrivateMariaDb, log: RedisLog) -> None:
    async with on(mariadb_server, log) as subject:
        assert [finding async for finding in clocks.clocks(subject)] == []
        off = [finding.what async for finding in clocks.clocks(subject, lambda: time.time() - 60)]
    assert off == [f"the clock of {server} is 60.0 s ahead of this machine's" for server in ("Redis", "the database server at 127.0.0.1")]


async def test_a_damaged_file_is_found(tmp_path: Path, log: RedisLog) -> None:
    path = tmp_path / "journeys.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE journeys (id TEXT PRIMARY KEY)")
        connection.executemany("INSERT INTO journeys VALUES (?)", [(f"{number}" * 50,) for number in range(500)])
    async with open_database(f"sqlite+aiosqlite:///{path}") as database:
        subject = examining(log, database)
        assert (await run("databases", databases.configuration, subject)).findings == []
        content = bytearray(path.read_bytes())
        content[4096 : 2 * 4096] = bytes(4096)
        path.write_bytes(content)
        finding, *_ = (await run("databases", databases.configuration, subject)).findings
    assert finding.what.startswith(f"the file {path} of journeys is damaged: ")


async def test_an_account_examines_what_it_may_read_and_names_the_rest(
    mariadb_server: PrivateMariaDb, log: RedisLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with root(mariadb_server) as cursor:
        for name in ("journeys_own", "subject_keys_own"):
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
            cursor.execute(f"GRANT ALL ON {name}.* TO journeys@'%' IDENTIFIED BY 'own'")
    pod = {
        "PMP_MESH_TOKEN": "the mesh's own",
        "PMP_VAULT_KEY": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "PMP_KEY_ENCRYPTION_KEYS": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "PMP_DATABASE_URL": mariadb_server.url.replace("mesh:mesh", "journeys:own").replace("{service}", "{service}_own"),
        "PMP_REDIS_URL": "redis://127.0.0.1:1",
    }
    for name, value in pod.items():
        monkeypatch.setenv(name, value)
    async with examined(DataFolder(tmp_path)) as subject:
        assert list(subject.databases) == ["journeys"]
        checked = await run("databases", databases.configuration, replace(subject, log=log))
    others = ", ".join(name for name in names() if name != "journeys")
    assert (checked.findings, checked.left_out) == ([], f"only in their own pods: {others}")
    console = Console(width=200, record=True)
    print_report(console, Report(is_well=True, checks=[checked]))
    assert console.export_text().splitlines() == [f"databases  left out: only in their own pods: {others}", "all is well"]
