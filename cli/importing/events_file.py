"""Events of other tools: NDJSON as the API takes them, or CSV with a mapping. Pure, but for reading the file."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from cli.importing.files import Read, read_table
from cli.importing.items import Item, Kind, UnusableError
from cli.importing.mapping import EVENT_FIELDS, FileMapping
from cli.importing.shop_orders import given, rfc3339, text
from cli.importing.values import moment

REQUIRED: Final = ("timestamp", "event_type")
SOURCE: Final = "import"
_UTM: Final = "utm_"
_NO_TYPE: Final = re.compile(r"[^A-Za-z0-9._:-]+")


class Ids:
    """Ids of events that have none: the same record has the same id in every import, also of a file that has grown."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def of(self, record: bytes) -> str:
        """The id of the next record. Two that are the same, as two clicks in one second may be, have different ones."""
        digest = hashlib.sha256(record).digest()[:16]
        self._seen[digest] += 1
        return f"import:{digest.hex()}:{self._seen[digest]}"


def read_ndjson(file: Path) -> Iterator[Read]:
    """The events of a file with a JSON object on each line. All of them are history."""
    ids = Ids()
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if not line.strip():
                continue
            try:
                record: Any = orjson.loads(line.removeprefix(b"\xef\xbb\xbf"))
            except orjson.JSONDecodeError:
                yield Read(number, reject="the line is no JSON")
                continue
            if not isinstance(record, dict):
                yield Read(number, reject="the line is no JSON object")
                continue
            body: dict[str, Any] = {**record, "historical": True}
            body["id"] = body.get("id") or ids.of(line.strip())
            yield Read(number, items=[Item(Kind.EVENTS, f"line {number}", body)])


def read_events(file: Path, mapping: FileMapping) -> Iterator[Read]:
    """The events of a CSV file.

    Raises:
        CommandFailed: it is no table.
    """
    ids = Ids()
    for row in read_table(file):
        try:
            body = _event(row.cells, mapping)
        except UnusableError as error:
            yield Read(row.line, reject=str(error))
            continue
        body["id"] = body.get("id") or ids.of(orjson.dumps(row.cells, option=orjson.OPT_SORT_KEYS))
        yield Read(row.line, items=[Item(Kind.EVENTS, f"line {row.line}", body)])


def _event(cells: Mapping[str, str], mapping: FileMapping) -> dict[str, Any]:
    values = {field: mapping.cell(cells, field) for field in EVENT_FIELDS}
    utm = {name.removeprefix(_UTM): text(values.pop(name), 255) for name in EVENT_FIELDS if name.startswith(_UTM)}
    at, name = values.pop("timestamp"), values.pop("event_type")
    if not at or not name:
        raise UnusableError("the event has no time or no type")
    return given(
        **values,
        timestamp=rfc3339(moment(at, mapping.zone, mapping.date_format)),
        event_type=event_type(mapping.event_types.get(name, name)),
        utm_parameters=given(**utm),
        metadata=given(**{column: cells.get(column, "") for column in mapping.metadata}),
        source=SOURCE,
        historical=True,
    )


def event_type(name: str) -> str:
    """A type that the contract allows: `Added to cart` is added_to_cart."""
    return _NO_TYPE.sub("_", name.strip()).strip("_")[:100]
