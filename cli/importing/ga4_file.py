"""Events of Google Analytics 4, as it exports them to BigQuery. Pure, but for reading the file.

An exported event has no id: it is known by its visitor, time, name and place in its batch. Google restates a day for three days, so
only what it does not restate becomes content of the event.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from pyarrow import parquet

from cli.errors import CommandFailed
from cli.importing.events_file import SOURCE, event_type
from cli.importing.files import Read
from cli.importing.items import Item, Kind, UnusableError
from cli.importing.shop_orders import given, rfc3339, text

_KEY: Final = ("user_pseudo_id", "event_timestamp", "event_name", "batch_page_id", "batch_ordering_id", "batch_event_index")
_VALUES: Final = ("string_value", "int_value", "float_value", "double_value")
_KEPT: Final = frozenset(
    {
        *("transaction_id", "value", "currency", "coupon", "method", "search_term", "link_url", "file_name", "form_id", "form_name"),
        *("percent_scrolled", "video_title", "video_url", "engagement_time_msec", "item_list_name"),
    }
)
"""Parameters that become metadata."""
_UTM: Final = {
    "source": "manual_source",
    "medium": "manual_medium",
    "campaign": "manual_campaign_name",
    "term": "manual_term",
    "content": "manual_content",
}
_ITEM: Final = ("item_id", "item_name", "item_category", "quantity", "price")
_MOST_ITEMS: Final = 20
_NO_ID: Final = re.compile(r"[^A-Za-z0-9._:-]+")
_PARQUET_ROWS: Final = 1000
# pyarrow has no types.
_parquet: Final[Any] = parquet


def read_ga4(file: Path, *, wordpress_users: bool) -> Iterator[Read]:
    """The events of a file: NDJSON, gzipped or not, or Parquet.

    Args:
        file: an extract of a table `events_YYYYMMDD`.
        wordpress_users: the site gives its WordPress user id to GA4.

    Raises:
        CommandFailed: it is no such file.
    """
    for number, record in enumerate(_records(file), start=1):
        if record is None:
            yield Read(number, reject="the line is no JSON object")
            continue
        try:
            yield Read(number, items=[Item(Kind.EVENTS, f"line {number}", _event(record, wordpress_users=wordpress_users))])
        except UnusableError as error:
            yield Read(number, reject=str(error))


def _records(file: Path) -> Iterator[Mapping[str, Any] | None]:
    """The records of a file; None for a line that is no JSON object."""
    with file.open("rb") as opened:
        magic = opened.read(4)
    if magic == b"PAR1":
        for batch in _parquet.ParquetFile(file).iter_batches(_PARQUET_ROWS):
            yield from batch.to_pylist()
        return
    try:
        with gzip.open(file) if magic[:2] == b"\x1f\x8b" else file.open("rb") as opened:
            for line in opened:
                try:
                    record: Any = orjson.loads(line)
                except orjson.JSONDecodeError:
                    record = None
                yield record if isinstance(record, dict) else None
    except (OSError, EOFError) as error:
        raise CommandFailed(f"{file} can't be read: {error}") from error


def _event(record: Mapping[str, Any], *, wordpress_users: bool) -> dict[str, Any]:
    """The event of a record.

    Raises:
        UnusableError: it has no time or no name.
    """
    parameters = _parameters(record.get("event_params") or ())
    visitor, user = str(record.get("user_pseudo_id") or ""), str(record.get("user_id") or "")
    name = event_type(str(record.get("event_name") or ""))
    if not name:
        raise UnusableError("the event has no name")
    session = parameters.get("ga_session_id")
    device: Mapping[str, Any] = record.get("device") or {}
    geo: Mapping[str, Any] = record.get("geo") or {}
    items: Iterable[Mapping[str, Any]] = record.get("items") or ()
    metadata = {
        **{key: value for key, value in parameters.items() if key in _KEPT},
        "device": device.get("category"),
        "country": geo.get("country"),
        "items": [given(**{field: each.get(field) for field in _ITEM}) for each in [*items][:_MOST_ITEMS]],
    }
    return given(
        id=f"ga4:{hashlib.sha256(orjson.dumps([str(record.get(key) or '') for key in _KEY])).hexdigest()[:32]}",
        timestamp=rfc3339(_time(record)),
        event_type=name,
        user_id=user if wordpress_users and user.isdecimal() else "",
        session_id=f"ga4:{_NO_ID.sub('-', visitor)}.{session}" if visitor and session else "",
        page_url=text(str(parameters.get("page_location") or ""), 4096),
        page_title=text(str(parameters.get("page_title") or ""), 500),
        referrer=text(str(parameters.get("page_referrer") or ""), 4096),
        utm_parameters=_utm(record, parameters),
        metadata=given(**metadata),
        platform="ga4",
        source=SOURCE,
        historical=True,
    )


def _time(record: Mapping[str, Any]) -> datetime:
    try:
        return datetime.fromtimestamp(int(record["event_timestamp"]) / 1_000_000, UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise UnusableError("the event has no time") from None


def _parameters(parameters: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of an event by their names. BigQuery writes whole numbers as texts."""
    found: dict[str, Any] = {}
    for parameter in parameters:
        value: Mapping[str, Any] = parameter.get("value") or {}
        found[str(parameter.get("key"))] = next((value[kind] for kind in _VALUES if value.get(kind) not in (None, "")), None)
    return found


def _utm(record: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, str]:
    """The campaign of the event itself, not the one that Google attributes to its user or session."""
    collected: Mapping[str, Any] = record.get("collected_traffic_source") or {}
    found = {name: str(collected.get(field) or parameters.get(name) or "") for name, field in _UTM.items()}
    return given(**{name: text(value, 255) for name, value in found.items() if not value.startswith("(")})
