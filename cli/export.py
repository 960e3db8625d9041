"""`pmp export`: writes a table of a service to a file, as Parquet or CSV."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, Final, get_args, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
from pyarrow import csv, parquet
from rich.console import Console

from cli.arguments import FileFormat
from cli.databases import service_sessions
from cli.errors import CommandFailed
from cli.layout import SERVICES
from kit.database.exports import Export

# pyarrow has no types.
_arrow: Final[Any] = pa
_csv: Final[Any] = csv
_AT_ONCE: Final = 20_000
"""Rows of a row group: as many are in memory."""
_TYPES: Final[Mapping[type, Any]] = {
    str: _arrow.string(),
    bool: _arrow.bool_(),
    int: _arrow.int64(),
    Decimal: _arrow.decimal128(23, 4),
    datetime: _arrow.timestamp("us", tz="UTC"),
}
_WRITERS: Final[Mapping[FileFormat, Callable[[IO[bytes], Any], Any]]] = {
    FileFormat.PARQUET: parquet.ParquetWriter,
    FileFormat.CSV: _csv.CSVWriter,
}


def exports() -> Mapping[str, tuple[str, Export]]:
    """The exports of all services, with the service of each, by name."""
    services = sorted(path.parent.name for path in SERVICES.glob("*/exports.py"))
    listed = {service: importlib.import_module(f"services.{service}.exports").EXPORTS for service in services}
    return {name: (service, export) for service, its in listed.items() for name, export in its.items()}


def period_of(first: date | None, last: date | None, timezone: str) -> tuple[datetime, datetime]:
    """Returns beginning and end of a period of whole days, both included. Without a day it is open.

    Raises:
        CommandFailed: the time zone is unknown, or the period ends before it begins.
    """
    zone = zone_of(timezone)
    if first and last and first > last:
        raise CommandFailed(f"the period ends on {last}, before it begins on {first}")
    since = _midnight(first, zone) if first else datetime(1970, 1, 1, tzinfo=UTC)
    until = _midnight(last + timedelta(days=1), zone) if last else datetime(9999, 1, 1, tzinfo=UTC)
    return since, until


def zone_of(timezone: str) -> ZoneInfo:
    """Returns a time zone by its name.

    Raises:
        CommandFailed: it is unknown.
    """
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise CommandFailed(f"{timezone!r} is not a time zone of the IANA database, such as Europe/Berlin") from error


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


async def export(url: str, what: str, period: tuple[datetime, datetime], *, form: FileFormat, file: Path, console: Console) -> int:
    """Writes an export to a file, which appears once it is complete.

    Args:
        url: of the databases.
        what: name of the export.
        period: its beginning and its end.
        form: format of the file.
        file: is replaced, if it exists.
        console: shows the progress.

    Returns:
        The number of rows.

    Raises:
        CommandFailed: there is no such export, the database does not exist or fails, or the file can't be written.
    """
    known = exports()
    if what not in known:
        raise CommandFailed(f"there is no export {what!r}: there are {', '.join(sorted(known))}")
    service, table = known[what]
    schema = _arrow.schema([_field(name, type_) for name, type_ in get_type_hints(table.columns).items()])
    count = 0
    with console.status(f"reading {what}") as status:
        async with service_sessions(service, url) as sessions, sessions.reading() as session:
            with _replacing(file) as new, _WRITERS[form](new, schema) as writer:
                async for rows in _groups(table.read(session, *period)):
                    columns = [_arrow.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]
                    writer.write_batch(_arrow.record_batch(columns, schema=schema))
                    status.update(f"reading {what}: {(count := count + len(rows)):,}")
    return count


def _field(name: str, type_: Any) -> Any:
    """The column of a type, which may be a union with None."""
    kinds = get_args(type_) or (type_,)
    return _arrow.field(name, _TYPES[kinds[0]], nullable=type(None) in kinds)


async def _groups(rows: AsyncIterator[tuple[Any, ...]]) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
    group: list[tuple[Any, ...]] = []
    async for row in rows:
        group.append(row)
        if len(group) == _AT_ONCE:
            yield group
            group = []
    if group:
        yield group


@contextmanager
def _replacing(file: Path) -> Generator[IO[bytes]]:
    """Opens a new file, which only the owner can read, in the place of another.

    Raises:
        CommandFailed: it can't be written; the other remains.
    """
    try:
        with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
            try:
                yield new
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).replace(file)
            except BaseException:
                Path(new.name).unlink()
                raise
    except OSError as error:
        raise CommandFailed(f"{file} can't be written: {error.strerror or error}") from error
