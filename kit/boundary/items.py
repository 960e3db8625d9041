"""Requests with a list of records: each record is read and validated by itself, so that an invalid one does not affect the others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor

from kit.boundary.nobody import forget_nobody
from kit.boundary.validation import broken_still, validate
from kit.errors import InvalidRequest, Violation
from kit.json_body.essential import rules_of
from kit.json_body.notes import Notes
from kit.json_body.reader import JsonReader
from kit.json_body.values import parse

NOTHING: Final = Notes()
"""The notes on a record without any."""


@dataclass(frozen=True, slots=True)
class Items:
    """What is remarkable about the records of one request, by their index."""

    notes: Mapping[int, Notes]
    broken: Mapping[int, Sequence[Violation]]
    """The rules that they break, with paths within the record."""
    ignored: Sequence[str]
    """Unknown fields beside the records."""


@dataclass(slots=True)
class _Read:
    """Notes on a JSON body."""

    notes: dict[int, Notes] = field(default_factory=dict[int, Notes])
    ignored: Sequence[str] = ()


class ItemsReader:
    """Reads the requests of one rpc that takes a list of records.

    Args:
        request: the type of the requests.
        name: the field of the list; its proto bounds the number of records.
        timezone: of times without a zone.
    """

    def __init__(self, request: Descriptor, name: str, timezone: tzinfo) -> None:
        of = request.fields_by_name[name]
        self._name = name
        self._most = rules_of(of).repeated.max_items
        self._reader = JsonReader(cast("Descriptor", of.message_type), timezone)
        self._in_record = re.compile(rf"{name}\[(?P<number>\d+)\](\.(?P<field>.+))?")

    def read(self, request: Any, nobody: str = "") -> Items:
        """Reads the JSON body, if there is one, and validates the records. What may be left out of a record is left out.

        Args:
            request: as received; changed in place.
            nobody: replaces ids of nobody.

        Raises:
            InvalidRequest: the body is not JSON or has no list of records, or there are too many or none.
        """
        may_leave_out = request.HasField("json_body") and not request.strict
        read = self._body(request)
        forget_nobody(request, nobody)
        broken = self._by_record(validate(request))
        for number in broken if may_leave_out else ():
            notes = read.notes.setdefault(number, Notes())
            broken[number] = broken_still(getattr(request, self._name)[number], broken[number], notes)
        return Items(read.notes, broken, read.ignored)

    def _body(self, request: Any) -> _Read:
        """Reads a JSON body: a record for each element, whatever the element is."""
        sent: bytes = request.json_body.data
        if not sent:
            return _Read()
        body = parse(sent)
        request.ClearField("json_body")
        request.ClearField(self._name)
        elements: Any = body.get(self._name) if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not isinstance(elements, list):
            raise InvalidRequest([Violation(self._name, "is not a list")])
        beside = Notes()
        for name in body:  # pyright: ignore[reportUnknownVariableType]
            if name not in {self._name, "strict"}:
                beside.ignore("", name)  # pyright: ignore[reportUnknownArgumentType]
        if request.strict and beside.ignored:
            raise InvalidRequest(beside.strict())
        found: dict[int, Notes] = {}
        notes, records, strict = Notes(), getattr(request, self._name), request.strict
        # One more than allowed is enough to break that rule; the rest need not be read.
        for number, element in enumerate(elements[: self._most + 1]):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            self._reader.add(records, element, notes)
            if strict:
                notes.violations = [*notes.strict()]
            if notes.is_remarkable:
                found[number], notes = notes, Notes()
        return _Read(found, beside.ignored)

    def _by_record(self, broken: Iterable[Violation]) -> dict[int, list[Violation]]:
        """Returns the rules that records break, by their index.

        Raises:
            InvalidRequest: The request breaks rules of its own.
        """
        of_records: dict[int, list[Violation]] = defaultdict(list)
        of_request: list[Violation] = []
        for violation in broken:
            path = self._in_record.fullmatch(violation.field)
            if path is None:
                of_request.append(violation)
            else:
                of_records[int(path["number"])].append(Violation(path["field"] or "", violation.description))
        if of_request:
            raise InvalidRequest(of_request)
        return of_records
