"""The table of persons' keys, in a database of its own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy import Column, LargeBinary, MetaData, SmallInteger, Table
from sqlalchemy.exc import SQLAlchemyError

from kit.database.columns import Id, UtcDateTime
from kit.errors import Unavailable

keys = Table(
    "subject_keys",
    MetaData(),
    Column("owner", Id(32), primary_key=True),
    Column("generation", SmallInteger, primary_key=True),
    Column("wrapped", LargeBinary),
    Column("wrapped_by", Id(16)),
    Column("created_at", UtcDateTime),
    Column("destroyed_at", UtcDateTime),
)
"""A keyed digest of the identifier in hex, the wrapped key, and the id of the key that wrapped it. A destroyed key leaves its row
without the key, as a tombstone."""


@contextmanager
def outages() -> Generator[None]:
    """Raises Unavailable for any failure of the database of keys, so that the caller retries and nothing becomes a dead letter."""
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        message = "the keys of persons are out of reach"
        raise Unavailable(message) from error
