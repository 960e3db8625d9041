"""Scrubs messages by their protos."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from pmp.options.v1 import options_pb2

from kit.json_body.essential import rules_of
from kit.scrubbing.fields import holds_text, is_free, text_of
from kit.scrubbing.texts import Clean, TextScrubber

# In serialised numbers this byte occurs as well, followed by the tag of the next field.
_AT: Final = re.compile(rb"@\S")
_WIDE_AT: Final = "\uff20".encode()


@dataclass(frozen=True, slots=True)
class _Plan:
    """The fields of a message that have texts to scrub."""

    texts: Sequence[tuple[str, Clean, int | None]]
    """Fields, with what scrubs them and their maximum length."""
    lists: Sequence[tuple[str, Clean]]
    structs: Sequence[str]
    messages: Sequence[str]
    several: Sequence[str]


class Scrubber:
    """Scrubs messages by their protos. Scrubbing is idempotent.

    Args:
        parameters: further parameters of URLs that keep their values.
    """

    def __init__(self, parameters: Collection[str] = ()) -> None:
        self._plans: dict[type[Message], _Plan] = {}
        self._texts = TextScrubber(parameters)

    def scrub(self, message: Message) -> None:
        """Removes personal data from the texts of a message; changes it in place."""
        plan = self._plans.get(type(message)) or self._planned(message)
        for name, clean, longest in plan.texts:
            value = getattr(message, name)
            if value and (kept := clean(value)) != value:
                setattr(message, name, kept[:longest])
        for name in plan.structs:
            if message.HasField(name):
                self._scrub_struct(getattr(message, name))
        for name in plan.messages:
            if message.HasField(name):
                self.scrub(getattr(message, name))
        for name in plan.several:
            for each in getattr(message, name):
                self.scrub(each)
        for name, clean in plan.lists:
            values = getattr(message, name)
            values[:] = [clean(value) for value in values]

    def _scrub_struct(self, struct: Struct) -> None:
        """Scrubs the keys and texts of free-form data at any depth; changes it in place."""
        serialised = struct.SerializeToString()
        # Most have nothing to scrub, and checking the bytes is cheaper than checking each text.
        if (
            b"%" in serialised
            or b"&" in serialised
            or b"://" in serialised
            or _WIDE_AT in serialised
            or (b"@" in serialised and _AT.search(serialised))
        ):
            self._struct(struct)

    def _struct(self, struct: Struct) -> None:
        names = {name: self._texts.text(name) for name in struct.fields}
        # Sorted, so that of several keys that become the same one, every process keeps the same value.
        for name in sorted(name for name, kept in names.items() if kept != name):
            if names[name] not in struct.fields:
                struct.fields[names[name]].CopyFrom(struct.fields[name])
            del struct.fields[name]
        for value in struct.fields.values():
            self._value(value)

    def _value(self, value: Value) -> None:
        kind = value.WhichOneof("kind")
        if kind == "string_value":
            if (kept := self._texts.text(value.string_value)) != value.string_value:
                value.string_value = kept
        elif kind == "struct_value":
            self._struct(value.struct_value)
        elif kind == "list_value":
            for item in value.list_value.values:
                self._value(item)

    def _planned(self, message: Message) -> _Plan:
        texts: list[tuple[str, Clean, int | None]] = []
        lists: list[tuple[str, Clean]] = []
        structs: list[str] = []
        messages: list[str] = []
        several: list[str] = []
        fields: Any = message.DESCRIPTOR.fields
        for field in fields:
            if field.type == FieldDescriptor.TYPE_STRING and (clean := self._clean(field)):
                if field.is_repeated:
                    lists.append((field.name, clean))
                else:
                    texts.append((field.name, clean, rules_of(field).string.max_len or None))
            elif field.message_type is not None and holds_text(field):
                of = messages if field.message_type is not Struct.DESCRIPTOR else structs
                (several if field.is_repeated else of).append(field.name)
        return self._plans.setdefault(type(message), _Plan(texts, lists, structs, messages, several))

    def _clean(self, field: FieldDescriptor) -> Clean | None:
        kinds: dict[int, Clean] = {options_pb2.TEXT_URL: self._texts.url, options_pb2.TEXT_PARAMETER: self._texts.parameter}
        return kinds.get(text_of(field), self._texts.text) if is_free(field) else None
