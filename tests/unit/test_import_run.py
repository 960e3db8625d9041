"""How an import keeps its progress, and how much it asks of a mesh at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.__main__ import app
from cli.errors import CommandFailed
from cli.importing.items import Item, Kind, Page, Reject
from cli.importing.journal import Journal
from cli.importing.run import run
from cli.importing.sending import LEAST_IN_BATCH, MOST_BYTES, MOST_IN_BATCH, Verdicts, next_batch, next_size


class Numbers:
    """A source of ten pages with an item each."""

    name, title, unit, total = "numbers", "the numbers", "numbers", 10

    async def pages(self, cursor: Mapping[str, Any]) -> AsyncIterator[Page]:
        for number in range(cursor.get("number", 0), 10):
            item = Item(Kind.EVENTS, f"line {number}", {"number": number})
            yield Page({"number": number + 1}, [item], [Reject(f"line {number}", "odd")] if number % 2 else [], {}, 1)


class Receiver:
    """Takes items, and fails at one of them, the last to be answered. Of the others, later ones are answered sooner."""

    def __init__(self, *, failing: int | None = None) -> None:
        self.taken: list[int] = []
        self._failing = failing

    async def send(self, items: Sequence[Item]) -> Verdicts:
        [item] = items
        number = item.body["number"]
        await asyncio.sleep(0.2 if number == self._failing else 0.01 * (10 - number))
        if number == self._failing:
            raise CommandFailed("the mesh is gone")
        self.taken.append(number)
        return Verdicts(Counter({"events taken": 1}))


def journal(folder: Path, *, again: bool = False) -> Journal:
    return Journal(folder, Numbers.name, Numbers.title, again=again)


async def test_an_import_that_failed_goes_on_with_the_page_that_was_not_answered(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"the mesh is gone\. What was answered is kept"):
        await run(Numbers(), Receiver(failing=4), journal(tmp_path), Console(quiet=True))
    kept = journal(tmp_path)
    assert (kept.cursor, kept.read, kept.counts) == ({"number": 4}, 4, {"events taken": 4, "unreadable": 2})
    receiver = Receiver()
    await run(Numbers(), receiver, kept, Console(quiet=True))
    assert sorted(receiver.taken) == [4, 5, 6, 7, 8, 9]
    done = journal(tmp_path)
    assert (done.read, done.counts) == (10, {"events taken": 10, "unreadable": 5})
    assert done.rejects.read_text().splitlines() == ["where,reason", *(f"line {number},odd" for number in (1, 3, 5, 7, 9))]


async def test_what_a_killed_process_wrote_after_its_progress_is_not_there_twice(tmp_path: Path) -> None:
    await run(Numbers(), Receiver(), journal(tmp_path), Console(quiet=True))
    done = journal(tmp_path)
    with done.rejects.open("a") as file:
        file.write("line 11,cut of")
    assert "cut of" not in journal(tmp_path).rejects.read_text()
    again = journal(tmp_path, again=True)
    assert (again.cursor, again.read, again.rejects.read_text()) == ({}, 0, "")


def test_a_damaged_journal_is_explained(tmp_path: Path) -> None:
    (tmp_path / "numbers.json").write_text("{")
    with pytest.raises(CommandFailed, match="is damaged: remove it, or import with --again"):
        journal(tmp_path)
    assert journal(tmp_path, again=True).cursor == {}


def test_a_call_has_as_many_records_as_are_wanted_and_never_more_bytes_than_the_gateway_takes() -> None:
    left = deque(Item(Kind.EVENTS, "line", {"text": "x" * (MOST_BYTES // 4)}) for _ in range(7))
    assert [len(next_batch(left, 200)), len(next_batch(left, 2)), len(next_batch(left, 200))] == [3, 2, 2]
    alone = deque([Item(Kind.EVENTS, "line", {"text": "x" * 2 * MOST_BYTES})])
    assert len(next_batch(alone, 200)) == 1


def test_calls_that_were_slow_at_the_same_time_halve_the_next_ones_once_and_quick_ones_make_them_larger_again() -> None:
    size = MOST_IN_BATCH
    for _ in range(4):
        size = next_size(size, MOST_IN_BATCH, 6.0)
    assert size == MOST_IN_BATCH // 2
    for _ in range(9):
        size = next_size(size, size, 20.0)
    assert size == LEAST_IN_BATCH
    assert next_size(size, size, 4.0) == size
    for _ in range(9):
        size = next_size(size, size, 1.0)
    assert size == MOST_IN_BATCH


def test_without_a_mesh_the_way_to_one_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_text(json.dumps({"event_type": "page_view"}))
    refusal = CliRunner().invoke(app, ["import", "events", str(file), "--data", str(tmp_path / "nothing")])
    assert refusal.exit_code == 1
    assert "run `pmp up` first" in refusal.stderr


@pytest.mark.parametrize("arguments", [[], ["--url", "https://shop.example", "--csv", "orders.csv"]])
def test_a_shop_is_imported_from_one_place(arguments: list[str]) -> None:
    refusal = CliRunner().invoke(app, ["import", "woocommerce", *arguments])
    assert refusal.exit_code == 1
    assert "name either the shop with --url, or a file with --csv" in refusal.stderr
