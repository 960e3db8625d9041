"""Column types that store the same values in MySQL and in SQLite."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, Numeric, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

FROM_TOPICS: Final = {"from_topics": True}
"""Marks the metadata of a service whose tables follow from the topics it reads, and nothing else: a replay empties them first."""
MYSQL: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
"""Options of every table in MySQL."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored as UTC in DATETIME(6). Servers round or truncate finer values, so none are sent."""

    impl = DateTime
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else DateTime())

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if dialect.name == "mysql":
            return _utc_text(value)
        return value.astimezone(UTC).replace(tzinfo=None)

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Id(TypeDecorator[str]):
    """An id that is compared byte by byte: in MySQL's default collation `A` and `a` are equal."""

    impl = String
    cache_ok = True

    def __init__(self, length: int = 255) -> None:
        super().__init__(length)
        self.length = length

    @override
    def load_dialect_impl(self, dialect: Dialect) -> Any:
        own = mysql.VARCHAR(self.length, charset="utf8mb4", collation="utf8mb4_bin")
        return dialect.type_descriptor(own if dialect.name == "mysql" else String(self.length))


class Exact(TypeDecorator[Decimal]):
    """A decimal that is stored exactly. SQLite has no decimals and would store a binary fraction: there it is text."""

    impl = Numeric
    cache_ok = True

    def __init__(self, precision: int = 19, scale: int = 4) -> None:
        super().__init__(precision, scale)
        self.precision = precision
        self.scale = scale

    @override
    def load_dialect_impl(self, dialect: Dialect) -> Any:
        own: Any = String(self.precision + 2) if dialect.name == "sqlite" else Numeric(self.precision, self.scale)
        return dialect.type_descriptor(own)

    @override
    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return f"{value.quantize(Decimal(1).scaleb(-self.scale), ROUND_HALF_UP):f}"

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


LongText: Final = Text().with_variant(mysql.LONGTEXT(), "mysql")
"""Text of more than the 64 KiB that MySQL's TEXT holds."""
Serial: Final = BigInteger().with_variant(Integer(), "sqlite")
"""An autoincrement key: SQLite has these only for a column declared INTEGER."""


@lru_cache(4096)
def _utc_text(value: datetime) -> str:
    """Formats a time as SQL. Cached, since many rows of a statement share it, and the driver's own formatting is slow."""
    return value.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")
