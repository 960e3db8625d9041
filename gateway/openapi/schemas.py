"""Messages as JSON Schemas: as a caller sends them, and as the gateway answers with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from gateway.openapi.rules import Schema, constraints, item_constraints, sentences

HTTP_BODY: Final = "google.api.HttpBody"
"""The type of bodies that the gateway forwards unchanged."""
_WELL_KNOWN: Final[Mapping[str, Schema]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
}
_WRAPPERS: Final = {
    f"google.protobuf.{name}Value" for name in ("Bool", "String", "Bytes", "Double", "Float", "Int32", "Int64", "UInt32", "UInt64")
}
_WHOLE: Final[Mapping[int, tuple[str, Schema]]] = {
    FieldDescriptor.CPPTYPE_INT32: ("int32", {"minimum": -(2**31), "maximum": 2**31 - 1}),
    FieldDescriptor.CPPTYPE_UINT32: ("int64", {"minimum": 0, "maximum": 2**32 - 1}),
    FieldDescriptor.CPPTYPE_INT64: ("int64", {"minimum": -(2**63), "maximum": 2**63 - 1}),
    FieldDescriptor.CPPTYPE_UINT64: ("uint64", {"minimum": 0, "maximum": 2**64 - 1}),
}
"""Formats and bounds of whole numbers."""
_LONG: Final = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}
"""Whole numbers that JSON writes as text, since JavaScript's numbers can't hold them."""
_DIGITS: Final = "^-?[0-9]+$"


class Location(Enum):
    """Where a value stands: the same type is written differently in each location."""

    BODY = "body"
    """The JSON body of a request."""
    URL = "url"
    """A path or a query."""
    ANSWER = "answer"
    """The JSON body of a response."""


class Schemas:
    """The schemas of one document: a component for each message and enum that it mentions.

    Args:
        comments: the protos' comments by full name.
    """

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._components: dict[str, Schema] = {}

    @property
    def components(self) -> dict[str, Schema]:
        """The schemas by name, in the order of their names."""
        return dict(sorted(self._components.items()))

    def message(self, of: Descriptor, location: Location, without: Collection[str] = ()) -> Schema:
        """A reference to a message's schema, or the schema of a well-known type.

        Args:
            of: the message.
            location: where it stands.
            without: names of fields that it does not have in this location.
        """
        if of.full_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[of.full_name])
        if of.full_name in _WRAPPERS:
            return _or_null(self._scalar(of.fields_by_name["value"], location))
        name = _component(of.full_name, location)
        if name not in self._components:
            self._components[name] = {}  # a message may contain itself
            self._components[name] = self._object(of, location, without)
        return {"$ref": f"#/components/schemas/{name}"}

    def field(self, of: FieldDescriptor, location: Location) -> Schema:
        """The schema of a field's value with its rules and its description."""
        found = constraints(of)
        schema = self._value(of, location)
        if location is not Location.ANSWER:
            schema |= found.keywords
        described = self.described(of.full_name, found.sentences if location is not Location.ANSWER else ())
        return schema | ({"description": described} if described else {})

    def described(self, name: str, rules: Iterable[str] = ()) -> str:
        """The comment on a declaration, and rules as sentences."""
        return "\n\n".join(text for text in (self._comments.get(name, ""), *(f"Rule: {rule}." for rule in rules)) if text)

    def _object(self, of: Descriptor, location: Location, without: Collection[str]) -> Schema:
        fields = [field for field in of.fields if field.name not in without]
        schema: Schema = {"type": "object"}
        if described := self.described(of.full_name, sentences(of) if location is Location.BODY else ()):
            schema["description"] = described
        schema["properties"] = {field.name: self.field(field, location) for field in fields}
        # The gateway's answers have all fields but those that may be unset.
        required = [
            field.name for field in fields if (not field.has_presence if location is Location.ANSWER else constraints(field).is_required)
        ]
        return schema | ({"required": required} if required else {})

    def _value(self, of: FieldDescriptor, location: Location) -> Schema:
        if not of.is_repeated:
            return self._single(of, location)
        entry = of.message_type
        if entry is not None and entry.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self.field(entry.fields_by_name["value"], location)}
        rules = item_constraints(of).keywords if location is not Location.ANSWER else {}
        return {"type": "array", "items": self._single(of, location) | rules}

    def _single(self, of: FieldDescriptor, location: Location) -> Schema:
        if of.message_type is not None:
            return self.message(of.message_type, location)
        return self._scalar(of, location)

    def _scalar(self, of: FieldDescriptor, location: Location) -> Schema:
        kind = of.cpp_type
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            return self._enum(cast("EnumDescriptor", of.enum_type))
        if kind in _WHOLE:
            return _whole(kind, location)
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        if kind in {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}:
            return {"type": "number"}
        return {"type": "string"} | ({"contentEncoding": "base64"} if of.type == FieldDescriptor.TYPE_BYTES else {})

    def _enum(self, of: EnumDescriptor) -> Schema:
        name = _component(of.full_name, Location.ANSWER)
        members: Any = of.values
        meanings = [f"* `{member.name}`: {self.described(f'{of.full_name}.{member.name}')}" for member in members]
        described = "\n".join([self.described(of.full_name), "", *meanings]).strip()
        self._components[name] = {"type": "string", "enum": [member.name for member in members], "description": described}
        return {"$ref": f"#/components/schemas/{name}"}


def _component(full_name: str, location: Location) -> str:
    """The name of a schema: `ingestion.Event` of `pmp.ingestion.v1.Event`, with `Input` if callers send it."""
    package, _, name = full_name.partition(".v1.")
    short = f"{package.removeprefix('pmp.')}.{name}"
    return short if location is Location.ANSWER or name.endswith("Request") else f"{short}Input"


def _whole(kind: int, location: Location) -> Schema:
    form, bounds = _WHOLE[kind]
    if kind not in _LONG or location is Location.URL:
        return {"type": "integer", "format": form, **bounds}
    if location is Location.ANSWER:
        return {"type": "string", "format": form, "pattern": _DIGITS}
    return {"type": ["integer", "string"], "format": form, "pattern": _DIGITS, **bounds}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
