"""What reports consist of: groups and columns with their units and definitions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.analytics.figures import DEFINITIONS, MONEY, Definition

TEXT: Final = "text"
OWN_CURRENCY: Final = ""
"""Unit of amounts in the currency of their row."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a report."""

    key: str
    unit: str
    definition: str


@dataclass(frozen=True, slots=True)
class Report:
    """A report, grouped."""

    name: str
    groups: Mapping[str, str]
    """The columns it can be grouped by, with their definitions; the first is the default."""
    columns: Sequence[Column]
    """The other columns."""
    order: str
    """How it is sorted unless a request says otherwise; empty: by the group."""
    without: Mapping[str, Collection[str]] = field(default_factory=dict[str, Collection[str]])
    """The columns that it lacks when it is grouped so, by group."""

    def of(self, group: str) -> Sequence[Column]:
        """Returns all columns when it is grouped so."""
        others = [_in_own_currency(each) for each in self.columns] if group == "currency" else self.columns
        return [Column(group, TEXT, self.groups[group]), *(each for each in others if each.key not in self.without.get(group, ()))]


def figure(key: str) -> Column:
    """Returns the column of a figure."""
    each: Definition = DEFINITIONS[key]
    return Column(key, each.unit, each.text)


def _in_own_currency(column: Column) -> Column:
    return Column(column.key, OWN_CURRENCY, column.definition) if column.unit == MONEY else column
