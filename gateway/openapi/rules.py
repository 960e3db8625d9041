"""The rules of protovalidate in the words of JSON Schema. A rule that JSON Schema can't express becomes a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from kit.json_body.essential import rules_of

Schema = dict[str, Any]
"""A JSON Schema."""

_KEYWORDS: Final[Mapping[str, Sequence[str]]] = {
    "const": ("const",),
    "len": ("minLength", "maxLength"),
    "min_len": ("minLength",),
    "max_len": ("maxLength",),
    "pattern": ("pattern",),
    "gt": ("exclusiveMinimum",),
    "gte": ("minimum",),
    "lt": ("exclusiveMaximum",),
    "lte": ("maximum",),
    "min_items": ("minItems",),
    "max_items": ("maxItems",),
    "unique": ("uniqueItems",),
    "min_pairs": ("minProperties",),
    "max_pairs": ("maxProperties",),
}
_FORMATS: Final[Mapping[str, Schema]] = {
    "email": {"format": "email"},
    "hostname": {"format": "hostname"},
    "ip": {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    "ipv4": {"format": "ipv4"},
    "ipv6": {"format": "ipv6"},
    "uri": {"format": "uri"},
    "uri_ref": {"format": "uri-reference"},
    "uuid": {"format": "uuid"},
}
_SELF_EVIDENT: Final = {"finite", "defined_only", "example", "items", "keys", "values"}
"""Rules that JSON or the type implies, or that constrain the parts of a value."""
_RE2_ALONE: Final = re.compile(r"\\[AzQEC]|\\p|\(\?[^:=!]|\[\[:")
"""Syntax of RE2 that ECMA 262 does not have."""


class Constraints:
    """What the rules of a field, or of the items of a list, mean for its schema.

    Args:
        rules: the rules.
        enum: the type of an enum's field.
    """

    def __init__(self, rules: validate_pb2.FieldRules, enum: EnumDescriptor | None = None) -> None:
        self.keywords: Schema = {}
        """Keywords of JSON Schema."""
        self.sentences: list[str] = [each.message or each.expression for each in rules.cel]
        """Rules without a keyword."""
        self.is_required = rules.required
        """Whether the field has to be set."""
        kind = rules.WhichOneof("type")
        if kind is None or rules.ignore == validate_pb2.IGNORE_ALWAYS:
            return
        for rule, value in getattr(rules, kind).ListFields():
            self._add(rule, value, enum)

    def _add(self, rule: FieldDescriptor, value: Any, enum: EnumDescriptor | None) -> None:
        name = rule.name
        if name in _SELF_EVIDENT:
            return
        if isinstance(value, Message) or (name == "pattern" and _RE2_ALONE.search(value)):
            self.sentences.append(f"{name}: `{str(value).strip()}`")
        elif name in _KEYWORDS:
            self.keywords |= dict.fromkeys(_KEYWORDS[name], _json(value, enum))
        elif name in _FORMATS:
            self.keywords |= _FORMATS[name]
        elif name == "in":
            self.keywords["enum"] = [_json(each, enum) for each in value]
        elif name == "not_in":
            self.keywords["not"] = {"enum": [_json(each, enum) for each in value]}
        else:
            self.sentences.append(f"{name}: `{value}`")


def constraints(field: FieldDescriptor) -> Constraints:
    """The rules of a field. A required one without presence must not have its default value."""
    found = Constraints(rules_of(field), field.enum_type)
    if found.is_required and not field.has_presence:
        if field.is_repeated:
            found.keywords = {"minItems": 1, **found.keywords}
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            found.keywords = {"minLength": 1, **found.keywords}
        else:
            found.keywords["not"] = {"const": field.default_value}
    return found


def item_constraints(field: FieldDescriptor) -> Constraints:
    """The rules of each item of a list."""
    return Constraints(rules_of(field).repeated.items, field.enum_type)


def sentences(message: Descriptor) -> list[str]:
    """The rules of a message as a whole."""
    rules = message.GetOptions().Extensions[validate_pb2.message]
    return [each.message or each.expression for each in rules.cel]


def _json(value: Any, enum: EnumDescriptor | None) -> Any:
    """A rule's value as JSON: an enum's member by name, a whole number without fraction."""
    if enum is not None:
        return cast("Any", enum).values_by_number[value].name
    return int(value) if isinstance(value, float) and value.is_integer() else value
