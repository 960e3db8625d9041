"""Runs an import: reads pages, sends several at once, and keeps the progress of those that were answered."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from cli.errors import CommandFailed
from cli.importing.items import Item, Page, Source
from cli.importing.journal import Journal
from cli.importing.sending import Verdicts

PAGES_AT_ONCE: Final = 4
"""Pages that are sent at the same time."""


class _Rate(ProgressColumn):
    """Units a minute."""

    @override
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed * 60:,.0f}/min")


class Receiver(Protocol):
    """Takes records, or says what a mesh would do with them."""

    async def send(self, items: Sequence[Item], /) -> Verdicts:
        """What becomes of some records.

        Raises:
            CommandFailed: the mesh does not answer.
        """
        ...


async def run(source: Source, receiver: Receiver, journal: Journal, console: Console) -> None:
    """Imports what a source has beyond the journal's cursor, with a bar that shows rate and time left.

    Raises:
        CommandFailed: the source can't be read, or the mesh does not answer; the progress is kept.
    """
    columns = (TextColumn("importing"), BarColumn(), MofNCompleteColumn(), TextColumn(source.unit), _Rate(), TimeRemainingColumn())
    failure: CommandFailed | None = None
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=source.total, completed=journal.read)
        try:
            async with asyncio.TaskGroup() as group:
                async for page, sent in _in_order(group, source.pages(journal.cursor), receiver):
                    verdicts = await sent
                    journal.done(page, _counts(page, verdicts), [*page.rejects, *verdicts.rejects])
                    progress.update(task, completed=journal.read, total=source.total)
            journal.finish()
        except* CommandFailed as failures:
            failure = next(each for each in _flat(failures) if isinstance(each, CommandFailed))
    if failure is not None:
        raise CommandFailed(f"{failure}. What was answered is kept: the same command goes on from there.")


async def _in_order(
    group: asyncio.TaskGroup, pages: AsyncIterator[Page], receiver: Receiver
) -> AsyncIterator[tuple[Page, asyncio.Task[Verdicts]]]:
    """Pages in their order, each with its sending, which has begun; as many more are under way as the mesh is to take at once."""
    waiting: deque[tuple[Page, asyncio.Task[Verdicts]]] = deque()
    async for page in pages:
        waiting.append((page, group.create_task(receiver.send(page.items))))
        if len(waiting) == PAGES_AT_ONCE:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def _counts(page: Page, verdicts: Verdicts) -> Counter[str]:
    counts = verdicts.counts + Counter({f"left out: {reason}": count for reason, count in page.skipped.items()})
    if page.rejects:
        counts["unreadable"] += len(page.rejects)
    return counts


def _flat(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    flat: list[BaseException] = []
    for each in group.exceptions:
        flat += _flat(each) if isinstance(each, BaseExceptionGroup) else [each]  # pyright: ignore[reportUnknownArgumentType]
    return flat


def print_counts(console: Console, counts: Counter[str], title: str) -> None:
    """Prints the records by verdict."""
    table = Table("records", "number", title=title, box=SIMPLE, show_edge=False, title_justify="left")
    table.columns[1].justify = "right"
    for name, count in sorted(counts.items()):
        table.add_row(name, f"{count:,}")
    console.print(table)
