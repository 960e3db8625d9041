"""Files as sources: known by their content, and read from the line where an import was stopped."""

from __future__ import annotations

import codecs
import csv
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.errors import CommandFailed
from cli.importing.items import Item, Page, Reject

_PIECE: Final = 2**20
_PAGE_LINES: Final = 200
_LARGEST_FIELD: Final = 2**20
_DELIMITERS: Final = ",;\t|"


@dataclass(frozen=True, slots=True)
class Read:
    """What a record of a file gave."""

    line: int
    """The last line of the record, from 1."""
    items: Sequence[Item] = ()
    reject: str = ""
    """Why it can't be used; empty if it can."""
    skipped: str = ""
    """Why it is left out on purpose; empty if it is not."""


class FileSource:
    """A file as a source.

    Args:
        form: the kind of file, such as `stripe`.
        file: its path.
        read: reads its records, in order.
        settings: whatever else decides what is read: with other settings it is another source.

    Raises:
        CommandFailed: it can't be read.
    """

    unit = "lines"

    def __init__(self, form: str, file: Path, read: Callable[[], Iterator[Read]], settings: bytes = b"") -> None:
        self._read = read
        digest = hashlib.sha256(settings)
        lines = 0
        try:
            with file.open("rb") as opened:
                while piece := opened.read(_PIECE):
                    digest.update(piece)
                    lines += piece.count(b"\n")
        except OSError as error:
            raise CommandFailed(f"{file} can't be read: {error.strerror or error}") from error
        self.name = f"{form}-{digest.hexdigest()[:16]}"
        self.title = file.name
        self.total: int | None = lines

    async def pages(self, cursor: Mapping[str, Any]) -> AsyncIterator[Page]:
        """Its records after a line.

        Raises:
            CommandFailed: it is no such file.
        """
        done = int(cursor.get("line", 0))
        page = list[Read]()
        for read in self._read():
            if read.line > done:
                page.append(read)
            if len(page) == _PAGE_LINES:
                yield _page(page, done)
                done, page = page[-1].line, []
        if page:
            yield _page(page, done)


def _page(reads: Sequence[Read], after: int) -> Page:
    return Page(
        cursor={"line": reads[-1].line},
        items=[item for read in reads for item in read.items],
        rejects=[Reject(f"line {read.line}", read.reject) for read in reads if read.reject],
        skipped=Counter(read.skipped for read in reads if read.skipped),
        read=reads[-1].line - after,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table."""

    line: int
    """Its last line in the file, from 1."""
    cells: Mapping[str, str]
    """By column."""


def read_table(file: Path) -> Iterator[Row]:
    """The rows of a CSV file, whatever its encoding (UTF-8, with or without a mark, or Windows) and its delimiter are.

    Raises:
        CommandFailed: it is no table.
    """
    csv.field_size_limit(_LARGEST_FIELD)
    with file.open(encoding=_encoding(file), newline="") as opened:
        header = opened.readline()
        opened.seek(0)
        reader = csv.DictReader(opened, delimiter=max(_DELIMITERS, key=header.count), restkey="", restval="")
        try:
            for cells in reader:
                yield Row(reader.line_num, {name.strip(): value.strip() for name, value in cells.items() if name and value})
        except csv.Error as error:
            raise CommandFailed(f"{file} is no CSV file: line {reader.line_num}: {error}") from error


def read_header(file: Path) -> Sequence[str]:
    """The columns of a CSV file.

    Raises:
        CommandFailed: it can't be read.
    """
    try:
        with file.open(encoding=_encoding(file), newline="") as opened:
            header = opened.readline()
    except OSError as error:
        raise CommandFailed(f"{file} can't be read: {error.strerror or error}") from error
    return [name.strip() for name in next(csv.reader([header], delimiter=max(_DELIMITERS, key=header.count)), list[str]())]


def _encoding(file: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with file.open("rb") as opened:
        try:
            while piece := opened.read(_PIECE):
                decoder.decode(piece)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"
