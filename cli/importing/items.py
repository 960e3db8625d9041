"""What an import reads: records for the mesh, and what it can't be used of a source. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class Kind(StrEnum):
    """What a record is about, as the REST API's paths name it."""

    USERS = "users"
    REFUNDS = "refunds"
    PURCHASES = "purchases"
    EVENTS = "events"


NAMES: Mapping[Kind, str] = {Kind.USERS: "users", Kind.REFUNDS: "refunds", Kind.PURCHASES: "orders", Kind.EVENTS: "events"}
"""The kinds as a shop calls them."""


@dataclass(frozen=True, slots=True)
class Item:
    """A record as the REST API takes it."""

    kind: Kind
    origin: str
    """Where it was read: `line 12`, `order 1016`. Nothing personal."""
    body: Mapping[str, Any]
    """Fields by the contract's names."""
    order_id: str = ""
    """Of a refund: its order."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was not imported."""

    origin: str
    """As in `Item`."""
    reason: str
    """Why, without values of the record."""


class UnusableError(Exception):
    """A record of a source can't be used. The message states why, without personal values."""


@dataclass(frozen=True, slots=True)
class Page:
    """Records that are sent together."""

    cursor: Mapping[str, Any]
    """From where a source goes on after this page; JSON."""
    items: Sequence[Item] = ()
    rejects: Sequence[Reject] = ()
    skipped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Records that are left out on purpose, by the reason."""
    read: int = 0
    """Units of progress: lines of a file, records of an API."""


class Source(Protocol):
    """Where records come from."""

    @property
    def name(self) -> str:
        """Names its progress in the data folder: the same source has the same name."""
        ...

    @property
    def title(self) -> str:
        """Names it to a person."""
        ...

    @property
    def unit(self) -> str:
        """Unit of its progress, such as `lines`."""
        ...

    @property
    def total(self) -> int | None:
        """Units in all; None while it is unknown."""
        ...

    def pages(self, cursor: Mapping[str, Any]) -> AsyncIterator[Page]:
        """Its records after a cursor, which is empty at the beginning.

        Raises:
            CommandFailed: it can't be read.
        """
        ...
