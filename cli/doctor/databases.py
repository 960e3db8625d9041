"""Examines the configuration of the databases' servers and, where databases are files, the files."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import text

from cli.doctor.findings import Finding
from cli.doctor.subject import Subject, backend_of
from kit.database.engine import Database
from kit.settings import KEYS_DATABASE

_VARIABLES: Final = (
    *("innodb_flush_log_at_trx_commit", "innodb_doublewrite", "log_bin", "sync_binlog", "binlog_format"),
    *("character_set_database", "max_allowed_packet"),
)
_PACKET_BYTES: Final = 16 * 2**20
_EXAMINED_BYTES: Final = 256 * 2**20
"""Files up to this size are read as a whole."""


async def configuration(subject: Subject) -> AsyncIterator[Finding]:
    """Finds settings of servers that lose what was committed or damage texts, and damaged files."""
    shown: set[str] = set()
    for name, database in {**subject.databases, KEYS_DATABASE: subject.keys}.items():
        is_server = backend_of(database) == "mysql"
        host = database.engine.url.host or ""
        findings = list(problems(name, host, await variables(database))) if is_server else await _problems_of_file(name, database)
        for finding in findings:
            if finding.what not in shown:  # the databases of one server have most in common
                shown.add(finding.what)
                yield finding
    subject.mention_denied()


async def variables(database: Database) -> Mapping[str, object]:
    """Returns what a server is configured to, for one of its databases."""
    columns = ", ".join(f"@@{variable} AS {variable}" for variable in _VARIABLES)
    async with database.sessions.reading() as session:
        row = (await session.execute(text(f"SELECT {columns}"))).mappings().one()
    return {str(name): value for name, value in row.items()}


def problems(name: str, host: str, found: Mapping[str, object]) -> Iterator[Finding]:
    """Yields what is wrong with the configuration of a server.

    Args:
        name: of the database.
        host: of the server.
        found: its variables.
    """
    if str(found["innodb_flush_log_at_trx_commit"]) != "1":
        yield Finding(
            what=f"{host} does not write every commit to disk (innodb_flush_log_at_trx_commit): an outage of power loses what was answered",
            action="`SET GLOBAL innodb_flush_log_at_trx_commit = 1`, and the same in its configuration file",
        )
    if str(found["innodb_doublewrite"]).upper() in {"0", "OFF"}:
        yield Finding(
            what=f"{host} can't repair pages that were half written (innodb_doublewrite)",
            action="set innodb_doublewrite to ON in its configuration file, unless its file system writes pages as a whole",
        )
    if str(found["log_bin"]) == "1":
        yield from _problems_of_binary_log(host, found)
    if int(str(found["max_allowed_packet"])) < _PACKET_BYTES:
        yield Finding(
            what=f"{host} accepts statements of less than 16 MiB (max_allowed_packet): large batches fail",
            action=f"`SET GLOBAL max_allowed_packet = {4 * _PACKET_BYTES}`, and the same in its configuration file",
        )
    if found["character_set_database"] != "utf8mb4":
        yield Finding(
            what=f"the database of {name} has the character set {found['character_set_database']}: new tables can't hold every text",
            action=f"`ALTER DATABASE {name} CHARACTER SET utf8mb4`",
        )


def _problems_of_binary_log(host: str, found: Mapping[str, object]) -> Iterator[Finding]:
    if str(found["sync_binlog"]) != "1":
        yield Finding(
            what=f"{host} does not write its binary log at every commit (sync_binlog): a restore to a point in time misses the last",
            action="`SET GLOBAL sync_binlog = 1`, and the same in its configuration file",
        )
    if str(found["binlog_format"]).upper() == "STATEMENT":
        yield Finding(
            what=f"{host} logs statements (binlog_format), which READ COMMITTED, the isolation of the mesh, does not allow",
            action="`SET GLOBAL binlog_format = 'ROW'`, and the same in its configuration file",
        )


async def _problems_of_file(name: str, database: Database) -> Sequence[Finding]:
    path = Path(database.engine.url.database or "")
    if (problem := await asyncio.to_thread(_problem, path)) == "ok":
        return ()
    what = f"the file {path} of {name} is damaged: {problem}"
    return [Finding(what=what, action="stop the mesh, keep the folder, and `pmp restore` the last backup (docs/backup.md)")]


def _problem(path: Path) -> str:
    """The first thing that is wrong with a file; `ok` for nothing, and for a file that takes long to read."""
    if path.stat().st_size > _EXAMINED_BYTES:
        return "ok"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return str(found)
