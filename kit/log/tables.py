"""The kit's own tables, one set in each service's database. The migrations of the branch `kit` create them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

from kit.database.columns import Id, UtcDateTime

_metadata = MetaData()


def _partition() -> list[Column[object]]:
    return [Column("topic", Id(100), primary_key=True), Column("partition", Integer, primary_key=True)]


offsets = Table("stream_offsets", _metadata, *_partition(), Column("position", Id(41)))
"""The offset this service has read of each partition; committed in the transaction that writes the effect."""

outbox = Table(
    "outbox",
    _metadata,
    *_partition(),
    Column("position", BigInteger, primary_key=True),
    Column("pack", LargeBinary),
    Column("created_at", UtcDateTime),
)
"""Messages committed with the change they report; a row is an entry of the topic."""

outbox_heads = Table("outbox_heads", _metadata, *_partition(), Column("position", BigInteger))
"""The last offset assigned in each partition of a topic."""

books = Table(
    "books",
    _metadata,
    *_partition(),
    Column("hour", Integer, primary_key=True),
    Column("outcome", Id(32), primary_key=True),
    Column("count", BigInteger),
)
"""What became of the messages received in an hour."""

erased_rows = Table(
    "erased_rows",
    _metadata,
    Column("task", Id(128), primary_key=True),
    Column("table_name", Id(64), primary_key=True),
    Column("count", BigInteger),
)
"""How many rows a task has erased; written in the transaction that erases them."""

log_counters = Table(
    "log_counters",
    _metadata,
    *_partition(),
    Column("epoch", Id(36), primary_key=True),
    Column("hour", Integer, primary_key=True),
    Column("name", Id(32), primary_key=True),
    Column("count", BigInteger),
)
"""The counters of each writer (`epoch`): copied from the log, and recorded by the writer itself."""

dead_letters = Table(
    "dead_letters",
    _metadata,
    Column("id", BigInteger, primary_key=True),
    Column("topic", Id(100)),
    Column("partition", Integer),
    Column("position", Id(41)),
    Column("ordinal", Integer),
    Column("hour", Integer),
    Column("type", String(255)),
    Column("payload", LargeBinary),
    Column("traceparent", String(64)),
    Column("reason", String(255)),
    Column("state", Id(16)),
    Column("created_at", UtcDateTime),
)
"""Messages set aside: `dead` waits for an operator, `retrying` for the consumer; `dropped` is settled."""

topic_state = Table(
    "topic_state",
    _metadata,
    Column("topic", Id(100), primary_key=True),
    Column("key", Id(600), primary_key=True),
    Column("partition", Integer),
    Column("position", BigInteger),
    Column("ordinal", Integer),
    Column("payload", LargeBinary),
)
"""The newest message of each key of a topic, and where it was published: the topic's history."""
