"""Migrations only add, since the release before runs on the migrated tables as well: docs/operations.md, "Rolling updates"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.shape.repository import ROOT

MIGRATIONS = sorted(path.relative_to(ROOT) for part in ("kit", "services") for path in (ROOT / part).rglob("migrations/[0-9]*.py"))
ADDING = {"create_table", "create_index", "add_column", "alter_column", "drop_index", "bulk_insert", "execute", "get_bind"}
"""Operations of Alembic: https://alembic.sqlalchemy.org/en/latest/ops.html."""
WIDENING = {"type_", "existing_type", "existing_nullable"}
"""What may be said of a column that changes: whether the new type takes what the old one did is for the reader to see."""
REMOVING = re.compile(r"\b(DROP (COLUMN|TABLE)|RENAME|CHANGE|MODIFY|DELETE|TRUNCATE)\b")
REFUSED = {
    'op.drop_table("events")': "drop_table",
    'op.drop_column("events", "referrer")': "drop_column",
    'op.rename_table("events", "views")': "rename_table",
    'op.alter_column("events", "referrer", new_column_name="referer")': "alter_column with new_column_name",
    'op.alter_column("events", "referrer", nullable=False)': "alter_column with nullable",
    'op.drop_index("idx_at", "events")': "drop_index of idx_at, which is not created again",
    'op.create_index("idx_at", "events", ["at"], unique=True)': "create_index of a unique index",
    'op.add_column("events", sa.Column("referrer", sa.Text, nullable=False))': "a column that old pods leave out and that has no default",
    'op.execute("ALTER TABLE events DROP COLUMN referrer")': "execute with DROP COLUMN",
}


def complaints(source: str) -> Iterator[str]:
    """What a migration does that the release before does not stand."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    operations = [(node.func.attr, node) for node in calls if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "op"]
    created = {ast.literal_eval(node.args[0]) for name, node in operations if name == "create_index"}
    for name, node in operations:
        keywords = _keywords(node)
        if name not in ADDING:
            yield name
        elif name == "alter_column":
            yield from (f"alter_column with {each}" for each in sorted(keywords.keys() - WIDENING))
        elif name == "drop_index" and (index := ast.literal_eval(node.args[0])) not in created:
            yield f"drop_index of {index}, which is not created again"
        elif name == "create_index" and "unique" in keywords:
            yield "create_index of a unique index"
        elif name == "add_column" and "nullable=False" in (column := ast.unparse(node.args[1])) and "server_default=" not in column:
            yield "a column that old pods leave out and that has no default"
        elif name == "execute" and (removed := REMOVING.search(ast.unparse(node.args[0]))):
            yield f"execute with {removed.group()}"


def _keywords(call: ast.Call) -> Mapping[str, ast.expr]:
    return {str(each.arg): each.value for each in call.keywords}


@pytest.mark.parametrize("migration", MIGRATIONS, ids=str)
def test_a_migration_only_adds(migration: Path) -> None:
    assert list(complaints((ROOT / migration).read_text())) == []


@pytest.mark.parametrize(("operation", "complaint"), REFUSED.items())
def test_what_the_release_before_does_not_stand_is_refused(operation: str, complaint: str) -> None:
    assert list(complaints(operation)) == [complaint]
