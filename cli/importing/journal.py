"""The progress of an import in the data folder, so that it goes on where it was stopped, however it was stopped."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from cli.errors import CommandFailed
from cli.importing.items import Page, Reject

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_HEADER: Final = ("where", "reason")


class _State(BaseModel):
    """What is kept of an import."""

    source: str
    cursor: dict[str, Any] = Field(default_factory=dict)
    """After the last page of which everything was answered."""
    read: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    """Records by verdict."""
    rejects_bytes: int = 0
    """Length of the file of rejects: what a killed process wrote after it is written again."""
    complete: bool = False


class Journal:
    """The progress of one source.

    Args:
        folder: of all imports; made if it is missing.
        name: of the source.
        title: of the source, for a person who looks at the file.
        again: whether to begin anew.

    Raises:
        CommandFailed: the folder can't be written, or the file is damaged.
    """

    def __init__(self, folder: Path, name: str, title: str, *, again: bool = False) -> None:
        stem = _UNSAFE.sub("-", name)
        self._path = folder / f"{stem}.json"
        self.rejects = folder / f"{stem}.rejects.csv"
        """The file of the records that were not imported."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if again:
                self._path.unlink(missing_ok=True)
            self._state = _State.model_validate_json(self._path.read_bytes()) if self._path.exists() else _State(source=title)
            self._truncate_rejects()
        except OSError as error:
            raise CommandFailed(f"the progress of the import can't be kept: {error}") from error
        except ValidationError as error:
            raise CommandFailed(f"{self._path} is damaged: remove it, or import with --again") from error

    @property
    def cursor(self) -> Mapping[str, Any]:
        """From where to go on; empty at the beginning."""
        return self._state.cursor

    @property
    def read(self) -> int:
        """Units of the source that are done."""
        return self._state.read

    @property
    def counts(self) -> Counter[str]:
        """Records by verdict, over all runs."""
        return Counter(self._state.counts)

    @property
    def is_complete(self) -> bool:
        """The source was read to its end before."""
        return self._state.complete

    @property
    def has_rejects(self) -> bool:
        """Something was not imported."""
        return self._state.rejects_bytes > 0

    def done(self, page: Page, counts: Mapping[str, int], rejects: list[Reject]) -> None:
        """Keeps that everything up to a page was answered. Rejects are written first: none is missing after a crash, or there twice.

        Args:
            page: the page.
            counts: its records by verdict.
            rejects: those that were not imported.
        """
        if rejects:
            self._append(rejects)
        state = self._state
        state.cursor, state.read, state.complete = dict(page.cursor), state.read + page.read, False
        state.counts = dict(Counter(state.counts) + Counter(counts))
        self._save()

    def finish(self) -> None:
        """Keeps that the source was read to its end."""
        self._state.complete = True
        self._save()

    def _append(self, rejects: list[Reject]) -> None:
        text = StringIO()
        writer = csv.writer(text)
        if self._state.rejects_bytes == 0:
            writer.writerow(_HEADER)
        writer.writerows((each.origin, each.reason) for each in rejects)
        with self.rejects.open("ab") as file:
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        self._state.rejects_bytes = self.rejects.stat().st_size

    def _truncate_rejects(self) -> None:
        if self.rejects.exists():
            os.truncate(self.rejects, min(self._state.rejects_bytes, self.rejects.stat().st_size))

    def _save(self) -> None:
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(self._state.model_dump_json(indent=2).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
