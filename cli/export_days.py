"""`pmp export-days`: writes closed days of the exports to a folder or an object store, a Parquet file for each, once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Final

from pyarrow import fs
from rich.console import Console

from cli.arguments import FileFormat
from cli.closed_days import CLOSING, days_between, last_closed
from cli.errors import CommandFailed
from cli.export import export, exports, period_of, zone_of

# pyarrow has no types.
_fs: Final[Any] = fs
_FILE: Final = "part-0.parquet"
_DAY: Final = re.compile(r"day=(\d{4}-\d{2}-\d{2})")


class Store:
    """Where the files are: `WHAT/day=YYYY-MM-DD/part-0.parquet`, a layout that DuckDB, Spark and warehouses read as partitions.

    A file that is there is complete: in a folder it gets its name by a rename, in an object store when its upload is completed.

    Args:
        url: of a folder or of an object store, as pyarrow reads it.

    Raises:
        CommandFailed: pyarrow knows no such URL, or it contains credentials.
    """

    def __init__(self, url: str) -> None:
        if "@" in url.partition("?")[0]:
            raise CommandFailed("credentials don't belong in the URL of a store: they are read from AWS_ACCESS_KEY_ID and the like")
        try:
            self._files, self._root = _fs.FileSystem.from_uri(url)
        except (ValueError, OSError) as error:
            raise CommandFailed(f"{url} is no store, such as s3://bucket/folder or file:///folder: {error}") from error
        self.url = url

    def days(self, what: str) -> set[date]:
        """Returns the days of an export that are there.

        Raises:
            CommandFailed: the store does not answer, or refuses.
        """
        try:
            listed = self._files.get_file_info(_fs.FileSelector(f"{self._root}/{what}", recursive=True, allow_not_found=True))
        except OSError as error:
            raise CommandFailed(f"{self.url} can't be read: {error.strerror or error}") from error
        files = [PurePosixPath(each.path) for each in listed if each.is_file]
        found = [_DAY.fullmatch(file.parent.name) for file in files if file.name == _FILE]
        return {date.fromisoformat(match[1]) for match in found if match}

    async def write(self, what: str, day: date, timezone: str, database_url: str, console: Console) -> int:
        """Writes a day of an export, in the place of the file that may be there, and returns the number of its rows.

        Raises:
            CommandFailed: the database or the store fails; what was there remains.
        """
        path, period = f"{self._root}/{what}/day={day}/{_FILE}", period_of(day, day, timezone)
        try:
            if isinstance(self._files, _fs.LocalFileSystem):
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                return await export(database_url, what, period, form=FileFormat.PARQUET, file=Path(path), console=console)
            # An upload that breaks off may be completed with what was sent, so the whole file is made first.
            with TemporaryDirectory() as folder:
                file = Path(folder) / _FILE
                count = await export(database_url, what, period, form=FileFormat.PARQUET, file=file, console=console)
                _fs.copy_files(str(file), path, source_filesystem=_fs.LocalFileSystem(), destination_filesystem=self._files)
                return count
        except OSError as error:
            raise CommandFailed(f"{what} of {day} can't be written to {self.url}: {error.strerror or error}") from error


async def export_days(
    database_url: str,
    store: Store,
    chosen: Sequence[str],
    first: date | None,
    last: date | None,
    *,
    timezone: str,
    again: bool,
    console: Console,
) -> str:
    """Writes the chosen days, or without any those that are missing since the first that is there, until the last closed one.

    Args:
        database_url: of the databases, with `{service}` for the name of one.
        store: where the files are.
        chosen: names of exports; empty for all.
        first: the first day, or None.
        last: the last day; None for the last closed one.
        timezone: in which days are cut.
        again: also write days that are there.
        console: shows the progress.

    Returns:
        What was done, for the user.

    Raises:
        CommandFailed: there is no such export, a day is not closed, or the database or the store fails.
    """
    if unknown := set(chosen) - set(exports()):
        raise CommandFailed(f"there is no export {min(unknown)!r}: there are {', '.join(sorted(exports()))}")
    closed = last_closed(datetime.now(UTC), zone_of(timezone))
    if (end := last or closed) > closed:
        hours = CLOSING // timedelta(hours=1)
        raise CommandFailed(f"{end} is not closed: that is {hours} hours after its end in {timezone}; the last closed day is {closed}")
    period_of(first, end, timezone)
    wanted = [(day, what) for what in chosen or sorted(exports()) for day in _days(store.days(what), first, end, again=again)]
    rows = 0
    for day, what in sorted(wanted):
        rows += await store.write(what, day, timezone, database_url, console)
    return f"{len(wanted):,} files with {rows:,} rows were written to {store.url}, until {end}"


def _days(there: Collection[date], first: date | None, last: date, *, again: bool) -> Sequence[date]:
    days = days_between(first or min(there, default=last), last)
    return days if again else [day for day in days if day not in there]
