"""Which fields of a record are essential: one that is unreadable or invalid refuses the record, any other is left out of it."""

from __future__ import annotations

from typing import Final

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from pmp.options.v1 import options_pb2

_AMOUNTS_AND_CHOICES: Final = {
    FieldDescriptor.CPPTYPE_DOUBLE,
    FieldDescriptor.CPPTYPE_FLOAT,
    FieldDescriptor.CPPTYPE_BOOL,
    FieldDescriptor.CPPTYPE_ENUM,
}


def is_essential(field: FieldDescriptor) -> bool:
    """True where a record without the field would say something else.

    It is required, an id, an amount, a choice, a text that follows a pattern or is one of a list, unless its proto says otherwise.
    """
    options = field.GetOptions()
    if options.HasExtension(options_pb2.essential):
        return options.Extensions[options_pb2.essential]
    rules = rules_of(field)
    has_form = rules.string.HasField("pattern") or getattr(rules.string, "in")
    return bool(rules.required or has_form or is_identity(field) or field.cpp_type in _AMOUNTS_AND_CHOICES)


def is_identity(field: FieldDescriptor) -> bool:
    """True for what distinguishes one record, person or product from another."""
    return field.name in {"id", "reference"} or field.name.endswith("_id")


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The rules that its proto sets for a field."""
    return field.GetOptions().Extensions[validate_pb2.field]
